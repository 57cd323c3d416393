"""The arguments a recipe may give, read from the builder's source: the module is never imported.

Importing `dlcli.architectures.cnn` would import Keras: seconds. Parsing its file takes milliseconds.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from dlcli.architectures import ARCHITECTURES
from dlcli.data import AUGMENTATIONS, DATASETS, TOKENIZERS
from dlcli.recipe import arguments
from dlcli.recipe.names import canonical, find, keras_class_name, keras_names, keras_source
from dlcli.tasks import TASKS
from dlcli.training import SCHEDULES

__all__ = [
    "KINDS", "REQUIRED", "Argument", "arguments_of", "canonical", "canonical_name", "keras_class_name",
    "known_names", "read_signature",
]  # fmt: skip

REQUIRED: Any = type("Required", (), {"__repr__": lambda _: "REQUIRED"})()
"""Default of an argument that has none."""

KINDS = {
    "task": TASKS,
    "dataset": DATASETS,
    "tokenizer": TOKENIZERS,
    "augmentation": AUGMENTATIONS,
    "architecture": ARCHITECTURES,
    "optimizer": None,  # Keras's own namespace is the table
    "schedule": SCHEDULES,
}

ELSEWHERE = {
    "clipnorm": "regularization.gradient_clipping.norm",
    "clipvalue": "regularization.gradient_clipping.value",
    "global_clipnorm": "regularization.gradient_clipping.global_norm",
    "use_ema": "regularization.ema",
    "ema_momentum": "regularization.ema",
    "ema_overwrite_frequency": "regularization.ema",
    "loss_scale_factor": "training.precision",
}
"""Arguments of Keras optimizers that a recipe gives in another section."""

_FINITE = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
_DECAY = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
_OPTIMIZER_TYPES: dict[str, Any] = {
    "learning_rate": Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)],
    "weight_decay": _DECAY,
    "adam_weight_decay": _DECAY,
    "gradient_accumulation_steps": Annotated[int, Field(ge=2, le=1_000_000)],
    "exclude_layers": list[str],
}
_OPTIMIZER_RANGES: tuple[tuple[str, Any], ...] = (
    (r"(adam_)?beta_\d|momentum|rho", arguments.Fraction),
    (r"epsilon(_\d)?", Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]),
    (r".*_strength|initial_accumulator_value|beta", arguments.Weight),
    (r"clip_threshold|adam_lr_ratio|rms_rate", arguments.Positive),
)
_KERAS_PREFIX = (
    "A float value or a constant float tensor, or a callable that takes no arguments and returns the "
    "actual value to use. "
)
_OPTIMIZER_DESCRIPTIONS = {
    "learning_rate": "the highest learning rate; `schedule` changes it over time",
    "weight_decay": "decoupled weight decay",
    "gradient_accumulation_steps": "steps whose gradients are averaged into one update",
}


@dataclass(frozen=True)
class Argument:
    """One argument of a builder.

    Attributes:
        name: as it stands in a recipe.
        annotation: its type with its range.
        default: its default, or REQUIRED.
        description: from the docstring's `Args:`.
    """

    name: str
    annotation: Any
    default: Any = REQUIRED
    description: str = ""


def known_names(kind: str) -> list[str]:
    """Every name of a Spec of this kind (`architecture`, `optimizer`, ...)."""
    table = KINDS[kind]
    return keras_names("optimizers") if table is None else list(table)


def canonical_name(kind: str, name: str) -> str | None:
    """The table's own spelling of a name, or None if it is not in the table."""
    return find(name, known_names(kind))


def arguments_of(kind: str, name: str) -> dict[str, Argument]:
    """The arguments that a recipe may give to `name`, which is spelled as in the table."""
    table = KINDS[kind]
    return _optimizer_signature(name) if table is None else read_signature(table[name])


@cache
def read_signature(target: str) -> dict[str, Argument]:
    """The keyword-only arguments of a builder, without importing its module.

    Args:
        target: `package.module:function`, or a class, whose `__init__` counts.

    Raises:
        ValueError: there is no such builder, or its signature is not readable as a schema.
    """
    module_name, _, name = target.partition(":")
    tree = ast.parse(_source(module_name).read_text(encoding="utf-8"))
    names = _Names(tree)
    function, docstring = _callable(tree, name, target)
    described = _described_arguments(docstring)
    found = {}
    for node, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        if node.annotation is None:
            raise ValueError(f"Expected an annotation on {target} argument {node.arg}")
        found[node.arg] = Argument(
            node.arg,
            _evaluated(node.annotation, names, f"{target} argument {node.arg}"),
            REQUIRED if default is None else _literal(default, f"{target} argument {node.arg}"),
            described.get(node.arg, ""),
        )
    return found


def reads_tokens(architecture: str) -> bool:
    """Whether an architecture is one of texts: its builder's positional arguments name a vocabulary."""
    table = KINDS["architecture"]
    return table is not None and "vocabulary_size" in _positional(table[architecture])


