"""`dlcli validate`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from dlcli.cli.options import JsonOption, SetOption


def validate(
    recipes: Annotated[
        list[str], typer.Argument(metavar="RECIPE...", help="Files, or names of shipped recipes.")
    ],
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Check recipes without training: every mistake of every file, in a fraction of a second.

    Example: dlcli validate my_recipe.yaml --set training.epochs=5
    """
    from dlcli.recipe.load import RecipeError, load_recipe

    results = []
    for recipe in recipes:
        try:
            load_recipe(recipe, set_ or ())
        except RecipeError as error:
            mistakes = [mistake.as_json() for mistake in error.mistakes]
            results.append({"recipe": recipe, "ok": False, "mistakes": mistakes})
            if not json_:
                typer.echo(str(error), err=True)
        else:
            results.append({"recipe": recipe, "ok": True, "mistakes": []})
            if not json_:
                typer.echo(f"ok  {recipe}")
    all_ok = all(result["ok"] for result in results)
    if json_:
        typer.echo(json.dumps({"ok": all_ok, "recipes": results}, indent=2, ensure_ascii=False))
    if not all_ok:
        raise typer.Exit(2)
