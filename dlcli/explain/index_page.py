"""index.html: all inputs and methods of a folder in a grid that can be sorted and searched, in one file.

The rows stand as JSON in blocks that no browser runs, and a script shows 50 of them at a time, so that the page is as
quick with 10,000 inputs as with ten. The page loads nothing: its policy forbids it, and allows this one script
by its hash, so that neither a class name nor a text can bring another.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from dlcli.explain.record import Explained, number
from dlcli.files import atomic_path

_ASSETS = resources.files("dlcli.explain") / "page"


def page_cell(
    one: Explained, *, picture: bytes | None = None, fragment: str | None = None, file: str | None = None
) -> dict[str, Any]:
    """One explanation in the grid.

    Args:
        one: the explanation.
        picture: its thumbnail, as PNG or WebP.
        fragment: HTML in place of a picture (coloured words); what is foreign in it must be escaped already.
        file: the name of its picture in the same folder.
    """
    trust = one.trust
    return {
        "method": one.method,
        "class": one.class_name,
        "probability": number(one.probability),
        "scale": one.scale,
        "value": number(one.value),
        "status": one.status,
        "faithfulness": None if trust is None else number(trust.faithfulness),
        "verdict": None if trust is None else trust.verdict,
        "stability": None if trust is None else number(trust.stability),
        "warnings": list(one.attribution.warnings),
        "picture": _data_url(picture),
        "fragment": fragment,
        "file": file,
    }


def page_row(
    name: str,
    cells: Sequence[Mapping[str, Any]] = (),
    *,
    predicted: str | None = None,
    probability: float | None = None,
    truth: str | None = None,
    picture: bytes | None = None,
    text: str | None = None,
    notes: Sequence[str] = (),
    error: str | None = None,
) -> dict[str, Any]:
    """One input in the grid.

    Args:
        name: of the input.
        cells: its explanations, of `page_cell`.
        predicted: what the model says.
        probability: of that.
        truth: the true class, where it is known.
        picture: a thumbnail, as PNG or WebP.
        text: what is shown in place of a picture.
        notes: what was done to the input.
        error: why it could not be read.
    """
    return {
        "name": name,
        "predicted": predicted,
        "probability": number(probability),
        "truth": truth,
        "picture": _data_url(picture),
        "text": text,
        "notes": list(notes),
        "error": error,
        "cells": [dict(cell) for cell in cells],
    }


def write_index(
    path: Path,
    rows: Iterable[Mapping[str, Any]],
    *,
    title: str,
    facts: Mapping[str, Any] | None = None,
    checks: Mapping[str, str] | None = None,
) -> int:
    """Writes the page, row by row.

    Args:
        path: of the file, which appears whole or not at all.
        rows: of `page_row`.
        title: of the page, as `Why runs/cifar10 says so`.
        facts: settings and versions, as they are shown.
        checks: method -> what the randomization check says of it, in words.

    Returns:
        How many rows there are.
    """
    script, style = (_ASSETS.joinpath(name).read_text(encoding="utf-8") for name in ("index.js", "index.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    count = 0
    # The names of some files are not UTF-8.
    with atomic_path(path) as unfinished, unfinished.open("w", encoding="utf-8", errors="replace") as file:
        file.write(
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{_escaped(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
            f"<h1>{_escaped(title)}</h1>\n{_facts(facts or {})}{_checks(checks or {})}{_CONTROLS}"
        )
        for row in rows:
            count += 1
            # "<" would let a name end the block and begin another.
            block = json.dumps(row, allow_nan=False).replace("<", "\\u003c")
            file.write(f'<script type="application/json" class="row">{block}</script>\n')
        file.write(f"<script>{script}</script>\n</body>\n</html>\n")
    return count


_CONTROLS = """<noscript><p class="problem">This page needs JavaScript to show its rows. explanation.json and the
pictures beside it hold the same.</p></noscript>
<form id="controls">
<label>Sort by <select id="key"></select></label>
<label><input type="checkbox" id="descending"> largest first</label>
<label>Find <input type="search" id="find" placeholder="name or class"></label>
<label><input type="checkbox" id="flagged"> only with warnings</label>
<label><input type="checkbox" id="wrong"> only wrong</label>
<span id="methods"></span>
</form>
<p id="pages"><button type="button" id="back">back</button> <span id="shown"></span>
<button type="button" id="next">next</button></p>
<table id="grid"><thead></thead><tbody></tbody></table>
"""


def _facts(facts: Mapping[str, Any]) -> str:
    if not facts:
        return ""
    items = "".join(
        f"<dt>{_escaped(name)}</dt><dd>{_escaped(value)}</dd>"
        for name, value in facts.items()
        if value is not None
    )
    return f"<details><summary>Settings</summary><dl>{items}</dl></details>\n"


def _checks(checks: Mapping[str, str]) -> str:
    if not checks:
        return ""
    items = "".join(f"<dt>{_escaped(name)}</dt><dd>{_escaped(said)}</dd>" for name, said in checks.items())
    return f"<section><h2>With scrambled weights</h2><dl>{items}</dl></section>\n"


def _escaped(value: Any) -> str:
    return html.escape(str(value))


def _data_url(picture: bytes | None) -> str | None:
    if picture is None:
        return None
    kind = "png" if picture.startswith(b"\x89PNG") else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
