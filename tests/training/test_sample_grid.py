"""Pictures of each epoch: of what the weights draw then, and the same after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlcli.errors import TrainingInterruptedError
from dlcli.evaluation.samples.grid import grid_picture
from dlcli.evaluation.samples.sampling import preview
from dlcli.recipe.load import load_recipe
from dlcli.runs import Run
from dlcli.training import train as training
from dlcli.training.sample_grid import SampleGrid

RECIPE = """
task: {name: gan, conditional: true}
dataset: digits
architecture: {name: mlp_gan, latent_dimension: 4, hidden: [8], discriminator_hidden: [8]}
training: {epochs: 3, batch_size: 64, steps_per_epoch: 2, seed: 5}
"""


@pytest.fixture(autouse=True)
def _without_pictures(no_pictures: None) -> None:
    """Curves take longer than the training."""


def trained(folder: Path, stop_in_epoch: int = 0, monkeypatch: Any = None) -> Run:
    (folder / "r.yaml").write_text(RECIPE)
    recipe = load_recipe(folder / "r.yaml")
    if not stop_in_epoch:
        return training.train(recipe, "r", folder / "run")
    draw = SampleGrid.on_epoch_end

    def stops(self: SampleGrid, epoch: int, logs: Any = None) -> None:
        draw(self, epoch, logs)
        if epoch + 1 == stop_in_epoch:  # the picture is there, the checkpoint is not
            raise TrainingInterruptedError("interrupted", 143)

    with monkeypatch.context() as patch, pytest.raises(TrainingInterruptedError):
        patch.setattr(SampleGrid, "on_epoch_end", stops)
        training.train(recipe, "r", folder / "run")
    return training.resume(Run(folder / "run"))


def test_each_epoch_leaves_what_its_weights_draw_and_a_resumed_run_the_same(tmp_path, monkeypatch) -> None:
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    run = trained(tmp_path / "whole")
    names = ["epoch_0001.png", "epoch_0002.png", "epoch_0003.png"]
    samples = run.path / "samples"
    assert sorted(path.name for path in samples.iterdir()) == [*names, "training.gif"]
    with Image.open(samples / names[2]) as picture:
        drawn = np.asarray(picture)
    assert (
        drawn == grid_picture(preview(run.model, 5))[..., 0]
    ).all()  # of the last epoch, which is the model's
    contents = [(samples / name).read_bytes() for name in [*names, "training.gif"]]
    assert len(set(contents)) == 4
    other = trained(tmp_path / "stopped", 2, monkeypatch).path / "samples"
    assert [(other / name).read_bytes() for name in [*names, "training.gif"]] == contents
