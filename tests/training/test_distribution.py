"""Which devices are chosen, and what several of them change in a recipe; nothing is trained, nobody waits."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf

from dlcli.data.sharding import Shard
from dlcli.errors import DlcliError
from dlcli.recipe.load import load_recipe
from dlcli.recipe.schema import Distribution, Recipe, Spec
from dlcli.training.distribution import Choice, choose, is_chief, shard_here
from dlcli.training.settled import settled

TWO = Choice("mirrored", ("CPU:0", "CPU:1"), "")
FOUR = Choice("multi_worker", ("GPU:0", "GPU:1"), "", workers=2)
Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Sets how many devices of each kind are here."""

    def has(**devices: int) -> None:
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [None] * devices.get(kind, 0))

    has(CPU=1)
    return has


def config(*, worker: Sequence[str] = (), task: Any = None, **others: Sequence[str]) -> dict[str, str]:
    """An environment with TF_CONFIG."""
    cluster = {**others, **({"worker": worker} if worker else {})}
    return {"TF_CONFIG": json.dumps({"cluster": cluster, **({} if task is None else {"task": task})})}


def chosen(environment: dict[str, str] | None = None, **settings: Any) -> tuple[Any, ...]:
    choice = choose(Distribution(**settings), environment or {})
    return choice.strategy, choice.devices, choice.workers, choice.worker


def test_one_machine_is_used_as_the_recipe_says(machine: Machine) -> None:
    assert chosen() == ("none", ("CPU:0",), 1, 0)
    assert chosen(strategy="one_device") == ("one_device", ("CPU:0",), 1, 0)
    assert chosen(strategy="mirrored") == ("mirrored", ("CPU:0",), 1, 0)
    assert chosen(logical_devices=3) == ("mirrored", ("CPU:0", "CPU:1", "CPU:2"), 1, 0)
    assert chosen(strategy="tpu") == ("tpu", ("TPU:0",), 1, 0)
    assert chosen({"TPU_NAME": "local"}) == ("tpu", ("TPU:0",), 1, 0)
    assert chosen({"TPU_NAME": "local"}, strategy="none") == ("none", ("CPU:0",), 1, 0)


def test_all_gpus_are_used_unless_the_recipe_says_otherwise(machine: Machine) -> None:
    machine(CPU=1, GPU=1)
    assert chosen() == ("none", ("GPU:0",), 1, 0)
    assert chosen(logical_devices=2) == ("mirrored", ("GPU:0", "GPU:1"), 1, 0)
    machine(CPU=1, GPU=3)
    assert chosen() == ("mirrored", ("GPU:0", "GPU:1", "GPU:2"), 1, 0)
    assert chosen(strategy="none") == ("none", ("GPU:0",), 1, 0)
    assert chosen(strategy="one_device") == ("one_device", ("GPU:0",), 1, 0)
    assert chosen(strategy="one_device", devices=["GPU:2"]) == ("one_device", ("GPU:2",), 1, 0)
    assert chosen(strategy="mirrored", devices=["/gpu:2", "GPU:0"])[1] == ("GPU:2", "GPU:0")
    assert chosen(config(worker=["a:1", "b:1"]))[:3] == ("multi_worker", ("GPU:0", "GPU:1", "GPU:2"), 2)
    machine(CPU=1, TPU=8)
    assert chosen()[:2] == ("tpu", tuple(f"TPU:{number}" for number in range(8)))


def test_devices_that_are_not_here_are_named(machine: Machine) -> None:
    with pytest.raises(DlcliError, match=r"GPU:1 is not here; this machine has CPU:0 \(logical_devices"):
        chosen(strategy="one_device", devices=["GPU:1"])
    machine(CPU=1, GPU=2)
    with pytest.raises(DlcliError, match=r"GPU:2, XPU:0 is not here; this machine has CPU:0, GPU:0, GPU:1$"):
        chosen(strategy="mirrored", devices=["GPU:0", "GPU:2", "xpu:0"])
    with pytest.raises(DlcliError, match="each device once; received: GPU:0, GPU:0"):
        chosen(strategy="mirrored", devices=["GPU:0", "/gpu:0"])


