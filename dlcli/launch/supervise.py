"""Workers that train together, watched over: when one dies all end, and start again from the last checkpoint."""

from __future__ import annotations

import shlex
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlcli.console import warn
from dlcli.errors import DlcliError, TrainingFailedError, TrainingInterruptedError
from dlcli.launch.workers import Ended, Workers
from dlcli.training.interrupts import Interrupts

SETTLE_SECONDS = 5.0
"""After the first worker has ended with an exit code, others may be on the way to the same end, with more to say."""
NOTICE_SECONDS = 20.0
"""In which a worker notices that another one is gone, and ends with exit code 4; measured: 9 to 11 s."""
FAREWELL_SECONDS = 30.0
"""After the first one has ended because of Ctrl-C, or after worker 0 has ended its work, for the others to end too."""
_POLL_SECONDS = 0.1
_ORDERLY = {130, 143, -signal.SIGINT, -signal.SIGTERM}
"""Exit codes of workers that were asked to end: they have saved what they reached."""


@dataclass(frozen=True)
class Launch:
    """What is launched.

    Args:
        command: that each worker runs, the same for all of them.
        environments: makes the environment of each worker; called at every start, as ports are to be free then.
        run: the run folder, for messages, and to see whether a start brought the training on.
        max_restarts: starts after the first.
        go_on: the command of a user that continues the run.
    """

    command: Sequence[str]
    environments: Callable[[], Sequence[Mapping[str, str]]]
    run: Path
    max_restarts: int
    go_on: Sequence[str]


def supervise(launch: Launch) -> None:
    """Runs the workers until worker 0 has ended its work.

    Raises:
        TrainingInterruptedError: Ctrl-C or SIGTERM, here or at a worker.
        WorkerFailedError: a worker was killed too often, or failed in a way that another start would not mend; what it
            said itself is out.
    """
    last: _Failure | None = None
    with Interrupts() as interrupts:
        for restart in range(launch.max_restarts + 1):
            before = newest_checkpoint(launch.run)
            if last is not None:
                where = f"the checkpoint {before}" if before else "the beginning"
                warn(f"{last}; all start again from {where} (restart {restart} of {launch.max_restarts})")
            ended = _run_once(launch, interrupts)
            if ended.code == 0:
                return
            failure = _Failure(ended, progress=newest_checkpoint(launch.run) != before)
            if ended.code in _ORDERLY or (interrupts.received is not None and ended.code < 0):
                raise _interrupted(failure, interrupts.received, launch)
            if interrupts.received is not None or not _is_worth_a_restart(failure, last):
                how = "" if ended.code == 2 else _how_to_go_on(launch)  # something has to be put right first
                raise WorkerFailedError(f"{failure}{how}", ended.code)
            last = failure
    left = f"{launch.max_restarts} restarts are used up" if launch.max_restarts else "no restart is allowed"
    code = ended.code if ended.code > 0 else TrainingFailedError.exit_code
    raise WorkerFailedError(f"{last}, and {left} (--max-restarts){_how_to_go_on(launch)}", code)


