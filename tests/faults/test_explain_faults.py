"""Rows 61-68: explanations that cannot be given, and those that say nothing."""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from dlcli.explain import explain
from dlcli.files import write_text
from dlcli.layers import Predictions
from dlcli.pretrained import model_file

NAMES = ["cat", "dog", "owl"]
HOSTILE = [
    "<script>alert(1)</script>", "</script><img src=x onerror=alert(2)>", "../../up", "\N{GRINNING FACE}", "x" * 300, "[red]a&amp;\"\n/b[/red]",
]  # fmt: skip


def network(
    names: list[str] = NAMES,
    target: str = "classes",
    *,
    weight: float | None = None,
    middle: Callable[[Any], Any] | None = None,
    channels: int = 1,
) -> keras.Model:
    """Images of 8x8 pixels -> classes; `weight` is that of every kernel, random ones when left out."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, channels), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    if middle is None:
        x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="map")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(len(names))(x)
    if middle is not None:
        x = middle(x)
    scale = {"scale": [1.0] * len(names), "offset": [0.0] * len(names)} if target == "values" else {}
    model = keras.Model(image, Predictions(target, names, **scale)(x))  # type: ignore[arg-type]
    for each in model.weights:
        if weight is not None and len(each.shape) > 1:
            each.assign(np.full(each.shape, weight) if weight == 0 else weight * each.numpy())
    return model


MODELS: dict[str, Callable[[], keras.Model]] = {
    "cnn": network,
    "colour": lambda: network(channels=3),
    "mlp": lambda: network(middle=lambda x: x),
    "labels": lambda: network(["round", "red"], "labels"),
    "values": lambda: network(["weight", "size"], "values"),
    "zero": lambda: network(weight=0),
    "sure": lambda: network(weight=1e4),
    "restless": lambda: network(weight=300, middle=lambda x: 5 * keras.ops.sin(x)),
    "hostile": lambda: network(HOSTILE),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, build in MODELS.items():
        build().save(folder / f"{name}.keras")
    return folder


@pytest.fixture(autouse=True)
def _no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process in which a file from outside is loaded first takes four seconds."""
    monkeypatch.setattr(model_file, "try_loading", lambda path: None)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    return inputs_in(tmp_path)


def inputs_in(place: Path) -> Path:
    """Files of every kind, good ones and others."""
    folder = place / "inputs"
    folder.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8)).astype("uint8")).save(
        folder / "good.png"
    )
    Image.new("L", (8, 8), 77).save(folder / "one_colour.png")
    Image.new("L", (1, 1), 77).save(folder / "dot.png")
    Image.new("RGBA", (20, 10), (255, 0, 0, 9)).save(folder / "transparent.png")
    (folder / "text.png").write_text("no picture")
    (folder / "table.csv").write_text("a,b\n1,2\n")
    (folder / "empty").mkdir()
    return folder


@dataclass(frozen=True)
class Refused:
    """What cannot be explained, and why."""

    number: int
    what: str
    model: str
    words: str
    said: str
    """A regular expression, on stderr."""


INDICES = r"indices 0 to 2, or a class's name"
WAYS = "methods that work: integrated_gradients, smooth_grad, saliency, occlusion, rise, lime, shap"
REFUSED = [
    Refused(61, "a_layer_that_is_not_there", "cnn", "good.png --method grad_cam --layer conv9", r"--layer conv9: no such layer.*layers with a map: .*map \(8, 8, 4\)"),
    Refused(61, "a_layer_of_a_method_without", "cnn", "good.png --method lime --layer map", "--layer map: of no use to lime; these take it: grad_cam"),
    Refused(62, "grad_cam_of_dense_layers", "mlp", "good.png --method grad_cam", WAYS),
    Refused(62, "score_cam_of_dense_layers", "mlp", "good.png --method score_cam", WAYS),
    Refused(62, "a_method_of_texts", "cnn", "good.png --method attention", "is for models of texts, and this one reads images; allowed: grad_cam"),
    Refused(62, "a_method_that_is_none", "cnn", "good.png --method grad_cma", "no such method; did you mean grad_cam"),
    Refused(63, "class_minus_one", "cnn", "good.png --class -1", INDICES),
    Refused(63, "class_n", "cnn", "good.png --class 3", INDICES),
    Refused(63, "class_of_30_digits", "cnn", f"good.png --class {10**30}", INDICES),
    Refused(63, "a_class_misspelt", "cnn", "good.png --class dgo", "--class dgo: no such class; did you mean dog.*allowed: cat, dog, owl, or an index 0 to 2"),
    Refused(63, "a_label_that_is_none", "labels", "good.png --class green", "allowed: round, red, or an index 0 to 1"),
    Refused(63, "a_column_that_is_none", "values", "good.png --class colour", "no such column; .*allowed: weight, size, or an index 0 to 1"),
    Refused(64, "a_text_as_an_image", "cnn", "text.png", r"text\.png: is not an image dlcli reads .* starts with b'no picture'"),
    Refused(64, "a_sentence_as_an_image", "cnn", "no-such-thing", "no-such-thing: no such file or folder"),
    Refused(64, "a_table_as_an_image", "cnn", "table.csv", r"table\.csv: is not an image dlcli reads"),
    Refused(64, "a_folder_without_images", "cnn", "empty", "empty: "),
]  # fmt: skip


