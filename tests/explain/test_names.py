import unicodedata

import pytest

from dlcli.explain.names import MOST_BYTES, Stems, safe_stem


@pytest.mark.parametrize(
    ("text", "stem"),
    [
        ("cat", "cat"),
        ("my cat (2)", "my cat (2)"),
        ("a/b\\c:d", "a_b_c_d"),
        ("../../etc/passwd", "etc_passwd"),
        ("A great film!\nTruly <b>great</b>.", "A great film_ Truly _b_great_b"),
        ("日本語の名前", "日本語の名前"),
        ("Straße", "Straße"),
        ("🐱", "input"),
        ("cat 🐱🐶 dog", "cat _ dog"),
        ("", "input"),
        ("...", "input"),
        ("-rf", "rf"),
        ("con", "con_"),
        ("NUL.x", "NUL.x_"),
        ("nul\0byte\x1b[31m", "nul_byte_31m"),
        ("\u202egnp.exe", "gnp.exe"),
        ("broken\udcff", "broken"),
    ],
)
def test_stems_are_safe_and_still_readable(text, stem):
    assert safe_stem(text) == stem


@pytest.mark.parametrize("letter", ["n", "é", "猫", "𒀀", "a\u0301", "."])
def test_long_names_fit_into_a_file_name(tmp_path, letter):
    stem = safe_stem("x" + letter * 300)
    assert 1 <= len(stem.encode()) <= MOST_BYTES
    assert stem == unicodedata.normalize("NFC", stem)
    (tmp_path / f"{stem}-10000.grad_cam_plus_plus.npy").write_bytes(b"")


def test_duplicates_are_numbered_also_where_case_or_accents_alone_differ():
    stems = Stems()
    texts = ["cat", "cat", "Cat", "cat-2", "cat", "é", "e\u0301", "STRASSE", "straße"]
    taken = [stems.of(f"folder {place}/{text}", text) for place, text in enumerate(texts)]
    assert taken == ["cat", "cat-2", "Cat-3", "cat-2-2", "cat-4", "é", "é-2", "STRASSE", "straße-2"]


def test_a_number_is_not_given_to_a_name_that_has_it_already():
    stems = Stems()
    assert [stems.of(text + str(place), text) for place, text in enumerate(["Cat-2", "cat", "cat"])] == [
        "Cat-2", "cat", "cat-3",
    ]  # fmt: skip


def test_the_same_input_keeps_its_stem():
    stems = Stems()
    assert [stems.of("a/cat.png", "cat"), stems.of("b/cat.png", "cat"), stems.of("a/cat.png", "cat")] == [
        "cat", "cat-2", "cat",
    ]  # fmt: skip


def test_stems_of_an_earlier_run_stay_whatever_comes_before_them_now():
    stems = Stems({"b/cat.png": "cat"})
    assert stems.of("a/cat.png", "cat") == "cat-2"
    assert stems.of("b/cat.png", "cat") == "cat"


def test_ten_thousand_equal_names_are_numbered_quickly():
    stems = Stems()
    taken = [stems.of(f"{place}/image.png", "image") for place in range(10_000)]
    assert len(set(taken)) == 10_000
    assert taken[-1] == "image-10000"
