"""Pickles of arrays, read without `pickle`: what NumPy writes comes back, and all else is refused."""

import contextlib
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from dlcli.data.pickled_arrays import read_pickle

random = np.random.default_rng(0)


def ragged(lists):
    array = np.empty(len(lists), dtype=object)
    for index, each in enumerate(lists):
        array[index] = each
    return array


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize(
    "array",
    [
        random.integers(0, 256, (3, 40), dtype=np.uint8),
        random.integers(-(2**40), 2**40, 5),
        random.normal(size=(2, 3)).astype(">f4"),
        np.asfortranarray(random.integers(0, 9, (2, 3))),
        np.array([True, False]),
        np.array(7.5),
        np.zeros((0, 4), "i4"),
    ],
    ids=str,
)
def test_arrays_come_back_as_they_were(protocol, array):
    back = read_pickle(pickle.dumps(array, protocol=protocol))
    np.testing.assert_array_equal(back, array)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_plain_values_and_lists_in_arrays_come_back(protocol):
    lists = [[1, 255, 256, 65_535, 65_536, -3, 2**70], [], [5, 6], [7, 8]]
    value = {
        b"data": np.arange(4),
        "labels": lists[0],
        "all": [None, True, False, 1.5, "é", b"\xff", (1, (2, 3), ()), {}],
    }
    back = read_pickle(pickle.dumps(value, protocol=protocol))
    np.testing.assert_array_equal(back.pop(b"data"), value.pop(b"data"))
    assert back == value
    assert read_pickle(pickle.dumps(ragged(lists), protocol=protocol)).tolist() == lists


def test_strings_of_python_2_are_bytes():
    # {'labels': [3], 'data': array([1, 2], dtype=uint8)} as Python 2.7's cPickle wrote CIFAR's batches
    content = (
        b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03K\x03aU\x04dataq\x04cnumpy.core.multiarray\n_reconstruct\nq\x05"
        b"cnumpy\nndarray\nq\x06K\x00\x85q\x07U\x01bq\x08\x87q\tRq\n(K\x01K\x02\x85q\x0bcnumpy\ndtype\nq\x0c"
        b"U\x02u1q\rK\x00K\x01\x87q\x0eRq\x0f(K\x03U\x01|q\x10NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x11b"
        b"\x89U\x02\x01\x02q\x12tq\x13bu."
    )
    back = read_pickle(content)
    assert back[b"labels"] == [3]
    assert back[b"data"].tolist() == [1, 2]


class Calls:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def dtype_with_flags(flags):
    """An array of objects whose kind of number claims to hold none: its bytes would be taken for addresses."""
    state = (3, "|", None, None, None, -1, -1, flags)
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R("
        b"K\x01K\x01\x85cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R"
        + pickle.dumps(state, protocol=2)[2:-1]
        + b"b\x89U\x08AAAAAAAAtb."
    )


