"""The `dlcli` command: registers the commands and turns errors into exit codes."""

from __future__ import annotations

import errno
import signal
import sys
import traceback
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from dlcli.cli import (
    compare,
    data,
    doctor,
    evaluate,
    explain,
    export,
    features,
    finetune,
    generate,
    launch,
    manifest,
    plan,
    predict,
    recipes,
    reproduce,
    schema,
    train,
    validate,
)
from dlcli.cli.offline import OfflineOption, with_offline
from dlcli.errors import DlcliError
from dlcli.network import obey
from dlcli.streams import prepare_streams

app = typer.Typer(
    name="dlcli",
    help="Train, evaluate and use Keras models from YAML recipes.\n\nExample: dlcli train digits_cnn",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help costs a tenth of a second on every call
)
for command in (
    train.train, finetune.finetune, launch.launch, evaluate.evaluate, predict.predict, generate.generate,
    features.features, explain.explain, export.export, compare.compare, reproduce.reproduce, plan.plan,
    validate.validate, schema.schema, doctor.doctor,
):  # fmt: skip
    app.command()(with_offline(command))
app.add_typer(recipes.app, name="recipes")
app.add_typer(data.app, name="data")
app.add_typer(manifest.app, name="manifest")


def _version(value: bool) -> None:
    if value:
        from dlcli import __version__

        typer.echo(f"dlcli {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
    offline: OfflineOption = False,
) -> None:
    pass


_OF_THE_MACHINE = {
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO,
    errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip
"""A full disk, a folder without permission, a file in a folder's place: no bugs, whatever command meets them."""


def main() -> None:
    """Runs the command line; exit codes as in `dlcli.errors`."""
    prepare_streams()
    with suppress(ValueError):  # not the main thread: whoever embeds us handles signals
        signal.signal(signal.SIGTERM, _terminate)
    obey()
    try:
        app()
    except DlcliError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    except _TerminatedError:
        sys.stderr.write("terminated\n")
        raise
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except SystemExit as stop:
        if stop.code == 130:  # typer takes Ctrl-C for itself
            sys.stderr.write("interrupted\n")
        if isinstance(stop.__context__, BrokenPipeError):  # `dlcli ... | head`: the reader has what it wanted
            sys.exit(0)
        raise
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            _report_bug()
        where = f"{error.filename}: " if error.filename is not None else ""
        sys.stderr.write(f"{where}{error.strerror}; free some space, or choose another place\n")
        sys.exit(2)
    except Exception:  # noqa: BLE001  a bug of ours: say so, and how to report it
        _report_bug()


class _TerminatedError(SystemExit):
    """SIGTERM: leaves as Ctrl-C does, so that half-written files are removed on the way."""


def _terminate(*_: object) -> NoReturn:
    raise _TerminatedError(143)


def _report_bug() -> NoReturn:
    traceback.print_exc()
    sys.stderr.write(
        "\nThis is a bug in dlcli. Please report it with the lines above, your recipe and `dlcli doctor`.\n"
    )
    sys.exit(1)
