"""The last layer of a saved denoiser: how it wants to be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable("dlcli")
class NoisePrediction(keras.layers.Layer):
    """The last layer of a saved denoiser: passes on what the network says, and knows what that is.

    Args:
        class_names: of the labels that the model takes, in index order; one index more means none of them.
        prediction: what the network says of noisy images: their `noise` or their `velocity`.
        noise_schedule: of `dlcli.training.steps.noise_schedules`.
        sampling_steps: of a sample, unless somebody asks for more or fewer.
        guidance: how far samples follow their label; 1 for no further than the network does.
    """

    def __init__(
        self,
        class_names: Sequence[str] = (),
        prediction: str = "velocity",
        noise_schedule: str = "cosine",
        sampling_steps: int = 50,
        guidance: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.class_names = list(class_names)
        self.prediction = prediction
        self.noise_schedule = noise_schedule
        self.sampling_steps = sampling_steps
        self.guidance = guidance

    def call(self, predicted: keras.KerasTensor) -> keras.KerasTensor:
        """(B, H, W, C), as it is."""
        return predicted

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """As the input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        names = ("class_names", "prediction", "noise_schedule", "sampling_steps", "guidance")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
