"""Results on stdout, everything else on stderr."""

from __future__ import annotations

import io
import json

import pytest

from dlcli import console
from dlcli.cli.main import main


def test_notes_and_warnings_go_to_stderr_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    console.note("data: 3 files [red] skipped")
    console.warn("class [cat] is empty")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "data: 3 files [red] skipped\nwarning: class [cat] is empty\n"


def test_quiet_silences_notes_but_not_results(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.console, "quiet", False)  # put back afterwards
    console.be_quiet()
    console.note("epoch 1")
    console.out.print("accuracy 0.9")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("accuracy 0.9\n", "")


def test_json_is_never_wrapped_and_never_holds_nan(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"path": "/a" * 200, "name": "[bold]猫"}
    console.print_json(value)
    printed = capsys.readouterr().out
    assert json.loads(printed) == value
    assert "猫" in printed
    with pytest.raises(ValueError, match="not JSON compliant"):
        console.print_json({"loss": float("inf")})


def test_json_stays_json_where_the_terminal_knows_no_emoji(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    monkeypatch.setattr("sys.stdout", stream)
    console.print_json({"class": "\N{GRINNING FACE}"})
    stream.flush()
    assert json.loads(stream.buffer.getvalue()) == {"class": "\N{GRINNING FACE}"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("stream", [None, io.TextIOWrapper(io.BytesIO(), encoding="ascii")])
def test_a_closed_stdout_or_one_without_emoji_takes_results(
    stream: io.TextIOWrapper | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("sys.argv", ["dlcli", "--version"])
    with pytest.raises(SystemExit):
        main()
    console.print_json({"class": "\N{GRINNING FACE}"})
    console.out.print("\N{GRINNING FACE}")
