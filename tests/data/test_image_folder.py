from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dlcli.data import image_files
from dlcli.data.cache import cache_folder
from dlcli.data.image_folder import image_folder
from dlcli.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DLCLI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path) -> Path:
    """Two classes of three noise pictures, 8x6."""
    return make_classes(tmp_path / "photos")


def make_classes(folder: Path, names=("cat", "dog"), count=3, suffix=".png", seed=0) -> Path:
    random = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = random.integers(0, 256, (8, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}{suffix}")
    return folder


def pixels_of(path: Path, mode: str = "RGB") -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert(mode))


def read_all(examples) -> np.ndarray:
    return np.asarray(examples.read(tf.range(len(examples))))


# Layouts


def test_class_folders(root):
    source = image_folder(path=root)
    assert source.info.class_names == ("cat", "dog")
    assert source.info.input_shape == (8, 6, 3)
    assert source.train.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.test is None
    assert any("no test split" in note for note in source.info.notes)
    np.testing.assert_array_equal(read_all(source.train)[4], pixels_of(root / "dog" / "1.png"))


def test_split_folders(tmp_path):
    for seed, split in enumerate(("train", "valid", "test")):
        make_classes(tmp_path / "photos" / split, count=2 + seed, seed=seed)
    source = image_folder(path=tmp_path / "photos")
    assert [len(part) for part in (source.train, source.validation, source.test)] == [4, 6, 8]
    expected = pixels_of(tmp_path / "photos" / "test" / "dog" / "3.png")
    np.testing.assert_array_equal(read_all(source.test)[7], expected)


def test_a_class_may_be_called_train(tmp_path):
    source = image_folder(path=make_classes(tmp_path / "traffic", ("bus", "train")))
    assert source.info.class_names == ("bus", "train")


def test_pictures_in_folders_below_a_class_count(root):
    make_classes(root / "cat", ("close-ups",), count=2)
    assert np.bincount(image_folder(path=root).train.targets).tolist() == [5, 3]


@pytest.mark.parametrize("header", ["path,label", "filename,class", "image;label", "\ufefffile\tlabel"])
def test_csv_of_labels(root, header):
    delimiter = next(mark for mark in ",;\t" if mark in header)
    rows = [header, f"cat/0.png{delimiter}10", f"cat/1.png{delimiter}9", f"dog/0.png{delimiter}9"]
    (root / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    source = image_folder(path=root, labels=root / "labels.csv")
    assert source.info.class_names == ("9", "10")
    assert source.train.targets.tolist() == [0, 0, 1]
    assert any("3 images" in note and "no row" in note for note in source.info.notes)
    np.testing.assert_array_equal(read_all(source.train)[2], pixels_of(root / "cat" / "0.png"))


def test_csv_with_splits(root):
    (root / "labels.csv").write_text(
        "path,label,split\ncat/0.png,a,train\ncat/1.png,b,train\ndog/0.png,a,test\ndog/1.png,b,val\n"
    )
    source = image_folder(path=root, labels=root / "labels.csv")
    assert [len(part) for part in (source.train, source.validation, source.test)] == [2, 1, 1]


def test_csv_rows_end_at_line_ends_only(root):
    (root / "cat\u2028").mkdir()
    (root / "cat" / "0.png").rename(root / "cat\u2028" / "0.png")
    rows = "path,label\ncat\u2028/0.png,a\r\ncat/1.png,b\x0b\x1c\x85c\n"
    (root / "labels.csv").write_bytes(rows.encode())
    source = image_folder(path=root, labels=root / "labels.csv")
    assert source.info.class_names == ("a", "b\x0b\x1c\x85c")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("path,label\ncat/0.png,a\ncat/9.png,b", "labels.csv:3: cat/9.png does not exist"),
        ("path,label\ncat/0.png,", "labels.csv:2: the label is missing"),
        ("path,label\n,a", "labels.csv:2: the path is missing"),
        ("path,label\ncat/0.png,a\ncat/0.png,b", "labels.csv:3: cat/0.png stands in row 2"),
        ("path,label\n../secret.png,a", r"labels.csv:2: \.\./secret.png leads outside"),
        ("path,label\ncat/0.png,a,b", "labels.csv:2: 3 cells where the header has 2"),
        ("path,label,split\ncat/0.png,a,later", "labels.csv:2: the split 'later' is none of"),
        (
            "path,label,split\ncat/0.png,a,train\ncat/1.png,b,train\ncat/2.png,c,test",
            "train split has the class c",
        ),
        ("path,target\ncat/0.png,a", "labels.csv:1: expected one column named label or class"),
        ("path,label\n", "no rows"),
        (
            "path,label\ncat/0.png," + "a" * 140_000,
            "labels.csv:2: the row that begins here is broken: field larger",
        ),
    ],
)
def test_csv_mistakes_name_file_and_row(root, rows, message):
    (root.parent / "secret.png").write_bytes((root / "cat" / "0.png").read_bytes())
    (root / "labels.csv").write_text(rows)
    with pytest.raises(DataError, match=message):
        image_folder(path=root, labels=root / "labels.csv")


