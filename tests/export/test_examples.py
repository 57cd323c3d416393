"""example.py of every task: short, true, and without dlcli."""

from __future__ import annotations

import subprocess
import sys

from dlcli.export import keras_archive, sample, saved_model, weights


def test_examples_of_every_task_run_without_dlcli(made, artefact, tasks, tmp_path):
    """One process runs them all, as TensorFlow takes seconds to start."""
    for name in tasks:
        artefact(keras_archive.FORMAT, made(name)[1], tmp_path / name)
    for chosen in (saved_model.FORMAT, weights.FORMAT):
        artefact(chosen, made("table")[1], tmp_path / f"table_{chosen.name}")
    folders = sorted(path.name for path in tmp_path.iterdir())
    program = (
        "import runpy, sys\nsys.modules['dlcli'] = None\n"
        f"for name in {folders}:\n"
        f"    folder = {str(tmp_path)!r} + '/' + name\n"
        "    sys.path.insert(0, folder); sys.modules.pop('layers', None)\n"
        "    sys.argv = [folder + '/example.py']; print('##' + name, flush=True)\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__'); sys.path.remove(folder)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    printed = dict(part.split("\n", 1) for part in done.stdout.split("##")[1:])
    assert printed.keys() == set(folders)
    for folder, text in printed.items():
        _, expected = made(folder.partition("_")[0])
        index = sample.chosen(expected.item, expected.samples, expected.outputs)
        assert sample.unlike(text, expected.item, expected.outputs[index]) is None, folder
    words = made("tags")[1].samples.raw.columns["words"][0].split()
    assert printed["tags"].count("/") == min(len(words), 10)  # of 12 tokens two are the ends
    assert printed["masked"].strip()


def test_an_example_is_short(made, artefact, tmp_path):
    for name in ("image", "table", "text"):
        artefact(keras_archive.FORMAT, made(name)[1], tmp_path / name)
        lines = [line for line in (tmp_path / name / "example.py").read_text().splitlines() if line.strip()]
        assert len(lines) <= 30
        assert "INPUTS" not in "\n".join(lines)
