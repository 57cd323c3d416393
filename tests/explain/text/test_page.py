"""Coloured words: red for, blue against, nothing from elsewhere as markup, no blank colours for a flat map."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.record import Explained
from dlcli.explain.text.layout import Piece, lines_of
from dlcli.explain.text.page import coloured_words, draw_text, html_text, scale_of_words, terminal_text

WORDS = ("a", "<script>alert(1)</script>", "film", "\n", "dull", "ok")
BETWEEN = ("", " & ", "  ", "", "", " ", " <")


def explained(values=(0.0, 2.0, 0.5, 0, -1.0, 0.01), signed=True, words=WORDS, between=BETWEEN, **changes):
    subject = Subject(
        "reviews.csv row 1 <b>",
        np.arange(5, 5 + len(values), dtype=np.int32),
        words=words,
        word_of=np.arange(len(values)),
        original=between,
    )
    attribution = Attribution(np.array(values, np.float32), signed=signed, warnings=("R2 is low",))
    of = {"output": 1, "class_name": "<i>pos", "value": 1.5, "scale": "logit", "probability": 0.8}
    return Explained(
        subject,
        "lime",
        **{**of, **changes},
        predicted="<i>pos",
        predicted_probability=0.8,
        attribution=attribution,
    )


def test_red_speaks_for_and_blue_against():
    words = {each.word: each for each in coloured_words(explained())}
    red, _, blue = (int(words["<script>alert(1)</script>"].color[i : i + 2], 16) for i in (1, 3, 5))
    assert red > blue
    red, _, blue = (int(words["dull"].color[i : i + 2], 16) for i in (1, 3, 5))
    assert blue > red
    assert words["a"].color is None
    assert words["ok"].color is None  # half a per cent of the strongest
    assert words["<script>alert(1)</script>"].ink == "#ffffff"
    assert words["film"].ink == "#000000"


def test_the_scale_is_symmetric_when_signed_and_starts_at_0_else():
    assert scale_of_words(explained())[:2] == (-2.0, 2.0)
    assert scale_of_words(explained(values=(0.1, 0.5, 0.2, 0, 0, 0), signed=False))[:2] == (0.0, 0.5)


def test_tokens_of_a_word_are_added():
    one = explained(values=(1.0, 1.0, -3.0), words=("good", "bad"), between=("", " ", ""))
    one = Explained(
        **{
            **vars(one),
            "subject": Subject("x", np.arange(3), words=("good", "bad"), word_of=np.array([0, 0, 1])),
        }
    )
    assert [each.value for each in coloured_words(one)] == [2.0, -3.0]


def test_attention_speaks_neither_for_nor_against():
    text = terminal_text(explained(values=(0.1, 0.5, 0.2, 0, 0, 0), signed=False)).plain
    assert "most: " in text
    assert "for: " not in text


def test_html_is_escaped_and_keeps_the_text():
    fragment = html_text(explained())
    assert "<script" not in fragment
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in fragment
    assert "http" not in fragment
    assert set(re.findall(r"<(\w+)", fragment)) == {"div", "span", "br", "small"}
    text = re.sub(r"<[^>]*>", "", fragment[: fragment.index("</div>")])
    assert text == "a &amp; &lt;script&gt;alert(1)&lt;/script&gt;  film⏎\ndull ok &lt;"
    assert 'title="+2"' in fragment


def test_the_terminal_gets_words_and_no_control_characters():
    words = ("fine", "\x1b[31mbad", "[red]")
    text = terminal_text(explained(values=(1, -2, 0.5), words=words, between=("", " ", " ", "")))
    assert "\x1b" not in text.plain
    assert "[31mbad" in text.plain
    assert "[red]" in text.plain
    assert "for: fine +1" in text.plain
    assert "against:" in text.plain
    colored = [
        text.plain[span.start : span.end] for span in text.spans if getattr(span.style, "bgcolor", None)
    ]
    assert colored == ["fine", "[31mbad", "[red]"]


@pytest.mark.parametrize("values", [(0.0, 0, 0, 0, 0, 0), (1.0, np.nan, 0, 0, 0, 0)])
def test_what_shows_nothing_is_said_in_words(values, tmp_path):
    one = explained(values=values)
    assert "No colours" in html_text(one)
    assert "No colours" in terminal_text(one).plain
    assert "<span" not in html_text(one)
    assert draw_text([one], tmp_path / "x.png") == [None]


def test_a_picture_has_the_words_colours(tmp_path):
    path = tmp_path / "x.png"
    one = explained()
    other = replace(one, class_name="neg", attribution=Attribution(-one.attribution.values, signed=True))
    scales = draw_text([one, other], path)
    assert [scale.high for scale in scales] == [2.0, 2.0]
    with Image.open(path) as image:
        found = {
            "#{:02x}{:02x}{:02x}".format(*color[:3]) for _, color in image.convert("RGB").getcolors(100_000)
        }
        assert image.width == 960
    for each in (*coloured_words(one), *coloured_words(other)):
        assert each.color is None or each.color in found


@pytest.mark.parametrize("several", [[], [explained(), explained()]])
def test_several_subjects_are_no_picture(several, tmp_path):
    with pytest.raises(ValueError, match="one subject"):
        draw_text(several, tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_a_long_text_is_broken_into_lines_and_cut(tmp_path):
    count = 2100
    one = explained(
        values=np.linspace(-1, 1, count), words=("word",) * count, between=("", *[" "] * (count - 1), "")
    )
    draw_text([one], tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert image.width == 960
        assert 2000 < image.height < 8000


def test_lines_keep_the_order_and_the_width():
    pieces = [Piece("one "), Piece("two", "#ff0000"), Piece("\n\n\n\n"), Piece("x" * 500), Piece(" end")]
    lines = lines_of(pieces, 300, 120)
    text = "".join(piece.text for line in lines for _, _, piece in line)
    assert text == "onetwo" + "x" * 500 + "end"
    assert [piece.text for _, _, piece in lines[0]] == ["one", "two"]
    assert sum(not line for line in lines) == 1
    for line in lines:
        assert all(left + width <= 300 or len(line) == 1 for left, width, _ in line)


def test_usual_gaps_where_nobody_kept_them():
    one = explained(values=(1, 2, 3, 4), words=("don't", "go", "!", "我"), between=None)
    assert [each.before for each in coloured_words(one)] == ["", " ", "", ""]
