from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlcli import downloads
from dlcli.data.keras_sets import cifar10, cifar100, fashion_mnist, mnist
from dlcli.data.sklearn_sets import digits
from dlcli.errors import DataError

random = np.random.default_rng(0)
GREY = random.integers(0, 256, (6, 28, 28), dtype=np.uint8)
COLOUR = random.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def keras_home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("DLCLI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "keras"


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder: Path, compress: bool) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, images in (("train", GREY[:4]), ("t10k", GREY[4:])):
        labels = np.arange(len(images), dtype=np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            data = idx(array)
            path = folder / f"{split}-{name}-ubyte{'.gz' if compress else ''}"
            path.write_bytes(gzip.compress(data) if compress else data)
    return folder


def batch(images: np.ndarray, labels: list[int], key: bytes = b"labels") -> bytes:
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)
    return pickle.dumps({b"data": planes, key: labels, b"filenames": [b"x.png"] * len(labels)}, protocol=2)


def cifar10_batches() -> dict[str, bytes]:
    batches = {f"data_batch_{n}": batch(COLOUR[2 * n - 2 : 2 * n], [n, 0]) for n in range(1, 6)}
    return {**batches, "test_batch": batch(COLOUR[10:], [3, 9])}


def write_tar(path: Path, contents: dict[str, bytes], *extra: tarfile.TarInfo) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in extra:
            archive.addfile(member)
    return path


# Original files


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("as_file", [True, False])
def test_idx_files(tmp_path, compress, as_file):
    folder = write_idx(tmp_path / "idx", compress)
    path = next(folder.glob("train-images*")) if as_file else folder
    source = mnist(path=path)
    np.testing.assert_array_equal(source.train.inputs[..., 0], GREY[:4])
    np.testing.assert_array_equal(source.test.inputs[..., 0], GREY[4:])
    assert source.train.targets.tolist() == [0, 1, 2, 3]
    assert source.info.class_names[9] == "9"
    assert fashion_mnist(path=folder).info.class_names[9] == "Ankle boot"


def test_npz(tmp_path):
    np.savez(tmp_path / "mnist.npz", x_train=GREY[:4], y_train=[1, 2, 3, 4], x_test=GREY[4:], y_test=[5, 6])
    source = mnist(path=tmp_path / "mnist.npz")
    np.testing.assert_array_equal(source.train.inputs[..., 0], GREY[:4])
    assert source.test.targets.tolist() == [5, 6]


def test_cifar_archive_and_its_folder(tmp_path):
    archive = write_tar(tmp_path / "cifar-10-python.tar.gz", cifar10_batches())
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, content in cifar10_batches().items():
        (folder / name).write_bytes(content)
    for path in (archive, folder, tmp_path):
        source = cifar10(path=path)
        np.testing.assert_array_equal(source.train.inputs, COLOUR[:10])
        np.testing.assert_array_equal(source.test.inputs, COLOUR[10:])
        assert source.train.targets.tolist() == [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]
        assert source.info.class_names[3] == "cat"
    assert not [path for path in tmp_path.rglob("data_batch_1") if path.parent != folder]


def test_cifar100_takes_fine_labels(tmp_path):
    for name, images in (("train", COLOUR[:10]), ("test", COLOUR[10:])):
        (tmp_path / name).write_bytes(batch(images, [99] * len(images), b"fine_labels"))
    source = cifar100(path=tmp_path)
    assert source.info.class_names[99] == "worm"
    assert source.info.class_names[0] == "apple"
    assert len(set(source.info.class_names)) == 100
    assert source.train.targets.tolist() == [99] * 10


def test_class_folders(tmp_path):
    for split in ("train", "test"):
        for name in ("plane", "ship"):
            (tmp_path / "c" / split / name).mkdir(parents=True)
            Image.fromarray(COLOUR[0]).save(tmp_path / "c" / split / name / "0.png")
    source = cifar10(path=tmp_path / "c")
    assert source.info.class_names == ("plane", "ship")
    np.testing.assert_array_equal(source.test.inputs[1], COLOUR[0])
    assert mnist(path=tmp_path / "c", image_size=28).info.input_shape == (28, 28, 1)


