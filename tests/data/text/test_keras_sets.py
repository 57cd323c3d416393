"""IMDB and Reuters, from made files of the real ones' form; the network is never reached."""

import io
import json
import pickle
import zipfile

import keras
import numpy as np
import pytest

from dlcli import downloads
from dlcli.data.text.keras_sets import imdb, reuters
from dlcli.errors import DataError

WORDS = ["the", "film", "is", "good", "bad", "café"]
INDEX = {word: number for number, word in enumerate(WORDS, start=1)}
TRAIN, TEST = [[1, 2, 3, 4], [2, 3, 5], [1, 6, 3, 4]], [[5, 2], [4, 2, 6]]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    folder = tmp_path / "keras" / "datasets"
    folder.mkdir(parents=True)
    return folder


def ragged(documents):
    array = np.empty(len(documents), dtype=object)
    array[:] = documents
    return array


def write_imdb(folder, index=INDEX, **changes):
    arrays = {
        "x_train": ragged(TRAIN),
        "y_train": [1, 0, 1],
        "x_test": ragged(TEST),
        "y_test": [0, 1],
        **changes,
    }
    np.savez(folder / "imdb.npz", **arrays)
    (folder / "imdb_word_index.json").write_text(json.dumps(index))
    return folder


def write_reuters(folder):
    random = np.random.default_rng(0)
    documents = [random.integers(1, 7, size).tolist() for size in random.integers(1, 9, 23)]
    np.savez(folder / "reuters.npz", x=ragged(documents), y=random.integers(0, 46, 23))
    (folder / "reuters_word_index.json").write_text(json.dumps(INDEX))
    return folder


def words_by_keras(module, name, folder, monkeypatch):
    """Texts and classes as Keras's documentation decodes them, of both splits."""

    def get_file(fname, **_):
        return folder / fname

    monkeypatch.setattr(f"keras.src.datasets.{name}.get_file", get_file)
    words = {number + 3: word for word, number in module.get_word_index().items()}
    # Keras counts its largest number as unknown unless it is told how many there are.
    for numbers, targets in module.load_data(num_words=1000):
        texts = [
            " ".join(words[number] for number in row[1:]) for row in numbers
        ]  # the first is a start mark
        yield texts, targets.tolist()


@pytest.mark.parametrize(("build", "make"), [(imdb, write_imdb), (reuters, write_reuters)])
def test_texts_are_those_that_keras_decodes(folder, monkeypatch, build, make):
    make(folder)
    source = build()
    expected = words_by_keras(getattr(keras.datasets, build.__name__), build.__name__, folder, monkeypatch)
    for part, (texts, targets) in zip((source.train, source.test), expected, strict=True):
        ours = list(zip(part.columns["text"], part.targets.tolist(), strict=True))
        theirs = list(zip(texts, targets, strict=True))
        # IMDB's file has its splits apart, so its order is free; of Reuters the split itself is Keras's shuffle.
        assert sorted(ours) == sorted(theirs)


def test_imdb_from_files(folder):
    write_imdb(folder)
    for path in (None, folder, folder / "imdb.npz"):
        source = imdb(path=path)
        assert list(source.train.columns["text"]) == ["the film is good", "film is bad", "the café is good"]
        assert source.train.targets.tolist() == [1, 0, 1]
        assert source.train.targets.dtype == np.int32
        assert source.info.class_names == ("neg", "pos")
        assert list(source.test.columns["text"]) == ["bad film", "good film café"]
        assert source.preprocess is None
    other = imdb(path=write_imdb(folder, y_train=[1, 1, 1]))
    assert other.info.fingerprint != source.info.fingerprint


def test_reuters_names_its_topics(folder):
    source = reuters(path=write_reuters(folder))
    assert len(source.info.class_names) == 46
    assert source.info.class_names[3] == "earn"
    assert (len(source.train), len(source.test)) == (18, 5)


