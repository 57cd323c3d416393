"""`dlcli launch`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlcli.cli.options import JsonOption, QuietOption, RecipeArgument, SetOption
from dlcli.errors import DlcliError

if TYPE_CHECKING:
    from dlcli.launch.calibrate import Calibration
    from dlcli.recipe.schema import Recipe

_SHOWN = ("TF_CONFIG", "CUDA_VISIBLE_DEVICES", "TF_NUM_INTRAOP_THREADS")


def launch(
    recipe: RecipeArgument,
    workers: Annotated[
        int | None, typer.Option("--workers", "-n", min=1, max=256, help="Processes that train together.")
    ] = None,
    set_: SetOption = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder. Default: runs/RECIPE, runs/RECIPE-2, ...")
    ] = None,
    continue_: Annotated[
        bool,
        typer.Option(
            "--continue",
            help="Go on with the run in --out; with any number of workers. Begin it if it is not there.",
        ),
    ] = False,
    max_restarts: Annotated[
        int,
        typer.Option(
            min=0,
            max=10_000,
            help="When a worker is killed or crashes, start all again from the last checkpoint, so often at most.",
        ),
    ] = 3,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Time a few steps on 1 to --workers replicas (default: the GPUs, else the cores), then train with the "
            "fewest that are as fast as the fastest; with --dry-run only time.",
        ),
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Train on a Ray cluster: auto (this machine's), HOST:PORT, or local. The run folder must be on a file "
            "system that its machines share.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be started, and stop.")] = False,
    json_: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a recipe in several processes of this machine, and start them again when one dies.

    Each process sees its share of the GPUs and works on its share of every batch; training.batch_size is that of all of
    them together, so that the result is that of one process. On one machine with several GPUs `dlcli train` needs no
    launch; for several machines see `dlcli manifest`. While workers train, their ports are open to the network without
    a password, as TensorFlow opens them: stay behind a firewall.

    Example: dlcli launch cifar10_cnn --workers 2

    Example: dlcli launch cifar10_cnn --workers 4 --out runs/cifar10_cnn --continue

    Example: dlcli launch cifar10_cnn --calibrate --dry-run

    Example: dlcli launch cifar10_cnn --ray auto --workers 4 --out /shared/cifar10_cnn
    """
    from dlcli.console import be_quiet
    from dlcli.launch.environment import gpus_here
    from dlcli.recipe.load import load_recipe

    loaded = load_recipe(recipe, set_ or ())
    _refuse(out, continue_, ray, calibrate)
    if quiet:
        be_quiet()
    asked = _Asked(recipe, tuple(set_ or ()), out, continue_, max_restarts, json_, quiet)
    if ray is not None:
        _train_on_ray(asked, loaded, ray, _checked(workers, loaded), dry_run)
        return
    gpus = gpus_here()
    if not calibrate:
        _train_here(asked, _checked(workers, loaded), gpus, dry_run)
        return
    found = _calibrated(loaded, workers, gpus, dry_run, json_)
    if not dry_run:
        asked = replace(asked, changes=(*asked.changes, *found.changes))
        _train_here(asked, found.workers, found.gpus, dry_run)


@dataclass(frozen=True)
class _Asked:
    """What concerns the training itself."""

    recipe: str
    changes: tuple[str, ...]
    out: Path | None
    continues: bool
    max_restarts: int
    json: bool
    quiet: bool

    @property
    def name(self) -> str:
        """Of the run folder, where none is given."""
        from dlcli.cli.train import run_name

        return run_name(self.recipe)

    @property
    def set_options(self) -> list[str]:
        """The changes as words of a command."""
        return [word for change in self.changes for word in ("--set", change)]

    def words_of_worker(self, run: Path | None = None) -> list[str]:
        """`dlcli train` of each worker; without a folder that was made, with the one that would be."""
        run = run or self.out or Path("runs") / self.name
        flags = [flag for flag, given in (("--json", self.json), ("--quiet", self.quiet)) if given]
        return ["train", self.recipe, *self.set_options, "--out", str(run), "--continue", *flags]

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """The run folder, made here so that all workers get one name; of a training that did not begin it goes."""
        from dlcli.runs import is_run, new_run

        begun = self.out is not None and self.continues and is_run(self.out)
        folder = self.out if begun and self.out is not None else new_run(self.name, self.out).path
        try:
            yield folder
        finally:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _train_here(asked: _Asked, workers: int, gpus: Sequence[str], dry_run: bool) -> None:
    """Trains in processes of this machine."""
    from dlcli.launch.environment import worker_environments
    from dlcli.launch.supervise import Launch, supervise
    from dlcli.launch.workers import dlcli_command

    environments = partial(worker_environments, workers, gpus)
    first = environments()
    if dry_run:
        _show(dlcli_command(*asked.words_of_worker()), first, asked.json)
        return
    _note_shares(first, gpus)
    with asked.folder() as run:
        go_on = ["dlcli", "launch", asked.recipe, "--workers", str(workers), *asked.set_options]
        command = dlcli_command(*asked.words_of_worker(run))
        supervise(
            Launch(command, environments, run, asked.max_restarts, [*go_on, "--out", str(run), "--continue"])
        )


