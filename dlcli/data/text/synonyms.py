"""Synonyms for augmentation: of a file, or of English WordNet (Miller 1995) through nltk."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from dlcli.data.csv_reading import raise_problems
from dlcli.data.text.reading import read_text_file
from dlcli.data.text.words import is_word, split_words
from dlcli.errors import DataError, DlcliError

_SEPARATORS = re.compile("[,\uff0c\t]")  # the comma of Chinese, too
_SMALL_WORDS = """
    a about above after again against all am an and any are as at be because been before being below between both but
    by can cannot could did do does doing down during each few for from further get got had has have having he her here
    hers herself him himself his how i if in into is it its itself just may me might more most must my myself no nor
    not now of off on once only or other our ours ourselves out over own same she should so some such than that the
    their theirs them themselves then there these they this those through to too under until up us very was we were
    what when where which while who whom why will with would you your yours yourself yourselves
"""
_STOP_WORDS = frozenset(_SMALL_WORDS.split())
"""WordNet takes `a` for ampere and `in` for indium."""

_WORDNET_LOCK = threading.Lock()


@dataclass(frozen=True)
class Synonyms:
    """What may stand in the place of a word."""

    find: Callable[[str], Sequence[str]]
    """A word or phrase in lower case -> its synonyms, itself left out; empty when there are none."""
    longest: int = 1
    """Pieces (words and what is between them) of the longest phrase."""

    def spans(self, words: Sequence[str]) -> list[tuple[int, int, Sequence[str]]]:
        """First piece, one past the last piece, and synonyms of all that have some; of two that overlap the longer."""
        found, start = [], 0
        while start < len(words):
            end = start + 1
            if is_word(words[start]):
                for end in range(min(start + self.longest, len(words)), start, -1):
                    alternatives = self.find("".join(words[start:end]).lower())
                    if alternatives:
                        found.append((start, end, alternatives))
                        break
            start = end
        return found


@cache
def read_synonyms(path: str | Path | None) -> Synonyms:
    """Synonyms of a file, or of WordNet without one; read once.

    Args:
        path: one group of synonyms a line, separated by commas or tabs; `#` begins a line that is no group.

    Raises:
        DlcliError: the file is no such list (the message names the lines), or WordNet is not installed.
    """
    if path is None:
        _load_wordnet()
        return Synonyms(_of_wordnet)
    return _of_file(Path(path).expanduser())


def _of_file(path: Path) -> Synonyms:
    groups: dict[str, dict[str, None]] = {}
    problems, longest = [], 1
    for number, line in enumerate(
        read_text_file(path, None, "a file of synonyms").text.splitlines(), start=1
    ):
        terms = list(
            dict.fromkeys(term for part in _SEPARATORS.split(line) if (term := " ".join(part.split())))
        )
        if not terms or terms[0].startswith("#"):
            continue
        if strange := [term for term in terms if not is_word(term)]:
            problems.append(f"{path}:{number}: {strange[0]!r} does not begin with a letter or a digit")
        elif len(terms) < 2:
            problems.append(
                f"{path}:{number}: {terms[0]!r} stands alone; a line names two or more words of one meaning, "
                "separated by commas or tabs"
            )
        longest = max(longest, *(len(split_words(term)) for term in terms))
        for term in terms:
            others = [other for other in terms if other.lower() != term.lower()]
            groups.setdefault(term.lower(), {}).update(dict.fromkeys(others))
    raise_problems(problems)
    if not groups:
        raise DataError(f"{path}: names no synonyms; expected a group on each line: good, fine, nice")
    table = {term: tuple(others) for term, others in groups.items()}
    return Synonyms(lambda term: table.get(term, ()), longest)


def _load_wordnet() -> Any:
    """The corpus reader of nltk.

    Raises:
        DlcliError: nltk or its WordNet is not installed.
    """
    or_file = "or give `synonyms`, a file with a group of synonyms on each line"
    try:
        import nltk
        from nltk.corpus import wordnet
    except ModuleNotFoundError as error:
        raise DlcliError(
            "synonyms come from WordNet, which needs nltk: pip install 'dlcli[synonyms]' and "
            f"python -m nltk.downloader wordnet; {or_file}"
        ) from error
    try:
        wordnet.ensure_loaded()
    except LookupError as error:
        folders = ", ".join(nltk.data.path[:3])
        raise DlcliError(
            "WordNet is not there: python -m nltk.downloader wordnet (10 MB), or on a machine without network unpack "
            f"wordnet.zip of github.com/nltk/nltk_data to corpora/wordnet in one of {folders}; {or_file}"
        ) from error
    return wordnet


@lru_cache(maxsize=200_000)
def _of_wordnet(word: str) -> Sequence[str]:
    """Synonyms over all the meanings of a word, the most frequent meaning first."""
    if word in _STOP_WORDS or not word.isalpha():
        return ()
    wordnet = _load_wordnet()
    with _WORDNET_LOCK:  # the reader moves about in its files, and the stream has several threads
        names = dict.fromkeys(
            lemma.replace("_", " ").lower()
            for synset in wordnet.synsets(word)
            for lemma in synset.lemma_names()
        )
    return tuple(name for name in names if name != word and name.replace(" ", "").isalpha())
