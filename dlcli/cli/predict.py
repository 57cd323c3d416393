"""`dlcli predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlcli.cli.options import JsonOption, QuietOption, RunArgument

INPUTS = (
    "Images, folders of images, or a CSV file of rows; for a model of texts the text itself, .txt files, folders of "
    "them, a .csv or .tsv file, or - for the lines of stdin."
)


def predict(
    run: RunArgument,
    inputs: Annotated[list[str], typer.Argument(help=INPUTS)],
    out: Annotated[Path | None, typer.Option(help="Write to a .csv or .json file.")] = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="How many classes to show for each input.")] = 3,
    context: Annotated[
        str | None, typer.Option(help="The text that answers the questions given as inputs, or its file.")
    ] = None,
    json_: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Predict images, rows or texts with a run's model. Labels are not needed.

    JSON holds an object for each input: "input" with "class", "probability", "top" and "probabilities"; or with
    "labels", "values", "text" (a translation, an answer with its "score", tagged words and their "tags", tokens for
    each <mask>), or "error".

    Example: dlcli predict runs/cifar10_cnn cat.jpg photos/ --out predictions.csv

    Example: dlcli predict runs/imdb_lstm "A wonderful film." reviews/
    """
    from dlcli.runs import load_run

    loaded = load_run(run)

    from dlcli.backend import load_backend
    from dlcli.console import be_quiet

    if quiet:
        be_quiet()
    load_backend()
    from dlcli.evaluation.predict import predict_run
    from dlcli.evaluation.tables import print_predictions

    print_predictions(predict_run(loaded, inputs, top=top, context=context), out, json_)
