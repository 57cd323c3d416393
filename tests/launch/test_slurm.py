"""The batch file run by a stand-in for Slurm, and what processes read from srun."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dlcli.errors import DlcliError
from dlcli.launch.slurm import SlurmJob, slurm_manifest
from dlcli.launch.slurm_cluster import expand_hosts, expand_tasks, slurm_cluster


def of_srun(rank: int = 0, **changes: str) -> dict[str, str]:
    """What srun 22.05 sets in a step of three processes on n8, n9 and n10."""
    return {
        "SLURM_JOB_ID": "77",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": "n[8-10]",
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_STEP_TASKS_PER_NODE": "1(x3)",
        "SLURM_PROCID": str(rank),
        "SLURM_NODEID": str(rank),
        "SLURM_LOCALID": "0",
        **changes,
    }


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("n1", "n1"),
        ("n[8-11]", "n8 n9 n10 n11"),
        ("n[08-10],login", "n08 n09 n10 login"),
        ("n[1-2,7],m5,o[3-4]-ib", "n1 n2 n7 m5 o3-ib o4-ib"),
        ("r[1-2]n[01-02]", "r1n01 r1n02 r2n01 r2n02"),
        ("node.example.com", "node.example.com"),
    ],
)
def test_node_lists_are_expanded_in_their_order(text: str, hosts: str) -> None:
    assert expand_hosts(text) == tuple(hosts.split())


@pytest.mark.parametrize("text", ["n[1-", "n]", "n[2-1]", "n[1-2-3]", "a,,b", "n[1-99999999]", "n[,]", "a b"])
def test_what_is_no_node_list_is_named(text: str) -> None:
    with pytest.raises(DlcliError, match=r"SLURM_STEP_NODELIST=.*set TF_CONFIG"):
        expand_hosts(text)


def test_tasks_of_each_node() -> None:
    assert expand_tasks("2(x3),1") == (2, 2, 2, 1)
    with pytest.raises(DlcliError, match=r"SLURM_STEP_TASKS_PER_NODE=0\(x2\)"):
        expand_tasks("0(x2)")


def test_each_process_announces_the_node_on_which_it_runs() -> None:
    found = [slurm_cluster(of_srun(rank)) for rank in range(3)]
    assert [cluster.worker for cluster in found] == [0, 1, 2]
    assert len({cluster.addresses for cluster in found}) == 1
    assert [address.split(":")[0] for address in found[0].addresses] == ["n8", "n9", "n10"]


def test_processes_of_one_node_have_their_own_ports() -> None:
    several = {"SLURM_STEP_TASKS_PER_NODE": "2,1", "SLURM_STEP_NODELIST": "n[1-2]"}
    addresses = slurm_cluster(of_srun(1, **several, SLURM_NODEID="0", SLURM_LOCALID="1")).addresses
    first, second, third = (int(address.split(":")[1]) for address in addresses)
    assert (second, third) == (first + 1, first)


def test_jobs_and_steps_do_not_share_ports() -> None:
    given = [("77", "0"), ("77", "1"), ("78", "0"), ("4294901756", "4294967290")]
    ports = [
        int(slurm_cluster(of_srun(SLURM_JOB_ID=job, SLURM_STEP_ID=step)).addresses[0].split(":")[1])
        for job, step in given
    ]
    assert len(set(ports)) == len(ports)
    assert all(1024 < port < 32768 for port in ports)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},
        of_srun(SLURM_STEP_NUM_TASKS="1", SLURM_STEP_NODELIST="n8", SLURM_STEP_TASKS_PER_NODE="1"),
    ],
    ids=["no Slurm", "a batch script", "one process"],
)
def test_there_is_no_cluster_where_srun_did_not_start_several(environment: dict[str, str]) -> None:
    assert slurm_cluster(environment) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"SLURM_NODEID": "0", "SLURM_LOCALID": "1"}, "srun --distribution=block"),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)"}, "do not agree"),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "do not agree"),
        ({"SLURM_PROCID": "3"}, "SLURM_PROCID=3 is no rank"),
        ({"SLURM_PROCID": "x"}, "SLURM_PROCID=x: is no number"),
        ({"SLURM_STEP_NUM_TASKS": "many"}, "SLURM_STEP_NUM_TASKS=many"),
    ],
)
def test_variables_that_cannot_be_are_refused_in_words(changes: dict[str, str], said: str) -> None:
    with pytest.raises(DlcliError, match=said):
        slurm_cluster({**of_srun(1), **changes})


def test_processes_of_one_node_share_its_gpus() -> None:
    one_node = of_srun(
        1,
        SLURM_STEP_NODELIST="n8",
        SLURM_STEP_TASKS_PER_NODE="3",
        SLURM_NODEID="0",
        SLURM_LOCALID="1",
        SLURM_GPUS_ON_NODE="6",
        CUDA_VISIBLE_DEVICES="0,1,2,3,4,5",
    )
    assert slurm_cluster(one_node).gpus == "2,3"
    assert slurm_cluster({**one_node, "CUDA_VISIBLE_DEVICES": "2,3"}).gpus is None, (
        "Slurm gave it two already"
    )
    assert slurm_cluster(of_srun(CUDA_VISIBLE_DEVICES="0,1", SLURM_GPUS_ON_NODE="2")).gpus is None
    with pytest.raises(DlcliError, match="3 processes on a node with 2 GPUs"):
        slurm_cluster({**one_node, "CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_ON_NODE": "2"})


def test_where_tensorflow_resolves_slurm_rightly_we_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolved(monkeypatch, "n[08-10]", 2) == (["n08", "n09", "n10"], 2)
    ours = slurm_cluster(of_srun(2, SLURM_STEP_NODELIST="n[08-10]"))
    assert ([address.split(":")[0] for address in ours.addresses], ours.worker) == (["n08", "n09", "n10"], 2)


def test_tensorflow_still_resolves_slurm_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    mended = "SlurmClusterResolver is mended: it can take the place of dlcli/launch/slurm_cluster.py"
    assert resolved(monkeypatch, "n[8-10]", 0)[0] == ["n10", "n8", "n9"], mended
    with pytest.raises(ValueError, match="Invalid hostlist"):
        resolved(monkeypatch, "r[1-3]n[1-1]", 0)


def resolved(monkeypatch: pytest.MonkeyPatch, hosts: str, rank: int) -> tuple[list[str], int]:
    """Hosts and rank by TensorFlow's own resolver, on nodes with two GPUs."""
    import tensorflow as tf

    monkeypatch.setattr(
        os, "environ", {**of_srun(rank, SLURM_STEP_NODELIST=hosts), "CUDA_VISIBLE_DEVICES": "0,1"}
    )
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver()
    workers = resolver.cluster_spec().as_dict()["worker"]
    return [address.split(":")[0] for address in workers], resolver.task_id