# Folders that are refused


def test_missing_folder_and_file_instead_of_folder(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        image_folder(path=tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="not a folder"):
        image_folder(path=tmp_path / "file")


def test_no_images(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"photos: no images; expected \*.png"):
        image_folder(path=tmp_path / "photos")


def test_one_class_is_enough_for_who_draws(tmp_path):
    (tmp_path / "photos").mkdir()
    source = image_folder(path=make_classes(tmp_path / "photos", ("cat",)))
    assert source.info.class_names == ("cat",)


@pytest.mark.parametrize("splits", [(), ("train",), ("train", "val", "test")])
def test_images_without_class_folders_are_one_class_without_a_name(tmp_path, splits):
    for number, name in enumerate(splits or (".",)):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (4, 4), (10 * index, 50 * number, 0)).save(folder / f"{index}.png")
    source = image_folder(path=tmp_path / "photos")
    assert source.info.class_names == ("",)
    parts = [source.train, source.validation, source.test]
    assert [part is not None for part in parts] == [True, "val" in splits, "test" in splits]
    for number, part in enumerate(part for part in parts if part is not None):
        images = part.read(tf.range(len(part))).numpy()
        np.testing.assert_array_equal(images[:, 0, 0], [[10 * index, 50 * number, 0] for index in range(3)])


def test_folders_named_like_splits_among_others_are_classes(tmp_path):
    root = make_classes(tmp_path, ("bus", "plane", "train"))
    assert image_folder(path=root).info.class_names == ("bus", "plane", "train")


def test_empty_class_is_named(root):
    (root / "zebra").mkdir()
    (root / "zebra" / ".DS_Store").touch()
    with pytest.raises(DataError, match="no images for the class zebra"):
        image_folder(path=root)


def test_test_class_that_train_lacks_is_named(tmp_path):
    make_classes(tmp_path / "photos" / "train")
    make_classes(tmp_path / "photos" / "test", ("cat", "fox"))
    with pytest.raises(DataError, match="fox"):
        image_folder(path=tmp_path / "photos")


def test_links_that_leave_the_folder_pipes_and_linked_folders_are_refused(root):
    (root.parent / "elsewhere.png").write_bytes((root / "cat" / "0.png").read_bytes())
    (root / "cat" / "away.png").symlink_to(root.parent / "elsewhere.png")
    (root / "cat" / "around").symlink_to(root)
    os.mkfifo(root / "dog" / "pipe.png")
    with pytest.raises(DataError, match="3 entries") as caught:
        image_folder(path=root)
    for name in ("away.png", "around", "pipe.png"):
        assert name in str(caught.value)


def test_link_inside_the_folder_is_read(root):
    (root / "cat" / "again.png").symlink_to(root / "cat" / "0.png")
    assert len(image_folder(path=root).train) == 7


def test_hidden_and_foreign_files_are_counted(root):
    (root / "cat" / ".hidden.png").touch()
    (root / "cat" / "Thumbs.db").touch()
    (root / "cat" / "readme.txt").write_text("hello")
    (root / "dog" / ".ipynb_checkpoints").mkdir()
    (root / "dog" / "photo").write_bytes((root / "dog" / "0.png").read_bytes())  # no suffix, but a picture
    source = image_folder(path=root)
    assert len(source.train) == 7
    assert any("4 files ignored (3 hidden or system file, 1 no image)" in note for note in source.info.notes)


# Sizes and modes


