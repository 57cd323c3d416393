"""A model from outside is loaded in a process of its own first, which may die of it."""

import json
import subprocess
import sys

import keras
import pytest

from dlcli.errors import DlcliError
from dlcli.pretrained import trial_load
from dlcli.pretrained.model_file import load_model_file
from dlcli.pretrained.unfit import UnfitError


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A file of 16 MB."""
    path = tmp_path_factory.mktemp("models") / "model.keras"
    keras.Sequential([keras.Input((2000,)), keras.layers.Dense(2000)]).save(path)
    return path


@pytest.mark.usefixtures("trial_load")
def test_a_good_model_passes_and_only_from_outside_it_is_tried(saved, monkeypatch):
    tried = []
    really = trial_load.try_loading
    monkeypatch.setattr(
        "dlcli.pretrained.model_file.try_loading", lambda copy: tried.append(copy.name) or really(copy)
    )
    load_model_file(saved)
    assert not tried
    assert load_model_file(saved, from_outside=True).count_params() == 2001 * 2000
    assert tried == ["model.keras"]


@pytest.mark.usefixtures("trial_load")
def test_a_model_that_takes_more_memory_than_allowed_is_refused_in_words(saved, monkeypatch):
    monkeypatch.setattr(trial_load, "MEMORY", 1 << 20)
    monkeypatch.setattr(trial_load, "TIMES", 0)
    with pytest.raises(DlcliError, match=r"refused: .* 1 MB of memory beside TensorFlow") as caught:
        load_model_file(saved, from_outside=True)
    assert str(caught.value).startswith(str(saved))


def test_a_process_without_end_is_stopped(saved, monkeypatch):
    monkeypatch.setattr(trial_load, "_CODE", "import time; time.sleep(60)")
    monkeypatch.setattr(trial_load, "SECONDS", -1)
    with pytest.raises(UnfitError, match="did not end within 1 seconds"):
        trial_load.try_loading(saved)


def test_nothing_is_imported_from_the_folder_where_the_user_is(saved, monkeypatch, tmp_path):
    (tmp_path / "here").mkdir()
    for path in (tmp_path / "stranger.py", tmp_path / "here" / "guest.py"):
        path.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "here", *sys.path])
    code = """if True:
        import importlib.util as find, json
        print(json.dumps({"loaded": not (find.find_spec("stranger") or find.find_spec("guest"))}))
    """
    monkeypatch.setattr(trial_load, "_CODE", code)
    trial_load.try_loading(saved)


def test_dlcli_is_found_where_only_the_current_folder_leads_to_it(saved, monkeypatch):
    root = trial_load.Path(trial_load.__file__).parents[2]
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "path", ["", *(place for place in sys.path if place != str(root))])
    code = (
        "import importlib.util, json; print(json.dumps({'loaded': bool(importlib.util.find_spec('dlcli'))}))"
    )
    monkeypatch.setattr(trial_load, "_CODE", code)
    trial_load.try_loading(saved)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux counts addresses")
def test_a_lower_limit_of_the_user_stays():
    code = """if True:
        import resource
        from dlcli.pretrained.trial_load import _limit
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        left = _limit(1 << 40)
        print(0 < left < 2 << 30 and resource.getrlimit(resource.RLIMIT_AS) == (2 << 30, 2 << 30))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize(
    ("code", "said", "message"),
    [
        ("import os; os.abort()", None, "ended with signal 6: it is damaged, or takes more"),
        ("raise SystemExit(3)", None, "ended with exit code 3"),
        ("pass", None, "ended with exit code 0"),
        ("print('[1]')", None, "ended with exit code 0"),
        ("", {"unfit": "is a pickle", "advice": "save it"}, "is a pickle"),
        ("", {"out_of_memory": 3 << 20}, "takes more than 3 MB"),
    ],
)
def test_how_the_process_ended_is_told(saved, monkeypatch, code, said, message):
    monkeypatch.setattr(trial_load, "_CODE", f"print({json.dumps(said)!r})" if said else code)
    with pytest.raises(UnfitError, match=message) as caught:
        trial_load.try_loading(saved)
    assert said is None or caught.value.advice == said.get("advice", caught.value.advice)


@pytest.mark.usefixtures("trial_load")
@pytest.mark.parametrize("opens", ["finetune", "explain"])
def test_sources_that_are_files_are_from_outside(opens, saved, monkeypatch):
    def refuse(copy):
        raise UnfitError("is refused by the trial")

    monkeypatch.setattr("dlcli.pretrained.model_file.try_loading", refuse)
    from dlcli.explain.source import open_source
    from dlcli.pretrained.source import load_backbone

    with pytest.raises(DlcliError, match="refused by the trial"):
        (load_backbone if opens == "finetune" else open_source)(str(saved))
