"""Documents before they are tokens: strings in one block of bytes, which may lie on the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy

import numpy as np

CHUNK = 4096
"""Texts that are decoded and tokenized at once, at most."""

CHUNK_BYTES = 16 * 2**20
"""Fewer of them, when they are longer than this together."""


class Texts(Sequence[str]):
    """N strings, stored as UTF-8 in one array of bytes; a memory-mapped one is read page by page.

    Args:
        data: uint8, the bytes of all the texts.
        starts: int64 (N,), where each text begins.
        ends: int64 (N,), where it ends.
    """

    def __init__(self, data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        self.data = data
        self.starts = starts
        self.ends = ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Texts in memory. A lone surrogate, which no UTF-8 can hold, becomes `?`."""
        encoded = [text.encode("utf-8", errors="replace") for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]]) if len(ends) else ends
        return cls(np.frombuffer(b"".join(encoded), np.uint8), starts, ends)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # no slices: `subset` takes indices
        return self.data[self.starts[index] : self.ends[index]].tobytes().decode("utf-8", errors="replace")

    def subset(self, indices: np.ndarray) -> Texts:
        """The texts at `indices`: a view."""
        return Texts(self.data, self.starts[indices], self.ends[indices])

    def chunks(self, size: int = CHUNK) -> Iterator[list[str]]:
        """All texts in order, up to `size` at a time, and up to CHUNK_BYTES; memory holds one chunk."""
        chunk: list[str] = []
        held = 0
        for index in range(len(self)):
            length = int(self.ends[index] - self.starts[index])
            if chunk and (len(chunk) == size or held + length > CHUNK_BYTES):
                yield chunk
                chunk, held = [], 0
            chunk.append(self[index])
            held += length
        if chunk:
            yield chunk

    def digest(self) -> str:
        """sha256 over all the texts and where they end."""
        digest = hashlib.sha256()
        for start in range(0, len(self), CHUNK):
            for index in range(start, min(start + CHUNK, len(self))):
                digest.update(self.data[self.starts[index] : self.ends[index]].data)
        digest.update(np.ascontiguousarray(self.ends - self.starts).data)
        return digest.hexdigest()


class TextExamples:
    """Raw examples of text, as a source gives them; `Task.sequences` makes tokens of them.

    Args:
        columns: name -> N texts. `text` for documents; `source` and `target` for pairs; `question`, `context`
            and `answers` (a JSON list of strings) for questions; `words` and `tags` (each separated by one space)
            for tagged sentences.
        targets: int32 (N,) classes, float32 (N, K) labels, int32 (N, 2) first and one past the last character of
            an answer (-1, -1 for none); zeros (N,) where the text is all there is.
    """

    def __init__(self, columns: Mapping[str, Texts], targets: np.ndarray) -> None:
        lengths = {len(texts) for texts in columns.values()}
        if lengths != {len(targets)}:
            raise ValueError(f"Expected as many targets as texts. Received: {lengths} and {len(targets)}")
        self.columns = dict(columns)
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: np.ndarray) -> TextExamples:
        """The examples at `indices`: a view."""
        part = copy(self)
        part.columns = {name: texts.subset(indices) for name, texts in self.columns.items()}
        part.targets = self.targets[indices]
        return part

    def read(self, indices: Iterable[int]) -> dict[str, list[str]]:
        """The texts at `indices` themselves."""
        chosen = [int(index) for index in indices]
        return {name: [texts[index] for index in chosen] for name, texts in self.columns.items()}
