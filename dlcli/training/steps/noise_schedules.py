"""How much noise images have at a time from 0 (none) to 1 (nothing else), as log(signal^2 / noise^2).

The noise is variance preserving: z = signal * x + noise * epsilon with signal^2 + noise^2 = 1, so that
signal = sqrt(sigmoid(log_snr)) and noise = sqrt(sigmoid(-log_snr)).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from keras import ops

NoiseSchedule = Literal["cosine", "linear"]

LOG_SNR_RANGE = (-15.0, 15.0)
"""At the ends a float32 image is all noise, or has none that could be seen."""


def _cosine(times: Any) -> Any:
    """Nichol and Dhariwal 2021, "Improved Denoising Diffusion Probabilistic Models", equation 17, in continuous time.

    signal = cos(pi t / 2). In the place of the paper's offset s, the ends are moved to `LOG_SNR_RANGE`, as in Salimans
    and Ho 2022, "Progressive Distillation", appendix E.
    """
    low, high = LOG_SNR_RANGE
    first, last = (math.atan(math.exp(-0.5 * end)) for end in (high, low))
    return -2 * ops.log(ops.tan(first + times * (last - first)))


def _linear(times: Any) -> Any:
    """Ho et al. 2020, section 4: beta rises from 1e-4 to 0.02 in 1000 steps.

    In continuous time as in Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential
    Equations", appendix C.
    """
    minus_log_signal_squared = 0.1 * times + 9.95 * ops.square(times)
    return ops.minimum(-ops.log(ops.expm1(minus_log_signal_squared)), LOG_SNR_RANGE[1])


NOISE_SCHEDULES: dict[str, Callable[[Any], Any]] = {"cosine": _cosine, "linear": _linear}
"""Name -> function of times in [0, 1], any shape."""


def signal_and_noise(log_snr: Any) -> tuple[Any, Any]:
    """What images and noise are multiplied with; each as large as `log_snr`."""
    return ops.sqrt(ops.sigmoid(log_snr)), ops.sqrt(ops.sigmoid(-log_snr))


def target_of(prediction: str, images: Any, noise: Any, signal: Any, strength: Any) -> Any:
    """What a denoiser is to say of `signal * images + strength * noise`.

    `noise`: Ho et al. 2020, equation 14. `velocity`: Salimans and Ho 2022, section 4, which is neither zero nor
    unlimited at either end.
    """
    return noise if prediction == "noise" else signal * noise - strength * images


def clean_images(prediction: str, noisy: Any, predicted: Any, signal: Any, strength: Any) -> Any:
    """The images that a prediction means."""
    if prediction == "noise":
        return (noisy - strength * predicted) / signal
    return signal * noisy - strength * predicted
