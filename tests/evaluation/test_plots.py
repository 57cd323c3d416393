from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from dlcli.errors import OutputError
from dlcli.evaluation import figure, plots
from dlcli.evaluation.plots import ImageLabel
from dlcli.evaluation.report import evaluate_predictions

ODD_NAMES = [
    "日本語の名前", "n" * 300, "$x_1$ <b>", "emoji 🐱", "line\nbreak", "Ünïcödé Straße", "שלום", "a/b", "",
    "%s {}",
]  # fmt: skip


def classes(count: int, number: int, seed: int = 0):
    generator = np.random.default_rng(seed)
    targets = generator.integers(number, size=count)
    probabilities = generator.dirichlet(np.ones(number), count) * 0.5
    probabilities[np.arange(count), targets] += 0.5
    return probabilities, targets


def report_of(number: int, names=None):
    probabilities, targets = classes(600, number)
    names = names or [f"class name {index}" for index in range(number)]
    return evaluate_predictions("classes", probabilities, targets, names, "test")


def pixels(path: Path) -> np.ndarray:
    """The picture, whole and not blank."""
    with Image.open(path) as image:
        image.load()
        array = np.asarray(image.convert("RGB"))
    assert array.std() > 5
    assert max(array.shape) <= 3400
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []
    return array


@pytest.fixture
def bars(monkeypatch) -> list[float]:
    """Widths of all horizontal bars that are drawn."""
    drawn: list[float] = []
    barh = Axes.barh
    monkeypatch.setattr(
        Axes, "barh", lambda axes, y, width, **style: (drawn.extend(width), barh(axes, y, width, **style))
    )
    return drawn


@pytest.mark.parametrize("number", [2, 10, 100])
def test_confusion_matrix_grows_with_its_classes(tmp_path, number):
    plots.plot_confusion_matrix(report_of(number), tmp_path / "deep" / "confusion.png")
    height, width, _ = pixels(tmp_path / "deep" / "confusion.png").shape
    # At 100 classes each cell still has more than ten pixels, so that every name can be read.
    assert min(height, width) > {2: 400, 10: 700, 100: 1800}[number]


def test_confusion_matrix_shows_what_it_is_given(tmp_path):
    report = {"confusion_matrix": [[9, 1], [8, 2]], "class_names": ["a", "b"]}
    plots.plot_confusion_matrix(report, tmp_path / "first.png")
    plots.plot_confusion_matrix({**report, "confusion_matrix": [[9, 1], [2, 8]]}, tmp_path / "second.png")
    first, second = pixels(tmp_path / "first.png"), pixels(tmp_path / "second.png")
    assert first.shape == second.shape
    assert (first != second).any()


def test_a_class_that_is_absent_from_the_split_is_drawn(tmp_path, bars):
    report = evaluate_predictions(
        "classes", np.eye(3)[[0, 0, 1]], np.array([0, 1, 1]), ["a", "b", "c"], "test"
    )
    plots.plot_confusion_matrix(report, tmp_path / "confusion.png")
    pixels(tmp_path / "confusion.png")
    plots.plot_per_class(report, tmp_path / "per_class.png")
    pixels(tmp_path / "per_class.png")
    assert sorted(bars) == sorted(row["f1"] or 0.0 for row in report["per_class"])  # c has none


def test_odd_names_are_drawn_without_warnings(tmp_path):
    report = report_of(10, ODD_NAMES)
    plots.plot_confusion_matrix(report, tmp_path / "confusion.png")
    plots.plot_per_class(report, tmp_path / "per_class.png")
    labels = [ImageLabel(name, 0.5, "cat") for name in ODD_NAMES]
    plots.plot_predictions(np.zeros((10, 4, 4, 3), np.uint8), labels, tmp_path / "images.png")
    # A name of 300 characters must not push the matrix out of the picture.
    assert pixels(tmp_path / "confusion.png").shape[1] < 1500
    pixels(tmp_path / "per_class.png")
    pixels(tmp_path / "images.png")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("n" * 300, "n" * 23 + "…"),
        ("line\nbreak\t", "line break"),
        ("a\x00b\u202e", "ab"),
        ("", "(no name)"),
        ("x" * 24, "x" * 24),
    ],
)
def test_shorten(name, shown):
    assert figure.shorten(name) == shown


