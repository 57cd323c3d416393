"""Whether this process may use the network: `--offline` and DLCLI_OFFLINE=1 forbid it, whoever asks.

dlcli opens no connection of its own accord; what it may download, and only where it is not there yet, stands in
`dlcli.downloads` (data sets), in keras.applications (`imagenet`) and in KerasHub (`hub:`). Offline, the
interpreter itself refuses connections and lookups of names, also to libraries and to programs that dlcli starts. What
it cannot see are connections that C++ opens: TensorFlow's file systems (gs://, s3://, hdfs://), which dlcli therefore
never gives a path to.
"""

from __future__ import annotations

import os
import socket
import sys
from functools import cache
from typing import Any

from dlcli.errors import DlcliError

VARIABLE = "DLCLI_OFFLINE"
_OFF = {"", "0", "false", "no", "off"}
# Libraries that ask the network whether there is anything newer, unless they are told not to.
_OF_OTHERS = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "NO_GCE_CHECK": "true",
}
_LOOKUPS = {
    "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo",
}  # fmt: skip
_CONNECTIONS = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"}


class OfflineError(DlcliError, ConnectionError):
    """Something wanted the network, which is forbidden; to libraries an error like an unplugged cable."""


def is_offline() -> bool:
    """Whether the network is forbidden to this process."""
    return os.environ.get(VARIABLE, "").strip().lower() not in _OFF


def go_offline() -> None:
    """Forbids the network to this process and to those that it starts."""
    os.environ[VARIABLE] = "1"
    obey()


def obey() -> None:
    """Puts in force what DLCLI_OFFLINE says."""
    if is_offline():
        os.environ.update(_OF_OTHERS)
        _watch()


@cache
def _watch() -> None:
    sys.addaudithook(_refuse)  # once: it cannot be taken away again


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if not event.startswith("socket.") or not is_offline():
        return
    if event in _CONNECTIONS:
        if arguments[0].family == getattr(socket, "AF_UNIX", None):  # stays on this machine
            return
        where = arguments[1] if len(arguments) > 1 else None
        if event == "socket.bind" and isinstance(where, tuple) and where[0] == "127.0.0.1":
            return  # nobody outside this machine gets there; `dlcli launch` asks for free ports so
        place = ":".join(str(part) for part in where[:2]) if isinstance(where, tuple) else str(where)
    elif event in _LOOKUPS:
        place = str(arguments[0])
    else:
        return
    raise OfflineError(f"no connection to {place}: the network is forbidden (--offline or {VARIABLE}=1)")
