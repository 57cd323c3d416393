"""`--offline`, which every command takes before and behind its name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from dlcli.network import go_offline


def _forbid(value: bool) -> None:
    if value:
        go_offline()


OfflineOption = Annotated[
    bool,
    typer.Option(
        "--offline",
        help="Use no network; what is missing is named, and where to put it. DLCLI_OFFLINE=1 does the same.",
        callback=_forbid,
    ),
]


def with_offline(command: Callable[..., None]) -> Callable[..., None]:
    """The command with `--offline`: of the whole process, so that its function has no use for it."""

    @functools.wraps(command)
    def run(offline: bool = False, **options: Any) -> None:
        command(**options)

    own = inspect.signature(command, eval_str=True)  # typer would look the names up in this module
    option = inspect.Parameter(
        "offline", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=OfflineOption
    )
    parameters = [*own.parameters.values(), option]
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
