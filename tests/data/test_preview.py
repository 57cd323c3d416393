"""`dlcli data preview`: a readable PNG whose first column is the data."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dlcli.data import preview
from dlcli.data.examples import ArrayExamples, Data, DataInfo
from dlcli.data.preview import write_preview
from dlcli.errors import DataError, DlcliError
from dlcli.recipe.schema import Recipe

NAMES = ("cat", "a very long name of a dog indeed", "owl")


def data(kind="image", channels=3, count=12, target="classes"):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 12, 16, channels)).astype("uint8")
    targets = np.arange(count, dtype="int32") % 3
    if target == "labels":
        targets = np.stack([targets > 0, targets > 1, targets > 5], axis=1).astype("float32")
    info = DataInfo(kind, (12, 16, channels), target, NAMES)
    return Data(ArrayExamples(images, targets), None, None, info, None)


def recipe(*augmentation):
    return Recipe(
        task="image_classification",
        dataset={"name": "digits", "augmentation": augmentation},
        architecture="cnn",
    )


def opened(path):
    with Image.open(path) as picture:
        return picture.convert("RGB")


@pytest.fixture
def loaded(monkeypatch):
    """Sets what load_data gives."""

    def use(**arguments):
        import dlcli.data.load

        monkeypatch.setattr(dlcli.data.load, "load_data", lambda recipe: data(**arguments))

    return use


@pytest.mark.parametrize("channels", [1, 3])
def test_a_row_an_image_a_column_a_draw(loaded, tmp_path, channels):
    loaded(channels=channels)
    out = tmp_path / "new" / "preview.png"
    assert write_preview(recipe({"name": "random_crop", "padding": 2}), out, count=3) == out
    three = opened(out)
    write_preview(recipe({"name": "random_crop", "padding": 2}), out, count=6)
    six = opened(out)
    assert six.width == three.width
    assert 1.7 < six.height / three.height < 2
    write_preview(recipe(), out, count=1000)  # more than there are; nothing to draw beside the original
    assert opened(out).width < six.width
    assert np.asarray(six.convert("L")).std() > 20


def test_first_column_is_the_data_and_the_rest_are_draws(loaded):
    loaded()
    indices = np.array([4, 2], "int32")
    columns, targets = preview._views(data(), recipe({"name": "random_flip", "alternate": True}), indices)
    stored = data().train.inputs[indices]
    np.testing.assert_array_equal(columns[0], stored)
    for before, after in itertools.pairwise(columns[1:]):
        np.testing.assert_array_equal(before, after[:, :, ::-1])
    assert len(columns) == len(targets) == 1 + preview.DRAWS


def test_titles():
    info = data().info
    assert preview._title(np.int32(0), info) == "cat"
    assert preview._title(np.int32(1), info) == "a very long name …"
    assert preview._title(np.array([0.25, 0.0, 0.75]), info) == "owl 75% + cat 25%"
    assert preview._title(np.array([0.0, 0.0, 1.0]), info) == "owl"
    labels = data(target="labels").info
    assert preview._title(np.array([1.0, 0.0, 1.0]), labels) == "cat, owl"
    assert preview._title(np.zeros(3), labels) == "none"


def test_blends_show_both_names(loaded, tmp_path):
    loaded()
    _, targets = preview._views(data(), recipe("mix_up"), np.array([0, 1, 2], "int32"))
    assert targets[0].shape == targets[-1].shape == (3, 3)
    write_preview(recipe("mix_up", "random_erasing"), tmp_path / "p.png", count=3)


def test_tables_are_refused(loaded, tmp_path):
    loaded(kind="table")
    with pytest.raises(DataError, match="digits: a preview needs images or texts"):
        write_preview(recipe(), tmp_path / "p.png")
    assert not (tmp_path / "p.png").exists()


def test_the_suffix_is_the_format_and_a_strange_one_is_refused_before_any_work(loaded, tmp_path, monkeypatch):
    loaded()
    write_preview(recipe(), tmp_path / "p.jpg", count=1)
    with Image.open(tmp_path / "p.jpg") as picture:
        assert picture.format == "JPEG"
    monkeypatch.setattr("dlcli.data.load.load_data", None)
    with pytest.raises(DlcliError, match=r"p\.txt: expected a file name that ends with \.png"):
        write_preview(recipe(), tmp_path / "p.txt")


def test_a_failure_leaves_the_old_picture(loaded, tmp_path, monkeypatch):
    loaded()
    path = tmp_path / "p.png"
    path.write_text("old")

    def half_a_picture(self, filename, **options):
        filename.write_bytes(b"half")
        raise RuntimeError

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half_a_picture)
    with pytest.raises(RuntimeError):
        write_preview(recipe(), path, count=1)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_pyplot_is_left_alone(loaded, tmp_path):
    import matplotlib.pyplot as plt

    plt.close("all")
    loaded()
    write_preview(recipe(), tmp_path / "p.png", count=1)
    assert plt.get_fignums() == []


def test_names_are_no_formulas_and_need_no_font(tmp_path, monkeypatch):
    names = ("$\\frac{x$", "a_$_{", "\N{GRINNING FACE}日本語")
    strange = replace(data(count=3), info=DataInfo("image", (12, 16, 3), "classes", names))
    monkeypatch.setattr("dlcli.data.load.load_data", lambda recipe: strange)
    write_preview(recipe(), tmp_path / "p.png")  # warnings are errors here
    assert opened(tmp_path / "p.png").size[0] > 0


@pytest.mark.parametrize("kind", ["image_pairs", "unpaired_images"])
def test_two_images_of_an_example_are_rows_with_their_names(kind, monkeypatch, tmp_path):
    import dlcli.data.load

    names = ("source", "target") if kind == "image_pairs" else ("a", "b")
    images = {name: np.full((4, 6, 6, 3), 40 * place, "uint8") for place, name in enumerate(names)}
    two = Data(
        ArrayExamples(images, np.zeros(4, "int32")), None, None, DataInfo(kind, (6, 6, 3), "images"), None
    )
    monkeypatch.setattr(dlcli.data.load, "load_data", lambda recipe: two)
    drawn, original = [], preview._grid
    monkeypatch.setattr(preview, "_grid", lambda *arguments: drawn.append(arguments) or original(*arguments))
    write_preview(recipe({"name": "random_flip"}), tmp_path / "preview.png", count=2)
    columns, targets, info = drawn[0]
    assert len(columns) == 8
    assert [int(image.mean()) for image in columns[0]] == [0, 40, 0, 40]
    assert [info.class_names[target] for target in targets[0]] == [*names, *names]
