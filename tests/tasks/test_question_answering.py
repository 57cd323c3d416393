"""Question answering: windows, targets, the loss by hand, and whole trainings on questions made up here."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlcli.data.examples import DataInfo
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.data.text.tokenizer import Tokenizer
from dlcli.data.text.tokenizers import bpe, byte, word
from dlcli.errors import DataError, DlcliError
from dlcli.evaluation.evaluate import evaluate_run
from dlcli.layers.answer_logits import NEVER, AnswerLogits
from dlcli.layers.tokens import Tokens
from dlcli.recipe.load import load_recipe
from dlcli.runs import Run, load_run
from dlcli.tasks.question_answering import QuestionAnswering, SpanAccuracy, SpanLoss, predict_answers
from dlcli.training.train import train

CONTEXT = "Rome is old, Oslo is cold and Lima is far away."
TOKENIZER = Tokenizer(word([CONTEXT, "Which town is cold ?"]).to_str())


def task(
    max_length: int = 32, tokenizer: Tokenizer = TOKENIZER, unanswered: bool = False, **arguments
) -> QuestionAnswering:
    info = DataInfo("questions", (), "spans", tokenizer=tokenizer, max_length=max_length)
    targets = np.array([[-1, -1] if unanswered else [0, 4]], np.int32)
    return QuestionAnswering(info, targets, **({"max_question_length": 8} | arguments))


def examples(answer: str, question: str = "Which town is cold?", context: str = CONTEXT) -> TextExamples:
    start = context.find(answer) if answer else -1
    columns = {"question": question, "context": context, "answers": json.dumps([answer] if answer else [])}
    span = [start, start + len(answer)] if answer else [-1, -1]
    return TextExamples(
        {name: Texts.of([text]) for name, text in columns.items()}, np.array([span], np.int32)
    )


def window(sequences, index: int) -> tuple[list[str], tuple[int, int]]:
    """The tokens of a window and its target."""
    ids = sequences.read(tf.constant([index])).numpy()[0]
    return [TOKENIZER.token(each) for each in ids], tuple(sequences.targets[index].tolist())


def test_a_question_and_its_context_become_one_sequence() -> None:
    tokens, (start, end) = window(task().sequences(examples("Oslo is cold")), 0)
    question = ["<start>", "which", "town", "is", "cold", "?", "<end>"]
    context = [
        "rome",
        "is",
        "old",
        ",",
        "oslo",
        "is",
        "cold",
        "and",
        "lima",
        "is",
        "far",
        "away",
        ".",
        "<end>",
    ]
    assert tokens == [*question, *context]
    assert tokens[start : end + 1] == ["oslo", "is", "cold"]


def test_a_long_context_becomes_overlapping_windows() -> None:
    sequences = task(max_length=16, stride=4, max_question_length=5).sequences(examples("Oslo"))
    windows = [window(sequences, index) for index in range(len(sequences))]
    parts = [tokens[7:-1] for tokens, _ in windows]  # 8 tokens of the context fit
    assert [part[0] for part in parts] == ["rome", "oslo", "lima"]
    assert all(len(tokens) <= 16 for tokens, _ in windows)
    assert parts[0][4:] == parts[1][:4], "stride is the distance of the starts"
    assert parts[-1][-1] == "."
    # "Oslo" stands in the first two windows; where it does not, the target is the first position.
    assert [target for _, target in windows] == [(11, 11), (7, 7), (0, 0)]


def test_no_token_is_lost_between_windows_of_a_large_stride() -> None:
    sequences = task(max_length=16, stride=1000, max_question_length=5).sequences(examples("Oslo"))
    parts = [window(sequences, index)[0][7:-1] for index in range(len(sequences))]
    assert [token for part in parts for token in part] == [
        TOKENIZER.token(i) for i in TOKENIZER.encode([CONTEXT])[0]
    ]


def test_a_long_question_is_cut_and_a_short_max_length_is_refused() -> None:
    tokens, _ = window(task(max_question_length=2).sequences(examples("Oslo")), 0)
    assert tokens[:5] == ["<start>", "which", "town", "<end>", "rome"]
    with pytest.raises(DataError, match=r"max_length 11 leaves no room .* raise it to 12 at least"):
        task(max_length=11).sequences(examples("Oslo"))


def test_a_text_that_spells_special_tokens_is_still_one_text() -> None:
    tokens, (start, end) = window(
        task().sequences(examples("Oslo", context="See <end> or <pad> in Oslo .")), 0
    )
    assert tokens.count("<end>") == 2
    assert "<pad>" not in tokens
    assert tokens[start : end + 1] == ["oslo"]


@pytest.mark.parametrize("learn", [bpe, byte])
def test_pieces_and_bytes_find_the_answer_too(learn) -> None:
    context = "In Zürich and in Oslo 北京 stands."
    tokenizer = Tokenizer(learn([context] * 3).to_str())
    windowed = task(max_length=80, tokenizer=tokenizer)._windows(examples("北京", context=context))
    start, end = windowed.sequences.targets[0] + windowed.shifts[0]
    covered = windowed.offsets[0][start : end + 1]
    assert context[covered[0][0] : covered[-1][1]].strip() == "北京"


def test_answers_that_fit_into_no_window_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    built = task(max_length=13, stride=1)
    assert not built.sequences(examples("Oslo is cold and Lima is far"), training=True).targets.any()
    assert "1 of 1 answers are learnt as missing" in capsys.readouterr().err


def test_loss_and_accuracy_by_hand() -> None:
    start = np.log([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]])
    end = np.log([[0.2, 0.2, 0.6], [0.1, 0.8, 0.1]])
    logits = np.stack([start, end], axis=-1).astype("float32")  # (2, 3, 2)
    targets = np.array([[1, 2], [0, 0]], np.int32)
    expected = -(np.log(0.7) + np.log(0.6) + np.log(0.5) + np.log(0.1)) / 4
    assert float(SpanLoss()(targets, logits)) == pytest.approx(expected, rel=1e-5)
    accuracy = SpanAccuracy()
    accuracy.update_state(targets, logits)
    assert float(accuracy.result()) == 0.5


def test_only_the_context_and_the_first_position_can_hold_an_answer() -> None:
    tokens = np.array([[2, 7, 8, 3, 9, 10, 3, 0, 0], [2, 7, 3, 3, 0, 0, 0, 0, 0]], np.int32)
    found = AnswerLogits(3, False)([np.ones((2, 9, 2), "float32"), tokens]).numpy()
    assert (found[..., 0] == found[..., 1]).all()
    assert (found[0, :, 0] > NEVER).tolist() == [True, False, False, False, True, True, False, False, False]
    assert (found[1, :, 0] > NEVER).tolist() == [True] + [False] * 8, "an empty context has no place for one"


def build(inputs: keras.KerasTensor, pool: bool = False) -> keras.KerasTensor:
    x = keras.layers.Embedding(TOKENIZER.vocabulary_size, 8, mask_zero=True)(inputs)
    x = keras.layers.Bidirectional(keras.layers.GRU(8, return_sequences=True))(x)
    return keras.layers.GlobalAveragePooling1D()(x) if pool else x


def test_padding_changes_no_probability() -> None:
    inputs = keras.Input((None,), dtype="int32")
    built = task()
    model = keras.Model(inputs, built.predictions(built.connect(build, inputs)))
    tokens = built.sequences(examples("Oslo")).read(tf.constant([0])).numpy()
    padded = np.pad(tokens, [(0, 0), (0, 5)])
    probabilities = model(tokens).numpy()
    np.testing.assert_allclose(probabilities, model(padded).numpy()[:, : tokens.shape[1]], atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert not probabilities[:, 1:7].any(), "the question"


def test_one_vector_for_the_whole_text_is_refused() -> None:
    with pytest.raises(DlcliError, match=r"rnn does it with `pooling: none`; or use transformer or bert"):
        task().connect(lambda inputs: build(inputs, pool=True), keras.Input((None,), dtype="int32"))


def test_label_smoothing_is_refused() -> None:
    with pytest.raises(DataError, match="label_smoothing does not work"):
        task().loss_function(0.1, one_hot=False)


COLORS, FRUITS = ("red", "blue"), ("fig", "plum", "pear", "kiwi", "lime", "date")


def write_questions(path: Path, count: int, seed: int, impossible: float = 0.0) -> Path:
    """Which fruit stands behind the colour that the question names?"""
    random = np.random.default_rng(seed)
    paragraphs = []
    for number in range(count):
        colors, fruits = random.permutation(COLORS), random.permutation(FRUITS)[:2]
        context = " ".join(
            f"{color} {fruit}{random.choice([' !', ''])}" for color, fruit in zip(colors, fruits, strict=True)
        )
        asked = random.integers(2)
        answers = [{"text": fruits[asked], "answer_start": context.index(fruits[asked])}]
        question = {"id": str(number), "question": colors[asked], "answers": answers}
        if random.random() < impossible:
            question |= {"question": "black", "answers": [], "is_impossible": True}
        paragraphs.append({"context": context, "qas": [question]})
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("questions")
    write_questions(folder / "train.json", 1000, 0, impossible=0.2)
    write_questions(folder / "test.json", 80, 1, impossible=0.2)
    (folder / "recipe.yaml").write_text(f"""
