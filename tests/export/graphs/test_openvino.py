"""OpenVINO models on its CPU plugin say what Keras says, and nobody is told that it was used."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import dlcli
from dlcli.errors import DlcliError
from dlcli.export import openvino_ir
from dlcli.export.format import Exportable, Input, Options

# Neither may be imported here, before dlcli does: each conversion would report itself to Google.
if find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)


def export(case, folder, **options):
    """The artefact as loaded, and what was written."""
    written = openvino_ir.write(case.item, folder, Options(**options))
    return openvino_ir.load(folder, case.manifest(written)), written


@pytest.mark.parametrize("name", ["image", "table", "transformer", "bilstm", "gru", "simple_rnn", "fasttext"])
def test_says_what_keras_says_whatever_the_shape(name, case, tmp_path):
    one = case(name)
    run, written = export(one, tmp_path)
    assert (written.batch_size, written.length) == (None, None)
    shapes = [(1,), (5,)] if one.item.kind != "text" else [(5, 12), (1, 3)]
    for shape in shapes:
        inputs = one.inputs(*shape)
        np.testing.assert_allclose(run(inputs), one.keras(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("divisor", [2, 7, 1009, 32749, 100_003])
def test_remainders_of_large_integers_are_exact(divisor, case, tmp_path):
    inputs = keras.Input((4,), dtype="int32", name="numbers")
    model = keras.Model(inputs, keras.ops.mod(inputs, divisor))
    run, _ = export(case("image").with_model(model, Input("numbers", (4,), "int32")), tmp_path)
    numbers = np.random.default_rng(0).integers(-(2**30), 2**30, (500, 4)).astype("int32")
    numbers[:2] = [[0, divisor, -divisor, 7 * divisor], [divisor - 1, divisor + 1, -1, 1]]
    np.testing.assert_array_equal(run({"numbers": numbers}), numbers % divisor)


def test_a_fixed_batch_takes_any_number_of_rows_through_the_loader(case, tmp_path):
    one = case("image")
    run, written = export(one, tmp_path, batch_size=4)
    assert written.batch_size == 4
    inputs = one.inputs(6)
    np.testing.assert_allclose(run(inputs), one.keras(inputs), atol=1e-5)


def test_weights_are_float32_unless_float16_is_asked_for(case, tmp_path):
    one, sizes = case("image"), {}
    inputs = one.inputs(5)
    for quantize, tolerance in ((None, 1e-6), ("float16", 5e-3)):
        folder = tmp_path / str(quantize)
        folder.mkdir()
        run, _ = export(one, folder, quantize=quantize)
        np.testing.assert_allclose(run(inputs), one.keras(inputs), atol=tolerance)
        sizes[quantize] = (folder / "model.bin").stat().st_size
    assert sizes["float16"] < 0.6 * sizes[None]


def test_int8_is_refused_with_what_works(case, tmp_path):
    with pytest.raises(DlcliError, match=r"NNCF.*litert and onnx"):
        openvino_ir.write(case("image").item, tmp_path, Options(quantize="int8"))


class Bessel(keras.layers.Layer):
    """An operation that hardly any format has."""

    def call(self, inputs):
        import tensorflow as tf

        return tf.math.bessel_i0e(inputs)

    def compute_output_shape(self, shape):
        return shape


def test_what_openvino_cannot_say_is_refused_by_name(tmp_path):
    inputs = keras.Input((4,), name="x")
    model, given = keras.Model(inputs, Bessel()(inputs)), (Input("x", (4,), "float32"),)
    with pytest.raises(DlcliError, match="OpenVINO has no operation for BesselI0e"):
        openvino_ir.write(
            Exportable(model, model, given, given, "table", "values", ("y",)), tmp_path, Options()
        )


SILENT = """
import sys
from dlcli.export.openvino_ir import openvino
openvino()
from openvino.tools.ovc import telemetry_utils
print(telemetry_utils.tm.__name__)
"""


def test_nothing_here_has_imported_telemetry(case, tmp_path):
    export(case("image"), tmp_path)
    assert sys.modules["openvino_telemetry"] is None


def test_no_telemetry(tmp_path):
    home = {"HOME": str(tmp_path), "PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", SILENT],
        env=home,
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(dlcli.__file__).parents[1],
    )
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
    assert not (tmp_path / "intel").exists()  # where it would keep the user's number


def test_the_example_runs_without_dlcli(case, tmp_path):
    one = case("image")
    _, written = export(one, tmp_path)
    manifest = one.manifest(written)
    pixels = one.inputs(1)["image"]
    Image.fromarray(pixels[0]).save(tmp_path / "sample.png")
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (tmp_path / "example.py").write_text(openvino_ir.example(manifest), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    expected = one.keras({"image": pixels})[0]
    assert done.stdout.split() == ["abc"[expected.argmax()], f"{expected.max():.4f}"], done.stderr
