"""The story of an export: nothing is kept that was not compared, and nothing is overwritten."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from dlcli.cli.main import app
from dlcli.data.load import load_data
from dlcli.errors import CheckFailedError, DlcliError
from dlcli.export import FORMATS, export, sample, verify
from dlcli.export.export import Expected, Request, expect, export_one, export_run, folder_of
from dlcli.export.keras_archive import FORMAT as KERAS
from dlcli.export.report import check_outcomes, print_outcomes
from dlcli.recipe.load import dump_recipe, load_recipe
from dlcli.runs import Run
from dlcli.training.build import build_models

WRONG = """
from dataclasses import replace

from dlcli.export import keras_archive

def load(folder, manifest):
    run = keras_archive.load(folder, manifest)
    return lambda inputs: run(inputs)[:, ::-1]

WRONG = replace(keras_archive.FORMAT, name="wrong", load=load)
MISSING = replace(keras_archive.FORMAT, name="missing", extra="onnx", packages=("no_such_package_at_all",))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A network that has learnt nothing is as good to export as any."""
    recipe = load_recipe("digits_cnn", ["architecture={name: mlp, hidden: [4]}", "regularization={}"])
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("runs") / "digits"
    folder.mkdir()
    build_models(recipe, load_data(recipe)).predictor.save(folder / "model.keras")
    (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    return Run(folder)


@pytest.fixture(scope="module")
def expected(run: Run) -> Expected:
    return expect(run, run.recipe, Request(("keras",)))


@pytest.fixture
def odd_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Formats that go wrong, known to the child process too."""
    place = tmp_path / "modules"
    place.mkdir()
    (place / "odd_formats.py").write_text(WRONG)
    monkeypatch.syspath_prepend(place)
    for name in ("wrong", "missing"):
        monkeypatch.setitem(FORMATS, name, f"odd_formats:{name.upper()}")
    yield
    sys.modules.pop("odd_formats", None)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_an_artefact_is_described_compared_and_usable_without_dlcli(run, expected, tmp_path, monkeypatch):
    folder, ran, in_child = tmp_path / "out" / "keras", [], export._in_child
    monkeypatch.setattr(
        export, "_in_child", lambda *given, **more: ran.append(in_child(*given, **more)) or ran[-1]
    )
    outcome = export_one(run, KERAS, expected, Request(("keras",)), folder)
    assert left(folder.parent) == ["keras"]  # nothing temporary stays
    assert left(folder) == ["example.py", "manifest.json", "model.keras", "sample.png", "verification.json"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["files"].keys() == set(left(folder)) - {"manifest.json"}
    for name, file in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert file == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert manifest["model_sha256"] == hashlib.sha256(run.model_path.read_bytes()).hexdigest()
    assert manifest["inputs"] == [{"name": "image", "shape": [8, 8, 1], "dtype": "uint8"}]
    assert manifest["classes"] == [str(digit) for digit in range(10)]
    checked = json.loads((folder / "verification.json").read_text())
    assert checked["passed"] is True
    assert checked["max_difference"] <= 1e-6
    assert checked["examples"] == len(expected.samples) > 100
    assert outcome == {**outcome, **checked, "status": "exported", "folder": str(folder)}

    code, printed = ran[-1]
    said, _, probability = printed.splitlines()[-1].rpartition(" ")
    assert (code, said in manifest["classes"]) == (0, True)
    shown = expected.outputs[sample.chosen(expected.item, expected.samples, expected.outputs)]
    assert float(probability) == pytest.approx(shown.max(), abs=1e-3)


def test_an_artefact_that_says_something_else_is_not_kept(run, expected, tmp_path, odd_formats):
    with pytest.raises(CheckFailedError, match="outputs differ") as caught:
        chosen = export._usable("wrong", Request(("wrong",)))
        export_one(run, chosen, expected, Request(("wrong",)), tmp_path / "out" / "wrong")
    assert caught.value.exit_code == 3
    assert left(tmp_path / "out") == []


def test_a_converter_that_crashes_takes_nothing_with_it(run, expected, tmp_path, monkeypatch):
    dies = "import os; print('the converter says something', flush=True); os.abort()"
    monkeypatch.setattr(export, "_WORKER", ("-c", dies))
    with pytest.raises(DlcliError, match="keras: its process was ended by SIGABRT while starting") as caught:
        export_one(run, KERAS, expected, Request(("keras",)), tmp_path / "out" / "keras")
    assert caught.value.exit_code == 2
    assert "the converter says something" in str(caught.value)
    assert left(tmp_path / "out") == []


def test_an_example_that_says_something_else_is_not_kept(expected, tmp_path):
    (tmp_path / "example.py").write_text("print('9 0.9999')")
    outputs = np.eye(10, dtype="float32")[3]
    with pytest.raises(CheckFailedError, match=r"'9 0\.9999' where 3 1 was expected"):
        export._check_example(tmp_path, KERAS, expected.item, outputs)
    (tmp_path / "example.py").write_text("import dlcli")
    with pytest.raises(CheckFailedError, match="does not run"):
        export._check_example(tmp_path, KERAS, expected.item, outputs)
    (tmp_path / "example.py").write_text("print('3 1.0000')")
    export._check_example(tmp_path, KERAS, expected.item, outputs)


def test_a_finished_folder_is_never_overwritten(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.keras").write_text("precious")
    with pytest.raises(DlcliError, match=r"mine: is there already.*--out"):
        export_run(run, run.recipe, Request(("keras",), tmp_path / "mine"))
    assert left(tmp_path / "mine") == ["model.keras"]
    assert (tmp_path / "mine" / "model.keras").read_text() == "precious"


def test_a_missing_package_is_named_before_any_work(run, tmp_path, odd_formats, monkeypatch):
    monkeypatch.setattr(export, "expect", lambda *arguments: pytest.fail("work began"))
    with pytest.raises(DlcliError, match=r"no-such-package-at-all: pip install 'dlcli\[onnx\]'"):
        export_run(run, run.recipe, Request(("missing",), tmp_path / "out"))


def test_what_a_format_cannot_quantize_is_refused_with_those_that_can(run, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "expect", lambda *arguments: pytest.fail("work began"))
    with pytest.raises(DlcliError, match=r"saved_model cannot be quantized to int8.*litert"):
        export_run(run, run.recipe, Request(("saved_model",), tmp_path / "out", quantize="int8"))


def test_lost_data_are_said_and_how_to_point_at_them(run, tmp_path):
    recipe = run.recipe.model_copy(
        update={"dataset": load_recipe("folder_efficientnet", [f"dataset.path={tmp_path / 'gone'}"]).dataset}
    )
    with pytest.raises(DlcliError, match=r"(?s)gone.*--set dataset.path="):
        expect(run, recipe, Request(("keras",)))


def test_other_data_are_refused(run, class_folders):
    other = load_recipe("folder_efficientnet", [f"dataset.path={class_folders()}", "dataset.image_size=8"])
    with pytest.raises(DlcliError, match="classes are not the model's"):
        expect(run, run.recipe.model_copy(update={"dataset": other.dataset}), Request(("keras",)))


def outcome(name, status, **more):
    return {"format": name, "status": status, "reason": "because", **more}


def test_exit_codes_of_several_formats():
    done, refused, failed = outcome("a", "exported"), outcome("b", "refused"), outcome("c", "failed")
    check_outcomes([done, refused, outcome("d", "missing")], every=True)
    with pytest.raises(CheckFailedError):
        check_outcomes([done, refused, failed], every=True)
    for outcomes, every in (([refused], True), ([done, refused], False)):
        with pytest.raises(DlcliError) as caught:
            check_outcomes(outcomes, every)
        assert caught.value.exit_code == 2


def test_of_several_formats_errors_are_outcomes(run, expected, tmp_path, odd_formats, monkeypatch, capsys):
    def fake(run, chosen, expected, request, target):
        if chosen.name == "wrong":
            raise CheckFailedError("wrong: outputs differ")
        report = verify.report(
            verify.compare(expected.outputs, expected.outputs, "classes", {}, expected.samples.targets),
            verify.limits(None), {"keras": 10, "artefact": 10}, {"keras": expected.latency, "artefact": expected.latency},
            quantization=None, split="validation", examples=3,
        )  # fmt: skip
        return {"format": chosen.name, "status": "exported", "folder": str(target), **report}

    monkeypatch.setattr(export, "export_one", fake)
    monkeypatch.setattr(export, "expect", lambda *arguments: expected)
    request = Request(("keras", "missing", "wrong"), tmp_path / "out", every=True)
    outcomes = export_run(run, run.recipe, request)
    assert [each["status"] for each in outcomes] == ["exported", "missing", "failed"]
    assert outcomes[0]["folder"] == str(tmp_path / "out" / "keras")
    assert outcomes[2]["reason"] == "outputs differ"
    print_outcomes("digits", outcomes, as_json=True)
    assert [each["format"] for each in json.loads(capsys.readouterr().out)["exports"]] == [
        "keras",
        "missing",
        "wrong",
    ]
    print_outcomes("digits", outcomes, as_json=False)
    assert "pip install" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "folder"),
    [
        ({}, "RUN/export/onnx"),
        ({"quantize": "int8"}, "RUN/export/onnx-int8"),
        ({"quantize": "float16", "batch_size": 4}, "RUN/export/onnx-float16-batch4"),
        ({"out": Path("here")}, "here"),
        ({"out": Path("here"), "every": True}, "here/onnx"),
        ({"out": Path("here"), "formats": ("onnx", "keras"), "quantize": "int8"}, "here/onnx-int8"),
    ],
)
def test_where_an_artefact_goes(changes, folder):
    request = replace(Request(("onnx",)), **changes)
    assert folder_of(Run(Path("RUN")), "onnx", request) == Path(folder)


def test_samples_are_real_examples_with_their_classes(expected):
    samples = expected.samples
    assert samples.split == "validation"
    assert set(samples.targets.tolist()) == set(range(10))
    assert samples.inputs["image"].dtype == np.uint8
    assert samples.inputs["image"].max() > 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "onxx"], "did you mean onnx"),
        ([], "give a --format"),
        (["--all", "--format", "onnx"], "either --all or --format"),
        (["--format", "keras", "--quantize", "int4"], "--quantize int4: allowed: float16, int8"),
        (["--format", "keras", "--set", "training.epochs=3"], "only where its data are"),
        (["--format", "keras", "--set", "dataset.validation_split=0.5"], "only where its data are"),
    ],
)
def test_what_the_command_refuses_before_it_reads_the_run(arguments, message):
    result = CliRunner().invoke(app, ["export", "no/such/run", *arguments])
    assert isinstance(result.exception, DlcliError)
    assert message in str(result.exception)