def test_several_sizes_are_listed_and_a_size_proposed(root):
    Image.new("RGB", (20, 10)).save(root / "cat" / "big.png")
    with pytest.raises(DataError, match=r"8 x 6 \(6\), 10 x 20 \(1\).*image_size: \[8, 6\]"):
        image_folder(path=root)


@pytest.mark.parametrize(("image_size", "shape"), [(4, (4, 4, 3)), ([5, 7], (5, 7, 3))])
def test_image_size_resizes_and_says_so(root, image_size, shape):
    source = image_folder(path=root, image_size=image_size)
    assert source.info.input_shape == shape
    assert any(
        f"resized to {shape[0]} x {shape[1]}" in note and "6 of 6" in note for note in source.info.notes
    )
    with Image.open(root / "cat" / "0.png") as image:
        expected = np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(read_all(source.train)[0], expected)


def test_conversions_are_counted(root):
    Image.new("CMYK", (6, 8)).save(root / "cat" / "print.jpg")
    Image.new("RGBA", (6, 8)).save(root / "cat" / "logo.png")
    Image.new("L", (6, 8)).save(root / "dog" / "grey.png")
    Image.new("I;16", (6, 8)).save(root / "dog" / "deep.png")
    Image.new("RGB", (6, 8)).save(root / "dog" / "wrong.jpg", format="PNG")
    notes = "\n".join(image_folder(path=root).info.notes)
    for line in (
        "1 of 11 images CMYK, converted to RGB",
        "1 of 11 images RGBA with transparency, laid over white",
        "1 of 11 images grey, repeated to three channels",
        "1 of 11 images 16-bit, scaled to 8 bit",
        "1 of 11 images are PNG by content",
    ):
        assert line in notes


@pytest.mark.parametrize(("mode", "color_mode", "channels"), [
    ("L", "auto", 1), ("RGB", "auto", 3), ("L", "rgb", 3), ("RGB", "grayscale", 1),
])  # fmt: skip
def test_channels_follow_color_mode(tmp_path, mode, color_mode, channels):
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new(mode, (4, 4), 77).save(tmp_path / "photos" / name / "0.png")
    source = image_folder(path=tmp_path / "photos", color_mode=color_mode)
    assert source.info.input_shape == (4, 4, channels)
    expected = pixels_of(tmp_path / "photos" / "b" / "0.png", "L" if channels == 1 else "RGB")
    np.testing.assert_array_equal(read_all(source.train)[1].reshape(expected.shape), expected)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_native_decoders_give_pillows_pixels(tmp_path, suffix, mode, monkeypatch):
    """Real texture, odd sizes, chroma subsampling: TensorFlow's decoders and Pillow agree exactly."""
    y, x = np.mgrid[:37, :51]
    waves = np.stack([np.sin(x / 3) + np.cos(y / 5), np.sin(x * y / 90), np.cos(x / 7 - y / 2)], -1)
    for name, shift in (("a", 0), ("b", 40)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(4):
            pixels = np.clip(waves * 60 + 110 + shift + index * 9, 0, 255).astype(np.uint8)
            path = tmp_path / "photos" / name / f"{index}{suffix}"
            options = {"quality": 60 + index * 10, "progressive": index == 3} if suffix == ".jpg" else {}
            Image.fromarray(pixels).convert(mode).save(path, **options)

    def not_needed(*arguments):
        raise AssertionError("plain files must not need Pillow")

    monkeypatch.setattr(image_files, "decode_file", not_needed)
    images = read_all(image_folder(path=tmp_path / "photos").train)
    for row, path in enumerate(sorted((tmp_path / "photos").rglob(f"*{suffix}"))):
        np.testing.assert_array_equal(images[row].squeeze(), pixels_of(path, mode))


def test_many_small_files_are_decoded_in_groups(tmp_path):
    root = make_classes(tmp_path / "photos", count=140, suffix=".jpg")  # 280: groups, and a rest to fill up
    images = read_all(image_folder(path=root).train)
    names = sorted(path.name for path in (root / "cat").iterdir())
    for row in (0, 139, 140, 255, 256, 279):
        path = root / ("cat" if row < 140 else "dog") / names[row % 140]
        np.testing.assert_array_equal(images[row], pixels_of(path))


# Bad files


def spoil(root: Path) -> list[Path]:
    """Adds an empty file, a text and a truncated picture to the class cat."""
    make_classes(root, ("cat", "dog"), count=8)
    paths = [root / "cat" / name for name in ("empty.png", "text.png", "cut.jpg")]
    paths[0].touch()
    paths[1].write_text("I am no picture")
    Image.new("RGB", (6, 8), "red").save(paths[2])
    paths[2].write_bytes(paths[2].read_bytes()[:-20])
    return paths


def test_bad_files_are_named_before_training(root):
    paths = spoil(root)
    with pytest.raises(DataError, match="3 of 19 images cannot be used") as caught:
        image_folder(path=root)
    assert all(str(path) in str(caught.value) for path in paths)
    assert "on_bad_file: skip" in str(caught.value)


def test_skip_leaves_bad_files_out_and_keeps_labels_and_pixels_together(root):
    spoil(root)
    for _ in range(2):  # the second time from the cache
        source = image_folder(path=root, on_bad_file="skip")
        assert np.bincount(source.train.targets).tolist() == [8, 8]
        assert any("skipped 3 of 19 images" in note for note in source.info.notes)
        images = read_all(source.train)
        np.testing.assert_array_equal(images[7], pixels_of(root / "cat" / "7.png"))
        np.testing.assert_array_equal(images[8], pixels_of(root / "dog" / "0.png"))
    with pytest.raises(DataError, match="3 of 19"):  # the cache does not hide them
        image_folder(path=root)


@pytest.mark.parametrize("streamed", [False, True])
def test_damage_that_only_decoding_finds(root, streamed, monkeypatch):
    """The header and the end are in order, the pixels between are not."""
    if streamed:
        monkeypatch.setenv("DLCLI_IMAGE_MEMORY", "1")
    make_classes(root, ("cat", "dog"), count=8)
    path = root / "cat" / "3.png"
    content = bytearray(path.read_bytes())
    middle = content.index(b"IDAT") + 12
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=f"1 of 16 images cannot be used:\n  {path}"):
        image_folder(path=root)
    source = image_folder(path=root, on_bad_file="skip")
    assert len(source.train) == 15
    assert isinstance(source.train, image_files.FileExamples) == streamed
    np.testing.assert_array_equal(read_all(source.train)[3], pixels_of(root / "cat" / "4.png"))


