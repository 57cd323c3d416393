"""Progress: plain lines in a log, a bar on a terminal, nothing when quiet."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dlcli.training import progress as module
from dlcli.training.progress import TrainingProgress


def train(monkeypatch: pytest.MonkeyPatch, console: Console) -> str:
    """Two epochs of three steps; what was written."""
    monkeypatch.setattr(module, "console", console)
    progress = TrainingProgress(epochs=2, steps=3, batch_size=4, unit="rows")
    progress.on_train_begin()
    for epoch in range(2):
        progress.on_epoch_begin(epoch)
        for step in range(3):
            progress.on_train_batch_begin(step)
            progress.on_train_batch_end(step, {"loss": 0.5})
        progress.on_epoch_end(epoch, {"loss": 0.25, "val_accuracy": 0.75})
    progress.on_train_end()
    progress.close()  # as after an error: nothing is left to close
    return console.file.getvalue()


def plain(quiet: bool = False) -> Console:
    return Console(file=io.StringIO(), quiet=quiet, width=60)


def test_one_plain_line_an_epoch_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = train(monkeypatch, plain()).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2  loss 0.25  val_accuracy 0.75  ")
    assert "rows/s" in lines[1] and lines[1].endswith(" s")
    assert not any("\x1b" in line for line in lines)


def test_long_epochs_show_life_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLAIN_SECONDS", 0)
    lines = train(monkeypatch, plain()).splitlines()
    assert len(lines) == 2 * 3 + 2
    assert lines[1].startswith("epoch 1/2  step 2/3  loss 0.5  ")


def test_a_bar_on_a_terminal_and_the_same_lasting_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0)
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    written = train(monkeypatch, console)
    assert "\x1b[" in written
    assert "epoch 2/2  loss 0.25  val_accuracy 0.75" in written
    assert "6/6" in written, "the bar reaches the end"


def test_nothing_when_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(monkeypatch, plain(quiet=True)) == ""
    console = Console(file=io.StringIO(), force_terminal=True, quiet=True)
    assert train(monkeypatch, console) == ""
