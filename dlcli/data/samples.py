"""Some test images as files, so that a newcomer has something to predict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from dlcli.data.load import load_source
from dlcli.errors import DlcliError
from dlcli.files import atomic_path
from dlcli.recipe.schema import Recipe


def write_samples(recipe: Recipe, folder: Path, count: int) -> list[Path]:
    """Writes `count` images of the test split (else of the train split) as PNG, named by their class.

    Raises:
        DlcliError: the data set holds no images.
    """
    source = load_source(recipe.dataset)
    if source.info.kind != "image":
        raise DlcliError(f"dataset {recipe.dataset.name}: holds tables, not images")
    examples = source.test or source.train
    chosen = np.linspace(0, len(examples) - 1, min(count, len(examples))).astype(int)
    images = np.asarray(examples.read(tf.constant(chosen)))
    paths = []
    for index, image, target in zip(chosen, images, examples.targets[chosen], strict=True):
        name = "".join(letter if letter.isalnum() else "_" for letter in source.info.class_names[int(target)])
        name = name[:50]  # a file's name ends at 255 bytes, and a letter may take four
        path = folder / f"{name}_{index}.png"
        with atomic_path(path) as temporary:
            Image.fromarray(image.squeeze()).save(temporary)
        paths.append(path)
    return paths
