"""`dlcli compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlcli.cli.options import JsonOption, QuietOption


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two or more run folders that `dlcli train` left.")],
    split: Annotated[
        str | None,
        typer.Option(help="Examples of the paired tests. Default: the split that the runs were scored on."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the picture of the learning curves goes.")] = Path(
        "comparison.png"
    ),
    json_: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare runs: recipes, environments, metrics, a paired test on the same examples, learning curves.

    Example: dlcli compare runs/digits_cnn runs/digits_mlp
    """
    from dlcli.evaluation.figure import check_picture
    from dlcli.evaluation.run_differences import check_comparable
    from dlcli.runs import load_run

    check_picture(out)
    loaded = [load_run(run) for run in runs]
    check_comparable(loaded, split)

    from dlcli.backend import load_backend
    from dlcli.console import be_quiet

    if quiet:
        be_quiet()
    load_backend()
    from dlcli.evaluation.compare_runs import compare_runs
    from dlcli.evaluation.comparison_tables import print_comparison

    print_comparison(compare_runs(loaded, out, split), json_)
