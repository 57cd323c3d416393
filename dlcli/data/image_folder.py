"""The data set `image_folder`: any folder of class folders, or of images that a CSV labels."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import keras

from dlcli.data.examples import DataInfo, Examples, Source
from dlcli.data.image_listing import SPLITS, Listing, list_class_folders, list_labelled_files
from dlcli.data.images import PixelScaling, image_preprocessing
from dlcli.data.listed_images import read_files
from dlcli.errors import DataError
from dlcli.recipe.arguments import ImageSize


def image_folder(
    *,
    path: Path,
    image_size: ImageSize | None = None,
    color_mode: Literal["auto", "rgb", "grayscale"] = "auto",
    labels: Path | None = None,
    normalization: Literal["rescale", "standardize", "none"] = "rescale",
    on_bad_file: Literal["error", "skip"] = "error",
) -> Source:
    """Images in class folders (`CLASS/*`, or `train/CLASS/*` and `test/CLASS/*`), or labelled by a CSV.

    A folder with nothing but images, or with `train/*` and perhaps `val/*` and `test/*`, is one class without a name:
    enough for tasks that draw images, and refused by those that tell classes apart.

    JPEG, PNG, BMP, GIF, WebP and TIFF, by content. The rules for unusual files stand in `dlcli.data.decode`.

    Args:
        path: the folder; beside a `train/` in it, `test/` and `val/` (or `valid/`, `validation/`) are splits.
        image_size: one side or [height, width] that every image is resized to (bilinear, antialiased, aspect
            ratio not kept); needed when the images differ in size.
        color_mode: `rgb`, `grayscale`, or `auto`: grey when all images are.
        labels: CSV with the columns path, label and perhaps split (train, validation, test); its paths are
            relative to `path`.
        normalization: how pixels are scaled: `rescale` to 0..1, `standardize` by the train split's mean and
            standard deviation of each channel, or `none`.
        on_bad_file: `error` refuses to start while a file cannot be read; `skip` leaves those out and counts
            them.
    """
    root = Path(path).expanduser()
    listing = list_labelled_files(root, Path(labels).expanduser()) if labels else list_class_folders(root)
    return source_of_files(listing, image_size, color_mode, normalization, on_bad_file)


def source_of_files(
    listing: Listing,
    image_size: ImageSize | None,
    color_mode: Literal["auto", "rgb", "grayscale"],
    normalization: PixelScaling,
    on_bad_file: Literal["error", "skip"],
) -> Source:
    """The examples of listed files: from the cache, decoded into it, or streamed when memory is too small.

    Raises:
        DataError: files cannot be read, or differ in size and no `image_size` is given.
    """
    files = read_files(listing, image_size, color_mode, on_bad_file)
    train, validation, test = (files.part(files.listing.splits == split) for split in range(len(SPLITS)))
    if train is None:
        raise DataError(f"{listing.root}: no images of the train split")
    notes = files.notes
    if test is None:
        notes = (*notes, "there is no test split: `dlcli evaluate` needs `--split` validation or train")
    info = DataInfo(
        kind="image",
        input_shape=files.shape,
        target="classes",
        class_names=listing.class_names,
        notes=notes,
        fingerprint=listing.fingerprint(),
    )

    def preprocess(examples: Examples) -> keras.Model:
        return image_preprocessing(examples, files.shape, normalization)

    return Source(train, info, preprocess, test=test, validation=validation)
