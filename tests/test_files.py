"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dlcli.errors import OutputError
from dlcli.files import atomic_path, write_text


def test_text_is_written_as_utf8_into_new_folders(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "größe.txt", "猫\n")
    assert (tmp_path / "a" / "b" / "größe.txt").read_bytes() == "猫\n".encode()


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="half way"), atomic_path(path) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_before_the_first_byte_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "x.png"):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_the_old_file_stands_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_text(path, "old")
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent, "a rename from another disk is not atomic"
        assert temporary.suffix == ".json", "Keras and matplotlib choose the format by the suffix"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_process_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    with atomic_path(path) as first, atomic_path(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first", "the last one to end"


def test_what_is_written_may_be_read_by_others(tmp_path: Path) -> None:
    write_text(tmp_path / "x.txt", "")
    (tmp_path / "plain").touch()
    assert (tmp_path / "x.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "x.txt", tmp_path / "file" / "deeper" / "x.txt"):
        with pytest.raises(OutputError, match=f"{path}: cannot be written: "):
            write_text(path, "")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(OutputError, match=r"folder\.txt: cannot be written: Is a directory"):
        write_text(tmp_path / "folder.txt", "")


def test_a_full_disk_is_the_files_a_missing_input_is_not(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"x\.txt: cannot be written: No space left"),
        atomic_path(tmp_path / "x.txt"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x.txt"):
        (tmp_path / "input").read_text()
