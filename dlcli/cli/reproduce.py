"""`dlcli reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlcli.cli.options import JsonOption, QuietOption, RunArgument, SetOption
from dlcli.errors import DlcliError


def reproduce(
    run: RunArgument,
    set_: SetOption = None,
    out: Annotated[
        Path | None, typer.Option(help="The new run folder. Default: RUN-reproduced, RUN-reproduced-2, ...")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this reproduction, which was interrupted, then compare.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Exit with 3 when a metric is off by more, and not when bits differ. Default: same bits.",
        ),
    ] = None,
    json_: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a run again from its own recipe, and compare weights, history and metrics bit by bit.

    Where versions, devices or data have changed since, the differences are shown and are no failure; on the same
    machine another bit is one (exit code 3). --set says where data lie now: --set dataset.path=DIR.

    Example: dlcli reproduce runs/digits_cnn
    """
    if resume is not None and (out or set_):
        raise DlcliError("--resume continues a reproduction as it was: --set and --out do not go with it")
    from dlcli.runs import load_run

    loaded = load_run(run)
    begun = None if resume is None else load_run(resume)

    from dlcli.backend import load_backend
    from dlcli.console import be_quiet

    if quiet:
        be_quiet()
    load_backend()
    from dlcli.evaluation.reproduce import (
        check_reproduction,
        check_tolerance,
        compare_exactly,
        finish_reproduction,
        reproduce_run,
    )
    from dlcli.evaluation.reproduction_tables import print_reproduction

    check_tolerance(loaded, tolerance)
    again = reproduce_run(loaded, out, set_ or ()) if begun is None else finish_reproduction(loaded, begun)
    report = compare_exactly(loaded, again)
    print_reproduction(report, json_)
    check_reproduction(report, tolerance)
