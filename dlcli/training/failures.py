"""What went wrong while training, in words that say what to do and what is kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from dlcli.errors import DataError, NotFiniteError, OutOfMemoryError, OutputError, TrainingFailedError
from dlcli.recipe.schema import Recipe
from dlcli.runs import Run
from dlcli.tasks import GENERATIVE_TASKS


@contextmanager
def explained_failures(recipe: Recipe, run: Run | None = None) -> Iterator[None]:
    """Turns what a user can act on into a DlcliError.

    Args:
        recipe: what is being trained.
        run: its folder, once there is one.

    Raises:
        TrainingFailedError: a disk that is full (exit code 4).
        OutOfMemoryError: as it says.
        NotFiniteError: as it was raised; whoever trains says more.
        DataError: a file went bad inside the stream, or cannot be read before it begins.
    """
    try:
        yield
    except NotFiniteError:
        raise
    except TrainingFailedError as error:
        raise TrainingFailedError(f"{error}{_kept(run)}") from None
    except OutputError as error:
        raise TrainingFailedError(f"{error}{_kept(run)}") from error
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        if run is None:  # nothing has been trained: a path of the recipe that the system refuses
            raise DataError(f"{error.strerror or error}{where}") from error
        raise TrainingFailedError(f"{error.strerror or error}{where}{_kept(run)}") from error
    except MemoryError as error:
        raise _out_of_memory(recipe, error, run) from None
    except tf.errors.OpError as error:
        if (
            "No space left on device" in error.message
        ):  # ResourceExhaustedError too: TensorFlow has one class for both
            raise TrainingFailedError(f"the disk is full{_kept(run)}") from error
        if isinstance(error, tf.errors.ResourceExhaustedError) or "out of memory" in error.message.lower():
            # Not chained: the traceback would hold the tensors that are in the way.
            raise _out_of_memory(recipe, error, run) from None
        # A DataError that was raised inside the stream arrives as the text of a TensorFlow error.
        found = re.search(r"DataError: (.*)", error.message)
        if found is None:
            raise
        raise DataError(found.group(1)) from error


def _out_of_memory(recipe: Recipe, error: Exception, run: Run | None) -> OutOfMemoryError:
    first_line = str(error).splitlines()[0] if str(error) else "no memory left"
    return OutOfMemoryError(f"out of memory: {what_to_lower(recipe)} ({first_line[:200]}){_kept(run)}")


def what_to_lower(recipe: Recipe) -> str:
    """The settings that make a step smaller, as a user can type them."""
    training = recipe.training
    if training.batch_size == 1:
        return "take a smaller architecture or smaller inputs"
    smaller = f"--set training.batch_size={training.batch_size // 2}"
    if recipe.task.name in GENERATIVE_TASKS or training.gradient_accumulation >= training.batch_size:
        return f"try {smaller}, or a smaller architecture"
    parts = min(2 * training.gradient_accumulation, training.batch_size)
    return (
        f"try {smaller}; or --set training.gradient_accumulation={parts}, which keeps the batch and takes it in parts "
        "(training.on_out_of_memory=halve_batch does that by itself); or a smaller architecture"
    )


def _kept(run: Run | None) -> str:
    if run is None:
        return ""
    go_on = (
        f". Go on from the last checkpoint with: dlcli train --resume {run.path}"
        if has_checkpoint(run)
        else ""
    )
    return f". {what_is_kept(run)}{go_on}"


def what_is_kept(run: Run) -> str:
    """Whether a model survives, and where."""
    if run.model_path.is_file():
        return f"The best model so far is kept: {run.model_path}"
    return "No epoch was complete, so no model was kept"


def has_checkpoint(run: Run) -> bool:
    """Whether a run can go on, as far as names tell."""
    return any(run.checkpoints.glob("epoch-*"))
