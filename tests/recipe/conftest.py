"""Small tables of builders, so that these tests do not change when a real builder's arguments do."""

import pytest

from dlcli.recipe import argument_models, load, signatures
from dlcli.tasks import READS

BUILDERS = '''
from __future__ import annotations

import a_module_that_does_not_exist  # importing this file would fail: it is only read

from dlcli.recipe.arguments import (
    Activation, Annotated, Field, Fraction, Initializer, Literal, Loss, Metric, Path, PositiveInt, Sequence,
)

Mode = Literal["horizontal", "vertical"]


class Classification:
    """One of several classes.

    Args:
        loss: any of keras.losses.
        metrics: more metrics.
    """

    def __init__(self, info, *, loss: Loss | None = None, metrics: Sequence[Metric] = ()) -> None:
        self.info = info


class Regression:
    """Values."""

    def __init__(self, info, *, loss: Loss = "mse") -> None:
        self.info = info


def images(*, path: Path | None = None, normalization: Literal["rescale", "standardize"] = "rescale"):
    """Images."""


def table(*, path: Path, target: str):
    """A table."""


def flip(images, targets, seed, *, mode: Mode = "horizontal"):
    """Flips."""


def mix(images, targets, seed, *, alpha: float = 0.2):
    """Mixes."""


def cnn(
    inputs,
    *,
    filters: Annotated[Sequence[PositiveInt], Field(min_length=1)] = (32, 64),
    kernel_size: PositiveInt | tuple[PositiveInt, PositiveInt] = 3,
    activation: Activation = "relu",
    initializer: Initializer = "xavier",
    dropout: Fraction = 0.0,
    residual: bool = False,
):
    """Convolutions.

    LeCun et al. 1998.

    Args:
        filters: of each block, 1 to 1,000,000,
            in order.
        kernel_size: side of a kernel, or `[height, width]`.

    Returns:
        features: (B, H, W, D).
    """


def lenet5(inputs):
    """No arguments."""


def application(inputs, *, model: str, weights: str | None = None):
    """Any of keras.applications."""


def constant(learning_rate, steps, *, warmup_epochs: Annotated[float, Field(ge=0)] = 0.0):
    """Constant."""
'''


@pytest.fixture
def builders(tmp_path, monkeypatch):
    folder = tmp_path / "builders"
    folder.mkdir()
    (folder / "small_builders.py").write_text(BUILDERS)
    monkeypatch.syspath_prepend(folder)
    tables = {
        "task": {"classification": "Classification", "regression": "Regression"},
        "dataset": {"digits": "images", "csv": "table"},
        "augmentation": {"random_flip": "flip", "mix_up": "mix"},
        "architecture": {"cnn": "cnn", "lenet5": "lenet5", "application": "application"},
        "schedule": {"constant": "constant"},
    }
    monkeypatch.setitem(READS, "classification", ("image", "table"))
    for kind, table in tables.items():
        targets = {name: f"small_builders:{builder}" for name, builder in table.items()}
        monkeypatch.setitem(signatures.KINDS, kind, targets)
    caches = (signatures.read_signature, argument_models.argument_model, load._owners)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


GOOD = """\
# A recipe.
task: classification
dataset:
  name: digits
  augmentation:
    - {name: random_flip, mode: horizontal}
    - random_flip
architecture: {name: cnn, filters: [32, 64]}
optimizer: {name: adam, learning_rate: 1e-3}
schedule: constant
regularization: {l2: 1e-4, early_stopping: {patience: 5}}
training: {epochs: 10, batch_size: 128, seed: 0}
distribution: {strategy: auto}
"""


@pytest.fixture
def good(builders, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(GOOD)
    return path