@pytest.mark.parametrize(
    ("image_size", "shape"), [(32, (32, 32, 1)), ([14, 20], (14, 20, 1)), (28, (28, 28, 1))]
)
def test_image_size(tmp_path, image_size, shape):
    source = mnist(path=write_idx(tmp_path / "idx", True), image_size=image_size)
    assert source.info.input_shape == shape
    expected = Image.fromarray(GREY[2]).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(source.train.inputs[2, ..., 0], np.asarray(expected))
    assert bool(source.info.notes) == (shape != (28, 28, 1))


def test_fingerprint_follows_the_data(tmp_path):
    first = mnist(path=write_idx(tmp_path / "a", True)).info.fingerprint
    assert mnist(path=write_idx(tmp_path / "b", False)).info.fingerprint == first
    path = tmp_path / "b" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert mnist(path=tmp_path / "b").info.fingerprint != first


# Hostile and damaged files


class Attack:
    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('attacked').touch()",))


def test_pickle_that_runs_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    contents = {**cifar10_batches(), "data_batch_3": pickle.dumps({b"data": Attack(), b"labels": [1]})}
    with pytest.raises(DataError, match=r"data_batch_3: refused: it names builtins\.exec"):
        cifar10(path=write_tar(tmp_path / "c.tar.gz", contents))
    assert not (tmp_path / "attacked").exists()


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (link("cifar-10-batches-py/extra", tarfile.SYMTYPE), "extra is a link"),
        (link("cifar-10-batches-py/extra", tarfile.LNKTYPE), "extra is a link"),
        (link("fifo", tarfile.FIFOTYPE), "fifo is a link or a device"),
        (tarfile.TarInfo("../../escape"), "leads out"),
        (tarfile.TarInfo("/etc/absolute"), "leads out"),
        (tarfile.TarInfo("elsewhere/test_batch"), "twice"),
    ],
)
def test_hostile_archives_are_refused(tmp_path, member, message):
    with pytest.raises(DataError, match=message):
        cifar10(path=write_tar(tmp_path / "c.tar.gz", cifar10_batches(), member))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda contents: contents.pop("data_batch_5"), "no data_batch_5"),
        (lambda contents: contents.update(test_batch=b"junk"), "test_batch: refused"),
        (lambda contents: contents.update(test_batch=pickle.dumps([1])), "no data and labels"),
        (lambda contents: contents.update(test_batch=batch(COLOUR[10:], [3])), "expected a uint8 array"),
        (lambda contents: contents.update(test_batch=batch(COLOUR[10:], [3, 10])), r"0\.\.9; found 3\.\.10"),
        (lambda contents: contents.update(test_batch=batch(COLOUR[10:], [3, None])), "not all whole numbers"),
    ],
)
def test_damaged_batches_are_named(tmp_path, change, message):
    contents = cifar10_batches()
    change(contents)
    with pytest.raises(DataError, match=message):
        cifar10(path=write_tar(tmp_path / "c.tar.gz", contents))


def nested(levels: int) -> bytes:
    """A pickled list in whose item are two, which are one, and so on."""
    return b"](K\x01" + b"q\x07h\x07\x86" * levels + b"e"


