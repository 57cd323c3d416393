"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from dlcli.errors import DlcliError

RecipeArgument = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")]
RunArgument = Annotated[Path, typer.Argument(help="A run folder that `dlcli train` left.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: --set optimizer.learning_rate=3e-4"),
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="SOURCE",
        help="A run folder, a .keras or .h5 file, imagenet, hub:PRESET, or a folder with a KerasHub or Hugging Face "
        "preset. Default: the recipe's finetune.source.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")]


def changes_of_data(changes: list[str] | None, why: str, sections: Sequence[str] = ("dataset",)) -> list[str]:
    """The changes of `--set`, of commands that take a run as it is.

    Args:
        changes: of the user.
        why: the rest of the message about any other change.
        sections: of the recipe, that may be changed.

    Raises:
        DlcliError: one of them changes more than where the data are.
    """
    for change in changes or []:
        key = change.split("=", 1)[0].strip()
        if key.split(".", 1)[0] not in sections or key == "dataset.validation_split":
            raise DlcliError(f"--set {change}: {why}")
    return changes or []
