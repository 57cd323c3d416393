"""Recipe -> Keras optimizer, and what `regularization` changes in it and in the model's weights."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from dlcli.data.examples import Data
from dlcli.errors import DataError, DlcliError
from dlcli.recipe.schema import Regularization, Spec
from dlcli.recipe.signatures import keras_class_name
from dlcli.training import SCHEDULES
from dlcli.training.gradient_norm import with_gradient_norms
from dlcli.training.keras_fixes import with_summed_gradients
from dlcli.training.schedules import Steps


def build_schedule(
    schedule: Spec, learning_rate: float, steps: Steps
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate as a function of the step."""
    builder = pkgutil.resolve_name(SCHEDULES[schedule.name])
    try:
        return builder(learning_rate, steps, **schedule.arguments)
    except ValueError as error:  # builders refuse times that contradict each other; the sentence is theirs
        raise DlcliError(f"schedule {schedule.name}: {error}") from error


def optimizer_class(optimizer: Spec) -> type[keras.optimizers.Optimizer]:
    """The class of keras.optimizers that a recipe names."""
    found: type[keras.optimizers.Optimizer] = getattr(
        keras.optimizers, keras_class_name("optimizers", optimizer.name)
    )
    return found


def build_optimizer(
    optimizer: Spec,
    regularization: Regularization,
    schedule: keras.optimizers.schedules.LearningRateSchedule,
    kind: type[keras.optimizers.Optimizer] | None = None,
) -> keras.optimizers.Optimizer:
    """Keras's optimizer of that name, with clipping and the average of weights.

    `regularization.weight_decay` is among the optimizer's arguments already: resolving the recipe puts it there.

    Args:
        optimizer: of a resolved recipe.
        regularization: clipping and averaging; the penalties are `regularize_weights`'.
        schedule: of the learning rate.
        kind: a subclass to take in the place of Keras's class.
    """
    arguments: dict[str, Any] = {**optimizer.arguments, "learning_rate": schedule}
    if regularization.gradient_clipping is not None:
        clipping = regularization.gradient_clipping
        given = {
            "clipnorm": clipping.norm,
            "clipvalue": clipping.value,
            "global_clipnorm": clipping.global_norm,
        }
        arguments |= {name: value for name, value in given.items() if value is not None}
    if regularization.ema is not None:
        arguments |= {"use_ema": True, "ema_momentum": regularization.ema}
    return with_summed_gradients(with_gradient_norms(kind or optimizer_class(optimizer)))(**arguments)


def regularize_weights(
    weights: Sequence[keras.Variable], optimizer: keras.optimizers.Optimizer, regularization: Regularization
) -> None:
    """Sets penalties, max-norm and weight decay on kernels.

    Kernels only, as the field does it: a penalty on a bias or on a normalization's scale costs accuracy and
    regularizes nothing (Goodfellow et al. 2016, Deep Learning, section 7.1).
    """
    kernels = [weight for weight in weights if is_kernel(weight)]
    for kernel in kernels:
        if regularization.l1 or regularization.l2:
            kernel.regularizer = keras.regularizers.L1L2(regularization.l1, regularization.l2)
        if regularization.max_norm is not None:
            axes = list(range(len(kernel.shape) - 1))  # all but the output units (Srivastava et al. 2014)
            kernel.constraint = keras.constraints.MaxNorm(regularization.max_norm, axis=axes)
    if optimizer.weight_decay:
        rest = [weight for weight in weights if not is_kernel(weight)]
        if rest:
            optimizer.exclude_from_weight_decay(var_list=rest)


def is_kernel(weight: keras.Variable) -> bool:
    """Whether a weight multiplies inputs: every kernel of Keras has two axes or more, biases and scales one."""
    return len(weight.shape) >= 2


def class_weights(regularization: Regularization, data: Data) -> dict[int, float] | None:
    """Weight of each class index: given, or `balanced` as N / (K * N_class), scikit-learn's rule."""
    wanted = regularization.class_weights
    if wanted is None:
        return None
    names = data.info.class_names
    if data.info.target != "classes":
        raise DataError(
            f"regularization.class_weights needs one class for each example; the target is {data.info.target}"
        )
    if wanted == "balanced":
        counts = np.bincount(data.train.targets, minlength=len(names))
        return {
            index: float(counts.sum() / (len(names) * count)) for index, count in enumerate(counts) if count
        }
    if unknown := sorted(set(wanted) - set(names)):
        raise DataError(
            f"regularization.class_weights names no class of this data: {', '.join(unknown)}; "
            f"allowed: {', '.join(names)}"
        )
    return {index: wanted.get(name, 1.0) for index, name in enumerate(names)}
