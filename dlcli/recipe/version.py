"""The version of the form of recipes, so that one from a newer dlcli is not taken for one with mistakes."""

from __future__ import annotations

from typing import Any

from dlcli import __version__
from dlcli.recipe.mistakes import Mistake, shown
from dlcli.recipe.wording import place_of
from dlcli.recipe.yaml_reader import Document

VERSION = 1
"""Recipes may say it (`version: 1`), and need not: without the key a recipe is of version 1."""


def without_version(value: dict[str, Any], document: Document) -> tuple[dict[str, Any], list[Mistake]]:
    """A recipe's values without the key `version`, and what is wrong with it.

    Args:
        value: the recipe's values.
        document: for the position.
    """
    if "version" not in value:
        return value, []
    kept = {key: section for key, section in value.items() if key != "version"}
    version = value["version"]
    if type(version) is int and version == VERSION:
        return kept, []
    received, place = shown(version), place_of(document, ("version",))
    if type(version) is int and version > VERSION:
        what = (
            f"this recipe is of version {received}, and dlcli {__version__} reads version {VERSION}; install a newer "
            "dlcli: pip install --upgrade dlcli"
        )
        return kept, [Mistake(what, place, ("version",))]
    what = "there is no such version of recipes"
    return kept, [Mistake(what, place, ("version",), allowed=str(VERSION), received=received)]
