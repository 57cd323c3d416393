"""What a model says of an image of which parts are hidden: occlusion, RISE, LIME and SHAP. No gradient is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlcli.explain import lime as linear
from dlcli.explain import shapley
from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.image.pixels import Baseline, images_at_once, parts
from dlcli.explain.image.superpixels import SEGMENTS, MaskedImage, Superpixels
from dlcli.explain.network import Network

CELLS = 7
"""Squares along each side of RISE's masks, before they are enlarged: as in the paper."""


def occlusion(
    network: Network,
    subjects: Sequence[Subject],
    outputs: np.ndarray,
    *,
    samples: int = 225,
    baseline: Baseline = "mean",
) -> list[Attribution]:
    """What the output loses when a window is hidden that slides over the image.

    Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2. The window moves by
    half its side; a pixel gets the mean of the windows that cover it.

    Args:
        network: of images.
        subjects: images of one size.
        outputs: the explained output of each.
        samples: windows, at most: the more, the smaller. 225 are 15 in each row of a square image.
        baseline: what stands for hidden pixels.
    """
    height, width = subjects[0].inputs.shape[:2]
    down, right = sliding_windows(height, width, samples)
    count = len(down) * len(right)
    windows = np.indices((len(down), len(right))).reshape(2, -1)
    settings = {"samples": count, "baseline": baseline}

    def seen(part: slice) -> np.ndarray:
        row, column = windows[:, part]
        return ~(down[row][:, :, None] & right[column][:, None, :])

    found = []
    for subject, output in zip(subjects, outputs, strict=True):
        masked = MaskedImage(network, subject.inputs, int(output), baseline)
        whole = masked.outputs(1, lambda _: np.ones((1, height, width), bool))
        whole, *hidden = _moved(np.concatenate([whole, masked.outputs(count, seen)]))
        lost = (whole - np.array(hidden)).reshape(len(down), len(right))
        values = down.T @ lost @ right / 4  # each pixel is covered by two windows in each direction
        found.append(Attribution(values.astype(np.float32), signed=True, settings=settings))
    return found


def rise(
    network: Network,
    subjects: Sequence[Subject],
    outputs: np.ndarray,
    *,
    samples: int = 2000,
    baseline: Baseline = "mean",
    seed: int = 0,
) -> list[Attribution]:
    """How the output grows with how much of a pixel is seen, over random smooth masks.

    Petsiuk et al. 2018, "RISE: Randomized Input Sampling for Explanation of Black-box Models", section 3, where a
    pixel gets the mean output of the masks that show it. Outputs here are logits, whose level is arbitrary and would
    drown the differences: each pixel gets the slope of the output over its visibility, the same map without the level.

    Args:
        network: of images.
        subjects: images of one size.
        outputs: the explained output of each.
        samples: masks.
        baseline: what stands for hidden pixels; the paper's is `black`.
        seed: of the masks.
    """
    settings = {"samples": samples, "baseline": baseline, "seed": seed}
    found = []
    for subject, output in zip(subjects, outputs, strict=True):
        values = _slopes(
            MaskedImage(network, subject.inputs, int(output), baseline),
            SmoothMasks(subject.inputs.shape, samples, subject.generator(seed)),
        )
        found.append(Attribution(values.astype(np.float32), signed=True, settings=settings))
    return found


def lime(
    network: Network,
    subjects: Sequence[Subject],
    outputs: np.ndarray,
    *,
    samples: int = 1000,
    segments: int = SEGMENTS,
    baseline: Baseline = "mean",
    seed: int = 0,
) -> list[Attribution]:
    """A line through what the model says when random superpixels are hidden (Ribeiro et al. 2016, section 3.4).

    Args:
        network: of images.
        subjects: images of one size.
        outputs: the explained output of each.
        samples: images with superpixels hidden, of each.
        segments: superpixels, about.
        baseline: what stands for hidden ones.
        seed: of which are hidden.
    """
    settings = {"samples": samples, "segments": segments, "baseline": baseline, "seed": seed}
    found = []
    for subject, output in zip(subjects, outputs, strict=True):
        players = Superpixels(network, subject.inputs, int(output), segments=segments, baseline=baseline)
        generator = subject.generator(seed)
        found.append(linear.explained(players, samples=samples, generator=generator, settings=settings))
    return found


