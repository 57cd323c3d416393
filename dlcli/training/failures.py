"""What went wrong while training, in words that say what to do and what is kept."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import tensorflow as tf

from dlcli.errors import DataError, NotFiniteError, OutOfMemoryError, OutputError, TrainingFailedError
from dlcli.recipe.names import find
from dlcli.recipe.schema import Recipe
from dlcli.recipe.several_devices import OF_WHOLE_BATCHES
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
        lost = isinstance(error, (tf.errors.UnavailableError, tf.errors.AbortedError))
        several = isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy)
        if several and (lost or "heartbeat" in error.message):
            raise TrainingFailedError(
                f"another worker is gone, or cannot be reached ({error.message.splitlines()[0][:200]}){_kept(run)}"
            ) from error
        # A DataError that was raised inside the stream arrives as the text of a TensorFlow error.
        found = re.search(r"DataError: (.*)", error.message)
        if found is None:
            raise
        raise DataError(found.group(1)) from error


def _out_of_memory(recipe: Recipe, error: Exception, run: Run | None) -> OutOfMemoryError:
    first_line = str(error).splitlines()[0] if str(error) else "no memory left"
    smaller = _smaller_steps(recipe)
    go_on = _kept(run, *next(iter(smaller.items()), ()))
    return OutOfMemoryError(f"out of memory: {_what_to_lower(smaller)} ({first_line[:200]}){go_on}")


def _smaller_steps(recipe: Recipe) -> dict[str, int]:
    """Settings of which each makes a step smaller, with the next value to try; first what changes least."""
    training = recipe.training
    batch_size, parts = training.batch_size, training.gradient_accumulation
    found = {}
    loss = recipe.task.arguments.get("loss")
    of_whole_batches = isinstance(loss, str) and find(loss, OF_WHOLE_BATCHES)
    if parts < batch_size and recipe.task.name not in GENERATIVE_TASKS and not of_whole_batches:
        found["training.gradient_accumulation"] = min(2 * parts, batch_size)
    if parts <= batch_size // 2:
        found["training.batch_size"] = batch_size // 2
    return found


def _what_to_lower(smaller: Mapping[str, int]) -> str:
    """`_smaller_steps` as a user can type them."""
    if not smaller:
        return "take a smaller architecture or smaller inputs"
    said = [f"--set {key}={value}" for key, value in reversed(list(smaller.items()))]
    if "training.gradient_accumulation" in smaller:
        said[-1] += (
            ", which keeps the batch and takes it in parts (training.on_out_of_memory=halve_batch does that by itself)"
        )
    return f"try {'; or '.join(said)}; or a smaller architecture"


def _kept(run: Run | None, key: str | None = None, value: int | None = None) -> str:
    """What is left, and the command that goes on with it; of a setting that has to change, with another value."""
    if run is None:
        return ""
    if not has_checkpoint(run):
        return f". {what_is_kept(run)}"
    changed = "" if key is None else f" --set {key}={value} --allow-change {key}"
    command = f"dlcli train --resume {shlex.quote(str(run.path))}{changed}"
    return f". {what_is_kept(run)}. Go on from the last checkpoint with: {command}"


def what_is_kept(run: Run) -> str:
    """Whether a model survives, and where."""
    if run.model_path.is_file():
        return f"The best model so far is kept: {run.model_path}"
    return "No epoch was complete, so no model was kept"


def has_checkpoint(run: Run) -> bool:
    """Whether a run can go on, as far as names tell."""
    return any(run.checkpoints.glob("epoch-*"))