WORKERS = ["a:1", "b:1", "c:1"]
SLURM = {
    "SLURM_STEP_NODELIST": "node[01-02]", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_PROCID": "1", "SLURM_NODEID": "1", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "workers", "worker"),
    [
        (config(worker=WORKERS, task={"type": "worker", "index": 1}), 3, 1),
        (config(worker=WORKERS, task={"type": "worker", "index": "2"}), 3, 2),
        (config(worker=WORKERS), 3, 0),
        (config(worker=WORKERS, chief=["d:1"], task={"type": "chief", "index": 0}), 4, 0),
        (config(worker=WORKERS, chief=["d:1"], task={"type": "worker", "index": 0}), 4, 1),
        (SLURM, 2, 1),
        ({**SLURM, **config(worker=WORKERS)}, 3, 0),
    ],
)
def test_workers_know_themselves(
    machine: Machine, environment: dict[str, str], workers: int, worker: int
) -> None:
    choice = choose(Distribution(), environment)
    assert (choice.strategy, choice.workers, choice.worker) == ("multi_worker", workers, worker)
    assert choice.replicas == workers
    assert choice.is_chief == is_chief(environment) == (worker == 0)
    assert choose(Distribution(strategy="multi_worker"), environment) == choice


@pytest.mark.parametrize(
    "environment", [{}, {"TF_CONFIG": ""}, {"TF_CONFIG": "{}"}, config(worker=["a:1"]), {"SLURM_PROCID": "3"}]
)
def test_one_worker_trains_alone(machine: Machine, environment: dict[str, str]) -> None:
    assert chosen(environment) == ("none", ("CPU:0",), 1, 0)
    assert is_chief(environment)
    with pytest.raises(DlcliError, match=r"neither TF_CONFIG nor Slurm names several workers.*dlcli launch"):
        chosen(environment, strategy="multi_worker")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"TF_CONFIG": "{cluster"}, "TF_CONFIG: not of the form .*: {cluster"),
        ({"TF_CONFIG": "[1]"}, "not of the form"),
        ({"TF_CONFIG": '{"cluster": {"worker": 3}}'}, "not of the form"),
        (config(worker=WORKERS, task={"type": "worker", "index": "x"}), "not of the form"),
        (config(worker=WORKERS, task={"type": "worker", "index": 3}), "task worker 3 is not among its 3 workers"),
        (config(worker=WORKERS, task={"type": "worker", "index": -1}), "task worker -1 is not among"),
        (config(worker=WORKERS, chief=["d:1"], task={"type": "chief", "index": 1}), "task chief 1 is not among"),
        (config(worker=WORKERS, task={"type": "chief", "index": 0}), "task chief 0 is not among"),
        (config(worker=WORKERS, ps=["p:1"], evaluator=["e:1"]), "cluster has evaluator, ps; only chief and worker"),
        (config(worker=WORKERS, task={"type": "evaluator", "index": 0}), "task evaluator 0 is not among"),
        (config(worker=WORKERS, task={"type": "ps", "index": 0}), "task ps 0 is not among"),
        ({**SLURM, "SLURM_PROCID": "2"}, "SLURM_PROCID=2 is no rank"),
    ],
)  # fmt: skip
def test_unclear_workers_are_refused(machine: Machine, environment: dict[str, str], message: str) -> None:
    with pytest.raises(DlcliError, match=message):
        choose(Distribution(), environment)
    with pytest.raises(DlcliError, match=message):
        is_chief(environment)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"strategy": "none"}, "strategy none"),
        ({"strategy": "mirrored"}, "strategy mirrored"),
        ({"strategy": "tpu"}, "strategy tpu"),
        ({"logical_devices": 2}, "logical_devices"),
    ],
)
def test_workers_never_train_alone_by_mistake(machine: Machine, settings: dict[str, Any], key: str) -> None:
    with pytest.raises(DlcliError, match=f"TF_CONFIG names 3 workers, and with distribution.{key} each"):
        chosen(config(worker=WORKERS), **settings)


def recipe(folder: Path, *changes: str, task: str = "image_classification", model: str = "cnn") -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(f"task: {task}\ndataset: digits\narchitecture: {model}\n")
    return load_recipe(path, changes)


