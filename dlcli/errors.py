"""What the user can fix, and the exit code that says so.

0 done; 1 a bug in dlcli; 2 the user can fix it; 3 a check said no; 4 training went wrong; 130/143 interrupted.
"""

from __future__ import annotations


class DlcliError(Exception):
    """A mistake that the user can fix: shown without a traceback, exit code 2."""

    exit_code = 2


class DataError(DlcliError):
    """Data that cannot be used as it is; the message names the file, row or folder."""


class OutputError(DlcliError):
    """A file that cannot be written: a full disk, a folder without permission; the message names the file."""


class CheckFailedError(DlcliError):
    """A check that the user asked for said no (`--min accuracy=0.9`)."""

    exit_code = 3


class TrainingFailedError(DlcliError):
    """Training cannot go on: NaN loss, out of memory."""

    exit_code = 4


class NotFiniteError(TrainingFailedError):
    """A loss or a weight became NaN or infinite.

    Args:
        what: `loss`, `generator loss`, `weights`.
        value: of the loss; None for weights.
        epoch: that was on, from 0.
        step: the last one that was done in it, from 0; all were where it is left out.
    """

    def __init__(self, what: str, value: float | None, epoch: int, step: int | None = None) -> None:
        if value is None or step is None:
            super().__init__(f"{what} became NaN or infinite in epoch {epoch + 1}")
        else:
            super().__init__(f"the {what} became {value} at step {step + 1} of epoch {epoch + 1}")
        self.what, self.value, self.epoch, self.step = what, value, epoch, step


class OutOfMemoryError(TrainingFailedError):
    """A step of the training takes more memory than there is."""


class TrainingInterruptedError(DlcliError):
    """Ctrl-C (130) or SIGTERM (143); what was reached is saved."""

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code
