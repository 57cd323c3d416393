"""What each worker of this machine is told: who the others are, and which GPUs are its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from dlcli.errors import DlcliError

GPUS = "CUDA_VISIBLE_DEVICES"
THREADS = "TF_NUM_INTRAOP_THREADS"
"""Left to TensorFlow on one machine: two workers on two cores are as fast with two threads each as with one (1,250 and
1,220 images/s), since one waits while the other works."""
_SECONDS_FOR_A_LIST = 20
_COLOURS = ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
"""What would make a worker write colours and live bars into a pipe."""


def worker_environments(
    workers: int, gpus: Sequence[str], given: Mapping[str, str] = os.environ
) -> list[dict[str, str]]:
    """The environment of each worker, with addresses that were free just now.

    Args:
        workers: processes, on this machine.
        gpus: as CUDA_VISIBLE_DEVICES names them; shared out evenly, since tf.distribute takes all workers to have
            equally many, and empty for CPUs.
        given: of the process that starts them.

    Raises:
        DlcliError: there are GPUs, but too few.
    """
    shared = {key: value for key, value in given.items() if key not in ("TF_CONFIG", *_COLOURS)}
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)] if workers > 1 else []
    shares = shares_of(gpus, workers)
    return [
        {
            **shared,
            **({"TF_CONFIG": tf_config(addresses, index)} if addresses else {}),
            **({GPUS: ",".join(shares[index])} if gpus else {}),
        }
        for index in range(workers)
    ]


def tf_config(addresses: Sequence[str], index: int) -> str:
    """TF_CONFIG of one worker.

    Args:
        addresses: `host:port` of all of them, in the same order for each.
        index: of this one; 0 is the chief, which writes the run folder.
    """
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}})


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on, all different.

    Another process can take one before its worker does, since TensorFlow opens its own: then that worker ends at once,
    and the next start has other ports.
    """
    with ExitStack() as open_together:
        sockets = [open_together.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shares_of(gpus: Sequence[str], workers: int) -> list[tuple[str, ...]]:
    """The GPUs of each worker, neighbours together; what does not go round stays idle.

    Raises:
        DlcliError: fewer GPUs than workers.
    """
    if gpus and len(gpus) < workers:
        here = "1 GPU is" if len(gpus) == 1 else f"{len(gpus)} GPUs are"
        raise DlcliError(
            f"--workers {workers}: {here} here ({', '.join(gpus)}), and each worker needs one of its own; take at most "
            f"--workers {len(gpus)}, or train on the CPU: {GPUS}=-1 dlcli launch ..."
        )
    each = len(gpus) // workers
    return [tuple(gpus[each * index : each * (index + 1)]) for index in range(workers)]


def gpus_here(given: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The GPUs that a process of this machine sees, as CUDA_VISIBLE_DEVICES names them; found without TensorFlow."""
    named = given.get(GPUS)
    if named is not None:
        found = []
        for name in (part.strip() for part in named.split(",")):
            if not name or name.startswith("-"):  # CUDA takes no notice of what follows one that is none
                break
            found.append(name)
        return tuple(found)
    listed = _listed()
    if listed is not None:
        return listed
    nodes = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return tuple(sorted((node.group(1) for node in nodes if node), key=int))


def _listed() -> tuple[str, ...] | None:
    """What `nvidia-smi -L` lists; None without it, or where it fails."""
    if shutil.which("nvidia-smi") is None:
        return None
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS_FOR_A_LIST,
            text=True,
            errors="replace",
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return gpus_of_list(done.stdout)


def gpus_of_list(text: str) -> tuple[str, ...]:
    """The devices in what `nvidia-smi -L` prints: numbers of GPUs, or names of their parts where they are cut (MIG)."""
    found: list[str] = []
    number = ""
    for line in text.splitlines():
        if match := re.match(r"GPU (\d+):", line):
            number = match.group(1)
            found.append(number)
        elif match := re.match(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)", line):
            if found and found[-1] == number:
                found.pop()
            found.append(match.group(1))
    return tuple(found)
