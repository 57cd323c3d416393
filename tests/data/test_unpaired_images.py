"""Two sets of images of which no two belong together: which ones meet in a step, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dlcli.data.stream import training_stream
from dlcli.data.unpaired_images import UnpairedExamples, unpaired_images
from dlcli.errors import DataError


def write(root: Path, folder: str, count: int, green: int = 0) -> None:
    """Images whose red level is their number."""
    (root / folder).mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (6, 4), (number, green, 0)).save(root / folder / f"{number:03d}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder, count, green in (("trainA", 7, 0), ("trainB", 3, 9), ("testA", 2, 0), ("testB", 2, 9)):
        write(tmp_path / "data", folder, count, green)
    return tmp_path / "data"


def numbers(images: tf.Tensor) -> list[int]:
    return np.asarray(images)[:, 0, 0, 0].tolist()


def test_splits_and_sides(root: Path) -> None:
    source = unpaired_images(path=root)
    assert source.info.kind == "unpaired_images"
    assert source.info.input_shape == (4, 6, 3)
    assert (len(source.train), len(source.train.a), len(source.train.b)) == (7, 7, 3)
    assert source.validation is None
    test = source.test.read(tf.range(2))
    assert numbers(test["a"]) == numbers(test["b"]) == [0, 1]
    assert np.asarray(test["b"])[0, 0, 0, 1] == 9


def stream(examples: UnpairedExamples, start: int, steps: int) -> list[tuple[list[int], list[int]]]:
    batches = training_stream(examples, batch_size=2, seed=5, start_step=start, whole_batches=True).take(
        steps
    )
    return [(numbers(images["a"]), numbers(images["b"])) for images, _ in batches]


@pytest.mark.parametrize("swapped", [False, True])
def test_each_set_is_seen_evenly_in_passes_of_its_own(root: Path, swapped: bool) -> None:
    train = unpaired_images(path=root).train
    if swapped:
        train = UnpairedExamples(train.b, train.a)
    steps = stream(train, 0, 9)
    larger = [number for pair in steps for number in pair[swapped]]
    smaller = [number for pair in steps for number in pair[not swapped]]
    for epoch in range(3):  # three steps of two; one image is left out
        assert len(set(larger[6 * epoch : 6 * epoch + 6])) == 6
    for first in range(0, 18, 3):
        assert sorted(smaller[first : first + 3]) == [0, 1, 2]
    assert len({tuple(smaller[first : first + 3]) for first in range(0, 18, 3)}) > 1, "orders are drawn anew"


def test_sets_of_one_size_meet_in_new_pairs(root: Path) -> None:
    side = unpaired_images(path=root).train.a.subset(np.arange(6))
    steps = stream(UnpairedExamples(side, side), 0, 6)
    epochs = [
        [pair for a, b in steps[first : first + 3] for pair in zip(a, b, strict=True)] for first in (0, 3)
    ]
    for pairs in epochs:
        assert [sorted(numbers) for numbers in zip(*pairs, strict=True)] == [[*range(6)]] * 2
    assert set(epochs[0]) != set(epochs[1])


def test_a_stream_goes_on_where_it_stopped(root: Path) -> None:
    train = unpaired_images(path=root).train
    assert stream(train, 4, 5) == stream(train, 0, 9)[4:]


def test_subsets_share_no_image(root: Path) -> None:
    train = unpaired_images(path=root).train
    kept, held_out = train.subset(np.array([0, 2, 3, 5])), train.subset(np.array([1, 4, 6]))
    for side in "ab":
        found = [
            set(numbers(getattr(part, side).read(tf.range(len(getattr(part, side))))))
            for part in (kept, held_out)
        ]
        assert not found[0] & found[1]
    with pytest.raises(DataError, match="leaves no image of B, of which there are 3"):
        train.subset(np.array([4, 6]))


def test_files_that_are_streamed_are_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = unpaired_images(path=root).train
    monkeypatch.setenv("DLCLI_IMAGE_MEMORY", "1")
    source = unpaired_images(path=root)
    assert any("are read from their files" in text for text in source.info.notes)
    for side, images in source.train.read(tf.range(7)).items():
        np.testing.assert_array_equal(images, in_memory.read(tf.range(7))[side])


def test_bad_files(root: Path) -> None:
    (root / "trainA" / "003.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"trainA/003.png"):
        unpaired_images(path=root)
    source = unpaired_images(path=root, on_bad_file="skip")
    assert numbers(source.train.a.read(tf.range(6))) == [0, 1, 2, 4, 5, 6]


def test_sizes_and_colours(root: Path) -> None:
    Image.new("RGB", (8, 8)).save(root / "trainB" / "large.png")
    with pytest.raises(DataError, match="the images differ in size"):
        unpaired_images(path=root)
    source = unpaired_images(path=root, image_size=8, color_mode="grayscale")
    assert source.info.input_shape == (8, 8, 1)


def test_missing_folders(root: Path) -> None:
    with pytest.raises(DataError, match=r"trainA: there is no such folder; expected trainA and trainB"):
        unpaired_images(path=root / "testA")
    (root / "valA").mkdir()
    with pytest.raises(DataError, match="valA: no images"):
        unpaired_images(path=root)