class WorkerFailedError(DlcliError):
    """A worker failed; exit code: its own, or 4 when it was killed."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class _Failure:
    ended: Ended
    progress: bool
    """Whether there was a new checkpoint since the start."""

    def __str__(self) -> str:
        why = (
            " (by hand, or for want of memory)"
            if self.ended.code == -signal.SIGKILL and not self.ended.hung
            else ""
        )
        return f"{self.ended}{why}"


def newest_checkpoint(run: Path) -> str | None:
    """Its name, as far as names tell; None without any."""
    return max((path.name for path in run.glob("checkpoints/epoch-*")), default=None)


def _is_worth_a_restart(failure: _Failure, last: _Failure | None) -> bool:
    """Whether another start may end otherwise.

    The recipe and the data are as they are (2), a check said no (3), and NaN or a step that does not fit into memory
    come again at the same step, since the training would be the same (4). What ends with a traceback (1) may be a fault
    of a device or a connection: it gets another chance, and more of them while there is progress in between. Who was
    killed starts again.
    """
    code = failure.ended.code
    if code == 1:
        return failure.progress or last is None or last.ended.code != 1
    return code not in (2, 3, 4)


def _interrupted(failure: _Failure, received: int | None, launch: Launch) -> TrainingInterruptedError:
    code = failure.ended.code
    number = received if received is not None else (code - 128 if code > 0 else -code)
    who = f"{failure}: someone asked it to" if received is None else "interrupted"
    return TrainingInterruptedError(f"{who}{_how_to_go_on(launch)}", 128 + number)


def _how_to_go_on(launch: Launch) -> str:
    if newest_checkpoint(launch.run) is None:
        return ""
    return f". Go on from the last checkpoint with: {shlex.join(launch.go_on)}"


def _run_once(launch: Launch, interrupts: Interrupts) -> Ended:
    """One start of all workers, whose temporary files do not outlast it: who is killed leaves some."""
    with tempfile.TemporaryDirectory(prefix="dlcli-launch-", ignore_cleanup_errors=True) as temporary:
        environments = [{**each, "TMPDIR": temporary} for each in launch.environments()]
        with Workers(launch.command, environments) as workers:
            return _watch(workers, interrupts)


def _watch(workers: Workers, interrupts: Interrupts) -> Ended:
    """Waits for the end of all workers, and brings it about when one has failed.

    Returns:
        The end that counts: of worker 0, or of the one that took the others with it.
    """
    ends: list[Ended] = []
    asked = leaving = False
    deadline, hung = float("inf"), False
    while len(ends) < workers.count and time.monotonic() < deadline:
        if interrupts.received is not None and not asked:
            workers.send(interrupts.received)
            asked = leaving = True
        ended = workers.next_end(_POLL_SECONDS)
        if ended is None:
            continue
        ends.append(ended)
        if ended.code != 0 and ended.code not in _ORDERLY and not leaving:
            ends += _settle(workers, ended, interrupts)
            hung = {each.code for each in ends} == {TrainingFailedError.exit_code} and not interrupts.received
            break
        # Not when one ends well before worker 0: that still evaluates, draws and writes.
        leaving = leaving or ended.code != 0 or ended.index == 0
        if leaving:
            deadline = min(deadline, time.monotonic() + FAREWELL_SECONDS)
    silent = workers.alive[:1] if hung else ()
    workers.mute()
    workers.stop()
    if silent:
        return Ended(silent[0], -signal.SIGKILL, hung=True)
    return _which_counts(ends, asked)


def _settle(workers: Workers, first: Ended, interrupts: Interrupts) -> list[Ended]:
    """The workers that end soon after the first one.

    Who is killed leaves the others waiting for it in the middle of a step, and they have nothing to say for themselves.
    But with an exit code they may all be on the way out for the same reason, or the first one only because it saw a
    connection close, before the one that closed it had ended. TensorFlow too aborts processes that lose another.

    Who ends with exit code 4 may have run out of memory, and the others notice; or has lost another one, and where that
    is still here after a while, it hangs.
    """
    found: list[Ended] = []
    if first.code < 0 and first.code != -signal.SIGABRT:
        return found
    seconds = NOTICE_SECONDS if first.code == TrainingFailedError.exit_code else SETTLE_SECONDS
    end = time.monotonic() + seconds
    while len(found) < workers.count - 1 and time.monotonic() < end and interrupts.received is None:
        if (ended := workers.next_end(_POLL_SECONDS)) is not None:
            found.append(ended)
    return found


def _which_counts(ends: Sequence[Ended], asked: bool) -> Ended:
    chief = next((ended for ended in ends if ended.index == 0), Ended(0, -signal.SIGKILL))
    if chief.code == 0 or asked:
        return chief
    return min((ended for ended in ends if ended.code != 0), key=_weight, default=chief)


def _weight(ended: Ended) -> int:
    """Smaller for what can be the cause of the others: a worker whose peer is gone ends with exit code 4."""
    if ended.code in _ORDERLY:
        return 0
    if ended.code in (2, 3):
        return 1
    return 4 if ended.code == 4 else 3 if ended.code in (1, -signal.SIGABRT) else 2
