"""Sample images: the very pixels of the test split, named by their class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
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
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image), test.inputs[int(index), ..., 0])


def test_class_names_become_safe_file_names(class_folders: Callable[..., Path], tmp_path: Path) -> None:
    root = class_folders(("a cat", "dog [x]"), per_class=2, size=4, splits=("train",))
    recipe = load_recipe("digits_cnn", [f"dataset={{name: image_folder, path: {root}}}"])
    paths = write_samples(recipe, tmp_path / "samples", 100)
    assert [path.name for path in paths] == ["a_cat_0.png", "a_cat_1.png", "dog__x__2.png", "dog__x__3.png"]
    with Image.open(paths[0]) as image:
        assert (image.size, image.mode) == ((4, 4), "RGB")


def test_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DlcliError, match="dataset iris: holds tables, not images or texts"):
        write_samples(load_recipe("iris_mlp"), tmp_path, 3)
