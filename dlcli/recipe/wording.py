"""Pydantic's errors in dlcli's words: what, did you mean, allowed, received, at the place in the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import ValidationError

from dlcli.recipe.mistakes import Mistake, Place, RecipePath, shown
from dlcli.recipe.names import keras_aliases, keras_names, suggest
from dlcli.recipe.schema import Recipe
from dlcli.recipe.yaml_reader import Document, parse_scalar

Specs = dict[RecipePath, tuple[str, str, dict[str, Any]]]
"""Path -> kind, canonical name, arguments given."""

REFUSED_STRATEGIES = {
    "parameter_server": "Keras 3 no longer trains with parameter servers; take multi_worker",
    "central_storage": "it is mirrored with its variables on one device; take mirrored",
    "multi_worker_mirrored": "it is called multi_worker here",
}
"""Strategies of tf.distribute that a recipe cannot name, and why."""

_WHAT = {
    "extra_forbidden": "unknown key",
    "missing": "required key is missing",
    "literal_error": "unknown value",
    "keras_name": "unknown name",
    "too_short": "too few values",
    "too_long": "too many values",
    "string_too_short": "too short",
    "string_too_long": "too long",
    "string_pattern_mismatch": "not of this form",
}
_RANGE_ERRORS = {
    "greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number", "multiple_of",
}  # fmt: skip
_UNION_ERRORS = {"literal_error", "keras_name"}


@cache
def recipe_schema() -> dict[str, Any]:
    """JSON schema of the sections."""
    return Recipe.model_json_schema(by_alias=True)


def place_of(document: Document, path: RecipePath, *, key: bool = False) -> Place:
    """Where a path stands, or the nearest thing above it that does."""
    for length in range(len(path), -1, -1):
        place = document.places.get(path[:length])
        if place is not None:
            return place.of_key() if key or length < len(path) else place
    return Place("recipe")


def mistakes_of(
    error: ValidationError, data: Any, schema: dict[str, Any], base: RecipePath, document: Document
) -> list[Mistake]:
    """One mistake for each wrong value, however many branches of a union it failed.

    Args:
        error: from pydantic.
        data: what was validated.
        schema: JSON schema of what was validated.
        base: where `data` stands in the recipe.
        document: for positions and raw scalars.
    """
    by_path: dict[RecipePath, list[Mapping[str, Any]]] = {}
    for detail in error.errors(include_url=False, include_context=True):
        path = _data_path(detail["loc"], data, missing=detail["type"] == "missing")
        by_path.setdefault(path, []).append(detail)
    found = []
    for path, details in by_path.items():
        deeper = any(len(other) > len(path) and other[: len(path)] == path for other in by_path)
        if deeper and all(_is_type_error(detail) or detail["type"] in _UNION_ERRORS for detail in details):
            continue  # the union's best branch has a mistake further down
        found.append(_mistake(_worst(details), path, data, schema, base=base, document=document))
    return found


def _data_path(location: Sequence[str | int], data: Any, *, missing: bool) -> RecipePath:
    """Pydantic's location without the names of union branches."""
    path: list[str | int] = []
    for index, step in enumerate(location):
        in_list = isinstance(data, list) and isinstance(step, int) and step < len(data)
        if in_list or (isinstance(data, dict) and step in data):
            data = data[step]
        elif not (missing and index == len(location) - 1):
            continue
        path.append(step)
    return tuple(path)


def _is_type_error(detail: Mapping[str, Any]) -> bool:
    kind = detail["type"]
    return kind.endswith("_type") or kind in ("int_from_float", "none_required", "model_attributes_type")


