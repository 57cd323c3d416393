"""Does an explanation depend on what the model has learned? Its weights are scrambled, and the map should change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from skimage.metrics import structural_similarity

from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.network import Network
from dlcli.explain.record import number
from dlcli.explain.trust.stability import Explain, spearman

STAGES = 4
"""The cascade scrambles a quarter more of the layers each time: one by one would explain a ResNet-50 50 times."""

SAME = 0.5
"""Maps whose mean correlation with those of scrambled weights is above this are said not to depend on them."""

FEWEST = 8
"""Parts of an input whose ranks can be compared."""

SSIM_WINDOW = 7
"""Side of the windows of the structural similarity, of maps of at least this side."""


def check(
    network: Network,
    explain: Explain,
    subjects: Sequence[Subject],
    outputs: np.ndarray,
    *,
    seed: int = 0,
    stages: int = STAGES,
) -> dict[str, Any]:
    """The model randomization test of Adebayo et al. 2018, "Sanity Checks for Saliency Maps", section 3.

    Weights are scrambled from the last layer to the first, in a cascade; after each stage the same outputs of the same
    subjects are explained again, and the maps compared with those of the model as it is. Weights are exchanged in
    place and restored, also after an error.

    Args:
        network: the model.
        explain: the method.
        subjects: some inputs; of few the mean correlation varies (with two Grad-CAMs of CIFAR-10 by 0.2).
        outputs: int (N,), the explained outputs.
        seed: of the scrambling.
        stages: of the cascade; the last one scrambles all layers.

    Returns:
        `stages`, a list of `layers` (how many are scrambled), `down_to` (name of the first of them), `spearman` and
        for images `ssim` (means over the subjects); `spearman` and `ssim` of the last stage; `passed`, None when
        nothing could be compared; `verdict`, a sentence.
    """
    layers = weighted_layers(network)
    usual = explain(subjects, outputs)
    reached: list[dict[str, Any]] = []
    count = min(stages, len(layers))
    for stage in range(1, count + 1):
        changed = layers[-round(len(layers) * stage / count) :]
        with scrambled([weight for _, weights in changed for weight in weights], seed=seed):
            maps = explain(subjects, outputs)
        reached.append(
            {
                "layers": len(changed),
                "down_to": changed[0][0],
                **_similarity(usual, maps, network.kind == "image"),
            }
        )
    last = reached[-1] if reached else {"spearman": None}
    passed = None if last["spearman"] is None else last["spearman"] <= SAME
    return {
        "stages": reached,
        **{name: last[name] for name in ("spearman", "ssim") if name in last},
        "passed": passed,
        "verdict": _verdict(last["spearman"]),
    }


def weighted_layers(network: Network) -> list[tuple[str, list[keras.Variable]]]:
    """Name and weights of the layers that have learned something, in the order in which they run; each weight once.

    Weights that a layer holds beside the layers inside it stand at the end: they count to the last stage.
    """
    names = {id(seen.layer): (seen.name, seen.layer) for seen in network.layers}
    inside = network.model._flatten_layers(include_self=True)
    others = {id(layer): (layer.name, layer) for layer in inside if id(layer) not in names}
    known: set[int] = set()
    found: list[tuple[str, list[keras.Variable]]] = []
    # A layer made of layers has theirs, too: those that run come first.
    for name, layer in (*names.values(), *reversed(others.values())):
        # Means and variances of the raw inputs are data, not knowledge.
        data = isinstance(layer, keras.layers.Normalization)
        own = [each for each in _floats(layer) if id(each) not in known]
        known |= {id(each) for each in own}
        if own and not data:
            found.append((name, own))
    return found


@contextmanager
def scrambled(variables: Sequence[keras.Variable], *, seed: int = 0) -> Iterator[None]:
    """Within the block, the numbers of each weight stand in a random order.

    So every weight keeps its size and its distribution, of which a new initialization knows nothing, and outputs stay
    finite; also frozen weights, and the running means of batch normalization.
    """
    generator = np.random.default_rng(seed)
    kept = [variable.numpy() for variable in variables]
    try:
        for variable, values in zip(variables, kept, strict=True):
            variable.assign(generator.permutation(values.reshape(-1)).reshape(values.shape))
        yield
    finally:
        for variable, values in zip(variables, kept, strict=True):
            variable.assign(values)


def _floats(layer: keras.layers.Layer) -> list[keras.Variable]:
    return [each for each in layer.weights if keras.backend.is_float_dtype(each.dtype)]


def _similarity(
    usual: Sequence[Attribution], maps: Sequence[Attribution], image: bool
) -> dict[str, float | None]:
    pairs = [
        (np.asarray(a.values, np.float64), np.asarray(b.values, np.float64))
        for a, b in zip(usual, maps, strict=True)
    ]
    # Ranks of a few parts agree by chance, and a flat map has none.
    pairs = [pair for pair in pairs if pair[0].size >= FEWEST and all(np.ptp(each) > 0 for each in pair)]
    similarity = {"spearman": _mean([spearman(*pair) for pair in pairs])}
    if image:
        similarity["ssim"] = _mean([ssim(*pair) for pair in pairs])
    return similarity


def _mean(values: Sequence[float]) -> float | None:
    finite = [value for value in values if np.isfinite(value)]
    return number(np.mean(finite)) if finite else None


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Structural similarity of two maps (H, W), each scaled to its own range; not a number for very small maps."""
    side = min(first.shape)
    if side < SSIM_WINDOW or not (np.isfinite(first).all() and np.isfinite(second).all()):
        return float("nan")
    scaled = [(each - each.min()) / (np.ptp(each) or 1.0) for each in (first, second)]
    return float(structural_similarity(*scaled, win_size=SSIM_WINDOW, data_range=1.0))


def _verdict(similarity: float | None) -> str:
    if similarity is None:
        return f"could not be checked: the maps are flat, not finite, or of fewer than {FEWEST} parts"
    if similarity <= SAME:
        return f"depends on the weights: with all of them scrambled the maps' rank correlation is {similarity:.2f}"
    return (
        f"hardly depends on the weights: with all of them scrambled the maps' rank correlation is {similarity:.2f}, "
        "so it shows the input more than the model"
    )
