"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100: downloaded, or from files that are there."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import keras
import numpy as np
from PIL import Image

from dlcli.data.archives import ImageArrays, has_idx_files, read_cifar, read_idx_folder, read_npz
from dlcli.data.examples import ArrayExamples, DataInfo, Examples, Source
from dlcli.data.image_folder import source_of_files
from dlcli.data.image_listing import list_class_folders
from dlcli.data.images import PixelScaling, image_preprocessing
from dlcli.data.listed_images import height_and_width
from dlcli.downloads import DATA_SETS, by_hand, fetch_missing, missing_files
from dlcli.errors import DataError
from dlcli.recipe.arguments import ImageSize

_DIGITS = tuple("0123456789")
_CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_CIFAR100_TEXT = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel
can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion
lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree
pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea
seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
_CIFAR100 = tuple(_CIFAR100_TEXT.split())


@dataclass(frozen=True)
class _KnownSet:
    name: str
    class_names: tuple[str, ...]
    by_keras: tuple[str, ...] = ()
    """What Keras leaves in its folder under other names: an archive, the folder that it unpacked."""
    train_batches: tuple[str, ...] = ()
    test_batch: str = ""
    label_key: bytes = b"labels"
    subfolder: str = ""
    """Keras's folder within its folder of data sets."""

    @property
    def file(self) -> str:
        """The first of the files that are downloaded."""
        return DATA_SETS[self.name][0].name


_SETS = {
    "mnist": _KnownSet("mnist", _DIGITS),
    "fashion_mnist": _KnownSet("fashion_mnist", _CLOTHES, subfolder="fashion-mnist"),
    "cifar10": _KnownSet(
        "cifar10",
        _CIFAR10,
        ("cifar-10-batches-py-target_archive", "cifar-10-batches-py"),
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        "test_batch",
    ),
    "cifar100": _KnownSet(
        "cifar100",
        _CIFAR100,
        ("cifar-100-python-target_archive", "cifar-100-python"),
        ("train",),
        "test",
        b"fine_labels",
    ),
}


def mnist(
    *,
    path: Path | None = None,
    image_size: ImageSize | None = None,
    normalization: Literal["rescale", "standardize", "none"] = "rescale",
    on_bad_file: Literal["error", "skip"] = "error",
) -> Source:
    """70,000 handwritten digits, 28x28 grey, 10,000 of them the test split (LeCun et al. 1998).

    Args:
        path: `mnist.npz`, a folder with the four idx files (plain or .gz), or a folder with train/CLASS/* and
            test/CLASS/*; left out, 11 MB are downloaded once.
        image_size: one side or [height, width] to resize to (bilinear, antialiased).
        normalization: how pixels are scaled: `rescale` to 0..1, `standardize` by the train split's mean and
            standard deviation, or `none`.
        on_bad_file: for class folders: `error` refuses files that cannot be read, `skip` counts them.
    """
    return _load(_SETS["mnist"], path, image_size, normalization, on_bad_file)


def fashion_mnist(
    *,
    path: Path | None = None,
    image_size: ImageSize | None = None,
    normalization: Literal["rescale", "standardize", "none"] = "rescale",
    on_bad_file: Literal["error", "skip"] = "error",
) -> Source:
    """70,000 pictures of clothes in 10 classes, 28x28 grey, 10,000 of them the test split (Xiao et al. 2017).

    Args:
        path: a folder with the four idx files (plain or .gz), an .npz, or a folder with train/CLASS/* and
            test/CLASS/*; left out, 31 MB are downloaded once.
        image_size: one side or [height, width] to resize to (bilinear, antialiased).
        normalization: how pixels are scaled: `rescale` to 0..1, `standardize` by the train split's mean and
            standard deviation, or `none`.
        on_bad_file: for class folders: `error` refuses files that cannot be read, `skip` counts them.
    """
    return _load(_SETS["fashion_mnist"], path, image_size, normalization, on_bad_file)


def cifar10(
    *,
    path: Path | None = None,
    image_size: ImageSize | None = None,
    normalization: Literal["rescale", "standardize", "none"] = "rescale",
    on_bad_file: Literal["error", "skip"] = "error",
) -> Source:
    """60,000 photographs in 10 classes, 32x32 RGB, 10,000 of them the test split (Krizhevsky 2009).

    Args:
        path: `cifar-10-python.tar.gz`, its unpacked folder, or a folder with train/CLASS/* and test/CLASS/*;
            left out, 170 MB are downloaded once.
        image_size: one side or [height, width] to resize to (bilinear, antialiased).
        normalization: how pixels are scaled: `rescale` to 0..1, `standardize` by the train split's mean and
            standard deviation of each channel, or `none`.
        on_bad_file: for class folders: `error` refuses files that cannot be read, `skip` counts them.
    """
    return _load(_SETS["cifar10"], path, image_size, normalization, on_bad_file)


def cifar100(
    *,
    path: Path | None = None,
    image_size: ImageSize | None = None,
    normalization: Literal["rescale", "standardize", "none"] = "rescale",
    on_bad_file: Literal["error", "skip"] = "error",
) -> Source:
    """60,000 photographs in 100 classes, 32x32 RGB, 10,000 of them the test split (Krizhevsky 2009).

    Args:
        path: `cifar-100-python.tar.gz`, its unpacked folder, or a folder with train/CLASS/* and test/CLASS/*;
            left out, 169 MB are downloaded once.
        image_size: one side or [height, width] to resize to (bilinear, antialiased).
        normalization: how pixels are scaled: `rescale` to 0..1, `standardize` by the train split's mean and
            standard deviation of each channel, or `none`.
        on_bad_file: for class folders: `error` refuses files that cannot be read, `skip` counts them.
    """
    return _load(_SETS["cifar100"], path, image_size, normalization, on_bad_file)


