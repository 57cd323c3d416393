"""Recipe and machine -> the devices that train, as a strategy of tf.distribute.

`choose` decides and creates nothing, so that `dlcli plan` and `dlcli doctor` can ask it anywhere; `strategy_scope`
creates what was chosen. With several devices the numbers stay those of one: `dlcli.training.settled` says what that
needs of a recipe, `dlcli.training.keras_fixes` what it needs of Keras.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import keras
import tensorflow as tf

from dlcli.console import note, warn
from dlcli.data.sharding import Shard
from dlcli.errors import DlcliError, TrainingFailedError
from dlcli.interconnect import gpu_mebibytes
from dlcli.launch.slurm_cluster import slurm_cluster
from dlcli.layers.local_normalization import LocalBatchNormalization
from dlcli.recipe.schema import Distribution, Recipe
from dlcli.training.empty_parts import synchronize
from dlcli.training.interrupts import SIGNALS

Strategy = Literal["none", "one_device", "mirrored", "multi_worker", "tpu"]

COMMUNICATIONS = {"auto": "AUTO", "ring": "RING", "nccl": "NCCL"}
"""Value of `distribution.communication` -> member of tf.distribute.experimental.CommunicationImplementation."""


@dataclass(frozen=True)
class Choice:
    """Which devices train, before any of them is touched."""

    strategy: Strategy
    devices: tuple[str, ...]
    """Of this process: `GPU:0`, `CPU:1`."""
    why: str
    """Half a sentence: what decided."""
    workers: int = 1
    """Processes."""
    worker: int = 0
    """Which of them this one is."""

    @property
    def replicas(self) -> int:
        """Devices over all workers, each with a copy of the weights and its share of every batch."""
        return self.workers * len(self.devices)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder: the first of the workers, or the only one."""
        return self.worker == 0


def choose(settings: Distribution, environment: Mapping[str, str] = os.environ) -> Choice:
    """Which devices a recipe's training would use on this machine; nothing is created, and no other process waits.

    Args:
        settings: the recipe's section.
        environment: where TF_CONFIG and Slurm say who the workers are.

    Raises:
        DlcliError: this machine does not have what the section names.
    """
    workers, worker, by = _cluster(environment)
    gpus = tuple(f"GPU:{number}" for number in range(len(tf.config.list_physical_devices("GPU"))))
    here = gpus or ("CPU:0",)
    name = settings.strategy
    if workers > 1 and (name not in ("auto", "multi_worker") or settings.logical_devices):
        key = "logical_devices" if name == "auto" else f"strategy {name}"
        raise DlcliError(
            f"{by} names {workers} workers, and with distribution.{key} each of them would train alone: take strategy "
            "multi_worker, or unset it"
        )
    if workers > 1:
        return Choice("multi_worker", here, f"{by} names {workers} workers", workers, worker)
    if name == "multi_worker":
        raise DlcliError(
            "distribution.strategy multi_worker: neither TF_CONFIG nor Slurm names several workers; start them with "
            "`dlcli launch --workers N RECIPE`, with srun, or see `dlcli manifest --help`"
        )
    if settings.logical_devices:
        kind = "GPU" if gpus else "CPU"
        parts = tuple(f"{kind}:{number}" for number in range(settings.logical_devices))
        return Choice("mirrored", parts, f"logical_devices {len(parts)}")
    tpus = tuple(f"TPU:{number}" for number in range(len(tf.config.list_physical_devices("TPU"))))
    if name == "tpu" or (name == "auto" and (tpus or environment.get("TPU_NAME"))):
        return Choice("tpu", tpus or ("TPU:0",), "the recipe says so" if name == "tpu" else "a TPU is here")
    if name in ("one_device", "mirrored"):
        named = _named(settings.devices, gpus)
        default = here if name == "mirrored" else here[:1]
        return Choice(name, named or default, "the recipe says so")
    if name == "auto" and len(gpus) > 1:
        return Choice("mirrored", gpus, f"{len(gpus)} GPUs are here")
    why = "the recipe says so" if name == "none" else f"one {here[0].partition(':')[0]} is here"
    return Choice("none", here[:1], why)


