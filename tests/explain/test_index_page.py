import json
import re
import shutil
import subprocess
import tracemalloc
from html.parser import HTMLParser

import numpy as np
import pytest

from dlcli.explain import index_page
from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.image.heat import thumbnail
from dlcli.explain.index_page import page_cell, page_row, write_index
from dlcli.explain.record import Explained, Trust

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)> & \"quoted\" 'n' </script> 🐱\u2028"


class Page(HTMLParser):
    """The page as a browser takes it apart: its tags, and the rows in their blocks."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.rows, self.scripts, self.words = [], [], [], []
        self._inside = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._inside = dict(attributes).get("class", tag) if tag == "script" else None

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "row":
            self.rows.append(json.loads(data))
        elif self._inside == "script":
            self.scripts.append(data)
        else:
            self.words.append(data)


def explained(method="lime", name="cat", faithfulness=0.3, **attribution):
    subject = Subject("cat.png", np.zeros((8, 8, 3), np.uint8))
    attribution = {"values": np.arange(64.0).reshape(8, 8), "signed": True, **attribution}
    trust = Trust(0.5 + faithfulness, 0.5, 0.5, 0.5, 0.05, stability=0.9)
    return Explained(
        subject, method, 0, name, 2.0, "logit", 0.8, "cat", 0.8, Attribution(**attribution), trust
    )


def row(name="cat.png", class_name="cat", **more):
    one = explained(name=class_name)
    cell = page_cell(one, picture=thumbnail(one.subject, one), file="cat.lime.png")
    return page_row(
        name, [cell], predicted=class_name, probability=0.8, picture=thumbnail(one.subject), **more
    )


def written(path, rows, **more):
    assert write_index(path, iter(rows), title=more.pop("title", "Why?"), **more) == len(rows)
    return path.read_text(encoding="utf-8")


def test_the_page_holds_every_row_and_loads_nothing(tmp_path):
    text = written(tmp_path / "index.html", [row("a.png"), row("b.png", text="a text", truth="dog")])
    page = Page(text)
    assert [each["name"] for each in page.rows] == ["a.png", "b.png"]
    cell = page.rows[0]["cells"][0]
    assert (cell["method"], cell["class"], cell["file"]) == ("lime", "cat", "cat.lime.png")
    assert (cell["faithfulness"], cell["verdict"], cell["stability"]) == (0.3, "better than random", 0.9)
    assert cell["picture"].startswith("data:image/webp;base64,")
    assert "://" not in text
    assert [attributes for _, attributes in page.tags if {"src", "href"} & set(attributes)] == []
    assert len(page.scripts) == 1


def test_names_of_classes_and_files_cannot_become_html(tmp_path):
    rows = [row(EVIL, EVIL, notes=[EVIL], text=EVIL), page_row(EVIL, error=EVIL)]
    text = written(
        tmp_path / "index.html", rows, title=EVIL, facts={EVIL: EVIL, "left out": None}, checks={"lime": EVIL}
    )
    page = Page(text)
    assert [tag for tag, _ in page.tags if tag in ("img", "iframe", "object", "link")] == []
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 3  # two rows and the page's own
    assert page.rows[0]["name"] == page.rows[0]["cells"][0]["class"] == page.rows[1]["error"] == EVIL
    assert "".join(page.words).count("alert(1)") == 5
    assert "left out" not in text


def test_the_policy_allows_the_one_script_and_nothing_from_outside(tmp_path):
    import base64
    import hashlib

    page = Page(written(tmp_path / "index.html", [row()]))
    policy = next(
        attributes["content"]
        for tag, attributes in page.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"


def test_names_that_are_no_utf8_are_written(tmp_path):
    page = Page(written(tmp_path / "index.html", [row("b\udcff.png")], title="\udcff"))
    assert page.rows[0]["name"] == "b\udcff.png"


def test_flat_maps_and_warnings_reach_the_page(tmp_path):
    flat = explained(values=np.zeros((8, 8)), warnings=("R2 0.12 is below 0.3",))
    assert thumbnail(flat.subject, flat) is None
    cell = page_cell(flat, picture=thumbnail(flat.subject, flat))
    page = Page(written(tmp_path / "index.html", [page_row("a", [cell])]))
    cell = page.rows[0]["cells"][0]
    assert (cell["status"], cell["picture"], cell["warnings"]) == ("flat_map", None, ["R2 0.12 is below 0.3"])


def test_rows_are_streamed(tmp_path):
    one = {**row(), "text": "word " * 1000}
    tracemalloc.start()
    write_index(tmp_path / "index.html", ({**one, "name": str(place)} for place in range(1000)), title="many")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "index.html").stat().st_size > 5_000_000
    assert peak < 500_000


def test_a_failure_midway_leaves_no_half_page(tmp_path):
    def rows():
        yield row()
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write_index(tmp_path / "index.html", rows(), title="t")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def in_node():
    """Runs an expression behind the page's script, outside any browser."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node, which runs the page's script outside a browser, is not installed")
    script = (index_page._ASSETS / "index.js").read_text(encoding="utf-8")

    def run(rows, expression):
        setup = (
            f"const entries = {json.dumps(rows)}.map(entryOf);\nconsole.log(JSON.stringify({expression}));"
        )
        done = subprocess.run(
            [node, "-e", script + setup], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def table():
    """Four rows whose orders by name, class, probability and faithfulness are all different."""
    values = [("img10", "dog", 0.9, 0.1), ("img9", "cat", 0.2, 0.3), ("img1", "ant", 0.5, -0.2)]
    rows = []
    for name, predicted, probability, faithfulness in values:
        cells = [
            page_cell(explained("lime", predicted, faithfulness)),
            page_cell(explained("rise", predicted, 0.2)),
        ]
        rows.append(page_row(name, cells, predicted=predicted, probability=probability, truth="cat"))
    return [*rows, page_row("broken.png", error="is cut off")]


@pytest.mark.parametrize(
    ("key", "descending", "expected"),
    [
        ("place", False, ["img10", "img9", "img1", "broken.png"]),
        ("name", False, ["broken.png", "img1", "img9", "img10"]),
        ("name", True, ["img10", "img9", "img1", "broken.png"]),
        ("class", False, ["img1", "img9", "img10", "broken.png"]),
        ("probability", True, ["img10", "img1", "img9", "broken.png"]),
        ("faithfulness", False, ["img1", "img10", "img9", "broken.png"]),
        ("method:lime", True, ["img9", "img10", "img1", "broken.png"]),
        ("method:rise", False, ["img10", "img9", "img1", "broken.png"]),
    ],
)
def test_rows_are_sorted(in_node, key, descending, expected):
    expression = f"ordered(entries, {json.dumps(key)}, {json.dumps(descending)}).map((entry) => entry.name)"
    assert in_node(table(), expression) == expected


@pytest.mark.parametrize(
    ("find", "flagged", "wrong", "expected"),
    [
        ("IMG1", False, False, ["img10", "img1"]),
        ("img ant", False, False, ["img1"]),
        ("cut off", False, False, ["broken.png"]),
        ("", True, False, ["broken.png"]),
        ("", False, True, ["img10", "img1"]),
        ("zebra", False, False, []),
    ],
)
def test_rows_are_found(in_node, find, flagged, wrong, expected):
    arguments = ", ".join(map(json.dumps, (find, flagged, wrong)))
    # Of broken.png the truth is not known, so that it is not wrong.
    assert in_node(table(), f"chosen(entries, {arguments}).map((entry) => entry.name)") == expected


def test_every_control_that_the_script_uses_is_on_the_page():
    script = (index_page._ASSETS / "index.js").read_text(encoding="utf-8")
    used = set(re.findall(r'by\("(\w+)"\)', script)) | {"key", "descending", "find", "flagged", "wrong"}
    assert used <= set(re.findall(r'id="(\w+)"', index_page._CONTROLS))
