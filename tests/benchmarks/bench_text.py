"""Sequences a second of `dlcli train` on texts, against the same network in a script with Keras's TextVectorization.

The script pads every text to `max_length`, as Keras's examples do. Between the two stand the single steps: tokens
made once, batches padded to their own longest text, and batches of texts of like length. All alternate within one
process; figures are medians of ratios. Texts have the lengths of film reviews. Run: make bench
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlcli.architectures import ARCHITECTURES
from dlcli.data.examples import DataInfo, Source
from dlcli.data.stream import training_stream
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.recipe.load import load_recipe
from dlcli.recipe.schema import Recipe
from dlcli.training import job as training

ROUNDS = 3
DOCUMENTS = 480
MAX_LENGTH = 400
CASES = [
    ("imdb_lstm", 32),
    ("imdb_transformer", 32),
    ("imdb_fasttext", 32),
]


def reviews() -> tuple[list[str], np.ndarray]:
    """Texts whose lengths are those of IMDB's reviews: log-normal, median 208 words, a tenth above 550."""
    random = np.random.default_rng(0)
    words = np.array([f"word{index}" for index in range(30_000)])
    lengths = np.clip(random.lognormal(np.log(208), 0.75, DOCUMENTS), 10, 2000).astype(int)
    texts = [" ".join(random.choice(words, length)) for length in lengths]
    return texts, random.integers(0, 2, DOCUMENTS).astype("int32")


class Hidden:
    """Examples whose lengths the stream does not see, so that it draws batches at random."""

    def __init__(self, examples: object, width: int | None = None) -> None:
        self.examples, self.width = examples, width
        self.targets = examples.targets  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        tokens = self.examples.read(indices)  # type: ignore[attr-defined]
        if self.width is None:
            return tokens
        return tf.pad(tokens, [[0, 0], [0, self.width - tf.shape(tokens)[1]]])


def dlcli_job(recipe: Recipe, texts: list[str], labels: np.ndarray) -> training.Job:
    info = DataInfo("text", (), "classes", ("neg", "pos"))
    source = Source(TextExamples({"text": Texts.of(texts)}, labels), info, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlcli.data.load.load_source", lambda dataset: source)
        return training.prepare(recipe)


def by_hand(recipe: Recipe, texts: list[str], labels: np.ndarray, batch: int) -> Callable[[], object]:
    """The same network, as Keras's guides feed it."""
    vectorize = keras.layers.TextVectorization(max_tokens=20_000, output_sequence_length=MAX_LENGTH)
    vectorize.adapt(texts)
    inputs = keras.Input((None,), dtype="int64")
    builder = resolve_name(ARCHITECTURES[recipe.architecture.name])
    features = builder(inputs, 20_000, MAX_LENGTH, **recipe.architecture.arguments)
    if len(features.shape) == 3:
        features = keras.layers.GlobalAveragePooling1D()(features)
    model = keras.Model(inputs, keras.layers.Dense(1)(features))
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True), metrics=["accuracy"])
    stream = (
        tf.data.Dataset.from_tensor_slices((texts, labels[:, None]))
        .shuffle(DOCUMENTS)
        .batch(batch)
        .map(lambda text, label: (vectorize(text), label), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
    return lambda: model.fit(stream, shuffle=False, verbose=0)


@pytest.mark.benchmark
@pytest.mark.parametrize(("name", "batch"), CASES)
def test_sequences_per_second(name: str, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLCLI_CACHE", str(tmp_path))
    texts, labels = reviews()
    changes = [
        f"dataset.max_length={MAX_LENGTH}",
        f"training.batch_size={batch}",
        "dataset.validation_split=0",
    ]
    recipe = load_recipe(name, changes)
    job = dlcli_job(recipe, texts, labels)
    steps = job.steps.per_epoch

    def epoch(stream: tf.data.Dataset) -> Callable[[], object]:
        return lambda: job.models.network.fit(stream, steps_per_epoch=steps, shuffle=False, verbose=0)

    plain = Hidden(job.train)
    runs = {
        "TextVectorization, padded to 400": by_hand(recipe, texts, labels, batch),
        "tokens made once, padded to 400": epoch(
            training_stream(Hidden(job.train, MAX_LENGTH), batch_size=batch, seed=0)
        ),
        "padded to the batch's longest": epoch(training_stream(plain, batch_size=batch, seed=0)),
        "texts of like length together": epoch(training.training_batches(job)),
    }
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {label: [] for label in runs}
    for _ in range(ROUNDS):
        for label, run in runs.items():
            start = time.perf_counter()
            run()
            times[label].append(time.perf_counter() - start)
    script = times["TextVectorization, padded to 400"]
    print(f"\n{name} batch {batch}:")
    for label, seconds in times.items():
        ratio = statistics.median(base / own for base, own in zip(script, seconds, strict=True))
        print(
            f"  {label:34} {DOCUMENTS / statistics.median(seconds):7,.0f} sequences/s  {ratio:.2f} x the script"
        )
    assert ratio > 1.0
