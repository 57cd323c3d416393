"""Rows 51-60: model files that are damaged, hostile or of another kind, and exports that go wrong."""

from __future__ import annotations

import io
import json
import random
import re
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from fuzzing import archive, parts_of
from PIL import Image

from dlcli.data.load import load_data
from dlcli.export import export
from dlcli.pretrained import model_file
from dlcli.recipe.load import dump_recipe, load_recipe
from dlcli.training.build import build_models


@dataclass(frozen=True)
class Fault:
    """A file in the place of a model, and what `dlcli explain FILE` says of it."""

    number: int
    what: str
    make: Callable[[Path], Path]
    """Writes it into a folder that holds good.keras and good.h5."""
    said: str
    """A regular expression, of the one line on stderr."""


def saved(model: keras.Model, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model.save(path)
    return path


def model_with(layer: keras.layers.Layer, path: Path) -> Path:
    return saved(keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(2)]), path)


def wrote(name: str, content: Callable[[Path], bytes] | bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content(folder))
        return path

    return make


def folder_with(name: str, *files: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for file in files:
            (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / file).write_bytes(b"x")
        return folder / name

    return make


def flipped(folder: Path) -> bytes:
    """One bit of a weight, as a disk loses it."""
    content = bytearray((folder / "good.keras").read_bytes())
    weight = np.float32(0.123456).tobytes()
    content[content.index(weight)] ^= 1
    return bytes(content)


def with_parts(folder: Path, **changes: bytes) -> bytes:
    """The good archive with other members; `_` stands for the dot in a name."""
    parts = parts_of((folder / "good.keras").read_bytes())
    return archive(parts | {name.replace("_", ".", 1): part for name, part in changes.items()})


def with_layer(
    class_name: str, module: str | None = "keras.layers", **config: Any
) -> Callable[[Path], bytes]:
    """The good model with another layer in the place of its first."""

    def change(folder: Path) -> bytes:
        model = json.loads(parts_of((folder / "good.keras").read_bytes())["config.json"])
        entry = {
            "class_name": class_name,
            "module": module,
            "config": {"name": "evil", **config},
            "registered_name": None,
        }
        model["config"]["layers"][1] = entry
        return with_parts(folder, config_json=json.dumps(model).encode())

    return change


def with_mask(folder: Path) -> bytes:
    """A model whose layers fit together, and of which one is called with something that is no tensor."""
    model = images_model()
    path = saved(model, folder / "images.keras")
    parts = parts_of(path.read_bytes())
    config = json.loads(parts["config.json"])
    layer = next(each for each in config["config"]["layers"] if each["class_name"] == "BatchNormalization")
    layer["inbound_nodes"][0]["kwargs"]["mask"] = [2**40]
    return archive({**parts, "config.json": json.dumps(config).encode()})


def images_model() -> keras.Model:
    image = keras.Input((2, 2, 1))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(2, 1)(image))
    return keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(x)))


def with_weights(change: Callable[[h5py.File], Any]) -> Callable[[Path], bytes]:
    def changed(folder: Path) -> bytes:
        parts = parts_of((folder / "good.keras").read_bytes())
        content = io.BytesIO(parts["model.weights.h5"])
        with h5py.File(content, "r+") as file:
            change(file)
        return archive({**parts, "model.weights.h5": content.getvalue()})

    return changed


def fill(value: float) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file["layers/dense_1/vars/0" if "layers/dense_1" in file else "layers/dense/vars/0"][0, 0] = value

    return change


def other_shape(file: h5py.File) -> None:
    del file["layers/dense/vars/0"]
    file["layers/dense/vars/0"] = np.ones((9, 3), "float32")


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3,), "float32")
    layout[:] = h5py.VirtualSource("/etc/passwd", "data", (3,))
    file.create_virtual_dataset("evil", layout)


def canary(suffix: str) -> Callable[[Path], Path]:
    """A lambda that would leave a file where it is called."""

    def make(folder: Path) -> Path:
        name = str(folder / "canary")
        layer = keras.layers.Lambda(lambda x: (open(name, "w").close(), x)[1], name="evil")  # noqa: PTH123
        path = model_with(layer, folder / f"evil.{suffix}")
        (folder / "canary").unlink()
        return path

    return make


