"""Synonyms from a file, every fault named by its line, and from a WordNet of three meanings."""

from __future__ import annotations

import sys

import pytest

from dlcli.data.text import synonyms as module
from dlcli.data.text.synonyms import read_synonyms
from dlcli.data.text.words import split_words
from dlcli.errors import DataError, DlcliError


@pytest.fixture(autouse=True)
def fresh():
    read_synonyms.cache_clear()
    module._of_wordnet.cache_clear()
    yield
    read_synonyms.cache_clear()
    module._of_wordnet.cache_clear()


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "synonyms.txt"
    path.write_bytes(text.encode(encoding))
    return path


def test_groups_of_a_file(tmp_path):
    found = read_synonyms(
        write(tmp_path, "# adjectives\n\nGood, fine ,great,\nfilm\tmovie\ngood,nice\n便宜\uff0c实惠\n")
    )
    assert found.find("good") == ("fine", "great", "nice")
    assert found.find("fine") == ("Good", "great")
    assert found.find("movie") == ("film",)
    assert found.find("实惠") == ("便宜",)
    assert (found.find("bad"), found.longest) == ((), 2)


def test_the_longest_phrase_wins(tmp_path):
    found = read_synonyms(write(tmp_path, "New York, Big Apple\nnew, recent\nYork, Eboracum\n"))
    words = split_words("a new York; New old york")
    spans = [("".join(words[start:end]), *alternatives) for start, end, alternatives in found.spans(words)]
    assert spans == [("new York", "Big Apple"), ("New", "recent"), ("york", "Eboracum")]


def test_faults_are_named_by_line(tmp_path):
    path = write(tmp_path, "good, fine\nalone\n\n...,etc\n")
    with pytest.raises(DataError) as raised:
        read_synonyms(path)
    assert str(raised.value).splitlines() == [
        f"{path}:2: 'alone' stands alone; a line names two or more words of one meaning, separated by commas or tabs",
        f"{path}:4: '...' does not begin with a letter or a digit",
    ]
    for text in ("", "# nothing\n"):
        read_synonyms.cache_clear()
        with pytest.raises(DataError, match="names no synonyms"):
            read_synonyms(write(tmp_path, text))
    read_synonyms.cache_clear()
    with pytest.raises(DataError, match="not UTF-8"):
        read_synonyms(write(tmp_path, "schön, hübsch\n", "latin-1"))


def test_without_nltk_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(
        DlcliError, match=r"pip install 'dlcli\[synonyms\]' and python -m nltk.downloader wordnet"
    ):
        read_synonyms(None)


@pytest.fixture
def wordnet(tmp_path, monkeypatch):
    """The files of a WordNet in which `film` has two meanings."""
    nltk = pytest.importorskip("nltk")
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])  # it reads from nowhere else

    nouns = [("film", "movie", "motion_picture"), ("film", "photographic_film"), ("in", "inch")]
    data, offsets = "  1 a licence\n", []
    for group in nouns:
        offsets.append(len(data))
        members = " ".join(f"{lemma} 0" for lemma in group)
        data += f"{offsets[-1]:08d} 06 n {len(group):02x} {members} 000 | a meaning  \n"
    places: dict[str, list[int]] = {}
    for group, offset in zip(nouns, offsets, strict=True):
        for lemma in group:
            places.setdefault(lemma, []).append(offset)
    index = "".join(
        f"{lemma} n {len(found)} 0 {len(found)} 0 {' '.join(f'{offset:08d}' for offset in found)}  \n"
        for lemma, found in sorted(places.items())
    )
    folder = tmp_path / "corpora" / "wordnet"
    folder.mkdir(parents=True, mode=0o700)
    for name in WordNetCorpusReader._FILES:
        (folder / name).write_text("")
    (folder / "data.noun").write_text(data)
    (folder / "index.noun").write_text("  1 a licence\n" + index)
    (folder / "lexnames").write_text("".join(f"{number:02d}\tname.{number}\t1\n" for number in range(45)))
    reader = WordNetCorpusReader(str(folder), object())
    monkeypatch.setattr(module, "_load_wordnet", lambda: reader)
    yield
    for file in reader._data_file_map.values():
        file.close()


def test_wordnet_gives_all_meanings_but_none_of_small_words(wordnet):
    found = read_synonyms(None)
    assert found.find("film") == ("movie", "motion picture", "photographic film")
    assert found.find("films") == ("film", "movie", "motion picture", "photographic film")
    assert found.find("movie") == ("film", "motion picture")
    assert found.find("in") == found.find("unheard") == found.find("3d") == ()


def test_a_missing_corpus_is_explained(monkeypatch):
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", ["/nowhere"])
    from nltk.corpus import wordnet

    if type(wordnet).__name__ != "LazyCorpusLoader":
        pytest.skip("WordNet is loaded already")
    with pytest.raises(DlcliError, match=r"python -m nltk\.downloader wordnet.*/nowhere"):
        read_synonyms(None)
