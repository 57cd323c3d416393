"""`dlcli plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlcli.cli.options import JsonOption, RecipeArgument, SetOption


def plan(
    recipe: RecipeArgument,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="SOURCE", help="Plan `dlcli finetune RECIPE --from SOURCE`."),
    ] = None,
    set_: SetOption = None,
    out: Annotated[Path, typer.Option(help="Where the picture of the learning rate goes.")] = Path(
        "plan.png"
    ),
    json_: JsonOption = False,
) -> None:
    """Build a recipe without training it: layers, parameters, FLOPs, devices, memory, steps, learning rate.

    Example: dlcli plan cifar10_cnn
    """
    from dlcli.evaluation.figure import check_picture
    from dlcli.recipe.load import load_recipe

    check_picture(out)
    loaded = load_recipe(recipe, set_ or ())

    from dlcli.backend import load_backend

    load_backend()
    from dlcli.training.plan import make_plan, print_plan

    print_plan(make_plan(loaded, out, from_), json_)
