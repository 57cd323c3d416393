"""`--set a.b.c=value`: changes a recipe's values before they are checked, so all mistakes come together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dlcli.recipe.mistakes import Mistake, Place, RecipePath, dotted, shown
from dlcli.recipe.schema import NETWORKS, is_per_network
from dlcli.recipe.signatures import canonical_name
from dlcli.recipe.yaml_reader import MAX_DEPTH, Document, parse_yaml

SPEC_SECTIONS = ("task", "dataset", "architecture", "optimizer", "schedule")
DATASET_KEYS = ("validation_split", "tokenizer", "max_length", "augmentation")
"""Keys of the dataset section that belong to no source."""
TWO_NETWORKS = ("optimizer", "schedule")
"""Sections that may hold a Spec for each of two networks."""

_DEFAULT_NAMES = {"optimizer": "adam", "schedule": "constant", "tokenizer": "word"}


def spec_kind(path: RecipePath) -> str | None:
    """Which kind of Spec stands at a path: `architecture`, `augmentation`, ..., or None."""
    if len(path) == 1 and path[0] in SPEC_SECTIONS:
        return str(path[0])
    if len(path) == 2 and path[0] in TWO_NETWORKS and path[1] in NETWORKS:
        return str(path[0])
    if path == ("dataset", "tokenizer"):
        return "tokenizer"
    if len(path) == 3 and path[:2] == ("dataset", "augmentation") and isinstance(path[2], int):
        return "augmentation"
    return None


def apply_overrides(document: Document, overrides: Sequence[str]) -> None:
    """Changes the document; what is wrong with a flag becomes one of its mistakes.

    The value is a YAML scalar, `[list]` or `{mapping}`. `dataset.augmentation.0.mode=vertical` changes a
    list's item, and the index after the last one appends. A new name for a Spec (`optimizer.name=sgd` or
    `optimizer=sgd`) drops the old Spec's arguments, which are another builder's; the keys of the dataset section
    that belong to no source (DATASET_KEYS) stay. Names are set first, whatever the order of the flags; otherwise
    the last flag wins.

    Args:
        document: a recipe's values; they must be a mapping.
        overrides: `key.path=value` each.
    """
    flags = [flag for text in overrides if (flag := _read_flag(document, text)) is not None]
    for flag in sorted(flags, key=lambda flag: not _names_a_spec(flag)):
        _apply(document, flag)


@dataclass(frozen=True)
class _Flag:
    keys: list[str]
    value: Any
    label: str
    raw: str | None

    def place(self, path: RecipePath) -> Place:
        return Place(self.label, raw=self.raw, flag_path=path)


def _read_flag(document: Document, text: str) -> _Flag | None:
    label = f"--set {shown('', raw=text or '...')}"
    key, separator, value_text = text.partition("=")
    keys = [part.strip() for part in key.split(".")]
    if not separator or not all(keys) or len(keys) > MAX_DEPTH:
        what = "expected KEY.PATH=VALUE, such as optimizer.learning_rate=1e-3"
        document.mistakes.append(Mistake(what, Place(label, flag_path=())))
        return None
    read = parse_yaml(value_text, label)
    mistakes = [mistake.what for mistake in read.mistakes]
    if isinstance(read.value, dict | list) and value_text.lstrip()[:1] not in ("{", "["):
        mistakes.append("write a mapping as {key: value}, a list as [a, b], and text with ': ' in quotes")
    path = tuple(keys)
    for what in mistakes:
        document.mistakes.append(Mistake(what, Place(label, flag_path=path), path))
    return None if mistakes else _Flag(keys, read.value, label, read.places[()].raw if read.places else None)


def _names_a_spec(flag: _Flag) -> bool:
    path = _with_index(flag.keys)
    return isinstance(flag.value, str) and (
        spec_kind(path) is not None or (path[-1] == "name" and spec_kind(path[:-1]) is not None)
    )


def _with_index(keys: list[str]) -> RecipePath:
    """The path with the number of an augmentation as a number."""
    if len(keys) > 2 and keys[:2] == ["dataset", "augmentation"] and keys[2].isdecimal():
        return ("dataset", "augmentation", int(keys[2][:9]), *keys[3:])
    return tuple(keys)


def _apply(document: Document, flag: _Flag) -> None:
    keys = flag.keys
    node: Any = document.value
    path: RecipePath = ()
    for depth, key in enumerate(keys):
        following = keys[depth + 1] if depth + 1 < len(keys) else None
        step, what = _step(node, path, key, following)
        if step is None:
            document.mistakes.append(Mistake(what, flag.place(tuple(keys)), tuple(keys)))
            return
        path = (*path, step)
        if following is None:
            _put(document, node, path, flag.value, flag.place(path))
            return
        if path not in document.places:  # made by this flag
            document.places[path] = flag.place(tuple(keys))
        node = _descend(node, step, path, following)


def _step(node: Any, path: RecipePath, key: str, following: str | None) -> tuple[str | int | None, str]:
    """The key or index that leads on from a node; or None, and why there is none."""
    if isinstance(node, dict):
        here = (*path, key)
        in_spec = spec_kind(path) is not None and here != ("dataset", "augmentation")
        if in_spec and key not in node and following is not None and following.isdecimal():
            return None, f"the recipe does not give {dotted(here)}; set the whole list: {dotted(here)}=[...]"
        return key, ""
    if isinstance(node, list):
        if key.isdecimal() and int(key[:9]) <= len(node):
            return int(key[:9]), ""
        return None, f"{dotted(path)} is a list of {len(node)}; expected an index from 0 to {len(node)}"
    return None, f"{dotted(path)} is {shown(node)}, which has no keys"


def _descend(node: Any, step: Any, path: RecipePath, following: str) -> Any:
    """The node below, made where it is missing; a bare name becomes a mapping."""
    appended = isinstance(node, list) and step == len(node)
    child = node.get(step) if isinstance(node, dict) else None if appended else node[step]
    kind = spec_kind(path)
    if len(path) == 1 and step in TWO_NETWORKS and following in NETWORKS:
        child = _for_each_network(child)
    elif isinstance(child, str) and kind is not None:
        child = {"name": child}
    elif child is None and path == ("dataset", "augmentation"):
        child = []
    elif child is None:
        child = {"name": _DEFAULT_NAMES[kind]} if kind in _DEFAULT_NAMES and following != "name" else {}
    if appended:
        node.append(child)
    else:
        node[step] = child
    return child


def _for_each_network(given: Any) -> Any:
    """One Spec becomes a copy for each network, so that a flag can change one of them."""
    if given is None or is_per_network(given):
        return given or {}
    spec = {"name": given} if isinstance(given, str) else given
    return {network: dict(spec) for network in NETWORKS} if isinstance(spec, dict) else spec


def _put(document: Document, node: Any, path: RecipePath, value: Any, place: Place) -> None:
    kind = spec_kind(path)
    old = node[path[-1]] if isinstance(node, dict) and path[-1] in node else None
    if isinstance(node, list):
        old = node[path[-1]] if path[-1] < len(node) else None  # type: ignore[operator,index]
    if kind is not None and isinstance(value, str) and isinstance(old, dict):
        _rename(document, old, path, value, place)
        return
    if path[-1] == "name" and spec_kind(path[:-1]) is not None and isinstance(value, str):
        _rename(document, node, path[:-1], value, place)
        return
    _forget(document, path)
    document.places[path] = place
    if isinstance(node, list) and path[-1] == len(node):
        node.append(value)
    else:
        node[path[-1]] = value


def _rename(document: Document, spec: dict[str, Any], path: RecipePath, name: str, place: Place) -> None:
    """Gives a Spec another name, and drops the arguments of the old one."""
    kind, old = str(spec_kind(path)), spec.get("name")
    same = isinstance(old, str) and canonical_name(kind, old) == canonical_name(kind, name) is not None
    for key in list(spec):
        if not same and not (kind == "dataset" and key in DATASET_KEYS):
            del spec[key]
            _forget(document, (*path, key))
    spec["name"] = name
    document.places[(*path, "name")] = place


def _forget(document: Document, path: RecipePath) -> None:
    """Positions in the file say nothing of a value that a flag replaces."""
    for known in [known for known in document.places if known[: len(path)] == path]:
        del document.places[known]
