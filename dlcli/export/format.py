"""What every export format says of itself, and what it gets to work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

Quantize = Literal["float16", "int8"]

Inputs = Mapping[str, np.ndarray]
"""Input name -> array (N, ...): uint8 pixels, int32 token ids padded with 0, float32 or string columns."""

Run = Callable[[Inputs], np.ndarray]
"""An artefact that its own runtime has loaded: inputs of any N -> outputs (N, ...)."""


@dataclass(frozen=True)
class Input:
    """One input of the exported graph."""

    name: str
    shape: tuple[int | None, ...]
    """Without the batch; None is a side that stays open."""
    dtype: str
    """`uint8`, `int32`, `float32` or `string`."""


@dataclass(frozen=True)
class Exportable:
    """A run's model, ready for any format."""

    model: keras.Model
    """Raw inputs -> predictions, float32."""
    numeric: keras.Model
    """The same for graphs without strings: a column of text is an int32 index into `vocabularies`, -1 for a value
    that the model never saw. For images and texts this is `model` itself."""
    inputs: tuple[Input, ...]
    """Of `model`."""
    numeric_inputs: tuple[Input, ...]
    """Of `numeric`."""
    kind: str
    """`image`, `table`, `text`, ..., as in `dlcli.data.KINDS_OF_DATA`; `latents` or `noise` of models that draw."""
    target: str
    """`classes`, `labels`, `values`, `text` (logits), `tags`, `spans`, `images` (pixels) or `noise` (what a denoiser
    says): what the outputs are."""
    classes: tuple[str, ...]
    """Names of the outputs, in index order; of a model that draws, of its labels. Empty for a language model."""
    vocabularies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of the text columns of a table, by input name."""
    tokenizer: str | None = None
    """Of a model of texts: JSON of Hugging Face's `tokenizers`."""
    max_length: int = 0
    """Of a model of texts: tokens, what is longer is cut."""


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    batch_size: int | None = None
    """None leaves the batch open where the format can."""
    quantize: Quantize | None = None
    calibration: Inputs | None = None
    """Real train examples for `quantize`, in the form of `numeric_inputs` (tokens padded to `max_length`)."""


@dataclass(frozen=True)
class Written:
    """What came of it."""

    batch_size: int | None = None
    """Rows that the artefact takes at once; None for any number."""
    length: int | None = None
    """Tokens that the artefact takes: shorter texts are padded with 0; None for any number."""
    notes: tuple[str, ...] = ()
    """Where the format could not do what was asked, and what was done in its place."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What the loader and example.py need to know beside this; goes into manifest.json."""


Manifest = Mapping[str, Any]
"""What manifest.json holds; `load` and `example` read of it:

inputs        [{"name", "shape", "dtype", "column" for tables}], of `numeric` unless the format takes strings; in the
              order of `model.inputs` (`numeric.inputs`), whose tensors have these names
kind, target, classes, vocabularies
              as in `Exportable`
batch_size, length, details
              as in `Written`: the numbers that the artefact is fixed to, else null
quantization  `float16`, `int8` or null
tokenizer     {"file", "max_length", "start", "end"} of texts, else null
"""


@dataclass(frozen=True)
class Format:
    """One way to write a model."""

    name: str
    runtime: str
    """The package that runs it, as pip knows it."""
    extra: str | None
    """The extra of dlcli that brings what writing needs; None when nothing is needed."""
    packages: tuple[str, ...]
    """Modules of that extra that must be importable."""
    quantizations: tuple[Quantize, ...]
    strings: bool
    """Whether its graphs take columns of text; else they get `Exportable.numeric`."""
    write: Callable[[Exportable, Path, Options], Written]
    """Writes into an empty folder. Raises DlcliError with the reason for what the format cannot do."""
    load: Callable[[Path, Mapping[str, Any]], Run]
    """Folder and manifest -> the artefact, loaded by its own runtime."""
    example: Callable[[Mapping[str, Any]], str]
    """Manifest -> text of example.py, about ten lines, which needs the runtime and no dlcli; what all formats share
    (reading the input, printing the prediction) is in `dlcli.export.example.script`."""