@pytest.mark.parametrize(
    "labels",
    [
        nested(14),
        pickle.dumps(3, protocol=2)[2:-1],
        pickle.dumps([True], protocol=2)[2:-1],
        pickle.dumps([2**40], protocol=2)[2:-1],
        pickle.dumps(np.array([2**32 + 3]), protocol=2)[2:-1],
        pickle.dumps("ab", protocol=2)[2:-1],
        pickle.dumps(np.zeros((1, 1), int), protocol=2)[2:-1],
        pickle.dumps(np.zeros(1), protocol=2)[2:-1],
    ],
    ids=["nested", "number", "truth", "large", "large array", "text", "table", "fractions"],
)
def test_labels_are_a_row_of_whole_numbers_or_refused(tmp_path, labels):
    pixels = pickle.dumps(np.zeros((1, 3072), np.uint8), protocol=2)[2:-1]
    content = b"\x80\x02}(C\x04data" + pixels + b"C\x06labels" + labels + b"u."
    contents = {**cifar10_batches(), "test_batch": content}
    with pytest.raises(DataError, match="test_batch: labels are not all whole numbers"):
        cifar10(path=write_tar(tmp_path / "c.tar.gz", contents))


def test_labels_may_be_an_array(tmp_path):
    contents = {**cifar10_batches(), "test_batch": batch(COLOUR[10:], np.array([3, 9]))}
    assert cifar10(path=write_tar(tmp_path / "c.tar.gz", contents)).test.targets.tolist() == [3, 9]


def test_truncated_archive(tmp_path):
    path = write_tar(tmp_path / "c.tar.gz", cifar10_batches())
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match="damaged archive"):
        cifar10(path=path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", idx(GREY[:4])[:-5], "less than"),
        ("train-images-idx3-ubyte", idx(GREY[:4]) + b"x", "more than"),
        ("train-images-idx3-ubyte", b"hello", "not an idx3"),
        ("train-images-idx3-ubyte", struct.pack(">HBB3I", 0, 8, 3, 2**31, 28, 28), "refused"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros(7, np.uint8)), "2 images, .* 7 labels"),
        ("t10k-labels-idx1-ubyte", idx(np.array([1, 77], np.uint8)), r"0\.\.9; found 1\.\.77"),
        ("t10k-labels-idx1-ubyte", None, "is missing"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path, name, content, message):
    folder = write_idx(tmp_path / "idx", False)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        mnist(path=folder)


def test_npz_with_pickled_objects_is_refused(tmp_path):
    objects = np.array([Attack()], dtype=object)
    np.savez(tmp_path / "mnist.npz", x_train=objects, y_train=[1], x_test=GREY, y_test=[1] * 6)
    with pytest.raises(DataError, match="plain arrays"):
        mnist(path=tmp_path / "mnist.npz")


