"""A folder larger than memory streams: peak memory does not grow with the number of images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_JOB = """
import json, resource, sys
import tensorflow as tf
from dlcli.data.image_folder import image_folder
source = image_folder(path=sys.argv[1])
train = source.train
indices = tf.data.Dataset.range(len(train)).batch(32)
count = sum(len(batch) for batch in indices.map(train.read, num_parallel_calls=2).prefetch(2))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"kind": type(train).__name__, "count": count, "peak_mebibytes": peak / 1024}))
"""


def make_folder(folder: Path, count: int) -> Path:
    """`count` pictures of 128x128 in two classes; noise, so that equal files are not cheaper."""
    random = np.random.default_rng(0)
    templates = [random.integers(0, 256, (128, 128, 3), dtype=np.uint8) for _ in range(8)]
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        pixels = np.roll(templates[index % 8], index, axis=0)
        Image.fromarray(pixels).save(folder / "ab"[index % 2] / f"{index:06}.jpg", quality=80)
    return folder


def measure(folder: Path) -> dict:
    environment = {**os.environ, "DLCLI_IMAGE_MEMORY": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", _JOB, str(folder)], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_number_of_images(tmp_path):
    base = 500
    results = [measure(make_folder(tmp_path / str(factor), base * factor)) for factor in (1, 4, 16)]
    assert [result["count"] for result in results] == [base, 4 * base, 16 * base]
    assert {result["kind"] for result in results} == {"FileExamples"}
    peaks = [result["peak_mebibytes"] for result in results]
    print(f"peak memory in MiB for {base}, {4 * base}, {16 * base} images: {peaks}")
    assert max(peaks) < 1.1 * peaks[0]
    # The pixels of the largest folder alone are 375 MiB; had they been kept, the peak would show it.
    assert peaks[2] - peaks[0] < 50