class Unknown(keras.layers.Layer):
    """A layer that only its author has."""

    def call(self, inputs: Any) -> Any:
        return inputs


ELSEWHERE = "which is neither Keras's nor dlcli's"
FAULTS = [
    Fault(51, "half_of_a_file", wrote("m.keras", lambda f: (f / "good.keras").read_bytes()[:4000]), "is damaged or truncated"),
    Fault(51, "half_of_an_h5_file", wrote("m.h5", lambda f: (f / "good.h5").read_bytes()[:4000]), "is damaged or truncated"),
    Fault(51, "an_empty_file", wrote("m.keras", b""), "is damaged or truncated: it is empty"),
    Fault(51, "random_bytes", wrote("m.keras", random.Random(0).randbytes(5000)), "is damaged or truncated"),
    Fault(52, "a_flipped_bit", wrote("m.keras", flipped), "it was damaged after it was written .*CRC"),
    Fault(53, "weights_that_are_nan", wrote("m.keras", with_weights(fill(np.nan))), r"weights of layer .* are NaN or infinite"),
    Fault(53, "weights_of_another_model", wrote("m.keras", with_weights(other_shape)), r"cannot be read \(ValueError: .*shape"),
    Fault(54, "a_lambda", canary("keras"), "layer 'evil' is a Lambda, which runs Python code that the file brings along"),
    Fault(54, "a_lambda_in_h5", canary("h5"), "layer 'evil' is a Lambda, which runs Python code that the file brings along"),
    Fault(54, "a_saved_model_as_a_layer", wrote("m.keras", with_layer("TFSMLayer", filepath="/tmp")), "is a TFSMLayer, which"),
    Fault(54, "a_torch_module", wrote("m.keras", with_layer("TorchModuleWrapper", module="UEs=")), "is a TorchModuleWrapper, which unp"),
    Fault(54, "a_class_of_another_module", wrote("m.keras", with_layer("system", "os")), f"of class os.system, {ELSEWHERE}"),
    Fault(54, "a_module_that_is_not_imported", wrote("m.keras", with_layer("fly", "antigravity")), f"antigravity.fly, {ELSEWHERE}"),
    Fault(55, "a_vocabulary_of_this_machine", wrote("m.keras", with_layer("StringLookup", vocabulary="/etc/passwd")),
          "says vocabulary: '/etc/passwd', a file or an address that would be read"),
    Fault(55, "a_vocabulary_from_the_network", wrote("m.keras", with_layer("TextVectorization", vocabulary="http://10.0.0.1/")),
          "says vocabulary: 'http://10.0.0.1/', a file or an address that would be read"),
    Fault(56, "an_external_link", wrote("m.keras", with_weights(lambda f: f.update({"e": h5py.ExternalLink("/etc/passwd", "/")}))),
          "is refused: /e in it is a link to /etc/passwd"),
    Fault(56, "a_virtual_array", wrote("m.keras", with_weights(virtual)), "/evil in it reads from other files"),
    Fault(56, "an_array_of_a_quadrillion", wrote("m.keras", with_weights(
        lambda f: f.create_dataset("e", (10**15,), "float32", chunks=(1024,)))), "/e in it claims 4,000,000,000,000,000 bytes"),
    Fault(56, "a_zip_bomb", wrote("m.keras", lambda f: archive({"config.json": b"{}", "model.weights.h5": bytes(1 << 25)}, zipfile.ZIP_DEFLATED)),
          "its member 'model.weights.h5' unpacks from .* to 33,554,432 bytes"),
    Fault(56, "an_npz_bomb", wrote("m.npz", lambda f: archive({"a.npy": bytes(1 << 25)}, zipfile.ZIP_DEFLATED)), r"is a NumPy archive of arrays"),
    Fault(58, "a_layer_that_only_its_author_has", lambda f: model_with(Unknown(name="mine"), f / "m.keras"), f"layer 'mine' is of class .*Unknown.* {ELSEWHERE}"),
    Fault(58, "a_graph_of_keras_2", wrote("m.keras", with_layer("Functional", "keras.src.engine.functional")), "as Keras 2 calls it; load it with Keras 2"),
    Fault(59, "a_folder", folder_with("m", "notes.txt"), "a folder without recipe.yaml; give a run"),
    Fault(59, "a_saved_model", folder_with("m", "saved_model.pb", "variables/variables.index"), "a folder without recipe.yaml; give a run"),
    Fault(59, "an_orbax_checkpoint", folder_with("m.keras", "_METADATA", "d/0"), "a folder without recipe.yaml; give a run"),
    Fault(59, "a_graph_of_tensorflow", wrote("m.pb", b"\x08\x01\x12\x07saved"), "is a TensorFlow SavedModel graph, which is a program"),
    Fault(59, "a_litert_model", wrote("m.tflite", b"\x1c\x00\x00\x00TFL3xxxx"), "is a LiteRT .TFLite. model, which holds no layers"),
    Fault(59, "an_onnx_model", wrote("m.onnx", b"\x08\x08\x12\x07pytorch"), "is an ONNX model, which holds no layers"),
    Fault(59, "a_pickle", wrote("m.keras", b"\x80\x04\x95\x00"), "is a Python pickle .*, which can run any program"),
]  # fmt: skip


