"""How the devices of a machine reach each other and other machines: links between GPUs, networks, who started it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NETWORKS = Path("/sys/class/net")
INFINIBAND = Path("/sys/class/infiniband")

SIGNS = {
    "TF_CONFIG": "TensorFlow",
    "SLURM_JOB_ID": "Slurm",
    "SLURM_STEP_NUM_TASKS": "Slurm",
    "SLURM_PROCID": "Slurm",
    "SLURM_STEP_NODELIST": "Slurm",
    "KUBERNETES_SERVICE_HOST": "Kubernetes",
    "JOB_COMPLETION_INDEX": "Kubernetes",
    "TPU_NAME": "TPU",
    "TPU_WORKER_ID": "TPU",
    "CUDA_VISIBLE_DEVICES": "CUDA",
    "TF_NUM_INTRAOP_THREADS": "threads",
    "OMP_NUM_THREADS": "threads",
    "NCCL_SOCKET_IFNAME": "NCCL",
    "NCCL_P2P_DISABLE": "NCCL",
    "NCCL_IB_DISABLE": "NCCL",
}
"""Variables that decide on devices and workers -> whose they are."""

LINKS = {
    "PIX": "one PCIe switch",
    "PXB": "several PCIe switches",
    "PHB": "PCIe through the CPU",
    "NODE": "PCIe within a NUMA node",
    "SYS": "PCIe across sockets",
}
"""What `nvidia-smi topo` says -> what it means, fastest first; NV4 is four NVLinks."""

_SECONDS = 20
_UNDERLINED = re.compile(r"\x1b\[[0-9;]*m")
_ETHERNET, _INFINIBAND = "1", "32"
"""Kinds of network interfaces, as the kernel numbers them (if_arp.h)."""


def gpu_links() -> dict[str, str] | None:
    """`GPU0-GPU1` -> how they are linked, of every pair; None without `nvidia-smi`, or where it fails."""
    found = _of_nvidia("topo", "-m")
    return None if found is None else read_links(found)


def gpu_mebibytes() -> int | None:
    """Memory of the first GPU, in MiB; None where `nvidia-smi` does not say."""
    found = _of_nvidia("--query-gpu=memory.total", "--format=csv,noheader,nounits")
    first = (found or "").split("\n", maxsplit=1)[0].strip()
    return int(first) if first.isdigit() else None


def _of_nvidia(*options: str) -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    try:
        return subprocess.run(
            ["nvidia-smi", *options], stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS,
            text=True, errors="replace", check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None


def read_links(matrix: str) -> dict[str, str]:
    """The pairs of GPUs in what `nvidia-smi topo -m` prints.

    Args:
        matrix: a line of names, then one for each device, with tabs between; a legend follows.
    """
    rows = [line.split("\t") for line in _UNDERLINED.sub("", matrix).splitlines()]
    numbers = [[re.fullmatch(r"\s*GPU(\d+)\s*", cell) for cell in row] for row in rows]
    columns = next((row for row in numbers if any(row[1:])), [])
    found = {}
    for row, (first, *_) in zip(rows, numbers, strict=True):
        for second, link in zip(columns[1:], row[1:], strict=False):
            if first and second and int(first[1]) < int(second[1]):
                found[f"GPU{first[1]}-GPU{second[1]}"] = link.strip()
    return found


def described_links(links: Mapping[str, str]) -> str:
    """`GPU0-GPU1: 18 NVLinks`, the fastest first; many pairs alike as their number."""
    pairs: dict[str, list[str]] = {}
    for pair, link in links.items():
        pairs.setdefault(link, []).append(pair)
    order = [*sorted(link for link in pairs if link not in LINKS), *LINKS]
    return "; ".join(
        f"{', '.join(pairs[link]) if len(pairs[link]) < 4 else f'{len(pairs[link])} pairs'}: {_meaning(link)}"
        for link in order
        if link in pairs
    )


def _meaning(link: str) -> str:
    nvlinks = re.fullmatch(r"NV(\d+)", link)
    return f"{nvlinks[1]} NVLinks" if nvlinks else LINKS.get(link, link)


def network_interfaces(networks: Path = NETWORKS, infiniband: Path = INFINIBAND) -> list[dict[str, Any]]:
    """What reaches other machines and is up: its name, kind, and speed in Mbit/s (None where it does not say).

    Args:
        networks: the kernel's folder of network interfaces.
        infiniband: and of InfiniBand and RoCE adapters, which NCCL uses without an address.
    """
    found = []
    for path in sorted(networks.glob("*")):
        kind = {_ETHERNET: "ethernet", _INFINIBAND: "infiniband"}.get(_read(path / "type"))
        if kind is not None and _read(path / "operstate") == "up":
            speed = _read(path / "speed")
            known = speed.isdigit() and 0 < int(speed) < 2**31
            found.append({"name": path.name, "kind": kind, "mbit_per_second": int(speed) if known else None})
    for path in sorted(infiniband.glob("*/ports/*")):
        rate = re.match(r"([\d.]+) Gb/sec", _read(path / "rate"))  # 100 Gb/sec (4X EDR)
        if "ACTIVE" in _read(path / "state") and rate:
            name = f"{path.parent.parent.name}/{path.name}"
            found.append({"name": name, "kind": "rdma", "mbit_per_second": round(1000 * float(rate[1]))})
    return found


def described_network(interface: Mapping[str, Any]) -> str:
    """`eth0 25 Gbit/s`."""
    speed = interface["mbit_per_second"]
    shown = "of unknown speed" if speed is None else f"{speed / 1000:g} Gbit/s"
    kind = "" if interface["kind"] == "ethernet" else f" ({interface['kind']})"
    return f"{interface['name']}{kind} {shown}"


def cluster_signs(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of `SIGNS` that are set."""
    return {name: environment[name] for name in SIGNS if environment.get(name)}


def _read(path: Path) -> str:
    """One line of the kernel's; empty where it has none (the speed of an interface that is down)."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
