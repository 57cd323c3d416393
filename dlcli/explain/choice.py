"""What the user chose, checked before any work: methods, their options, and the class that is explained."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dlcli.data.text.tokenizer import Tokenizer
from dlcli.errors import DlcliError
from dlcli.explain import DEFAULT_METHODS, METHODS, OF_THE_MODEL
from dlcli.explain.attribution import Method
from dlcli.explain.network import Kind, Network
from dlcli.recipe.names import suggest

CLASSES_LISTED = 20


@dataclass(frozen=True)
class Options:
    """The settings of `dlcli explain`; None stands for a method's own default."""

    methods: tuple[str, ...] = ()
    """Empty: those of DEFAULT_METHODS that the model can have."""
    class_name: str | None = None
    """A name or an index; None for the predicted class."""
    top: int = 1
    """How many of the most probable classes are explained."""
    layer: str | None = None
    samples: int | None = None
    steps: int | None = None
    segments: int | None = None
    baseline: str | None = None
    seed: int = 0
    probability: bool = False
    """Whether probabilities are explained in place of logits."""
    trust: bool = True
    """Whether faithfulness, stability and the randomization check are measured."""

    def record(self) -> dict[str, Any]:
        """For explanation.json; what two runs must share for one to go on where the other stopped."""
        return {**asdict(self), "methods": list(self.methods)}


FLAGS = {
    "layer": "--layer",
    "samples": "--samples",
    "steps": "--steps",
    "segments": "--segments",
    "baseline": "--baseline",
}
"""Options that only some methods take."""


@dataclass(frozen=True)
class Chosen:
    """A method with the options that it takes."""

    name: str
    function: Method
    arguments: Mapping[str, Any]

    @property
    def of_one_input(self) -> bool:
        """Whether it explains an input, and not the model as a whole."""
        return self.name not in OF_THE_MODEL

    @property
    def random(self) -> bool:
        """Whether another seed gives another map."""
        return "seed" in self.arguments

    def __call__(self, network: Network, subjects: Any, outputs: np.ndarray, **changes: Any) -> Any:
        """An Attribution of outputs[i] for each subjects[i]; `changes` overrule the options."""
        return self.function(network, subjects, np.asarray(outputs), **{**self.arguments, **changes})


def choose_methods(kind: Kind, options: Options, default: Sequence[str] = ()) -> tuple[str, ...]:
    """The methods' names; `default`, or those of DEFAULT_METHODS, when the user names none.

    Raises:
        DlcliError: there is no such method, or none for this kind of input.
    """
    have = METHODS[kind]
    for name in options.methods:
        if name in have:
            continue
        if kinds := [other for other, methods in METHODS.items() if name in methods]:
            raise DlcliError(
                f"--method {name}: is for models of {' and '.join(f'{each}s' for each in kinds)}, and this one reads "
                f"{kind}s; allowed: {', '.join(have)}"
            )
        near = suggest(name, have)
        meant = f"; did you mean {near}?" if near else ""
        raise DlcliError(f"--method {name}: no such method{meant}; allowed: {', '.join(have)}")
    names = tuple(dict.fromkeys(options.methods)) or tuple(default) or DEFAULT_METHODS[kind]
    taken = {option for name in names for option in _signature(kind, name)}
    for option, flag in FLAGS.items():
        if getattr(options, option) is not None and option not in taken:
            users = [name for name in have if option in _signature(kind, name)]
            who = f"these take it: {', '.join(users)}" if users else f"no method for {kind}s takes it"
            raise DlcliError(f"{flag} {getattr(options, option)}: of no use to {' and '.join(names)}; {who}")
    return names


def with_options(kind: Kind, name: str, options: Options, data: Mapping[str, Any]) -> Chosen:
    """A method with the options that its signature has.

    Args:
        kind: of the input.
        name: of the method.
        options: what the user chose.
        data: of the run's data what methods of tables take: `background`, `labelled`.
    """
    signature = _signature(kind, name)
    given = {**{option: getattr(options, option) for option in FLAGS}, "seed": options.seed, **data}
    arguments = {
        option: value for option, value in given.items() if option in signature and value is not None
    }
    return Chosen(name, pkgutil.resolve_name(METHODS[kind][name]), arguments)


def takes(kind: Kind, names: Sequence[str], option: str) -> bool:
    """Whether one of the methods has an option."""
    return any(option in _signature(kind, name) for name in names)


def _signature(kind: Kind, name: str) -> set[str]:
    parameters = inspect.signature(pkgutil.resolve_name(METHODS[kind][name])).parameters.values()
    return {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}


def chosen_outputs(network: Network, outputs: np.ndarray, fixed: int | None, top: int) -> np.ndarray:
    """Which outputs are explained of each input, int (B, N).

    Args:
        network: gave `outputs`.
        outputs: (B, K).
        fixed: the one that the user named; None for the `top` largest.
        top: N, unless one is named.
    """
    if fixed is not None:
        return np.full((len(outputs), 1), fixed)
    if network.target == "values":  # no column is more predicted than another
        return np.tile(np.arange(min(top, network.num_outputs)), (len(outputs), 1))
    return np.argsort(-outputs, axis=1, kind="stable")[:, : min(top, network.num_outputs)]


def output_index(network: Network, given: str, tokenizer: Tokenizer | None = None) -> int:
    """The output that a user names.

    Args:
        network: what has outputs.
        given: a class's name, or its index.
        tokenizer: of a language model, whose classes are tokens: a text of one token names that.

    Raises:
        DlcliError: there is no such class.
    """
    names = network.class_names
    if given in names:
        return names.index(given)
    if tokenizer is not None and network.language:
        ids = tokenizer.encode([given])[0]
        if len(ids) == 1:
            return int(ids[0])
        raise DlcliError(f"--class {given}: is {len(ids)} tokens of the model, and one is explained")
    what = "column" if network.target == "values" else "class"
    last = len(names) - 1
    try:
        index = int(given)
    except ValueError:
        near = suggest(given, names)
        meant = f"; did you mean {near}?" if near else ""
        shown = ", ".join(names[:CLASSES_LISTED]) + (", ..." if last >= CLASSES_LISTED else "")
        raise DlcliError(
            f"--class {given}: no such {what}{meant}; allowed: {shown}, or an index 0 to {last}"
        ) from None
    if not 0 <= index <= last:
        raise DlcliError(f"--class {given}: allowed are the indices 0 to {last}, or a {what}'s name")
    return index
