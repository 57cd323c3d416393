"""What `dlcli explain` can be given."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from dlcli.errors import DlcliError
from dlcli.explain.source import open_source


def saved(model: keras.Model, folder: Path) -> str:
    path = folder / "model.keras"
    model.save(path)
    return str(path)


def test_a_model_from_elsewhere_reads_the_pixels_that_it_was_trained_on(tmp_path):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.Flatten()(inputs)))
    path = saved(model, tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype("uint8")
    for preprocessing, scale in (("auto", 255), ("none", 1)):
        source = open_source(path, preprocessing)
        assert source.kind == "image" and source.class_names is None
        network = source.network(probability=True)
        np.testing.assert_allclose(
            network.outputs(images), model(images.astype("float32") / scale), atol=1e-5
        )
    assert any("pixels" in note for note in open_source(path).notes)


def test_rows_of_numbers_are_a_table(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    source = open_source(saved(model, tmp_path))
    assert source.kind == "table"
    assert source.network(probability=False).target == "values"


@pytest.mark.parametrize(
    ("shape", "message"), [((8, 8, 4), "4 channels"), ((7, 5), "does not hold the vocabulary")]
)
def test_what_files_cannot_give_is_refused(tmp_path, shape, message):
    inputs = keras.Input(shape)
    path = saved(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(inputs))), tmp_path)
    with pytest.raises(DlcliError, match=message):
        open_source(path)


def test_a_path_that_is_no_model_is_told(tmp_path):
    with pytest.raises(DlcliError, match="no such run or file"):
        open_source(str(tmp_path / "none.keras"))
    with pytest.raises(DlcliError, match=r"without recipe\.yaml"):
        open_source(str(tmp_path))
    (tmp_path / "broken.keras").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(DlcliError, match=r"broken\.keras"):
        open_source(str(tmp_path / "broken.keras"))
