"""The JSON schema of a recipe (draft 2020-12), for completion and checks in editors."""

from __future__ import annotations

import copy
from typing import Any

from dlcli.recipe.argument_models import argument_model
from dlcli.recipe.names import keras_aliases, keras_names
from dlcli.recipe.overrides import DATASET_KEYS, SPEC_SECTIONS, TWO_NETWORKS
from dlcli.recipe.schema import NETWORKS
from dlcli.recipe.signatures import KINDS, REQUIRED, arguments_of, known_names
from dlcli.recipe.version import VERSION
from dlcli.recipe.wording import recipe_schema


def json_schema() -> dict[str, Any]:
    """Everything that a recipe may say: the sections, and for each name of a Spec its builder's arguments.

    Names are listed in their canonical spelling only, so that completion stays short; dlcli takes any.
    """
    schema = copy.deepcopy(recipe_schema())
    definitions = schema["$defs"]
    dataset_keys = {key: definitions["Dataset"]["properties"][key] for key in DATASET_KEYS}
    dataset_keys["augmentation"] |= {"items": {"$ref": "#/$defs/augmentation"}}
    dataset_keys["tokenizer"]["anyOf"][0] = {"$ref": "#/$defs/tokenizer"}
    for kind in KINDS:
        common = dataset_keys if kind == "dataset" else {}
        definitions[kind] = _spec_schema(kind)
        for name in known_names(kind):
            definitions[f"{kind}.{name}"] = _builder_schema(kind, name, common)
    for section in SPEC_SECTIONS:
        default = schema["properties"][section].get("default")
        one = {"$ref": f"#/$defs/{section}"}
        schema["properties"][section] = (
            {"anyOf": [one, _for_each_network(one)]} if section in TWO_NETWORKS else one
        )
        if default is not None:
            schema["properties"][section]["default"] = default
    schema["properties"]["version"] = {"const": VERSION, "description": "of the form of recipes"}
    for replaced in ("Spec", "PerNetwork", "Dataset"):
        definitions.pop(replaced, None)
    _without_titles(schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dlcli recipe",
        **schema,
    }


def _for_each_network(spec: dict[str, Any]) -> dict[str, Any]:
    """A mapping with such a Spec for each network of an adversarial task."""
    return {
        "type": "object",
        "properties": dict.fromkeys(NETWORKS, spec),
        "required": list(NETWORKS),
        "additionalProperties": False,
    }


def _spec_schema(kind: str) -> dict[str, Any]:
    """A bare name, or a mapping whose other keys depend on its name."""
    names = known_names(kind)
    bare = [name for name in names if not _required(kind, name)]
    choices = [
        {
            "if": {"type": "object", "required": ["name"], "properties": {"name": {"const": name}}},
            "then": {"$ref": f"#/$defs/{kind}.{name}"},
        }
        for name in names
    ]
    return {
        "anyOf": [
            {"enum": bare},
            {"type": "object", "required": ["name"], "properties": {"name": {"enum": names}}},
        ],
        "allOf": choices,
    }


def _required(kind: str, name: str) -> bool:
    return any(found.default is REQUIRED for found in arguments_of(kind, name).values())


def _builder_schema(kind: str, name: str, common: dict[str, Any]) -> dict[str, Any]:
    schema = argument_model(kind, name).model_json_schema(by_alias=True)
    schema.pop("title", None)
    _with_keras_names(schema)
    return {
        "type": "object",
        **schema,
        "properties": {"name": {"const": name}, **schema.get("properties", {}), **common},
        "required": ["name", *schema.get("required", [])],
        "additionalProperties": False,
    }


def _with_keras_names(fragment: Any) -> None:
    """Puts the names of Keras's namespaces where a signature only says which namespace."""
    if isinstance(fragment, dict):
        namespace = fragment.pop("keras", None)
        if isinstance(namespace, str):
            fragment["enum"] = [*keras_names(namespace), *keras_aliases(namespace)]
        for value in fragment.values():
            _with_keras_names(value)
    elif isinstance(fragment, list):
        for value in fragment:
            _with_keras_names(value)


def _without_titles(fragment: Any) -> None:
    """Pydantic's titles repeat the keys, or name our classes."""
    if isinstance(fragment, dict):
        if isinstance(fragment.get("title"), str):
            del fragment["title"]
        for value in fragment.values():
            _without_titles(value)
    elif isinstance(fragment, list):
        for value in fragment:
            _without_titles(value)
