"""The processes of one start: what they print comes out in lines with their numbers, and none is left behind."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from dlcli.errors import DlcliError
from dlcli.launch.worker import PARENT

GRACE_SECONDS = 3.0
"""From SIGTERM to SIGKILL, for workers whose training is lost anyway."""
LONGEST_LINE = 8192
"""Bytes; a longer line comes out in pieces, so that no worker fills the memory of the launcher."""
_LAST_WORDS_SECONDS = 2.0


@dataclass(frozen=True)
class Ended:
    """A worker that has ended."""

    index: int
    code: int
    """Exit code; minus the signal's number when it was killed."""
    hung: bool = False
    """Whether it was killed by us, because it had given up answering the others."""

    def __str__(self) -> str:
        if self.hung:
            return f"worker {self.index} no longer answered the others"
        if self.code >= 0:
            return f"worker {self.index} ended with exit code {self.code}"
        return f"worker {self.index} was killed by {signal_name(-self.code)}"


def signal_name(number: int) -> str:
    """`SIGKILL`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def dlcli_command(*words: str) -> list[str]:
    """`dlcli WORDS` as a process of `Workers`.

    -P: nothing is imported from the folder where the user happens to be.
    """
    return [sys.executable, "-P", "-m", "dlcli.launch.worker", *words]


class Workers(AbstractContextManager["Workers"]):
    """One process a worker, each in a session of its own; when the block ends, none of them is left.

    Worker 0 has our stdout, where the result goes. All else that workers print goes to stderr, each line with the
    number of its worker.

    Args:
        command: that each of them runs.
        environments: one a worker.
    """

    def __init__(self, command: Sequence[str], environments: Sequence[Mapping[str, str]]) -> None:
        self._command = list(command)
        self._environments = environments
        self._processes: list[subprocess.Popen[bytes]] = []
        self._readers: list[threading.Thread] = []
        self._waiters: list[threading.Thread] = []
        self._ends: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._writing = threading.Lock()
        self._muted: set[int] = set()

    def __enter__(self) -> Workers:
        try:
            for index, environment in enumerate(self._environments):
                self._start(index, environment)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        for reader in self._readers:  # a child of a worker may hold the other end for longer
            reader.join(_LAST_WORDS_SECONDS)

    @property
    def count(self) -> int:
        """How many there are, alive or not."""
        return len(self._processes)

    @property
    def alive(self) -> tuple[int, ...]:
        """Which of them have not ended."""
        return tuple(index for index, process in enumerate(self._processes) if process.returncode is None)

    def next_end(self, seconds: float) -> Ended | None:
        """The next worker that ends, in the order in which they do; what it printed has come out by then.

        Args:
            seconds: to wait at most.

        Returns:
            None where none did.
        """
        try:
            ended = self._ends.get(timeout=seconds)
        except queue.Empty:
            return None
        self._readers[ended.index].join(_LAST_WORDS_SECONDS)
        return ended

    def send(self, number: int) -> None:
        """Sends a signal to those that are alive."""
        for index in self.alive:
            self._processes[index].send_signal(number)

    def mute(self) -> None:
        """Drops what those print from now on that are alive: how it ends for them is no news."""
        self._muted.update(self.alive)

    def stop(self) -> None:
        """Ends those that are alive: those that can do so leave in order."""
        self.send(signal.SIGTERM)
        end = time.monotonic() + GRACE_SECONDS
        while self.alive and (left := end - time.monotonic()) > 0:
            self.next_end(left)
        self.kill()

    def kill(self) -> None:
        """Ends those that are alive at once, with whatever they have started."""
        for index in self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self._processes[index].pid, signal.SIGKILL)
        for process, waiter in zip(self._processes, self._waiters, strict=True):
            waiter.join()
            if process.stdin is not None:
                process.stdin.close()

    def _start(self, index: int, environment: Mapping[str, str]) -> None:
        chief = index == 0
        try:
            process = subprocess.Popen(
                self._command,
                env={**environment, PARENT: str(os.getpid()), "PYTHONPATH": _import_paths()},
                stdin=subprocess.PIPE,  # its other end is ours alone, see `dlcli.launch.worker.stay_with`
                stdout=None if chief else subprocess.PIPE,
                stderr=subprocess.PIPE if chief else subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C on the terminal is the launcher's, who passes it on once
            )
        except OSError as error:
            raise DlcliError(
                f"worker {index} cannot be started ({error.strerror}); take fewer --workers"
            ) from error
        pipe = process.stderr if chief else process.stdout
        self._processes.append(process)
        self._readers.append(threading.Thread(target=self._pass_on, args=(index, pipe), daemon=True))
        self._waiters.append(threading.Thread(target=self._await, args=(index, process), daemon=True))
        self._readers[index].start()
        self._waiters[index].start()

    def _await(self, index: int, process: subprocess.Popen[bytes]) -> None:
        with suppress(OSError):
            if hasattr(os, "waitid"):  # until it is waited for, its number is given to nobody else
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
                os.killpg(process.pid, signal.SIGKILL)  # what it has started does not outlive it
        self._ends.put(Ended(index, process.wait()))

    def _pass_on(self, index: int, pipe: IO[bytes]) -> None:
        prefix = f"[{index}] " if len(self._environments) > 1 else ""
        with pipe:
            for line in lines_of(pipe):
                if index not in self._muted:
                    with self._writing, suppress(ValueError):  # stderr may be closed at the very end
                        sys.stderr.write(f"{prefix}{line}\n")


def lines_of(pipe: IO[bytes]) -> Iterator[str]:
    """Lines of a process, without what a bar on a terminal would have overwritten."""
    while content := pipe.readline(LONGEST_LINE):
        line = content.decode("utf-8", errors="replace").rstrip("\r\n")
        yield line.rpartition("\r")[2]


def _import_paths() -> str:
    """Where this process imports from, without what depends on the folder where the user happens to be."""
    return os.pathsep.join([*filter(os.path.isabs, sys.path), str(Path(__file__).resolve().parents[2])])