def keras_folder() -> Path:
    """Where Keras keeps downloaded data sets: `$KERAS_HOME/datasets`, by default `~/.keras/datasets`."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "datasets"


def holds_class_folders(path: Path) -> bool:
    """Whether `path` is a folder of images rather than one of the original files."""
    return path.is_dir() and (path / "train").is_dir()


def _load(
    known: _KnownSet,
    path: Path | None,
    image_size: ImageSize | None,
    normalization: PixelScaling,
    on_bad_file: Literal["error", "skip"],
) -> Source:
    if path is None:
        return _source_of_arrays(known, _from_keras(known), image_size, normalization)
    path = Path(path).expanduser()
    if not path.exists():
        raise DataError(f"dataset.path {path}: there is no such file or folder (looked in {Path.cwd()})")
    if (arrays := _from_originals(known, path)) is not None:
        return _source_of_arrays(known, arrays, image_size, normalization)
    if holds_class_folders(path):
        return source_of_files(
            list_class_folders(path),
            image_size,
            color_mode="rgb" if known.train_batches else "grayscale",
            normalization=normalization,
            on_bad_file=on_bad_file,
        )
    raise DataError(
        f"dataset.path {path}: expected {_expected(known)}, or a folder with train/CLASS/* and test/CLASS/*"
    )


def _from_originals(known: _KnownSet, path: Path) -> ImageArrays | None:
    """What the original files at `path` hold; None when they are not there."""
    if known.train_batches:
        batches = (known.train_batches, known.test_batch, known.label_key)
        if path.is_file():
            return read_cifar(path, *batches)
        for folder in (path, path / known.by_keras[1]):
            if (folder / known.test_batch).is_file():
                return read_cifar(folder, *batches)
        archive = path / known.file
        return read_cifar(archive, *batches) if archive.is_file() else None
    if path.is_file() and path.suffix == ".npz":
        return read_npz(path)
    folder = path.parent if path.is_file() else path
    archive = folder / f"{known.name}.npz"
    if archive.is_file():
        return read_npz(archive)
    return read_idx_folder(folder) if has_idx_files(folder) else None


def _expected(known: _KnownSet) -> str:
    if known.train_batches:
        return f"{known.file} or its unpacked folder"
    files = ", ".join(file.name for file in DATA_SETS["fashion_mnist"])
    return f"{known.name}.npz, or a folder with {files} (also without .gz)"


def to_fetch(name: str) -> str:
    """What has to be downloaded of MNIST, CIFAR and so on, and where to; empty when it is here."""
    known = _SETS[name]
    place = _kept(known)
    missing = [] if place.name in known.by_keras else missing_files(name, place)
    return f"{name}: {by_hand(missing, place)}" if missing else ""


def _kept(known: _KnownSet) -> Path:
    """Keras's folder, or what Keras itself has left in it under another name."""
    folder = keras_folder() / known.subfolder
    left = [folder / name for name in known.by_keras if (folder / name).exists()]
    return left[0] if left and not (folder / known.file).is_file() else folder


def _from_keras(known: _KnownSet) -> ImageArrays:
    """From Keras's folder; downloaded to it first when it is not there, saying so."""
    place = _kept(known)
    if place.name not in known.by_keras:
        fetch_missing(known.name, place)
    try:
        arrays = _from_originals(known, place)
    except DataError as error:
        raise DataError(f"{error}; delete it, and the next run downloads it again") from error
    if arrays is None:
        raise DataError(
            f"{place}: is damaged, or not all of {known.name}; delete it, and the next run downloads it again"
        )
    return arrays


def _source_of_arrays(
    known: _KnownSet, arrays: ImageArrays, image_size: ImageSize | None, normalization: PixelScaling
) -> Source:
    for targets in (arrays.train_targets, arrays.test_targets):
        if len(targets) == 0 or targets.min() < 0 or targets.max() >= len(known.class_names):
            found = f"{targets.min()}..{targets.max()}" if len(targets) else "none"
            raise DataError(
                f"{known.name}: labels must lie in 0..{len(known.class_names) - 1}; found {found}"
            )
    digest = hashlib.sha256()
    for array in (arrays.train_images, arrays.train_targets, arrays.test_images, arrays.test_targets):
        digest.update(np.ascontiguousarray(array).data)
    train_images, test_images = arrays.train_images, arrays.test_images
    notes: tuple[str, ...] = ()
    size = height_and_width(image_size)
    if size is not None and size != train_images.shape[1:3]:
        train_images, test_images = (_resized(images, size) for images in (train_images, test_images))
        notes = (f"images resized to {size[0]} x {size[1]} (bilinear, antialiased)",)
    info = DataInfo(
        kind="image",
        input_shape=tuple(train_images.shape[1:]),
        target="classes",
        class_names=known.class_names,
        notes=notes,
        fingerprint=digest.hexdigest(),
    )

    def preprocess(examples: Examples) -> keras.Model:
        return image_preprocessing(examples, info.input_shape, normalization)

    train = ArrayExamples(train_images, arrays.train_targets)
    return Source(train, info, preprocess, test=ArrayExamples(test_images, arrays.test_targets))


def _resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    resized = np.empty((len(images), *size, images.shape[-1]), dtype=np.uint8)
    for index, image in enumerate(images):
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        pixels = np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR))
        resized[index] = pixels.reshape(resized.shape[1:])
    return resized
