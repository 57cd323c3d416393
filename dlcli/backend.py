"""Loads TensorFlow and Keras, quietly and once. Call it before importing any module that needs them."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from dlcli.errors import DlcliError
from dlcli.launch.slurm_cluster import announce_slurm
from dlcli.network import obey


def load_backend() -> None:
    """Imports TensorFlow and Keras with the settings that must stand before the import.

    TensorFlow prints about missing CUDA drivers on every start, below the level that any of its variables reaches;
    that text is kept back, and shown only if the import fails.
    """
    obey()  # also in the programs that dlcli starts
    announce_slurm()
    # Level 2 still prints oneDNN's remarks on operations that it hands to another library; failures are exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise DlcliError(
            f"KERAS_BACKEND={backend}: dlcli runs on TensorFlow; unset it, or set it to tensorflow"
        )
    with (
        _stderr_held_back() if "tensorflow" not in sys.modules else nullcontext(),
        _hidden("pandas", "sklearn"),
    ):
        import keras
        import tensorflow as tf

        tf.config.list_physical_devices()  # the second place where the CUDA lines are printed
    # A user's ~/.keras/keras.json may say otherwise, and recipes do not.
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.disable_traceback_filtering()
    tf.get_logger().setLevel("ERROR")  # notes on deprecation and retracing are for us, not for who trains


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Makes packages look absent for a while.

    Keras imports pandas and scikit-learn where it finds them, for wrappers that dlcli does not use: 1.4 s of CPU and
    86 MB of every start. What needs them later imports them then.
    """
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is Python's own mark for "not there"
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
