"""A text as words and what stands between them."""

from __future__ import annotations

import unicodedata

from tokenizers import Regex, pre_tokenizers

from dlcli.data.text.tokenizers import WORDS

_SPLITTER = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
_UNSPACED_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


def split_words(text: str) -> list[str]:
    """Words and what stands between them; joined they are the text again.

    A word is what the tokenizer `word` takes for one: of scripts without spaces, such as Chinese, each character.
    """
    pieces, end = [], 0
    for word, (start, stop) in _SPLITTER.pre_tokenize_str(text):
        if is_word(word):
            if start > end:
                pieces.append(text[end:start])
            pieces.append(word)
            end = stop
    return [*pieces, text[end:]] if end < len(text) else pieces


def is_word(piece: str) -> bool:
    """Whether a piece is a word; else it is spaces and punctuation."""
    return piece[:1].isalnum()


def gap_before(word: str) -> str:
    """What stands between a word and the one before it: nothing in scripts without spaces."""
    return "" if unicodedata.name(word[0], "").startswith(_UNSPACED_SCRIPTS) else " "
