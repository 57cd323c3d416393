"""Image translation from a recipe to translated files, on images of a few pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlcli.data.examples import DataInfo
from dlcli.errors import DataError, DlcliError, TrainingInterruptedError
from dlcli.evaluation.evaluate import evaluate_run
from dlcli.evaluation.samples.image_translation import translate
from dlcli.evaluation.samples.translate_images import translate_images
from dlcli.recipe.load import load_recipe
from dlcli.recipe.mistakes import RecipeError
from dlcli.runs import Run
from dlcli.training.build import build_task
from dlcli.training.train import resume, train

SIDE = 16
CYCLE_GAN = "architecture: {name: cycle_gan, filters: 4, blocks: 1, discriminator_filters: 4, discriminator_layers: 1}"
PIX2PIX = (
    "architecture: {name: pix2pix, filters: 4, depth: 2, discriminator_filters: 4, discriminator_layers: 1}"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares: bright on dark in A, dark on bright in B, in pairs of one name."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for side in "AB":
            (root / f"{split}{side}").mkdir()
        for number in range(count):
            pixels = np.full((SIDE, SIDE, 3), 40, np.uint8)
            y, x = random.integers(0, SIDE - 6, 2)
            pixels[y : y + 6, x : x + 6] = 220
            Image.fromarray(pixels).save(root / f"{split}A" / f"{number}.png")
            Image.fromarray(255 - pixels).save(root / f"{split}B" / f"{number}.png")
    return root


def recipe_of(data: Path, text: str, source: str, *changes: str):
    path = data / f"{source}.yaml"
    path.write_text(
        f"task: image_translation\ndataset: {{name: {source}, path: {data}}}\n{text}\n"
        "training: {epochs: 2, batch_size: 1, steps_per_epoch: 3}\n"
    )
    return load_recipe(path, changes)


@pytest.fixture(scope="module")
def cycle_run(data: Path) -> Run:
    recipe = recipe_of(
        data, CYCLE_GAN, "unpaired_images", "dataset.augmentation=[{name: random_flip}]", "task.buffer=2"
    )
    return train(recipe, "cycle", data / "cycle")


@pytest.fixture(scope="module")
def paired_run(data: Path) -> Run:
    recipe = recipe_of(data, PIX2PIX, "image_pairs", "training.epochs=4", "training.steps_per_epoch=60")
    return train(recipe, "paired", data / "paired")


def test_cycle_gan_leaves_both_directions_and_pictures(cycle_run: Run) -> None:
    names = {"samples/epoch_0001.png", "samples/epoch_0002.png", "plots/test_translations.png"}
    assert all((cycle_run.path / name).is_file() for name in names)
    images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3)).astype("uint8")
    there, back = (translate(model, images) for model in (cycle_run.model, cycle_run.part("b_to_a")))
    assert there.shape == images.shape
    assert there.dtype == np.uint8
    assert np.abs(there.astype(int) - back).max() > 0


def test_cycle_gan_report(cycle_run: Run, data: Path) -> None:
    """By hand, from the kept models and the test images."""
    report = evaluate_run(cycle_run, cycle_run.recipe, "test")
    kept = json.loads((cycle_run.path / "metrics.json").read_text())
    assert report["metrics"] == pytest.approx(kept["metrics"], rel=1e-5)
    assert report["examples"] == 6
    forward, backward = cycle_run.model, cycle_run.part("b_to_a")
    for side, there, back in (("a", forward, backward), ("b", backward, forward)):
        files = sorted((data / f"test{side.upper()}").glob("*.png"))
        images = np.stack([np.asarray(Image.open(file)) for file in files])
        cycle = np.abs(translate(back, translate(there, images)).astype(float) - images).mean() / 127.5
        identity = np.abs(translate(back, images).astype(float) - images).mean() / 127.5
        assert report["metrics"][f"cycle_loss_{side}"] == pytest.approx(cycle, rel=1e-5)
        assert report["metrics"][f"identity_loss_{side}"] == pytest.approx(identity, rel=1e-5)
        low, high = report["intervals"][f"cycle_loss_{side}"]
        assert low <= cycle <= high


def test_pix2pix_learns_to_invert(paired_run: Run) -> None:
    rows = (paired_run.path / "history.csv").read_text().splitlines()
    column = rows[0].split(",").index("reconstruction_loss")
    losses = [float(row.split(",")[column]) for row in rows[1:]]
    assert losses[-1] < 0.5 * losses[0]
    metrics = paired_run.metrics["metrics"]
    assert metrics["reconstruction_loss"] < 0.6, "a grey image would have about 1"
    assert metrics["psnr"] > 5


@pytest.mark.slow
def test_an_interrupted_training_goes_on_with_its_buffer(data: Path, cycle_run: Run) -> None:
    """Two epochs, of which the second is trained by another process, end in the weights of two without a stop."""
    recipe = cycle_run.recipe
    with pytest.MonkeyPatch.context() as patch, pytest.raises(TrainingInterruptedError):
        patch.setattr("dlcli.training.checkpoint.Checkpoint.on_epoch_begin", stop_after(1), raising=False)
        train(recipe, "stopped", data / "stopped")
    stopped = resume(Run(data / "stopped"))
    for first, second in zip(stopped.model.weights, cycle_run.model.weights, strict=True):
        np.testing.assert_array_equal(first, second)


def stop_after(epochs: int):
    def on_epoch_begin(self: object, epoch: int, logs: object = None) -> None:
        if epoch == epochs:
            raise KeyboardInterrupt

    return on_epoch_begin


def test_translated_files(cycle_run: Run, data: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    (inputs / "deep").mkdir(parents=True)
    for path, size in ((inputs / "one.png", 16), (inputs / "deep" / "one.jpg", 40), (inputs / "grid.png", 8)):
        # Of one colour, instance normalization would blow up the rounding of sums.
        pixels = np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    (inputs / "bad.png").write_bytes(b"no picture")
    report = translate_images(cycle_run, [inputs], tmp_path / "out", grid=True)
    assert sorted(row["file"] for row in report["images"]) == ["grid-2.png", "one-2.png", "one.png"]
    assert list(report["unreadable"]) == [str(inputs / "bad.png")]
    assert report["direction"] == "a_to_b"
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"grid.png", "grid-2.png", "one-2.png", "one.png"}
    first = next(row["file"] for row in report["images"] if row["input"] == str(inputs / "one.png"))
    source = np.asarray(Image.open(inputs / "one.png"))[None]
    for reverse, model in ((False, cycle_run.model), (True, cycle_run.part("b_to_a"))):
        out = tmp_path / f"out-{reverse}"
        translate_images(cycle_run, [inputs / "one.png"], out, reverse, grid=False)
        assert _differ(out / "one.png", translate(model, source)[0]) <= 1
        assert not (out / "grid.png").exists()
    assert _differ(tmp_path / "out" / first, translate(cycle_run.model, source)[0]) <= 1


def _differ(path: Path, expected: np.ndarray) -> int:
    """Largest difference of levels; sums in another order round a pixel to the next one now and then."""
    return int(np.abs(np.asarray(Image.open(path)).astype(int) - expected).max())


def test_what_cannot_be_translated(cycle_run: Run, paired_run: Run, data: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"no image that can be read:\n.*bad.png"):
        translate_images(cycle_run, [tmp_path / "bad.png"], tmp_path / "out")
    with pytest.raises(DlcliError, match=r"--reverse: .*pix2pix, which learns one direction"):
        translate_images(paired_run, [data / "testB"], tmp_path / "out", reverse=True)


def test_defaults_are_those_of_the_architecture(data: Path) -> None:
    cycle = recipe_of(data, CYCLE_GAN, "unpaired_images")
    paired = recipe_of(data, PIX2PIX, "image_pairs")
    assert cycle.task.arguments == {
        "objective": "least_squares", "cycle_weight": 10.0, "identity_weight": 5.0, "buffer": 50,
        "reconstruction_weight": None,
    }  # fmt: skip
    assert paired.task.arguments == {
        "objective": "standard", "cycle_weight": None, "identity_weight": None, "buffer": None,
        "reconstruction_weight": 100.0,
    }  # fmt: skip
    for recipe in (cycle, paired):
        assert recipe.optimizer.arguments["beta_1"] == 0.5
        assert recipe.dataset.validation_split == 0


@pytest.mark.parametrize(
    ("text", "source", "change", "message"),
    [
        (
            CYCLE_GAN,
            "unpaired_images",
            "task.reconstruction_weight=1",
            "reconstruction_weight is of architecture pix2pix",
        ),
        (PIX2PIX, "image_pairs", "task.cycle_weight=1", "cycle_weight is of architecture cycle_gan"),
        (PIX2PIX, "image_pairs", "task.buffer=0", "buffer is of architecture cycle_gan"),
        (
            PIX2PIX,
            "unpaired_images",
            "task.objective=standard",
            "architecture pix2pix learns from dataset image_pairs",
        ),
        (CYCLE_GAN, "image_pairs", "task.objective=standard", "learns from dataset unpaired_images"),
        (CYCLE_GAN, "unpaired_images", "dataset.direction=b_to_a", "direction=b_to_a: unknown key"),
        (
            "architecture: dcgan",
            "image_pairs",
            "task.objective=standard",
            "use architecture cycle_gan, pix2pix",
        ),
    ],
)
def test_what_contradicts(data: Path, text: str, source: str, change: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        recipe_of(data, text, source, change)
    assert message in str(error.value)


def test_a_buffer_holds_a_batch(data: Path) -> None:
    info = DataInfo("unpaired_images", (SIDE, SIDE, 3), "images")
    recipe = recipe_of(data, CYCLE_GAN, "unpaired_images", "task.buffer=2", "training.batch_size=3")
    with pytest.raises(
        DlcliError, match=r"task.buffer 2 is smaller than a batch of 3: give at least 3, or 0"
    ):
        build_task(recipe, info, np.zeros(0)).trainer({}, recipe)


def test_nothing_is_drawn_without_an_image(cycle_run: Run) -> None:
    info = DataInfo("unpaired_images", (SIDE, SIDE, 3), "images")
    with pytest.raises(DlcliError, match="--input DIR"):
        build_task(cycle_run.recipe, info, np.zeros(0)).draw(cycle_run.model, 1, 0)
