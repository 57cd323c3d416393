"""A learnt vocabulary: text <-> token ids. Hugging Face `tokenizers` does the work, on all cores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import tokenizers

SPECIAL_TOKENS = ("<pad>", "<unk>", "<start>", "<end>", "<mask>")
"""The first ids of every vocabulary."""

PAD, UNKNOWN, START, END, MASK = range(len(SPECIAL_TOKENS))


class Tokenizer:
    """Text <-> token ids.

    Args:
        json: what `tokenizers.Tokenizer.to_str` gives; a saved model holds it.
    """

    def __init__(self, json: str) -> None:
        self.json = json
        self._tokenizer = tokenizers.Tokenizer.from_str(json)
        self._tokenizer.encode_special_tokens = True  # a text that spells `<end>` is a text, not its end

    @property
    def vocabulary_size(self) -> int:
        """Tokens, the special ones included."""
        return self._tokenizer.get_vocab_size()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, int32 (T,), without special tokens."""
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [_of_text(each.ids) for each in encoded]

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ids of each text, int32 (T,), and the characters that each token covers, int32 (T, 2)."""
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [(_of_text(each.ids), np.array(each.offsets, np.int32).reshape(-1, 2)) for each in encoded]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; special tokens are left out."""
        return self._tokenizer.decode([int(index) for index in ids], skip_special_tokens=True)

    def decode_batch(self, rows: Iterable[Iterable[int]]) -> list[str]:
        """The text of each row of ids."""
        return self._tokenizer.decode_batch([[int(index) for index in row] for row in rows])

    def token(self, index: int) -> str:
        """The token with this id, as it stands in the vocabulary."""
        return self._tokenizer.id_to_token(int(index)) or SPECIAL_TOKENS[UNKNOWN]

    def begins_words(self) -> np.ndarray:
        """Whether each token begins a word, bool (vocabulary_size,); false for word pieces that continue one."""
        tokens = [self.token(index) for index in range(self.vocabulary_size)]
        continues = any(token.startswith("##") for token in tokens)  # WordPiece marks what goes on
        marks = ("Ġ", "▁", "Ċ")  # byte-level BPE and Unigram mark what begins
        begins = any(token.startswith(marks) for token in tokens)
        if continues:
            return np.array([not token.startswith("##") for token in tokens])
        if begins:
            return np.array([token.startswith(marks) for token in tokens])
        return np.ones(len(tokens), bool)


def _of_text(ids: list[int]) -> np.ndarray:
    """No special token comes out of a text, also where Unigram, which knows them as pieces, finds one spelt out."""
    array = np.array(ids, np.int32)
    array[array < len(SPECIAL_TOKENS)] = UNKNOWN
    return array
