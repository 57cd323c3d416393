"""`python -m dlcli.launch.worker train ...`: `dlcli` that does not outlive the process which started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Mapping

PARENT = "DLCLI_LAUNCHER"
"""Variable of the environment: the process that started this one."""

_PR_SET_PDEATHSIG = 1


def stay_with(parent: int) -> None:
    """Ends this process when its parent ends, in whatever way that happens: by `kill -9` too.

    A worker without its launcher would go on training where nobody looks, and keep the next one out of the run folder.
    Linux kills it at once, whatever it does: also while it waits for other workers inside TensorFlow, where Python does
    not run. Elsewhere a thread waits for the end of stdin, a pipe whose other end the parent alone holds.

    Args:
        parent: its process number; where this is no longer it, the parent has ended already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    if os.getppid() != parent:
        os._exit(-signal.SIGKILL % 256)


def _end_with_stdin() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def main(environment: Mapping[str, str] = os.environ) -> None:
    """Runs the command line as a worker."""
    if parent := environment.get(PARENT):
        stay_with(int(parent))
    from dlcli.cli.main import main as dlcli

    dlcli()


if __name__ == "__main__":
    main()
