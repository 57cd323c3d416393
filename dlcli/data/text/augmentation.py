"""Augmentation of texts, before the tokenizer: EDA (Wei & Zou 2019, "EDA: Easy Data Augmentation Techniques").

Each function of the table TEXT_AUGMENTATIONS is `augment(words, random, *, ...) -> words`. `words` is a text cut by
`split_words`: words and, between them, spaces and punctuation, which are only changed together with a word.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import tensorflow as tf

from dlcli.data import TEXT_AUGMENTATIONS
from dlcli.data.augmentation import Augment, Position
from dlcli.data.text.sequences import padded
from dlcli.data.text.synonyms import read_synonyms
from dlcli.data.text.texts import TextExamples
from dlcli.data.text.words import gap_before, is_word, split_words
from dlcli.errors import DlcliError
from dlcli.recipe.arguments import Path, Probability
from dlcli.recipe.schema import Spec
from dlcli.tasks.task import Task

if TYPE_CHECKING:
    from dlcli.data.text.tokenizer import Tokenizer


def random_deletion(words: list[str], random: np.random.Generator, *, rate: Probability = 0.1) -> list[str]:
    """Leaves words out; at least one stays.

    Args:
        words: as `split_words` gives them.
        random: of the example.
        rate: the probability of each word to be left out.
    """
    places = _places(words)
    dropped = random.random(len(places)) < rate
    if not len(places) or not dropped.any():
        return words
    if dropped.all():
        dropped[random.integers(len(places))] = False
    gone = set()
    for place in np.asarray(places)[dropped].tolist():
        gone.add(place)
        if place + 1 < len(words) and words[place + 1].isspace():
            gone.add(place + 1)
    return [word for place, word in enumerate(words) if place not in gone]


def random_swap(words: list[str], random: np.random.Generator, *, rate: Probability = 0.1) -> list[str]:
    """Lets two words change places, again and again.

    Args:
        words: as `split_words` gives them.
        random: of the example.
        rate: how many times, as a share of the number of words.
    """
    places = _places(words)
    swaps = _share(rate, len(places), random)
    if len(places) < 2 or not swaps:
        return words
    changed = list(words)
    firsts = random.integers(len(places), size=swaps)
    seconds = (firsts + random.integers(1, len(places), size=swaps)) % len(places)  # another one
    for first, second in zip(firsts.tolist(), seconds.tolist(), strict=True):
        one, other = places[first], places[second]
        changed[one], changed[other] = changed[other], changed[one]
    return changed


def random_insertion(
    words: list[str],
    random: np.random.Generator,
    *,
    rate: Probability = 0.1,
    synonyms: Path | None = None,
) -> list[str]:
    """Puts synonyms of some of the words in at random places.

    Args:
        words: as `split_words` gives them.
        random: of the example.
        rate: how many, as a share of the number of words.
        synonyms: a file with a group of synonyms on each line, separated by commas or tabs; English WordNet when
            left out (`pip install 'dlcli[synonyms]'`, then `python -m nltk.downloader wordnet`).
    """
    places = _places(words)
    wanted = _share(rate, len(places), random)
    known = read_synonyms(synonyms).spans(words) if wanted else []
    if not known:
        return words
    changed = list(words)
    for place in sorted(random.choice(places, wanted).tolist(), reverse=True):
        _, _, alternatives = known[int(random.integers(len(known)))]
        new = alternatives[int(random.integers(len(alternatives)))]
        changed[place + 1 : place + 1] = split_words(gap_before(new) + new)
    return changed


def synonym_replacement(
    words: list[str],
    random: np.random.Generator,
    *,
    rate: Probability = 0.1,
    synonyms: Path | None = None,
) -> list[str]:
    """Puts synonyms in the place of words.

    Args:
        words: as `split_words` gives them.
        random: of the example.
        rate: how many words, as a share of all; fewer where fewer have synonyms.
        synonyms: a file with a group of synonyms on each line, separated by commas or tabs; English WordNet when
            left out (`pip install 'dlcli[synonyms]'`, then `python -m nltk.downloader wordnet`).
    """
    wanted = _share(rate, len(_places(words)), random)
    known = read_synonyms(synonyms).spans(words) if wanted else []
    if not known:
        return words
    changed = list(words)
    chosen = random.choice(len(known), min(wanted, len(known)), replace=False).tolist()
    for number in sorted(chosen, reverse=True):  # from the end, so that the places before it stay
        start, end, alternatives = known[number]
        new = alternatives[int(random.integers(len(alternatives)))]
        if words[start][:1].isupper() and not words[start].isupper():
            new = new[:1].upper() + new[1:]
        changed[start:end] = split_words(new)
    return changed


def build_text_augment(specs: Sequence[Spec], examples: TextExamples, task: Task) -> Augment | None:
    """One function that changes the raw texts of a batch and makes tokens of them; None when there is nothing to do.

    What becomes of a text depends on the seed, the epoch and the example alone, so a resumed job sees the same.

    Args:
        specs: names of the table TEXT_AUGMENTATIONS with their arguments.
        examples: the raw train examples, in the order in which the network's examples were made of them.
        task: what the tokens are for.

    Raises:
        DlcliError: the task learns from something else than whole documents, or the synonyms are missing.
    """
    if not specs:
        return None
    if task.name != "text_classification":
        names = ", ".join(spec.name for spec in specs)
        raise DlcliError(
            f"dataset.augmentation: {names} would change words that task {task.name} learns to predict or to point "
            "at; leave it out (only text_classification, whose targets stay, can use it)"
        )
    steps = [(_builder(spec.name), spec.arguments) for spec in specs]
    _load_synonyms(specs)
    texts, tokenizer = examples.columns["text"], cast("Tokenizer", task.info.tokenizer)
    max_length, ends = task.info.max_length, task.ends  # type: ignore[attr-defined]  # of TextClassification

    def tokens(key: np.ndarray, epoch: np.ndarray, indices: np.ndarray) -> np.ndarray:
        changed = []
        for index in indices.tolist():
            # Keys may be negative, and seeds may not.
            random = np.random.default_rng([int(key) % 2**32, int(epoch), index])
            words = split_words(texts[index])
            for function, arguments in steps:
                words = function(words, random, **arguments)
            changed.append("".join(words))
        return padded(tokenizer.encode(changed), max_length, *ends)

    def augment(inputs: tf.Tensor, targets: tf.Tensor, position: Position) -> tuple[tf.Tensor, tf.Tensor]:
        key = position.keyed("words").key
        ids = tf.numpy_function(tokens, [key, position.epoch, position.indices], tf.int32)
        ids.set_shape([None, None])
        return ids, targets

    return augment


def _load_synonyms(specs: Sequence[Spec]) -> None:
    """Reads the synonyms now: within the stream a mistake would drown in TensorFlow's words."""
    read_synonyms.cache_clear()  # the file may have changed since an earlier job in this process
    for spec in specs:
        if "synonyms" in spec.arguments:
            try:
                read_synonyms(spec.arguments["synonyms"])
            except DlcliError as error:
                raise DlcliError(f"dataset.augmentation {spec.name}: {error}") from error


def _builder(name: str) -> Callable[..., Any]:
    if name not in TEXT_AUGMENTATIONS:
        known = ", ".join(sorted(TEXT_AUGMENTATIONS))
        raise ValueError(f"Unknown augmentation of texts {name!r}; known: {known}")
    return pkgutil.resolve_name(TEXT_AUGMENTATIONS[name])


def _places(words: list[str]) -> list[int]:
    """Where words stand, and not what is between them."""
    return [place for place, word in enumerate(words) if is_word(word)]


def _share(rate: float, count: int, random: np.random.Generator) -> int:
    """`rate * count`, rounded up or down at random, so that short texts get their share too."""
    return int(rate * count + random.random())
