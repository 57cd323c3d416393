"""One training in a run folder at a time, on one machine or on several that share a file system."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from dlcli.console import note
from dlcli.errors import DlcliError, TrainingFailedError
from dlcli.runs import LOCK

HEARTBEAT_SECONDS = 15.0
"""A holder touches the file this often, because a lock of the system may not reach to other machines."""
DEAD_AFTER_SECONDS = 120.0
"""Without a sign of life for so long, a holder on another machine counts as dead."""
_LOOK_SECONDS = 1.0
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@contextmanager
def locked(folder: Path, *, patient: bool = False) -> Iterator[None]:
    """Keeps a second training out of a run folder.

    The system lets go of a lock when its holder dies, also by `kill -9`; then the next training takes it over.

    Args:
        folder: of the run.
        patient: waits to see whether a holder on another machine is alive: a cluster starts workers again at once, and
            the first of them perhaps elsewhere.

    Raises:
        DlcliError: another process holds it; the message says which.
    """
    path = folder / LOCK
    with _open(path) as file:
        _take_over(path, file, patient)
        ours = json.dumps(_ourselves())
        file.seek(0)
        file.truncate()
        file.write(ours)
        file.flush()
        stop = threading.Event()
        heart = threading.Thread(target=_beat, args=(path, ours, stop), daemon=True)
        heart.start()
        try:
            yield
        finally:
            stop.set()
            heart.join()
            if _is(path, ours):  # the folder may be gone: that is another error's message
                path.unlink(missing_ok=True)


def _open(path: Path) -> IO[str]:
    while True:
        try:
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise DlcliError(
                f"{path}: cannot be written ({error.strerror}); a training needs to write there"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return file
            with file:
                raise _held(path, _read(file)) from error
        with suppress(OSError):
            # Between the two lines above, its holder may have removed the file.
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
        file.close()


def _take_over(path: Path, file: IO[str], patient: bool) -> None:
    """Refuses where the holder of a file without a lock of the system may be alive."""
    holder = _read(file)
    if holder is None:
        return
    if holder.get("host") == socket.gethostname():
        alive = holder.get("started") is not None and holder["started"] == _started(holder.get("pid"))
    else:
        begun = last = path.stat().st_mtime_ns
        waited = False
        while (alive := _beats(path, last)) and patient and last == begun:
            if not waited:
                note(f"{path.parent}: waiting for a sign of life of process {_named(holder)}")
            waited = True
            time.sleep(_LOOK_SECONDS)
            last = path.stat().st_mtime_ns
    if alive and holder.get("pid") != os.getpid():
        raise _held(path, holder)
    note(
        f"{path.parent}: its training ended without a farewell (process {_named(holder)}); going on in its place"
    )


def _beats(path: Path, last: int) -> bool:
    """Whether the holder of a file that was touched at `last`, in nanoseconds, may be alive."""
    # Both times are the file system's, so that no two clocks are compared.
    path.touch()
    alive = 0 <= path.stat().st_mtime_ns - last < DEAD_AFTER_SECONDS * 1e9
    if alive:
        os.utime(path, ns=(last, last))
    return alive


def _held(path: Path, holder: dict[str, Any] | None) -> DlcliError:
    who = f"process {_named(holder)}" if holder else "another process"
    elsewhere = ""
    if holder and holder.get("host") != socket.gethostname():
        elsewhere = f"; if that machine is gone, try again in {DEAD_AFTER_SECONDS:.0f} seconds"
    return DlcliError(f"{path.parent}: {who} is training there; wait for it, or stop it{elsewhere}")


def _named(holder: dict[str, Any]) -> str:
    return f"{holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"


def _read(file: IO[str]) -> dict[str, Any] | None:
    file.seek(0)
    try:
        holder = json.loads(file.read(10_000))
    except (OSError, ValueError):  # empty, or cut off by a crash
        return None
    return holder if isinstance(holder, dict) else None


def _ourselves() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def _started(pid: Any) -> str | None:
    """When a process of this machine began, in the kernel's ticks: a number given anew has another; None without it."""
    try:
        text = Path(f"/proc/{int(pid)}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()[19]
    except (OSError, ValueError, TypeError, IndexError):
        return None


def _beat(path: Path, ours: str, stop: threading.Event) -> None:
    """Gives signs of life; ends the process when another one holds the lock.

    That happens to a machine that slept for longer than DEAD_AFTER_SECONDS, where locks of the system do not reach to
    other machines: two trainings must not write into one folder, and this one is no longer its owner.
    """
    while not stop.wait(HEARTBEAT_SECONDS):
        if _is(path, ours):
            with suppress(OSError):
                os.utime(path)
        elif path.is_file():
            os.write(2, f"{path.parent}: another process has taken this run over; this one ends\n".encode())
            os._exit(TrainingFailedError.exit_code)


def _is(path: Path, content: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == content
    except (OSError, ValueError):
        return False
