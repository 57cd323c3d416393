"""What is started and compared in tests of several workers."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from kill_harness import state_of
from team import Team, largest_difference, numbers_of, states_of

from dlcli import console
from dlcli.cli.main import main
from dlcli.launch import workers as processes

DIGITS = """
task: image_classification
dataset: {name: digits, validation_split: 0.1, augmentation: [{name: random_translation, height_factor: 0.1, width_factor: 0.1}]}
architecture: {name: cnn, filters: [4], dense: [8], normalization: none}
optimizer: {name: adam, learning_rate: 2e-3}
training: {epochs: 2, batch_size: 101, seed: 3, checkpoint: {every_steps: 5}}
"""
"""1,293 images in 13 batches, the last one odd: 81."""


STEPS = 13


def launch(*words: object) -> tuple[int, str]:
    """`dlcli launch WORDS`, whose workers can be watched: exit code, stderr."""
    err, program = io.StringIO(), Path(__file__).with_name("team.py")
    with (
        mock.patch.object(processes, "dlcli_command", lambda *given: [sys.executable, str(program), *given]),
        mock.patch.object(sys, "argv", ["dlcli", "launch", *map(str, words)]),
        mock.patch.object(console.console, "quiet", False),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return int(ended.value.code or 0), err.getvalue()


def written(folder: Path, text: str, name: str = "recipe") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def check_equal(one: Path, two: Path, tolerance: float = 1e-6) -> None:
    """Two runs have learnt the same, up to the order of sums."""
    first, second = numbers_of(one), numbers_of(two)
    difference = largest_difference(first["arrays"], second["arrays"])
    assert difference <= tolerance, f"weights differ by {difference:.1e}"
    assert first["history"].keys() == second["history"].keys()
    for name, values in first["history"].items():
        if name not in ("seconds", "examples_per_second"):
            np.testing.assert_allclose(second["history"][name], values, rtol=10 * tolerance, err_msg=name)
    for name, value in first["metrics"].items():
        np.testing.assert_allclose(second["metrics"][name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def check_alike(folder: Path, workers: int = 2) -> None:
    """All workers held the same, bit by bit, whenever a state was saved."""
    found = states_of(folder)
    assert found
    for place, digests in found.items():
        assert len(digests) == workers, f"{place}: {len(digests)} of {workers} workers saved"
        assert len(set(digests)) == 1, f"{place}: the workers differ"


def check_same(run: Path, expected: Path) -> None:
    """Two runs of as many workers have learnt the same, bit by bit.

    An epoch's mean loss has a sum in each worker, whose last digit differs where only their sum was saved in between.
    """
    found, wanted = state_of(run), state_of(expected)
    rows = [
        [*state.pop("history"), *state["progress"]["callbacks"].pop("History")] for state in (found, wanted)
    ]
    for part, value in wanted.items():
        assert found[part] == value, f"{part} differs"
    for here, there in zip(*rows, strict=True):
        assert here.keys() == there.keys()
        values = [[float(value or "nan") for value in row.values()] for row in (here, there)]
        np.testing.assert_allclose(*values, rtol=1e-6, atol=1e-6)


def run(
    team: Team, folder: Path, name: str, *words: object, codes: Sequence[int] = (0, 0), **how: object
) -> str:
    """Trains a case in `folder / name`, expects the exit codes, and gives what the first one said."""
    ended = team.run(*words, "--out", folder / name, "--continue", workers=len(codes), **how)
    assert [each.code for each in ended] == list(codes), "\n".join(each.log[-3000:] for each in ended)
    return ended[0].log


DROPPED = DIGITS.replace("normalization: none", "dropout: 0.2").replace("epochs: 2", "epochs: 3")


def with_imports() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def until(what: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)