def test_path_without_data_says_what_is_expected(tmp_path):
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz"):
        cifar10(path=tmp_path)
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        mnist(path=tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        mnist(path=tmp_path / "nowhere")


# Downloads


def test_files_in_keras_folder_are_used_without_a_download(keras_home, network):
    folder = keras_home / "datasets"
    write_tar(folder / "cifar-10-python.tar.gz", cifar10_batches())
    np.savez(folder / "mnist.npz", x_train=GREY[:4], y_train=[1, 2, 3, 4], x_test=GREY[4:], y_test=[5, 6])
    write_idx(folder / "fashion-mnist", True)
    assert len(cifar10().train) == 10
    assert len(mnist().train) == 4
    assert fashion_mnist().test.targets.tolist() == [0, 1]
    (folder / "cifar-10-python.tar.gz").rename(
        folder / "cifar-10-batches-py-target_archive"
    )  # Keras's own name
    assert len(cifar10().train) == 10
    assert not network.asked


class Network:
    """Answers with files of its own, in the place of the network."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.asked = files, []

    def open(self, url: str, timeout: float) -> io.BytesIO:
        self.asked.append(url)
        if (name := url.rsplit("/", 1)[1]) not in self.files:
            raise OSError("no network")
        return io.BytesIO(self.files[name])


@pytest.fixture
def network(monkeypatch):
    answers = Network({})
    monkeypatch.setattr(downloads, "https_opener", lambda: answers)
    return answers


def expect(monkeypatch, name: str, files: dict[str, bytes]) -> None:
    """As if these files were those that are known under the data set's name."""
    known = {file.name: file for file in downloads.DATA_SETS[name]}
    changed = [
        replace(known[file], checksum=f"sha256:{hashlib.sha256(content).hexdigest()}")
        for file, content in files.items()
    ]
    monkeypatch.setitem(downloads.DATA_SETS, name, tuple(changed))


def test_a_download_is_announced_on_stderr_checked_and_read_by_dlcli(keras_home, network, monkeypatch, capfd):
    content = write_tar(keras_home / "made.tar.gz", cifar10_batches()).read_bytes()
    network.files = {"cifar-10-python.tar.gz": content}
    expect(monkeypatch, "cifar10", network.files)
    assert cifar10().test.targets.tolist() == [3, 9]
    output = capfd.readouterr()
    assert output.out == ""
    assert "downloading cifar10, 170 MB, from https://www.cs.toronto.edu/~kriz/ to" in output.err
    assert cifar10().test.targets.tolist() == [3, 9]
    assert len(network.asked) == 1, "the second time it is there"
    assert [path.name for path in (keras_home / "datasets").iterdir()] == ["cifar-10-python.tar.gz"]


def test_only_what_is_missing_of_several_files_is_downloaded(keras_home, network, monkeypatch):
    folder = write_idx(keras_home / "datasets" / "fashion-mnist", True)
    gone = folder / "t10k-labels-idx1-ubyte.gz"
    network.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    expect(monkeypatch, "fashion_mnist", network.files)
    gone.unlink()
    assert fashion_mnist().test.targets.tolist() == [0, 1]
    assert [url.rsplit("/", 1)[1] for url in network.asked] == [gone.name]


@pytest.mark.parametrize("content", [b"other bytes", b"x" * 30_000_000], ids=["other", "endless"])
def test_what_is_not_the_known_file_is_not_kept(content, keras_home, network):
    network.files = {"mnist.npz": content}
    with pytest.raises(DataError, match=r"could not be downloaded from https://.*mnist\.npz") as caught:
        mnist()
    assert "larger than the" in str(caught.value) or "sha256" in str(caught.value)
    assert not list((keras_home / "datasets").iterdir())


@pytest.mark.parametrize(
    ("build", "file"),
    [
        (mnist, "mnist.npz"),
        (fashion_mnist, "train-images-idx3-ubyte.gz"),
        (cifar10, "cifar-10-python.tar.gz"),
        (cifar100, "cifar-100-python.tar.gz"),
    ],
)
def test_failed_download_names_url_file_and_folder(build, file, keras_home, network):
    with pytest.raises(DataError) as caught:
        build()
    message = str(caught.value)
    assert "https://" in message
    assert file in message
    assert str(keras_home / "datasets") in message
    assert "no network" in message
    assert "dataset.path" in message


def test_damaged_file_of_a_download_is_named_not_called_a_failed_download(keras_home):
    folder = keras_home / "datasets"
    (folder / "cifar-10-batches-py").mkdir(parents=True)
    (folder / "mnist.npz").write_bytes(b"half")
    for build, place in ((mnist, "mnist.npz"), (cifar10, "cifar-10-batches-py")):
        with pytest.raises(DataError, match="delete it, and the next run downloads it again") as caught:
            build()
        assert str(folder / place) in str(caught.value)
        assert "could not be downloaded" not in str(caught.value)


# Digits


def test_digits_are_scaled_split_once_and_stratified():
    source, again = digits(), digits()
    assert (len(source.train), len(source.test)) == (1437, 360)
    assert source.info.input_shape == (8, 8, 1)
    assert source.train.inputs.dtype == np.uint8
    assert source.train.inputs.max() == 255
    np.testing.assert_array_equal(source.test.inputs, again.test.inputs)
    shares = np.bincount(source.test.targets) / np.bincount(source.train.targets)
    assert shares.min() > 0.23
    assert shares.max() < 0.27
    seen = {image.tobytes() for image in source.train.inputs}
    assert not any(image.tobytes() in seen for image in source.test.inputs)
