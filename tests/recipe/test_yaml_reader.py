import os
import time
from pathlib import Path

import pytest

from dlcli.recipe import yaml_reader
from dlcli.recipe.yaml_reader import parse_scalar, parse_yaml, read_yaml


def mistakes(text):
    return [str(mistake) for mistake in parse_yaml(text, "r.yaml").mistakes]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1.", 1.0),
        (".5", 0.5),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("0o10", 8),
        ("0x1F", 31),
        ("true", True),
        ("TRUE", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("1e400", float("inf")),
        ("-.inf", float("-inf")),
        # text in YAML 1.2, something else in YAML 1.1
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("12:30", "12:30"),
        ("2020-01-01", "2020-01-01"),
        ("1_000", "1_000"),
        ("e3", "e3"),
        ("nan", "nan"),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text, value):
    result = parse_scalar(text)
    assert result == value and type(result) is type(value)


def test_quoted_scalars_are_text():
    assert parse_yaml("a: '1'\nb: \"true\"\nc: '010'", "r").value == {"a": "1", "b": "true", "c": "010"}


def test_keys_are_text_as_written():
    assert parse_yaml("{no: 1, 0: 2, 010: 3, 1.0: 4}", "r").value == {"no": 1, "0": 2, "010": 3, "1.0": 4}


def test_positions_of_keys_and_values():
    places = parse_yaml("a: 1\nb:\n  c: [x, {d: 1e400}]\n", "r").places
    assert (places["b", "c"].key_line, places["b", "c"].key_column) == (3, 3)
    assert (places["b", "c", 0].line, places["b", "c", 0].column) == (3, 7)
    assert str(places["b", "c", 1, "d"]) == "r:3:14"
    assert places["b", "c", 1, "d"].raw == "1e400"


def test_bom_and_crlf_are_accepted():
    document = parse_yaml("\ufeffa: 1\r\nb:\r\n  c: 2\r\n", "r")
    assert document.value == {"a": 1, "b": {"c": 2}} and not document.mistakes
    assert document.places["b", "c"].line == 3


def test_every_mistake_of_the_text_at_once():
    text = "a: &x 1\nb: *x\nc: !!python/object/apply:os.system [echo]\na: 2\n<<: {q: 1}\nd: 010\n? [k]\n: 1\n"
    assert mistakes(text) == [
        "r.yaml:1:4 a: anchors are not allowed; received &x",
        "r.yaml:2:4 b: aliases are not allowed; repeat the value; received *x",
        "r.yaml:3:4 c: tags are not allowed; received !!python/object/apply:os.system",
        "r.yaml:4:1 a: duplicate key; the first is in line 1",
        "r.yaml:5:1 <<: merge keys are not allowed; write the keys out",
        "r.yaml:6:4 d: a leading zero is octal in some YAML; write 10 for the number, '010' for text; "
        "received 010",
        "r.yaml:7:3: a key must be text",
    ]


def test_duplicate_keys_below_a_list_are_found():
    assert mistakes("a:\n  - {b: 1, b: 2}") == ["r.yaml:2:12 a.0.b: duplicate key; the first is in line 2"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:\n\t- 1\n\tb: 2\n", ["r.yaml:2:1: a tab indents", "r.yaml:3:1: a tab indents"]),
        ("a: 1\x00\n", ["r.yaml:1:5: character U+0000 (byte 4) is not allowed"]),
        ("é: \x07", ["r.yaml:1:4: character U+0007 (byte 4) is not allowed"]),
        ("a: 1\n---\nb: 2\n", ["r.yaml:2:1: a second document"]),
        ("%YAML 1.1\n---\na: 1", ["r.yaml:1:1: directives are not allowed"]),
        ("a: {b: [1}", ["r.yaml:1:10: not YAML: "]),
        ("a: @x", ["r.yaml:1:4: not YAML: "]),
        ('a: "\\ud800"', ["r.yaml:1:4 a: half of a surrogate pair"]),
        ('a: {"\\ud800": 1}', ["r.yaml:1:5 a: half of a surrogate pair"]),
        ('a: "\\Uffffffff"', ["r.yaml: not YAML: "]),
        ("a: " + "9" * 5000, ["r.yaml:1:4 a: a number of 5000 digits"]),
    ],
)
def test_refused_texts(text, expected):
    found = mistakes(text)
    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True)), found


def test_a_tab_after_text_is_no_indentation():
    assert not mistakes("a: 'x\ty'  # c\n#\tcomment\nb: 1\n")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "{a: " * 5000,
        "- " * 5000,
        "a: [" + "1," * 300_000 + "]",
        "k: \n" * 200_000,
        "a: &a [" + "*a, " * 100_000 + "]",
    ],
    ids=["lists", "mappings", "dashes", "wide", "duplicates", "aliases"],
)
def test_bombs_are_refused_quickly(text):
    start = time.process_time()
    document = parse_yaml(text, "r")
    assert document.mistakes and len(document.mistakes) <= yaml_reader.MAX_MISTAKES and not document.complete
    assert time.process_time() - start < 2


def test_recursive_alias():
    assert mistakes("a: &a [*a]") == [
        "r.yaml:1:4 a: anchors are not allowed; received &a",
        "r.yaml:1:8 a.0: aliases are not allowed; repeat the value; received *a",
    ]


def test_not_utf8_names_the_byte(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"a: 1\nb: \xc3\xa9\xff\n")
    assert str(read_yaml(path, "r").mistakes[0]) == (
        "r:2:5: not UTF-8: byte 0xff at offset 10; save the file as UTF-8"
    )
    path.write_bytes("a: 1".encode("utf-16"))
    assert "byte 0xff at offset 0" in str(read_yaml(path).mistakes[0])


def what_is_wrong(path):
    start = time.perf_counter()
    document = read_yaml(path, "r")
    assert time.perf_counter() - start < 2
    assert document.value is None and len(document.mistakes) == 1
    return document.mistakes[0].what


def test_files_that_are_no_recipes(tmp_path):
    fifo, loop, large = tmp_path / "fifo", tmp_path / "loop", tmp_path / "large"
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    large.write_bytes(b"a" * 1_000_001)
    assert what_is_wrong(tmp_path) == "is a directory, not a recipe file"
    assert what_is_wrong(fifo).startswith("not a regular file")
    assert what_is_wrong(loop) == "a symbolic link that points to itself"
    assert what_is_wrong(large).startswith("larger than 1,000,000 bytes")
    assert what_is_wrong(tmp_path / "absent") == "no such file"
    assert what_is_wrong(tmp_path / ("x" * 300)).startswith("cannot be read: ")
    assert what_is_wrong(tmp_path / "a\0b").startswith("cannot be read: ")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero")
def test_a_device_without_end():
    assert what_is_wrong(Path("/dev/zero")).startswith("not a regular file")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("a: 1")
    path.chmod(0)
    assert what_is_wrong(path) == "no permission to read it"


def test_unreadable_file_by_error(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(yaml_reader.os, "open", refuse)
    assert what_is_wrong(tmp_path / "r.yaml") == "no permission to read it"
