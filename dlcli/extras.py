"""Packages that only some work needs, and what to install when one is missing."""

from __future__ import annotations

import importlib.util

from dlcli.errors import DlcliError


def require(extra: str, *modules: str, what: str = "this") -> None:
    """Says which package of an extra is missing, before the work that needs it begins; imports nothing.

    Args:
        extra: of pyproject.toml, as in `pip install 'dlcli[onnx]'`.
        modules: the packages as Python imports them: `tf2onnx`, `keras_hub`.
        what: begins the sentence: what needs them.

    Raises:
        DlcliError: one of them is not installed.
    """
    missing = [name.replace("_", "-") for name in modules if not _is_installed(name)]
    if missing:
        packages = f"the package{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
        raise DlcliError(f"{what} needs {packages}: pip install 'dlcli[{extra}]'")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # it is imported already and has no spec, as one that a test puts in its place
        return True