def test_batches_and_rates_grow_with_the_devices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    each = ("training.batch_size_per_replica=10", "optimizer={name: sgd, learning_rate: 0.1}")
    for rule, factor in (("none", 1), ("linear", 4), ("sqrt", 2)):
        found = settled(recipe(tmp_path, *each, f"training.scale_learning_rate={rule}"), FOUR)
        assert found.training.batch_size == 40
        assert isinstance(found.optimizer, Spec)
        assert found.optimizer.arguments["learning_rate"] == pytest.approx(0.1 * factor)
        # Of the run's own recipe, which goes on with these numbers on other devices too.
        assert (found.training.batch_size_per_replica, found.training.scale_learning_rate) == (None, "none")
        assert settled(found, TWO) == found
    said = capsys.readouterr().err
    assert "batch size 40: 10 on each of 4 devices" in said
    assert "learning rates times 2, for 4 devices (sqrt)" in said
    falling = (
        "schedule={name: polynomial_decay, end_learning_rate: 0.001}",
        "training.scale_learning_rate=linear",
    )
    schedule = settled(recipe(tmp_path, *each, *falling), FOUR).schedule
    assert isinstance(schedule, Spec)
    assert schedule.arguments["end_learning_rate"] == pytest.approx(0.004)
    alone = settled(recipe(tmp_path, *each), Choice("none", ("CPU:0",), ""))
    assert alone.training.batch_size == 10


def test_rates_of_two_networks_and_of_stages_grow_too(tmp_path: Path) -> None:
    scaled = ("training.batch_size_per_replica=8", "training.scale_learning_rate=linear")
    two = "optimizer={generator: {name: adam, learning_rate: 0.001}, discriminator: {name: sgd, learning_rate: 0.3}}"
    found = settled(recipe(tmp_path, *scaled, two, task="gan", model="dcgan"), TWO)
    rates = {network: spec.arguments["learning_rate"] for network, spec in found.optimizer}
    assert rates == pytest.approx({"generator": 0.002, "discriminator": 0.6})
    stages = "finetune={stages: [{freeze: all}, {learning_rate: 0.01}]}"
    finetune = settled(recipe(tmp_path, *scaled, stages), TWO).finetune
    assert finetune is not None
    assert [stage.learning_rate for stage in finetune.stages] == [None, 0.02]


def test_steps_are_called_one_by_one_on_several_devices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = recipe(tmp_path, "training.steps_per_execution=4")
    assert settled(given, Choice("none", ("CPU:0",), "")) == given
    assert settled(given, TWO).training.steps_per_execution == 1
    assert "steps_per_execution 4 is for one device" in capsys.readouterr().err


def test_batches_that_cannot_be_shared_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DlcliError, match="batch_size 3: leaves some of 4 devices without an example"):
        settled(recipe(tmp_path, "training.batch_size=3"), FOUR)
    odd = ("training.batch_size=30",)
    assert settled(recipe(tmp_path, *odd), FOUR).training.batch_size == 30
    with pytest.raises(DlcliError, match="task gan needs as many images on each of 4 devices; take 28"):
        settled(recipe(tmp_path, *odd, task="gan", model="dcgan"), FOUR)
    with pytest.raises(DlcliError, match="keras#20582"):
        settled(recipe(tmp_path, "optimizer={name: sgd, gradient_accumulation_steps: 2}"), TWO)


@pytest.mark.parametrize(
    ("kind", "index", "chiefs", "here", "first"),
    [
        (None, 0, 0, 2, 0),
        ("worker", 0, 0, 1, 0),
        ("worker", 1, 0, 2, 2),
        ("chief", 0, 1, 2, 0),
        ("worker", 0, 1, 2, 2),
        ("worker", 1, 1, 1, 2),
    ],
)
def test_each_worker_has_its_own_rows(
    monkeypatch: pytest.MonkeyPatch, kind: str | None, index: int, chiefs: int, here: int, first: int
) -> None:
    spec = SimpleNamespace(
        as_dict=lambda: {"worker": ["a:1", "b:1"], **({"chief": ["c:1"]} if chiefs else {})}
    )
    resolver = (
        None if kind is None else SimpleNamespace(task_type=kind, task_id=index, cluster_spec=lambda: spec)
    )
    strategy = SimpleNamespace(
        num_replicas_in_sync=6,
        extended=SimpleNamespace(worker_devices=("",) * here),
        cluster_resolver=resolver,
    )
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    assert shard_here() == Shard(6, first, here)


def test_one_device_has_all_rows() -> None:
    assert shard_here() is None
