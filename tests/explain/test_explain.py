"""`dlcli explain` as a whole: what it writes, goes on with, and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dlcli.cli.main import app
from dlcli.data.load import load_data
from dlcli.errors import DlcliError
from dlcli.explain import METHODS, explain, views
from dlcli.recipe.load import dump_recipe, load_recipe
from dlcli.training.build import build_models

SMALL = ["architecture={name: cnn, filters: [4], dense: []}", "regularization={}"]
FEW = ["--samples", "16"]


def made(folder: Path, name: str, changes: list[str]) -> Path:
    """A run whose network has learnt nothing: as good to explain as any."""
    recipe = load_recipe(name, changes)
    keras.utils.set_random_seed(0)
    folder.mkdir()
    build_models(recipe, load_data(recipe)).predictor.save(folder / "model.keras")
    (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("runs") / "digits", "digits_cnn", SMALL)


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("runs") / "iris", "iris_mlp", [])


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    lines = ["text,label", *["a fine film,good", "a dull film,bad"] * 10]
    (folder / "reviews.csv").write_text("\n".join(lines))
    dataset = f"dataset={{name: text_csv, path: {folder / 'reviews.csv'}, text: text, target: label, max_length: 64}}"
    return made(
        folder / "run", "rt_textcnn", [dataset, "architecture={name: rnn, units: [4], embedding_width: 4}"]
    )


@pytest.fixture
def plain_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """White pictures for tests that are not about them: drawing takes longer than explaining."""

    def draw(classes: list, path: Path) -> list[None]:
        Image.new("L", (1, 1), 255).save(path)
        return [None] * len(classes)

    for name in ("draw_image", "draw_text", "draw_row"):
        monkeypatch.setattr(views, name, draw)
    monkeypatch.setattr(views, "draw_columns", lambda *arguments: [])


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in ("one", "two", "three"):
        Image.fromarray(random.integers(0, 256, (8, 8)).astype("uint8")).save(folder / f"{name}.png")
    return folder


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["explain", *map(str, arguments)])
    if isinstance(result.exception, DlcliError):
        return result.exception.exit_code, f"{result.output}{result.exception}"
    if isinstance(result.exception, KeyboardInterrupt):
        return 130, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_holds_pictures_arrays_numbers_and_a_page(digits, pictures, tmp_path):
    out = tmp_path / "why"
    code, said = call(digits, pictures, "--method", "grad_cam,occlusion", "--out", out)
    assert code == 0 and str(out / "index.html") in said.replace("\n", "")
    assert "mean faithfulness: grad_cam" in said
    stems = [f"{name}.{method}" for name in ("one", "two", "three") for method in ("grad_cam", "occlusion")]
    assert left(out) == sorted(
        [".explanation.jsonl", "explanation.json", "index.html"]
        + [f"{stem}.{suffix}" for stem in stems for suffix in ("png", "npy")]
    )
    report = json.loads((out / "explanation.json").read_text())
    assert [each["input"] for each in report["inputs"]] == [str(path) for path in sorted(pictures.iterdir())]
    assert set(report["randomization"]) == {"grad_cam", "occlusion"}
    for each in report["inputs"]:
        for one in each["explanations"]:
            values = np.load(out / one["files"]["array"])
            assert values.shape == (8, 8) and values.dtype == np.float32
            assert one["summary"]["sum"] == pytest.approx(values.sum(dtype=np.float64), rel=1e-4)
            assert one["trust"]["verdict"].endswith("than random")
            with Image.open(out / one["files"]["picture"]) as picture:
                assert min(picture.size) > 100


@pytest.mark.usefixtures("plain_pictures")
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(digits, pictures, tmp_path):
    (pictures / "three.png").unlink()
    texts = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        code, _ = call(
            digits, pictures, "--method", "lime,rise", "--out", tmp_path / name, "--seed", seed, *FEW
        )
        assert code == 0
        texts[name] = (tmp_path / name / "explanation.json").read_bytes()
        texts[f"{name} map"] = (tmp_path / name / "one.lime.npy").read_bytes()
    assert texts["a"] == texts["b"] and texts["a map"] == texts["b map"]
    assert texts["a map"] != texts["c map"]


@pytest.mark.usefixtures("plain_pictures")
def test_what_is_done_is_not_done_again(digits, pictures, tmp_path, monkeypatch):
    out = tmp_path / "why"
    arguments = (digits, pictures, "--method", "saliency", "--out", out)
    held = pictures / "two.png"
    held.rename(tmp_path / "two.png")
    assert call(*arguments)[0] == 0
    whole = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
    shutil.copy(tmp_path / "two.png", held)
    code, said = call(*arguments)
    assert code == 0, said
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert set(after) - set(whole) == {"two.saliency.png"}
    assert all(after[name] == time for name, time in whole.items())
    assert len(json.loads((out / "explanation.json").read_text())["inputs"]) == 3
    code, said = call(*arguments, "--seed", 1)
    assert code == 2 and "seed was 0, is now 1" in said


@pytest.mark.usefixtures("plain_pictures")
def test_an_input_that_cannot_be_read_is_told_and_the_others_are_explained(digits, pictures, tmp_path):
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    out = tmp_path / "why"
    code, said = call(digits, pictures, "--method", "saliency", "--no-trust", "--out", out)
    assert code == 2 and "1 of the inputs could not be read" in said
    report = json.loads((out / "explanation.json").read_text())
    assert [("error" in each) for each in report["inputs"]] == [True, False, False, False]
    assert report["inputs"][1]["explanations"][0]["trust"] is None and report["randomization"] == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "grad_cma"], "did you mean grad_cam"),
        (["--method", "grad_cam", "--layer", "nope"], "nope"),
        (["--method", "saliency", "--samples", "50"], "--samples 50"),
        (["--class", "12"], "0 to 9"),
        (["--class", "-1"], "0 to 9"),
        (["--set", "dataset.path=x", "--audit"], "leave INPUTS out"),
        (["--limit", "5"], "--limit 5"),
        (["--preprocessing", "tf"], "scales its images itself"),
    ],
)
def test_what_is_refused_leaves_nothing(digits, pictures, tmp_path, arguments, message):
    out = tmp_path / "why"
    code, said = call(digits, pictures, "--out", out, *arguments)
    assert code == 2 and message in said and not out.exists()


def test_inputs_of_which_none_can_be_read_leave_nothing(digits, tmp_path):
    code, said = call(digits, tmp_path / "nowhere.png", "--out", tmp_path / "why")
    assert code == 2 and "nowhere.png: no such file or folder" in said and not (tmp_path / "why").exists()


@pytest.mark.usefixtures("plain_pictures")
def test_default_methods_that_the_model_cannot_have_are_left_out(tmp_path, pictures):
    run = made(tmp_path / "run", "digits_cnn", ["architecture={name: mlp, hidden: [4]}", "regularization={}"])
    code, said = call(run, pictures / "one.png", *FEW, "--json", "--no-trust")
    assert code == 0
    report = json.loads(said[said.index("{\n") :])
    assert report["methods"] == ["integrated_gradients", "lime"]
    assert (run / "explain" / "one.lime.png").is_file()  # the default folder
    code, said = call(run, pictures / "one.png", "--method", "grad_cam")
    assert code == 2 and "integrated_gradients" in said  # says what would work
    assert call(run, pictures / "one.png", "--method", "saliency", "--no-trust")[0] == 0
    assert (run / "explain-2" / "one.saliency.png").is_file()  # other settings, another folder


def test_several_classes_stand_in_one_picture(digits, pictures, tmp_path):
    out = tmp_path / "why"
    assert (
        call(digits, pictures / "one.png", "--method", "grad_cam", "--top", 3, "--out", out, "--no-trust")[0]
        == 0
    )
    explained = json.loads((out / "explanation.json").read_text())["inputs"][0]["explanations"]
    assert len({each["class"] for each in explained}) == 3
    assert explained[0]["probability"] >= explained[1]["probability"] >= explained[2]["probability"]
    assert np.load(out / "one.grad_cam.npy").shape == (3, 8, 8)


@pytest.mark.usefixtures("plain_pictures")
def test_a_discriminator_from_a_file_is_explained_by_its_one_number(pictures, tmp_path):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="leaky_relu", name="down")(image)
    keras.Model(image, keras.layers.Conv2D(1, 3, padding="same")(x)).save(tmp_path / "discriminator.keras")
    out = tmp_path / "why"
    code, said = call(
        tmp_path / "discriminator.keras", pictures, "--method", "grad_cam,occlusion", "--out", out
    )
    assert code == 0 and "which is a guess" in said  # of its pixels
    report = json.loads((out / "explanation.json").read_text())
    assert {each["class"] for each in report["inputs"][0]["explanations"]} == {"0"}
    assert {each["explains"] for each in report["inputs"][0]["explanations"]} == {"value"}
    code, said = call(tmp_path / "discriminator.keras", pictures, "--set", "dataset.path=x", "--out", out)
    assert code == 2 and "leave it out" in said


@pytest.mark.usefixtures("plain_pictures")
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(digits, pictures, tmp_path, monkeypatch):
    out = tmp_path / "why"
    monkeypatch.setitem(explain.BATCH_SIZE, "image", 1)
    draw = explain.View.draw

    def draws_two(view: explain.View, classes: list, name: str) -> list:
        if name.startswith("two"):
            raise KeyboardInterrupt
        return draw(view, classes, name)

    monkeypatch.setattr(explain.View, "draw", draws_two)
    code, said = call(digits, pictures, "--method", "saliency", "--no-trust", "--out", out)
    assert code == 130 and "the same command goes on" in said and not (out / "explanation.json").exists()
    monkeypatch.setattr(explain.View, "draw", draw)
    before = (out / "one.saliency.png").stat().st_mtime_ns
    assert call(digits, pictures, "--method", "saliency", "--no-trust", "--out", out)[0] == 0
    assert len(json.loads((out / "explanation.json").read_text())["inputs"]) == 3
    assert (out / "one.saliency.png").stat().st_mtime_ns == before


def test_a_picture_of_one_pixel_is_explained_as_any(digits, pictures, tmp_path):
    Image.new("L", (1, 1), 90).save(pictures / "dot.png")
    code, _ = call(digits, pictures, "--method", "grad_cam", "--no-trust", "--out", tmp_path / "why")
    assert code == 0 and (tmp_path / "why" / "dot.grad_cam.png").is_file()


def test_a_folder_with_other_files_is_not_written_to(digits, pictures, tmp_path):
    before = {path: path.read_bytes() for path in pictures.iterdir()}
    code, said = call(digits, pictures, "--method", "saliency", "--no-trust", "--out", pictures)
    assert code == 2 and "holds other files" in said
    assert {path: path.read_bytes() for path in pictures.iterdir()} == before


@pytest.mark.usefixtures("plain_pictures")
def test_own_pictures_below_the_inputs_are_no_inputs(digits, pictures):
    arguments = (digits, pictures, "--method", "saliency", "--no-trust", "--out", pictures / "why")
    assert call(*arguments)[0] == 0
    assert call(*arguments)[0] == 0
    assert len(json.loads((pictures / "why" / "explanation.json").read_text())["inputs"]) == 3


@pytest.mark.usefixtures("plain_pictures")
def test_the_answer_is_about_what_was_asked(digits, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(explain, "ROWS_SHOWN", 2)
    arguments = (digits, "--method", "saliency", "--no-trust", "--out", tmp_path / "why")
    assert call(*arguments, pictures / "one.png", pictures / "two.png")[0] == 0
    code, said = call(*arguments, pictures / "three.png")
    assert code == 0 and "three.png" in said and "one.png" not in said


@pytest.mark.usefixtures("plain_pictures")
def test_a_model_of_images_of_any_size_reads_each_at_its_own(pictures, tmp_path):
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 1))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 5, activation="relu")(image))
    keras.Model(image, keras.layers.Dense(2, activation="softmax")(x)).save(tmp_path / "any.keras")
    Image.new("L", (3, 3), 90).save(pictures / "small.png")
    Image.fromarray(np.arange(140, dtype=np.uint8).reshape(10, 14)).save(pictures / "wide.png")
    out = tmp_path / "why"
    code, said = call(tmp_path / "any.keras", pictures, "--method", "grad_cam,occlusion", "--out", out)
    assert code == 2 and "3x3 pixels are too few" in said
    assert np.load(out / "wide.occlusion.npy").shape == (10, 14)
    assert np.load(out / "one.occlusion.npy").shape == (8, 8)


def test_rows_of_a_table_are_explained_by_name(iris, tmp_path):
    columns = "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)"
    (tmp_path / "flowers.csv").write_text(f"{columns}\n5.1,3.5,1.4,0.2\n6.3,3.3,6.0,2.5\n")
    out = tmp_path / "why"
    code, said = call(
        iris,
        tmp_path / "flowers.csv",
        "--out",
        out,
        "--class",
        "0",
        "--method",
        ",".join(METHODS["table"]),
        *FEW,
    )
    assert code == 0, said
    report = json.loads((out / "explanation.json").read_text())
    for each in report["inputs"]:
        shap = each["explanations"][0]
        assert shap["method"] == "shap" and shap["trust"]["completeness"] < 1e-4
    assert np.load(out / "flowers row 1.shap.npy").shape == (4,)
    assert {"all.shap.bar.png", "all.shap.beeswarm.png"} <= set(left(out))


@pytest.mark.usefixtures("plain_pictures")
def test_a_second_audit_keeps_the_pictures_of_the_first(digits, tmp_path):
    for seed in (0, 1):
        code, _ = call(
            digits, "--audit", "--limit", 2, "--out", tmp_path, "--method", "saliency", "--seed", seed
        )
        assert code == 0
    assert json.loads((tmp_path / "audit.json").read_text())["index"] == str(
        tmp_path / "errors-2" / "index.html"
    )
    assert (tmp_path / "errors" / "index.html").is_file()


@pytest.mark.usefixtures("plain_pictures")
def test_rows_from_elsewhere_are_compared_with_the_rows_that_are_given(tmp_path):
    keras.utils.set_random_seed(0)
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "line.keras")
    (tmp_path / "a.csv").write_text("x,y\n1,2\n3,4\n5,7\n")
    (tmp_path / "b.csv").write_text("x,y\n100,2\n300,4\n")
    arguments = (tmp_path / "line.keras", "--method", "shap", "--no-trust", "--out", tmp_path / "why")
    assert call(*arguments, tmp_path / "a.csv")[0] == 0
    code, said = call(*arguments, tmp_path / "a.csv", tmp_path / "b.csv")
    assert code == 2 and "other settings: data was" in said  # their bases would not be the same
    code, said = call(tmp_path / "line.keras", tmp_path / "a.csv", "--output", "probability")
    assert code == 2 and "leave it out" in said


@pytest.mark.usefixtures("plain_pictures")
def test_texts_with_the_same_beginning_are_two_inputs(reviews, tmp_path):
    begin, out = "a fine film " * 10, tmp_path / "why"
    texts = (f"{begin} dull", f"{begin} fine film", f"{begin} dull")
    assert call(reviews, *texts, "--method", "occlusion", "--no-trust", "--out", out)[0] == 0
    names = [each["input"] for each in json.loads((out / "explanation.json").read_text())["inputs"]]
    assert len(set(names)) == 2 and names[1].endswith("(2)")


def test_words_of_a_text_are_explained(reviews, tmp_path):
    out = tmp_path / "why"
    methods = "integrated_gradients,occlusion,lime,shap"
    code, said = call(reviews, "a fine film", "--method", methods, "--out", out)
    assert code == 0 and "fine" in said
    assert np.load(out / "a fine film.shap.npy").shape == (3,)
    page = (out / "index.html").read_text()
    assert "a fine film" in page and "http" not in page.replace("http-equiv", "")


@pytest.mark.usefixtures("plain_pictures")
def test_an_audit_compares_the_methods_and_shows_the_errors(digits, tmp_path):
    out = tmp_path / "audit"
    code, _ = call(digits, "--audit", "--limit", 3, "--out", out, "--method", "saliency,rise", *FEW)
    assert code == 0
    report = json.loads((out / "audit.json").read_text())
    assert (
        set(report["methods"]) == {"saliency", "rise"}
        and report["examples"] == 3
        and report["split"] == "test"
    )
    best, other = report["methods"].values()
    assert best["faithfulness"] >= other["faithfulness"] and best["seconds_a_sample"] > 0
    assert report["methods"]["rise"]["stability"] is not None
    assert report["methods"]["saliency"]["stability"] is None  # it has no chance in it
    first = report["confused"][0]
    assert first["true"] != first["predicted"] and first["count"] >= report["confused"][1]["count"]
    shown = json.loads((out / "errors" / "explanation.json").read_text())["inputs"]
    assert all(each["truth"] != each["predicted"] for each in shown)
    assert len(shown) >= len(report["confused"])
