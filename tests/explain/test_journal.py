import errno
import json

import pytest

from dlcli.errors import DlcliError, OutputError
from dlcli.explain import journal as module
from dlcli.explain.journal import JOURNAL, open_journal, write_explanation

SETTINGS = {"methods": ("grad_cam", "lime"), "seed": 0, "samples": None}


def record(name, **more):
    return {"input": name, "explanations": [{"method": "lime", "value": 0.5}], **more}


def test_what_is_done_is_known_again_and_kept_in_order(tmp_path):
    with open_journal(tmp_path / "deep" / "out", SETTINGS) as journal:
        journal.append("b.png", record("b.png"), page={"row": 1}, stem="b", stamp="10")
        journal.append("ä\udcff.png", record("ä"), stem="a")
        assert journal.is_done("b.png", "10")
    with open_journal(tmp_path / "deep" / "out", SETTINGS) as journal:
        assert journal.is_done("b.png", "10")
        assert not journal.is_done("b.png", "11")  # the file has changed
        assert not journal.is_done("c.png")
        assert journal.stems == {"b.png": "b", "ä\udcff.png": "a"}
        assert len(journal) == 2
        journal.append("b.png", record("b.png", again=True), page={"row": 2}, stem="b", stamp="11")
        assert [each["input"] for each in journal.records()] == ["b.png", "ä"]
        assert list(journal.pages()) == [{"row": 2}]
        assert next(journal.records())["again"]


@pytest.mark.parametrize("header", ['{"journal":1,"settings":null}', "[]", "{", ""])
def test_a_damaged_beginning_is_begun_anew(tmp_path, header):
    (tmp_path / JOURNAL).write_text(f"{header}\n")
    with open_journal(tmp_path, SETTINGS) as journal:
        assert len(journal) == 0
        journal.append("a.png", record("a.png"), stem="a")
    with open_journal(tmp_path, SETTINGS) as journal:
        assert journal.is_done("a.png")


def test_failed_inputs_are_tried_again_in_their_place(tmp_path):
    with open_journal(tmp_path, SETTINGS) as journal:
        journal.append("bad.png", {"input": "bad.png", "error": "is cut off"})
        journal.append("good.png", record("good.png"))
    with open_journal(tmp_path, SETTINGS) as journal:
        assert not journal.is_done("bad.png")
        assert journal.stems == {}
        journal.append("bad.png", record("bad.png"))
        assert journal.is_done("bad.png")
        assert list(journal.records()) == [record("bad.png"), record("good.png")]


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_that_was_cut_off_is_dropped_and_done_again(tmp_path, cut):
    with open_journal(tmp_path, SETTINGS) as journal:
        journal.append("a.png", record("a.png"))
        journal.append("b.png", record("b.png"))
    path = tmp_path / JOURNAL
    path.write_bytes(path.read_bytes()[:-cut])
    with open_journal(tmp_path, SETTINGS) as journal:
        assert journal.is_done("a.png")
        assert not journal.is_done("b.png")
        journal.append("b.png", record("b.png"))
    with open_journal(tmp_path, SETTINGS) as journal:
        assert list(journal.records()) == [record("a.png"), record("b.png")]


def test_a_journal_without_its_first_line_begins_anew(tmp_path):
    (tmp_path / JOURNAL).write_bytes(b'{"journal": 1, "sett')
    with open_journal(tmp_path, SETTINGS) as journal:
        assert len(journal) == 0
        journal.append("a.png", record("a.png"))
    with open_journal(tmp_path, SETTINGS) as journal:
        assert journal.is_done("a.png")


def test_other_settings_are_refused_with_both_named(tmp_path):
    with open_journal(tmp_path, SETTINGS) as journal:
        journal.append("a.png", record("a.png"))
    before = (tmp_path / JOURNAL).read_bytes()
    now = {**SETTINGS, "methods": ["shap"], "samples": 500}
    with pytest.raises(DlcliError) as refusal, open_journal(tmp_path, now):
        pass
    message = str(refusal.value)
    assert str(tmp_path) in message
    assert 'methods was ["grad_cam", "lime"], is now ["shap"]' in message
    assert "samples was not set, is now 500" in message
    assert "seed" not in message
    assert (tmp_path / JOURNAL).read_bytes() == before


def test_a_journal_of_another_version_is_refused(tmp_path):
    (tmp_path / JOURNAL).write_text('{"journal": 99, "settings": {}}\n')
    with pytest.raises(DlcliError, match="another version"), open_journal(tmp_path, {}):
        pass


def test_a_second_process_is_kept_out(tmp_path):
    refused = pytest.raises(DlcliError, match="another process")
    with open_journal(tmp_path, SETTINGS), refused, open_journal(tmp_path, SETTINGS):
        pass
    with open_journal(tmp_path, SETTINGS):
        pass


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with (
        pytest.raises(OutputError, match=r"out: cannot be written to: is a file"),
        open_journal(tmp_path / "out", SETTINGS),
    ):
        pass


def test_a_full_disk_is_said_and_the_next_run_goes_on(tmp_path, monkeypatch):
    def full(file, content):
        file.write(json.dumps(content).encode()[:30])
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_journal(tmp_path, SETTINGS) as journal:
        journal.append("a.png", record("a.png"))
        with monkeypatch.context() as patch:
            patch.setattr(module, "_write", full)
            with pytest.raises(OutputError, match="No space left on device"):
                journal.append("b.png", record("b.png"))
        assert not journal.is_done("b.png")
        journal.append("c.png", record("c.png"))
    with open_journal(tmp_path, SETTINGS) as journal:
        assert list(journal.records()) == [record("a.png"), record("c.png")]


def test_numbers_that_are_no_json_are_refused(tmp_path):
    with open_journal(tmp_path, SETTINGS) as journal, pytest.raises(ValueError, match="JSON"):
        journal.append("a.png", {"value": float("nan")})


@pytest.mark.parametrize("count", [0, 1, 3])
def test_explanation_json_holds_the_header_and_all_records(tmp_path, count):
    records = [record(f"ä\udcff\n{place}") for place in range(count)]
    header = {"schema": 1, "settings": {"seed": 0}}
    assert write_explanation(tmp_path / "explanation.json", header, iter(records)) == count
    text = (tmp_path / "explanation.json").read_text()
    assert json.loads(text) == {**header, "inputs": records}
    # Just as json.dump writes it, so that other programs may write it again without a difference.
    if count:
        assert text == json.dumps({**header, "inputs": records}, indent=2) + "\n"


def test_explanation_json_without_a_header(tmp_path):
    write_explanation(tmp_path / "explanation.json", {}, [{}])
    assert json.loads((tmp_path / "explanation.json").read_text()) == {"inputs": [{}]}


def test_a_failure_midway_leaves_the_old_explanation(tmp_path):
    path = tmp_path / "explanation.json"
    path.write_text("old")

    def records():
        yield record("a.png")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_explanation(path, {}, records())
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["explanation.json"]


def test_interrupted_and_resumed_gives_the_same_bytes(tmp_path):
    names = [f"{place}.png" for place in range(5)]

    def run(folder, stop=None):
        with open_journal(folder, SETTINGS) as journal:
            for name in names[:stop]:
                if not journal.is_done(name):
                    journal.append(name, record(name), stem=name)
            write_explanation(folder / "explanation.json", {"seed": 0}, journal.records())

    run(tmp_path / "whole")
    run(tmp_path / "twice", stop=2)
    run(tmp_path / "twice")
    whole, twice = ((tmp_path / name / "explanation.json").read_bytes() for name in ("whole", "twice"))
    assert whole == twice
