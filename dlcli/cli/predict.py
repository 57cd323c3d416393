"""`dlcli predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlcli.cli.options import JsonOption, QuietOption, RunArgument


def predict(
    run: RunArgument,
    inputs: Annotated[list[Path], typer.Argument(help="Images, folders of images, or a CSV file of rows.")],
    out: Annotated[Path | None, typer.Option(help="Write to a .csv or .json file.")] = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="How many classes to show for each input.")] = 3,
    json_: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Predict images or rows with a run's model. Labels are not needed.

    Example: dlcli predict runs/cifar10_cnn cat.jpg photos/ --out predictions.csv
    """
    from dlcli.runs import load_run

    loaded = load_run(run)

    from dlcli.backend import load_backend
    from dlcli.console import be_quiet

    if quiet:
        be_quiet()
    load_backend()
    from dlcli.evaluation.predict import predict_inputs
    from dlcli.evaluation.tables import print_predictions

    written_as = {
        name: value
        for name, value in loaded.recipe.dataset.arguments.items()
        if loaded.recipe.dataset.name == "csv" and name in ("delimiter", "encoding")
    }
    print_predictions(predict_inputs(loaded.model, inputs, top=top, **written_as), out, json_)
