"""Which pixels would change the answer? Gradients of an output with respect to the image.

They are taken where the image becomes floats (`Network.at_entry`), a line of the pixels: what is multiplied by a
difference (integrated gradients) is as if taken at the pixels; a bare gradient is in units of the output for one unit
of the scaled pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.image.pixels import Baseline, baseline_images, images_at_once, parts
from dlcli.explain.integral import missed, way
from dlcli.explain.network import Network
from dlcli.recipe.arguments import PositiveInt

NOISE = 0.15
"""Standard deviation of SmoothGrad's noise, of the range of the image's values."""

INCOMPLETE = 0.1
"""From which error of the sum on integrated gradients say that they need more steps."""


def saliency(network: Network, subjects: Sequence[Subject], outputs: np.ndarray) -> list[Attribution]:
    """Simonyan et al. 2014, "Deep inside convolutional networks", section 3: max over channels of |gradient|.

    Args:
        network: of images.
        subjects: B images of one size.
        outputs: int (B,), the explained output of each.

    Raises:
        DlcliError: the model's pixels have no gradient.
    """
    call = network.compiled("saliency", _saliency)
    images, indices = network.batch(subjects), np.asarray(outputs, np.int32)
    found: list[Attribution] = []
    for part in parts(len(images), images_at_once(*images.shape[1:3])):
        maps = np.asarray(call(tf.convert_to_tensor(images[part]), tf.convert_to_tensor(indices[part])))
        found += [Attribution(values, signed=False) for values in maps]
    return found


def smooth_grad(
    network: Network,
    subjects: Sequence[Subject],
    outputs: np.ndarray,
    *,
    samples: PositiveInt = 50,
    seed: int = 0,
) -> list[Attribution]:
    """Smilkov et al. 2017, "SmoothGrad", section 3: the saliency of the mean gradient over noisy copies of the image.

    Args:
        network: of images.
        subjects: B images of one size.
        outputs: int (B,), the explained output of each.
        samples: noisy copies.
        seed: of the noise.

    Raises:
        DlcliError: the model's pixels have no gradient.
    """
    images = network.batch(subjects)
    at_once = images_at_once(*images.shape[1:3])
    entry = network.compiled("entry", lambda network: network.at_entry)
    call = network.compiled("noisy_gradients", _noisy_gradients)
    settings = {"samples": samples, "seed": seed, "noise": NOISE}
    found = []
    for subject, image, output in zip(subjects, images, np.asarray(outputs, np.int32), strict=True):
        raw = tf.convert_to_tensor(image[None])
        shape = tuple(entry(raw).shape[1:])
        generator = subject.generator(seed)
        total = np.zeros(shape, np.float64)
        for part in parts(samples, at_once):
            noise = generator.standard_normal((part.stop - part.start, *shape), np.float32)
            total += np.asarray(call(raw, tf.convert_to_tensor(noise), tf.constant(output)))
        strongest = np.abs(total / samples).max(axis=-1).astype(np.float32)
        found.append(Attribution(_at_pixels(strongest, image), signed=False, settings=settings))
    return found


def integrated_gradients(
    network: Network,
    subjects: Sequence[Subject],
    outputs: np.ndarray,
    *,
    steps: PositiveInt = 64,
    baseline: Baseline = "mean",
) -> list[Attribution]:
    """Sundararajan et al. 2017, "Axiomatic attribution for deep networks", section 3; summed over channels.

    The gradient is averaged on the straight line from the baseline to the image, and multiplied by their difference.
    The sum of all pixels is f(image) - f(baseline), but for the error of the finite number of steps.

    Args:
        network: of images.
        subjects: B images of one size.
        outputs: int (B,), the explained output of each.
        steps: points on the line, of the Gauss-Legendre rule.
        baseline: the image without what is in it.

    Raises:
        DlcliError: the model's pixels have no gradient.
    """
    images = network.batch(subjects)
    hidden = baseline_images(images, baseline)
    indices = np.asarray(outputs, np.int32)
    every = np.arange(len(images))
    change = network.outputs(images)[every, indices]
    base = network.outputs(hidden)[every, indices]
    maps = _paths(network, images, hidden, indices, steps)
    settings = {"steps": steps, "baseline": baseline}
    found = []
    for image, values, start, end in zip(images, maps, base, change, strict=True):
        pixels = _at_pixels(values, image, keep_sum=True)
        error = missed(pixels.sum(dtype=np.float64), end - start)
        warnings: tuple[str, ...] = ()
        if error > INCOMPLETE:
            warnings = (
                f"The sum of the attributions misses f(x) - f(baseline) by {error:.0%} of it: more --steps come nearer",
            )
        found.append(Attribution(pixels, True, float(start), {"residual": error}, settings, warnings))
    return found


def _paths(
    network: Network, images: np.ndarray, hidden: np.ndarray, outputs: np.ndarray, steps: int
) -> np.ndarray:
    """Integrated gradients (B, H', W') at the model's entry, float32."""
    call = network.compiled("integrated_gradients", _path_gradients)
    nodes = np.stack(way(steps))  # (2, S)
    at_once = images_at_once(*images.shape[1:3])
    together = max(1, at_once // steps)  # images, each with all its steps, where they fit
    found = []
    for part in parts(len(images), together):
        raw, base = tf.convert_to_tensor(images[part]), tf.convert_to_tensor(hidden[part])
        index = tf.convert_to_tensor(outputs[part])
        some = (
            call(raw, base, index, tf.convert_to_tensor(nodes[:, each])) for each in parts(steps, at_once)
        )
        found.append(sum(np.asarray(one, np.float64) for one in some))
    return np.concatenate(found).astype(np.float32)


def gradient(network: Network, entered: tf.Tensor, images: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Of the explained outputs, with respect to what stands for the images: (B, H, W, C), float32."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(entered)
        numbers = network.from_entry(entered, images)
        explained = tf.gather(numbers, outputs, axis=1, batch_dims=1)
    found = tape.gradient(explained, entered, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return tf.cast(found, tf.float32)


def _saliency(network: Network) -> Callable[..., Any]:
    def maps(images: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        found = gradient(network, network.at_entry(images), images, outputs)
        strongest = tf.reduce_max(tf.abs(found), axis=-1, keepdims=True)
        return tf.image.resize(strongest, ops.shape(images)[1:3], method="area")[..., 0]

    return maps


def _noisy_gradients(network: Network) -> Callable[..., Any]:
    def total(image: tf.Tensor, noise: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
        """The sum (H, W, C) of the gradients at the image (1, H, W, C) with each noise (N, H, W, C), of deviation 1."""
        count = tf.shape(noise)[0]
        entered = tf.cast(network.at_entry(image), tf.float32)
        deviation = NOISE * (tf.reduce_max(entered) - tf.reduce_min(entered))
        found = gradient(
            network, entered + deviation * noise, tf.repeat(image, count, axis=0), tf.repeat(output, count)
        )
        return tf.reduce_sum(found, axis=0)

    return total


def _path_gradients(network: Network) -> Callable[..., Any]:
    def total(images: tf.Tensor, hidden: tf.Tensor, outputs: tf.Tensor, nodes: tf.Tensor) -> tf.Tensor:
        """(B, H, W), the part of the integral that nodes (2, S) stand for: places on the line, and their weights."""
        count = tf.shape(nodes)[1]
        start = tf.cast(network.at_entry(hidden), tf.float32)
        line = tf.cast(network.at_entry(images), tf.float32) - start  # (B, H, W, C)
        at = nodes[0][None, :, None, None, None]
        points = start[:, None] + at * line[:, None]  # (B, S, H, W, C)
        shape = tf.shape(points)
        found = gradient(
            network,
            tf.reshape(points, tf.concat([[-1], shape[2:]], axis=0)),
            tf.repeat(images, count, axis=0),
            tf.repeat(outputs, count),
        )
        mean = tf.reduce_sum(tf.reshape(found, shape) * nodes[1][None, :, None, None, None], axis=1)
        return tf.reduce_sum(mean * line, axis=-1)

    return total


def _at_pixels(values: np.ndarray, image: np.ndarray, keep_sum: bool = False) -> np.ndarray:
    """A map of the model's entry at the image's size; the same, unless the model begins by changing the size."""
    if values.shape == image.shape[:2]:
        return values
    # Each pixel gets the mean of what it became, and none of it is left out.
    resized = np.asarray(tf.image.resize(values[..., None], image.shape[:2], method="area"))[..., 0]
    return resized * np.float32(values.size / resized.size) if keep_sum else resized
