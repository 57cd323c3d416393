"""Files, folders and tables -> predictions, in a stream: memory does not grow with the number of images."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dlcli.data import TEXT_KINDS
from dlcli.data.decode import BadImageError, decode_file
from dlcli.data.image_listing import looks_like_image
from dlcli.errors import DataError, DlcliError
from dlcli.recipe.conflicts import kind_of_data
from dlcli.runs import refuse_drawing

if TYPE_CHECKING:
    import keras

    from dlcli.runs import Run

BATCH_SIZE = 64
LABEL_THRESHOLD = 0.5


@dataclass(frozen=True)
class Head:
    """What a model's outputs mean; one object for all its predictions."""

    target: Literal["classes", "labels", "values", "text"]
    """`text` is for models that answer with a text of their own (`Prediction.text`)."""
    names: tuple[str, ...]
    """K names of classes, labels or target columns; beside a text, of numbers that belong to it."""
    top: int
    """How many of the most probable classes each prediction lists."""

    @classmethod
    def of(cls, model: keras.Model, top: int) -> Head:
        """Reads the saved model's last layer, a `dlcli.layers.predictions.Predictions`.

        Raises:
            DlcliError: The model ends otherwise, so its classes are not known.
        """
        layer = model.layers[-1]
        try:
            return cls(layer.target, tuple(layer.class_names), min(top, len(layer.class_names)))
        except AttributeError:
            raise DlcliError(
                f"the model ends with {type(layer).__name__}, which does not say what its classes are; "
                "give a run that `dlcli train` made"
            ) from None


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says of one input, or why it says nothing."""

    input: str
    """The path of a file, `table.csv row 3`, or the beginning of a text."""
    head: Head
    outputs: np.ndarray | None = None
    """(K,) probabilities or values, in the order of `head.names`; None when there is an error."""
    error: str | None = None
    text: str | None = None
    """A translation, an answer, tagged words; None for a model that gives numbers alone."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What JSON holds beside the text."""

    @property
    def top(self) -> list[tuple[str, float]]:
        """The most probable names, best first; all the values, in their order, for a regression."""
        if self.outputs is None:
            return []
        if self.head.target in ("values", "text"):
            order = np.arange(len(self.outputs))
        else:
            order = np.argsort(-self.outputs, kind="stable")[: self.head.top]
        return [(self.head.names[index], float(self.outputs[index])) for index in order]

    @property
    def class_name(self) -> str | None:
        """The most probable class; the labels, joined by `; `; None for values and errors."""
        if self.outputs is None or self.head.target in ("values", "text"):
            return None
        if self.head.target == "classes":
            return self.head.names[int(self.outputs.argmax())]
        return "; ".join(self.labels)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of at least 0.5; none for classes, values and errors."""
        if self.outputs is None or self.head.target != "labels":
            return ()
        chosen = zip(self.head.names, self.outputs, strict=True)
        return tuple(name for name, probability in chosen if probability >= LABEL_THRESHOLD)

    @property
    def probability(self) -> float | None:
        """Of the most probable class; None for labels, values and errors."""
        if self.outputs is None or self.head.target != "classes":
            return None
        return float(self.outputs.max())


def predict_run(
    run: Run, inputs: Sequence[str], *, top: int = 5, context: str | None = None
) -> Iterator[Prediction]:
    """Predictions of a run's model for what a user names.

    Args:
        run: images, tables or texts, as its recipe says.
        inputs: files, folders or patterns; for a model of texts also the texts themselves.
        top: How many classes to list.
        context: For question answering, the text that answers the questions, or its file.

    Yields:
        One Prediction for each image, row or text, in order; those that cannot be read carry an error.
    """
    refuse_drawing(run, "predict")
    if kind_of_data(run.recipe.dataset.name) in TEXT_KINDS:
        from dlcli.evaluation.predict_text import predict_texts

        yield from predict_texts(run.model, run.recipe, inputs, top=top, context=context)
        return
    if context is not None:
        raise DlcliError("--context is for models of task question_answering; leave it out")
    dataset = run.recipe.dataset
    written_as = dataset.arguments if dataset.name == "csv" else {}
    yield from predict_inputs(
        run.model,
        [Path(each) for each in inputs],
        top=top,
        delimiter=written_as.get("delimiter"),
        encoding=written_as.get("encoding"),
    )


def predict_inputs(
    model: keras.Model,
    inputs: Sequence[Path],
    *,
    top: int = 5,
    batch_size: int = BATCH_SIZE,
    delimiter: str | None = None,
    encoding: str | None = None,
    head: Head | None = None,
) -> Iterator[Prediction]:
    """Predictions for what a user names: images for a model of images, CSV files for a model of tables.

    Args:
        model: A run's saved model.
        inputs: Files, folders or patterns.
        top: How many classes to list.
        batch_size: Inputs in one call of the model.
        delimiter: Of CSV files; sniffed when None.
        encoding: Of CSV files, a Python codec; sniffed when None.
        head: What the outputs mean; the model's last layer says it when None.

    Yields:
        One Prediction for each image or row, in order; those that cannot be read carry an error.
    """
    head = head or Head.of(model, top)
    if not isinstance(model.input, dict):
        yield from predict_images(model, inputs, top=top, batch_size=batch_size, head=head)
        return
    for path in inputs:
        try:
            yield from predict_table(
                model,
                path,
                top=top,
                batch_size=batch_size,
                delimiter=delimiter,
                encoding=encoding,
                head=head,
            )
        except DataError as error:
            yield Prediction(str(path), head, error=str(error))


def predict_images(
    model: keras.Model,
    inputs: Iterable[Path],
    *,
    top: int = 5,
    batch_size: int = BATCH_SIZE,
    head: Head | None = None,
) -> Iterator[Prediction]:
    """Predictions for image files; while the model works on a batch, threads decode the next one.

    Args:
        model: Takes uint8 (B, H, W, C); H and W may be open, then each image keeps its size.
        inputs: Files, folders (all images below, by name, hidden ones left out) or patterns such as `*.jpg`.
        top: How many classes to list.
        batch_size: Images in one call of the model.
        head: What the outputs mean; the model's last layer says it when None.

    Yields:
        One Prediction for each image, in order.
    """
    head = head or Head.of(model, top)
    height, width, channels = model.inputs[0].shape[1:]
    size = None if height is None or width is None else (height, width)
    decode = partial(decode_file, channels=channels, size=size)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        waiting: list[_Decoding] = []
        for batch in _batches(find_images(inputs), batch_size):
            decoding = [
                (path, pool.submit(decode, path) if error is None else error) for path, error in batch
            ]
            yield from _predict_decoded(model, waiting, head)
            waiting = decoding
        yield from _predict_decoded(model, waiting, head)


def predict_table(
    model: keras.Model,
    path: Path,
    *,
    top: int = 5,
    batch_size: int = BATCH_SIZE,
    delimiter: str | None = None,
    encoding: str | None = None,
    head: Head | None = None,
) -> Iterator[Prediction]:
    """Predictions for the rows of a CSV file; it needs the model's columns, others are ignored.

    Args:
        model: Takes a dict of columns, each (B, 1).
        path: The file.
        top: How many classes to list.
        batch_size: Rows in one call of the model.
        delimiter: One character; sniffed when None.
        encoding: A Python codec; sniffed when None.
        head: What the outputs mean; the model's last layer says it when None.

    Yields:
        One Prediction for each row, in order.

    Raises:
        DataError: A column is missing or a cell cannot be what the model expects.
    """
    from dlcli.data.csv_table import read_inputs
    from dlcli.data.table_preprocessing import model_columns

    head = head or Head.of(model, top)
    columns = read_inputs(path, *model_columns(model), delimiter, encoding)
    rows = len(next(iter(columns.values())))
    for start in range(0, rows, batch_size):
        batch = {name: values[start : start + batch_size] for name, values in columns.items()}
        outputs = np.asarray(model.predict_on_batch(batch))
        for row, output in enumerate(outputs, start=start + 1):
            yield prediction(f"{path} row {row}", output, head)


def find_images(inputs: Iterable[Path]) -> Iterator[tuple[Path, str | None]]:
    """Image files with None, and whatever has none with the reason.

    A file named by the user is taken whatever its name is; in a folder, the suffix or the first bytes decide.
    """
    for path in inputs:
        try:
            mode = path.stat().st_mode
        except (OSError, ValueError) as error:
            # A match that is the pattern itself (a broken link) must not be looked up for ever.
            matches = [match for match in _matches(path) if match != path]
            yield from find_images(matches) if matches else [(path, _unreadable(error))]
            continue
        if stat.S_ISREG(mode):
            yield path, None
        elif stat.S_ISDIR(mode):
            empty = True
            for image in _images_below(path):
                empty = False
                yield image
            if empty:
                yield path, "holds no images"
        else:
            yield path, "is not a regular file"


def _matches(pattern: Path) -> list[Path]:
    """What a pattern stands for, by name; nothing for a plain path."""
    text = str(pattern)
    return sorted(Path(match) for match in glob.glob(text, recursive=True)) if glob.has_magic(text) else []  # noqa: PTH207


def _unreadable(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file or folder"
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"


_Decoding = tuple[Path, "Future[np.ndarray] | str"]


def _images_below(folder: Path) -> Iterator[tuple[Path, str | None]]:
    refused: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=refused.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file() and looks_like_image(str(path)):
                yield path, None
        while refused:
            yield _refusal(refused.pop())
    yield from map(_refusal, refused)


def _refusal(error: OSError) -> tuple[Path, str]:
    return Path(error.filename), _unreadable(error)


def _predict_decoded(model: keras.Model, decodings: Sequence[_Decoding], head: Head) -> Iterator[Prediction]:
    images: dict[int, np.ndarray] = {}
    errors: dict[int, str] = {}
    for position, (_, decoding) in enumerate(decodings):
        try:
            if isinstance(decoding, str):
                errors[position] = decoding
            else:
                images[position] = decoding.result()
        except BadImageError as error:
            errors[position] = str(error)
    outputs = _outputs(model, images)
    for position, (path, _) in enumerate(decodings):
        if position in errors:
            yield Prediction(str(path), head, error=errors[position])
        else:
            yield prediction(str(path), outputs[position], head)


def _outputs(model: keras.Model, images: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Position -> outputs (K,), from one call for each size of image."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for position, image in images.items():
        by_shape.setdefault(image.shape, []).append(position)
    outputs: dict[int, np.ndarray] = {}
    for positions in by_shape.values():
        # Not model.predict, which costs 48 ms a call.
        batch = np.asarray(model.predict_on_batch(np.stack([images[position] for position in positions])))
        outputs.update(zip(positions, batch, strict=True))
    return outputs


def prediction(name: str, outputs: np.ndarray, head: Head) -> Prediction:
    """A prediction of finite numbers; an error for any others."""
    outputs = np.asarray(outputs, np.float32)
    if not np.isfinite(outputs).all():
        return Prediction(name, head, error="the model's output is not a finite number")
    return Prediction(name, head, outputs)


def _batches(items: Iterable[tuple[Path, str | None]], size: int) -> Iterator[list[tuple[Path, str | None]]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
