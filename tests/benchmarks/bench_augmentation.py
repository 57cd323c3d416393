"""Speed of the input pipeline: `python tests/benchmarks/bench_augmentation.py [stream|augmentation]`.

Prints microseconds a step of the bare training stream beside Keras's own for arrays, and images a CPU-second
of every augmentation on one core. Each is the best of several repetitions: other processes disturb it less.
"""

from __future__ import annotations

import gc
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter

from dlcli.data import IMAGE_AUGMENTATIONS
from dlcli.data.augmentation import Position, build_augment
from dlcli.data.examples import ArrayExamples
from dlcli.data.stream import training_stream
from dlcli.recipe.schema import Spec

REPETITIONS = 5


@tf.function
def drain(iterator, count):
    """Take `count` batches without Python between them, as `fit` does."""
    total = tf.constant(0.0)
    for _ in tf.range(count):
        images, _ = next(iterator)
        total += tf.cast(tf.reshape(images, [-1])[0], tf.float32)
    return total


def seconds_of(work):
    """(CPU, wall) seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def bench_stream(steps=3000):
    images = np.random.default_rng(0).integers(0, 256, (50_000, 32, 32, 3)).astype("uint8")
    targets = (np.arange(50_000) % 10).astype("int32")
    examples = ArrayExamples(images, targets)
    for batch_size in (32, 128):
        streams = {
            "keras fit(x, y)": ArrayDataAdapter(images, targets, batch_size=batch_size, shuffle=True)
            .get_tf_dataset()
            .repeat(),
            "training_stream": training_stream(examples, batch_size=batch_size, seed=0),
        }
        spent = {name: [] for name in streams}
        for _ in range(REPETITIONS):
            for name, stream in streams.items():
                iterator = iter(stream)
                drain(iterator, tf.constant(50))
                spent[name].append(seconds_of(lambda iterator=iterator: drain(iterator, tf.constant(steps))))
                # A living iterator fills its prefetch buffer in the background while the next is measured.
                del iterator
                gc.collect()
        for name, rows in spent.items():
            cpu, wall = (min(column) / steps * 1e6 for column in zip(*rows, strict=True))
            print(f"batch {batch_size:4d}  {name:16s} {cpu:6.0f} us/step CPU  {wall:6.0f} us/step wall")


def bench_augmentation(batch_size=128, rounds=10):
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (batch_size, 32, 32, 3)).astype("uint8"))
    targets = tf.one_hot(tf.range(batch_size) % 10, 10)
    crop_flip = (Spec(name="random_flip", alternate=True), Spec(name="random_crop", padding=2))
    lists = {**{name: (Spec(name=name),) for name in IMAGE_AUGMENTATIONS}, "flip + crop": crop_flip}
    for name, specs in lists.items():
        augment = build_augment(specs)

        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)])
        def run(step, augment=augment):
            return augment(images, targets, Position.of(0, step, step // 10, tf.range(tf.shape(images)[0])))[
                0
            ]

        def work(run=run):
            for step in range(rounds):
                run(tf.constant(step, tf.int64))

        work()
        cpu = min(seconds_of(work)[0] for _ in range(REPETITIONS)) / rounds
        print(f"{name:20s} {batch_size / cpu / 1e3:6.0f} k images/CPU-s {cpu * 1e6:7.0f} us a batch")


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["stream", "augmentation"]
    if chosen == ["augmentation"]:
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.config.threading.set_intra_op_parallelism_threads(1)
    if "stream" in chosen:
        bench_stream()
    if "augmentation" in chosen:
        bench_augmentation()
