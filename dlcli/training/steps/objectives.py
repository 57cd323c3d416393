"""What generator and discriminator want: losses on logits, each the mean over all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops


class Objective(NamedTuple):
    """Two losses."""

    discriminator: Callable[[Any, Any, float], Any]
    """(logits of real images, logits of drawn images, label smoothing) -> scalar."""
    generator: Callable[[Any], Any]
    """(logits of drawn images) -> scalar."""


def _standard(real: Any, fake: Any, smoothing: float) -> Any:
    """-log D(x) - log(1 - D(G(z))); one-sided smoothing (Salimans et al. 2016, section 3.4)."""
    real_loss = (1 - smoothing) * ops.softplus(-real) + smoothing * ops.softplus(real)
    return ops.mean(real_loss) + ops.mean(ops.softplus(fake))


def _least_squares(real: Any, fake: Any, smoothing: float) -> Any:
    return 0.5 * (ops.mean(ops.square(real - (1 - smoothing))) + ops.mean(ops.square(fake)))


def _hinge(real: Any, fake: Any, _: float) -> Any:
    return ops.mean(ops.relu(1 - real)) + ops.mean(ops.relu(1 + fake))


def _wasserstein(real: Any, fake: Any, _: float) -> Any:
    return ops.mean(fake) - ops.mean(real)


def _towards_real(fake: Any) -> Any:
    return -ops.mean(fake)


_WASSERSTEIN = Objective(_wasserstein, _towards_real)

OBJECTIVES = {
    # Goodfellow et al. 2014, "Generative Adversarial Nets", section 3: the non-saturating form.
    "standard": Objective(_standard, lambda fake: ops.mean(ops.softplus(-fake))),
    # Mao et al. 2017, "Least Squares Generative Adversarial Networks", equation 9.
    "least_squares": Objective(_least_squares, lambda fake: 0.5 * ops.mean(ops.square(fake - 1))),
    # Lim and Ye 2017, "Geometric GAN"; Miyato et al. 2018, equations 16 and 17.
    "hinge": Objective(_hinge, _towards_real),
    # Arjovsky et al. 2017, "Wasserstein GAN"; Gulrajani et al. 2017 with the gradient penalty.
    "wasserstein": _WASSERSTEIN,
    "wasserstein_gp": _WASSERSTEIN,
}
