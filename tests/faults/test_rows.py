"""The table of README.md is true: every row has a test, in the file that it says."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
TESTED = re.compile(r"\b(?:Fault|ExportFault|Refused|Explained)\(\s*(\d+),|(?:\b|_)row(\d+)_")


def promised() -> dict[str, set[int]]:
    """File -> its rows, by README.md."""
    found: dict[str, set[int]] = {}
    for line in (HERE / "README.md").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\| `(test_\w+\.py)` \| ([\d, -]+\d) \|", line):
            parts = [[int(number) for number in part.split("-")] for part in match[2].split(",")]
            found[match[1]] = {number for part in parts for number in range(part[0], part[-1] + 1)}
    return found


def rows_in(file: str) -> set[int]:
    """Rows that tables and names of tests in a file give."""
    text = (HERE / file).read_text(encoding="utf-8")
    spans = [(int(first), int(last)) for first, last in re.findall(r"_rows(\d+)_to_(\d+)_", text)]
    single = {int(one or other) for one, other in TESTED.findall(text)}
    return single.union(*(range(first, last + 1) for first, last in spans))


def test_rows_without_gaps_and_none_without_a_test() -> None:
    rows = promised()
    assert set().union(*rows.values()) == set(range(1, 69))
    found = {file: rows_in(file) for file in rows}
    assert set().union(*found.values()) == set(range(1, 69))
    for file, numbers in found.items():
        assert numbers <= rows[file], f"{file} has rows of another file"