def test_more_than_half_bad_is_refused(root):
    for index in range(5):
        (root / "cat" / f"bad{index}.png").touch()
        (root / "dog" / f"bad{index}.png").touch()
    with pytest.raises(DataError, match="more than half"):
        image_folder(path=root, on_bad_file="skip")


def test_class_without_readable_image_is_refused(root):
    make_classes(root, ("dog",), count=9)
    for path in (root / "cat").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="class 'cat' has no readable image"):
        image_folder(path=root, on_bad_file="skip")


def test_many_bad_files_are_shortened(root):
    make_classes(root, ("dog",), count=30)
    for index in range(14):
        (root / "cat" / f"bad{index:02}.png").touch()
    with pytest.raises(DataError, match="and 4 more"):
        image_folder(path=root)


# The cache


def test_second_run_reads_no_picture(root, monkeypatch):
    first = read_all(image_folder(path=root).train)

    def fail(*arguments):
        raise AssertionError("the cache should have answered")

    monkeypatch.setattr("dlcli.data.listed_images.survey", fail)
    np.testing.assert_array_equal(read_all(image_folder(path=root).train), first)


def test_changed_file_makes_a_new_entry(root):
    image_folder(path=root)
    Image.new("RGB", (6, 8), "red").save(root / "cat" / "0.png")
    assert read_all(image_folder(path=root).train)[0, 0, 0].tolist() == [255, 0, 0]
    assert len(list(cache_folder().glob("*.npy"))) == 2


def test_settings_do_not_share_an_entry(root):
    assert image_folder(path=root, color_mode="grayscale").info.input_shape == (8, 6, 1)
    assert image_folder(path=root, color_mode="rgb").info.input_shape == (8, 6, 3)
    assert image_folder(path=root, image_size=3).info.input_shape == (3, 3, 3)


def test_damaged_cache_entry_is_made_again(root):
    first = read_all(image_folder(path=root).train)
    (entry,) = cache_folder().glob("*.npy")
    entry.write_bytes(entry.read_bytes()[:100])
    np.testing.assert_array_equal(read_all(image_folder(path=root).train), first)


