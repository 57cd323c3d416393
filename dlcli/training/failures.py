"""What went wrong while training, in words that say what to do and what is kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from dlcli.errors import DataError, OutputError, TrainingFailedError
from dlcli.recipe.schema import Recipe
from dlcli.runs import Run


@contextmanager
def explained_failures(recipe: Recipe, run: Run | None = None) -> Iterator[None]:
    """Turns what a user can act on into a DlcliError.

    Args:
        recipe: what is being trained.
        run: its folder, once there is one.

    Raises:
        TrainingFailedError: NaN, out of memory, a disk that is full (exit code 4).
        DataError: a file went bad inside the stream.
    """
    try:
        yield
    except TrainingFailedError as error:
        raise TrainingFailedError(f"{error}{_kept(run)}") from None
    except OutputError as error:
        raise TrainingFailedError(f"{error}{_kept(run)}") from error
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise TrainingFailedError(f"{error.strerror or error}{where}{_kept(run)}") from error
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        if "No space left on device" in str(error):  # TensorFlow has one class for both
            raise TrainingFailedError(f"the disk is full{_kept(run)}") from error
        first_line = str(error).splitlines()[0] if str(error) else "no memory left"
        raise TrainingFailedError(
            f"out of memory: try --set training.batch_size={max(1, recipe.training.batch_size // 2)}, or a smaller "
            f"architecture ({first_line[:200]}){_kept(run)}"
        ) from error
    except tf.errors.OpError as error:
        # A DataError that was raised inside the stream arrives as the text of a TensorFlow error.
        found = re.search(r"DataError: (.*)", error.message)
        if found is None:
            raise
        raise DataError(found.group(1)) from error


def _kept(run: Run | None) -> str:
    return f". {what_is_kept(run)}" if run is not None else ""


def what_is_kept(run: Run) -> str:
    """Whether a model survives, and where."""
    if run.model_path.is_file():
        return f"The best model so far is kept: {run.model_path}"
    return "No epoch was complete, so no model was kept"
