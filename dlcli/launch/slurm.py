"""The batch file of a training on a Slurm cluster: one process a node, ended together and started again together.

One process takes all GPUs of its node, as TensorFlow's guide for MultiWorkerMirroredStrategy has it: they sum their
gradients inside of it before anything goes over the network, the data are read and kept once a node, and fewer
processes can die. Who the others are, each process reads from Slurm itself (`dlcli.launch.slurm_cluster`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlcli.errors import DlcliError

_TIME = re.compile(r"\d{1,6}|(\d+-)?\d{1,4}(:\d{1,2}){1,2}|\d+-\d{1,2}")
"""minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, days-hours:minutes:seconds."""
_MEMORY = re.compile(r"\d{1,9}[KMGT]?")
_WORD = re.compile(r"[!-~]{1,200}")
_LINE = re.compile(r"[ -~]{1,1000}")


@dataclass(frozen=True)
class SlurmJob:
    """What the batch file asks for.

    Args:
        recipe: a file, or the name of a shipped one, as the nodes find it from `folder`.
        name: of the job, and of its run folder.
        folder: where it runs; all nodes see it.
        changes: of `--set`.
        run: the run folder; None makes one for each job, which stays the same when it is queued again.
        nodes: machines, each with one process.
        gpus: of each node.
        cpus: cores of each node; None takes whole nodes.
        memory: of each node (`64G`); None takes all of a whole node, else Slurm's default.
        time: the limit (`24:00:00`), after which the job is queued again and goes on; None is the partition's.
        options: further options of sbatch, each as one would write it there (`--partition=gpu`).
        setup: lines of shell that come before (`module load cuda`).
        pyxis: an image to run in by srun's Pyxis plugin.
        apptainer: an image to run in by Apptainer.
        mounts: folders that the image needs beside `folder`.
        max_restarts: starts after the first, when a process was killed.
        grace: seconds before the limit at which the training is asked to save and end.
    """

    recipe: str
    name: str
    folder: Path
    changes: Sequence[str] = ()
    run: str | None = None
    nodes: int = 1
    gpus: int = 0
    cpus: int | None = None
    memory: str | None = None
    time: str | None = None
    options: Sequence[str] = ()
    setup: Sequence[str] = ()
    pyxis: str | None = None
    apptainer: str | None = None
    mounts: Sequence[str] = ()
    max_restarts: int = 3
    grace: int = 180


def slurm_manifest(job: SlurmJob) -> str:
    """The text of a file for `sbatch`.

    Raises:
        DlcliError: an option is none that Slurm would understand.
    """
    _check(job)
    setup = "".join(f"{line}\n" for line in job.setup)
    gpus = _count(job.gpus, "GPU")
    # Without a / at its end: a file beside it is named after it.
    run = shlex.quote(job.run.rstrip("/") or "/") if job.run is not None else f"runs/{job.name}-$SLURM_JOB_ID"
    return _BATCH_FILE.format(
        what=f"{job.name} on {_count(job.nodes, 'node')}{f', each with {gpus}' if job.gpus else ''}",
        options="\n".join(f"#SBATCH {option}" for option in _options(job)),
        folder=shlex.quote(str(job.folder)),
        setup=f"\n# What was given as --setup.\n{setup}" if setup else "",
        run=run,
        worker=" ".join(_worker(job)),
        srun=" ".join(_srun(job)),
        max_restarts=job.max_restarts,
        patience=max(job.grace - 30, 1),
    )


_BATCH_FILE = r"""#!/bin/bash
# {what}; written by dlcli manifest slurm.
# Submit it with sbatch. The job goes on with its own run when Slurm queues it again, or when its time is up.
{options}

cd -- {folder} || exit 2
{setup}
run={run}
worker=({worker})

# The exit code of the first process that fails decides what comes next: the others are ended because of it.
mkdir -p -- "$(dirname -- "$run")" || exit 2
first_code=$run.$SLURM_JOB_ID.code
keep_code='trap : TERM INT; "$@"; code=$?; [ $code = 0 ] || (set -C; echo $code > "$0") 2> /dev/null; exit $code'

# Before the time is up, Slurm signals this shell alone: the training saves and ends, and the job is queued again.
# Should it not end in time, it goes on from its last checkpoint.
time_is_up=
too_late() {{
    trap 'kill $!; exit' TERM
    sleep {patience} &
    wait
    scontrol requeue "$SLURM_JOB_ID"
}}
trap 'time_is_up=1; scancel --signal=TERM "$SLURM_JOB_ID"; too_late & watch=$!' USR1