def _worst(details: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of a union's errors the most telling one: a rule's own sentence, or the value fits this branch's type."""
    fitting = [detail for detail in details if not _is_type_error(detail)]
    return next((detail for detail in fitting if detail["type"] == "value_error"), (fitting or details)[0])


def _mistake(
    detail: Mapping[str, Any],
    path: RecipePath,
    data: Any,
    schema: dict[str, Any],
    *,
    base: RecipePath,
    document: Document,
) -> Mistake:
    full, kind = (*base, *path), detail["type"]
    value = value_at(data, path)
    place = place_of(document, full, key=kind in ("extra_forbidden", "missing"))
    received = None if kind == "missing" else shown(value, place.raw if full in document.places else None)
    if kind == "extra_forbidden":
        known = [known for known in _keys(_schema_at(schema, path[:-1], schema), schema) if known != "name"]
        allowed = ", ".join(known) or "no arguments"
        return Mistake("unknown key", place, full, suggest(str(path[-1]), known), allowed, received)
    if kind == "value_error":
        return Mistake(str(detail["ctx"]["error"]), place, full)
    fragment = _schema_at(schema, path, schema)
    what = "out of range" if kind in _RANGE_ERRORS else _WHAT.get(kind, "wrong type")
    if full == ("distribution", "strategy") and value in REFUSED_STRATEGIES:
        what, received = f"{value}: {REFUSED_STRATEGIES[value]}", None
    suggestion = _better_value(value, fragment, schema)
    return Mistake(what, place, full, suggestion, describe(fragment, schema), received)


def describe(fragment: dict[str, Any], schema: dict[str, Any]) -> str:
    """What a JSON schema allows, in words."""
    fragment = _resolved(fragment, schema)
    if "anyOf" in fragment or "oneOf" in fragment:
        return " or ".join(dict.fromkeys(describe(branch, schema) for branch in _branches(fragment)))
    if "keras" in fragment:
        return ", ".join([*keras_names(fragment["keras"]), *keras_aliases(fragment["keras"])])
    if values := fragment.get("enum", [fragment["const"]] if "const" in fragment else None):
        return ", ".join(value if isinstance(value, str) else json.dumps(value) for value in values)
    kind = fragment.get("type")
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _range(fragment)
    if kind == "array":
        return _describe_list(fragment, schema)
    if kind == "object":
        keys = _keys(fragment, schema)
        return f"a mapping of {', '.join(keys)}" if keys else "a mapping"
    return {"boolean": "true, false", "string": "text", "null": "null"}.get(str(kind), "any value")


def _describe_list(fragment: dict[str, Any], schema: dict[str, Any]) -> str:
    if "prefixItems" in fragment:
        return f"a list [{', '.join(describe(item, schema) for item in fragment['prefixItems'])}]"
    least, most = fragment.get("minItems"), fragment.get("maxItems")
    count = ""
    if most is not None:
        count = f" of {least or 0} to {most}"
    elif least is not None:
        count = f" of at least {least}"
    items = fragment.get("items")
    return f"a list{count}" + (f", each {describe(items, schema)}" if items else "")


def _range(fragment: dict[str, Any]) -> str:
    lower, upper = fragment.get("minimum"), fragment.get("maximum")
    if lower is not None and upper is not None:
        return f" from {_number(lower)} to {_number(upper)}"
    bounds = [
        (f"above {_number(fragment['exclusiveMinimum'])}" if "exclusiveMinimum" in fragment else ""),
        (f"at least {_number(lower)}" if lower is not None else ""),
        (f"below {_number(fragment['exclusiveMaximum'])}" if "exclusiveMaximum" in fragment else ""),
        (f"at most {_number(upper)}" if upper is not None else ""),
    ]
    return "".join(f"{' and' if index else ''} {bound}" for index, bound in enumerate(filter(None, bounds)))


def _number(value: float) -> str:
    return f"{value:.12g}" if isinstance(value, float) and value < 1e12 else str(value)


def _better_value(value: Any, fragment: dict[str, Any], schema: dict[str, Any]) -> str | None:
    """A value that was probably meant."""
    fragment = _resolved(fragment, schema)
    branches = [_resolved(branch, schema) for branch in _branches(fragment)]
    kinds = {branch.get("type") for branch in branches}
    if isinstance(value, float) and "integer" in kinds and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if not isinstance(value, str):
        return None
    values = [value for branch in branches for value in branch.get("enum", [branch.get("const")])]
    known = [name for name in values if isinstance(name, str)]
    known += [name for branch in branches if "keras" in branch for name in keras_names(branch["keras"])]
    if known:
        return suggest(value, known)
    if "boolean" in kinds and value.lower() in ("yes", "no", "on", "off", "true", "false"):
        return "true" if value.lower() in ("yes", "on", "true") else "false"
    return _as_number(value) if kinds & {"integer", "number"} else None


def _as_number(text: str) -> str | None:
    plain = text.strip().replace("_", "").replace(",", "")
    try:
        number = parse_scalar(plain)
    except ValueError:
        return None
    return plain if isinstance(number, int | float) and not isinstance(number, bool) else None


def mistake_at(document: Document, path: RecipePath, what: str, received: Any = None) -> Mistake:
    """A mistake in what stands at a path, with the value where it helps."""
    return Mistake(
        what, place_of(document, path), path, received=None if received is None else shown(received)
    )


def value_at(data: Any, path: RecipePath) -> Any:
    """What stands at a path; None where nothing does."""
    for step in path:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _resolved(fragment: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in fragment:
        return schema["$defs"][fragment["$ref"].rsplit("/", 1)[-1]]
    return fragment


def _branches(fragment: dict[str, Any]) -> list[dict[str, Any]]:
    """The branches of a union; of anything else the fragment itself."""
    found: list[dict[str, Any]] = fragment.get("anyOf") or fragment.get("oneOf") or [fragment]
    return found


def _keys(fragment: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    fragment = _resolved(fragment, schema)
    branches = _branches(fragment)
    return [key for branch in branches for key in _resolved(branch, schema).get("properties", {})]


def _schema_at(fragment: dict[str, Any], path: RecipePath, schema: dict[str, Any]) -> dict[str, Any]:
    """The part of a schema that a path leads to; of a union, the branch that knows the next step."""
    fragment = _resolved(fragment, schema)
    if not path:
        return fragment
    step, rest = path[0], path[1:]
    for branch in _branches(fragment):
        branch = _resolved(branch, schema)  # noqa: PLW2901 - the same branch, looked up
        child = None
        if isinstance(step, int):
            prefix = branch.get("prefixItems", [])
            child = prefix[step] if step < len(prefix) else branch.get("items")
        elif step in branch.get("properties", {}):
            child = branch["properties"][step]
        elif isinstance(branch.get("additionalProperties"), dict):
            child = branch["additionalProperties"]
        if isinstance(child, dict):
            return _schema_at(child, rest, schema)
    return {}
