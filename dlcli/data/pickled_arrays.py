"""Reads NumPy arrays out of pickles (CIFAR, IMDB, Reuters) without `pickle`: as data, not as the program that they are.

A pickle is a list of instructions for a small machine, which may call any function that there is. This reader knows the
instructions that make numbers, texts, lists, dictionaries and NumPy arrays, and calls nothing: an array is recognized
by how NumPy writes it, and made here from its bytes.

No file makes it take more memory or time than its length warrants: what is made is counted, and a value that may be
anything is neither hashed nor compared nor printed, because a nested tuple that holds itself twice on each level would
take twice as long for each.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

_ARRAY_MAKERS = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"}
_NO_BYTES = {"__builtin__ bytes", "builtins bytes"}
_NAMES = {"numpy ndarray", "numpy dtype", "_codecs encode", *_NO_BYTES, *_ARRAY_MAKERS}
_DTYPES = {"b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8", "O8", "O"}
_MARK = object()
_COPIES, _FREE = 16, 1 << 20  # what is made may take so many times the bytes of the file, and so many more
_REMEMBERED = 128  # bytes of an entry in a growing dictionary, with its key
_MAX_AXES = 32  # NumPy's, before 2.0
_KINDS_OF_KEYS = (bytes, str)  # no numbers, which can be chosen so that all have one hash


class _Name(str):
    """`module name` of something that NumPy's pickles call."""

    __slots__ = ()


class _Dtype:
    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "|"