def shap(
    network: Network,
    subjects: Sequence[Subject],
    outputs: np.ndarray,
    *,
    samples: int = 1000,
    segments: int = SEGMENTS,
    baseline: Baseline = "mean",
    seed: int = 0,
) -> list[Attribution]:
    """Shapley values of superpixels (Lundberg & Lee 2017); they sum to f(image) - f(baseline).

    Args:
        network: of images.
        subjects: images of one size.
        outputs: the explained output of each.
        samples: images with superpixels hidden, of each; up to 12 superpixels all are tried.
        segments: superpixels, about.
        baseline: what stands for hidden ones.
        seed: of which are hidden.
    """
    settings = {"samples": samples, "segments": segments, "baseline": baseline, "seed": seed}
    found = []
    for subject, output in zip(subjects, outputs, strict=True):
        players = Superpixels(network, subject.inputs, int(output), segments=segments, baseline=baseline)
        generator = subject.generator(seed)
        found.append(shapley.explained(players, samples=samples, generator=generator, settings=settings))
    return found


def sliding_windows(height: int, width: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Where windows lie that cover each pixel twice in each direction: bool (rows, H) and (columns, W).

    Args:
        height: of the image.
        width: of the image.
        samples: rows * columns at most; 4 are the fewest.
    """
    samples = max(samples, 4)
    step = math.sqrt(height * width / samples)
    while True:
        rows = min(height, max(1, math.floor(height / step)))
        columns = min(width, max(1, math.floor(width / step)))
        if (rows + 1) * (columns + 1) <= samples:
            break
        step *= 1.01
    return _spans(height, rows), _spans(width, columns)


def _spans(length: int, cells: int) -> np.ndarray:
    """Spans of two neighbouring cells, and of one at either edge: bool (cells + 1, length)."""
    cell = np.arange(length) * cells // length
    start = np.arange(-1, cells)[:, None]
    return (cell == start) | (cell == start + 1)


class SmoothMasks:
    """RISE's random masks: a coarse grid of seen and hidden squares, enlarged with bilinear interpolation and shifted.

    Args:
        shape: (H, W, C) of the image.
        count: how many, at least 1.
        generator: of random numbers.
    """

    def __init__(self, shape: Sequence[int], count: int, generator: np.random.Generator) -> None:
        if count < 1:
            raise ValueError(f"Expected `samples` of at least 1. Received: {count}")
        height, width = self.size = (shape[0], shape[1])
        self.count = count
        self._seen = (generator.random((count, CELLS + 1, CELLS + 1)) < 0.5).astype(np.float32)
        self._down = generator.integers(math.ceil(height / CELLS), size=count)
        self._right = generator.integers(math.ceil(width / CELLS), size=count)
        self._rows, self._columns = _enlarging(height), _enlarging(width)

    def __getitem__(self, part: slice) -> np.ndarray:
        """Some of them, float32 in 0..1 (n, H, W)."""
        height, width = self.size
        rows = self._rows[self._down[part, None] + np.arange(height)]  # (n, H, CELLS + 1)
        columns = self._columns[self._right[part, None] + np.arange(width)]
        return rows @ self._seen[part] @ columns.transpose(0, 2, 1)


def _enlarging(length: int) -> np.ndarray:
    """Weights, float32 (positions, CELLS + 1), of the grid's squares at each position of the enlarged grid."""
    cell = math.ceil(length / CELLS)
    place = (np.arange((CELLS + 1) * cell) + 0.5) / cell - 0.5
    distance = np.abs(np.clip(place, 0, CELLS)[:, None] - np.arange(CELLS + 1))
    return np.maximum(0, 1 - distance).astype(np.float32)


def _moved(values: np.ndarray) -> np.ndarray:
    """Outputs (N,) of the model; all alike where float32's rounding, another one in each batch, moves them alone."""
    alike = np.ptp(values) <= linear.NOISE * np.abs(values).max()
    return np.full_like(values, values[0]) if alike else values


def _slopes(masked: MaskedImage, masks: SmoothMasks) -> np.ndarray:
    """Slope of the output over each pixel's visibility, float64 (H, W)."""
    values = _moved(masked.outputs(masks.count, masks.__getitem__))
    away = values - values.mean()
    products: Any = 0.0
    sums: Any = 0.0
    squares: Any = 0.0
    for part in parts(masks.count, images_at_once(*masks.size)):
        seen = masks[part].astype(np.float64)
        products = products + np.tensordot(away[part], seen, axes=1)
        sums, squares = sums + seen.sum(axis=0), squares + (seen**2).sum(axis=0)
    return products / np.maximum(squares - sums**2 / masks.count, 1e-9)