def is_chief(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process writes and speaks: it is the first of the workers, or there are no others."""
    return _cluster(environment)[1] == 0


def _cluster(environment: Mapping[str, str]) -> tuple[int, int, str]:
    """How many workers there are, which one this is, and who says so."""
    if text := environment.get("TF_CONFIG"):
        try:
            config = json.loads(text)
            cluster, task = config.get("cluster", {}), config.get("task", {})
            chiefs, others = (len(cluster.get(kind, ())) for kind in ("chief", "worker"))
            kind, index = task.get("type", "worker"), int(task.get("index", 0))
        except (AttributeError, TypeError, ValueError) as error:
            raise DlcliError(
                "TF_CONFIG: not of the form {cluster: {worker: [host:port, ...]}, task: {type: worker, index: 0}}: "
                f"{text[:200]}"
            ) from error
        if unknown := sorted(set(cluster) - {"chief", "worker"}):
            raise DlcliError(
                f"TF_CONFIG: cluster has {', '.join(unknown)}; only chief and worker train together"
            )
        if cluster and not 0 <= index < {"chief": chiefs, "worker": others}.get(kind, 0):
            raise DlcliError(f"TF_CONFIG: task {kind} {index} is not among its {chiefs + others} workers")
        if chiefs + others < 2:
            return 1, 0, "TF_CONFIG"
        return chiefs + others, index if kind == "chief" else chiefs + index, "TF_CONFIG"
    if (step := slurm_cluster(environment)) is not None:
        return len(step.addresses), step.worker, "Slurm"
    return 1, 0, ""


def _named(devices: tuple[str, ...] | None, gpus: tuple[str, ...]) -> tuple[str, ...]:
    """The recipe's devices as TensorFlow writes them, each of which is here."""
    known = ("CPU:0", *gpus)
    found = tuple(device.strip().lstrip("/").upper() for device in devices or ())
    if missing := [device for device in found if device not in known]:
        raise DlcliError(
            f"distribution.devices: {', '.join(missing)} is not here; this machine has {', '.join(known)}"
            + (" (logical_devices cuts one into several)" if len(known) == 1 else "")
        )
    if len(set(found)) < len(found):
        raise DlcliError(f"distribution.devices: each device once; received: {', '.join(found)}")
    return found


@contextmanager
def strategy_scope(recipe: Recipe) -> Iterator[Choice]:
    """The scope in which a recipe's model is built and trained.

    Raises:
        DlcliError: the devices are not here, or the other workers cannot be reached.
    """
    settings = recipe.distribution
    choice = choose(settings)
    strategy = _strategy(choice, settings)
    if choice.strategy == "tpu":  # how many cores there are is known now
        cores = tuple(f"TPU:{number}" for number in range(strategy.num_replicas_in_sync))
        choice = replace(choice, devices=cores)
    with strategy.scope():
        if choice.replicas > 1 and choice.is_chief:
            note(f"{choice.strategy}: {described(choice)} ({choice.why})")
        elif choice.strategy == "mirrored":
            warn(f"distribution.strategy mirrored: one device is here, {choice.devices[0]}, and trains alone")
        yield choice


def described(choice: Choice) -> str:
    """`2 workers, each on CPU:0`, or `GPU:0, GPU:1`."""
    devices = ", ".join(choice.devices)
    return devices if choice.workers == 1 else f"{choice.workers} workers, each on {devices}"


@cache
def _strategy(choice: Choice, settings: Distribution) -> tf.distribute.Strategy:
    """Once a process: two strategies over the same devices get into each other's way."""
    gpu = choice.devices[0].startswith("GPU")
    if choice.strategy == "tpu":
        return _tpu()
    if choice.strategy == "multi_worker":
        if settings.communication == "nccl" and not gpu:
            raise DlcliError("distribution.communication nccl is between GPUs, and none is here: take auto")
        return _multi_worker(settings)
    if settings.logical_devices:
        _cut(choice.devices)
    if choice.strategy != "mirrored":
        return tf.distribute.OneDeviceStrategy(f"/{choice.devices[0]}")
    operations = {
        "nccl": tf.distribute.NcclAllReduce,
        "hierarchical": tf.distribute.HierarchicalCopyAllReduce,
        "reduction": tf.distribute.ReductionToOneDevice,
    }
    if settings.cross_device in ("nccl", "hierarchical") and not gpu:
        raise DlcliError(
            f"distribution.cross_device {settings.cross_device} is between GPUs, and none is here: take reduction"
        )
    cross_device = settings.cross_device or (None if gpu else "reduction")
    return tf.distribute.MirroredStrategy(
        [f"/{device}" for device in choice.devices],
        cross_device_ops=None if cross_device is None else operations[cross_device](),
    )


def _cut(devices: tuple[str, ...]) -> None:
    """Makes several devices of the first one; a GPU's memory is shared evenly."""
    kind = devices[0].partition(":")[0]
    physical = tf.config.list_physical_devices(kind)[0]
    limit = None
    if kind == "GPU":
        limit = int(0.9 * (gpu_mebibytes() or 8_192) / len(devices))  # MiB; the rest is CUDA's own
    configurations = [tf.config.LogicalDeviceConfiguration(memory_limit=limit) for _ in devices]
    try:
        tf.config.set_logical_device_configuration(physical, configurations)
    except RuntimeError as error:  # TensorFlow has begun to work
        if len(tf.config.list_logical_devices(kind)) < len(devices):
            raise DlcliError(
                f"distribution.logical_devices: this process has worked with one {kind} already; start a new one"
            ) from error


def _multi_worker(settings: Distribution) -> tf.distribute.Strategy:
    """All workers wait here for each other; TF_CONFIG is set, under Slurm by `announce_slurm`."""
    implementation = getattr(
        tf.distribute.experimental.CommunicationImplementation, COMMUNICATIONS[settings.communication]
    )
    options = tf.distribute.experimental.CommunicationOptions(implementation=implementation)
    try:
        with _ended_by_signals():
            return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        # No fault of the recipe: on a cluster another start may find them.
        raise TrainingFailedError(
            f"the workers do not find each other: {str(error).splitlines()[0][:300]}; is every one of them started, "
            "with the same list of addresses, and can they reach each other's ports?"
        ) from error


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Lets signals end a process that waits inside TensorFlow, where no handler of Python runs; nothing is lost yet."""
    try:
        before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    except ValueError:  # not the main thread: whoever embeds us handles signals
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tpu() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(os.environ.get("TPU_NAME", "local"))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise DlcliError(
            f"distribution.strategy tpu: no TPU answers ({str(error).splitlines()[0][:200]}); on a TPU machine set "
            "TPU_NAME, elsewhere take strategy auto"
        ) from error


def shard_here() -> Shard | None:
    """Which rows of every batch the devices of this process get; None where one device gets all."""
    strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return None
    here = len(strategy.extended.worker_devices)
    resolver = strategy.cluster_resolver
    # TF_CONFIG's chief comes before the workers.
    before = 0
    if resolver is not None and resolver.task_type == "worker":
        before = len(resolver.cluster_spec().as_dict().get("chief", ()))
    return Shard(replicas, (before + (resolver.task_id if resolver else 0)) * here, here)


def synchronize_normalization(networks: Iterable[keras.Model]) -> None:
    """Lets batch normalization see the whole batch where several devices share it, as one device would."""
    several = tf.distribute.get_strategy().num_replicas_in_sync > 1
    for network in networks:
        for layer in network._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                # On one device not: its fused kernel is faster, and a model of several devices may go on there.
                layer.synchronized = False
                if several and not isinstance(layer, LocalBatchNormalization):
                    synchronize(layer)
