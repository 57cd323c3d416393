"""What a missing optional package says."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from dlcli.errors import DlcliError
from dlcli.extras import require


def test_what_is_there_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stand_in", ModuleType("stand_in"))  # has no spec
    require("onnx", "json", "stand_in")
    with pytest.raises(DlcliError, match=r"needs the package no-such-runtime:"):  # and not the other two
        require("onnx", "json", "stand_in", "no_such_runtime", what="ONNX export")


def test_nothing_is_imported() -> None:
    assert "wave" not in sys.modules
    require("onnx", "wave")
    assert "wave" not in sys.modules


def test_each_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(DlcliError) as caught:
        require("onnx", "json", "tf2nothing", "no_such_runtime", what="ONNX export")
    assert str(caught.value) == (
        "ONNX export needs the packages tf2nothing, no-such-runtime: pip install 'dlcli[onnx]'"
    )


def test_a_hidden_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(DlcliError, match=r"^this needs the package keras-hub: pip install 'dlcli\[hub\]'$"):
        require("hub", "keras_hub")
