"""`dlcli finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlcli.cli.options import FromOption, JsonOption, QuietOption, RecipeArgument, SetOption


def finetune(
    recipe: RecipeArgument,
    from_: FromOption = None,
    set_: SetOption = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder. Default: runs/RECIPE, runs/RECIPE-2, ...")
    ] = None,
    json_: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a recipe from the weights of another model, and leave a run folder.

    The recipe's `finetune` section says which layers are frozen, in which stages, and whether low-rank adapters (LoRA)
    learn in their place. An interrupted one goes on with `dlcli train --resume RUN`.

    Example: dlcli finetune my_photos.yaml --from runs/cifar10_resnet20 --set finetune.freeze=all

    Example: dlcli finetune reviews.yaml --from minilm/ --set finetune.stages="[{freeze: all, epochs: 2, learning_rate:
    1e-3}, {freeze: {last: 20}, epochs: 3, learning_rate: 1e-5}]"
    """
    from dlcli.recipe.load import load_recipe

    loaded = load_recipe(recipe, set_ or ())

    from dlcli.backend import load_backend
    from dlcli.console import be_quiet

    load_backend()
    from dlcli.cli.train import run_name
    from dlcli.evaluation.tables import print_report
    from dlcli.training.distribution import is_chief
    from dlcli.training.train import finetune as finetune_recipe

    if quiet or not is_chief():
        be_quiet()
    run = finetune_recipe(loaded, run_name(recipe), from_, out)
    if is_chief():
        print_report(run.metrics, run.path, json_)