def test_cache_limit_pushes_out_the_longest_unused(root, monkeypatch):
    one_entry = 6 * 8 * 6 * 3 + 128
    monkeypatch.setenv("DLCLI_CACHE_LIMIT", str(int(2.5 * one_entry)))
    for age, color_mode in ((20, "auto"), (10, "rgb")):
        image_folder(path=root, color_mode=color_mode)
        for path in cache_folder().iterdir():
            os.utime(path, (path.stat().st_mtime - age,) * 2)
    image_folder(path=root, color_mode="auto")  # used again, so it is not the oldest now
    kept = next(iter(sorted(cache_folder().glob("*.json"), key=lambda path: -path.stat().st_mtime)))
    image_folder(path=root, image_size=[8, 6])
    assert len(list(cache_folder().glob("*.npy"))) == 2
    assert kept.exists()


def test_larger_than_the_cache_limit_works_without_it(root, monkeypatch):
    monkeypatch.setenv("DLCLI_CACHE_LIMIT", "100")
    source = image_folder(path=root)
    np.testing.assert_array_equal(read_all(source.train)[0], pixels_of(root / "cat" / "0.png"))
    assert any("not kept" in note for note in source.info.notes)
    assert not list(cache_folder().iterdir())


def test_temporaries_of_killed_processes_are_removed_after_a_day(root, cache):
    (cache / "images").mkdir(parents=True)
    old, new = (cache / "images" / name for name in (".1.old.npy", ".2.new.npy"))
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    image_folder(path=root)
    assert not old.exists()
    assert new.exists(), "another process may be at work on it"


def test_unwritable_cache_is_no_obstacle(root, cache):
    cache.write_text("a file where the folder should be")
    source = image_folder(path=root)
    np.testing.assert_array_equal(read_all(source.train)[0], pixels_of(root / "cat" / "0.png"))
    assert any("not kept" in note for note in source.info.notes)


# Streaming


def test_streamed_and_cached_examples_are_equal(root, monkeypatch):
    spoil(root)
    in_memory = image_folder(path=root, image_size=[5, 4], on_bad_file="skip")
    monkeypatch.setenv("DLCLI_IMAGE_MEMORY", "10")
    streamed = image_folder(path=root, image_size=[5, 4], on_bad_file="skip")
    assert isinstance(streamed.train, image_files.FileExamples)
    assert any("read from their files" in note for note in streamed.info.notes)
    assert any("skipped 3 of 19" in note for note in streamed.info.notes)
    np.testing.assert_array_equal(streamed.train.targets, in_memory.train.targets)
    np.testing.assert_array_equal(read_all(streamed.train), read_all(in_memory.train))
    model = streamed.preprocess(streamed.train)
    assert model.input_shape == (None, 5, 4, 3)


def test_streamed_files_are_tried_once_not_in_every_run(root, monkeypatch):
    monkeypatch.setenv("DLCLI_IMAGE_MEMORY", "1")
    (root / "cat" / "0.png").write_bytes((root / "cat" / "0.png").read_bytes()[:-30])
    image_folder(path=root, on_bad_file="skip")
    monkeypatch.setattr("dlcli.data.listed_images.find_damaged", None)
    assert len(image_folder(path=root, on_bad_file="skip").train) == 5


def test_streaming_inside_a_tf_data_graph(root, monkeypatch):
    monkeypatch.setenv("DLCLI_IMAGE_MEMORY", "10")
    train = image_folder(path=root).train.subset(np.array([5, 0]))
    batches = tf.data.Dataset.from_tensors(tf.constant([1, 0])).map(train.read)
    assert batches.element_spec.shape.as_list() == [2, 8, 6, 3]
    (batch,) = batches.as_numpy_iterator()
    np.testing.assert_array_equal(batch[1], pixels_of(root / "dog" / "2.png"))


def test_file_that_vanishes_while_streaming_is_named(root, monkeypatch):
    monkeypatch.setenv("DLCLI_IMAGE_MEMORY", "10")
    train = image_folder(path=root).train
    (root / "dog" / "1.png").unlink()
    batches = tf.data.Dataset.from_tensors(tf.range(6)).map(train.read)
    with pytest.raises(tf.errors.OpError, match=r"DataError: .*dog/1\.png cannot be read: No such file"):
        list(batches)