# A tuple that holds the one below twice, and so on: to hash or print it takes twice as long for each level.
DEEP = b")" + b"q\x00h\x00\x86" * 22
ARRAY, U1 = b"cnumpy.core.multiarray\n_reconstruct\n)R", b"cnumpy\ndtype\nU\x02u1\x85R"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Calls(exec, "1/0")), r"names builtins\.exec"),
        (pickle.dumps(Calls(print, "x"), protocol=2), r"names __builtin__\.print"),
        (pickle.dumps([Calls(np.load, "x")]), "names numpy"),
        (pickle.dumps(Calls(np.ndarray, (10**6,), "O")), "calls what is no part"),
        (pickle.dumps(Calls(np.dtype, "M8[s]")), r"array of M8\[s\]"),
        (pickle.dumps(np.zeros(2, [("a", "i4"), ("b", "f4")])), "array of V8"),
        (pickle.dumps(np.array(["a", "b"])), "array of U1"),
        (dtype_with_flags(0), "bytes in a place"),
        (pickle.dumps(Calls(bytes.fromhex, "00")), r"names builtins\.getattr"),
        (b"\x80\x02cos\nsystem\nU\x02idq\x00\x85R.", r"names os\.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", r"names os\.system"),
        (b"(S'id'\nios\nsystem\n.", "instruction b'S'"),
        (b"\x80\x02Pid\n.", "instruction b'P'"),
        (b"\x80\x02\x82\x01.", r"instruction b'\\x82'"),
        (b"", "cut off"),
        (b"\x80\x02}q\x01(U\x06lab", "cut off"),
        (b"\x80\x02K\x01u.", "mark is missing"),
        (b"\x80\x02\x86.", "item is missing"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x02}(]K\x01u.", "list in a place"),
        (b"\x80\x02" + DEEP + b")R.", "tuple in a place"),
        (b"\x80\x02" + DEEP + DEEP + b"\x93.", "tuple in a place"),
        (b"\x80\x02cnumpy\ndtype\n" + DEEP + b"\x85R.", "tuple in a place"),
        (b"\x80\x02}" + DEEP + b"Ns.", "tuple in a place"),
        (b"\x80\x02}\x8a\x09" + b"\xff" * 8 + b"\x00Ns.", "int in a place"),
        (b"\x80\x02" + ARRAY + b"(N(" + b"K\x01" * 33 + b"t" + U1 + b"NC\x01atb.", "no possible shape"),
        (b"\x80\x02]q\x00h\x00a.", "one list in several places"),
        (b"\x80\x02}q\x00h\x00\x86.", "one dict in several places"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_else_is_refused_and_nothing_is_called(content, message, monkeypatch):
    monkeypatch.setattr(pickle, "Unpickler", None)
    with pytest.raises(ValueError, match=message):
        read_pickle(content)


def test_a_short_text_cannot_describe_gigabytes():
    text = b"X" + struct.pack("<I", 100_000) + b"a" * 100_000 + b"q\x00"
    again = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    with pytest.raises(ValueError, match="far more than it holds"):
        read_pickle(b"\x80\x02](" + text + again * 1_000 + b"e.")


@pytest.mark.parametrize(
    "unit",
    [
        *(
            b"}",
            b"]",
            b"N\x94",
            b"N\x85",
            b"]Na",
            b"}C\x00Ns",
            b"U\x02ab",
            b"M\x00\x10",
            b"N",
            b"\x8c\x02\xc4\x80",
        ),
        ARRAY,
        U1,
        b"cnumpy\nndarray\n",
        b"(q\x00K\x00j\x00\x00\x00\x00",
    ],
    ids=repr,
)
def test_no_file_takes_more_memory_than_its_bytes_allow(unit):
    content = b"\x80\x02(" + unit * (600_000 // len(unit)) + b"t."
    tracemalloc.start()
    try:
        with contextlib.suppress(ValueError):
            read_pickle(content)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < (1 << 20) + 32 * len(content)


def test_one_long_value_in_many_places_is_counted_in_each():
    long = b"(" + b"K\x01" * 10_000 + b"tq\x00"
    with pytest.raises(ValueError, match="far more than it holds"):
        read_pickle(b"\x80\x02](" + long + b"h\x00" * 1_000 + b"e.")


def test_every_cut_and_every_changed_byte_ends_in_an_answer():
    content = pickle.dumps({b"data": np.arange(6, dtype="u1"), b"labels": [1, 300], b"n": [b"x"]}, protocol=2)
    for length in range(len(content)):
        with pytest.raises(ValueError, match="it "):
            read_pickle(content[:length])
    changed = bytearray(content)
    for position in range(len(content)):
        for value in (0x00, 0x28, 0x52, 0x62, 0x71, 0xFF):
            kept, changed[position] = changed[position], value
            with contextlib.suppress(ValueError):
                read_pickle(bytes(changed))
            changed[position] = kept
