"""Generators, decoders, denoisers and translations as artefacts: their images are the model's."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dlcli.errors import CheckFailedError
from dlcli.export import export, keras_archive, litert, onnx_graph
from dlcli.export.example import PICTURE
from dlcli.export.export import Request
from dlcli.export.format import Options
from dlcli.export.generative import expected_picture, unlike_picture
from dlcli.export.verify import compare, limits

NAMES = ["gan", "vae", "diffusion", "cycle"]


@pytest.mark.parametrize("name", NAMES)
def test_artefacts_draw_what_the_model_draws(made, artefact, name, tmp_path) -> None:
    _, expected = made(name)
    outputs = artefact(onnx_graph.FORMAT, expected, tmp_path / "it")
    assert np.ptp(expected.outputs, axis=0).max() > 1e-2  # examples differ
    found = compare(expected.outputs, outputs, expected.item.target, expected.samples.inputs, None)
    assert found.failures(limits(None)) == [] and found.metric == "mean_difference"
    described = json.loads((tmp_path / "it" / "manifest.json").read_text())
    shapes = {each["name"]: each["shape"] for each in described["inputs"]}
    assert (
        shapes
        == {
            "gan": {"latents": [6], "labels": []},
            "vae": {"latents": [3]},
            "diffusion": {"images": [8, 8, 1], "log_snr": [], "labels": []},
            "cycle": {"image": [32, 32, 3]},
        }[name]
    )


def test_inputs_that_are_drawn_need_no_data_and_labels_come_in_turn(made) -> None:
    _, expected = made("gan")
    samples = expected.samples
    assert (samples.split, len(samples)) == ("random", 256)
    assert samples.inputs["labels"][:11].tolist() == [*range(10), 0]
    assert abs(samples.inputs["latents"].std() - 1) < 0.1
    assert made("cycle")[1].samples.split == "validation"
    levels = made("diffusion")[1].samples.inputs["log_snr"]
    assert levels.min() == -10 and levels.max() == 10 and np.abs(np.diff(levels[:9])).max() > 1  # not sorted


def test_examples_draw_the_pictures_without_dlcli(made, artefact, tmp_path) -> None:
    """One process runs them all, as TensorFlow takes seconds to start."""
    artefacts = {name: artefact(keras_archive.FORMAT, made(name)[1], tmp_path / name) for name in NAMES}
    program = (
        "import os, runpy, sys\nsys.modules['dlcli'] = None\n"
        f"for name in {NAMES}:\n"
        f"    folder = {str(tmp_path)!r} + '/' + name\n"
        "    os.chdir(folder); sys.path.insert(0, folder); sys.modules.pop('layers', None)\n"
        "    sys.argv = ['example.py']\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__'); sys.path.remove(folder)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    assert done.stdout.count(f"{PICTURE}: mean pixel") == 4
    for name, outputs in artefacts.items():
        expected = made(name)[1]
        right = expected_picture(expected.item, expected.samples, 0, outputs[0])
        assert np.ptp(right) > 5
        assert unlike_picture(tmp_path / name / PICTURE, right, 0.6) is None, name
        assert "another image" in unlike_picture(tmp_path / name / PICTURE, 255 - right, 0.6)
    assert "no generated.png" in unlike_picture(tmp_path / PICTURE, right, 0.6)


def test_a_picture_that_is_not_the_artefacts_is_refused_and_the_right_one_taken_away(made, tmp_path) -> None:
    _, expected = made("vae")
    request = Request(("keras",))
    right = np.round(expected.outputs[0, ..., 0] * 255).astype(np.uint8)
    for shown, fits in ((right, True), (right[::-1], False)):
        Image.fromarray(shown).save(tmp_path / PICTURE)
        if fits:
            export._check_picture(tmp_path, keras_archive.FORMAT, expected, request, 0, expected.outputs[0])
        else:
            with pytest.raises(CheckFailedError, match="another image"):
                export._check_picture(
                    tmp_path, keras_archive.FORMAT, expected, request, 0, expected.outputs[0]
                )
        assert not (tmp_path / PICTURE).exists()


def test_int8_is_judged_by_the_mean_difference_of_pixels(made, artefact, tmp_path) -> None:
    _, expected = made("vae")
    outputs = artefact(litert.FORMAT, expected, tmp_path / "it", Options(quantize="int8"))
    inputs = expected.samples.inputs
    found = compare(expected.outputs, outputs, "images", inputs, None)
    mean = np.abs(outputs.astype(np.float64) - expected.outputs).mean()
    assert found.worse == pytest.approx(mean) and 0 < mean < 0.05
    assert found.failures(limits("int8", mean * 1.01)) == []
    assert "mean_difference" in found.failures(limits("int8", mean * 0.99))[0]
