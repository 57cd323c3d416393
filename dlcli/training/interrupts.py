"""Ctrl-C and SIGTERM while a training runs: the step is finished and saved; a second signal leaves at once."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from types import FrameType
from typing import Any

from dlcli.errors import TrainingInterruptedError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Remembers the first signal; whoever trains asks between two steps.

    With the second one the system's own handling is back, so that it also ends a process which hangs in TensorFlow.

    Args:
        speaks: whether the first one is answered with a line; of several workers one is enough.
    """

    def __init__(self, speaks: bool = True) -> None:
        self.speaks = speaks
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in SIGNALS:
            try:
                self._previous[number] = signal.signal(number, self._remember)
            except ValueError:  # not the main thread: whoever embeds us handles signals
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: FrameType | None) -> None:
        self.received = number
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        # Not through sys.stderr: the signal may have come while something was being written there. And never waiting
        # for whoever reads it.
        with suppress(OSError):
            if self.speaks and select.select([], [2], [], 0)[1]:
                os.write(2, b"stopping after this step, with a checkpoint; a second Ctrl-C leaves at once\n")

    @staticmethod
    def stop_if(received: int | None) -> None:
        """Ends the training if a signal came.

        Raises:
            TrainingInterruptedError: exit code 130 or 143.
        """
        if received is not None:
            raise TrainingInterruptedError("interrupted", 128 + received)