class _Array:
    """An array, whose content comes after it was first named."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: np.ndarray | None = None


def read_pickle(content: bytes) -> Any:
    """The value that a pickle of plain containers and NumPy arrays describes.

    Args:
        content: of protocol 2 to 4, as Python 2 and 3 wrote them; strings of Python 2 are bytes.

    Returns:
        The value, with arrays where it is one itself or a dictionary of them.

    Raises:
        ValueError: it is cut off, damaged, would do anything else, or describes far more than it holds.
    """
    try:
        value = _Machine(content).run()
    except (IndexError, struct.error, TypeError, UnicodeDecodeError, KeyError, AttributeError) as error:
        raise ValueError(f"it is cut off or damaged ({type(error).__name__})") from None
    if isinstance(value, dict):
        return {key: _array_of(each) for key, each in value.items()}
    return _array_of(value)


def _array_of(value: Any) -> Any:
    return value.value if isinstance(value, _Array) else value


class _Machine:
    def __init__(self, content: bytes) -> None:
        self.content, self.position = content, 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.left = _FREE + _COPIES * len(content)

    def run(self) -> Any:
        """Follows the instructions up to the last one."""
        content, stack, push, position = self.content, self.stack, self.stack.append, 0
        while True:
            code = content[position]
            position += 1
            # Nearly all of a set of texts are small numbers; with its place, one takes 20 times its bytes at most.
            if code == 0x4B:  # K
                push(content[position])
                position += 1
            elif code == 0x4D:  # M
                push(content[position] | content[position + 1] << 8)
                position += 2
            elif code == 0x2E:  # the end
                return stack.pop()
            else:
                instruction = _INSTRUCTIONS.get(code)
                if instruction is None:
                    raise ValueError(f"it holds instruction {bytes([code])!r}, which arrays do not need")
                self.position = position
                instruction(self)
                position = self.position

    def take(self, count: int) -> bytes:
        """The next bytes."""
        end = self.position + count
        if end > len(self.content):
            raise ValueError("it is cut off")
        part = self.content[self.position : end]
        self.position = end
        return part

    def unpack(self, form: str) -> Any:
        """The next number, in the notation of `struct`."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        """Up to the end of the line."""
        end = self.content.find(b"\n", self.position)
        if end < 0:
            raise ValueError("it is cut off")
        text = self.content[self.position : end].decode("utf-8")
        self.position = end + 1
        return text

    def since_mark(self) -> list[Any]:
        """What was put on the stack since the last mark, and away with both."""
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("it is damaged: a mark is missing")
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def last(self, count: int) -> tuple[Any, ...]:
        """The last items of the stack."""
        if count > len(self.stack):
            raise ValueError("it is damaged: an item is missing")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        return items

    def spend(self, size: int) -> None:
        """Counts memory: one byte can make an empty dictionary of 64, and a few copy a long text again and again.

        Raises:
            ValueError: it is more than any real file takes.
        """
        self.left -= size
        if self.left < 0:
            raise ValueError("it describes far more than it holds; refused")

    def put(self, value: Any) -> None:
        """Puts something that was made on the stack."""
        self.spend(sys.getsizeof(value))
        self.stack.append(value)

    def remember(self, key: int) -> None:
        """Keeps the top of the stack under a number."""
        self.spend(_REMEMBERED)
        self.memo[key] = self.stack[-1]

    def recall(self, key: int) -> None:
        """Puts on the stack again what was kept; counted as if it were a copy, for that is what readers may make.

        Raises:
            ValueError: it could still grow after that; NumPy writes no list twice.
        """
        value = self.memo[key]
        if isinstance(value, (list, dict)):
            raise ValueError(f"it holds one {type(value).__name__} in several places")
        self.put(value)

    def extend(self, items: list[Any]) -> None:
        """Appends to the list on the stack."""
        target = _expected(self.stack[-1], list)
        before = sys.getsizeof(target)
        target.extend(items)
        self.spend(sys.getsizeof(target) - before)

    def set_items(self, items: list[Any]) -> None:
        """Keys and values, in turn, for the dictionary on the stack."""
        target = _expected(self.stack[-1], dict)
        before = sys.getsizeof(target)
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.spend(len(_expected(key, _KINDS_OF_KEYS)))  # a key is compared with the one that is there
            target[key] = value
        self.spend(sys.getsizeof(target) - before)

    def name(self, module: Any, name: Any) -> None:
        """Something of a module; only what stands in arrays.

        Raises:
            ValueError: anything else.
        """
        full = f"{_expected(module, str)} {_expected(name, str)}"
        if full not in _NAMES:
            raise ValueError(f"it names {module[:60]}.{name[:60]}, which is no part of an array")
        self.put(_Name(full))

    def call(self) -> None:
        """What a name stands for is recognized; nothing is called."""
        name, arguments = self.last(2)
        name, arguments = _expected(name, _Name), _expected(arguments, tuple)
        if name in _ARRAY_MAKERS:
            self.put(_Array())
        elif name == "numpy dtype":
            code = arguments[0].decode("ascii") if isinstance(arguments[0], bytes) else arguments[0]
            if _expected(code, str) not in _DTYPES:
                raise ValueError(f"it holds an array of {code[:20]}, and only numbers and lists are read")
            self.put(_Dtype(code))
        elif name in _NO_BYTES and not arguments:
            self.put(b"")
        elif name == "_codecs encode" and _expected(arguments[1], str) in ("latin1", "latin-1"):
            self.put(_expected(arguments[0], str).encode("latin-1"))
        else:
            raise ValueError("it calls what is no part of an array")

    def build(self) -> None:
        """Gives an array its content, or a kind of number its byte order."""
        (state,), target = self.last(1), self.stack[-1]
        state = _expected(state, tuple)
        if isinstance(target, _Dtype):
            order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
            plain = all(part is None for part in state[2:5])
            if _expected(order, str) not in ("<", ">", "|", "=") or not plain:
                raise ValueError("it holds an array of records, and only numbers and lists are read")
            target.order = order
        else:
            _, shape, dtype, columns_first, content = state
            array = _array(shape, _expected(dtype, _Dtype), columns_first, content)
            self.spend(sys.getsizeof(array) + array.nbytes)
            _expected(target, _Array).value = array


def _array(shape: Any, dtype: _Dtype, columns_first: Any, content: Any) -> np.ndarray:
    sizes = [_expected(size, int) for size in _expected(shape, tuple)[: _MAX_AXES + 1]]
    if len(sizes) > _MAX_AXES or min(sizes, default=0) < 0 or not isinstance(content, (bytes, list)):
        raise ValueError("it holds an array of no possible shape")
    if dtype.code.startswith("O"):
        items = _expected(content, list)
        array = np.empty(len(items), object)
        for index, item in enumerate(items):  # at once, NumPy would make a table of lists of one length
            array[index] = item
    else:
        array = np.frombuffer(_expected(content, bytes), np.dtype(dtype.order + dtype.code))
    if math.prod(sizes) != len(array):
        raise ValueError(f"it holds an array of shape {tuple(sizes)} with {len(array)} numbers")
    return array.reshape(sizes, order="F" if columns_first else "C")


def _expected(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"it is damaged: {type(value).__name__} in a place where it cannot be")
    return value


def _pushes(value: Any) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(value)


def _makes(make: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    return lambda machine: machine.put(make(machine))


# One instruction a letter, as in CPython's pickletools.
_INSTRUCTIONS: dict[int, Callable[[_Machine], None]] = {
    ord(letter): instruction
    for letter, instruction in {
        "\x80": lambda machine: machine.take(1),  # the protocol
        "\x95": lambda machine: machine.take(8),  # the length of a frame
        "(": _pushes(_MARK),
        "N": _pushes(None),
        "\x88": _pushes(True),
        "\x89": _pushes(False),
        "J": _makes(lambda machine: machine.unpack("<i")),
        "\x8a": _makes(
            lambda machine: int.from_bytes(machine.take(machine.unpack("B")), "little", signed=True)
        ),
        "G": _makes(lambda machine: machine.unpack(">d")),
        "U": _makes(lambda machine: machine.take(machine.unpack("B"))),
        "C": _makes(lambda machine: machine.take(machine.unpack("B"))),
        "T": _makes(lambda machine: machine.take(machine.unpack("<I"))),
        "B": _makes(lambda machine: machine.take(machine.unpack("<I"))),
        "\x8e": _makes(lambda machine: machine.take(machine.unpack("<Q"))),
        "X": _makes(lambda machine: machine.take(machine.unpack("<I")).decode("utf-8")),
        "\x8c": _makes(lambda machine: machine.take(machine.unpack("B")).decode("utf-8")),
        "]": _makes(lambda machine: []),
        "}": _makes(lambda machine: {}),
        ")": _makes(lambda machine: ()),
        "t": _makes(lambda machine: tuple(machine.since_mark())),
        "l": _makes(lambda machine: machine.since_mark()),
        "\x85": _makes(lambda machine: machine.last(1)),
        "\x86": _makes(lambda machine: machine.last(2)),
        "\x87": _makes(lambda machine: machine.last(3)),
        "a": lambda machine: machine.extend(list(machine.last(1))),
        "e": lambda machine: machine.extend(machine.since_mark()),
        "s": lambda machine: machine.set_items(list(machine.last(2))),
        "u": lambda machine: machine.set_items(machine.since_mark()),
        "q": lambda machine: machine.remember(machine.unpack("B")),
        "r": lambda machine: machine.remember(machine.unpack("<I")),
        "\x94": lambda machine: machine.remember(len(machine.memo)),
        "h": lambda machine: machine.recall(machine.unpack("B")),
        "j": lambda machine: machine.recall(machine.unpack("<I")),
        "c": lambda machine: machine.name(machine.line(), machine.line()),
        "\x93": lambda machine: machine.name(*machine.last(2)),
        "R": lambda machine: machine.call(),
        "b": lambda machine: machine.build(),
    }.items()
}
