"""Strict YAML: plain values and the position of each, or the list of everything that is wrong.

PyYAML's own loader reads YAML 1.1: `1e-3` is text, `010` is 8, `on` is True, a repeated key silently wins,
aliases can explode. This reader takes only PyYAML's event stream and gives scalars the YAML 1.2 core schema.
No tags, anchors, aliases, merge keys, directives or second documents: a recipe says all once, in one place.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml import events

from dlcli.recipe.mistakes import Mistake, Place

MAX_BYTES = 1_000_000
MAX_DEPTH = 30
MAX_NODES = 5_000
MAX_MISTAKES = 100
"""Recipes have some 50 nodes; the limits keep hostile files from costing seconds or gigabytes."""

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_PADDED = re.compile(r"[-+]?0[0-9]+")
_OCTAL_OR_HEX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_MAX_DIGITS = 400  # more than any float; Python refuses to read more than 4,300
_UNPRINTABLE = re.compile("[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAB_INDENT = re.compile(r"^ *\t", re.MULTILINE)


@dataclass
class Document:
    """What a YAML text says, and what is wrong with it.

    Attributes:
        value: dicts with text keys, lists, and scalars; None when nothing could be read.
        places: where each path stands: `("training", "epochs")`, `("dataset", "augmentation", 0)`.
        mistakes: what the text may not contain.
        complete: False when reading had to stop early, so that missing keys mean nothing.
    """

    value: Any = None
    places: dict[tuple[str | int, ...], Place] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    complete: bool = True


def read_yaml(path: Path, label: str | None = None) -> Document:
    """Reads a recipe file; whatever cannot be read is a mistake in the document.

    Args:
        path: a regular file of UTF-8 text, at most 1 MB.
        label: how messages call the file.
    """
    label = label or str(path)
    content = _read_bytes(path)
    if isinstance(content, str):
        return Document(mistakes=[Mistake(content, Place(label))], complete=False)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8").split("\n")
        line, column = len(before), len(before[-1]) + 1
        what = f"not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start}; save the file as UTF-8"
        return Document(mistakes=[Mistake(what, Place(label, line, column))], complete=False)
    return parse_yaml(text, label)


def parse_yaml(text: str, label: str) -> Document:
    """Reads YAML text; `label` stands for the file in messages."""
    document = Document()
    text = text.removeprefix("\ufeff")
    document.mistakes += _character_mistakes(text, label)
    if document.mistakes:
        document.complete = False
        return document
    reader = _Reader(document, label)
    try:
        reader.read(yaml.parse(text, Loader=yaml.SafeLoader))
    except _StopReadingError:
        document.complete = False
    except yaml.MarkedYAMLError as error:
        document.complete = False
        document.mistakes.append(_syntax_mistake(error, label))
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML: "\Uffffffff" is a bare ValueError
        document.complete = False
        document.mistakes.append(Mistake(f"not YAML: {error}", Place(label)))
    return document


def parse_scalar(text: str) -> Any:
    """The value of a plain (unquoted) scalar in YAML 1.2's core schema; text that is nothing else stays text.

    Raises:
        ValueError: the scalar reads differently elsewhere (`010`), so that it has to be quoted or rewritten.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _PADDED.fullmatch(text):
        number = re.sub(r"^([-+]?)0+(?=[0-9])", r"\1", text[:_MAX_DIGITS])
        raise ValueError(
            f"a leading zero is octal in some YAML; write {number} for the number, '{text[:40]}' for text"
        )
    if _INTEGER.fullmatch(text) or _OCTAL_OR_HEX.fullmatch(text):
        if len(text) > _MAX_DIGITS:
            raise ValueError(f"a number of {len(text)} digits; quote it if it is text")
        return int(text) if _INTEGER.fullmatch(text) else int(text, 0)
    if FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", "").lower())
    return text


class _StopReadingError(Exception):
    """Nothing sensible can be read after this."""


