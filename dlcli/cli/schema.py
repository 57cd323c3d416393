"""`dlcli schema`."""

from __future__ import annotations

import json

import typer


def schema() -> None:
    """Print the JSON schema of recipes, with which editors complete and check them.

    Example: dlcli schema > recipe.schema.json

    Then begin a recipe with: # yaml-language-server: $schema=recipe.schema.json
    """
    from dlcli.recipe.json_schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
