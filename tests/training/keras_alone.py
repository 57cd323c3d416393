"""Keras alone on two devices, and as two workers: `python keras_alone.py` prints what comes of it as JSON.

One weight, from 0, learns by SGD at rate 1 from inputs that are all 1: so each number can be checked by hand. Keras is
imported once, and copies of the process (fork) do the rest: nothing of TensorFlow runs before.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "OPENBLAS_NUM_THREADS": "1"}

import keras
import numpy as np
import tensorflow as tf

Strategy = tf.distribute.Strategy
SECONDS = 120
"""After which each process is ended."""


def network(strategy: Strategy, *, built: bool = False, **settings: Any) -> keras.Model:
    """Compiled, of one weight."""
    optimizer = settings.pop("optimizer", {})
    with strategy.scope():
        inputs = keras.Input((1,))
        layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        model = keras.Model(inputs, layer(inputs))
        model.compile(keras.optimizers.SGD(1.0, **optimizer), "mse", jit_compile=False, **settings)
        if built:
            model._symbolic_build(data_batch=(np.ones((2, 1)), np.ones((2, 1))))
    return model


def layer_of(strategy: Strategy, make: Callable[[], keras.layers.Layer], width: int) -> keras.layers.Layer:
    """Built; each replica has its own copy of its variables."""
    with strategy.scope():
        layer = make()
        layer.build((None, width))
    return layer


def dropout() -> keras.layers.Layer:
    return keras.layers.Dropout(0.5, seed=1)


def fitted(model: keras.Model, targets: list[float], batch_size: int | None = None) -> float:
    """The weight after an epoch with these targets, in one step if nothing else is said."""
    values = np.array(targets, "float32")[:, None]
    model.fit(np.ones_like(values), values, batch_size=batch_size or len(values), shuffle=False, verbose=0)
    return float(model.get_weights()[0].squeeze())


def error_of(work: Callable[[], Any]) -> str:
    """What it raises, or nothing."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 - whatever Keras raises
        return f"{type(error).__name__}: {error}"
    return ""


def copies(strategy: Strategy, value: Any) -> list[Any]:
    """Of every replica."""
    value = value.value if isinstance(value, keras.Variable) else value
    return [np.asarray(each).tolist() for each in strategy.experimental_local_results(value)]


def on_replicas(strategy: Strategy, work: Callable[[int], Any]) -> Any:
    """Results of a function of the replica's number, in one graph."""

    def numbered() -> Any:
        return work(tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group))

    return tf.function(lambda: strategy.run(numbered))()


def many_steps(strategy: Strategy) -> str:
    model = network(strategy, steps_per_execution=2)
    return error_of(lambda: model.fit(np.ones((4, 1)), np.ones((4, 1)), batch_size=2, verbose=0))


def xla(strategy: Strategy) -> str:
    model = network(strategy)
    model.jit_compile = True
    return error_of(lambda: fitted(model, [1, 1]))


def accumulation(strategy: Strategy) -> str:
    model = network(strategy, optimizer={"gradient_accumulation_steps": 2})
    return error_of(lambda: fitted(model, [1, 1]))


def clipped(strategy: Strategy) -> dict[str, float]:
    """Targets -6 and 2: gradients 12 and -4, their mean 4, cut to 1."""
    kinds = ("clipvalue", "clipnorm", "global_clipnorm")
    return {kind: fitted(network(strategy, optimizer={kind: 1.0}), [-6, 2]) for kind in kinds}


def odd_first_batch(strategy: Strategy) -> str:
    return error_of(lambda: fitted(network(strategy), [1, 2, 6]))


def odd_last_batch(strategy: Strategy) -> float:
    """A batch that changes nothing; then targets 1 and 2 for the first replica, 6 for the second: gradient -6."""
    return fitted(network(strategy), [0, 0, 0, 0, 1, 2, 6], batch_size=4)


def one_example(strategy: Strategy) -> float:
    """A batch that changes nothing; then target 3 for the first replica, nothing for the second: gradient -6."""
    return fitted(network(strategy), [0, 0, 3], batch_size=2)


def draws(strategy: Strategy) -> list[Any]:
    layer = layer_of(strategy, dropout, 64)
    return copies(strategy, on_replicas(strategy, lambda _: layer(tf.ones((1, 64)), training=True)))


def uneven_draws(strategy: Strategy) -> list[Any]:
    """States of a generator after one replica drew once, and the other twice."""
    layer = layer_of(strategy, dropout, 4)

    def draw(replica: int) -> Any:
        return [layer(tf.ones((1, 4)), training=True) for _ in range(replica + 1)][-1]

    on_replicas(strategy, draw)
    return copies(strategy, layer.seed_generator.state)


