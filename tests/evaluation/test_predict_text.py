"""Predicting texts: what evaluation gives, whatever stands beside a text; every task has its form."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from dlcli.architectures import ARCHITECTURES
from dlcli.data.examples import Data, DataInfo
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.data.text.tokenizer import Tokenizer
from dlcli.data.text.tokenizers import word
from dlcli.errors import DlcliError
from dlcli.evaluation import predict_text
from dlcli.evaluation.evaluate import predict_examples
from dlcli.evaluation.predict import predict_run
from dlcli.evaluation.predict_text import PREDICTORS, Reader, predict_texts
from dlcli.evaluation.prediction_files import prediction_record, predictions_table, write_predictions
from dlcli.recipe.schema import Recipe, Spec
from dlcli.tasks import TASKS
from dlcli.training.build import build_models

WORDS = ["a", "film", "of", "some", "wit", "and", "charm", "that", "no", "one", "will", "forget"]
SMALL = {
    "rnn": {"units": [6], "embedding_width": 6},
    "text_cnn": {"filters": 6, "embedding_width": 6},
    "fasttext": {"buckets": 20, "embedding_width": 6},
    "transformer": {"num_layers": 2, "num_heads": 2, "width": 8},
    "bert": {"num_layers": 2, "num_heads": 2, "width": 8},
}


def documents(count=150, longest=30):
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, random.integers(1, longest))) for _ in range(count)]


def recipe(task="text_classification", architecture="rnn", **dataset):
    return Recipe(
        task=task,
        dataset={"name": "text_csv", "text": "review", "tokenizer": "word", "max_length": 20, **dataset},
        architecture={"name": architecture, **SMALL.get(architecture, {})},
    )


def models(recipe, target="classes", names=("neg", "pos")):
    examples = TextExamples({"text": Texts.of(documents())}, np.zeros(150, np.int32))
    tokenizer = Tokenizer(word(documents()).to_str())
    info = DataInfo("text", (), target, names, tokenizer=tokenizer, max_length=20)
    keras.utils.set_random_seed(0)
    built = build_models(recipe, Data(examples, None, None, info, None))
    scale = 1 if recipe.architecture.name in ("transformer", "bert") else 4  # so that texts differ
    built.network.set_weights([scale * weight for weight in built.network.get_weights()])
    return built, examples


@pytest.fixture(scope="module")
def trained():
    """Weights as they start: what is predicted does not matter here, but that it is the same everywhere."""
    return models(recipe(architecture="fasttext"))[0].predictor


def outputs(model, inputs, recipe=recipe()):  # noqa: B008 - never changed
    rows = list(predict_texts(model, recipe, inputs))
    assert [row.error for row in rows] == [None] * len(rows)
    return np.stack([row.outputs for row in rows])


@pytest.mark.parametrize(("pooling", "architecture"), [("mean", "fasttext"), ("first", "rnn")])
def test_predictions_are_what_evaluate_scores(pooling, architecture):
    settings = recipe({"name": "text_classification", "pooling": pooling}, architecture)
    if architecture == "rnn":
        simple = {"name": "rnn", "cell": "simple_rnn", "units": [6], "embedding_width": 6, "pooling": "none"}
        settings = settings.model_copy(update={"architecture": Spec.model_validate(simple)})
    built, examples = models(settings)
    scored = predict_examples(built.predictor, built.task.sequences(examples), 64)
    found = outputs(built.predictor, documents(), settings)
    np.testing.assert_allclose(found, scored, rtol=0, atol=1e-6)
    assert np.ptp(found[:, 0]) > 1e-3


@pytest.mark.parametrize("architecture", [name for name in SMALL if name in ARCHITECTURES])
def test_padding_does_not_change_a_prediction(architecture):
    settings = recipe(architecture=architecture)
    model = models(settings)[0].predictor
    short, long = "some wit", " ".join(WORDS + WORDS[:6])
    alone = outputs(model, [short], settings)[0]
    beside = outputs(model, [short, long], settings)
    np.testing.assert_allclose(beside[0], alone, atol=1e-5)
    assert abs(beside[1] - beside[0]).max() > 1e-4


def test_order_and_errors_survive_sorting_by_length(trained, monkeypatch):
    monkeypatch.setattr(predict_text, "WINDOW", 8)
    monkeypatch.setattr(predict_text, "TEXT_BATCH_SIZE", 3)
    inputs = documents(30)
    expected = outputs(trained, inputs)
    inputs[7] = inputs[20] = " "
    rows = list(predict_texts(trained, recipe(), inputs))
    assert [index for index, row in enumerate(rows) if row.error] == [7, 20]
    for index, row in enumerate(rows):
        if index not in (7, 20):
            np.testing.assert_allclose(row.outputs, expected[index], atol=1e-6)
            assert row.input[:10] == inputs[index][:10]


def test_texts_are_read_as_the_model_goes(trained, monkeypatch):
    monkeypatch.setattr(predict_text, "WINDOW", 4)
    taken = []

    def lines():
        for index in range(1000):
            taken.append(index)
            yield "a film"

    rows = predict_texts(trained, recipe(), lines())
    next(rows)
    assert len(taken) <= 2 * 4
    rows.close()


def test_long_texts_make_small_windows(trained, monkeypatch):
    monkeypatch.setattr(predict_text, "WINDOW_CHARACTERS", 100)
    sizes = []
    monkeypatch.setattr(
        predict_text, "predict_classes",
        lambda reader, texts, real=predict_text.predict_classes: sizes.append(len(texts)) or real(reader, texts),
    )  # fmt: skip
    list(predict_texts(trained, recipe(), ["a film " * 6] * 10))
    assert max(sizes) == 3 and sum(sizes) == 10


def test_what_was_cut_or_unknown_is_said_once(trained, capsys):
    list(predict_texts(trained, recipe(), ["a film " * 11, "a film", "wit " * 21]))
    said = capsys.readouterr().err
    assert said.count("2 of 3 texts are longer than the 20 tokens") == 1
    assert "unknown" not in said
    list(predict_texts(trained, recipe(), ["ein guter Film", "a film"]))
    said = capsys.readouterr().err
    assert "40 % of the tokens" not in said and "longer" not in said
    list(predict_texts(trained, recipe(), ["ein guter Streifen", "a film"]))
    assert "60 % of the tokens are unknown" in capsys.readouterr().err


def test_the_input_decides_what_is_read(trained, tmp_path):
    (tmp_path / "x.csv").write_text("review,label\na film,1\nno wit,0\n")
    run = SimpleNamespace(model=trained, recipe=recipe())
    rows = list(predict_run(run, [str(tmp_path / "x.csv"), "a film"], top=1))
    assert [row.input for row in rows] == [f"{tmp_path}/x.csv row 1", f"{tmp_path}/x.csv row 2", "a film"]
    np.testing.assert_allclose(rows[2].outputs, rows[0].outputs, atol=1e-6)
    assert len(rows[0].top) == 1
    with pytest.raises(DlcliError, match="--context is for question_answering"):
        list(predict_run(run, ["a film"], context="It rains."))


def test_labels(tmp_path):
    settings = recipe()
    model = models(settings, "labels", ("sad", "long"))[0].predictor
    (row,) = predict_texts(model, settings, ["a film"])
    assert set(row.labels) <= {"sad", "long"}
    assert set(prediction_record(row)["probabilities"]) == {"sad", "long"}


# Tasks that answer with a text


def test_every_task_of_texts_predicts_or_says_what_to_do_instead(trained):
    from dlcli.tasks import READS

    of_texts = {name for name in TASKS if set(READS[name]) & {"text", "pairs", "questions", "tagged"}}
    assert of_texts == set(PREDICTORS) | {"language_modeling"}
    with pytest.raises(DlcliError, match="dlcli generate"):
        list(predict_texts(trained, recipe("language_modeling"), ["a film"]))


@pytest.fixture
def answering(trained, monkeypatch):
    """Each task's own function, replaced by one that shows what it was given."""
    monkeypatch.setattr(
        "dlcli.evaluation.translation.predict_translations",
        lambda model, arguments, texts: [f"{text} ({arguments['beam_size']})" for text in texts],
    )
    monkeypatch.setattr(
        "dlcli.tasks.token_classification.predict_tags",
        lambda model, arguments, sentences: [[(word, "O") for word in text.split()] for text in sentences],
    )
    monkeypatch.setattr(
        "dlcli.tasks.question_answering.predict_answers",
        lambda model, arguments, questions, contexts: [
            (context[:2], 0.25) for _, context in zip(questions, contexts, strict=True)
        ],
    )
    return trained


