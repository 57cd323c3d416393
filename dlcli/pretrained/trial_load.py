"""Loads a model from outside a run in a process of its own first, with limits on memory and time.

The checks of `model_file` know what a file may hold; what nobody has thought of, a crash of the HDF5 library, a
configuration that builds without end, an allocation past all bounds, ends that process and not this one. It costs the
start of TensorFlow, about 4 seconds, so that models of runs, which dlcli wrote itself, are loaded without it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from dlcli.pretrained.unfit import UnfitError

MEMORY = 4 << 30
"""Bytes that loading may take beside TensorFlow itself, and `TIMES` the size of the file."""
TIMES = 8
SECONDS = 180
"""Of which TensorFlow's start takes some; and one more for each 10 MB of the file."""
_CODE = f"import sys; from {__name__} import main; main(sys.argv[1], int(sys.argv[2]))"
_OWN_TOO_SMALL = (
    "if it is your own, split the model, or train it with dlcli: the models of runs have no such limit"
)


def try_loading(path: Path) -> None:
    """Loads a model file as `model_file.load_checked` does, in a process that is then gone.

    Args:
        path: a copy that nobody else can write to.

    Raises:
        UnfitError: what is wrong with the file, or that the process died, or came to no end.
    """
    size = path.stat().st_size
    memory, seconds = MEMORY + TIMES * size, SECONDS + size / 10e6
    try:
        # -P: nothing is imported from the folder where the user happens to be; nor by way of PYTHONPATH.
        done = subprocess.run(
            [sys.executable, "-P", "-c", _CODE, str(path), str(memory)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(_places()),
                "CUDA_VISIBLE_DEVICES": "-1",  # a GPU's driver reserves more memory than any limit
                "MALLOC_ARENA_MAX": "2",  # each thread's own arena reserves 64 MB
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UnfitError(
            f"is refused: loading it did not end within {seconds:.0f} seconds", _OWN_TOO_SMALL
        ) from error
    _judge(done.returncode, done.stdout, memory)


def _places() -> list[str]:
    """Where this process imports from, without what depends on the folder where the user happens to be."""
    return [*filter(os.path.isabs, sys.path), str(Path(__file__).resolve().parents[2])]


def _judge(code: int, answer: bytes, memory: int) -> None:
    """What the process said before it ended."""
    try:
        said = json.loads(answer.splitlines()[-1])
    except (IndexError, ValueError):
        said = None
    said = said if isinstance(said, dict) else {}
    if said.get("unfit"):
        raise UnfitError(said["unfit"], said["advice"])
    if said.get("out_of_memory"):
        raise UnfitError(
            f"is refused: loading it takes more than {said['out_of_memory'] >> 20:,} MB of memory beside TensorFlow",
            _OWN_TOO_SMALL,
        )
    if code != 0 or said != {"loaded": True}:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise UnfitError(
            f"is refused: the process that tried to load it ended with {how}: it is damaged, or takes more than "
            f"{memory >> 20:,} MB of memory beside TensorFlow"
        )


def main(path: str, memory: int) -> None:
    """In the process of its own: limits first, then the file; one line of JSON says how it went."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from dlcli.backend import load_backend

    load_backend()
    from dlcli.pretrained.model_file import load_checked

    allowed = _limit(memory)
    try:
        load_checked(Path(path))
        said: dict[str, object] = {"loaded": True}
    except UnfitError as error:
        said = {"unfit": str(error), "advice": error.advice}
        if _is_of_memory(error):
            said = {"out_of_memory": allowed}
    except MemoryError:
        said = {"out_of_memory": allowed}
    sys.stdout.write(f"\n{json.dumps(said)}\n")
    sys.stdout.flush()
    # TensorFlow's threads may need memory to end, of which there may be none left.
    os._exit(0)


def _limit(memory: int) -> int:
    """Addresses beside those in use, where the system counts them (Linux); fewer under a lower `ulimit -v`."""
    status = Path("/proc/self/statm")
    if not status.is_file():
        return memory
    used = int(status.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    allowed, most = used + memory, resource.getrlimit(resource.RLIMIT_AS)[1]
    if most != resource.RLIM_INFINITY:
        allowed = min(allowed, most)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
    return allowed - used


def _is_of_memory(error: BaseException) -> bool:
    while error.__cause__ is not None:
        error = error.__cause__
        if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
            return True
    return False
