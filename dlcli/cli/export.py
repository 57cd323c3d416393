"""`dlcli export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlcli.cli.options import JsonOption, QuietOption, RunArgument, changes_of_data
from dlcli.errors import DlcliError
from dlcli.export import FORMATS


def export(
    run: RunArgument,
    format_: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help=f"Any of {', '.join(FORMATS)}; may be given several times.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder to make; of several formats, the folder for theirs. Default: RUN/export/FORMAT."
        ),
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(metavar="float16|int8", help="Smaller numbers, where the format can.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Fix the number of rows; left out, any number can be predicted at once."),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0,
            help="With --quantize: by how much the metric may be worse, in points of accuracy (0.01: one of 100), or "
            "as a share of an error.",
        ),
    ] = 0.01,
    all_: Annotated[bool, typer.Option("--all", help="Every format whose packages are installed.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Where the data are now: --set dataset.path=DIR"),
    ] = None,
    json_: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a run's model for other programs, and check that it still says the same.

    Each artefact is loaded by its own runtime and compared with the model on up to 256 validation examples: outputs
    within 1e-4 and the same top class in 99.9 % of them (float16: 0.01 and 99 %; int8: the metric within --tolerance).
    Beyond that it exits with 3 and leaves nothing. An example.py beside it shows the use, and needs no dlcli.

    Example: dlcli export runs/digits_cnn --format onnx

    Example: dlcli export runs/digits_cnn --format litert --quantize int8

    Example: dlcli export runs/digits_cnn --all --out exported
    """
    formats = _formats(format_ or [], all_)
    if quantize not in (None, "float16", "int8"):
        raise DlcliError(f"--quantize {quantize}: allowed: float16, int8")
    changes = changes_of_data(set_, "a run is exported as it is; only where its data are can be changed")
    from dlcli.recipe.load import load_recipe
    from dlcli.runs import load_run

    loaded = load_run(run)
    recipe = load_recipe(loaded.path / "recipe.yaml", changes)

    from dlcli.backend import load_backend
    from dlcli.console import be_quiet

    if quiet:
        be_quiet()
    load_backend()
    from dlcli.export.export import Request, export_run
    from dlcli.export.report import check_outcomes, print_outcomes

    request = Request(formats, out, batch_size, quantize, tolerance, all_)  # type: ignore[arg-type]  # checked above
    outcomes = export_run(loaded, recipe, request)
    print_outcomes(str(loaded.path), outcomes, json_)
    check_outcomes(outcomes, all_)


def _formats(given: list[str], every: bool) -> tuple[str, ...]:
    if every and given:
        raise DlcliError("--all is every format: give either --all or --format")
    if not every and not given:
        raise DlcliError(f"give a --format ({', '.join(FORMATS)}), or --all for every one")
    if unknown := [name for name in given if name not in FORMATS]:
        from difflib import get_close_matches

        near = get_close_matches(unknown[0].lower(), FORMATS, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise DlcliError(f"--format {unknown[0]}: no such format; {hint}allowed: {', '.join(FORMATS)}")
    return tuple(FORMATS) if every else tuple(dict.fromkeys(given))
