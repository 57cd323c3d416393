"""Token classification: which token carries a tag, the loss by hand, and a whole training on sentences made up here."""

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
from dlcli.data.text.tokenizers import bpe, character, word, wordpiece
from dlcli.errors import DataError, DlcliError
from dlcli.evaluation.evaluate import evaluate_run
from dlcli.recipe.load import load_recipe
from dlcli.runs import Run, load_run
from dlcli.tasks.token_classification import TagAccuracy, TagLoss, TokenClassification, predict_tags
from dlcli.training.train import train

TEXTS = ["Anna sees Rome", "Rome calls Anna and Bob"]
TAGS = ["B-PER O B-LOC", "B-LOC O B-PER O B-PER"]
NAMES = ("O", "B-LOC", "B-PER")


def task(learn=word, max_length: int = 32, texts: list[str] = TEXTS) -> TokenClassification:
    tokenizer = Tokenizer(learn(texts * 3).to_str())
    info = DataInfo("tagged", (), "tags", NAMES, tokenizer=tokenizer, max_length=max_length)
    return TokenClassification(info, np.zeros(1, np.int32))


def examples(words: list[str] = TEXTS, tags: list[str] = TAGS) -> TextExamples:
    return TextExamples({"words": Texts.of(words), "tags": Texts.of(tags)}, np.zeros(len(words), np.int32))


def read(built: TokenClassification, given: TextExamples) -> tuple[list[list[str]], list[list[int]]]:
    sequences = built.sequences(given)
    everything = tf.range(len(sequences))
    ids, targets = sequences.read(everything).numpy(), sequences.read_targets(everything).numpy()
    assert ids.shape == targets.shape
    return [[built.info.tokenizer.token(each) for each in row] for row in ids], targets.tolist()


def test_every_word_has_a_target_and_padding_has_none() -> None:
    tokens, targets = read(task(), examples())
    assert tokens[0] == ["<start>", "anna", "sees", "rome", "<end>", "<pad>", "<pad>"]
    assert targets[0] == [0, 3, 1, 2, 0, 0, 0]
    assert tokens[1] == ["<start>", "rome", "calls", "anna", "and", "bob", "<end>"]
    assert targets[1] == [0, 2, 1, 3, 1, 3, 0]


def test_the_first_piece_of_a_word_carries_its_tag() -> None:
    tokens, targets = read(task(character), examples(["Bob sees"], ["B-PER O"]))
    assert tokens == [["<start>", *"Bob", *"sees", "<end>"]]
    assert targets == [[0, 3, 0, 0, 1, 0, 0, 0, 0]]
    pieces, targets = read(task(wordpiece), examples(["Annabob"], ["B-PER"]))
    assert len(pieces[0]) > 3
    assert targets[0] == [0, 3, *[0] * (len(pieces[0]) - 2)]


def test_byte_pairs_see_the_space_before_a_word_as_in_their_vocabulary() -> None:
    tokens, targets = read(task(bpe), examples(["Anna sees Rome"], ["B-PER O B-LOC"]))
    pieces = tokens[0]
    assert "".join(pieces[1:-1]).replace("Ġ", " ") == "Anna sees Rome"
    assert [piece[0] for piece, target in zip(pieces, targets[0], strict=True) if target > 0][1:] == [
        "Ġ",
        "Ġ",
    ]


def test_words_without_a_token_and_words_that_spell_one_become_unknown() -> None:
    tokens, targets = read(task(), examples(["Anna _ <pad> <end> Rome"], ["B-PER O O O B-LOC"]))
    # `<pad>` and `<end>` are three tokens each, all of them unknown; the first carries the tag.
    assert tokens == [["<start>", "anna", *["<unk>"] * 7, "rome", "<end>"]]
    assert targets == [[0, 3, 1, 1, 0, 0, 1, 0, 0, 2, 0]]


def test_a_long_sentence_is_cut_between_words_and_loses_none() -> None:
    tokens, targets = read(
        task(character, max_length=9), examples(["Bob sees Rome Annas Bob"], ["B-PER O B-LOC O B-PER"])
    )
    assert ["".join(row).replace("<pad>", "") for row in tokens] == [
        "<start>Bobsees<end>", "<start>Rome<end>", "<start>Annas<end>", "<start>Bob<end>"
    ]  # fmt: skip
    assert sum(target > 0 for row in targets for target in row) == 5


def test_of_a_word_that_is_too_long_the_beginning_is_read() -> None:
    tokens, targets = read(task(character, max_length=6), examples(["calls Anna"], ["O B-PER"]))
    assert ["".join(row) for row in tokens] == ["<start>call<end>", "<start>Anna<end>"]
    assert [row[1] for row in targets] == [1, 3]
    with pytest.raises(DataError, match="raise it to 3 at least"):
        task(max_length=2).sequences(examples())


def test_a_subset_keeps_words_and_tags_together() -> None:
    sequences = task().sequences(examples()).subset(np.array([1]))
    assert len(sequences) == 1
    assert sequences.lengths.tolist() == [7]
    assert sequences.read_targets(tf.constant([0])).numpy().tolist() == [[0, 2, 1, 3, 1, 3, 0]]