SRUN = f"""#!{sys.executable} -S
import os, signal, subprocess, sys, time
words = sys.argv[sys.argv.index("sh"):]
workers = [
    subprocess.Popen(words, start_new_session=True, env={{**os.environ, "SLURM_PROCID": str(rank)}})
    for rank in range(2)
]
def end(*_):
    for worker in workers:
        os.killpg(worker.pid, signal.SIGTERM)
signal.signal(signal.SIGTERM, end)
with open("srun.pid", "w") as file:
    file.write(str(os.getpid()))
ended = False
while any(worker.poll() is None for worker in workers):
    if not ended and any(worker.poll() for worker in workers):
        ended = True
        [os.killpg(worker.pid, signal.SIGTERM) for worker in workers if worker.poll() is None]
    time.sleep(0.01)
sys.exit(max(worker.returncode for worker in workers))
"""
DLCLI = r"""#!/bin/sh
printf '<%s>' "$SLURM_PROCID" "$@" >> said; echo >> said
starts=$(grep -c "^<$SLURM_PROCID>" said)
until [ $(grep -c "^<0>" said) -ge $starts ]; do :; done  # both have begun, so that both count as many starts
end() { kill $! 2> /dev/null; exit 143; }
trap end TERM
eval "$PLAN"
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a job with stand-ins for what Slurm and dlcli do; PLAN is the shell that each process runs."""
    programs = tmp_path / "programs"
    programs.mkdir()
    scripts = {
        "srun": SRUN,
        "dlcli": DLCLI,
        "scontrol": '#!/bin/sh\necho "scontrol $*" >> asked\n',
        "scancel": '#!/bin/sh\necho "scancel $*" >> asked; kill -TERM $(cat srun.pid)\n',
        "sleep": '#!/bin/sh\n[ "$1" = 5 ] || exec /bin/sleep "$1"\n',
    }
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    def run(plan: str, **options) -> tuple[int, Path]:
        folder = options.pop("folder", tmp_path)
        given = {"recipe": "digits_cnn", "name": "digits", "nodes": 2, **options}
        text = slurm_manifest(SlurmJob(folder=folder, **given))
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "77",
            "PLAN": plan,
        }
        done = subprocess.run(
            ["bash"], check=False, input=text, text=True, env=environment, timeout=20, capture_output=True
        )
        return done.returncode, folder

    return run


def starts(folder: Path) -> int:
    return (folder / "said").read_text().count("<0>")


def test_a_job_that_ends_well_is_run_once(slurm) -> None:
    code, folder = slurm("exit 0")
    assert (code, starts(folder)) == (0, 1)
    assert not (folder / "asked").exists()
    assert not list((folder / "runs").iterdir()), "nothing is left beside the run"


def test_when_a_process_is_killed_all_start_again(slurm) -> None:
    code, folder = slurm(
        "[ $starts -gt 2 ] || { [ $SLURM_PROCID = 1 ] && kill -9 $$; /bin/sleep 40 & wait; }"
    )
    assert (code, starts(folder)) == (0, 3)
    code, folder = slurm("kill -9 $$", max_restarts=1)
    assert (code, starts(folder)) == (137, 3 + 2)