@cache
def _positional(target: str) -> list[str]:
    """Names of a builder's positional arguments, which are no part of its schema."""
    module_name, _, name = target.partition(":")
    tree = ast.parse(_source(module_name).read_text(encoding="utf-8"))
    function, _ = _callable(tree, name, target)
    return [node.arg for node in function.args.args]


@cache
def _optimizer_signature(name: str) -> dict[str, Argument]:
    """Arguments of a Keras optimizer, without annotations: types come from defaults, ranges from names."""
    path, class_name = keras_source("optimizers", name)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    function, docstring = _callable(tree, class_name, f"keras.optimizers.{class_name}")
    described = _described_arguments(docstring) | _OPTIMIZER_DESCRIPTIONS
    positional = function.args.args[1:]  # without self
    pairs = [
        *zip(
            positional[len(positional) - len(function.args.defaults) :], function.args.defaults, strict=True
        ),
        *zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True),
    ]
    found = {}
    for node, default_node in pairs:
        if node.arg in ELSEWHERE or node.arg == "name" or default_node is None:
            continue
        default = _literal(default_node, f"keras.optimizers.{class_name} argument {node.arg}")
        annotation = _optimizer_type(node.arg, default)
        if type(default) is int and typing.get_args(annotation)[:1] == (float,):  # Muon's adam_lr_ratio=1
            default = float(default)
        description = described.get(node.arg, "").removeprefix(_KERAS_PREFIX)
        found[node.arg] = Argument(node.arg, annotation, default, description)
    return found


def _optimizer_type(name: str, default: Any) -> Any:
    known = _OPTIMIZER_TYPES.get(name)
    if known is None:
        known = next((kind for pattern, kind in _OPTIMIZER_RANGES if re.fullmatch(pattern, name)), None)
    if known is None:
        if isinstance(default, bool):
            return bool
        known = {int: arguments.Count, str: str}.get(type(default), _FINITE)
    return known | None if default is None or name == "rms_rate" else known


def _source(module_name: str) -> Path:
    """The file of a module; its parent packages are imported (they are light), the module is not."""
    try:
        found = importlib.util.find_spec(module_name)
    except ModuleNotFoundError:
        found = None
    if found is None or found.origin is None:
        raise ValueError(f"Expected a module with source. Received: {module_name}")
    return Path(found.origin)


def _callable(tree: ast.Module, name: str, target: str) -> tuple[ast.FunctionDef, str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node, ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef) and node.name == name:
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    return method, ast.get_docstring(node) or ast.get_docstring(method) or ""
    raise ValueError(f"Expected a top-level function, or a class with __init__. Received: {target}")


class _Names(Mapping[str, Any]):
    """Names that annotations may use: of `arguments` and typing, builtins, and the file's own aliases."""

    def __init__(self, tree: ast.Module) -> None:
        self._aliases: dict[str, ast.expr] = {}
        for node in tree.body:
            if (
                isinstance(node, ast.Assign)
                and len(node.targets) == 1
                and isinstance(node.targets[0], ast.Name)
            ):
                self._aliases[node.targets[0].id] = node.value

    def __getitem__(self, name: str) -> Any:
        if name in self._aliases:
            return _evaluated(self._aliases[name], self, name)
        if hasattr(arguments, name):
            return getattr(arguments, name)
        return getattr(typing, name) if name in typing.__all__ else _BUILTINS[name]

    def __iter__(self) -> Iterator[str]:
        return iter([*self._aliases, *arguments.__all__, *_BUILTINS])

    def __len__(self) -> int:
        return sum(1 for _ in self)


_BUILTINS: dict[str, Any] = {kind.__name__: kind for kind in (int, float, str, bool, list, dict, tuple)}


def _evaluated(annotation: ast.expr, names: _Names, where: str) -> Any:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    code = compile(ast.fix_missing_locations(ast.Expression(annotation)), where, "eval")
    try:
        return eval(code, {"__builtins__": {}}, names)  # noqa: S307 - dlcli's own source, never a recipe's text
    except (NameError, KeyError) as error:
        raise ValueError(f"Expected names of dlcli.recipe.arguments in {where}. Received: {error}") from error


def _literal(default: ast.expr, where: str) -> Any:
    try:
        return ast.literal_eval(default)
    except ValueError as error:
        raise ValueError(
            f"Expected a literal default of {where}. Received: {ast.unparse(default)}"
        ) from error


def _described_arguments(docstring: str) -> dict[str, str]:
    """The `Args:` of a Google docstring."""
    lines = docstring.splitlines()
    start = next((index for index, line in enumerate(lines) if line.strip() == "Args:"), None)
    if start is None:
        return {}
    found: dict[str, list[str]] = {}
    name, indent = "", None
    for line in lines[start + 1 :]:
        depth = len(line) - len(line.lstrip())
        if line.strip() and depth == 0:
            break
        match = re.match(r"\s*`?(\w+)`?(?: \([^)]*\))?:\s*(.*)", line)
        if match and (indent is None or depth == indent):
            name, indent = match[1], depth
            found[name] = [match[2]]
        elif name and line.strip() and not line.strip().startswith("{{"):
            found[name].append(line.strip())
    return {name: " ".join(text).strip() for name, text in found.items()}