def _train_on_ray(asked: _Asked, recipe: Recipe, address: str, workers: int, dry_run: bool) -> None:
    """Trains on a Ray cluster."""
    from dlcli.launch.ray import check_ray, report_of_ray

    check_ray(address)
    if dry_run:
        _show_ray(address, workers, replace(asked, json=False).words_of_worker(), asked.json)
        return
    with asked.folder() as run:
        report_of_ray(recipe, run, address, workers, asked.max_restarts, asked.json, asked.quiet)


def _refuse(out: Path | None, continue_: bool, ray: str | None, calibrate: bool) -> None:
    """Refuses a process that is a worker itself, and a run folder that is taken, before any process starts."""
    from dlcli.runs import check_free, is_run

    if os.environ.get("TF_CONFIG") or os.environ.get("SLURM_STEP_NUM_TASKS", "1") not in ("", "1"):
        raise DlcliError(
            "this process is itself one of several workers (TF_CONFIG or srun says so), each of which runs "
            "`dlcli train`; `dlcli launch` starts workers where there are none yet"
        )
    if ray is not None and calibrate:
        raise DlcliError("--calibrate times this machine: it does not go with --ray")
    if continue_ and out is None:
        raise DlcliError("--continue goes on with a run in its folder: name it with --out")
    if out is not None and not (continue_ and is_run(out)):
        check_free(out)


def _checked(workers: int | None, recipe: Recipe) -> int:
    """The number of workers; refuses one that the recipe does not go with."""
    if workers is None:
        raise DlcliError("--workers N: how many processes shall train together? --calibrate finds out")
    from dlcli.recipe.several_devices import check_several

    strategy = recipe.distribution.strategy
    if workers == 1 and strategy == "multi_worker":
        raise DlcliError(
            "distribution.strategy multi_worker is for several workers; take --workers 2, or auto"
        )
    if workers > 1 and strategy not in ("auto", "multi_worker"):
        raise DlcliError(
            f"distribution.strategy {strategy} trains in one process: `dlcli train` runs it; for {workers} processes: "
            "--set distribution.strategy=multi_worker"
        )
    if workers > 1 and recipe.distribution.logical_devices:
        raise DlcliError(
            "distribution.logical_devices cuts a device for one process: `dlcli train` runs it; for several processes "
            "leave it out"
        )
    check_several(recipe, workers, workers)
    return workers


def _calibrated(
    recipe: Recipe, most: int | None, gpus: Sequence[str], dry_run: bool, json_: bool
) -> Calibration:
    """Times numbers of replicas, and shows what came out: as the result where nothing follows, else as a note."""
    from dlcli.console import console, print_json
    from dlcli.console import out as results
    from dlcli.launch.calibrate import calibrate, print_calibration

    found = calibrate(recipe, most, gpus)
    if dry_run and json_:
        print_json(found.as_json())
    else:
        print_calibration(found, results if dry_run else console)
    return found


def _show_ray(address: str, workers: int, words: Sequence[str], json_: bool) -> None:
    """What would be started there."""
    from dlcli.console import print_json

    command = ["dlcli", *words]
    if json_:
        print_json({"ray": address, "workers": workers, "command": command})
    else:
        typer.echo(f"Ray {address}, {workers} workers, each: {shlex.join(command)}")


def _show(command: Sequence[str], environments: Sequence[Mapping[str, str]], json_: bool) -> None:
    """What would be started."""
    from dlcli.console import print_json

    told = [{key: each[key] for key in _SHOWN if key in each} for each in environments]
    if json_:
        print_json({"workers": len(told), "command": list(command), "environments": told})
        return
    for index, variables in enumerate(told):
        words = [f"{key}={value}" for key, value in variables.items()]
        typer.echo(f"[{index}] {shlex.join(['env', *words, *command])}")


def _note_shares(environments: Sequence[Mapping[str, str]], gpus: Sequence[str]) -> None:
    """Says what the workers have."""
    from dlcli.console import note, warn
    from dlcli.launch.environment import GPUS, cores

    workers = len(environments)
    if gpus:
        note(f"{workers} workers, each with {len(environments[0][GPUS].split(','))} of {len(gpus)} GPUs")
        if idle := len(gpus) % workers:
            warn(f"{idle} of {len(gpus)} GPUs stay idle: all workers have equally many")
    else:
        note(f"{workers} workers on the CPU, which has {cores()} cores")
        if workers > cores():
            warn(f"{workers} workers share {cores()} cores: that is slower than one process")