@pytest.mark.parametrize("code", [2, 3, 4])
def test_what_another_start_would_not_mend_ends_the_job(slurm, code: int) -> None:
    """The others end with 143, which would be worth a start."""
    found, folder = slurm(f"[ $SLURM_PROCID = 1 ] && exit {code}; /bin/sleep 40 & wait")
    assert (found, starts(folder)) == (code, 1)


def test_when_time_is_up_the_job_saves_and_is_queued_again(slurm) -> None:
    """The signal comes from process 0, once both have begun."""
    slow = "until [ $(grep -c . said) = 2 ]; do :; done; [ $SLURM_PROCID = 0 ] && kill -USR1 $BATCH; /bin/sleep 40 & wait"
    code, folder = slurm(slow, setup=["export BATCH=$$"])
    assert code == 0
    assert (folder / "asked").read_text().splitlines() == ["scancel --signal=TERM 77", "scontrol requeue 77"]
    assert starts(folder) == 1


def test_whatever_is_given_reaches_the_processes_as_it_is(slurm, tmp_path: Path) -> None:
    folder = tmp_path / "it's $HOME `id` {x}"
    folder.mkdir()
    hostile = "a.b='x y' \"q\" $HOME $(id) `id` \\ * ; exit 9\n# {y}"
    recipe, run = "my recipe's $x.yaml", "runs of $USER/it's"
    code, _ = slurm("exit 0", folder=folder, changes=[hostile], recipe=recipe, run=f"{run}/", name="a.b-c_d")
    assert code == 0
    wanted = ["0", "train", recipe, "--set", hostile, "--out", run, "--continue"]
    assert "".join(f"<{word}>" for word in wanted) in (folder / "said").read_text()


def test_the_run_is_named_by_the_job_so_that_it_goes_on_in_it(slurm) -> None:
    _, folder = slurm("exit 0")
    assert "<--out><runs/digits-77><--continue>" in (folder / "said").read_text()


def options_of(text: str) -> set[str]:
    return {line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")}


def test_what_is_asked_for_stands_in_the_file() -> None:
    job = SlurmJob("r", "r", Path("/w"), nodes=4, gpus=8, cpus=32, memory="64G", time="1-12:00:00", grace=90)
    text = slurm_manifest(job)
    asked = "--nodes=4 --ntasks-per-node=1 --gpus-per-node=8 --cpus-per-task=32 --mem=64G --time=1-12:00:00"
    assert {*asked.split(), "--requeue", "--signal=B:USR1@90"} < options_of(text)
    assert "--exclusive" not in text
    assert "srun --kill-on-bad-exit=1 --input=none --cpus-per-task=32" in text, "srun does not inherit it"
    whole = slurm_manifest(SlurmJob("r", "r", Path("/w"), nodes=2))
    assert {"--exclusive", "--mem=0"} < options_of(whole)
    assert "gpus" not in whole
    assert max(
        i for i, line in enumerate(text.splitlines()) if line.startswith("#SBATCH")
    ) < text.splitlines().index("")


def test_containers_see_the_folder_and_what_is_mounted() -> None:
    folder = Path("/w o")
    apptainer = slurm_manifest(SlurmJob("r", "r", folder, gpus=1, apptainer="d.sif", mounts=["/data"]))
    wanted = "apptainer exec --nv --bind '/w o' --bind /data --pwd '/w o' d.sif dlcli train r"
    assert f"worker=({wanted} --out" in apptainer
    pyxis = slurm_manifest(SlurmJob("r", "r", folder, pyxis="nvcr.io#x:1", mounts=["/data"]))
    words = shlex.split(pyxis.partition("srun ")[2].partition("\\\n")[0])
    assert {"--container-image=nvcr.io#x:1", "--container-mounts=/w o:/w o,/data:/data"} < set(words)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "a b"}, "--name a b"),
        ({"name": "-x"}, "--name -x"),
        ({"time": "tomorrow"}, "--time tomorrow: expected minutes"),
        ({"time": "1:2:3:4"}, "--time 1:2:3:4"),
        ({"memory": "64GiB"}, "--memory 64GiB"),
        ({"options": ["gres=x"]}, "--sbatch 'gres=x'"),
        ({"options": ["--x\nrm -rf /"]}, "--sbatch"),
        ({"setup": ["a\nb"]}, "--setup"),
        ({"run": "a\nb"}, "--run"),
        ({"run": ""}, "--run"),
        ({"pyxis": "a", "apptainer": "b"}, "give one of them"),
        ({"pyxis": "a", "mounts": ["data"]}, "--mount data"),
    ],
)
def test_options_that_slurm_would_not_understand_are_refused(options: dict, said: str) -> None:
    with pytest.raises(DlcliError) as caught:
        slurm_manifest(SlurmJob(**{"recipe": "r", "name": "r", "folder": Path("/w"), **options}))
    assert said in str(caught.value)
