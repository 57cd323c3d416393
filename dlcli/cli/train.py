"""`dlcli train`."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated

import typer

from dlcli.cli.options import JsonOption, QuietOption, SetOption
from dlcli.errors import DlcliError


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A recipe file, or the name of a shipped recipe (`dlcli recipes list`)."),
    ] = None,
    set_: SetOption = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder. Default: runs/RECIPE, runs/RECIPE-2, ...")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Continue this interrupted run from its newest checkpoint; with --set training.epochs=N also a "
            "complete one."
        ),
    ] = None,
    continue_: Annotated[
        bool,
        typer.Option(
            "--continue",
            help="With --out: go on with the run that is there, if there is one. So a cluster can start the same "
            "command again.",
        ),
    ] = False,
    allow_change: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="With --resume: go on though this is not as it was (optimizer.learning_rate, data, keras, devices).",
        ),
    ] = None,
    json_: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a recipe and leave a run folder.

    Example: dlcli train cifar10_cnn --set dataset.path=cifar10/ --set training.epochs=5

    Example: dlcli train --resume runs/cifar10_cnn
    """
    from dlcli.recipe.load import load_recipe
    from dlcli.runs import is_run

    if (recipe is None) == (resume is None):
        raise DlcliError("give a recipe, or --resume RUN: one of the two")
    if resume is not None and out:
        raise DlcliError("--resume continues a run in its own folder: --out does not go with it")
    if allow_change and resume is None:
        raise DlcliError("--allow-change is about a run that goes on: give --resume RUN too")
    if continue_ and out is None:
        raise DlcliError("--continue goes on with the run in a folder: give --out too")
    begun = continue_ and out is not None and is_run(out)
    # A run has its recipe, and goes on without the file that it began with.
    loaded = None
    with suppress(DlcliError) if begun else nullcontext():
        loaded = load_recipe(recipe, set_ or ()) if recipe is not None else None

    from dlcli.backend import load_backend
    from dlcli.console import be_quiet

    load_backend()
    from dlcli.evaluation.tables import print_report
    from dlcli.runs import load_run
    from dlcli.training.distribution import is_chief
    from dlcli.training.resume import warn_of_another_recipe
    from dlcli.training.train import resume as resume_run
    from dlcli.training.train import train as train_recipe

    if quiet or not is_chief():
        be_quiet()
    if begun:
        run = load_run(out or "")
        if loaded is not None:
            warn_of_another_recipe(run, loaded)
        run = resume_run(run)
    elif loaded is not None and recipe is not None:
        run = train_recipe(loaded, run_name(recipe), out)
    else:
        run = resume_run(load_run(resume or ""), set_ or (), allow_change or ())
    if is_chief():
        print_report(run.metrics, run.path, json_)


def run_name(recipe: str) -> str:
    """The recipe's name; for the recipe of a run, the run's: `runs/digits/recipe.yaml` -> `digits`."""
    path = Path(recipe)
    return (path.absolute().parent.name if path.name == "recipe.yaml" else "") or path.stem
