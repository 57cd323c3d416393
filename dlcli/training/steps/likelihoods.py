"""How probable pixels are under what a decoder draws: nats of each image, from levels of 0 to 255."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from keras import ops

Likelihood = Literal["bernoulli", "gaussian", "discretized_logistic"]


def _bernoulli(drawn: Any, levels: Any, log_scale: Any) -> Any:
    """Cross-entropy of black and white pixels; tanh(x) in [-1, 1] is the probability sigmoid(2 x)."""
    logits = 2 * drawn
    return ops.softplus(logits) - logits * levels / 255


def _gaussian(drawn: Any, levels: Any, log_scale: Any) -> Any:
    """-log N(levels; mean, scale^2): a density over dequantized levels in [0, 256), the range of the mean.

    The expectation over uniform noise bounds the bits of the discrete levels from above (Theis et al. 2016, "A note
    on the evaluation of generative models", section 3.1).
    """
    mean = (ops.tanh(drawn) + 1) * 128
    return 0.5 * ops.square((levels - mean) * ops.exp(-log_scale)) + log_scale + 0.5 * math.log(2 * math.pi)


def _discretized_logistic(drawn: Any, levels: Any, log_scale: Any) -> Any:
    """-log of a logistic's mass between level - 1/2 and level + 1/2; the ends take what lies beyond them.

    Kingma et al. 2016, arXiv:1606.04934, appendix C; Salimans et al. 2017, "PixelCNN++", equation 2.
    """
    mean = (ops.tanh(drawn) + 1) * 127.5
    per_level = ops.exp(-log_scale)
    above = (levels + 0.5 - mean) * per_level
    below = (levels - 0.5 - mean) * per_level
    # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)): no difference of nearly equal numbers.
    top, bottom = ops.softplus(-above), ops.softplus(below)
    inner = top + bottom - ops.log(-ops.expm1(-per_level))
    return ops.where(levels < 0.5, top, ops.where(levels > 254.5, bottom, inner))


class PixelLikelihood(NamedTuple):
    """A distribution of pixels."""

    nats: Callable[[Any, Any, Any], Any]
    """(what the decoder has before its tanh, levels, log of the scale in levels) -> nats of each pixel."""
    pixels: Literal["binary", "dequantized", "levels"]
    """What the stream makes of an image's levels: each 0 or 255, drawn with the level as its probability
    (Salakhutdinov and Murray 2008); uniform noise added; or as they are."""
    has_scale: bool = True


LIKELIHOODS: dict[str, PixelLikelihood] = {
    "bernoulli": PixelLikelihood(_bernoulli, "binary", has_scale=False),
    "gaussian": PixelLikelihood(_gaussian, "dequantized"),
    "discretized_logistic": PixelLikelihood(_discretized_logistic, "levels"),
}


def nats_of_images(likelihood: str, drawn: Any, levels: Any, log_scale: Any) -> Any:
    """-log p(image | latents), (B,): pixels are independent given the latents."""
    return ops.sum(LIKELIHOODS[likelihood].nats(drawn, levels, log_scale), axis=(1, 2, 3))


def divergences(means: Any, log_variances: Any) -> Any:
    """KL(N(means, variances) || N(0, 1)) of each latent, nats (B, Z). Kingma and Welling 2014, appendix B."""
    return 0.5 * (ops.square(means) + ops.exp(log_variances) - log_variances - 1)
