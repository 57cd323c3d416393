"""Run folders: named, never overwritten, opened with clear words."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import pytest

from dlcli.errors import DlcliError
from dlcli.runs import Run, check_free, load_run, new_run, write_json


def test_a_second_run_gets_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [str(new_run("cnn", None).path) for _ in range(3)] == ["runs/cnn", "runs/cnn-2", "runs/cnn-3"]


def test_out_is_never_overwritten(tmp_path: Path) -> None:
    new_run("cnn", tmp_path / "a")
    (tmp_path / "a" / "model.keras").write_text("precious")
    with pytest.raises(DlcliError, match="never overwritten"):
        new_run("cnn", tmp_path / "a")
    assert (tmp_path / "a" / "model.keras").read_text() == "precious"


def test_a_missing_run_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "cnn").mkdir()
    (tmp_path / "cnn" / "recipe.yaml").touch()
    with pytest.raises(DlcliError, match=r"no such run folder; runs there: cnn"):
        load_run(tmp_path / "cn")
    with pytest.raises(DlcliError, match="not a run folder"):
        load_run(tmp_path)


def test_a_run_without_a_model_says_why(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(DlcliError, match=r"no model\.keras: training stopped before its first epoch"):
        _ = load_run(tmp_path).model


def test_a_finished_run_that_lost_its_model_is_not_called_unfinished(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").touch()
    (tmp_path / "metrics.json").write_text('{"metrics": {}, "training": {}}')
    with pytest.raises(DlcliError, match=r"holds no model.keras, though its training ended; put back a copy"):
        _ = Run(tmp_path).model


def test_json_never_holds_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_run_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DlcliError, match=r"file/run: cannot be made \(Not a directory\)"):
        new_run("cnn", tmp_path / "file" / "run")


@pytest.mark.parametrize("name", ["metrics", "environment"])
@pytest.mark.parametrize("text", ['{"a":', "[1]", "\udcff"])
def test_damaged_json_is_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / f"{name}.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DlcliError, match=rf"{name}\.json: "):
        getattr(Run(tmp_path), name)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("model") / "model.keras"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")]).save(path)
    return path.read_bytes()


def flip_a_weight(whole: bytes) -> bytes:
    data = bytearray(whole)
    with zipfile.ZipFile(io.BytesIO(whole)) as members:
        weights = members.getinfo("model.weights.h5")
    data[weights.header_offset + weights.file_size // 2] ^= 0xFF
    return bytes(data)


def lose_a_layer(whole: bytes) -> bytes:
    """A whole archive, whose weights are those of no layer of the model."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as members, zipfile.ZipFile(changed, "w") as copy:
        for name in members.namelist():
            content = members.read(name)
            copy.writestr(
                name, content.replace(b"layers", b"lawyer") if name == "model.weights.h5" else content
            )
    return changed.getvalue()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: b"", "damaged or truncated"),
        (lambda whole: whole[: len(whole) // 2], "damaged or truncated"),
        (lambda whole: bytes(reversed(whole)), "damaged or truncated"),
        (flip_a_weight, "cannot be read"),
        (lose_a_layer, "cannot be read"),
    ],
)
def test_a_damaged_model_is_named(
    damage: Callable[[bytes], bytes], message: str, archive: bytes, tmp_path: Path
) -> None:
    (tmp_path / "model.keras").write_bytes(archive)
    assert Run(tmp_path).model.count_params() == 8
    (tmp_path / "model.keras").write_bytes(damage(archive))
    with pytest.raises(DlcliError, match=rf"model\.keras .*{message}.*put back a copy"):
        _ = Run(tmp_path).model


def test_what_a_kill_left_before_there_was_a_run_is_no_run(tmp_path: Path) -> None:
    for name in (".lock", "tokenizer.json", "environment.json", ".0123456789abcdef.yaml"):
        (tmp_path / name).write_text("")
    check_free(tmp_path)
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(DlcliError, match="never overwritten"):
        check_free(tmp_path)
