"""Rows 17-34: data that cannot be used are refused by file, row or folder before training; the rest is made use of."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlcli.data.check import check_data
from dlcli.data.load import load_data, load_source
from dlcli.data.stream import steps_per_epoch
from dlcli.errors import DataError
from dlcli.recipe.load import load_recipe
from dlcli.recipe.schema import Recipe

PIXELS = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
RECIPES = {
    "images": """\
task: image_classification
dataset: {name: image_folder, path: data}
architecture: {name: cnn, filters: [4]}
""",
    "table": """\
task: tabular_classification
dataset: {name: csv, path: data.csv, target: y}
architecture: {name: mlp, hidden: [4]}
""",
    "texts": """\
task: text_classification
dataset: {name: text_folder, path: data, max_length: 8}
architecture: text_cnn
""",
    "cifar10": """\
task: image_classification
dataset: {name: cifar10, path: data.tar.gz}
architecture: {name: cnn, filters: [4]}
""",
}


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def recipe_of(kind: str, *changes: str) -> Recipe:
    Path("r.yaml").write_text(RECIPES[kind])
    return load_recipe("r.yaml", ["training.epochs=1", *changes])


def notes_of(kind: str, *changes: str) -> str:
    return "\n".join(load_data(recipe_of(kind, *changes)).info.notes)


# What the data sets are made of


def image(path: str, pixels: np.ndarray = PIXELS, mode: str = "RGB", **how: Any) -> None:
    Image.fromarray(pixels).convert(mode).save(path, **how)


def images(
    splits: tuple[str, ...] = ("train",), classes: tuple[str, ...] = ("cat", "dog"), count: int = 6
) -> None:
    random = np.random.default_rng(1)
    for split in splits:
        for name in classes:
            Path("data", split, name).mkdir(parents=True)
            for number in range(count):
                image(f"data/{split}/{name}/{number}.png", random.integers(0, 255, (8, 8, 3), np.uint8))


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_file(name: str, content: bytes | str) -> Callable[[], None]:
    """Images, and one file among them."""

    def make() -> None:
        images()
        Path("data/train/cat", name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def with_entry(add: Callable[[Path], Any], name: str = "x.png") -> Callable[[], None]:
    """Images, and among them something that is no file."""

    def make() -> None:
        images()
        add(Path("data/train/cat", name))

    return make


def truncated(suffix: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, suffix)
    return buffer.getvalue()[:-40]


def labels(rows: str) -> Callable[[], None]:
    def make() -> None:
        images()
        Path("labels.csv").write_text(f"path,label\n{rows}")

    return make


def table(*more: str, header: str = "x,z,y") -> Callable[[], None]:
    """20 good rows and more."""
    rows = [f"{number * 7 % 23},{number % 3},{'ab'[number % 2]}" for number in range(20)]
    return lambda: Path("data.csv").write_text("\n".join([header, *rows, *more, ""]), newline="")


def texts(**more: bytes) -> Callable[[], None]:
    """Eight good documents of each class, and more."""

    def make() -> None:
        for name in ("neg", "pos"):
            Path("data", name).mkdir(parents=True)
            for number in range(8):
                Path("data", name, f"{number}.txt").write_text(
                    f"{name} words of number {number} and some more to read"
                )
        for name, content in more.items():
            Path("data/pos", f"{name}.txt").write_bytes(content)

    return make


def archive(
    name: str, kind: bytes = tarfile.REGTYPE, twice: bool = False, size: int = 0
) -> Callable[[], None]:
    """A .tar.gz with a member that leads elsewhere, is no file, comes twice or unpacks to very much."""

    def make() -> None:
        with tarfile.open("data.tar.gz", "w:gz") as file:
            for _ in range(1 + twice):
                member = tarfile.TarInfo(name)
                member.type, member.linkname, member.size = kind, "/etc/passwd", size
                file.addfile(member, io.BytesIO(bytes(size)))

    return make


def encrypted() -> None:
    """A .npz whose members need a password, by the flag in their headers."""
    with zipfile.ZipFile("data.npz", "w") as file:
        file.writestr("x_train.npy", b"0" * 100)
    content = bytearray(Path("data.npz").read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    Path("data.npz").write_bytes(content)


@dataclass(frozen=True)
class Fault:
    """Data that `dlcli train` refuses with exit code 2."""

    number: int
    what: str
    kind: str
    make: Callable[[], Any]
    said: str
    change: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"row{self.number}_{self.what.replace(' ', '_')}"


BY_LABELS = ("dataset.labels=labels.csv",)
RUN_OF_TWO = "the target 'a': nothing to learn"

FAULTS = [
    Fault(17, "no folder", "images", lambda: None, "dataset.path {here}/data: there is no such folder"),
    Fault(17, "empty folder", "images", lambda: Path("data").mkdir(), "{here}/data: no images; expected *.png"),
    Fault(17, "file in its place", "images", lambda: Path("data").touch(), "dataset.path {here}/data: not a folder"),
    Fault(17, "circle of links", "images", lambda: Path("data").symlink_to("data"), "dataset.path {here}/data: cannot be read: Too many"),
    Fault(18, "one class", "images", lambda: images(classes=("cat",)), "the train split holds one class (cat)"),
    Fault(18, "one class of a table", "table", lambda: Path("data.csv").write_text("x,y\n1,a\n2,a\n"), f"y: every row has {RUN_OF_TWO}"),
    Fault(19, "empty class", "images", with_entry(lambda path: path.parent.with_name("owl").mkdir()), "data/train: no images for the class owl"),
    Fault(20, "empty file", "images", with_file("x.png", b""), "1 of 13 images cannot be used:\n  {here}/data/train/cat/x.png is empty (0 bytes)"),
    Fault(20, "text named png", "images", with_file("x.png", "hello"), "x.png is not an image dlcli reads (JPEG, PNG, BMP, GIF, WEBP, TIFF); it starts with b'hello'"),
    Fault(20, "truncated PNG", "images", with_file("x.png", truncated("PNG")), "x.png cannot be decoded: image file is truncated"),
    Fault(20, "truncated JPEG", "images", with_file("x.jpg", truncated("JPEG")), "x.jpg cannot be decoded: image file is truncated"),
    Fault(20, "too many to skip", "images", lambda: [with_file("x.png", "")(), *(Path(f"data/train/dog/bad{number}.png").touch() for number in range(14))],
          "15 of 27 images cannot be used, more than half", ("dataset.on_bad_file=skip",)),
    Fault(25, "bomb", "images", with_file("x.png", png(30_000, 30_000)), "x.png claims 30000 x 30000 pixels; more than 64,000,000 are refused before decoding"),
    Fault(25, "strip", "images", with_file("x.png", png(1, 1_000_000, bytes(4_000_000))), "x.png claims 1000000 x 1 pixels; a side of more than 65,500 is refused before decoding"),
    Fault(25, "no pixels", "images", with_file("x.png", png(0, 5)), "x.png starts like a PNG file but is damaged"),
    Fault(26, "link out of the folder", "images", with_entry(lambda path: path.symlink_to("/etc/passwd")), "cat/x.png: a link to /etc/passwd, outside {here}/data"),
    Fault(26, "link to a folder", "images", with_entry(lambda path: path.symlink_to("/etc")), "cat/x.png: a link to a folder"),
    Fault(26, "link to a device", "images", with_entry(lambda path: path.symlink_to("/dev/zero")), "cat/x.png: a link to a folder, to a device or to nothing"),
    Fault(26, "pipe", "images", with_entry(os.mkfifo), "1 entries under {here}/data are refused"),
    Fault(28, "label without a file", "images", labels("train/cat/0.png,cat\ntrain/cat/99.png,cat\n"), "labels.csv:3: train/cat/99.png does not exist under {here}/data", BY_LABELS),
    Fault(28, "file without a label", "images", labels("train/cat/0.png,\n"), "labels.csv:2: the label is missing", BY_LABELS),
    Fault(28, "two labels of a file", "images", labels("train/cat/0.png,a\ntrain/cat/0.png,b\n"), "labels.csv:3: train/cat/0.png stands in row 2 already", BY_LABELS),
    Fault(28, "labelled file outside", "images", labels("../labels.csv,a\n"), "labels.csv:2: ../labels.csv leads outside {here}/data", BY_LABELS),
    Fault(28, "pipe of labels", "images", lambda: [images(), os.mkfifo("labels.csv")], "labels.csv: this is not a regular file; expected a CSV file", BY_LABELS),
    Fault(28, "class that only the test split has", "images", lambda: [images(("train",)), images(("test",), ("owl",))], "the class 'owl' is not under {here}/data/train"),
    Fault(29, "ragged rows", "table", table("1,2,a,4", "1"), "data.csv:22: 4 cells where the header has 3 columns (delimiter ',')\n{here}/data.csv:23: 1 cells"),
    Fault(29, "two columns of one name", "table", table(header="x,x,y"), "data.csv:1: 2 columns are named 'x'"),
    Fault(29, "no target", "table", table(header="x,z,w"), "data.csv:1: no column 'y' in the header; it has: x, z, w"),
    Fault(29, "infinite", "table", table("inf,1,a", "1e400,1,b"), "data.csv:22, 23 x: inf, 1e400 is infinite or beyond 3.4e38"),
    Fault(29, "formula", "table", table("=1+1,2,a"), "data.csv:22 x: '=1+1' is no number"),
    Fault(29, "quote not closed", "table", table('1,"2,a'), "data.csv:22: the row that begins here is broken"),
    Fault(29, "only a header", "table", lambda: Path("data.csv").write_text("x,z,y\n"), "data.csv: no data rows below the header"),
    Fault(29, "endless device", "table", lambda: Path("data.csv").symlink_to("/dev/zero"), "data.csv: this is not a regular file"),
    Fault(30, "not UTF-8", "texts", texts(bad=b"good until \xff here"), "pos/bad.txt:1: byte 0xff at offset 11 is not UTF-8"),
    Fault(30, "only empty documents in a class", "texts", lambda: [texts()(), *(path.write_text(" \n") for path in Path("data/pos").iterdir())], "class 'pos' has no text left in the train split"),
    Fault(32, "member above", "cifar10", archive("../../evil"), "data.tar.gz: ../../evil leads out of the archive; refused"),
    Fault(32, "member from the root", "cifar10", archive("/tmp/evil"), "/tmp/evil leads out of the archive; refused"),
    Fault(32, "link", "cifar10", archive("data_batch_1", tarfile.SYMTYPE), "data_batch_1 is a link or a device; refused"),
    Fault(32, "hard link", "cifar10", archive("data_batch_1", tarfile.LNKTYPE), "data_batch_1 is a link or a device; refused"),
    Fault(32, "device", "cifar10", archive("data_batch_1", tarfile.CHRTYPE), "data_batch_1 is a link or a device; refused"),
    Fault(32, "member twice", "cifar10", archive("data_batch_1", twice=True), "data_batch_1 is in the archive twice; refused"),
    Fault(32, "huge member", "cifar10", archive("data_batch_1", size=257 << 20), "data_batch_1 unpacks to 269,484,032 bytes; refused"),
    Fault(32, "password", "cifar10", encrypted, "data.npz", ("dataset={name: mnist, path: data.npz}",)),
    Fault(34, "one example a class", "images", lambda: images(count=1), "dataset.validation_split 0.1 of 2 examples leaves none for validation: raise it, or set it to 0"),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_refused(fault: Fault, run_dlcli: Callable[..., Any], tmp_path: Path) -> None:
    fault.make()
    before = sorted(tmp_path.rglob("*"))
    Path("r.yaml").write_text(RECIPES[fault.kind])
    settings = [part for change in fault.change for part in ("--set", change)]
    outcome = run_dlcli("train", "r.yaml", *settings, "--out", "run", seconds=20, memory=500 * 2**20)
    outcome.check(2)
    assert fault.said.replace("{here}", str(tmp_path)) in outcome.err
    assert sorted(tmp_path.rglob("*")) == sorted(
        [*before, tmp_path / "r.yaml"]
    )  # no run, and nothing unpacked


def test_row17_no_permission(run_dlcli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(folder))

    images()
    Path("r.yaml").write_text(RECIPES["images"])
    monkeypatch.setattr("dlcli.data.folder_walk.os.scandir", refuse)
    outcome = run_dlcli("train", "r.yaml", "--out", "run")
    outcome.check(2)
    assert f"{Path.cwd()}/data: cannot be listed: Permission denied" in outcome.err


def test_row20_bad_files_are_skipped_and_counted_on_demand() -> None:
    with_file("x.png", b"")()
    assert "skipped 1 of 13 images that cannot be read:" in notes_of("images", "dataset.on_bad_file=skip")
    assert "data/train/cat/x.png is empty (0 bytes)" in notes_of("images", "dataset.on_bad_file=skip")


def test_rows21_to_24_unusual_files_are_converted_and_counted() -> None:
    images()
    folder = "data/train/cat"
    for mode, name in (("CMYK", "c.jpg"), ("P", "p.png"), ("RGBA", "a.png"), ("LA", "la.png")):
        image(f"{folder}/{name}", mode=mode)
    deep = np.linspace(0, 65_535, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(deep).save(f"{folder}/16.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    image(f"{folder}/turned.jpg", exif=turned)
    image(f"{folder}/moving.gif", save_all=True, append_images=[Image.fromarray(PIXELS[::-1])])
    image(f"{folder}/w.webp")
    image(f"{folder}/t.tiff")
    image(f"{folder}/UPPER.JPG", format="JPEG")
    image(f"{folder}/without_a_suffix", format="PNG")
    for name in (".DS_Store", "Thumbs.db", "notes.md"):
        Path(folder, name).write_bytes(b"x")
    for hidden in (Path(folder, ".ipynb_checkpoints"), Path("data/train/.ipynb_checkpoints")):
        hidden.mkdir()
        image(f"{hidden}/x.png")
    notes = notes_of("images", "dataset.validation_split=0")
    for said in (
        "1 of 23 images 16-bit, scaled to 8 bit", "1 of 23 images CMYK, converted to RGB",
        "images P, converted to RGB", "1 of 23 images RGBA with transparency, laid over white",
        "1 of 23 images LA with transparency", "1 of 23 images turned upright by their EXIF orientation",
        "1 of 23 images have several frames; the first is used",
        "1 of 23 images are PNG by content, whatever their suffix says",
        "4 files ignored (3 hidden or system file, 1 no image)",
    ):  # fmt: skip
        assert said in notes
    source = load_source(recipe_of("images").dataset)
    assert len(source.train) == 23 and source.info.class_names == ("cat", "dog")
    sixteen = np.asarray(source.train.read(np.array([2])))[0]  # 0.png, 1.png, 16.png
    assert sixteen.min() == 0 and sixteen.max() == 255 and len(np.unique(sixteen)) > 60


def test_row27_copies_between_splits_are_said_with_examples() -> None:
    images(("train", "test"))
    Path("data/test/cat/0.png").write_bytes(Path("data/train/dog/3.png").read_bytes())
    assert notes_of("images").startswith(
        "warning: 1 of 12 test images are copies of train images (test/cat/0.png = train/dog/3.png)"
    )
    assert check_data(recipe_of("images")).duplicates.across == 1
    Path("data/test/cat/0.png").unlink()
    assert "copies" not in notes_of("images")


def test_row27_a_table_that_is_its_own_test() -> None:
    table()()
    with pytest.raises(DataError, match="test_path is a copy of path"):
        load_data(recipe_of("table", "dataset.test_path=data.csv"))


def test_row27_texts_that_are_their_own_test() -> None:
    texts()()
    for split in ("train", "test"):
        shutil.copytree("data", f"both/{split}")
    Path("both/test/pos/0.txt").write_text("a document of its own")
    assert "15 of 16 test documents are copies of train documents" in notes_of("texts", "dataset.path=both")


@pytest.mark.parametrize(
    "names", [("-1", "0", "1"), ("0.5", "1.5", "nan")], ids=["row28_negative", "row28_no_whole_numbers"]
)
def test_row28_labels_are_names(names: tuple[str, ...]) -> None:
    rows = [
        f"train/{animal}/{number}.png,{names[number % 3]}" for animal in ("cat", "dog") for number in range(6)
    ]
    labels("\n".join(rows))()
    info = load_data(recipe_of("images", *BY_LABELS, "dataset.validation_split=0.5")).info
    assert set(info.class_names) == set(names)


def test_row29_what_a_table_may_hold() -> None:
    random = np.random.default_rng(0)
    rows = [
        f'{random.normal():.3f};"{"pq"[number % 2]}\n{number % 3}";{"ab"[number % 2]}' for number in range(40)
    ]
    rows[3], rows[4], rows[5] = ";p;a", "?;;b", "1,5;p;"
    Path("data.csv").write_text("\ufeffnumber;text;y\n" + "\n".join(rows) + "\n", encoding="utf-8")
    data = load_data(recipe_of("table"))
    assert "missing cells: number 2, text 1" in "\n".join(data.info.notes)
    assert "left out 1 rows without y" in "\n".join(data.info.notes)
    # Medians and categories are those of the train split alone.
    assert data.preprocessing is not None and len(data.train) == 35
    known = data.train.inputs["column_number"]
    imputation = data.preprocessing.get_layer("imputation")
    assert imputation.values == pytest.approx([np.nanmedian(known)])


def test_row29_ten_thousand_columns_are_read() -> None:
    names = [f"pixel {number}" for number in range(10_000)]
    rows = [
        ",".join([*(str((number * 7 + row) % 5) for number in range(10_000)), "ab"[row % 2]])
        for row in range(6)
    ]
    Path("data.csv").write_text("\n".join([",".join([*names, "y"]), *rows, ""]))
    info = load_source(recipe_of("table").dataset).info
    assert info.input_shape == (10_000,) and "10,000 columns are as many inputs of the model" in "\n".join(
        info.notes
    )


def test_row30_texts_of_all_kinds() -> None:
    many = " ".join(f"word{number % 1000}" for number in range(100_000)).encode()
    texts(
        empty=b"",
        emoji="😀 👩‍👩‍👧 مرحبا שלום עולם".encode(),
        long=many,
        one_word=b"w" * 1_000_000,
        unknown="ж щ ю".encode(),
    )()
    recipe = recipe_of("texts")
    data = load_data(recipe)
    assert "left out 1 files that hold nothing but white space:\n  pos/empty.txt" in "\n".join(
        data.info.notes
    )
    assert len(data.train) + len(data.validation) == 20
    report = check_data(recipe)
    assert report.texts[0].cut > 0.5 and report.max_length == 8
    assert max(survey.longest for survey in report.texts) >= 100_000


def test_row31_sound_is_refused_in_words(run_dlcli: Callable[..., Any]) -> None:
    """There is no source of sound yet; a recipe that asks for one learns what there is."""
    Path("r.yaml").write_text(
        "task: audio_classification\ndataset: {name: audio_folder, path: sounds}\narchitecture: cnn\n"
    )
    outcome = run_dlcli("validate", "r.yaml")
    outcome.check(2)
    assert "r.yaml:1:7 task: unknown task" in outcome.err and "allowed: image_classification" in outcome.err
    assert "r.yaml:2:17 dataset.name: unknown dataset" in outcome.err and "image_folder" in outcome.err
    images()
    Path("data/train/cat/0.wav").write_bytes(b"RIFF\x24\0\0\0WAVEfmt ")
    assert "1 files ignored (1 no image)" in notes_of("images")


@pytest.mark.usefixtures("no_pictures")
def test_row33_changed_data_are_noticed_when_a_run_goes_on(run_dlcli: Callable[..., Any]) -> None:
    table()()
    Path("r.yaml").write_text(RECIPES["table"])
    run_dlcli("train", "r.yaml", "--set", "training.epochs=1", "--out", "run").check(0)
    table("1,2,a")()
    go_on = ("train", "--resume", "run", "--set", "training.epochs=2")
    outcome = run_dlcli(*go_on)
    outcome.check(2)
    assert "not everything is as it was" in outcome.err and "--allow-change data" in outcome.err
    run_dlcli(*go_on, "--allow-change", "data").check(0)


@pytest.mark.parametrize("new", [PIXELS, None], ids=["row33_replaced", "row33_gone"])
def test_row33_a_file_that_changes_while_it_is_streamed(
    new: np.ndarray | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    images()
    monkeypatch.setattr("dlcli.data.listed_images.memory_budget", lambda: 100)
    train = load_source(recipe_of("images").dataset).train
    assert np.asarray(train.read(np.array([3]))).shape == (1, 8, 8, 3)
    Path("data/train/cat/3.png").unlink()
    if new is not None:
        image("data/train/cat/3.png", new)
    with pytest.raises(
        DataError, match=r"data/train/cat/3\.png (has changed since the work began|cannot be read)"
    ):
        train.read(np.array([3]))
    train.read(np.array([2]))


def test_row34_one_in_ten_thousand() -> None:
    rows = [f"{number % 97},{number % 89},a" for number in range(10_000)]
    Path("data.csv").write_text("\n".join(["x,z,y", *rows, "1,2,b", "3,4,b", ""]))
    data = load_data(recipe_of("table"))
    assert np.bincount(data.train.targets)[1] >= 1 and len(data.validation) == 1000


def test_row34_fewer_examples_than_a_batch_are_one_step() -> None:
    images(count=2)
    recipe = recipe_of("images", "dataset.validation_split=0", "training.batch_size=512")
    assert steps_per_epoch(len(load_data(recipe).train), recipe.training.batch_size) == 1