def row(fault: Any) -> str:
    return f"row{fault.number}_{fault.what}"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    dense = keras.layers.Dense(3)
    model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), dense, keras.layers.Dense(2)])
    dense.kernel.assign(np.full((4, 3), 0.123456, "float32"))
    for suffix in ("keras", "h5"):
        saved(model, folder / f"good.{suffix}")
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files from outside are tried in a process of their own first, which takes four seconds: not here."""
    monkeypatch.setattr(model_file, "try_loading", lambda path: None)
    monkeypatch.setattr(model_file, "try_hdf5", lambda path: None)
    for path in good.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    Image.new("L", (2, 2), 90).save(tmp_path / "grey.png")
    return tmp_path


def test_the_files_that_are_changed_are_good(run_dlcli, folder: Path) -> None:
    for suffix in ("keras", "h5"):
        out = folder / f"why-{suffix}"
        words = ("--method", "saliency", "--no-trust", "--out", out)
        run_dlcli("explain", folder / f"good.{suffix}", folder / "grey.png", *words).check(0)
        assert (out / "explanation.json").is_file()


@pytest.mark.parametrize("fault", FAULTS, ids=row)
def test_a_file_that_is_no_model_is_named_and_nothing_of_it_runs(
    run_dlcli, fault: Fault, folder: Path
) -> None:
    path = fault.make(folder)
    ended = run_dlcli("explain", path, folder / "grey.png", "--out", folder / "why", memory=1 << 30)
    ended.check(2)
    assert re.search(fault.said, ended.err) and str(path) in ended.err, ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (folder / "canary").exists() and not (folder / "why").exists()


@pytest.mark.filterwarnings("ignore:.*destroy the mask information:UserWarning")
def test_row57_layers_that_load_and_cannot_run(run_dlcli, folder: Path) -> None:
    path = wrote("m.keras", with_mask)(folder)
    ended = run_dlcli("explain", path, folder / "grey.png", "--out", folder / "why")
    ended.check(2)
    assert ended.err.splitlines()[-1].startswith(f"{path}: loads, but cannot be run (AttributeError: ")
    assert not (folder / "why").exists()


def test_row58_a_newer_keras_is_told_and_the_model_used(run_dlcli, folder: Path) -> None:
    path = wrote("m.keras", lambda f: with_parts(f, metadata_json=b'{"keras_version": "99.0"}'))(folder)
    ended = run_dlcli(
        "explain", path, folder / "grey.png", "--method", "saliency", "--no-trust", "--out", folder / "why"
    )
    ended.check(0)
    assert f"was saved by Keras 99.0, and {keras.__version__} is installed" in ended.err


# A run, of other classes than the data, and its exports


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that has learnt nothing."""
    recipe = load_recipe("digits_cnn", ["architecture={name: mlp, hidden: [4]}", "regularization={}"])
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("runs") / "digits"
    folder.mkdir()
    saved(build_models(recipe, load_data(recipe)).predictor, folder / "model.keras")
    (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    return folder


def pictures(folder: Path) -> Path:
    """Two classes of 8x8 pixels."""
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (8, 8), number).save(folder / name / f"{number}.png")
    return folder


