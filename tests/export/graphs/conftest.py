"""Small models of random weights, with inputs, for every format that writes graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

from dlcli.architectures.fasttext import fasttext
from dlcli.architectures.gpt import gpt
from dlcli.architectures.rnn import rnn
from dlcli.architectures.transformer import transformer
from dlcli.export.format import Exportable, Input
from dlcli.layers import Imputation, MaskedPooling, Predictions

WORDS, LENGTH = 40, 12


class Case(NamedTuple):
    """A model and a maker of inputs."""

    item: Exportable
    inputs: Callable[..., dict[str, np.ndarray]]
    """(rows) or, of texts, (rows, tokens)."""

    def keras(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """What the model itself says."""
        model = self.item.numeric
        given = inputs if isinstance(model.input, dict) else next(iter(inputs.values()))
        return np.asarray(model(given, training=False))

    def with_model(self, model: keras.Model, given: Input, max_length: int = LENGTH) -> Case:
        """Another model of the same inputs."""
        item = Exportable(model, model, (given,), (given,), "text", "values", ("y",), max_length=max_length)
        return self._replace(item=item)

    def manifest(self, written: Any) -> dict[str, Any]:
        """What the loaders read, as from manifest.json."""
        given = [
            {"name": each.name, "shape": list(each.shape), "dtype": each.dtype, "column": each.name}
            for each in self.item.numeric_inputs
        ]
        return {
            "kind": self.item.kind, "target": self.item.target, "classes": list(self.item.classes),
            "inputs": given, "batch_size": written.batch_size, "length": written.length,
            "details": dict(written.details), "vocabularies": dict(self.item.vocabularies), "tokenizer": None,
            "task": "image_classification" if self.item.kind == "image" else "tabular_classification",
        }  # fmt: skip


def texts(rows: int, tokens: int = LENGTH) -> dict[str, np.ndarray]:
    """Texts of any length up to `tokens`, the first of full length, the last empty where there are several."""
    generator = np.random.default_rng(rows + tokens)
    lengths = generator.integers(1, tokens + 1, rows)
    lengths[0], lengths[1:][-1:] = tokens, 0
    ids = generator.integers(1, WORDS, (rows, tokens)).astype("int32")
    return {"tokens": np.where(np.arange(tokens) < lengths[:, None], ids, 0).astype("int32")}


def pixels(rows: int) -> dict[str, np.ndarray]:
    """Noise."""
    return {"image": np.random.default_rng(rows).integers(0, 256, (rows, 8, 8, 3), dtype="uint8")}


def columns(rows: int) -> dict[str, np.ndarray]:
    """A number that is missing in each third row, and a word's number, -1 for an unknown one."""
    ages = np.linspace(18, 80, rows, dtype="float32")[:, None]
    ages[::3] = np.nan
    return {"age (years)": ages, "work-class": np.arange(rows, dtype="int32")[:, None] % 4 - 1}


def dense(units: int, deviation: float = 2.0) -> keras.layers.Dense:
    """Large weights: small ones would hide what goes wrong before them."""
    return keras.layers.Dense(units, kernel_initializer=keras.initializers.RandomNormal(stddev=deviation))


def text_case(build: Callable[..., Any], classes: int = 3, **options: Any) -> Case:
    inputs = keras.Input((None,), dtype="int32", name="tokens")
    features = build(inputs, WORDS, LENGTH, **options)
    if len(features.shape) == 3 and classes:
        features = MaskedPooling("max")(features)
    logits = dense(classes or WORDS)(features)
    model = keras.Model(inputs, Predictions("classes", list("abc"))(logits) if classes else logits)
    given = (Input("tokens", (None,), "int32"),)
    item = Exportable(model, model, given, given, "text", "classes" if classes else "text", tuple("abc"))
    return Case(replace(item, max_length=LENGTH), texts)


def image_case() -> Case:
    inputs = keras.Input((8, 8, 3), dtype="uint8", name="image")
    x = keras.layers.Normalization(mean=[120, 110, 140], variance=[4000, 5000, 6000])(inputs)
    for width in (4, 8):
        x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        normalization = keras.layers.BatchNormalization()
        x = keras.layers.ReLU()(normalization(x))
        normalization.moving_mean.assign(np.linspace(-0.5, 0.5, width))
        normalization.moving_variance.assign(np.linspace(0.5, 2, width))
    x = dense(3, 0.5)(keras.layers.Flatten()(x))
    model, given = (
        keras.Model(inputs, Predictions("classes", list("abc"))(x)),
        (Input("image", (8, 8, 3), "uint8"),),
    )
    return Case(Exportable(model, model, given, given, "image", "classes", tuple("abc")), pixels)


def table_case() -> Case:
    inputs = {
        "age (years)": keras.Input((1,), name="age (years)"),
        "work-class": keras.Input((1,), dtype="int32", name="work-class"),
    }
    age = Imputation([38.0], [0])(inputs["age (years)"])
    work = keras.layers.CategoryEncoding(4, output_mode="one_hot")(inputs["work-class"] + 1)
    x = keras.layers.Dense(8, "relu")(keras.layers.Concatenate()([age / 40, work]))
    model = keras.Model(inputs, Predictions("classes", list("abc"))(dense(3)(x)))
    given = (Input("age (years)", (1,), "float32"), Input("work-class", (1,), "int32"))
    words = {"work-class": ("own", "state", "none")}
    return Case(Exportable(model, model, given, given, "table", "classes", tuple("abc"), words), columns)


SMALL = {"width": 8, "num_heads": 2, "num_layers": 1}
MAKERS: dict[str, Callable[[], Case]] = {
    "image": image_case,
    "table": table_case,
    "transformer": lambda: text_case(transformer, **SMALL),
    "gpt": lambda: text_case(gpt, classes=0, **SMALL),
    "bilstm": lambda: text_case(rnn, units=(5, 4), embedding_width=6),
    "lstm": lambda: text_case(rnn, units=(5,), embedding_width=6, bidirectional=False, pooling="mean"),
    "gru": lambda: text_case(rnn, cell="gru", units=(5,), embedding_width=6, pooling="none"),
    "simple_rnn": lambda: text_case(
        rnn, cell="simple_rnn", units=(5,), embedding_width=6, bidirectional=False
    ),
    "fasttext": lambda: text_case(fasttext, buckets=1009, ngrams=3),
}


@pytest.fixture(scope="session")
def case() -> Callable[[str], Case]:
    """Name -> model; each is made once."""
    made: dict[str, Case] = {}

    def find(name: str) -> Case:
        if name not in made:
            keras.utils.set_random_seed(1)
            made[name] = MAKERS[name]()
            generator = np.random.default_rng(1)
            for weight in made[name].item.numeric.trainable_weights:
                if weight.path.endswith("bias"):  # they begin as zeros, and zeros hide their own mistakes
                    weight.assign(weight + generator.normal(0, 0.3, weight.shape))
        return made[name]

    return find
