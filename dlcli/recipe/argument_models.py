"""A pydantic model for each builder's arguments, so that all mistakes come at once."""

from __future__ import annotations

import json
import typing
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from dlcli.recipe.names import canonical
from dlcli.recipe.signatures import REQUIRED, Argument, arguments_of

_CONFIG = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


@cache
def argument_model(kind: str, name: str) -> type[BaseModel]:
    """The model of the arguments of `name`: closed, immutable, strict (no text for numbers, no bool for int).

    Args:
        kind: `task`, `dataset`, `augmentation`, `architecture`, `optimizer` or `schedule`.
        name: spelled as in the kind's table.
    """
    return build_model(f"{kind}.{name}", arguments_of(kind, name))


def build_model(title: str, found: dict[str, Argument]) -> type[BaseModel]:
    """The model of a signature."""
    fields: dict[str, Any] = {}
    for index, argument in enumerate(found.values()):
        default = ... if argument.default is REQUIRED else argument.default
        # Attributes are numbered: an argument called `copy` or `json` would shadow one of pydantic's methods.
        fields[f"argument_{index}"] = (
            looked_up(argument.annotation),
            Field(default, alias=argument.name, description=argument.description or None),
        )
    return create_model(title, __config__=_CONFIG, **fields)


def check_arguments(model: type[BaseModel], given: dict[str, Any]) -> dict[str, Any]:
    """All arguments, defaults written out, as plain values: lists for tuples, text for paths.

    Checked as JSON, whose strict mode takes lists for tuples, but no text for numbers.

    Raises:
        pydantic.ValidationError: with every mistake.
    """
    fields = model.model_fields.values()
    defaults = {field.alias: field.default for field in fields if not field.is_required()}
    return model.model_validate_json(json.dumps(defaults | given)).model_dump(mode="json", by_alias=True)


def looked_up(annotation: Any) -> Any:
    """The annotation, with names of Keras's namespaces checked and spelled canonically."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        inner, *marks = parts
        namespace = next((name for mark in marks if (name := _namespace(mark))), None)
        if namespace:
            marks.append(AfterValidator(lambda name: _canonical(namespace, name)))
        return Annotated[(looked_up(inner), *marks)]
    if origin in (Union, UnionType):
        return Union[tuple(looked_up(part) for part in parts)]  # noqa: UP007 - from a tuple
    if origin in (None, typing.Literal):
        return annotation
    return origin[tuple(looked_up(part) for part in parts)]


def _namespace(mark: Any) -> str | None:
    extra = mark.json_schema_extra if isinstance(mark, FieldInfo) else None
    return str(extra["keras"]) if isinstance(extra, dict) and "keras" in extra else None


def _canonical(namespace: str, name: str) -> str:
    try:
        return canonical(namespace, name)
    except ValueError as error:
        raise PydanticCustomError("keras_name", "unknown name", {"namespace": namespace}) from error