def row(fault: Any) -> str:
    return f"row{fault.number}_{fault.what}"


@pytest.mark.parametrize("fault", REFUSED, ids=row)
def test_what_cannot_be_explained_is_refused_with_what_can(
    run_dlcli, models, inputs, fault, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(inputs)
    ended = run_dlcli(
        "explain", models / f"{fault.model}.keras", *fault.words.split(), "--out", tmp_path / "why"
    )
    ended.check(2)
    assert re.search(fault.said, ended.err, re.DOTALL), ended.err
    assert not (tmp_path / "why").exists()


WORDS = {
    "cnn": "transparent.png one_colour.png dot.png good.png --method saliency,occlusion,rise,lime --segments 2 --samples 50",
    "colour": "good.png --method saliency",
    "labels": "good.png --method saliency --top 2",
    "values": "good.png --method saliency",
    "zero": "good.png --method saliency,grad_cam",
    "sure": "good.png --method saliency --output probability",
    "restless": "good.png --method lime --samples 100",
}
"""What is asked of each model: once, for all rows."""


@dataclass(frozen=True)
class Explained:
    """What is explained all the same, and what explanation.json says of it."""

    number: int
    what: str
    model: str
    file: str
    method: str
    status: str
    said: str = ""
    """In the explanation's warnings, the input's notes or on stderr."""
    explained: str = ""
    """The class."""


FLAT = "the map is flat: no part of the input stands out"
EXPLAINED = [
    Explained(63, "values_explain_the_first", "values", "good.png", "saliency", "ok", "", "weight"),
    Explained(63, "labels_explain_one_by_one", "labels", "good.png", "saliency", "ok"),
    Explained(64, "another_size_and_transparent", "cnn", "transparent.png", "saliency", "ok",
              "resized from 20x10 to 8x8.*transparent parts laid over white.*colour turned into grey"),
    Explained(64, "grey_for_colour", "colour", "good.png", "saliency", "ok", "grey turned into colour channels"),
    Explained(64, "one_pixel", "cnn", "dot.png", "saliency", "ok", "resized from 1x1 to 8x8"),
    Explained(65, "an_image_of_one_colour", "cnn", "one_colour.png", "occlusion", "flat_map", FLAT),
    Explained(65, "slopes_that_rounding_made", "cnn", "one_colour.png", "rise", "flat_map", FLAT),
    Explained(65, "gradients_that_are_zero", "zero", "good.png", "saliency", "flat_map", FLAT),
    Explained(65, "a_map_of_zeros", "zero", "good.png", "grad_cam", "flat_map", FLAT),
    Explained(65, "a_saturated_softmax", "sure", "good.png", "saliency", "flat_map", f"{FLAT}.*--output logit"),
    Explained(66, "lime_of_one_segment", "cnn", "good.png", "lime", "ok", "1 part, which is fewer than 8"),
    Explained(66, "lime_that_does_not_fit", "restless", "good.png", "lime", "ok", r"R2 0\.\d+ is below 0\.3: a line does not describe"),
]  # fmt: skip


@pytest.fixture(scope="module")
def explained(run_dlcli, models, tmp_path_factory) -> Callable[[str], tuple[Path, str]]:
    """Model -> the folder of its explanations, and what was said on stderr; no pictures, which take longest."""
    known: dict[str, tuple[Path, str]] = {}
    folder = inputs_in(tmp_path_factory.mktemp("explained"))

    def explain_all(model: str) -> tuple[Path, str]:
        if model not in known:
            words = [str(folder / word) if word.endswith(".png") else word for word in WORDS[model].split()]
            out = folder.parent / model
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(model_file, "try_loading", lambda path: None)
                patch.setattr(explain.View, "draw", lambda view, classes, name: [0.0] * len(classes))
                ended = run_dlcli("explain", models / f"{model}.keras", *words, "--no-trust", "--out", out)
            ended.check(0)
            known[model] = out, ended.err
        return known[model]

    return explain_all


@pytest.mark.parametrize("fault", EXPLAINED, ids=row)
def test_what_says_little_is_called_so(explained, fault) -> None:
    out, said = explained(fault.model)
    report = json.loads((out / "explanation.json").read_text())["inputs"]
    (found,) = [each for each in report if each["input"].endswith(f"/{fault.file}")]
    first, *others = [each for each in found["explanations"] if each["method"] == fault.method]
    assert first["status"] == fault.status
    assert first["class"] == (fault.explained or first["class"])
    assert len(others) == (fault.model == "labels")
    told = " ".join([*found["notes"], *first["warnings"], said])
    assert re.search(fault.said, told, re.DOTALL), told
    if first["warnings"]:  # the page shows them too
        assert first["warnings"][0] in (out / "index.html").read_text()
    assert (out / first["files"]["array"]).is_file()


@pytest.mark.slow
def test_row67_a_large_picture_takes_bounded_memory(run_dlcli, models, tmp_path) -> None:
    Image.new("L", (8000, 8000), 90).save(tmp_path / "large.png")
    ended = run_dlcli(
        "explain", models / "cnn.keras", tmp_path / "large.png", "--method", "saliency", "--no-trust", "--out", tmp_path / "why",
        memory=1 << 30,
    )  # fmt: skip
    ended.check(0)
    with Image.open(tmp_path / "why" / "large.saliency.png") as picture:
        assert max(picture.size) < 3000


def test_row67_a_disk_that_fills_up_loses_nothing_that_is_done(
    run_dlcli, models, tmp_path, monkeypatch
) -> None:
    for number in range(3):
        Image.new("L", (8, 8), 40 * number).save(tmp_path / f"{number}.png")
    monkeypatch.setitem(explain.BATCH_SIZE, "image", 1)
    words = ("explain", models / "cnn.keras", *sorted(tmp_path.glob("*.png")), "--method", "saliency", "--no-trust", "--out", tmp_path / "why")  # fmt: skip
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def draw(view: explain.View, classes: list[Any], name: str) -> list[float]:
        write_text(tmp_path / "why" / name, "a picture " * 200)
        return [0.0] * len(classes)

    def fills_up(view: explain.View, classes: Any, name: str) -> Any:
        if name.startswith("1."):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        return draw(view, classes, name)

    monkeypatch.setattr(explain.View, "draw", fills_up)
    try:
        ended = run_dlcli(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    ended.check(2)
    assert re.search(r"why/1\.saliency\.png: cannot be written: File too large", ended.err), ended.err
    assert {path.name for path in (tmp_path / "why").iterdir()} == {
        ".explanation.jsonl", "0.saliency.npy", "0.saliency.png", "1.saliency.npy",
    }  # fmt: skip
    done = (tmp_path / "why" / "0.saliency.png").stat().st_mtime_ns
    monkeypatch.setattr(explain.View, "draw", draw)
    run_dlcli(*words).check(0)
    assert len(json.loads((tmp_path / "why" / "explanation.json").read_text())["inputs"]) == 3
    assert (tmp_path / "why" / "0.saliency.png").stat().st_mtime_ns == done


@pytest.mark.parametrize("out", ["taken", "taken/below", "/proc/none/why", "x" * 300])
def test_row67_a_place_that_cannot_be_written_to(
    run_dlcli, models, inputs, out, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    words = ("--method", "saliency", "--no-trust", "--out", out)
    ended = run_dlcli("explain", models / "cnn.keras", inputs / "good.png", *words)
    ended.check(2)
    assert f"{out}: cannot be written to: " in ended.err and "choose another --out" in ended.err


def test_row68_names_of_classes_and_files_stay_names(run_dlcli, models, inputs, tmp_path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    pictures = [place / name for name in ("<b>\N{GRINNING FACE} [x] é.png", f"CON.{'y' * 240}.png")]
    for picture in pictures:
        picture.write_bytes((inputs / "good.png").read_bytes())
    out = place / "why"
    ended = run_dlcli(
        "explain",
        models / "hostile.keras",
        *pictures,
        "--method",
        "saliency",
        "--top",
        6,
        "--no-trust",
        "--out",
        out,
    )
    ended.check(0)
    assert {path for path in place.iterdir() if path not in pictures} == {out}
    left = sorted(path.name for path in out.iterdir())
    assert all(re.fullmatch(r"[\w .=@,()+-]{1,130}", name) for name in left) and len(left) == 3 + 2 * len(
        pictures
    ), left
    page = (out / "index.html").read_text()
    assert page.count("<script") == 1 + len(pictures) and "<img" not in page and "<b>" not in page
    report = json.loads((out / "explanation.json").read_text())
    assert {each["class"] for each in report["inputs"][0]["explanations"]} == set(HOSTILE)
    assert [each["input"] for each in report["inputs"]] == [str(each) for each in pictures]
    words = ("--method", "saliency", "--no-trust", "--class", HOSTILE[0], "--json", "--out", place / "why-2")
    chosen = run_dlcli("explain", models / "hostile.keras", pictures[0], *words)
    chosen.check(0)
    assert json.loads(chosen.out)["inputs"][0]["explanations"][0]["class"] == HOSTILE[0]
