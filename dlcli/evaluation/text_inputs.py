"""What a user names for a model of texts -> the texts themselves, one after another."""

from __future__ import annotations

import glob
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dlcli.data.text.reading import read_text_file
from dlcli.data.text.rows import read_columns
from dlcli.errors import DataError
from dlcli.evaluation.figure import shorten

TABLES = (".csv", ".tsv")
NAME_LENGTH = 80
"""Characters of a text that stands for itself in a report."""


@dataclass(frozen=True)
class TextInput:
    """One text to read, or why it cannot be read."""

    name: str
    """A path, `reviews.csv row 3`, or the beginning of the text itself."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """`text`; or `question` and `context`."""
    error: str | None = None


@dataclass(frozen=True)
class TextForm:
    """What a model reads, and how files are written."""

    columns: Mapping[str, str]
    """What a text is for (as in `TextInput.texts`) -> the column of a table that holds it."""
    delimiter: str | None = None
    encoding: str | None = None
    clean: Callable[[str], str] = str.strip
    """What the data set does to each of its documents."""

    @property
    def single(self) -> bool:
        """Whether one text is all that the model reads."""
        return len(self.columns) == 1


def find_texts(inputs: Iterable[str], form: TextForm) -> Iterator[TextInput]:
    """The texts that a user names, in order; those that cannot be read or are empty carry an error.

    Args:
        inputs: each is a `.csv` or `.tsv` file of rows; a `.json` file of questions; any other file, which is one
            document; a folder, of which every `.txt` file is one; `-` for the lines of stdin; or else the text itself.
            What looks like a path (no space, but a separator or one of these suffixes) is no text.
        form: of the model.
    """
    for given in inputs:
        for found in _of_input(given, form):
            if found.error is None and (
                empty := [name for name, text in found.texts.items() if not text.strip()]
            ):
                yield replace(found, error=f"the {empty[0]} is empty")
            else:
                yield found


def _of_input(given: str, form: TextForm) -> Iterator[TextInput]:
    if given == "-":
        yield from _lines_of_stdin(form)
        return
    path = Path(given).expanduser()
    kind = kind_of_path(path) if given.strip() else "none"
    if kind == "folder":
        yield from _documents_below(path, form)
    elif kind == "file":
        yield from _of_file(path, form)
    elif kind == "other":
        yield TextInput(given, error="is not a regular file")
    elif matches := _matches(given):
        for match in matches:
            yield from _of_input(match, form)
    elif _looks_like_path(given):
        yield TextInput(
            given,
            error="no such file or folder (a text that looks like a path can be given as a line of stdin: -)",
        )
    else:
        yield _itself(given, form)


def kind_of_path(path: Path) -> str:
    """`folder`, `file`, `other` (a pipe, a device) or `none`, also for a text that is no path at all."""
    try:
        if path.is_dir():
            return "folder"
        if path.is_file():
            return "file"
        return "other" if path.exists() else "none"
    except (OSError, ValueError):  # longer than any name, or a zero byte in it: this is a text
        return "none"


def _matches(given: str) -> list[str]:
    """What a pattern such as `reviews/*.txt` stands for."""
    if not glob.has_magic(given) or any(letter.isspace() for letter in given):
        return []
    return [match for match in sorted(glob.glob(given, recursive=True)) if match != given]  # noqa: PTH207


def _looks_like_path(given: str) -> bool:
    if not given or any(letter.isspace() for letter in given):
        return False
    separators = [separator for separator in (os.sep, os.altsep) if separator]
    return any(each in given for each in separators) or given.lower().endswith((".txt", ".json", *TABLES))


def _itself(text: str, form: TextForm) -> TextInput:
    name = shorten(text, NAME_LENGTH) if text.strip() else "(empty)"
    if not form.single:
        return TextInput(name, error=f"this model reads {' and '.join(form.columns)}: {_ways(form)}")
    return TextInput(name, {next(iter(form.columns)): form.clean(text)})


def _ways(form: TextForm) -> str:
    columns = " and ".join(form.columns.values())
    return f"give a .csv or .tsv file with columns {columns}, a .json file as SQuAD's, or --context beside a question"


def _of_file(path: Path, form: TextForm) -> Iterator[TextInput]:
    suffix = path.suffix.lower()
    try:
        if suffix in TABLES:
            yield from _rows(path, form)
        elif suffix == ".json" and not form.single:
            yield from _questions(path)
        elif not form.single:
            yield TextInput(str(path), error=_itself("", form).error)
        else:
            yield TextInput(
                str(path), {next(iter(form.columns)): form.clean(read_document(path, form.encoding))}
            )
    except DataError as error:
        yield TextInput(str(path), error=str(error).removeprefix(f"{path}: "))


def read_document(path: Path, encoding: str | None = None) -> str:
    """The whole text of a file, by the rules of `dlcli.data.text.reading`.

    Raises:
        DataError: the file cannot be read, or is no text.
    """
    return read_text_file(path, encoding, "a text file").text


def _rows(path: Path, form: TextForm) -> Iterator[TextInput]:
    table = read_columns(path, list(form.columns.values()), form.delimiter, form.encoding)
    columns = [table.columns[column] for column in form.columns.values()]
    for row, cells in enumerate(zip(*columns, strict=True), start=1):
        yield TextInput(f"{path} row {row}", dict(zip(form.columns, map(form.clean, cells), strict=True)))


def _documents_below(folder: Path, form: TextForm) -> Iterator[TextInput]:
    empty = True
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            if not name.startswith(".") and path.suffix.lower() == ".txt" and path.is_file():
                empty = False
                yield from _of_file(path, form)
    if empty:
        yield TextInput(str(folder), error="holds no .txt files")


def _lines_of_stdin(form: TextForm) -> Iterator[TextInput]:
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            yield TextInput(f"line {number}", error="is not UTF-8")
            continue
        yield _itself(text, form) if text.strip() else TextInput(f"line {number}", error="the text is empty")


def _questions(path: Path) -> Iterator[TextInput]:
    """Questions in the form of SQuAD, for which answers need not be there."""
    try:
        articles = json.loads(read_text_file(path, None, "a .json file").text)["data"]
        found = [
            (str(question.get("id", "")), str(question["question"]), str(paragraph["context"]))
            for article in articles
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: this is no JSON: {error}") from None
    except (KeyError, TypeError, AttributeError):
        raise DataError(
            f"{path}: this is no SQuAD file: expected data[...].paragraphs[...] with context and qas[...].question"
        ) from None
    for identity, question, context in found:
        yield TextInput(
            identity or shorten(question, NAME_LENGTH), {"question": question, "context": context}
        )


def with_context(inputs: Sequence[str], context: str) -> Iterator[TextInput]:
    """Questions typed, and the text that answers them, itself or the name of its file.

    Raises:
        DataError: the context's file cannot be read.
    """
    path = Path(context).expanduser()
    if kind_of_path(path) == "file":
        text = read_document(path).strip()
    elif _looks_like_path(context):
        raise DataError(f"--context {context}: no such file")
    else:
        text = context
    for question in find_texts(inputs, TextForm({"question": "question"})):
        yield replace(question, texts={**question.texts, "context": text})


def form_of(task: str, dataset: str, arguments: Mapping[str, Any]) -> TextForm:
    """How the inputs of a run look, from its recipe.

    Args:
        task: the run's task.
        dataset: the name of its data set.
        arguments: of the data set.
    """
    if task == "question_answering":
        return TextForm({"question": "question", "context": "context"})
    if dataset == "imdb":
        from dlcli.data.text.keras_sets import without_line_breaks

        return TextForm({"text": "text"}, clean=without_line_breaks)
    own = {"text_csv": "text", "pairs": "source"}.get(dataset, "")
    column = arguments.get(own)
    return TextForm(
        {"text": column if isinstance(column, str) else "text"},
        arguments.get("delimiter"),
        arguments.get("encoding"),
    )
