"""`dlcli evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from dlcli.cli.options import JsonOption, QuietOption, RunArgument, SetOption, changes_of_data


def evaluate(
    run: RunArgument,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    set_: SetOption = None,
    min_: Annotated[
        list[str] | None,
        typer.Option("--min", metavar="METRIC=NUMBER", help="Exit with 3 when a metric is below."),
    ] = None,
    json_: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Score a run's model, with 95 % intervals and pictures.

    Example: dlcli evaluate runs/cifar10_cnn --min accuracy=0.65
    """
    why = (
        "the model is scored as it was trained, so only dataset.* and, of one that draws images, metrics.* can be "
        "changed, and not dataset.validation_split"
    )
    changes = changes_of_data(set_, why, ("dataset", "metrics"))
    from dlcli.recipe.load import load_recipe
    from dlcli.runs import load_run, write_json

    loaded = load_run(run)
    recipe = load_recipe(loaded.path / "recipe.yaml", changes)

    from dlcli.backend import load_backend
    from dlcli.console import be_quiet

    if quiet:
        be_quiet()
    load_backend()
    from dlcli.evaluation.evaluate import check_minimums, evaluate_run, read_minimums
    from dlcli.evaluation.tables import print_report

    minimums = read_minimums(min_ or ())
    report = evaluate_run(loaded, recipe, split)
    if split == "test" and not set_:
        report["training"] = loaded.metrics.get("training")
        write_json(loaded.path / "metrics.json", report)
    print_report(report, loaded.path, json_)
    check_minimums(report, minimums)
