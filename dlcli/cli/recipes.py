"""`dlcli recipes`: the recipes that come with dlcli."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dlcli.cli.options import JsonOption
from dlcli.errors import DlcliError

app = typer.Typer(help="The recipes that come with dlcli.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(help="A shipped recipe (`dlcli recipes list`).")]


@app.command("list")
def list_recipes(json_: JsonOption = False) -> None:
    """List the shipped recipes: task, data set, architecture, and the score reached.

    Example: dlcli recipes list
    """
    from dlcli.recipe.load import shipped_recipes

    rows = [_row(name, path) for name, path in shipped_recipes().items()]
    if json_:
        typer.echo(json.dumps({"recipes": rows}, indent=2, ensure_ascii=False))
        return
    columns = ("name", "task", "dataset", "architecture", "note")
    widths = {column: max([len(column), *(len(row[column]) for row in rows)]) for column in columns}
    for row in ({column: column for column in columns}, *rows):
        typer.echo("  ".join(row[column].ljust(widths[column]) for column in columns).rstrip())


@app.command()
def show(name: NameArgument) -> None:
    """Print a shipped recipe as it is written.

    Example: dlcli recipes show cifar10_cnn
    """
    typer.echo(_shipped(name).read_text(encoding="utf-8"), nl=False)


@app.command()
def copy(
    name: NameArgument,
    destination: Annotated[
        Path | None,
        typer.Argument(metavar="[DEST]", help="A new file, or a folder. Default: here, under its name."),
    ] = None,
) -> None:
    """Copy a shipped recipe, to change it. Nothing is ever overwritten.

    Example: dlcli recipes copy cifar10_cnn my_recipe.yaml
    """
    source = _shipped(name)
    target = destination or Path(source.name)
    try:
        if target.is_dir():
            target /= source.name
        _write_new(target, source.read_bytes())
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise DlcliError(f"{target}: cannot be written: {reason}") from error
    typer.echo(str(target))


def _shipped(name: str) -> Path:
    from dlcli.recipe.load import shipped_recipes
    from dlcli.recipe.names import suggest

    shipped = shipped_recipes()
    known = name.removesuffix(".yaml")
    if known in shipped:
        return shipped[known]
    near = suggest(known, shipped)
    hint = f"; did you mean {near}" if near else ""
    raise DlcliError(f"{name}: no shipped recipe has this name{hint}; allowed: {', '.join(shipped)}")


def _row(name: str, path: Path) -> dict[str, Any]:
    from dlcli.recipe.yaml_reader import parse_yaml

    text = path.read_text(encoding="utf-8")
    value = parse_yaml(text, path.name).value or {}
    names = {
        key: spec.get("name", "") if isinstance(spec := value.get(key), dict) else spec or ""
        for key in ("task", "dataset", "architecture")
    }
    return {"name": name, **names, "note": _note(text), "path": str(path)}


def _note(text: str) -> str:
    """What the header comment says beside the command: score, time, machine."""
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        words = line.lstrip("# ").strip()
        if words and not words.startswith(("dlcli ", "yaml-language-server")):
            return words
        if words.startswith("dlcli ") and "  " in words:  # the command, then the score on the same line
            return words.split("  ", 1)[1].strip()
    return ""


def _write_new(target: Path, content: bytes) -> None:
    """Writes a file that must not exist yet; it appears whole or not at all."""
    import os
    import tempfile

    descriptor, temporary = tempfile.mkstemp(prefix=".recipe.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        os.link(temporary, target)  # unlike a rename, a link fails if the name is taken
    except FileExistsError as error:
        raise DlcliError(f"{target}: exists already, and is not overwritten; give another name") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
