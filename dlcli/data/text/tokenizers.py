"""The tokenizers of a recipe: each learns its vocabulary from texts and gives a Hugging Face tokenizer.

Hugging Face's trainers of WordPiece and Unigram break ties at random, so two vocabularies of the same texts may differ
by a few pieces; that is why a run keeps its own.

The special tokens `<pad> <unk> <start> <end> <mask>` have the ids 0 to 4 in all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from dlcli.data.text.tokenizer import SPECIAL_TOKENS, UNKNOWN
from dlcli.recipe.arguments import Annotated, Field, PositiveInt

VocabularySize = Annotated[int, Field(ge=8, le=1_000_000)]

# Scripts that are written without spaces: each character is a word.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORDS = (
    rf"[{_UNSPACED}]|[\p{{L}}\p{{M}}\p{{N}}_&&[^{_UNSPACED}]]+(?:['’][\p{{L}}]+)*|[^\s\p{{L}}\p{{M}}\p{{N}}_]"  # noqa: RUF001
)
"""A word with its apostrophes, one character of an unspaced script, or one mark of punctuation."""


def word(
    texts: Iterable[str],
    *,
    vocabulary_size: VocabularySize = 20_000,
    lowercase: bool = True,
    min_frequency: PositiveInt = 1,
) -> tokenizers.Tokenizer:
    """Words and marks of punctuation; Chinese, Japanese, Thai and the like by the character.

    Args:
        texts: of the train split.
        vocabulary_size: the most frequent words that are kept; all others become `<unk>`.
        lowercase: whether `The` and `the` are one word.
        min_frequency: how often a word must occur in the train split to be kept.
    """
    tokenizer = tokenizers.Tokenizer(models.WordLevel(unk_token=SPECIAL_TOKENS[UNKNOWN]))
    tokenizer.normalizer = _normalizer(lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
    return _learn(tokenizer, trainers.WordLevelTrainer, texts, vocabulary_size, min_frequency=min_frequency)


def character(
    texts: Iterable[str], *, vocabulary_size: VocabularySize = 10_000, lowercase: bool = False
) -> tokenizers.Tokenizer:
    """Single characters, white space and line ends included; nothing is lost but rare characters.

    Args:
        texts: of the train split.
        vocabulary_size: the most frequent characters that are kept; all others become `<unk>`.
        lowercase: whether `T` and `t` are one character.
    """
    tokenizer = tokenizers.Tokenizer(models.WordLevel(unk_token=SPECIAL_TOKENS[UNKNOWN]))
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"(?m:.)"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return _learn(tokenizer, trainers.WordLevelTrainer, texts, vocabulary_size)


def byte(texts: Iterable[str], *, lowercase: bool = False) -> tokenizers.Tokenizer:
    """The 256 bytes of UTF-8: no text is unknown, and there is nothing to learn.

    Args:
        texts: of the train split.
        lowercase: whether `T` and `t` are one byte.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL_TOKENS[UNKNOWN]))
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            pre_tokenizers.Split(Regex("."), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def bpe(
    texts: Iterable[str],
    *,
    vocabulary_size: VocabularySize = 8_000,
    lowercase: bool = False,
    min_frequency: PositiveInt = 2,
) -> tokenizers.Tokenizer:
    """Byte-pair encoding on bytes (Sennrich et al. 2016; Radford et al. 2019, GPT-2): no text is unknown.

    Args:
        texts: of the train split.
        vocabulary_size: bytes and merged pairs; at least 261.
        lowercase: whether `The` and `the` are one word.
        min_frequency: how often a pair must occur to be merged.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocabulary_size < len(alphabet) + len(SPECIAL_TOKENS):
        raise ValueError(
            f"Expected vocabulary_size of at least {len(alphabet) + len(SPECIAL_TOKENS)}, for all bytes. "
            f"Received: {vocabulary_size}"
        )
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = _normalizer(lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _learn(
        tokenizer,
        trainers.BpeTrainer,
        texts,
        vocabulary_size,
        min_frequency=min_frequency,
        initial_alphabet=sorted(alphabet),
    )


def wordpiece(
    texts: Iterable[str],
    *,
    vocabulary_size: VocabularySize = 8_000,
    lowercase: bool = True,
    min_frequency: PositiveInt = 2,
) -> tokenizers.Tokenizer:
    """Word pieces (Wu et al. 2016; Devlin et al. 2018, BERT): `##` marks a piece that continues a word.

    Args:
        texts: of the train split.
        vocabulary_size: characters and pieces.
        lowercase: whether case and accents are dropped, as in BERT-uncased.
        min_frequency: how often a pair of pieces must occur to be joined.
    """
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token=SPECIAL_TOKENS[UNKNOWN]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _learn(tokenizer, trainers.WordPieceTrainer, texts, vocabulary_size, min_frequency=min_frequency)


def unigram(
    texts: Iterable[str], *, vocabulary_size: VocabularySize = 8_000, lowercase: bool = False
) -> tokenizers.Tokenizer:
    """Unigram language model (Kudo 2018), as in SentencePiece: spaces are characters, so any script works.

    Args:
        texts: of the train split.
        vocabulary_size: pieces.
        lowercase: whether `The` and `the` are one word.
    """
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.normalizer = _normalizer(lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return _learn(
        tokenizer, trainers.UnigramTrainer, texts, vocabulary_size, unk_token=SPECIAL_TOKENS[UNKNOWN]
    )


def _normalizer(lowercase: bool) -> normalizers.Normalizer:
    """NFC, so that the two ways to write an accent are one."""
    steps: list[normalizers.Normalizer] = [normalizers.NFC()]
    return normalizers.Sequence([*steps, normalizers.Lowercase()] if lowercase else steps)


_LONGEST_WORD = 10_000
"""Characters; the trainer of Unigram takes a kilobyte for each of a word, so a longer one is learnt in parts."""

_LONG_WORD = re.compile(rf"\S{{{_LONGEST_WORD}}}(?=\S)")


def _in_words(text: str) -> str:
    return text if len(text) <= _LONGEST_WORD else _LONG_WORD.sub(r"\g<0> ", text)


def _learn(
    tokenizer: tokenizers.Tokenizer,
    trainer: Any,
    texts: Iterable[str],
    vocabulary_size: int,
    **arguments: Any,
) -> tokenizers.Tokenizer:
    settings = {"vocab_size": vocabulary_size, "special_tokens": list(SPECIAL_TOKENS), "show_progress": False}
    if not isinstance(tokenizer.model, models.WordLevel):
        texts = map(_in_words, texts)
    try:
        tokenizer.train_from_iterator(texts, trainer(**settings, **arguments))
    except Exception as error:
        if type(error) is not Exception:
            raise
        # What tokenizers itself refuses: "The vocabulary is not large enough to contain all chars".
        raise ValueError(f"{error}. Received: vocabulary_size {vocabulary_size}") from error
    return tokenizer
