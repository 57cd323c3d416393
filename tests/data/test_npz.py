"""Arrays of .npz files that nobody trusts."""

import io
import warnings
import zipfile

import numpy as np
import pytest

from dlcli.data import npz
from dlcli.errors import DataError


def write(path, **contents):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(f"{name}.npy", content)
    return path


def plain(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def header(shape, kind="|u1"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": kind, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def raw_header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def test_arrays_are_read(tmp_path):
    path = write(tmp_path / "a.npz", a=plain(np.arange(3)), b=plain(np.eye(2)))
    found = npz.read_npz(path, ("a", "b"))
    assert found["a"].tolist() == [0, 1, 2]
    assert found["b"].tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header((10**15,)), r"claims the shape \(1000000000000000,\)"),
        (header((-1,)) + b"x", "not a readable"),
        (header((2**33, 2**33)), "claims the shape"),
        (header((10**15,), "|S0"), r"array of \|S0"),
        (header((10**15,), "|V0"), r"array of \|V0"),
        (header((1,), [("a", "O")]) + b"cos\nsystem\n.", "an array of "),
        (header((1,), "<M8[s]") + bytes(8), "array of datetime64"),
        (header((0, 2**70)), "claims the shape"),
        (header((-1, -1)) + b"x", "claims the shape"),
        (raw_header("("), "header is damaged"),
        (raw_header("{[]: 1}"), "header is damaged"),
        (raw_header("-" * 9_000 + "1"), "header is damaged"),
        (b"no array", "not a readable"),
        (header((1,), "|O") + b"cos\nsystem\n.", r"names os\.system"),
    ],
)
def test_what_claims_more_than_it_holds_or_is_no_array_is_refused(content, message, tmp_path):
    with pytest.raises(DataError, match=message):
        npz.read_npz(write(tmp_path / "a.npz", a=content), ("a",))


def test_bombs_duplicates_and_masses_of_entries_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("a.npy", plain(np.arange(3)))
        archive.writestr("a.npy", plain(np.arange(4)))
    with pytest.raises(DataError, match="twice"):
        npz.read_npz(path, ("a",))
    monkeypatch.setattr(npz, "MAX_MEMBER", 10_000)
    with pytest.raises(DataError, match="unpacks to 20,128 bytes; refused"):
        npz.read_npz(write(path, a=plain(np.zeros(20_000, "u1"))), ("a",))
    monkeypatch.setattr(npz, "MAX_MEMBERS", 2)
    with pytest.raises(DataError, match="more than 2 entries"):
        npz.read_npz(write(path, a=b"", b=b"", c=b""), ("a",))


def test_an_encrypted_entry_is_named(tmp_path):
    path = write(tmp_path / "a.npz", a=plain(np.arange(3)))
    raw = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(mark) + offset] |= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="encrypted"):
        npz.read_npz(path, ("a",))
