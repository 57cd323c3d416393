"""Damaged model files: each is loaded or refused in words, and a process that dies on one is not the user's.

Saved models are damaged as bytes, in their configuration, in their arrays and in their archive. What still loads is
used as `dlcli explain` and `dlcli finetune --from` use it. The long version works in a process of its own, this very
file, since the HDF5 library may crash on damage that no checksum tells.
"""

from __future__ import annotations

import copy
import io
import json
import resource
import subprocess
import sys
import time
import traceback
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from fuzzing import EVERY_TIME, archive, flip_bit, parts_of, places_of
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from dlcli.errors import DlcliError
from dlcli.explain.source import open_source
from dlcli.pretrained import model_file
from dlcli.pretrained.source import load_backbone

SECONDS, MEMORY = 20.0, 2 << 30
"""Of one file: CPU time, and what the process may grow by."""


# The files that are damaged


def dense() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, activation="gelu"),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )


def images() -> keras.Model:
    x = image = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(x)
    x = keras.layers.Conv2D(2, 3, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Activation("relu")(x) + 1.0
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(3)(x))


def nested() -> keras.Model:
    x = numbers = keras.Input((6,))
    x = keras.layers.Reshape((3, 2))(x)
    x = keras.layers.Bidirectional(keras.layers.GRU(2, return_sequences=True))(x)
    x = keras.layers.MultiHeadAttention(1, 2)(x, x)
    inner = keras.Sequential([keras.Input((3, 4)), keras.layers.Flatten(), keras.layers.Dense(2)])
    return keras.Model(numbers, inner(x))


MODELS = {"dense": dense, "images": images, "nested": nested}


class Files(dict[str, bytes]):
    """Name of a file -> its bytes; hypothesis would print them all."""

    def __repr__(self) -> str:
        return f"Files of {', '.join(self)}"


def saved(folder: Path) -> Files:
    found = Files()
    for name, build in MODELS.items():
        keras.utils.set_random_seed(0)
        model = build()
        for suffix in ("keras", "h5"):
            path = folder / f"{name}.{suffix}"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                model.save(path)
            found[path.name] = path.read_bytes()
    return found


# How they are damaged

SNIPPETS = [
    b"\0", b"\xff", b"\xff" * 8, b"\0" * 64, b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"\x89HDF\r\n\x1a\n",
    b"SNOD", b"TREE", b"HEAP", b"OHDR", b"GCOL", b"FRHP", b"BTHD", b"\x01" * 300, b"config.json", b"../../evil", b"\xfe" * 4,
]  # fmt: skip
SCALARS: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 2**31, 2**63, -(2**63), 10**30, 0.5, -1.5, 1e300, float("nan"), float("inf"), "", "a",
    "relu", "softmax", "float16", "mixed_bfloat16", "int8", "string", "channels_first", "same", "x" * 5000, "\0", "😀", "../x",
    "/etc/passwd", "http://localhost/x", "Dense", "Lambda", "Functional", "keras.layers", "keras.src.models.functional",
    "os", "builtins", "dlcli>Tokens", "__lambda__", "__numpy__", "__tensor__",
]  # fmt: skip
TREES: list[Any] = [
    [], {}, [[]], [None], [0], [-1, -1], [None, None], [2**40], ["a"], [1, 2, 3, 4, 5, 6], {"class_name": "Dense"}, {"name": "x"},
    {"class_name": "__numpy__", "config": {"value": [1, 2], "dtype": "float32"}}, {"class_name": "__tuple__", "items": [1]},
    {"class_name": "function", "config": "relu", "module": "builtins", "registered_name": "function"},
    {"class_name": "Lambda", "config": {"function": "f"}, "module": "keras.layers", "registered_name": None},
    {"module": "keras.layers", "class_name": "LSTM", "config": {"units": 3}, "registered_name": None},
    {"module": "keras.layers", "class_name": "Flatten", "config": {}, "registered_name": None},
    {"class_name": "__keras_tensor__", "config": {"shape": [None, 4], "dtype": "float32", "keras_history": ["x", 0, 0]}},
]  # fmt: skip
KEYS = [
    "name", "config", "class_name", "module", "registered_name", "build_config", "input_shape", "units", "filters", "dtype",
    "layers", "input_layers", "output_layers", "inbound_nodes", "batch_shape", "axis", "trainable", "activation", "args",
    "kwargs", "compile_config", "kernel_size", "strides", "target_shape", "initializer", "shape", "num_heads",
]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(SCALARS), st.sampled_from(TREES), st.integers(), st.floats(), st.text(max_size=6)
)