def test_imdb_folders_without_unsup_and_line_breaks(tmp_path):
    for split in ("train", "test"):
        for name in ("neg", "pos", "unsup"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "0_3.txt").write_text(f"{split} {name}.<br /><br />Next<BR>line<br/>")
    (tmp_path / "imdb.vocab").write_text("the\n")
    source = imdb(path=tmp_path)
    assert source.info.class_names == ("neg", "pos")
    assert list(source.train.columns["text"]) == ["train neg.  Next line", "train pos.  Next line"]
    assert sum("unsup: left out" in note for note in source.info.notes) == 2


def test_download_is_announced_and_named_when_it_fails(folder, monkeypatch, capfd):
    class Unplugged:
        def open(self, *_, **__):
            raise OSError("no network")

    monkeypatch.setattr(downloads, "https_opener", Unplugged)
    with pytest.raises(DataError) as caught:
        reuters()
    output = capfd.readouterr()
    assert "downloading reuters, 3 MB" in output.err
    assert output.out == ""
    for part in (
        "no network",
        "https://",
        "reuters.npz",
        "reuters_word_index.json",
        str(folder),
        "dataset.path",
    ):
        assert part in str(caught.value)


def test_only_what_is_missing_is_downloaded(folder, monkeypatch):
    write_imdb(folder)
    index = folder / "imdb_word_index.json"
    content = index.read_text()
    index.unlink()
    asked = []
    monkeypatch.setattr(
        downloads, "fetch", lambda file, place: asked.append(file.name) or index.write_text(content)
    )
    assert len(imdb().train) == 3
    assert asked == ["imdb_word_index.json"]


class Attack:
    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('attacked').touch()",))


def test_pickle_that_runs_code_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_imdb(folder, x_test=ragged([Attack(), [1]]))
    with pytest.raises(DataError, match=r"imdb\.npz.* names builtins\.exec"):
        imdb()
    assert not (tmp_path / "attacked").exists()


def no_array(folder):
    write_imdb(folder)
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": (2,)})
    stream.write(pickle.dumps([1, 2]))
    with zipfile.ZipFile(folder / "imdb.npz", "w") as archive:
        archive.writestr("x_train.npy", stream.getvalue())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "imdb.npz").write_bytes(b"half"), r"imdb\.npz: not a readable"),
        (lambda folder: np.savez(folder / "imdb.npz", x_train=[1]), "y_train"),
        (no_array, "expected one row of documents"),
        (lambda folder: write_imdb(folder, y_test=[0]), "as many whole numbers in y_test"),
        (lambda folder: write_imdb(folder, y_test=[0.5, 1]), "as many whole numbers in y_test"),
        (lambda folder: write_imdb(folder, y_test=[0, 2]), r"0\.\.1; found 0\.\.2"),
        (lambda folder: write_imdb(folder, x_test=ragged([["a"], [1]])), "no list of whole numbers"),
        (lambda folder: write_imdb(folder, index={"the": 1}), "belongs to another file"),
        (lambda folder: write_imdb(folder, index=["the"]), "not a readable word index"),
        (lambda folder: write_imdb(folder, index={"the": 10**9}), "it numbers words up to 1,000,000,000"),
        (lambda folder: (folder / "imdb_word_index.json").write_text("{"), "not a readable word index"),
    ],
)
def test_damaged_files_are_named(folder, change, message):
    write_imdb(folder)
    change(folder)
    with pytest.raises(DataError, match=message):
        imdb()


def test_path_without_data_says_what_is_expected(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        reuters(path=tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"reuters\.npz, reuters_word_index\.json is missing"):
        reuters(path=tmp_path)
    with pytest.raises(DataError, match="no class folders"):
        imdb(path=tmp_path)
    write_imdb(tmp_path)
    (tmp_path / "imdb_word_index.json").unlink()
    with pytest.raises(DataError, match=r"imdb_word_index\.json is missing"):
        imdb(path=tmp_path / "imdb.npz")
