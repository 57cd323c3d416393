"""Sample images: the very pixels of the test split, named by their class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import MakeFolders
from PIL import Image

from dlcli.data.load import load_source
from dlcli.data.samples import write_samples
from dlcli.errors import DlcliError
from dlcli.recipe.load import load_recipe


def test_samples_are_the_pixels_of_the_test_split(tmp_path: Path) -> None:
    recipe = load_recipe("digits_cnn")
    paths = write_samples(recipe, tmp_path / "new" / "samples", 7)
    assert len(set(paths)) == 7 == len(list((tmp_path / "new" / "samples").iterdir()))
    test = load_source(recipe.dataset).test
    for path in paths:
        name, index = path.stem.split("_")
        assert int(name) == test.targets[int(index)]
        np.testing.assert_array_equal(np.asarray(Image.open(path)), test.inputs[int(index), ..., 0])


def test_class_names_become_safe_file_names(class_folders: MakeFolders, tmp_path: Path) -> None:
    root = class_folders(("a cat", "dog [x]"), per_class=2, size=4, splits=("train",))
    recipe = load_recipe("digits_cnn", [f"dataset={{name: image_folder, path: {root}}}"])
    paths = write_samples(recipe, tmp_path / "samples", 100)
    assert [path.name for path in paths] == ["a_cat_0.png", "a_cat_1.png", "dog__x__2.png", "dog__x__3.png"]
    assert Image.open(paths[0]).size == (4, 4) and Image.open(paths[0]).mode == "RGB"


def test_images_with_several_labels_are_named_by_all_of_them(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("path,label\na.png,sun;sea\nb.png,sun\nc.png,\n")
    recipe = load_recipe(
        "digits_cnn",
        [f"dataset={{name: image_folder, path: {tmp_path}, labels: {tmp_path / 'labels.csv'}}}"],
    )
    names = [path.name for path in write_samples(recipe, tmp_path / "samples", 3)]
    assert names == ["sea_sun_0.png", "sun_1.png", "none_2.png"]


def test_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DlcliError, match="dataset iris: holds tables, not images"):
        write_samples(load_recipe("iris_mlp"), tmp_path, 3)