@st.composite
def damaged(draw: st.DrawFn, files: Files, kinds: list[str]) -> tuple[str, bytes]:
    """A name and the content of a file."""
    kind = draw(st.sampled_from(kinds))
    name = draw(st.sampled_from([each for each in files if each.endswith(".keras") or kind != "members"]))
    whole = files[name]
    if kind == "bytes":
        return name, with_bytes(draw, whole)
    if kind == "members":
        return name, with_members(draw, parts_of(whole))
    if kind == "config":
        return name, with_config(draw, name, whole)
    inside = parts_of(whole)["model.weights.h5"] if name.endswith(".keras") else whole
    inside = with_bytes(draw, inside) if kind == "weights" else with_arrays(draw, inside)
    if name.endswith(".h5"):
        return name, inside
    return name, archive({**parts_of(whole), "model.weights.h5": inside})


def with_bytes(draw: st.DrawFn, whole: bytes) -> bytes:
    content = bytearray(whole)
    for _ in range(draw(st.sampled_from([1, 1, 2, 5]))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([1, 4, 8, 64, 2048])))
        edit = draw(st.sampled_from(["flip", "flip", "replace", "insert", "delete", "truncate", "move"]))
        if edit == "flip":
            flip_bit(draw, content, start)
        elif edit == "replace":
            snippet = draw(st.sampled_from(SNIPPETS))
            content[start : start + len(snippet)] = snippet
        elif edit == "insert":
            content[start:start] = draw(st.sampled_from(SNIPPETS))
        elif edit == "delete":
            del content[start:end]
        elif edit == "truncate":
            del content[start:]
        elif edit == "move":
            target = draw(st.integers(0, len(content)))
            content[target : target + end - start] = content[start:end]
    return bytes(content)


def with_members(draw: st.DrawFn, parts: dict[str, bytes]) -> bytes:
    """Another archive: members away, twice, under other names, or with another content."""
    for _ in range(draw(st.sampled_from([1, 1, 2]))):
        if not parts:
            break
        name = draw(st.sampled_from(sorted(parts)))
        edit = draw(st.sampled_from(["delete", "rename", "content", "add"]))
        if edit == "delete":
            del parts[name]
        elif edit == "rename":
            parts[
                draw(st.sampled_from(["a", " ", "/a", "../a", "assets/x", "config.json", "a" * 300, "é"]))
            ] = parts.pop(name)
        elif edit == "content":
            parts[name] = draw(
                st.one_of(
                    st.binary(max_size=40), st.sampled_from([b"{}", b"[]", b"null", b"\xff", *parts.values()])
                )
            )
        else:
            parts[draw(st.sampled_from(["assets/", "assets/x/y", "x", "C:\\x", "model.weights.h5.1"]))] = (
                draw(st.binary(max_size=9))
            )
    return archive(
        parts, draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]))
    )


def with_config(draw: st.DrawFn, name: str, whole: bytes) -> bytes:
    """Other values, keys and layers, in JSON that is well formed."""
    if name.endswith(".keras"):
        parts = parts_of(whole)
        member = draw(st.sampled_from(["config.json", "config.json", "config.json", "metadata.json"]))
        return archive({**parts, member: json.dumps(changed(draw, json.loads(parts[member]))).encode()})
    content = io.BytesIO(whole)
    with h5py.File(content, "r+") as file:
        text = json.dumps(changed(draw, json.loads(file.attrs["model_config"])))
        try:
            file.attrs["model_config"] = text
        except (ValueError, OSError):  # longer than an attribute may be
            file.attrs["model_config"] = "{}"
    return content.getvalue()


def changed(draw: st.DrawFn, config: Any) -> Any:
    for _ in range(draw(st.sampled_from([1, 1, 2, 4]))):
        places = list(places_of(config))
        if not places:
            break
        parent, key = draw(st.sampled_from(places))
        edit = draw(st.sampled_from(["value", "value", "delete", "rename", "add", "move", "nest"]))
        if edit == "value":
            parent[key] = copy.deepcopy(draw(VALUES))
        elif edit == "delete":
            del parent[key]
        elif edit == "rename" and isinstance(parent, dict):
            parent[draw(st.sampled_from(KEYS))] = parent.pop(key)
        elif edit == "add" and isinstance(parent, dict):
            parent[draw(st.sampled_from(KEYS))] = copy.deepcopy(draw(VALUES))
        elif edit == "move":
            other, there = draw(st.sampled_from(places))
            parent[key] = copy.deepcopy(other[there])
        elif edit == "nest":
            for _ in range(draw(st.sampled_from([1, 3, 150]))):
                parent[key] = [parent[key]]
    return config


