"""What is read of links and networks: from texts as nvidia-smi prints them, and folders as the kernel makes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dlcli.interconnect import (
    cluster_signs,
    described_links,
    described_network,
    gpu_links,
    network_interfaces,
    read_links,
)

FOUR_GPUS = (
    "\t\x1b[4mGPU0\tGPU1\tGPU2\tGPU10\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m\n"
    "GPU0\t X \tNV18\tSYS\tSYS\tPIX\t0-31\t0\t\tN/A\n"
    "GPU1\tNV18\t X \tSYS\tSYS\tSYS\t0-31\t0\t\tN/A\n"
    "GPU2\tSYS\tSYS\t X \tPHB\tSYS\t32-63\t1\t\tN/A\n"
    "GPU10\tSYS\tSYS\tPHB\t X \tSYS\t32-63\t1\t\tN/A\n"
    "NIC0\tPIX\tSYS\tSYS\tSYS\t X \t\t\t\t\n"
    "\nLegend:\n\n  X    = Self\n  SYS  = Connection traversing PCIe\tas well as the interconnect\n"
)
ONE_GPU = "\t\x1b[4mGPU0\tCPU Affinity\x1b[0m\nGPU0\t X \t0-15\n\nLegend:\n"


def test_links_of_gpus() -> None:
    links = read_links(FOUR_GPUS)
    assert links == {
        "GPU0-GPU1": "NV18", "GPU0-GPU2": "SYS", "GPU0-GPU10": "SYS", "GPU1-GPU2": "SYS", "GPU1-GPU10": "SYS",
        "GPU2-GPU10": "PHB",
    }  # fmt: skip
    assert described_links(links) == (
        "GPU0-GPU1: 18 NVLinks; GPU2-GPU10: PCIe through the CPU; 4 pairs: PCIe across sockets"
    )
    assert read_links(ONE_GPU) == {} and read_links("") == {} and read_links("no devices\n") == {}


@pytest.mark.parametrize(
    ("script", "found"),
    [("printf '\\tGPU0\\tGPU1\\nGPU0\\t X \\tPIX\\n'", {"GPU0-GPU1": "PIX"}), ("exit 9", None)],
)
def test_nvidia_smi_is_asked_where_it_is(
    script: str, found: dict[str, str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_links() is None
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    assert gpu_links() == found


def folder(root: Path, **files: str) -> None:
    root.mkdir(parents=True)
    for name, text in files.items():
        (root / name).write_text(f"{text}\n")


def test_networks_that_are_up(tmp_path: Path) -> None:
    networks, infiniband = tmp_path / "net", tmp_path / "infiniband"
    folder(networks / "eth0", type="1", operstate="up", speed="25000")
    folder(networks / "eth1", type="1", operstate="up", speed="-1")  # virtual ones do not know it
    folder(networks / "eth2", type="1", operstate="down", speed="1000")
    folder(networks / "ib0", type="32", operstate="up", speed="100000")
    folder(networks / "lo", type="772", operstate="unknown")
    (networks / "lo" / "speed").mkdir()  # as unreadable as the kernel's is
    folder(infiniband / "mlx5_0" / "ports" / "1", rate="100 Gb/sec (4X EDR)", state="4: ACTIVE")
    folder(infiniband / "mlx5_1" / "ports" / "1", rate="10 Gb/sec", state="1: DOWN")
    found = network_interfaces(networks, infiniband)
    assert [described_network(each) for each in found] == [
        "eth0 25 Gbit/s", "eth1 of unknown speed", "ib0 (infiniband) 100 Gbit/s", "mlx5_0/1 (rdma) 100 Gbit/s",
    ]  # fmt: skip
    assert network_interfaces(tmp_path / "none", tmp_path / "none") == []


def test_who_started_this() -> None:
    environment = {**os.environ, "SLURM_PROCID": "3", "TF_CONFIG": "", "HOME": "/somewhere"}
    assert cluster_signs(environment)["SLURM_PROCID"] == "3"
    assert not {"TF_CONFIG", "HOME"} & set(cluster_signs(environment))
