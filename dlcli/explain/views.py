"""How explanations of images, texts and tables are shown: pictures, cells of index.html, lines of a terminal."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.text import Text

from dlcli.explain.attribution import Subject
from dlcli.explain.image.heat import thumbnail
from dlcli.explain.image.picture import draw_image
from dlcli.explain.index_page import page_cell, page_row
from dlcli.explain.network import Kind
from dlcli.explain.record import Explained, explained_again
from dlcli.explain.table.plots import draw_columns, draw_row
from dlcli.explain.table.rows import cells_of, columns_of
from dlcli.explain.text.page import draw_text, html_text, terminal_text

MOST_ROWS = 2000
"""Rows of a table that stand in the pictures of all rows."""

WIDEST = 360
"""Pixels of a row's picture in index.html."""


class View:
    """Shows explanations of one kind of input.

    Args:
        kind: of the inputs.
        folder: of the pictures.
    """

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self._rows: dict[str, Subject] = {}

    def remember(self, subject: Subject) -> None:
        """Keeps a row of a table for the pictures of all rows."""
        if self.kind == "table" and len(self._rows) < MOST_ROWS:
            self._rows[subject.name] = subject

    def draw(self, classes: Sequence[Explained], name: str) -> list[dict[str, Any] | None]:
        """Draws one input by one method, its classes below one another.

        Returns:
            For each class what its colours stand for; None where there are none.
        """
        path = self.folder / name
        if self.kind == "table":
            draw_row(classes, path)
            return [None] * len(classes)
        scales = draw_image(classes, path) if self.kind == "image" else draw_text(classes, path)
        return [None if scale is None else scale.record() for scale in scales]

    def draw_all(self, records: Iterable[Mapping[str, Any]]) -> list[Path]:
        """Of a table, all rows by each method: those that are explained for the most frequent output.

        Args:
            records: of explanation.json; also rows that were explained by an earlier call are drawn.
        """
        found: dict[str, list[Explained]] = {}
        for record in records:
            subject = self._rows.get(record["input"])
            if subject is None:
                continue
            for one in record["explanations"]:
                values = np.load(self.folder / one["files"]["array"], allow_pickle=False)
                if values.ndim == 1:  # of several classes no row has one picture
                    found.setdefault(one["method"], []).append(explained_again(subject, one, values))
        paths = []
        for method, rows in found.items():
            [(output, _)] = Counter(each.output for each in rows).most_common(1)
            paths += draw_columns(
                [each for each in rows if each.output == output], self.folder, f"all.{method}"
            )
        return paths

    def cell(self, one: Explained, name: str) -> dict[str, Any]:
        """One explanation in index.html; `name` is that of its picture."""
        if self.kind == "text":
            return page_cell(one, fragment=html_text(one), file=name)
        if self.kind == "image":
            return page_cell(one, picture=thumbnail(one.subject, one), file=name)
        return page_cell(one, picture=_smaller(self.folder / name), file=name)

    def row(self, first: Explained, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """One input in index.html, with its cells."""
        subject = first.subject
        text = None
        if self.kind == "table":
            pairs = zip(columns_of(subject), cells_of(subject), strict=True)
            text = "\n".join(
                f"{name} = {cell if isinstance(cell, str) else f'{cell:.6g}'}" for name, cell in pairs
            )
        return page_row(
            subject.name,
            cells,
            predicted=first.predicted,
            probability=first.predicted_probability,
            truth=subject.truth,
            picture=thumbnail(subject) if self.kind == "image" else None,
            text=text,
            notes=subject.notes,
        )

    def lines(self, explained: Sequence[Explained]) -> list[Text]:
        """Explanations of a text for the terminal; none of other inputs."""
        return [terminal_text(one) for one in explained] if self.kind == "text" else []


def _smaller(path: Path) -> bytes:
    with Image.open(path, formats=("PNG",)) as picture:
        picture.thumbnail((WIDEST, 4 * WIDEST))
        file = io.BytesIO()
        picture.convert("RGB").save(file, "WEBP", quality=70)
    return file.getvalue()