class _Reader:
    """Builds plain values from events, noting positions and mistakes on the way."""

    def __init__(self, document: Document, label: str) -> None:
        self.document = document
        self.label = label
        self.nodes = 0

    def read(self, stream: Iterator[events.Event]) -> None:
        documents = 0
        for event in stream:
            if isinstance(event, events.DocumentStartEvent):
                documents += 1
                if event.version not in (None, (1, 2)) or event.tags:
                    self._mistake("directives are not allowed; delete this line", event, ())
                if documents > 1:
                    self._mistake("a second document; delete this '---' and what follows", event, ())
                    raise _StopReadingError
            elif isinstance(event, events.NodeEvent):
                self.document.value = self._node(event, stream, ())

    def _mistake(
        self, what: str, event: events.Event, path: tuple[str | int, ...], received: str | None = None
    ) -> None:
        place = Place(self.label, *_line_and_column(event))
        self.document.mistakes.append(Mistake(what, place, path, received=received))
        if len(self.document.mistakes) >= MAX_MISTAKES:
            raise _StopReadingError

    def _node(self, event: Any, stream: Iterator[events.Event], path: tuple[str | int, ...]) -> Any:
        self.nodes += 1
        if len(path) > MAX_DEPTH or self.nodes > MAX_NODES:
            too_deep = len(path) > MAX_DEPTH
            what = f"nested deeper than {MAX_DEPTH} levels" if too_deep else f"more than {MAX_NODES} values"
            self._mistake(what, event, path[:3])
            raise _StopReadingError
        place = self.document.places.get(path) or Place(self.label)
        place.line, place.column = _line_and_column(event)
        self.document.places[path] = place
        if isinstance(event, events.AliasEvent):
            self._mistake(
                "aliases are not allowed; repeat the value", event, path, received=f"*{event.anchor}"
            )
            return None
        if event.anchor is not None:
            self._mistake("anchors are not allowed", event, path, received=f"&{event.anchor}")
        if event.tag is not None:
            self._mistake(
                "tags are not allowed", event, path, received=event.tag.replace("tag:yaml.org,2002:", "!!")
            )
        if isinstance(event, events.ScalarEvent):
            return self._scalar(event, path, place)
        if isinstance(event, events.SequenceStartEvent):
            return self._sequence(stream, path)
        return self._mapping(stream, path)

    def _scalar(self, event: events.ScalarEvent, path: tuple[str | int, ...], place: Place) -> Any:
        if _has_surrogates(event.value):
            self._mistake("half of a surrogate pair is no character", event, path)
            return None
        if "\0" in event.value:  # "\0" in quotes; no file's name can hold it, nor any other text of a recipe
            self._mistake("a zero byte is no text", event, path)
            return None
        if event.style is not None:
            return event.value
        place.raw = event.value
        try:
            return parse_scalar(event.value)
        except ValueError as error:
            self._mistake(str(error), event, path, received=event.value[:40])
            return None

    def _sequence(self, stream: Iterator[events.Event], path: tuple[str | int, ...]) -> list[Any]:
        values: list[Any] = []
        for event in stream:
            if isinstance(event, events.SequenceEndEvent):
                break
            values.append(self._node(event, stream, (*path, len(values))))
        return values

    def _mapping(self, stream: Iterator[events.Event], path: tuple[str | int, ...]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for event in stream:
            if isinstance(event, events.MappingEndEvent):
                break
            key = self._key(event, stream, path)
            child = (*path, key)
            line, column = _line_and_column(event)
            if key in values:
                first = self.document.places[child]
                self._mistake(f"duplicate key; the first is in line {first.key_line}", event, child)
                kept = self.document.places
                self.document.places = {}  # the second value is read for its own mistakes only
                self._node(next(stream), stream, child)
                self.document.places = kept
                continue
            self.document.places[child] = Place(self.label, key_line=line, key_column=column)
            values[key] = self._node(next(stream), stream, child)
        return values

    def _key(self, event: events.Event, stream: Iterator[events.Event], path: tuple[str | int, ...]) -> str:
        """Keys are always text, as written: class `010` stays `010`, class `no` stays `no`."""
        if not isinstance(event, events.ScalarEvent):
            self._mistake("a key must be text", event, path)
            if isinstance(event, events.AliasEvent):
                return f"*{event.anchor}"
            self._node(event, stream, (*path, "?"))
            return "?"
        if event.anchor is not None or event.tag is not None:
            self._mistake("anchors and tags are not allowed", event, path)
        if event.value == "<<" and event.style is None:
            self._mistake("merge keys are not allowed; write the keys out", event, (*path, "<<"))
        if _has_surrogates(event.value):  # no UTF-8, so pydantic could not name the key
            self._mistake("half of a surrogate pair is no character", event, path)
            return "?"
        return event.value


def _read_bytes(path: Path) -> bytes | str:
    """The file's bytes, or what is wrong with it. Never blocks on a pipe or reads a device without end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            kind = os.fstat(descriptor).st_mode
            if stat.S_ISDIR(kind):
                raise IsADirectoryError
            if not stat.S_ISREG(kind):
                return "not a regular file but a pipe, socket or device"
            content = _read_up_to(descriptor, MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        return _reason(error)
    if len(content) > MAX_BYTES:
        return f"larger than {MAX_BYTES:,} bytes; a recipe has a few thousand"
    return content


def _read_up_to(descriptor: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0 and (part := os.read(descriptor, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "is a directory, not a recipe file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "a symbolic link that points to itself"
    return f"cannot be read: {error.strerror if isinstance(error, OSError) else error}"


def _character_mistakes(text: str, label: str) -> list[Mistake]:
    """Characters that no YAML may contain, and tabs that indent."""
    found: list[Mistake] = []
    for match in itertools.islice(_UNPRINTABLE.finditer(text), 5):
        offset = len(text[: match.start()].encode("utf-8", "surrogatepass"))
        what = f"character U+{ord(match[0]):04X} (byte {offset}) is not allowed"
        found.append(Mistake(what, _place_at(text, match.start(), label)))
    for match in itertools.islice(_TAB_INDENT.finditer(text), 20):
        start = match.start() + match[0].index("\t")
        found.append(Mistake("a tab indents this line; use spaces", _place_at(text, start, label)))
    return found


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _line_and_column(event: events.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)


def _place_at(text: str, offset: int, label: str) -> Place:
    lines = re.split(r"\r\n|[\r\n]", text[:offset])
    return Place(label, len(lines), len(lines[-1]) + 1)


def _syntax_mistake(error: yaml.MarkedYAMLError, label: str) -> Mistake:
    mark = error.problem_mark or error.context_mark
    place = Place(label, mark.line + 1, mark.column + 1) if mark else Place(label)
    what = f"not YAML: {error.problem or error.context or 'cannot be read'}"
    if error.context and error.problem:
        where = f" (line {error.context_mark.line + 1})" if error.context_mark else ""
        what += f", {error.context}{where}"
    if error.problem and "cannot start any token" in error.problem:
        what += "; use spaces, not tabs" if r"\t" in error.problem else "; quote the text"
    return Mistake(what, place)