def test_the_form_of_each_answer(answering, tmp_path):
    def records(task, *inputs, **more):
        rows = list(predict_texts(answering, recipe(task), inputs, **more))
        write_predictions(rows, tmp_path / "x.json")
        assert json.loads((tmp_path / "x.json").read_text()) == [prediction_record(row) for row in rows]
        write_predictions(rows, tmp_path / "x.csv")
        with (tmp_path / "x.csv").open(newline="") as file:
            return [prediction_record(row) for row in rows], list(csv.reader(file)), predictions_table(rows)

    found, rows, table = records({"name": "translation", "beam_size": 3}, "a film", "")
    assert found == [
        {"input": "a film", "text": "a film (3)"},
        {"input": "(empty)", "error": "the text is empty"},
    ]
    assert rows == [
        ["input", "text", "error"],
        ["a film", "a film (3)", ""],
        ["(empty)", "", "the text is empty"],
    ]
    assert [str(column.header) for column in table.columns] == ["input", "text"]
    found, rows, _ = records("token_classification", "a film")
    assert found == [{"input": "a film", "text": "a/O film/O", "tags": [["a", "O"], ["film", "O"]]}]
    found, rows, table = records("question_answering", "what?", context="a film of wit")
    assert found == [{"input": "what?", "text": "a ", "score": 0.25}]
    assert rows == [["input", "text", "score", "error"], ["what?", "a ", "0.25", ""]]
    assert [str(column.header) for column in table.columns] == ["input", "text", "score"]


def test_a_model_without_a_vocabulary_is_refused():
    with pytest.raises(ValueError, match="model of texts"):
        Reader.of(keras.Sequential([keras.Input((2,))]), "text_classification", {}, 1)
