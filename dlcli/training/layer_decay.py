"""Discriminative learning rates: layers far from the head learn more slowly."""

from __future__ import annotations

from typing import Any

import keras

from dlcli.training.freezing import NamedLayers


def learning_rate_factors(layers: NamedLayers, head: set[str], decay: float) -> dict[str, float]:
    """What the learning rate of each weight is multiplied with (Howard and Ruder 2018, ULMFiT, section 3.2).

    The head has 1, the last layer before it `decay`, the one before that `decay ** 2`. Only layers with a kernel count
    (a weight of two axes or more), so that a convolution and its normalization learn alike.

    Args:
        layers: of the network, in the order of the data.
        head: names of the task's layers.
        decay: above 0, at most 1.

    Returns:
        Path of a weight -> factor.
    """
    factors: dict[str, float] = {}
    depth = 1
    for name, layer in reversed(layers):
        factor = 1.0 if name in head else decay**depth
        factors |= {weight.path: factor for weight in layer.weights}
        if name not in head and any(len(weight.shape) >= 2 for weight in layer.weights):
            depth += 1
    return factors


def with_factors(
    optimizer: type[keras.optimizers.Optimizer], factors: dict[str, float]
) -> type[keras.optimizers.Optimizer]:
    """The optimizer's class, whose learning rate is multiplied by a factor for each weight, in weight decay too.

    Scaled gradients would not do: Adam divides by their size.
    """

    class WithFactors(optimizer):
        """Its parent, one learning rate a weight."""

        def build(self, variables: list[keras.Variable]) -> None:
            """Looks the factors up once; in update_step weights are known by their index."""
            self._factors = [factors.get(variable.path, 1.0) for variable in variables]
            super().build(variables)

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            """One weight's step."""
            own = learning_rate * self._factors[self._get_variable_index(variable)]
            if self.weight_decay is not None and self._use_weight_decay(variable):
                rate = keras.ops.cast(own, variable.dtype)
                self.assign_sub(variable, variable * (rate * self.weight_decay))
            super().update_step(gradient, variable, own)

        def _apply_weight_decay(self, variables: list[Any]) -> None:
            """Nothing: it is in `update_step`, where the weight's own learning rate is known."""

    WithFactors.__name__ = optimizer.__name__
    return WithFactors
