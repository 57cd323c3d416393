"""What models that were pretrained on text say of single tokens: which one is hidden, which one was replaced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlcli.data.text.tokenizer import MASK, SPECIAL_TOKENS, START, Tokenizer
from dlcli.evaluation.predict import Prediction
from dlcli.evaluation.predict_text import Reader
from dlcli.evaluation.text_inputs import TextInput

FILLINGS = 5
"""How many tokens are shown for each `<mask>`."""

REPLACED = 0.5
"""A token of this probability is shown as replaced."""


def fill_masks(reader: Reader, texts: Sequence[TextInput]) -> list[Prediction]:
    """The most probable tokens for each `<mask>` in the texts, the probabilities those of words alone."""
    reader.ends = ((START,), ())
    room = reader.room
    holds_space = _marks_spaces(reader.tokenizer)
    rows = [_with_masks(each.texts["text"], reader, holds_space) for each in texts]
    masked = [index for index, row in enumerate(rows) if MASK in row[:room]]
    found: dict[int, list[list[tuple[int, float]]]] = {}
    for number, logits in reader.outputs([rows[index] for index in masked]):
        index = masked[number]
        places = np.flatnonzero(rows[index][:room] == MASK)
        found[index] = [_best(logits[place + 1]) for place in places]
    return [
        _filled(each, rows[index], found[index], reader)
        if index in found
        else Prediction(
            each.name, reader.head, error=f"holds no {SPECIAL_TOKENS[MASK]} to fill in{_cut(rows[index])}"
        )
        for index, each in enumerate(texts)
    ]


def find_replaced(reader: Reader, texts: Sequence[TextInput]) -> list[Prediction]:
    """The probability of each token of the texts that another one stood in its place."""
    reader.ends = ((START,), ())
    rows = reader.encode([each.texts["text"] for each in texts])
    predictions: dict[int, Prediction] = {}
    for index, probabilities in reader.outputs(rows):
        ids = rows[index][: reader.room]
        values = np.asarray(probabilities, float).reshape(len(probabilities), -1)[1 : 1 + len(ids), 0]
        tokens = [
            (reader.tokenizer.decode([token]).strip() or reader.tokenizer.token(token)) for token in ids
        ]
        pairs = list(zip(tokens, values.tolist(), strict=True))
        line = " ".join(f"[{token} {value:.0%}]" if value >= REPLACED else token for token, value in pairs)
        details = {"tokens": [{"token": token, "probability": value} for token, value in pairs]}
        predictions[index] = Prediction(texts[index].name, reader.head, text=line, details=details)
    return [predictions[index] for index in range(len(texts))]


def _with_masks(text: str, reader: Reader, holds_space: bool) -> np.ndarray:
    """Ids of a text, with that of `<mask>` where the text says so; the hidden token may hold the space before it."""
    parts = text.split(SPECIAL_TOKENS[MASK])
    if holds_space:
        parts = [part.rstrip(" ") for part in parts[:-1]] + parts[-1:]
    rows = reader.encode(parts)
    reader.num_texts -= len(parts) - 1  # this is one text
    mask = np.array([MASK], np.int32)
    pieces = [piece for row in rows for piece in (row, mask)]
    return np.concatenate(pieces[:-1])


def _marks_spaces(tokenizer: Tokenizer) -> bool:
    """Whether a token that begins a word holds the space before it, as in byte-level BPE and Unigram."""
    tokens = (tokenizer.token(index) for index in range(tokenizer.vocabulary_size))
    return any(len(token) > 1 and token.startswith(("\u0120", "\u2581")) for token in tokens)


def _best(logits: np.ndarray) -> list[tuple[int, float]]:
    """The most probable tokens, without the special ones, and their probabilities."""
    words = np.asarray(logits, np.float64)[len(SPECIAL_TOKENS) :]
    shares = np.exp(words - words.max())
    shares /= shares.sum()
    best = np.argsort(-shares, kind="stable")[:FILLINGS]
    return [(int(index) + len(SPECIAL_TOKENS), float(shares[index])) for index in best]


def _filled(
    each: TextInput, row: np.ndarray, best: list[list[tuple[int, float]]], reader: Reader
) -> Prediction:
    filled = row.copy()
    places = np.flatnonzero(row == MASK)[: len(best)]
    filled[places] = [candidates[0][0] for candidates in best]
    tokenizer = reader.tokenizer
    named = [[(tokenizer.decode([token]).strip(), share) for token, share in mask] for mask in best]
    shown = " | ".join(", ".join(f"{token} {share:.1%}" for token, share in mask) for mask in named)
    details = {
        "filled": tokenizer.decode(filled),
        "masks": [[{"token": token, "probability": share} for token, share in mask] for mask in named],
    }
    return Prediction(each.name, reader.head, text=shown, details=details)


def _cut(row: np.ndarray) -> str:
    return " within the tokens that the model reads" if MASK in row else ""
