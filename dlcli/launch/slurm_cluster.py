"""Who the workers of a Slurm step are, read from what `srun` sets in each of its processes.

This does what `tf.distribute.cluster_resolver.SlurmClusterResolver` of TensorFlow 2.21 is for, which is right on nodes
with GPUs whose names have leading zeros (`n[08-11]`), and else is not: it sorts names as text, so that n10 comes before
n8 and every process announces another node's address; it fails on nodes without `nvidia-smi`, and on names with two
ranges; every job has port 8888; and it counts GPUs anew where Slurm has shared them out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

from dlcli.errors import DlcliError
from dlcli.launch.environment import tf_config

_HOSTS, _TASKS, _COUNT = "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE", "SLURM_STEP_NUM_TASKS"
_FIRST_PORT = 10_000
_PORTS = 20_000
"""They end below 32768, from where Linux gives ports to whoever asks for any."""
_TASKS_A_NODE = 64
_MOST_WORKERS = 100_000
_ADVICE = "; or set TF_CONFIG in each process, which comes before Slurm"


@dataclass(frozen=True)
class SlurmCluster:
    """The processes of a step.

    Args:
        addresses: `host:port` of all workers, in the order of their ranks.
        worker: rank of this process; 0 is the chief.
        gpus: what CUDA_VISIBLE_DEVICES must be in this process; None where Slurm set it, or there are none.
    """

    addresses: tuple[str, ...]
    worker: int
    gpus: str | None = None


def slurm_cluster(environment: Mapping[str, str] = os.environ) -> SlurmCluster | None:
    """The workers of this step; None outside of `srun`, and where it started one process.

    Raises:
        DlcliError: the variables cannot be understood, or ranks are not given node by node.
    """
    if not (environment.get(_HOSTS) and environment.get(_COUNT)):  # also in a batch script
        return None
    count = _number(environment, _COUNT)
    if count < 2:
        return None
    hosts = expand_hosts(environment[_HOSTS])
    tasks = expand_tasks(_required(environment, _TASKS))
    if len(tasks) != len(hosts) or sum(tasks) != count:
        given = " ".join(f"{name}={environment[name]}" for name in (_HOSTS, _TASKS, _COUNT))
        raise DlcliError(f"{given}: do not agree about who the workers are (nodes: {len(hosts)}){_ADVICE}")
    rank = _number(environment, "SLURM_PROCID")
    if rank >= count:
        raise DlcliError(f"SLURM_PROCID={rank} is no rank of SLURM_STEP_NUM_TASKS={count} processes{_ADVICE}")
    _check_rank(environment, rank, tasks)
    first = _first_port(environment)
    places = [(host, local, many) for host, many in zip(hosts, tasks, strict=True) for local in range(many)]
    _, local, many = places[rank]
    addresses = tuple(f"{host}:{first + local}" for host, local, _ in places)
    return SlurmCluster(addresses, rank, _share_of_gpus(environment, local, many))


def announce_slurm(environment: MutableMapping[str, str] = os.environ) -> None:
    """Tells TensorFlow who the workers are, where srun started several; before it looks for devices.

    TF_CONFIG and CUDA_VISIBLE_DEVICES are set; a TF_CONFIG that is there stays as it is.

    Raises:
        DlcliError: Slurm's variables cannot be understood.
    """
    if environment.get("TF_CONFIG"):
        return
    cluster = slurm_cluster(environment)
    if cluster is None:
        return
    environment["TF_CONFIG"] = tf_config(cluster.addresses, cluster.worker)
    if cluster.gpus is not None:
        environment["CUDA_VISIBLE_DEVICES"] = cluster.gpus


def expand_hosts(text: str) -> tuple[str, ...]:
    """Names of a Slurm node list, in its order: `n[8-10],login` -> n8, n9, n10, login.

    Args:
        text: several ranges in one name are allowed (`r[1-2]n[1-2]`), and leading zeros are kept.

    Raises:
        DlcliError: it is no such list.
    """
    parts = re.findall(r"(?:[^\s,\[\]]|\[[\d,-]+\])+", text)
    if not parts or ",".join(parts) != text:
        raise DlcliError(
            f"SLURM_STEP_NODELIST={text}: is no list of nodes such as n[1-4],m7; ask `scontrol show hostnames`{_ADVICE}"
        )
    return tuple(host for part in parts for host in _expanded(part, text))


def expand_tasks(text: str) -> tuple[int, ...]:
    """Processes of each node: `2(x3),1` -> 2, 2, 2, 1.

    Raises:
        DlcliError: it is no such list.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([1-9]\d{0,4})(?:\(x([1-9]\d{0,4})\))?", part)
        if match is None:
            raise DlcliError(
                f"SLURM_STEP_TASKS_PER_NODE={text}: is no list of numbers such as 2(x3),1{_ADVICE}"
            )
        found += [int(match.group(1))] * int(match.group(2) or 1)
    return tuple(found)


