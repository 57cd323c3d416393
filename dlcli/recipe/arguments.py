"""Types of builder arguments, shared by every signature that a recipe can reach.

A builder's signature is its schema (`recipe/signatures.py` reads it without importing the builder), so
a range written here is checked while the recipe loads, and appears in `dlcli schema`. Only `typing` and
pydantic are imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

__all__ = [
    "Activation", "Annotated", "Any", "Application", "Count", "Field", "Fraction", "ImageSize", "Initializer",
    "Literal", "Loss", "Metric", "Normalization", "Path", "Positive", "PositiveInt", "Probability", "Rate",
    "Sequence", "Side", "Weight",
]  # fmt: skip

PositiveInt = Annotated[int, Field(ge=1, le=1_000_000)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Positive = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Rate = Fraction  # dropout and its like
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Side = Annotated[int, Field(ge=1, le=16_384)]
ImageSize = Side | tuple[Side, Side]
"""One side for squares, or `[height, width]`, in pixels."""

# Names of Keras's public namespaces; `recipe/argument_models.py` looks them up, in any spelling.
Activation = Annotated[str, Field(json_schema_extra={"keras": "activations"})]
Initializer = Annotated[str, Field(json_schema_extra={"keras": "initializers"})]
Loss = Annotated[str, Field(json_schema_extra={"keras": "losses"})]
Metric = Annotated[str, Field(json_schema_extra={"keras": "metrics"})]
Application = Annotated[str, Field(json_schema_extra={"keras": "applications"})]
Normalization = Literal["batch", "batch_local", "layer", "instance", "group", "none"]
