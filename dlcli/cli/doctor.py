"""`dlcli doctor`."""

from __future__ import annotations

from dlcli.cli.options import JsonOption


def doctor(json_: JsonOption = False) -> None:
    """Show versions, devices and what links them, data folders, and what each optional extra would add.

    Example: dlcli doctor
    """
    from dlcli.backend import load_backend

    load_backend()
    from dlcli.doctor import examine, print_examination

    print_examination(examine(), json_)
