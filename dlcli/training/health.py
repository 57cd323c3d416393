"""Failures of adversarial training, seen and told: a discriminator that has won, a generator that draws one image."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dlcli.console import warn
from dlcli.data.examples import Examples
from dlcli.errors import NotFiniteError
from dlcli.evaluation.samples.comparison import DIVERSITY_IMAGES, diversity
from dlcli.evaluation.samples.image_features import images_at, some_images
from dlcli.runs import write_json
from dlcli.training.steps.cycle import DISCRIMINATOR_SCALE

FILE = "warnings.json"
"""In the run folder: `warnings` that were said, and `alike`, the epochs whose samples hardly differed."""

UNDECIDED = {"standard": 2 * math.log(2), "least_squares": 0.25, "hinge": 2.0}
"""The discriminator's loss when it cannot tell the images apart; what wasserstein's is says nothing."""
WON = 0.02
"""Share of that loss below which the discriminator has won."""
DIVERGED = 1e4
"""A loss of an adversarial task beyond which it has run away: useful ones stay below a hundred."""
COLLAPSED = 0.3
"""Share of the data's diversity below which samples are all alike, if they are so two epochs in a row."""
EARLY_STEPS = 1_000
"""Networks begin with images that are all alike: before so many steps it is said at the training's end alone."""


class Health(keras.callbacks.Callback):
    """Warns once of each failure, and writes what it said beside the model, so that a resumed run does not forget it.

    Adds `diversity` to the logs of task gan: the mean distance of two samples, as a share of that of two real images.

    Args:
        task: draws.
        model: what it draws with.
        real: images to compare with.
        folder: of the run.
        seed: of the samples, and of which real images.
    """

    def __init__(self, task: Any, model: keras.Model, real: Examples, folder: Path, seed: int) -> None:
        super().__init__()
        self.task, self.drawing_model, self.real = task, model, real
        self.path, self.seed = folder / FILE, seed
        self._real_diversity: float | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Forgets what an interrupted training said of an epoch that is now done again."""
        state = _read(self.path)
        kept = {
            "warnings": [each for each in state["warnings"] if each["epoch"] <= epoch],
            "alike": [each for each in state["alike"] if each <= epoch],
        }
        if kept != state:
            write_json(self.path, kept)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the weights, the losses and the samples.

        Raises:
            NotFiniteError: the generator is NaN or infinite.
        """
        logs = {} if logs is None else logs
        require_finite(self.drawing_model, epoch)
        loss = logs.get("discriminator_loss")
        if loss is not None and loss < _lowest_loss(self.task, getattr(self.model, "label_smoothing", 0.0)):
            penalty = "task.r1, " if self.task.name == "gan" else ""
            self._say(
                "discriminator_won",
                epoch,
                f"the discriminator's loss is near zero ({loss:.2g}): it tells all images apart, and the generator may "
                f"learn little from it. A lower learning rate of the discriminator, {penalty}another task.objective or "
                "a smaller discriminator help",
            )
        largest = max((abs(value) for name, value in logs.items() if name.endswith("_loss")), default=0.0)
        if largest > DIVERGED and hasattr(self.task, "objective"):
            self._say(
                "diverged",
                epoch,
                f"a loss has reached {largest:.2g}: the networks run away from each other. A tenth of the learning "
                "rate, regularization.gradient_clipping or another task.objective help",
            )
        if self.task.name == "gan":
            self._check_diversity(epoch, logs)

    def _check_diversity(self, epoch: int, logs: dict[str, Any]) -> None:
        count = min(DIVERSITY_IMAGES, len(self.real))
        if count < 2:
            return
        if self._real_diversity is None:
            chosen = some_images(self.real, count, self.seed)
            self._real_diversity = diversity(np.concatenate(list(images_at(self.real, chosen))))
        if self._real_diversity == 0:
            return
        share = diversity(self.task.draw(self.drawing_model, count, self.seed)) / self._real_diversity
        logs["diversity"] = share
        if share >= COLLAPSED:
            return
        state = _read(self.path)
        write_json(self.path, {**state, "alike": [*state["alike"], epoch + 1]})
        if epoch not in state["alike"]:
            return
        params = self.params or {}
        seen = f"samples differ by {share:.0%} of what real images do: the generator draws nearly one image"
        if (epoch + 1) * (params.get("steps") or 0) >= EARLY_STEPS:
            helps = "Another task.objective (wasserstein_gp, hinge), task.r1 or a lower learning rate help"
            self._say("mode_collapse", epoch, f"{seen} (mode collapse). {helps}")
        elif epoch + 1 == params.get("epochs"):
            self._say("mode_collapse", epoch, f"{seen}, or has not learnt enough: it may need more epochs")

    def _say(self, name: str, epoch: int, message: str) -> None:
        state = _read(self.path)
        if any(each["name"] == name for each in state["warnings"]):
            return
        warn(f"epoch {epoch + 1}: {message}")
        said = {"name": name, "epoch": epoch + 1, "message": message}
        write_json(self.path, {**state, "warnings": [*state["warnings"], said]})


def warnings_of(folder: Path) -> list[dict[str, Any]]:
    """The warnings of a run: `name`, `epoch` (the first is 1) and `message` of each."""
    found: list[dict[str, Any]] = _read(folder / FILE)["warnings"]
    return found


def require_finite(model: keras.Model, epoch: int) -> None:
    """Ends training when a weight of what draws is NaN or infinite.

    Raises:
        NotFiniteError: so it is.
    """
    for weight in model.weights:
        values = keras.ops.convert_to_numpy(weight)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise NotFiniteError(f"weight {weight.path} of the generator", None, epoch)


def _lowest_loss(task: Any, smoothing: float) -> float:
    """The discriminator's loss below which it has won."""
    objective = getattr(task, "objective", "")
    if objective not in UNDECIDED:
        return -math.inf
    if task.name == "image_translation":
        return WON * DISCRIMINATOR_SCALE[objective] * UNDECIDED[objective]
    # Smoothed labels cannot be met exactly: the least possible loss is their entropy.
    least = -sum(p * math.log(p) for p in (smoothing, 1 - smoothing) if p) if objective == "standard" else 0.0
    return least + WON * UNDECIDED[objective]


def _read(path: Path) -> dict[str, Any]:
    empty: dict[str, Any] = {"warnings": [], "alike": []}
    if not path.is_file():
        return empty
    try:
        return {**empty, **json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError):  # a resumed run does not stop for its warnings
        return empty