def test_the_loss_is_the_mean_over_words_by_hand() -> None:
    logits = np.log([[[0.75, 0.25], [0.9, 0.1], [0.5, 0.5]], [[0.2, 0.8], [0.6, 0.4], [0.3, 0.7]]]).astype(
        "float32"
    )
    targets = np.array([[1, 0, 2], [1, 0, 0]], np.int32)  # tag 0, none, tag 1; tag 0, none, none
    expected = -(np.log(0.75) + np.log(0.5) + np.log(0.2)) / 3
    assert float(TagLoss(2, 0.0)(targets, logits)) == pytest.approx(expected, rel=1e-5)
    # 0.1 of each target is spread over both tags.
    mixed = [0.95 * np.log(p) + 0.05 * np.log(1 - p) for p in (0.75, 0.5, 0.2)]
    assert float(TagLoss(2, 0.1)(targets, logits)) == pytest.approx(-np.mean(mixed), rel=1e-5)
    assert float(TagLoss(2, 0.0)(np.zeros((2, 3), np.int32), logits)) == 0
    accuracy = TagAccuracy()
    accuracy.update_state(targets, logits)  # 0.75 right, a tie goes to the first tag, 0.2 wrong
    assert float(accuracy.result()) == pytest.approx(1 / 3)


def build(inputs: keras.KerasTensor, pool: bool = False) -> keras.KerasTensor:
    x = keras.layers.Embedding(40, 8, mask_zero=True)(inputs)
    x = keras.layers.Bidirectional(keras.layers.GRU(8, return_sequences=True))(x)
    return keras.layers.GlobalAveragePooling1D()(x) if pool else x


def test_in_fit_the_loss_counts_words_and_padding_changes_nothing() -> None:
    built = task()
    inputs = keras.Input((None,), dtype="int32")
    logits = built.connect(build, inputs)
    network, predictor = keras.Model(inputs, logits), keras.Model(inputs, built.predictions(logits))
    network.compile(loss=built.loss_function(0.0, False), metrics=built.metric_functions())
    sequences = built.sequences(examples())
    tokens, targets = (part(tf.range(2)).numpy() for part in (sequences.read, sequences.read_targets))
    loss, _ = network.test_on_batch(tokens, targets)
    probabilities = predictor(tokens).numpy()
    known = targets > 0
    picked = np.take_along_axis(probabilities, np.maximum(targets - 1, 0)[..., None], axis=-1)[..., 0][known]
    assert loss == pytest.approx(-np.log(picked).mean(), rel=1e-5)
    alone = predictor(tokens[:1, :5]).numpy()
    np.testing.assert_allclose(alone, probabilities[:1, :5], atol=1e-6)


def test_one_vector_for_the_whole_text_is_refused() -> None:
    with pytest.raises(DlcliError, match=r"rnn does it with `pooling: none`; or use transformer or bert"):
        task().connect(lambda inputs: build(inputs, pool=True), keras.Input((None,), dtype="int32"))


def test_tags_that_the_model_does_not_know_are_refused() -> None:
    with pytest.raises(DataError, match="the model knows no tag B-MISC; it knows O, B-LOC, B-PER"):
        task().sequences(examples(["Anna"], ["B-MISC"]))


def write_sentences(path: Path, count: int, seed: int) -> Path:
    """Capitalised words are persons; one after another they are one."""
    random = np.random.default_rng(seed)
    sentences = []
    for _ in range(count):
        words = ["".join(random.choice(list("abcde"), 3)) for _ in range(random.integers(2, 7))]
        capital = random.random(len(words)) < 0.4
        before = False
        lines = []
        for text, is_person in zip(words, capital, strict=True):
            tag = ("I-PER" if before else "B-PER") if is_person else "O"
            lines.append(f"{text.capitalize() if is_person else text} X {tag}\n")
            before = is_person
        sentences.append("".join(lines))
    path.write_text("-DOCSTART- X O\n\n" + "\n".join(sentences))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("tags")
    write_sentences(folder / "train.txt", 300, 0)
    write_sentences(folder / "test.txt", 40, 1)
    (folder / "recipe.yaml").write_text(f"""
task: token_classification
dataset: {{name: conll, path: {folder}/train.txt, test_path: {folder}/test.txt, tokenizer: character, max_length: 24}}
architecture: {{name: rnn, cell: simple_rnn, units: [16], embedding_width: 8, pooling: none}}
optimizer: {{name: adam, learning_rate: 2e-2}}
training: {{epochs: 4, batch_size: 16}}
""")
    return load_run(train(load_recipe(folder / "recipe.yaml"), "tags", folder / "run").path)


def test_tags_are_learnt(run: Run) -> None:
    assert run.metrics["metrics"]["accuracy"] > 0.9
    assert run.metrics["metrics"]["entity_f1"] > 0.8
    assert run.metrics["class_names"] == ["O", "B-PER", "I-PER"]
    assert run.metrics["words"] == sum(map(sum, run.metrics["confusion_matrix"]))
    assert (run.plots / "test_confusion_matrix.png").is_file()
    json.dumps(run.metrics, allow_nan=False)


def test_the_saved_run_scores_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlcli.evaluation import plots

    for name in ("plot_confusion_matrix", "plot_per_class"):
        monkeypatch.setattr(plots, name, lambda *arguments: None)
    again = evaluate_run(run, run.recipe, "test")
    assert again["metrics"] == pytest.approx(run.metrics["metrics"])


def test_the_saved_model_tags_every_word_also_of_a_long_sentence(run: Run) -> None:
    long = "abc " * 10 + "Dab " + "cde " * 10  # 63 characters; 22 fit
    tagged = predict_tags(run.model, run.recipe.task.arguments, ["Bad  cab dec", "", long])
    assert [word for word, _ in tagged[0]] == ["Bad", "cab", "dec"]
    assert [tag for _, tag in tagged[0]] == ["B-PER", "O", "O"]
    assert tagged[1] == []
    assert [index for index, (_, tag) in enumerate(tagged[2]) if tag != "O"] == [10]
    assert predict_tags(run.model, {}, [""]) == [[]]
