"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

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
