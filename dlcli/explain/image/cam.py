"""Class activation maps: where, in what a layer has found, is the evidence for a class?

All are sums over the layer's D channels, ReLU(sum_k w_k A_k), with A the layer's map (h, w, D) of one image, enlarged
to the image by bilinear interpolation. They differ in the weights w. Values are not scaled to 0..1, so that one can
compare them between images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.hooks import Seen
from dlcli.explain.image.layers import layer_of
from dlcli.explain.image.pixels import Baseline, baseline_images, images_at_once, parts
from dlcli.explain.network import Network
from dlcli.recipe.arguments import PositiveInt

Combine = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""(A, the gradient of the explained output at A), each (B, h, w, D) -> maps (B, h, w)."""


def grad_cam(
    network: Network, subjects: Sequence[Subject], outputs: np.ndarray, *, layer: str | None = None
) -> list[Attribution]:
    """Selvaraju et al. 2017, "Grad-CAM", section 3: w_k is the mean of the gradient over the places of channel k.

    Args:
        network: of images.
        subjects: B images of one size.
        outputs: int (B,), the explained output of each.
        layer: the last that makes features with a height and width when None.

    Raises:
        DlcliError: the model has no such layer.
    """
    return _explained("grad_cam", grad_cam_map, network, subjects, outputs, layer)


def grad_cam_plus_plus(
    network: Network, subjects: Sequence[Subject], outputs: np.ndarray, *, layer: str | None = None
) -> list[Attribution]:
    """Chattopadhay et al. 2018, "Grad-CAM++", section 3.2: several places of a class count, not only their mean.

    Args:
        network: of images.
        subjects: B images of one size.
        outputs: int (B,), the explained output of each.
        layer: the last that makes features with a height and width when None.

    Raises:
        DlcliError: the model has no such layer.
    """
    return _explained("grad_cam_plus_plus", grad_cam_plus_plus_map, network, subjects, outputs, layer)


def layer_cam(
    network: Network, subjects: Sequence[Subject], outputs: np.ndarray, *, layer: str | None = None
) -> list[Attribution]:
    """Jiang et al. 2021, "LayerCAM", section 3.2: each place has its own weight, its positive gradient.

    Made for early layers too, whose maps are finer.

    Args:
        network: of images.
        subjects: B images of one size.
        outputs: int (B,), the explained output of each.
        layer: the last that makes features with a height and width when None.

    Raises:
        DlcliError: the model has no such layer.
    """
    return _explained("layer_cam", layer_cam_map, network, subjects, outputs, layer)


def score_cam(
    network: Network,
    subjects: Sequence[Subject],
    outputs: np.ndarray,
    *,
    layer: str | None = None,
    samples: PositiveInt = 256,
    baseline: Baseline = "mean",
) -> list[Attribution]:
    """Wang et al. 2020, "Score-CAM", section 3: w_k is what is said when only what channel k marks is seen.

    No gradient is taken. The weight is what the explained output gains over the image that is hidden altogether (the
    paper's increase of confidence). The softmax over channels that follows in the paper is left out: of logits it
    keeps hardly more than one channel, of probabilities it makes all nearly equal.

    Args:
        network: of images.
        subjects: B images of one size.
        outputs: int (B,), the explained output of each.
        layer: the last that makes features with a height and width when None.
        samples: channels at most; those whose maps vary most are taken.
        baseline: what is seen where a channel is not active.

    Raises:
        DlcliError: the model has no such layer.
    """
    seen = layer_of(network, "score_cam", layer)
    images = network.batch(subjects)
    hidden = baseline_images(images, baseline)
    settings = {"layer": seen.name, "samples": min(samples, seen.shape[-1]), "baseline": baseline}
    return [
        Attribution(
            _score_cam_of_one(network, seen, image[None], base[None], int(output), samples),
            signed=False,
            settings=settings,
        )
        for image, base, output in zip(images, hidden, outputs, strict=True)
    ]


def grad_cam_map(features: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """Equations 1 and 2 of "Grad-CAM"."""
    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)  # (B, 1, 1, D)
    return tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))


def grad_cam_plus_plus_map(features: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """Equations 5 and 19 of "Grad-CAM++"."""
    weights = plus_plus_weights(features, gradients)[:, None, None, :]
    return tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))


