"""Images that belong together two by two: by their names, or side by side in one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dlcli.data.augmentation import Position, build_augment
from dlcli.data.image_pairs import image_pairs
from dlcli.errors import DataError
from dlcli.recipe.schema import Spec


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """A is red, B green; the level is the number of the pair."""
    for folder, count in (("trainA", 5), ("trainB", 5), ("testA", 2), ("testB", 2)):
        (tmp_path / "named" / folder).mkdir(parents=True)
        for number in range(count):
            color = (10 + number, 0, 0) if folder.endswith("A") else (0, 10 + number, 0)
            suffix = "png" if folder.endswith("A") else "bmp"
            Image.new("RGB", (6, 4), color).save(tmp_path / "named" / folder / f"{number}.{suffix}")
    return tmp_path / "named"


@pytest.fixture
def side_by_side(tmp_path: Path) -> Path:
    for folder, count in (("train", 5), ("val", 1), ("test", 2)):
        (tmp_path / "wide" / folder).mkdir(parents=True)
        for number in range(count):
            pixels = np.zeros((4, 12, 3), np.uint8)
            pixels[:, :6, 0] = pixels[:, 6:, 1] = 10 + number
            Image.fromarray(pixels).save(tmp_path / "wide" / folder / f"{number}.png")
    return tmp_path / "wide"


def check(batch: dict[str, tf.Tensor], expected: list[int]) -> None:
    """Sources are red, targets green, both of the same level."""
    source, target = (np.asarray(batch[name]) for name in ("source", "target"))
    assert source.shape == target.shape == (len(expected), 4, 6, 3)
    for images, channel in ((source, 0), (target, 1)):
        assert images[..., channel].reshape(len(expected), -1).tolist() == [[10 + n] * 24 for n in expected]
        assert not np.delete(images, channel, axis=-1).any()


@pytest.mark.parametrize("layout", ["named", "side_by_side"])
def test_pairs(layout: str, request: pytest.FixtureRequest) -> None:
    source = image_pairs(path=request.getfixturevalue(layout))
    assert source.info.kind == "image_pairs"
    assert source.info.input_shape == (4, 6, 3)
    check(source.train.read(tf.range(5)), [0, 1, 2, 3, 4])
    check(source.test.read(tf.range(2)), [0, 1])
    check(source.train.subset(np.array([3, 1])).read(tf.range(2)), [3, 1])
    assert (source.validation is not None) == (layout == "side_by_side")


@pytest.mark.parametrize("layout", ["named", "side_by_side"])
def test_the_other_direction(layout: str, request: pytest.FixtureRequest) -> None:
    train = image_pairs(path=request.getfixturevalue(layout), direction="b_to_a").train
    batch = train.subset(np.array([2])).read(tf.range(1))
    check({"source": batch["target"], "target": batch["source"]}, [2])


def test_a_size_is_that_of_one_image(side_by_side: Path) -> None:
    source = image_pairs(path=side_by_side, image_size=8)
    assert source.info.input_shape == (8, 8, 3)
    batch = source.train.read(tf.range(1))
    assert np.asarray(batch["source"])[0, 4, 1, 0] == np.asarray(batch["target"])[0, 4, 6, 1] == 10


def test_a_bad_file_takes_its_pair_with_it(named: Path) -> None:
    (named / "trainB" / "1.bmp").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"trainB/1.bmp"):
        image_pairs(path=named)
    source = image_pairs(path=named, on_bad_file="skip")
    check(source.train.read(tf.range(4)), [0, 2, 3, 4])
    assert any("1 train images were left out with" in text for text in source.info.notes)


def test_what_cannot_be_paired(named: Path, side_by_side: Path, tmp_path: Path) -> None:
    (named / "trainA" / "2.png").rename(named / "trainA" / "two.png")
    with pytest.raises(DataError, match=r"2 images of the train split have no partner .*trainA/two.png"):
        image_pairs(path=named)
    (named / "trainA" / "two.png").rename(named / "trainA" / "2.png")
    Image.new("RGB", (6, 4)).save(named / "trainA" / "2.jpg")
    with pytest.raises(DataError, match=r"trainA/2.jpg and trainA/2.png have one name"):
        image_pairs(path=named)
    for file in side_by_side.glob("*/*.png"):
        Image.new("RGB", (7, 4)).save(file)
    with pytest.raises(DataError, match="7 pixels wide, an odd number"):
        image_pairs(path=side_by_side)
    with pytest.raises(DataError, match="no such folder"):
        image_pairs(path=tmp_path / "nowhere")


@pytest.mark.parametrize("alike", [True, False])
def test_the_images_of_a_pair_are_changed_alike(alike: bool) -> None:
    images = tf.constant(np.random.default_rng(0).integers(0, 255, (16, 6, 6, 3)), tf.uint8)
    augment = build_augment([Spec(name="random_flip"), Spec(name="random_crop")], alike=alike)
    zero = tf.zeros([], tf.int64)
    changed, _ = augment(
        {"source": images, "target": images}, tf.zeros(16), Position.of(0, zero, zero, tf.range(16))
    )
    assert not np.array_equal(changed["source"], images)
    same = (changed["source"].numpy() == changed["target"].numpy()).all(axis=(1, 2, 3))
    assert same.all() if alike else not same.all()