@pytest.mark.parametrize(("number", "shown"), [(2, 2), (500, 200)])
def test_per_class_shows_the_200_worst_best_first(tmp_path, bars, number, shown):
    report = report_of(number)
    plots.plot_per_class(report, tmp_path / "per_class.png")
    pixels(tmp_path / "per_class.png")
    present = sorted((row["f1"] for row in report["per_class"] if row["f1"] is not None), reverse=True)
    # Absent classes stand last, and give way when there are too many classes.
    absent = [0.0] * (number - len(present)) if number <= 200 else []
    assert bars == [*present, *absent][-shown:]
    assert len(bars) == shown


def test_per_class_of_labels(tmp_path, bars):
    generator = np.random.default_rng(0)
    report = evaluate_predictions(
        "labels", generator.random((40, 4)), generator.integers(2, size=(40, 4)), list("abcd"), "test"
    )
    plots.plot_per_class(report, tmp_path / "labels.png")
    pixels(tmp_path / "labels.png")
    assert bars == sorted((row["f1"] for row in report["per_class"]), reverse=True)


def test_calibration(tmp_path):
    probabilities, targets = classes(500, 10)
    plots.plot_calibration(probabilities, targets, tmp_path / "calibration.png")
    plots.plot_calibration(probabilities[:1], targets[:1], tmp_path / "one.png")
    assert pixels(tmp_path / "calibration.png").shape == pixels(tmp_path / "one.png").shape


def test_regression(tmp_path):
    generator = np.random.default_rng(0)
    targets = generator.normal(size=(6000, 2))
    plots.plot_regression(targets + 0.3, targets, ["a", "b" * 300], tmp_path / "two.png")
    plots.plot_regression(np.array([1.0]), np.array([1.0]), ["constant"], tmp_path / "one.png")
    assert pixels(tmp_path / "two.png").shape[0] > 1.8 * pixels(tmp_path / "one.png").shape[0]


HISTORY = {
    "epoch": [1, 2, 3], "loss": [1.0, float("nan"), 0.2], "accuracy": [0.1, 0.2, 0.3],
    "val_loss": [1.0, 0.7, 0.6], "val_accuracy": [0.1, 0.2, 0.3], "learning_rate": [1e-3, 5e-4, 1e-4],
    "seconds": [1.0, 1.0, 1.0],
    "examples_per_second": [9.0, 9.0, 9.0],
}  # fmt: skip


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("best_epoch", [1, None])
def test_learning_curves(tmp_path, epochs, best_epoch):
    history = {name: values[:epochs] for name, values in HISTORY.items()}
    plots.plot_learning_curves(history, tmp_path / "curves.png", best_epoch)
    with_rate = pixels(tmp_path / "curves.png")
    plots.plot_learning_curves(
        {name: values for name, values in history.items() if name != "learning_rate"},
        tmp_path / "curves.png",
        best_epoch,
    )
    # Two panels side by side and the rate's strip below; seconds are no learning curve.
    assert with_rate.shape[0] > pixels(tmp_path / "curves.png").shape[0]
    assert 900 < with_rate.shape[1] < 1100


def test_networks_against_each_other_share_panels(tmp_path):
    names = ["epoch", "discriminator_loss", "fake_score", "generator_loss", "real_score", "gradient_penalty"]
    history = {name: [1.0, 2.0, 3.0] for name in names}
    rates = {"generator_learning_rate": [1e-3] * 3, "discriminator_learning_rate": [1e-4] * 3}
    assert plots._panels(history | rates) == {
        "losses": ("generator_loss", "discriminator_loss"),
        "scores": ("real_score", "fake_score"),
        "gradient_penalty": ("gradient_penalty",),
    }
    # What decides stands first; a loss without its partner has a panel of its own.
    assert list(plots._panels({"kl": [1.0], "val_loss": [1.0]})) == ["loss", "kl"]
    assert plots._panels({"generator_loss": [1.0], "val_kl": [1.0]}).keys() == {"generator_loss", "kl"}
    plots.plot_learning_curves(history | rates, tmp_path / "curves.png", None)
    with_rates = pixels(tmp_path / "curves.png")
    plots.plot_learning_curves(history, tmp_path / "curves.png", None)
    assert with_rates.shape[0] > pixels(tmp_path / "curves.png").shape[0]
    assert 1400 < with_rates.shape[1] < 1600  # three panels


