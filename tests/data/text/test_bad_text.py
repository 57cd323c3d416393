"""Text that is none, or in an encoding nobody named: a stated rule, or a refusal that says where."""

import os

import pytest

from dlcli.data.text import reading
from dlcli.data.text.file import text_file
from dlcli.data.text.folder import text_folder
from dlcli.data.text.table import text_csv
from dlcli.errors import DataError

CHINESE = "商务大床房、房间很大。\n整体感觉不错。\n"
GERMAN = "Schöne Grüße\naus Köln\n"


def as_folder(path, content):
    for name in ("a", "b", "c"):
        (path / name).mkdir(parents=True, exist_ok=True)
        for number in range(2):
            (path / name / f"{number}.txt").write_text(f"{name}{number}")
    (path / "a" / "bad.txt").write_bytes(content)
    return {"path": path}


def as_file(path, content):
    path.mkdir(exist_ok=True)
    (path / "bad.txt").write_bytes(content)
    return {"path": path / "bad.txt"}


def text_of(source):
    texts = list(source.train.columns["text"])
    return texts[2] if source.info.class_names else "".join(texts)


BUILDERS = pytest.mark.parametrize(("build", "prepare"), [(text_folder, as_folder), (text_file, as_file)])


def refusal(build, **arguments):
    with pytest.raises(DataError) as raised:
        build(**arguments)
    return str(raised.value)


@BUILDERS
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_decide_and_are_no_text(tmp_path, build, prepare, encoding):
    source = build(**prepare(tmp_path, CHINESE.encode(encoding)))
    assert text_of(source).strip() == CHINESE.strip()


@BUILDERS
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_byte_order_marks_are_no_text_when_the_encoding_is_given(tmp_path, build, prepare, encoding):
    (tmp_path / "data").mkdir()
    arguments = prepare(tmp_path / "data", ("\ufeff" + CHINESE).encode(encoding))
    if build is text_folder:
        for path in tmp_path.rglob("[012].txt"):
            path.write_bytes(path.read_text().encode(encoding))
    assert text_of(build(**arguments, encoding=encoding)).strip() == CHINESE.strip()


@BUILDERS
@pytest.mark.parametrize(
    ("text", "encoding", "hint"),
    [
        (CHINESE, "gb18030", "looks like Chinese in `encoding: gb18030`"),
        (GERMAN, "latin-1", "for example `encoding: latin-1`"),
    ],
)
def test_other_encodings_must_be_named(tmp_path, build, prepare, text, encoding, hint):
    arguments = prepare(tmp_path, b"ok\n" + text.encode(encoding))
    message = refusal(build, **arguments)
    assert "bad.txt:2: byte 0x" in message
    first = next(index for index, character in enumerate("ok\n" + text) if character > "\x7f")
    assert f"at offset {first} is not UTF-8; " in message
    assert hint in message
    assert text_of(build(**arguments, encoding=encoding)).strip() == "ok\n" + text.strip()


@BUILDERS
def test_given_encoding_is_strict(tmp_path, build, prepare):
    arguments = prepare(tmp_path, GERMAN.encode("latin-1"))
    assert "bad.txt:1: byte 0xf6 at offset 3 is not ascii" in refusal(build, **arguments, encoding="ascii")
    assert "did you mean 'gb18030'?" in refusal(build, **arguments, encoding="gb1803")
    assert "'hex' is unknown" in refusal(build, **arguments, encoding="hex")


@BUILDERS
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\ntw\0o\n", "bad.txt:2: zero bytes"),
        ("plain words\n".encode("utf-16-le"), "looks like `encoding: utf-16-le`"),
        ("plain words\n".encode("utf-16-be"), "looks like `encoding: utf-16-be`"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", "bad.txt:3: zero bytes: this is no UTF-8 text"),
        (b"cut off: \xe5\x95", "byte 0xe5 at offset 9 is not UTF-8"),
        ("\ud800".encode("utf-8", "surrogatepass"), "byte 0xed at offset 0"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, build, prepare, content, message):
    assert message in refusal(build, **prepare(tmp_path, content))


def test_fault_beyond_the_first_chunk_is_placed_right(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_CHUNK", 1000)
    lines = "ä123456789\n" * 300  # 12 bytes each, so that chunks cut through characters
    source = text_file(**as_file(tmp_path, lines.encode()))
    assert text_of(source) == lines
    arguments = as_file(tmp_path, lines.encode() + b"x\xff\n")
    assert "bad.txt:301: byte 0xff at offset 3,601 is not UTF-8" in refusal(text_file, **arguments)
    assert "bad.txt:302: zero" in refusal(text_file, **as_file(tmp_path, lines.encode() + b"x\n\0"))


def test_bad_files_are_skipped_when_asked(tmp_path):
    arguments = as_folder(tmp_path, b"\xff\xff")
    message = refusal(text_folder, **arguments)
    assert "1 of 7 text files cannot be used" in message
    assert "dataset.on_bad: skip" in message
    source = text_folder(**arguments, on_bad="skip")
    assert list(source.train.columns["text"]) == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert source.train.targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert any("skipped 1 of 7" in note and "bad.txt:1" in note for note in source.info.notes)
    for number in range(2):
        (tmp_path / "a" / f"{number}.txt").write_bytes(b"\xff")
    assert "class 'a' has no text left" in refusal(text_folder, **arguments, on_bad="skip")
    (tmp_path / "b" / "0.txt").write_bytes(b"\xff")
    assert "more than half" in refusal(text_folder, **arguments, on_bad="skip")


def test_documents_of_white_space_are_left_out(tmp_path):
    source = text_folder(**as_folder(tmp_path, b" \n\t\xe3\x80\x80\n"))
    assert len(source.train) == 6
    assert any("left out 1 files" in note and "bad.txt" in note for note in source.info.notes)


@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xef\xbb\xbf"])
def test_empty_corpus_is_refused(tmp_path, content):
    assert "nothing but white space" in refusal(text_file, **as_file(tmp_path, content))
    assert "nothing but white space" in refusal(text_file, path=as_file(tmp_path, content)["path"].parent)
    table = tmp_path / "t.csv"
    table.write_bytes(content)
    assert "the file is empty" in refusal(text_csv, path=table, text="x", target="y")


def test_tables_of_text_are_not_guessed_either(tmp_path):
    table = tmp_path / "t.csv"
    table.write_bytes(f"y,text\n1,ok\n0,{CHINESE.strip()[:5]}\n".encode("gb18030"))
    message = refusal(text_csv, path=table, text="text", target="y")
    assert "t.csv:3: byte 0xc9" in message
    assert "gb18030" in message
    source = text_csv(path=table, text="text", target="y", encoding="gb18030")
    assert source.train.columns["text"][1] == "商务大床房"
    table.write_bytes("y,text\n1,ok\n0,nö\n".encode("utf-16"))
    assert text_csv(path=table, text="text", target="y").train.columns["text"][1] == "nö"


def test_a_thing_in_a_files_place_is_named(tmp_path):
    (tmp_path / "folder.txt").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    assert "this is a folder; expected a CSV" in refusal(
        text_csv, path=tmp_path / "folder.txt", text="x", target="y"
    )
    assert "no .txt files in this folder" in refusal(text_file, path=tmp_path / "folder.txt")
    assert "not a regular file" in refusal(text_file, path=tmp_path / "pipe.txt")
    assert "pipe, socket or device" in refusal(text_file, path=tmp_path)
    assert "did you mean 'pipe.txt'?" in refusal(text_file, path=tmp_path / "pipes.txt")
    assert "not a folder" in refusal(text_folder, path=tmp_path / "pipe.txt")


def test_links_that_loop_or_lead_out_are_refused(tmp_path):
    root = as_folder(tmp_path / "data", b"fine")["path"]
    (tmp_path / "secret.txt").write_text("mine")
    (root / "a" / "loop").symlink_to(root, target_is_directory=True)
    (root / "b" / "leak.txt").symlink_to(tmp_path / "secret.txt")
    (root / "b" / "inside.txt").symlink_to(root / "a" / "0.txt")
    message = refusal(text_folder, path=root)
    assert "2 entries" in message
    assert "outside" in message
    assert "a link to a folder" in message
    (root / "a" / "loop").unlink()
    (root / "b" / "leak.txt").unlink()
    assert "a0" in list(text_folder(path=root).train.subset([5, 6]).columns["text"])


def test_file_that_may_not_be_read(tmp_path, monkeypatch):
    arguments = as_file(tmp_path, b"text")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert "Permission denied" in refusal(lambda: list(reading.decoded_chunks(arguments["path"], None)))


def test_a_column_name_may_be_longer_than_pythons_limit(tmp_path):
    (tmp_path / "long.csv").write_text(f"text,{'a' * 140_000},label\n" + "x,0,p\ny,1,q\n" * 3)
    source = text_csv(path=tmp_path / "long.csv", text="text", target="label")
    assert source.info.class_names == ("p", "q")