def with_arrays(draw: st.DrawFn, whole: bytes) -> bytes:
    """Arrays and groups away, under other names, of other shapes and types, or no numbers."""
    content = io.BytesIO(whole)
    with h5py.File(content, "r+") as file:
        for _ in range(draw(st.sampled_from([1, 1, 3]))):
            names: list[str] = []
            file.visit(names.append)
            if not names:
                break
            name = draw(st.sampled_from(names))
            edit = draw(
                st.sampled_from(["delete", "rename", "shape", "type", "values", "link", "attributes"])
            )
            value = file[name][()] if isinstance(file[name], h5py.Dataset) else np.ones(3, "float32")
            if edit == "rename":
                other = draw(st.sampled_from(["0", "1", "vars", "layers/x", "y"]))
                if other not in file and not other.startswith(name):
                    file.move(name, other)
            elif edit == "attributes":
                file[name].attrs[
                    draw(st.sampled_from(["name", "weight_names", "layer_names", "dtype", "backend"]))
                ] = draw(st.sampled_from(["x", "bfloat16", 3, [b"a", b"b"], np.zeros(2)]))
            else:
                del file[name]
            if edit == "shape":
                file[name] = draw(
                    st.sampled_from(
                        [np.ones(1), np.ones(()), np.ones((0, 3)), np.ones((2, 2, 2)), value.reshape(-1)]
                    )
                )
            elif edit == "type":
                file[name] = value.astype(
                    draw(st.sampled_from(["float64", "int8", "complex64", "S3", "bool", "float16"]))
                )
            elif edit == "values":
                file[name] = np.full_like(value, draw(st.sampled_from([0, 1, -1, 127])))
            elif edit == "link":
                file[name] = draw(
                    st.sampled_from(
                        [h5py.SoftLink("/"), h5py.SoftLink("/none"), h5py.ExternalLink("x.h5", "/")]
                    )
                )
    return content.getvalue()


# What may come of it


def judged(path: Path) -> str:
    """`used`, or the refusal; whatever else is raised, is no good."""
    said = []
    for use in (_explained, _fine_tuned):
        try:
            use(path)
        except DlcliError as error:
            said.append(str(error))
            assert error.exit_code == 2 and str(path) in said[-1] and "\n" not in said[-1], said[-1]
    return "; ".join(said) or "used"


def _explained(path: Path) -> None:
    open_source(str(path)).network(probability=False)


def _fine_tuned(path: Path) -> None:
    load_backbone(str(path))


KINDS = ["bytes", "config", "config", "arrays", "weights", "members"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return saved(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def _without_trials() -> Iterator[None]:
    """The process in which a file from outside is tried first takes four seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_file, "try_loading", lambda path: None)
        yield


@pytest.mark.usefixtures("_without_trials")
@seed(7)
@settings(max_examples=30, phases=[Phase.generate], **EVERY_TIME)
@given(data=st.data())
def test_damaged_models(files: Files, tmp_path_factory: Any, data: st.DataObject) -> None:
    """Without damage to HDF5 itself, which another process must try first: see the long version."""
    whole = Files({name: content for name, content in files.items() if name.endswith(".keras")})
    name, content = data.draw(damaged(whole, ["bytes", "config", "config", "members"]))
    place = tmp_path_factory.getbasetemp() / f"damaged-{name}"
    place.write_bytes(content)
    judged(place)


class Worker:
    """This file as a process that judges one path after another.

    Args:
        trial: whether files are tried in yet another process first, as they are for a user; it takes four seconds.
    """

    def __init__(self, *, trial: bool) -> None:
        self._arguments = [sys.executable, __file__, *(["--trial"] if trial else [])]
        self._process: subprocess.Popen[str] | None = None

    def judge(self, path: Path) -> str:
        """What is said of it: `used`, a refusal, `died`, or `wrong: ` and a traceback."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if answer:
            return str(json.loads(answer))
        self.close()
        return "died"

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture(scope="module")
def workers() -> Iterator[tuple[Worker, Worker]]:
    quick, careful = Worker(trial=False), Worker(trial=True)
    yield quick, careful
    quick.close()
    careful.close()


@pytest.mark.slow
@seed(8)
@settings(max_examples=1_000, phases=[Phase.generate], **EVERY_TIME)
@given(data=st.data())
def test_a_thousand_damaged_models(
    files: Files, workers: tuple[Worker, Worker], tmp_path_factory: Any, data: st.DataObject
) -> None:
    name, content = data.draw(damaged(files, KINDS))
    place = tmp_path_factory.getbasetemp() / f"damaged-{name}"
    place.write_bytes(content)
    answer = workers[0].judge(place)
    if answer == "died":  # for a user, another process dies first
        answer = workers[1].judge(place)
    assert answer != "died" and not answer.startswith("wrong"), answer


def work() -> None:
    """Judges the paths on stdin."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if "--trial" not in sys.argv:
        model_file.try_hdf5 = model_file.try_loading = lambda path: None
    for line in sys.stdin:
        start, grown = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            answer = judged(Path(line.rstrip("\n")))
        except Exception:  # noqa: BLE001
            answer = f"wrong: {traceback.format_exc()}"
        if (took := time.process_time() - start) > SECONDS:
            answer = f"wrong: {took:.0f} seconds for {line}"
        if (more := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown) * 1024 > MEMORY:
            answer = f"wrong: {more:,} KiB more for {line}"
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    work()