def plus_plus_weights(features: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """(B, D): sum over places of alpha ReLU(g), with alpha = g^2 / (2 g^2 + g^3 sum(A)) of equation 19.

    Only places where g is above 0 count, and there alpha = 1 / (2 + g sum(A)), which never divides 0 by 0. The sum of A
    is that of a layer behind a ReLU in the paper; a negative one is taken for 0, since alpha could be anything with it.
    """
    total = tf.nn.relu(tf.reduce_sum(features, axis=(1, 2), keepdims=True))
    positive = tf.nn.relu(gradients)
    return tf.reduce_sum(positive / (2 + positive * total), axis=(1, 2))


def layer_cam_map(features: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """Equations 5 to 7 of "LayerCAM"."""
    return tf.nn.relu(tf.reduce_sum(tf.nn.relu(gradients) * features, axis=-1))


def layer_maps(network: Network, seen: Seen, images: Any, outputs: Any, combine: Combine) -> tf.Tensor:
    """Maps (B, h, w) in the layer's own size, as a tensor.

    Args:
        network: of images.
        seen: the layer.
        images: raw inputs (B, H, W, C).
        outputs: int (B,).
        combine: the method.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        numbers, features = network.with_layer(seen.layer, images, tape)
        explained = tf.gather(numbers, outputs, axis=1, batch_dims=1)  # (B,)
    # A layer on which this output does not depend has a flat map.
    gradients = tape.gradient(explained, features, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return combine(tf.cast(features, tf.float32), tf.cast(gradients, tf.float32))


def _explained(
    method: str,
    combine: Combine,
    network: Network,
    subjects: Sequence[Subject],
    outputs: np.ndarray,
    layer: str | None,
) -> list[Attribution]:
    seen = layer_of(network, method, layer)
    images = network.batch(subjects)

    def make(network: Network) -> Callable[..., Any]:
        return lambda images, outputs: _enlarged(
            layer_maps(network, seen, images, outputs, combine)[..., None], images
        )

    call = network.compiled((method, seen.name), make)
    indices = np.asarray(outputs, np.int32)
    settings = {"layer": seen.name}
    found: list[Attribution] = []
    for part in parts(len(images), images_at_once(*images.shape[1:3])):
        maps = np.asarray(call(tf.convert_to_tensor(images[part]), tf.convert_to_tensor(indices[part])))
        found += [Attribution(values, signed=False, settings=settings) for values in maps[..., 0]]
    return found


def _score_cam_of_one(
    network: Network, seen: Seen, image: np.ndarray, hidden: np.ndarray, output: int, samples: int
) -> np.ndarray:
    """The map (H, W) of one image (1, H, W, C)."""
    features_of = network.compiled(
        ("features", seen.name),
        lambda network: lambda images: tf.cast(network.with_layer(seen.layer, images)[1], tf.float32),
    )
    masked = network.compiled("score_cam", partial_view)
    raw, base = tf.convert_to_tensor(image), tf.convert_to_tensor(hidden)
    features = np.asarray(features_of(raw))[0]  # (h, w, D)
    chosen = np.sort(np.argsort(-features.var(axis=(0, 1)), kind="stable")[:samples])
    low, high = features.min(axis=(0, 1)), features.max(axis=(0, 1))
    chosen = chosen[high[chosen] > low[chosen]]  # a flat channel shows nothing
    if not len(chosen):
        return np.zeros(image.shape[1:3], np.float32)
    masks = (features - low) / np.where(high > low, high - low, 1)
    start = network.outputs(hidden)[0, output]
    weights = np.zeros(features.shape[-1], np.float32)
    for part in parts(len(chosen), images_at_once(*image.shape[1:3])):
        shown = tf.convert_to_tensor(np.moveaxis(masks[..., chosen[part]], -1, 0))
        weights[chosen[part]] = np.asarray(masked(raw, base, shown))[:, output] - start
    cam = np.maximum((features * weights).sum(axis=-1), 0)
    return np.asarray(_enlarged(tf.convert_to_tensor(cam[None, ..., None]), image))[0, ..., 0]


def partial_view(network: Network) -> Callable[..., Any]:
    """`(image, hidden, masks)` -> the explained numbers (N, K), of an image seen through each of N masks (N, h, w).

    The blend is made of what the model's first layer gives, so that whole numbers need not be rounded.
    """

    def view(image: tf.Tensor, hidden: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
        entered, base = network.at_entry(image), network.at_entry(hidden)
        shown = _enlarged(masks[..., None], entered)
        return network.from_entry(
            base + shown * (entered - base), tf.repeat(image, tf.shape(masks)[0], axis=0)
        )

    return view


def _enlarged(maps: tf.Tensor, images: Any) -> tf.Tensor:
    """(B, h, w, 1) -> (B, H, W, 1), H and W those of images (B, H, W, C)."""
    return tf.image.resize(maps, ops.shape(images)[1:3])