task: {{name: question_answering, max_question_length: 4, stride: 4, max_answer_length: 2}}
dataset: {{name: squad, path: {folder}/train.json, test_path: {folder}/test.json, max_length: 12, validation_split: 0}}
architecture: {{name: rnn, cell: simple_rnn, units: [24], embedding_width: 16, pooling: none}}
optimizer: {{name: adam, learning_rate: 1e-2}}
training: {{epochs: 5, batch_size: 16}}
""")
    return load_run(train(load_recipe(folder / "recipe.yaml"), "questions", folder / "run").path)


def test_questions_are_learnt(run: Run) -> None:
    assert run.metrics["metrics"]["exact_match"] > 0.9
    assert run.metrics["metrics"]["unanswerable_accuracy"] > 0.9
    assert {"exact_match", "f1", "answerable_f1"} <= set(run.metrics["metrics"])
    assert run.metrics["examples"] == 80


def test_the_saved_run_scores_the_same(run: Run) -> None:
    again = evaluate_run(run, run.recipe, "test")
    assert again["metrics"] == pytest.approx(run.metrics["metrics"])


def test_the_saved_model_answers_as_the_text_spells_it(run: Run) -> None:
    answers = predict_answers(
        run.model, run.recipe.task.arguments, ["red", "blue", "black"],
        ["Red fig ! BLUE plum", "Red fig ! BLUE Plum", "red fig blue plum"],
    )  # fmt: skip
    assert [text for text, _ in answers] == ["fig", "Plum", ""]
    assert all(0 < score <= 1 for _, score in answers)
    assert predict_answers(run.model, run.recipe.task.arguments, [], []) == []


def looking_for(start: str, end: str, no_answer: bool) -> keras.Model:
    """A model whose answers start and end at two words, wherever they stand; it needs no training."""
    inputs = keras.Input((None,), dtype="int32")
    tokens = Tokens(TOKENIZER.json, 16)(inputs)
    embedding = keras.layers.Embedding(TOKENIZER.vocabulary_size, 2)
    logits = AnswerLogits(3, no_answer)([embedding(tokens), tokens])
    weights = np.zeros((TOKENIZER.vocabulary_size, 2), "float32")
    weights[2] = 5  # `<start>`: the answer is not here
    for column, text in enumerate((start, end)):
        weights[TOKENIZER.encode([text])[0][0], column] = 8
    embedding.set_weights([weights])
    return keras.Model(inputs, keras.layers.Softmax(axis=1)(logits))


def test_answers_are_found_in_any_window_of_a_long_text() -> None:
    arguments = {"max_question_length": 4, "stride": 3, "max_answer_length": 4}
    far = "is cold, " * 20 + "Oslo  and LIMA, " + "is cold, " * 20
    texts = ["Lima and Oslo", "\n", "is cold, " * 20, far]
    model = looking_for("oslo", "lima", no_answer=True)
    answers = predict_answers(model, arguments, ["?"] * 4, texts)
    assert [text for text, _ in answers] == ["", "", "", "Oslo  and LIMA"]
    model = looking_for("oslo", "lima", no_answer=False)
    answers = predict_answers(model, arguments, ["?"] * 4, texts)
    assert answers[0][0] in ("Lima", "Oslo"), "a start behind its end is no answer"
    assert answers[1] == ("", 0.0)
    assert answers[2][0], "a model that has only seen answers always gives one"
    assert answers[3][0] == "Oslo  and LIMA"