for ((restart = 0; ; restart++)); do
    rm -f -- "$first_code"
    srun {srun} \
        sh -c "$keep_code" "$first_code" "${{worker[@]}}" &
    step=$!
    wait "$step"
    code=$?
    if [ -n "$time_is_up" ]; then # the signal ended the first wait
        wait "$step"
        code=$?
        kill "$watch"
    fi
    if [ -s "$first_code" ]; then code=$(cat -- "$first_code"); fi
    rm -f -- "$first_code"
    case $code in
        0 | 2 | 3) exit "$code" ;; # done; or nothing that another start would mend
    esac
    if [ -n "$time_is_up" ]; then
        exec scontrol requeue "$SLURM_JOB_ID"
    fi
    if [ "$code" = 4 ] || [ "$code" = 130 ] || [ "$restart" -ge {max_restarts} ]; then
        exit "$code" # training went wrong, was interrupted, or was killed too often
    fi
    echo "a process ended with exit code $code; all start again from the last checkpoint" >&2
    sleep 5
done
"""


def _options(job: SlurmJob) -> list[str]:
    """What stands behind #SBATCH."""
    whole = job.cpus is None
    memory = job.memory or ("0" if whole else None)  # 0: all of it
    given = {
        "job-name": job.name,
        "nodes": job.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": job.gpus or None,
        "cpus-per-task": job.cpus,
        "mem": memory,
        "time": job.time,
        "output": "%x-%j.log",
        "open-mode": "append",
        "signal": f"B:USR1@{job.grace}",
    }
    lines = [f"--{name}={value}" for name, value in given.items() if value is not None]
    return [*lines, "--requeue", *(["--exclusive"] if whole else []), *job.options]


def _srun(job: SlurmJob) -> list[str]:
    """Options of srun, which takes the job's own for the rest."""
    words = ["--kill-on-bad-exit=1", "--input=none"]
    # srun does not take --cpus-per-task from sbatch since Slurm 22.05. Of a whole node, no core is to be left out.
    words.append("--cpu-bind=none" if job.cpus is None else f"--cpus-per-task={job.cpus}")
    if job.pyxis:
        mounts = ",".join(f"{path}:{path}" for path in (str(job.folder), *job.mounts))
        words += [
            f"--container-image={shlex.quote(job.pyxis)}",
            f"--container-mounts={shlex.quote(mounts)}",
            f"--container-workdir={shlex.quote(str(job.folder))}",
        ]
    return words


def _worker(job: SlurmJob) -> list[str]:
    """The command of each process, as words of a shell."""
    words = []
    if job.apptainer:
        words = ["apptainer", "exec", *(["--nv"] if job.gpus else [])]
        for path in (str(job.folder), *job.mounts):
            words += ["--bind", path]
        words += ["--pwd", str(job.folder), job.apptainer]
    words += ["dlcli", "train", job.recipe]
    for change in job.changes:
        words += ["--set", change]
    return [*(shlex.quote(word) for word in words), "--out", '"$run"', "--continue"]


def _check(job: SlurmJob) -> None:
    """Refuses what would break the file, or what sbatch would refuse after the user has gone home."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", job.name, re.ASCII):
        raise DlcliError(
            f"--name {job.name}: expected letters, digits, . _ and -, at most 100; give one with --name"
        )
    if job.time is not None and not _TIME.fullmatch(job.time):
        raise DlcliError(
            f"--time {job.time}: expected minutes, hours:minutes:seconds or days-hours:minutes:seconds, as 24:00:00"
        )
    if job.memory is not None and not _MEMORY.fullmatch(job.memory):
        raise DlcliError(f"--memory {job.memory}: expected a number with K, M, G or T behind it, as 64G")
    for option in job.options:
        if not re.fullmatch(r"--?[A-Za-z][ -~]*", option) or len(option) > 1000 or "\\" in option:
            raise DlcliError(
                f"--sbatch {option!r}: expected one option of sbatch as --constraint=a100, in printable ASCII"
            )
    for line in job.setup:
        if not line.isprintable():
            raise DlcliError(f"--setup {line!r}: expected one line of shell; give --setup once for each")
    if job.pyxis and job.apptainer:
        raise DlcliError("--pyxis and --apptainer are two ways to run in a container: give one of them")
    for path in (str(job.folder), *job.mounts) if job.pyxis or job.apptainer else ():
        if not path.startswith("/") or any(mark in path for mark in ":,"):
            raise DlcliError(f"--mount {path}: expected a path from the root, without : and ,")
    _check_printable(job)


def _check_printable(job: SlurmJob) -> None:
    """Shell quotes anything; but a line break in a name is a mistake, and an end of a comment."""
    for key, text in (("--run", job.run), ("--pyxis", job.pyxis), ("--apptainer", job.apptainer)):
        if text is not None and (not text or not text.isprintable() or text.startswith("-")):
            raise DlcliError(
                f"{key} {text!r}: expected a name without line breaks, that does not begin with -"
            )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
