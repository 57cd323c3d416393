"""Some test images or documents as files, so that a newcomer has something to predict."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from dlcli.data import IMAGE_KINDS
from dlcli.data.examples import DataInfo
from dlcli.data.load import load_source
from dlcli.data.text.texts import TextExamples
from dlcli.data.text.vocabulary import COLUMNS
from dlcli.errors import DlcliError
from dlcli.files import atomic_path, write_text
from dlcli.recipe.schema import Recipe


def write_samples(recipe: Recipe, folder: Path, count: int) -> list[Path]:
    """Writes `count` examples of the test split (else of the train split), named by their class.

    Images become PNG (of pairs the source, of two sets A), documents .txt; of translations the source, of questions
    one .csv with their texts.

    Raises:
        DlcliError: the data set holds tables.
    """
    source = load_source(recipe.dataset)
    examples = source.test or source.train
    chosen = np.linspace(0, len(examples) - 1, min(count, len(examples))).astype(int)
    if isinstance(examples, TextExamples):
        return _write_texts(examples, chosen, source.info, folder)
    if source.info.kind not in IMAGE_KINDS:
        raise DlcliError(f"dataset {recipe.dataset.name}: holds tables, not images or texts")
    read = examples.read(tf.constant(chosen))
    # Of pairs the sources, of two sets the first one: what a model translates.
    part, images = next(iter(read.items())) if isinstance(read, dict) else ("image", read)
    paths = []
    for index, image, target in zip(chosen, np.asarray(images), examples.targets[chosen], strict=True):
        name = source.info.class_names[int(target)] if source.info.class_names else part
        path = folder / f"{_file_name(name or 'image')}_{index}.png"
        with atomic_path(path) as temporary:
            Image.fromarray(image.squeeze()).save(temporary)
        paths.append(path)
    return paths


def _write_texts(examples: TextExamples, chosen: np.ndarray, info: DataInfo, folder: Path) -> list[Path]:
    texts = examples.read(chosen)
    if "question" in texts:
        path = folder / "questions.csv"
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            rows = zip(texts["question"], texts["context"], strict=True)
            csv.writer(file).writerows([("question", "context"), *rows])
        return [path]
    column = next(name for name in COLUMNS if name in texts)
    paths = []
    for index, text, target in zip(chosen, texts[column], examples.targets[chosen], strict=True):
        path = folder / f"{_file_name(_class_of(target, info))}_{index}.txt"
        write_text(path, text + "\n")
        paths.append(path)
    return paths


def _class_of(target: np.ndarray, info: DataInfo) -> str:
    if info.target == "classes":
        return info.class_names[int(target)]
    if info.target == "labels":
        return "_".join(name for name, given in zip(info.class_names, target, strict=True) if given) or "none"
    return "text"


def _file_name(class_name: str) -> str:
    name = "".join(letter if letter.isalnum() else "_" for letter in class_name)
    return name[:50]  # a file's name ends at 255 bytes, and a letter may take four
