"""The model as explanations see it: raw inputs -> one number for each class, differentiable from its entry on.

By default the numbers are logits. They are found by taking the last activation away, since a softmax makes one class's
number depend on all others, and is flat where the model is sure.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from dlcli.data.text.tokenizer import PAD
from dlcli.errors import DlcliError
from dlcli.explain.attribution import Subject
from dlcli.explain.hooks import Seen, hooked, layers_that_run
from dlcli.layers.predictions import Predictions

Kind = Literal["image", "text", "table"]
Link = Literal["softmax", "sigmoid", "identity"]

BATCH_SIZE = 128
"""Inputs in one call of the model."""

SCALES = (keras.layers.Normalization,)
"""Layers that hold what they know of the pixels as weights, and make a line of them all the same."""


class Network:
    """A model, ready to be explained.

    Args:
        model: any Keras 3 model: Sequential, functional, nested or subclassed; of raw inputs.
        kind: of its inputs.
        example: a batch of one or two raw inputs, on which it is run once to learn what its layers give.
        class_names: in index order; the class indices as text when None. For values the names of the target columns.
        probability: whether probabilities are explained in place of logits.
        language: whether it predicts the next token: outputs (B, T, V), of which the one behind the last token counts.

    Raises:
        DlcliError: the model has several outputs, or outputs that are no numbers for classes.
    """

    def __init__(
        self,
        model: keras.Model,
        kind: Kind,
        example: Any,
        *,
        class_names: Sequence[str] | None = None,
        probability: bool = False,
        language: bool = False,
    ) -> None:
        self.model, self.kind, self.probability, self.language = model, kind, probability, language
        self.link: Link = "identity"
        """What turns the explained logits into probabilities."""
        self.pair = False
        """Whether K is 2 for the two sides of one logit z: the outputs are -z and z."""
        self._compiled: dict[Hashable, Any] = {}
        self._last: Any = None
        self._log = False
        example = tree.map_structure(tf.convert_to_tensor, example)
        self._rank = len(tree.flatten(example)[0].shape)
        self.layers: list[Seen] = layers_that_run(model, self._as_given(example))
        """The layers without layers inside, in the order in which they run."""
        given = tree.flatten(self._run(example))
        if len(given) != 1:
            raise DlcliError(f"the model has {len(given)} outputs; only a model with one can be explained")
        self._find_logits(example, given[0])
        self.num_outputs = int(self.forward(example).shape[-1])
        """K."""
        names = class_names or [str(index) for index in range(self.num_outputs)]
        if len(names) != self.num_outputs:
            raise DlcliError(
                f"the model gives {self.num_outputs} numbers, and there are {len(names)} class names"
            )
        self.class_names = tuple(names)

    @property
    def target(self) -> Literal["classes", "labels", "values"]:
        """What the outputs are: one of several classes, any of several labels, or values in their own unit."""
        if self.link == "softmax" or self.pair:
            return "classes"
        return "labels" if self.link == "sigmoid" else "values"

    @property
    def scale(self) -> str:
        """What is explained: `logit`, `probability` or `value`."""
        return "value" if self.link == "identity" else "probability" if self.probability else "logit"

    def forward(self, inputs: Any) -> tf.Tensor:
        """The explained numbers (B, K) of raw inputs, as a tensor; call it under a GradientTape or in a tf.function."""
        with self._without_activation():
            outputs = tree.flatten(self._run(inputs))[0]
        outputs = tf.cast(outputs, tf.float32)
        if self.language:  # (B, T, V): behind the last token
            last = tf.reduce_sum(tf.cast(tf.not_equal(inputs, PAD), tf.int32), axis=1) - 1
            outputs = tf.gather(outputs, tf.maximum(last, 0), axis=1, batch_dims=1)
        elif len(outputs.shape) > 2:  # a map of decisions, as of a discriminator of patches
            outputs = tf.reduce_mean(outputs, axis=tuple(range(1, len(outputs.shape) - 1)))
        elif len(outputs.shape) == 1:
            outputs = outputs[:, None]
        if self._log:
            outputs = tf.math.log(tf.maximum(outputs, 1e-30))
        if self.pair:
            outputs = tf.concat([-outputs, outputs], axis=-1)
        return self._activated(outputs) if self.probability else outputs

    def outputs(self, inputs: Any, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """The explained numbers, float64 (N, K), of any number of raw inputs; compiled, in batches.

        Args:
            inputs: an array (N, ...), or a dict of columns, each (N, 1).
            batch_size: inputs in one call of the model.
        """
        call = self.compiled("outputs", lambda network: network.forward)
        count = len(tree.flatten(inputs)[0])
        parts = [
            call(
                tree.map_structure(
                    lambda array, start=start: tf.convert_to_tensor(array[start : start + batch_size]), inputs
                )
            )
            for start in range(0, count, batch_size)
        ]
        return np.concatenate([np.asarray(part, np.float64) for part in parts])

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """What `outputs` gave (N, K), as probabilities; values stay as they are."""
        if self.probability:
            return np.asarray(outputs)
        return np.asarray(self._activated(tf.convert_to_tensor(outputs)))

    def batch(self, subjects: Sequence[Subject]) -> Any:
        """Raw inputs of subjects as the model reads them; shorter texts are padded at their end."""
        if self.kind == "table":
            first = subjects[0].inputs
            if isinstance(first, Mapping):
                return {name: np.stack([each.inputs[name] for each in subjects]) for name in first}
        if self.kind == "text":
            return padded_rows([each.inputs for each in subjects])
        return np.stack([each.inputs for each in subjects])

    def compiled(self, key: Hashable, make: Callable[[Network], Callable[..., Any]]) -> Callable[..., Any]:
        """A tf.function of `make(network)`, traced once and kept under `key`.

        The batch's size may differ between calls without another trace. Weights are read when it is called: it stays
        right when they change.
        """
        if key not in self._compiled:
            self._compiled[key] = tf.function(make(self), autograph=False, reduce_retracing=True)
        return self._compiled[key]

    @cached_property
    def entry(self) -> keras.layers.Layer | None:
        """The layer whose output stands for the input where gradients are taken; None for the input itself.

        Images of whole numbers have no gradient, and become floats in the first layer (Rescaling, Normalization):
        its output is a line of them, so that attributions by gradient times difference are those of the pixels.
        Of tokens it is their embedding; positions and segments are added behind it.

        Raises:
            DlcliError: there is no such layer.
        """
        if self.kind == "text":
            for seen in self.layers:
                if isinstance(seen.layer, keras.layers.Embedding):
                    return seen.layer
            raise DlcliError(
                "the model has no Embedding layer, so there is no gradient of its tokens; use occlusion, lime or shap"
            )
        spec = self.model.inputs[0] if getattr(self.model, "inputs", None) else None
        if spec is None or keras.backend.is_float_dtype(spec.dtype):
            return None
        first = next((seen for seen in self.layers if seen.floating and len(seen.shape) == self._rank), None)
        if first is not None and (not first.layer.weights or isinstance(first.layer, SCALES)):
            return first.layer
        raise DlcliError(
            "no layer turns the model's whole numbers into floats, so there is no gradient of its pixels; "
            "use occlusion, rise, lime or shap"
        )

    def at_entry(self, inputs: Any) -> tf.Tensor:
        """What stands for raw inputs where gradients are taken: pixels (B, H, W, C), embeddings (B, T, D)."""
        if self.entry is None:
            return tf.cast(inputs, tf.float32)
        _, entered = self.with_layer(self.entry, inputs)
        return entered

    def from_entry(self, entered: tf.Tensor, inputs: Any) -> tf.Tensor:
        """The explained numbers (B, K) with `entered` in the place of what `at_entry` gave.

        Args:
            entered: (B, ...), of floats.
            inputs: raw inputs of the same batch, from which masks of padding come.
        """
        if self.entry is None:
            return self.forward(entered)
        first = [True]

        def replace(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            # An embedding that also gives the logits is called again, for those.
            if first:
                first.clear()
                return entered
            return call(*args, **kwargs)

        with hooked(self.entry, replace):
            return self.forward(inputs)

    def with_layer(
        self, layer: keras.layers.Layer, inputs: Any, tape: tf.GradientTape | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The explained numbers (B, K), and what the layer gives when it is first called.

        Args:
            layer: one of `layers`.
            inputs: raw inputs.
            tape: watches what the layer gives, so that gradients with respect to it can be asked for.
        """
        given: list[tf.Tensor] = []

        def keep(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            if not given:
                given.append(output)
                if tape is not None:
                    tape.watch(output)
            return output

        with hooked(layer, keep):
            outputs = self.forward(inputs)
        return outputs, given[0]

    def _run(self, inputs: Any) -> Any:
        return self.model(self._as_given(inputs), training=False)

    def _as_given(self, inputs: Any) -> Any:
        """A model that was made of a list of one input wants a list."""
        return [inputs] if isinstance(getattr(self.model, "_inputs_struct", None), list) else inputs

    def _activated(self, outputs: tf.Tensor) -> tf.Tensor:
        if self.link == "softmax":
            return tf.nn.softmax(outputs)
        return tf.sigmoid(outputs) if self.link == "sigmoid" else outputs

    @contextmanager
    def _without_activation(self) -> Iterator[None]:
        """Within the block, the model gives what its last activation would get."""
        if self._last is None:
            yield
        elif hasattr(self._last, "activation") and not isinstance(self._last, keras.layers.Activation):
            activation = self._last.activation
            self._last.activation = keras.activations.linear
            try:
                yield
            finally:
                self._last.activation = activation
        else:
            with hooked(self._last, lambda call, inputs, *args, **kwargs: inputs):
                yield

    def _find_logits(self, example: Any, outputs: tf.Tensor) -> None:
        """Learns which layer's activation turns logits into the outputs, and what that activation is."""
        last = next((seen.layer for seen in reversed(self.layers) if seen.is_output), None)
        several = len(outputs.shape) > 1 and outputs.shape[-1] > 1
        activation = getattr(getattr(last, "activation", None), "__name__", "")
        if isinstance(last, Predictions):
            if last.target != "values":
                self._last = last
                self.link = "sigmoid" if last.target == "labels" else "softmax"
        elif isinstance(last, keras.layers.Softmax) or activation == "softmax":
            self._last, self.link = last, "softmax"
        elif activation == "sigmoid":
            self._last, self.link = last, "sigmoid"
        elif several and _are_probabilities(outputs):
            self.link = "softmax"
            self._log = True
        elif several and self.kind != "table":
            self.link = "softmax"
        with self._without_activation():
            width = tree.flatten(self._run(example))[0].shape
        self.pair = self.link != "identity" and (len(width) == 1 or width[-1] == 1)
        if self.pair:
            self.link = "sigmoid"


def padded_rows(rows: Sequence[np.ndarray]) -> np.ndarray:
    """int32 (B, T), T the longest of the rows, 0 after the end of each."""
    padded = np.full((len(rows), max(map(len, rows), default=1)), PAD, np.int32)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    return padded


def _are_probabilities(outputs: tf.Tensor) -> bool:
    values = np.asarray(outputs, np.float64)
    return bool((values >= 0).all() and np.allclose(values.sum(axis=-1), 1, atol=1e-3))