def test_row57_data_of_other_classes_are_refused_with_both(run_dlcli, run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    other.mkdir()
    (other / "model.keras").write_bytes((run / "model.keras").read_bytes())
    recipe = load_recipe(
        "folder_efficientnet", [f"dataset.path={pictures(tmp_path / 'pictures')}", "architecture=mlp"]
    )
    (other / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    ended = run_dlcli("evaluate", other, "--split", "train")
    ended.check(2)
    assert (
        "the data's classes are not the model's: missing 0, 1, 2" in ended.err
        and "unknown cat, dog" in ended.err
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("architecture={name: mlp, hidden: [5]}",), "has weights of 64x5 and 5, and .* has 64x4 and 4"),
        (
            ("architecture={name: mlp, hidden: [4, 4]}",),
            "2 layers with weights before its head, and that of .* has 1",
        ),
        (
            ("architecture={name: mlp, hidden: [4]}", "task=regression"),
            "the target holds classes .* not numbers: use",
        ),
    ],
    ids=["row57_other_widths", "row57_other_layers", "row57_another_task"],
)
def test_a_source_that_does_not_fit_is_named_with_both_shapes(
    run_dlcli, run: Path, changes: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    flags = [word for change in changes for word in ("--set", change)]
    ended = run_dlcli("finetune", "digits_cnn", "--from", run, *flags, "--out", tmp_path / "tuned")
    ended.check(2)
    assert re.search(said, ended.err), ended.err
    assert not (tmp_path / "tuned" / "model.keras").exists()


SAYS_SOMETHING_ELSE = """
import json, sys, numpy
from pathlib import Path
job = Path(sys.argv[1])
rows = len(numpy.load(job / "samples.npz")["image"])
numpy.save(job / "outputs.npy", numpy.full((rows, 10), {value}, "float32"))
(job / "result.json").write_text('{{"bytes": 1, "latency_ms": {{}}}}')
"""
CANNOT = """
import json, pathlib, sys
error = {"expected": True, "reason": "operation Foo of layer x has no counterpart"}
(pathlib.Path(sys.argv[1]) / "error.json").write_text(json.dumps(error))
sys.exit(1)
"""


@dataclass(frozen=True)
class ExportFault:
    """A process that was to write an artefact, and what it does."""

    number: int
    what: str
    worker: str
    code: int
    said: str


EXPORT_FAULTS = [
    ExportFault(60, "another_answer", SAYS_SOMETHING_ELSE.format(value=0.1), 3, "the artefact differs from the model on .* examples of .*: .*nothing was written"),
    ExportFault(60, "an_answer_that_is_nan", SAYS_SOMETHING_ELSE.format(value="float('nan')"), 3, "nothing was written"),
    ExportFault(60, "an_operation_that_the_format_has_not", CANNOT, 2, "^keras: operation Foo of layer x has no counterpart"),
    ExportFault(60, "a_converter_that_crashes", "import os; os.abort()", 2, "ended by SIGABRT while starting.*nothing was written"),
]  # fmt: skip


@pytest.mark.parametrize("fault", EXPORT_FAULTS, ids=row)
def test_an_export_that_goes_wrong_leaves_nothing(
    run_dlcli, fault: ExportFault, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_WORKER", ("-c", fault.worker))
    ended = run_dlcli("export", run, "--format", "keras", "--out", tmp_path / "out" / "keras")
    ended.check(fault.code)
    assert re.search(fault.said, ended.err), ended.err
    assert not list((tmp_path / "out").iterdir())


def test_row60_an_export_never_overwrites(run_dlcli, run: Path, tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_text("precious")
    ended = run_dlcli("export", run, "--format", "keras", "--out", tmp_path)
    ended.check(2)
    assert "is there already, and nothing is overwritten" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]
