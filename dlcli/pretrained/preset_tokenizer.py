"""The tokenizer of a preset as one of dlcli: the same tokens, with the special ones first."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from dlcli.data.text.tokenizer import PAD, SPECIAL_TOKENS, START, UNKNOWN, Tokenizer
from dlcli.errors import DlcliError
from dlcli.layers.token_ids import preset_ids


@dataclass(frozen=True)
class Vocabulary:
    """dlcli's tokenizer of a preset, and how its ids become the preset's."""

    tokenizer: Tokenizer
    preset_size: int
    """Tokens of the preset."""
    special_ids: tuple[int, ...]
    """The preset's ids of `<pad> <unk> <start> <end> <mask>`."""
    notes: tuple[str, ...] = ()


def convert_tokenizer(preset: str, source: str) -> Vocabulary:
    """Reads a preset's vocabulary and rules through KerasHub.

    Word pieces are split as Hugging Face and BERT's authors do: KerasHub joins words at spaces beyond ASCII, keeps
    accents where a folder in Hugging Face's form drops them, and folds case further (sharp s becomes ss).

    Args:
        preset: as KerasHub names it.
        source: what messages call it.

    Raises:
        DlcliError: there is no tokenizer, or one that is neither WordPiece nor byte-level BPE.
    """
    import keras_hub

    try:
        theirs = keras_hub.models.Tokenizer.from_preset(preset)
    except Exception as error:  # as with weights: any error there is
        reason = " ".join(str(error).split())[:300]
        raise DlcliError(
            f"{source}: its tokenizer cannot be loaded ({type(error).__name__}: {reason})"
        ) from error
    if isinstance(theirs, keras_hub.tokenizers.WordPieceTokenizer):
        return _word_pieces(theirs, _hugging_face(preset), source)
    if isinstance(theirs, keras_hub.tokenizers.BytePairTokenizer):
        return _byte_pairs(theirs, source)
    raise DlcliError(
        f"{source}: its tokenizer ({type(theirs).__name__}) is neither WordPiece (BERT, DistilBERT, ELECTRA) nor "
        "byte-level BPE (RoBERTa, GPT-2); others are not supported"
    )


def _word_pieces(theirs: Any, settings: dict[str, Any], source: str) -> Vocabulary:
    if theirs.suffix_indicator != "##":
        raise DlcliError(
            f"{source}: marks word pieces with {theirs.suffix_indicator!r}; only ## is supported"
        )
    tokens = list(theirs.get_vocabulary())
    special = _special_ids(
        theirs, {token: index for index, token in enumerate(tokens)}, unknown=theirs.oov_token
    )
    vocabulary = _renumbered(tokens, special)
    tokenizer = tokenizers.Tokenizer(
        models.WordPiece(vocabulary, unk_token=SPECIAL_TOKENS[UNKNOWN], max_input_chars_per_word=100)
    )
    lowercase = bool(settings.get("do_lower_case", theirs.lowercase))
    own = theirs.strip_accents if not settings else None
    strip = settings.get("strip_accents", own)
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", theirs.split_on_cjk)),
        strip_accents=lowercase if strip is None else bool(strip),
        lowercase=lowercase,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _finished(tokenizer, len(tokens), special)


def _byte_pairs(theirs: Any, source: str) -> Vocabulary:
    by_token = dict(theirs.vocabulary)
    size = max(by_token.values()) + 1
    tokens = [""] * size
    for token, index in by_token.items():
        tokens[index] = token
    special = _special_ids(theirs, by_token, unknown="<unk>")
    vocabulary = _renumbered(tokens, special)
    merges = [tuple(merge.split(" ")) for merge in theirs.merges if not merge.lstrip().startswith("#version")]
    unknown = sorted({part for merge in merges for part in merge} - set(vocabulary))
    if unknown:
        raise DlcliError(
            f"{source}: its merges name tokens that its vocabulary lacks: {', '.join(unknown[:5])}"
        )
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=theirs.add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    return _finished(tokenizer, size, special)


def _special_ids(theirs: Any, by_token: dict[str, int], unknown: str) -> tuple[int, ...]:
    """The preset's ids of dlcli's special tokens; what it lacks has the id of another, which no text comes to."""
    names = [getattr(theirs, f"{kind}_token", None) for kind in ("pad", "unk", "start", "end", "mask")]
    names[UNKNOWN] = unknown
    ids = [by_token.get(name) if isinstance(name, str) else None for name in names]
    instead = next((index for index in (ids[PAD], ids[START], *ids) if index is not None), 0)
    return tuple(instead if index is None else index for index in ids)


def _renumbered(tokens: Iterable[str], special: tuple[int, ...]) -> dict[str, int]:
    tokens = list(tokens)
    vocabulary = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
    for index, theirs in enumerate(
        preset_ids(len(tokens), special)[len(SPECIAL_TOKENS) :], len(SPECIAL_TOKENS)
    ):
        token = tokens[theirs]
        # Each id needs a token of its own; a second one of the same spelling is never reached.
        vocabulary[token if token and token not in vocabulary else f"<{theirs}>"] = index
    return vocabulary


def _finished(tokenizer: tokenizers.Tokenizer, size: int, special: tuple[int, ...]) -> Vocabulary:
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return Vocabulary(Tokenizer(tokenizer.to_str()), size, special)


def _hugging_face(preset: str) -> dict[str, Any]:
    """What a folder in Hugging Face's form says of its tokenizer; empty for KerasHub's form."""
    path = Path(preset) / "tokenizer_config.json"
    if preset.startswith("hf://"):
        from keras_hub.src.utils.preset_utils import check_file_exists, get_file  # KerasHub has no public way

        if not check_file_exists(preset, path.name):
            return {}
        path = Path(get_file(preset, path.name))
    if not path.is_file():
        return {}
    settings = json.loads(path.read_text(encoding="utf-8"))
    return settings if isinstance(settings, dict) else {}
