from __future__ import annotations

import importlib.util
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlcli.architectures.rnn import rnn
from dlcli.architectures.seq2seq_rnn import seq2seq_rnn
from dlcli.data.examples import DataInfo
from dlcli.data.stream import training_stream
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.data.text.tokenizer import END, START, Tokenizer
from dlcli.data.text.tokenizers import word
from dlcli.errors import DataError, DlcliError
from dlcli.tasks.translation import Translation

PAIRS = [("eins zwei", "one two three"), ("drei", "three"), ("vier fünf sechs sieben acht neun", "four")]
NO_TARGETS = np.zeros(0, np.int32)


@pytest.fixture(scope="module")
def examples() -> TextExamples:
    source, target = zip(*PAIRS, strict=True)
    return TextExamples({"source": Texts.of(source), "target": Texts.of(target)}, np.zeros(3, np.int32))


@pytest.fixture(scope="module")
def info(examples: TextExamples) -> DataInfo:
    texts = [text for pair in PAIRS for text in pair]
    return DataInfo("pairs", (), "text", tokenizer=Tokenizer(word(texts).to_str()), max_length=6)


def connected(info: DataInfo, **arguments: Any) -> keras.Model:
    task = Translation(info, NO_TARGETS, **arguments)
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in task.input_names}
    build = partial(
        seq2seq_rnn, vocabulary_size=info.vocabulary_size, max_length=6, units=8, embedding_width=4
    )
    return keras.Model(inputs, task.connect(build, inputs))


def test_the_network_reads_the_target_one_token_late(info, examples):
    pairs = Translation(info, NO_TARGETS).sequences(examples)
    inputs, targets = pairs.read(tf.range(3)), pairs.read_targets(tf.range(3)).numpy()
    one, two, three, four = (info.tokenizer.encode([name])[0][0] for name in ("one", "two", "three", "four"))
    source = info.tokenizer.encode([text for text, _ in PAIRS])
    assert inputs["target"].numpy().tolist() == [
        [START, one, two, three], [START, three, 0, 0], [START, four, 0, 0],
    ]  # fmt: skip
    assert targets.tolist() == [[one, two, three, END], [three, END, 0, 0], [four, END, 0, 0]]
    assert inputs["source"].numpy().tolist() == [
        [*source[0], END, 0, 0, 0], [*source[1], END, 0, 0, 0, 0], [*source[2][:5], END],
    ]  # fmt: skip


def test_what_is_cut_is_counted(info, examples, capsys):
    task = Translation(info, NO_TARGETS)
    task.sequences(examples)
    assert capsys.readouterr().err == ""
    task.sequences(examples, training=True)
    assert "1 sources of 3 are longer than 5 tokens and cut" in capsys.readouterr().err


def test_a_batch_trains_alike_whatever_it_is_padded_to(info, examples):
    """The mean is over real target tokens: by hand from the logits, and with more padding."""
    task = Translation(info, NO_TARGETS)
    network = connected(info)
    network.compile(optimizer="sgd", loss=task.loss_function(0.2, False), metrics=task.metric_functions())
    pairs = task.sequences(examples)
    inputs, targets = pairs.read(tf.range(3)), pairs.read_targets(tf.range(3)).numpy()
    logits = network(inputs)
    smooth = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2, reduction="none")
    each = smooth(keras.ops.one_hot(targets, info.vocabulary_size), keras.ops.copy(logits)).numpy()
    real = targets != 0
    accuracy = (np.asarray(logits).argmax(-1) == targets)[real].mean()
    wide = {name: np.pad(tokens, ((0, 0), (0, 3))) for name, tokens in inputs.items()}
    for batch in ((inputs, targets), (wide, np.pad(targets, ((0, 0), (0, 3))))):
        data = tf.data.Dataset.from_tensors(batch)
        scores = network.evaluate(data, return_dict=True, verbose=0)
        assert scores["loss"] == pytest.approx(each[real].mean(), rel=1e-5)
        assert scores["accuracy"] == pytest.approx(accuracy)


def test_the_output_shares_the_embedding_where_it_is_tied(info):
    tied, own = connected(info), connected(info, tie_embeddings=False)
    matrix = 4 * info.vocabulary_size
    assert own.count_params() - tied.count_params() == matrix + info.vocabulary_size  # and a bias
    embedding = tied.get_layer("token_embedding").embeddings
    batch = {"source": np.array([[5, END]], np.int32), "target": np.array([[START]], np.int32)}
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tied(batch)[0, 0, 7])
    # Token 7 is neither read nor the target of anything but the output matrix.
    assert np.any(tf.convert_to_tensor(tape.gradient(loss, embedding.value))[7])


def test_like_lengths_share_a_batch(info):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 6, 64)
    texts = Texts.of([" ".join(["eins"] * length) for length in lengths])
    examples = TextExamples({"source": texts, "target": texts}, np.zeros(64, np.int32))
    pairs = Translation(info, NO_TARGETS).sequences(examples, training=True)
    stream = training_stream(pairs, batch_size=8, seed=0)
    padding = [
        float(tf.reduce_mean(tf.cast(batch["source"] == 0, tf.float32))) for batch, _ in stream.take(8)
    ]
    assert np.mean(padding) < 0.1


def test_architectures_that_read_one_text_are_refused(info):
    task = Translation(info, NO_TARGETS)
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in task.input_names}
    with pytest.raises(DlcliError, match=r"reads two texts: .*seq2seq_rnn"):
        task.connect(partial(rnn, vocabulary_size=20, max_length=6), inputs)


def test_other_data_are_refused():
    with pytest.raises(DataError, match="kind pairs"):
        Translation(DataInfo("text", (), "text"), NO_TARGETS)


def test_a_missing_sacrebleu_is_said_before_training(info, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DlcliError, match=r"pip install 'dlcli\[translation\]'"):
        Translation(info, NO_TARGETS)
