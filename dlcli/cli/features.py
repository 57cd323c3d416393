"""`dlcli features`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dlcli.cli.options import JsonOption, QuietOption
from dlcli.cli.predict import INPUTS


class Pooling(StrEnum):
    """How a map or a sequence becomes a vector."""

    mean = "mean"
    max = "max"
    first = "first"
    none = "none"


class Pixels(StrEnum):
    """How a source's pixels are scaled, as `architecture.preprocessing` of a recipe."""

    auto = "auto"
    none = "none"
    rescale = "rescale"
    tf = "tf"
    caffe = "caffe"
    torch = "torch"


def features(
    source: Annotated[
        str,
        typer.Argument(
            help="A run folder, a .keras or .h5 file, imagenet:NAME, hub:PRESET or a local preset folder."
        ),
    ],
    inputs: Annotated[list[str], typer.Argument(help=INPUTS)],
    out: Annotated[Path, typer.Option(help="The file to write, .npz or .csv.")],
    layer: Annotated[
        str | None,
        typer.Option(
            help="The layer whose output is written, as `dlcli plan` names it; else that before the head."
        ),
    ] = None,
    pooling: Annotated[
        Pooling, typer.Option(help="How maps and sequences become vectors; none leaves them as they are.")
    ] = Pooling.mean,
    preprocessing: Annotated[
        Pixels, typer.Option(help="What the source expects of pixels, when its file does not say.")
    ] = Pixels.auto,
    json_: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write what a layer of a run or a pretrained model makes of images, rows or texts.

    features.npz holds `features`, `inputs` (the name of each) and `errors`; features.csv a row for each input.

    Example: dlcli features runs/cifar10_cnn photos/ --out features.npz

    Example: dlcli features hub:bert_tiny_en_uncased reviews.csv --pooling first --out features.csv
    """
    from dlcli.backend import load_backend
    from dlcli.console import be_quiet

    if quiet:
        be_quiet()
    load_backend()
    from dlcli.evaluation.features import extract_features, print_features

    report = extract_features(
        source, inputs, out, layer=layer, pooling=pooling.value, preprocessing=preprocessing.value
    )
    print_features(report, json_)