def draws_without_seed(strategy: Strategy) -> str:
    return error_of(lambda: on_replicas(strategy, lambda _: keras.random.uniform((2,))))


def moving_averages(strategy: Strategy) -> list[list[Any]]:
    """Of replicas with inputs 2 and 4, then 2 and nothing."""
    layer = layer_of(strategy, lambda: keras.layers.BatchNormalization(momentum=0.5), 1)
    return [averages_after(strategy, layer, [2.0], second) for second in ([4.0], [])]


def synchronized_averages(strategy: Strategy) -> list[list[Any]]:
    """Of replicas with inputs 2, 4 and 9, then 5 and nothing."""
    layer = layer_of(strategy, lambda: keras.layers.BatchNormalization(momentum=0.0, synchronized=True), 1)
    return [averages_after(strategy, layer, *parts) for parts in (([2.0, 4.0], [9.0]), ([5.0], []))]


def averages_after(strategy: Strategy, layer: keras.layers.Layer, *parts: list[float]) -> list[Any]:
    """A batch normalization's moving means, after a step with these inputs."""
    inputs = [tf.reshape(tf.constant(part), (-1, 1)) for part in parts]
    on_replicas(strategy, lambda number: layer(inputs[number], training=True))
    return copies(strategy, layer.moving_mean)


def normalization_in_a_loop(strategy: Strategy) -> str:
    layer = layer_of(strategy, lambda: keras.layers.BatchNormalization(synchronized=True), 1)

    def loop(_: int) -> Any:
        return tf.while_loop(
            lambda turn, _: turn < 2,
            lambda turn, x: (turn + 1, layer(x, training=True)),
            (tf.constant(0), tf.ones((2, 1))),
        )

    return error_of(lambda: on_replicas(strategy, loop))


def losses(strategy: Strategy) -> dict[str, Any]:
    """Of a loss object, of a plain function, and of a penalty, all 1 where one device has them."""
    penalty = keras.regularizers.L1(1.0)
    layer = layer_of(
        strategy, lambda: keras.layers.Dense(1, kernel_initializer="ones", kernel_regularizer=penalty), 1
    )
    loss, ones = keras.losses.MeanSquaredError(), tf.ones((1, 1))

    def found(_: int) -> Any:
        plain = keras.losses.mean_squared_error(ones, 0 * ones)
        return [loss(ones, 0 * ones), tf.reduce_mean(plain), *layer.losses]

    names = ("object", "function", "penalty")
    return {
        name: copies(strategy, value) for name, value in zip(names, on_replicas(strategy, found), strict=True)
    }


ALONE = (
    many_steps, xla, accumulation, clipped, odd_first_batch, odd_last_batch, one_example, draws, uneven_draws, draws_without_seed,
    moving_averages, synchronized_averages, normalization_in_a_loop, losses,
)  # fmt: skip


def two_devices() -> dict[str, Any]:
    """Every case, by its name."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    return {case.__name__: case(strategy) for case in ALONE}


def worker(number: int, ports: list[int]) -> dict[str, Any]:
    """What `fit` says, and what a step says that is given batches by itself."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": number}})
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    fit = error_of(lambda: fitted(network(strategy), [1, 1]))
    model = network(strategy, built=True)
    data = tf.data.Dataset.from_tensors((tf.ones((2, 1)), tf.ones((2, 1))))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    model.make_train_function()
    batches = iter(strategy.experimental_distribute_dataset(data.with_options(options)))
    return {"fit": fit, "step": error_of(lambda: model.train_function(batches))}


def written(work: Callable[[], Any], path: Path, others: list[Path]) -> None:
    """Writes what comes of it, and waits for the others: a worker that is gone would fail them."""
    try:
        found = work()
    except Exception:  # noqa: BLE001 - the test shows it
        found = {"error": traceback.format_exc()}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found), "utf-8")
    part.replace(path)
    while not all(other.exists() for other in others):
        time.sleep(0.05)


def main() -> None:
    """Two devices in one process, and two workers, at once."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    works: dict[str, Callable[[], Any]] = {
        "devices": two_devices,
        "first": lambda: worker(0, ports),
        "second": lambda: worker(1, ports),
    }
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder, f"{name}.json") for name in works}
        processes = []
        for name, work in works.items():
            processes.append(os.fork())
            if processes[-1] == 0:
                try:
                    signal.alarm(SECONDS)
                    written(work, paths[name], [] if name == "devices" else [paths["first"], paths["second"]])
                finally:
                    os._exit(0)
        for process in processes:
            os.waitpid(process, 0)
        found = {name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.exists()}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