def _expanded(part: str, text: str) -> Iterator[str]:
    """The names of one part of a list, which has no comma outside of brackets."""
    match = re.search(r"\[([\d,-]+)\]", part)
    if match is None:
        yield part
        return
    for each in match.group(1).split(","):
        ends = re.fullmatch(r"(\d+)(?:-(\d+))?", each)
        if ends is None or not 0 <= int(ends.group(2) or ends.group(1)) - int(ends.group(1)) < _MOST_WORKERS:
            raise DlcliError(f"SLURM_STEP_NODELIST={text}: [{match.group(1)}] is no range{_ADVICE}")
        for number in range(int(ends.group(1)), int(ends.group(2) or ends.group(1)) + 1):
            name = f"{part[: match.start()]}{number:0{len(ends.group(1))}d}{part[match.end() :]}"
            yield from _expanded(name, text)


def _check_rank(environment: Mapping[str, str], rank: int, tasks: Sequence[int]) -> None:
    """Refuses ranks that do not fill one node after the other: then addresses would be those of others."""
    node = environment.get("SLURM_NODEID")
    local = environment.get("SLURM_LOCALID")
    if node is None or local is None or not (node.isdigit() and local.isdigit()):
        return
    before = tasks[: int(node)]
    if int(node) < len(tasks) and int(local) < tasks[int(node)] and sum(before) + int(local) == rank:
        return
    raise DlcliError(
        f"SLURM_PROCID={rank} is process {local} of node {node}: ranks must fill one node after the other; start it "
        f"with srun --distribution=block{_ADVICE}"
    )


def _first_port(environment: Mapping[str, str]) -> int:
    """Jobs that share a node do not meet, nor does a step that is started anew meet its ports in TIME_WAIT."""
    job = _number(environment, "SLURM_JOB_ID", "0")
    step = _number(environment, "SLURM_STEP_ID", "0")
    return _FIRST_PORT + (job * _TASKS_A_NODE + step) % _PORTS


def _share_of_gpus(environment: Mapping[str, str], local: int, many: int) -> str | None:
    """The GPUs of process `local` of the `many` on its node, where Slurm shows all of them to each."""
    gpus = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    on_node = environment.get("SLURM_GPUS_ON_NODE", "")
    if many == 1 or not gpus or not on_node.isdigit() or len(gpus) < int(on_node):
        return None
    if len(gpus) < many:
        raise DlcliError(
            f"Slurm starts {many} processes on a node with {len(gpus)} GPUs, and each needs one of its own; start one "
            f"process a node, which takes all its GPUs (--ntasks-per-node=1), or at most {len(gpus)}"
        )
    each = len(gpus) // many
    return ",".join(gpus[each * local : each * (local + 1)])


def _required(environment: Mapping[str, str], name: str) -> str:
    try:
        return environment[name]
    except KeyError:
        raise DlcliError(f"{name} is missing though SLURM_STEP_NUM_TASKS is set{_ADVICE}") from None


def _number(environment: Mapping[str, str], name: str, otherwise: str | None = None) -> int:
    text = environment.get(name, otherwise) if otherwise is not None else _required(environment, name)
    if text is None or not re.fullmatch(r"\d{1,12}", text):
        raise DlcliError(f"{name}={text}: is no number{_ADVICE}")
    return int(text)
