"""Subjects -> explanations of each by every chosen method, with what makes them believable. Nothing is written here."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from keras import tree

from dlcli.console import note
from dlcli.errors import DlcliError
from dlcli.evaluation.predict import LABEL_THRESHOLD
from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.choice import (
    Chosen,
    Options,
    choose_methods,
    chosen_outputs,
    output_index,
    takes,
    with_options,
)
from dlcli.explain.network import Network
from dlcli.explain.record import Explained
from dlcli.explain.source import Source
from dlcli.explain.trust.faithfulness import Faithfulness
from dlcli.explain.trust.randomization import check
from dlcli.explain.trust.stability import seed_stability
from dlcli.layers.tokens import tokens_of

T = TypeVar("T")

Data = Mapping[str, Callable[[], Any]]

BATCH_SIZE = {"image": 16, "text": 8, "table": 32}
"""Subjects that are explained together."""

ON_RANDOM_WEIGHTS = 4
"""Subjects with which the randomization check is made; an audit takes more."""


class Explainer:
    """A model, the methods that explain it, and their options.

    Args:
        source: what is explained.
        options: of the user.
        data: of tables, what makes the `background` and the `labelled` rows; called for methods that take them.
        default: the methods when the user names none; those of DEFAULT_METHODS when empty.

    Raises:
        DlcliError: a method, an option or the class is not for this model.
    """

    def __init__(
        self, source: Source, options: Options, data: Data | None = None, default: Sequence[str] = ()
    ) -> None:
        self.source, self.options = source, options
        names = choose_methods(source.kind, options, default)
        self.network = source.network(probability=options.probability)
        if options.probability and self.network.target == "values":
            raise DlcliError("--output probability: the model gives values, which have none; leave it out")
        tokens = tokens_of(source.model) if source.kind == "text" else None
        self._fixed = None
        if options.class_name is not None:
            self._fixed = output_index(
                self.network, options.class_name, None if tokens is None else tokens.tokenizer
            )
        self._data: dict[str, Any] = {}
        """Of the run's data what methods and measures of tables compare with."""
        if source.kind == "table" and data is not None:
            wanted = {option for option in data if takes(source.kind, names, option)}
            wanted |= {"background"} if options.trust else set()
            self._data = {option: make() for option, make in data.items() if option in wanted}
        self.methods: list[Chosen] = [with_options(source.kind, name, options, self._data) for name in names]
        self._of_the_model: dict[tuple[str, int], Attribution] = {}
        self.seconds: dict[str, float] = {}
        """Method -> what its maps have taken, without what is measured of them."""
        self.doing: Callable[[str], None] = lambda name: None
        """Told of each method as it begins."""

    @property
    def data_digest(self) -> str | None:
        """Sha256 of the rows that a table's explanations compare with; None where there are none."""
        if not self._data:
            return None
        digest = hashlib.sha256()
        for array in tree.flatten(self._data):
            values = np.asarray(array)
            digest.update(repr(values.tolist()).encode() if values.dtype.kind in "OUS" else values.tobytes())
        return digest.hexdigest()

    def explain(self, subjects: Sequence[Subject]) -> list[list[Explained]]:
        """For each subject its explanations: method by method, and the most probable class first.

        Raises:
            DlcliError: a method that the user named needs something that the model has not.
        """
        network = self.network
        outputs = _in_memory(lambda: network.outputs(network.batch(subjects)))
        said = [_said(network, row) for row in outputs]
        indices = chosen_outputs(network, outputs, self._fixed, self.options.top)  # (B, N)
        # What explanations of one output are measured by; its random orders are the same for all methods.
        measures = {
            (index, output): Faithfulness(
                network, subject, output, seed=self.options.seed, background=self._data.get("background")
            )
            for index, subject in enumerate(subjects)
            for output in indices[index].tolist()
            if self.options.trust
        }
        explained: list[list[Explained]] = [[] for _ in subjects]
        for method in self.methods:
            self.doing(method.name)
            for chosen in indices.T:
                maps, stability = self._maps(method, subjects, chosen)
                for index, subject in enumerate(subjects):
                    output = int(chosen[index])
                    probabilities, predicted, predicted_probability = said[index]
                    one = Explained(
                        subject, method.name, output, network.class_names[output], float(outputs[index, output]),
                        network.scale, None if probabilities is None else float(probabilities[output]),
                        predicted, predicted_probability, maps[index],
                    )  # fmt: skip
                    if (index, output) in measures and one.status == "ok" and method.of_one_input:
                        trust = measures[index, output].of(maps[index])
                        one = replace(one, trust=replace(trust, stability=stability[index]))
                    explained[index].append(one)
        return explained

    def randomization(self, subjects: Sequence[Subject], count: int = ON_RANDOM_WEIGHTS) -> dict[str, Any]:
        """Whether the maps change when all weights are scrambled (Adebayo et al. 2018), for each method.

        Args:
            subjects: the first `count` of them are explained again.
            count: how many.
        """
        # Of a model of images of any size those of one size can be read together.
        shape = np.shape(subjects[0].inputs) if self.source.kind == "image" else None
        few = [each for each in subjects if shape is None or np.shape(each.inputs) == shape][:count]
        outputs = self.network.outputs(self.network.batch(few))
        indices = chosen_outputs(self.network, outputs, self._fixed, 1)[:, 0]
        return {
            method.name: check(
                self.network, partial(method, self.network), few, indices, seed=self.options.seed, stages=1
            )
            for method in self.methods
            if method.of_one_input
        }

    def try_on(self, subject: Subject) -> None:
        """Runs each method once, before anything is written; default methods that the model cannot have are left out.

        Raises:
            DlcliError: a method that the user named needs something that the model has not, or none is left.
        """
        outputs = self.network.outputs(self.network.batch([subject]))
        first = chosen_outputs(self.network, outputs, self._fixed, 1)[:, 0]
        working = []
        for method in self.methods:
            try:
                _in_memory(partial(method, self.network, [subject], first))
                working.append(method)
            except DlcliError as error:
                if self.options.methods:
                    raise
                note(f"{method.name} is left out: {error}")
        if not working:
            raise DlcliError("no method is left that could explain this model")
        self.methods = working

    def _maps(
        self, method: Chosen, subjects: Sequence[Subject], outputs: np.ndarray
    ) -> tuple[list[Attribution], Sequence[float | None]]:
        """The maps, and how like they are to those of another seed, where chance has a part in them."""
        start = time.perf_counter()
        maps = _in_memory(lambda: self._explained(method, subjects, outputs))
        self.seconds[method.name] = self.seconds.get(method.name, 0.0) + time.perf_counter() - start
        # Without chance there is nothing to compare: all subsets of parts were tried.
        drawn = [not each.scores.get("exact") for each in maps]
        if not (self.options.trust and method.random and method.of_one_input and any(drawn)):
            return maps, [None] * len(maps)
        seed = self.options.seed + 1
        others = _in_memory(lambda: method(self.network, subjects, outputs, seed=seed))
        likeness = seed_stability(maps, others)
        return maps, [value if chance else None for value, chance in zip(likeness, drawn, strict=True)]

    def _explained(
        self, method: Chosen, subjects: Sequence[Subject], outputs: np.ndarray
    ) -> list[Attribution]:
        if method.of_one_input:
            return method(self.network, subjects, outputs)
        # The same for all inputs: it is made once for each output.
        for subject, output in zip(subjects, outputs.tolist(), strict=True):
            if (method.name, output) not in self._of_the_model:
                [self._of_the_model[method.name, output]] = method(
                    self.network, [subject], np.array([output])
                )
        return [self._of_the_model[method.name, output] for output in outputs.tolist()]


def _said(network: Network, outputs: np.ndarray) -> tuple[np.ndarray | None, str, float | None]:
    """Of one input: the probability of each class, what the model says, and the probability of that."""
    names = network.class_names
    if network.target == "values":
        return (
            None,
            ", ".join(f"{name} {value:.4g}" for name, value in zip(names, outputs, strict=True)),
            None,
        )
    probabilities = network.probabilities(outputs[None])[0]
    if network.target == "labels":
        given = [name for name, share in zip(names, probabilities, strict=True) if share >= LABEL_THRESHOLD]
        return probabilities, "; ".join(given) or "(no label)", None
    best = int(probabilities.argmax())
    return probabilities, names[best], float(probabilities[best])


def _in_memory(work: Callable[[], T]) -> T:
    """Does the work, and says what to do when memory is too small for it.

    Raises:
        DlcliError: out of memory.
    """
    try:
        return work()
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        raise DlcliError(
            "out of memory: give smaller images, or fewer --samples, --steps or --segments"
        ) from error
