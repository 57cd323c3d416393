from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlcli.data.check import check_data
from dlcli.errors import DataError
from dlcli.recipe.schema import Dataset, Recipe, Spec


def recipe(**dataset) -> Recipe:
    return Recipe(
        task=Spec(name="image_classification"),
        dataset=Dataset(**dataset),
        architecture=Spec(name="cnn"),
    )


@pytest.fixture
def root(tmp_path) -> Path:
    """train: 4 cats, 2 dogs; test: 1 each; all different."""
    random = np.random.default_rng(0)
    for split, name, count in (
        ("train", "cat", 4),
        ("train", "dog", 2),
        ("test", "cat", 1),
        ("test", "dog", 1),
    ):
        folder = tmp_path / "photos" / split / name
        folder.mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "photos"


def test_clean_folder(root):
    report = check_data(recipe(name="image_folder", path=str(root)))
    assert report.splits == {"train": 6, "test": 2}
    assert report.classes["train"] == {"cat": 4, "dog": 2}
    assert report.imbalance() == 2
    assert report.sizes == {"5 x 7": 8}
    assert report.modes == {"RGB": 8}
    assert report.duplicates.across == 0
    assert report.duplicates.within == {}
    assert report.unreadable == {}


def test_duplicates_are_found_through_pixels(root):
    with Image.open(root / "train" / "cat" / "0.png") as image:
        image.save(root / "test" / "cat" / "leak.bmp")  # other bytes, the same picture
        image.save(root / "train" / "dog" / "mislabelled.png")
    with Image.open(root / "train" / "cat" / "1.png") as image:
        image.save(root / "train" / "cat" / "copy.png")
    found = check_data(recipe(name="image_folder", path=str(root))).duplicates
    assert found.across == 1
    assert found.within == {"train": 2}
    assert found.contradictory == 1
    assert set(found.examples[0]) == {
        "train: train/cat/0.png", "train: train/dog/mislabelled.png", "test: test/cat/leak.bmp"
    }  # fmt: skip


def test_unreadable_and_ignored_files_are_reported_not_raised(root):
    (root / "train" / "cat" / "empty.png").touch()
    (root / "train" / "cat" / "Thumbs.db").touch()
    cut = root / "test" / "dog" / "cut.png"
    content = bytearray((root / "test" / "dog" / "0.png").read_bytes())
    content[60:80] = bytes(20)
    cut.write_bytes(bytes(content))  # only decoding finds it
    Image.new("L", (3, 3)).save(root / "train" / "dog" / "small.png")
    report = check_data(recipe(name="cifar10", path=str(root)))
    assert set(report.unreadable) == {str(root / "train" / "cat" / "empty.png"), str(cut)}
    assert report.ignored == {"hidden or system file": 1}
    assert report.sizes["3 x 3"] == 1
    assert report.modes["L"] == 1
    assert report.splits == {"train": 7, "test": 2}
    json.dumps(report.as_dict())


def test_what_training_would_refuse_is_in_the_report(root):
    folder = {"name": "image_folder", "path": str(root)}
    assert check_data(recipe(**folder)).refusals == ()
    Image.new("RGB", (3, 3)).save(root / "train" / "dog" / "small.png")
    assert "differ in size" in check_data(recipe(**folder)).refusals[0]
    assert check_data(recipe(**folder, image_size=5)).refusals == ()
    for name in ("small", "0", "1"):
        (root / "train" / "dog" / f"{name}.png").write_bytes(b"")
    assert "3 of 9 images cannot be used" in check_data(recipe(**folder)).refusals[0]
    skipping = check_data(recipe(**folder, on_bad_file="skip"))
    assert "class 'dog' has no readable image left" in skipping.refusals[0]


def test_arrays_are_checked_too():
    report = check_data(recipe(name="digits"))
    assert report.splits == {"train": 1437, "test": 360}
    assert sum(report.classes["train"].values()) == 1437
    assert report.duplicates.across == 0
    assert report.sizes == {"8 x 8": 1797}


def test_equal_rows_of_arrays_are_found(tmp_path):
    pixels = np.zeros((6, 28, 28), np.uint8)
    pixels[:4, 0, 0] = [1, 2, 3, 3]
    pixels[4:, 0, 0] = [1, 9]
    np.savez(
        tmp_path / "mnist.npz", x_train=pixels[:4], y_train=[0, 1, 2, 5], x_test=pixels[4:], y_test=[0, 1]
    )
    found = check_data(recipe(name="mnist", path=str(tmp_path / "mnist.npz"))).duplicates
    assert (found.across, found.within, found.contradictory) == (1, {"train": 1}, 1)
    assert set(found.examples[0]) == {"train: row 0", "test: row 0"}


def test_table_without_images():
    report = check_data(recipe(name="iris"))
    assert sum(report.splits.values()) == 150
    assert report.sizes == {}
    assert len(report.classes["train"]) == 3


def test_data_that_is_no_data_raises(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        check_data(recipe(name="image_folder", path=str(tmp_path / "nowhere")))
