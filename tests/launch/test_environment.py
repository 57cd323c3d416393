"""What each worker is told: addresses and GPUs, which are found without TensorFlow."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dlcli import network
from dlcli.errors import DlcliError
from dlcli.launch.environment import free_ports, gpus_here, gpus_of_list, shares_of, worker_environments

CUT_GPU = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 2g.10gb     Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-24dc3a5a-4c1f-ae63-8f5b-e5c8b7d4a6d0)
"""


def test_every_worker_knows_all_and_itself():
    found = worker_environments(3, (), {"HOME": "/home/x"})
    configs = [json.loads(each["TF_CONFIG"]) for each in found]
    addresses = configs[0]["cluster"]["worker"]
    assert len(set(addresses)) == 3 and all(each.startswith("127.0.0.1:") for each in addresses)
    for index, config in enumerate(configs):
        assert config == {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        assert found[index]["HOME"] == "/home/x"
        assert "CUDA_VISIBLE_DEVICES" not in found[index]


def test_no_colours_in_pipes_and_no_cluster_of_somebody_else():
    given = {"TF_CONFIG": "{}", "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "NO_COLOR": "1"}
    (found,) = worker_environments(1, (), given)
    assert found == {"NO_COLOR": "1"}


def test_gpus_are_shared_out_evenly():
    found = worker_environments(2, ("0", "1", "2", "3", "4"), {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4"})
    assert [each["CUDA_VISIBLE_DEVICES"] for each in found] == ["0,1", "2,3"]
    assert shares_of((), 2) == [(), ()]
    with pytest.raises(DlcliError, match=r"1 GPU is here \(7\).*take at most --workers 1"):
        shares_of(("7",), 2)


@pytest.mark.parametrize(
    ("named", "expected"),
    [("0,1", ("0", "1")), ("GPU-1a, MIG-2b", ("GPU-1a", "MIG-2b")), ("", ()), ("-1", ()), ("1,-1,2", ("1",))],
)
def test_the_user_says_which_gpus_there_are(named, expected):
    assert gpus_here({"CUDA_VISIBLE_DEVICES": named}) == expected


def test_what_the_driver_lists(monkeypatch, tmp_path):
    assert gpus_of_list(CUT_GPU) == (
        "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb", "1",
    )  # fmt: skip
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n[ \"$1\" = -L ] && printf 'GPU 0: H200 (UUID: GPU-1)\\nGPU 1: H200 (UUID: GPU-2)\\n'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert gpus_here({}) == ("0", "1")
    program.write_text("#!/bin/sh\nexit 9\n")
    monkeypatch.setattr(
        Path,
        "glob",
        lambda folder, pattern: iter([Path("/dev/nvidia10"), Path("/dev/nvidia2"), Path("/dev/nvidiactl")]),
    )
    assert gpus_here({}) == ("2", "10")  # the driver answers no longer, and its devices are there


def test_ports_are_free_and_may_be_asked_for_offline(monkeypatch):
    monkeypatch.setenv(network.VARIABLE, "1")
    network.obey()
    ports = free_ports(4)
    assert len(set(ports)) == 4
    monkeypatch.setenv(network.VARIABLE, "0")
    for port in ports:
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))


def test_the_launcher_imports_no_tensorflow():
    code = (
        "import sys, dlcli.cli.launch, dlcli.launch.supervise, dlcli.launch.environment, dlcli.recipe.load, dlcli.runs;"
        "sys.exit(' '.join({'tensorflow', 'keras', 'numpy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