def test_learning_curves_without_loss_are_refused(tmp_path):
    with pytest.raises(ValueError, match="history"):
        plots.plot_learning_curves({"learning_rate": [0.1]}, tmp_path / "curves.png", None)


def test_learning_rate(tmp_path, monkeypatch):
    drawn = []
    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda axes, x, y, **style: (drawn.extend(y), plot(axes, x, y, **style))[1]
    )
    rates = np.linspace(1e-3, 0, 100)
    plots.plot_learning_rate(range(100), rates, 10, tmp_path / "rate.png")
    np.testing.assert_array_equal(drawn, rates)
    plots.plot_learning_rate([0], [1e-3], 10, tmp_path / "one.png")
    pixels(tmp_path / "rate.png")
    pixels(tmp_path / "one.png")


@pytest.mark.parametrize(
    "images",
    [
        np.full((3, 5, 5, 1), 200, np.uint8),
        [np.full((5, 9, 3), 200, np.uint8), np.full((9, 5, 3), 0.7), np.full((4, 4), 0.5)],
    ],
)
def test_predictions_grid(tmp_path, images):
    labels = [ImageLabel("cat"), ImageLabel("cat", 0.9, "cat"), ImageLabel("cat", 0.9, "dog")]
    plots.plot_predictions(images, labels, tmp_path / "grid.png", title="three")
    shown = pixels(tmp_path / "grid.png")
    green, red = np.array([0, 158, 115]), np.array([213, 94, 0])  # figure.GREEN, figure.RED
    for color in (green, red):
        assert (np.abs(shown.astype(int) - color).max(axis=-1) < 12).any()


def test_the_most_confident_mistakes_come_first():
    probabilities = np.array([[0.6, 0.4], [0.1, 0.9], [0.3, 0.7], [0.8, 0.2]])
    targets = np.array([1, 0, 1, 1])
    assert plots.confident_mistakes(probabilities, targets).tolist() == [1, 3, 0]
    assert plots.confident_mistakes(probabilities, targets, 2).tolist() == [1, 3]


def test_mistakes(tmp_path):
    images = np.zeros((4, 4, 4, 3), np.uint8)
    probabilities = np.eye(2)[[0, 0, 1, 1]]
    path = tmp_path / "mistakes.png"
    assert not plots.plot_mistakes(images, probabilities, np.array([0, 0, 1, 1]), ["a", "b"], path)
    assert not path.exists()
    assert plots.plot_mistakes(images, probabilities, np.array([1, 0, 1, 0]), ["a", "b"], path)
    pixels(path)


def test_a_failure_leaves_the_old_picture_and_no_pieces(tmp_path, monkeypatch):
    path = tmp_path / "rate.png"
    plots.plot_learning_rate([0, 1], [1e-3, 1e-4], 1, path)
    before = path.read_bytes()

    def half_a_picture(self, filename, **kwargs):
        Path(filename).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half_a_picture)
    with pytest.raises(OutputError, match=r"rate\.png: cannot be written: No space"):
        plots.plot_learning_rate([0, 1], [1e-3, 1e-4], 1, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_pyplot_and_the_users_settings_stay_untouched(tmp_path):
    import sys

    import matplotlib

    before, pyplot = matplotlib.rcParams.copy(), "matplotlib.pyplot" in sys.modules
    plots.plot_learning_rate([0, 1], [1e-3, 1e-4], 1, tmp_path / "rate.png")
    assert matplotlib.rcParams.copy() == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot
