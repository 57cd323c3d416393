"""`dlcli explain`: inputs -> a folder of pictures, arrays, explanation.json and index.html.

INPUT.METHOD.png      what a person looks at
INPUT.METHOD.npy      the attributions: (H, W) of an image, (T,) of a text's tokens, (D,) of a table's columns; with
                      `--top N` above 1, N of them
explanation.json      settings, versions, and of each input the summary, scores and trust of each explanation
index.html            all of them in one page
.explanation.jsonl    the same while work goes on; a second call with the same settings goes on where it stopped
"""

from __future__ import annotations

import gc
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dlcli.console import Counting, note, status, warn
from dlcli.errors import DlcliError
from dlcli.evaluation.text_inputs import kind_of_path
from dlcli.explain.attribution import Subject, Unreadable
from dlcli.explain.choice import Options
from dlcli.explain.explainer import BATCH_SIZE, ON_RANDOM_WEIGHTS, Data, Explainer
from dlcli.explain.index_page import page_row, write_index
from dlcli.explain.journal import Journal, OtherSettingsError, open_journal, write_explanation
from dlcli.explain.labelled import background_rows, labelled_rows
from dlcli.explain.names import Stems
from dlcli.explain.record import Explained, number
from dlcli.explain.report import ROWS_SHOWN
from dlcli.explain.source import Source
from dlcli.explain.views import View
from dlcli.files import atomic_path
from dlcli.runs import installed_version

LONGEST_STEM = 48
"""Characters of a text, or of an audit's example, that stand in file names."""

VERSIONS = ("dlcli", "keras", "tensorflow", "numpy", "scikit-image", "shap")


def explain_inputs(
    source: Source,
    inputs: Sequence[str],
    folder: Path | None,
    options: Options,
    *,
    changes: Sequence[str] = (),
) -> dict[str, Any]:
    """Explains what a user names.

    Args:
        source: the model.
        inputs: as `dlcli predict` takes them.
        folder: where files go; RUN/explain, or explain-2 and so on where that holds other settings, when None.
        options: methods and their options.
        changes: of `--set`: where the run's data are now.

    Returns:
        As `explain_subjects`.

    Raises:
        DlcliError: a method or option is not for this model, or the folder holds other explanations.
    """
    if changes and (source.run is None or source.kind != "table"):
        raise DlcliError(
            f"--set {changes[0]}: only explanations of a table's run and --audit read the run's data; leave it out"
        )
    for sentence in source.notes:
        note(f"{source.path}: {sentence}")
    path = source.path
    own = path / "explain" if source.run is not None else Path(f"{path.stem}-explain")
    found = find_subjects(source, inputs)
    return explain_subjects(source, found, folder or own, options, changes=changes, numbered=folder is None)


def find_subjects(source: Source, inputs: Sequence[str]) -> Iterator[Subject | Unreadable]:
    """What a user names, as the model reads it, in a stream."""
    if source.kind == "image":
        from dlcli.explain.image.files import subjects_of_images

        return subjects_of_images(source.model, inputs)
    if source.kind == "text":
        from dlcli.explain.text.words import inputs_of_texts

        return inputs_of_texts(source.model, source.recipe, inputs)
    from dlcli.explain.table.rows import inputs_of_tables

    dataset = source.recipe.dataset if source.recipe is not None else None
    written_as = dataset.arguments if dataset is not None and dataset.name == "csv" else {}
    return inputs_of_tables(
        source.model, inputs, delimiter=written_as.get("delimiter"), encoding=written_as.get("encoding")
    )


def explain_subjects(
    source: Source,
    subjects: Iterable[Subject | Unreadable],
    folder: Path,
    options: Options,
    *,
    changes: Sequence[str] = (),
    numbered: bool = False,
) -> dict[str, Any]:
    """Explains subjects one batch after another; memory does not grow with their number.

    Args:
        source: the model.
        subjects: in a stream.
        folder: where files go.
        options: methods and their options.
        changes: of `--set`.
        numbered: whether FOLDER-2 and so on are taken when the folder holds explanations with other settings.

    Returns:
        For the terminal: `file` and `index`, how many `inputs` there are and how many are `unreadable`, the first
        explanations (`shown`), and what the `randomization` check says.
    """
    subjects, data = with_data(source, subjects, options, changes)
    batches = _batches(_told_apart(subjects), BATCH_SIZE[source.kind])
    first, batches = _first_readable(batches)
    explainer = Explainer(source, options, data)
    explainer.try_on(first)
    settings = {
        "run": str(source.path),
        "model": _fingerprint(source.model),
        **options.record(),
        "methods": [method.name for method in explainer.methods],
        "assumed": list(source.notes),
        "data": explainer.data_digest,
    }
    with _opened(folder, numbered, settings) as (found, journal), Counting("explained", "inputs") as progress:
        writer = _Writer(explainer, found, journal)
        explainer.doing = progress.doing
        try:
            for batch in batches:
                writer.add(batch)
                progress.add(len(batch))
        except KeyboardInterrupt:
            note(f"{len(journal):,} inputs are done in {found}; the same command goes on from there")
            raise
        return writer.finish(settings)


def with_data(
    source: Source, subjects: Iterable[Subject | Unreadable], options: Options, changes: Sequence[str]
) -> tuple[Iterable[Subject | Unreadable], Data | None]:
    """Of a table also what rows are compared with: of a run its splits, of a file the rows that are explained."""
    if source.kind != "table":
        return subjects, None
    if source.run is not None:
        return subjects, data_of_run(source, options, changes)
    from dlcli.explain.table.rows import background_of_subjects

    known = list(subjects)
    rows = [each for each in known if isinstance(each, Subject)]
    return known, {"background": lambda: background_of_subjects(rows, options.seed)}


def data_of_run(source: Source, options: Options, changes: Sequence[str]) -> Data:
    """What makes the rows of a table's run that methods compare with."""
    return {
        "background": lambda: background_rows(source, changes, options.seed),
        "labelled": lambda: labelled_rows(source, changes, options.seed),
    }


def _told_apart(subjects: Iterable[Subject | Unreadable]) -> Iterator[Subject | Unreadable]:
    """Long texts are named by their beginning: others with the same one get a number; the same input comes once."""
    known: dict[str, list[str]] = {}
    for each in subjects:
        if isinstance(each, Unreadable):
            yield each
            continue
        same = known.setdefault(each.name, [])
        if each.digest not in same:
            same.append(each.digest)
            yield each if len(same) == 1 else replace(each, name=f"{each.name} ({len(same)})")


def _batches(subjects: Iterable[Subject | Unreadable], size: int) -> Iterator[list[Subject | Unreadable]]:
    """Up to `size` subjects at a time; those of one batch have one shape, texts any length."""
    batch: list[Subject | Unreadable] = []
    shape: Any = None
    for each in subjects:
        own = getattr(each.inputs, "shape", ()) if isinstance(each, Subject) else shape
        own = own if len(own or ()) == 3 else ()
        if batch and (len(batch) == size or (shape is not None and own != shape)):
            yield batch
            batch, shape = [], None
        batch.append(each)
        shape = own if isinstance(each, Subject) else shape
    if batch:
        yield batch


def _first_readable(
    batches: Iterator[list[Subject | Unreadable]],
) -> tuple[Subject, Iterator[list[Subject | Unreadable]]]:
    """The first subject, and all batches, that one's among them.

    Raises:
        DlcliError: no input can be read.
    """
    seen: list[list[Subject | Unreadable]] = []
    for batch in batches:
        seen.append(batch)
        for each in batch:
            if isinstance(each, Subject):
                return each, chain(seen, batches)
    errors = [
        each.error if each.error.startswith(each.name) else f"{each.name}: {each.error}"
        for batch in seen
        for each in batch
        if isinstance(each, Unreadable)
    ]
    told = "\n".join(errors[:ROWS_SHOWN]) or "there are none"
    raise DlcliError(f"none of the inputs can be read; nothing is written\n{told}")


def _fingerprint(model: keras.Model) -> str:
    """sha256 of the weights: explanations of another model are others."""
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(np.ascontiguousarray(weight).data)
    return digest.hexdigest()


@contextmanager
def _opened(base: Path, numbered: bool, settings: dict[str, Any]) -> Iterator[tuple[Path, Journal]]:
    """The folder, with its journal."""
    for place in count(1):
        folder = base if place == 1 else base.with_name(f"{base.name}-{place}")
        with ExitStack() as stack:
            try:
                journal = stack.enter_context(open_journal(folder, settings))
            except OtherSettingsError:
                if not numbered:
                    raise
                continue
            yield folder, journal
            return


class _Writer:
    """Explains batches, and writes what comes of them."""

    def __init__(self, explainer: Explainer, folder: Path, journal: Journal) -> None:
        self.explainer, self.folder, self.journal = explainer, folder, journal
        self.view = View(explainer.source.kind, folder)
        self.stems = Stems(journal.stems)
        self.inputs = self.unreadable = 0
        self.texts: list[Any] = []
        self.asked: list[str] = []
        """The first inputs of this call."""
        self.first: list[Subject] = []
        """Subjects of the randomization check."""

    def add(self, batch: Sequence[Subject | Unreadable]) -> None:
        """Explains those of a batch that are not done."""
        readable = [each for each in batch if isinstance(each, Subject)]
        self.inputs += len(readable)
        self.first += readable[: ON_RANDOM_WEIGHTS - len(self.first)]
        for subject in readable:
            self.view.remember(subject)
        todo = {id(each) for each in readable if not self.journal.is_done(each.name, each.digest)}
        # The whole batch also when some of it is done: another size of batch gives other last digits.
        explained = self.explainer.explain(readable) if todo else []
        made = {id(each): found for each, found in zip(readable, explained, strict=bool(todo))}
        self.asked += [each.name for each in readable][: ROWS_SHOWN - len(self.asked)]
        for each in batch:
            if isinstance(each, Unreadable):
                self.unreadable += 1
                warn(each.error if each.error.startswith(each.name) else f"{each.name}: {each.error}")
                page = page_row(each.name, error=each.error)
                self.journal.append(each.name, {"input": each.name, "error": each.error}, page=page)
            elif id(each) in todo:
                self._write(each, made[id(each)])
        # A figure of matplotlib is a ring of objects around its pixels; Python would let hundreds of them wait.
        gc.collect()

    def _write(self, subject: Subject, explained: Sequence[Explained]) -> None:
        stem = self.stems.of(subject.name, _stem_of(subject.name))
        records, cells = [], []
        for method in self.explainer.methods:
            classes = [each for each in explained if each.method == method.name]
            name = f"{stem}.{method.name}"
            self._save(f"{name}.npy", classes)
            scales = self.view.draw(classes, f"{name}.png")
            files = {"picture": f"{name}.png", "array": f"{name}.npy"}
            records += [
                {**each.record(), "scale": scale, "files": files}
                for each, scale in zip(classes, scales, strict=True)
            ]
            cells += [self.view.cell(each, f"{name}.png") for each in classes]
        first = explained[0]
        record = {
            "input": subject.name,
            "predicted": first.predicted,
            "probability": number(first.predicted_probability),
            **({} if subject.truth is None else {"truth": subject.truth}),
            "notes": list(subject.notes),
            "explanations": records,
        }
        page = self.view.row(first, cells)
        self.journal.append(subject.name, record, page=page, stem=stem, stamp=subject.digest)
        if len(self.texts) < ROWS_SHOWN:
            self.texts += self.view.lines(explained)

    def _save(self, name: str, classes: Sequence[Explained]) -> None:
        values = np.stack([each.attribution.values for each in classes])
        with atomic_path(self.folder / name) as unfinished:
            np.save(unfinished, values if len(classes) > 1 else values[0])

    def finish(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Writes explanation.json and index.html from the journal."""
        check: dict[str, Any] = {}
        if self.explainer.options.trust:
            with status("comparing with scrambled weights"):
                check = self.explainer.randomization(self.first)
        header = {
            **settings,
            "versions": {name: installed_version(name) for name in VERSIONS},
            "randomization": check,
        }
        path, index = self.folder / "explanation.json", self.folder / "index.html"
        self.view.draw_all(record for record in self.journal.records() if "error" not in record)
        write_explanation(path, header, self.journal.records())
        write_index(
            index,
            self.journal.pages(),
            title=f"Why {self.explainer.source.path.name} says so",
            facts={name: _said(value) for name, value in settings.items()},
            checks={name: each["verdict"] for name, each in check.items()},
        )
        return {
            "file": str(path),
            "index": str(index),
            "inputs": self.inputs,
            "unreadable": self.unreadable,
            "shown": list(islice(self._shown(), ROWS_SHOWN)),
            "faithfulness": self._means(),
            "texts": self.texts,
            "randomization": check,
        }

    def _means(self) -> dict[str, float]:
        """Method -> mean faithfulness over all inputs of the folder."""
        found: dict[str, list[float]] = {}
        for record in self.journal.records():
            for each in record.get("explanations", ()):
                if each["trust"] is not None and each["trust"]["faithfulness"] is not None:
                    found.setdefault(each["method"], []).append(each["trust"]["faithfulness"])
        return {method: sum(values) / len(values) for method, values in found.items()}

    def _shown(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and record of each explanation that was asked for, also when an earlier call made it."""
        for record in self.journal.records():
            if record["input"] not in self.asked:
                continue
            for each in record.get("explanations", ()):
                yield record["input"], each


def _said(value: Any) -> str | None:
    return ", ".join(map(str, value)) if isinstance(value, list) else None if value is None else str(value)


def _stem_of(name: str) -> str:
    """What an input's files are called: of a path its own stem, of a row the table's and its number."""
    if row := re.fullmatch(r"(.+) row (\d+)", name, re.DOTALL):
        return f"{Path(row[1]).stem} row {row[2]}"
    return Path(name).stem if kind_of_path(Path(name)) == "file" else name[:LONGEST_STEM]
