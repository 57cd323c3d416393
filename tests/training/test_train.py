"""Whole trainings: what they leave behind, how they stop, how they go on."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from dlcli.errors import DlcliError, TrainingFailedError, TrainingInterruptedError
from dlcli.recipe.load import load_recipe
from dlcli.recipe.schema import Recipe
from dlcli.runs import Run, load_run
from dlcli.training.callbacks import History
from dlcli.training.job import prepare
from dlcli.training.train import resume, train

pytestmark = pytest.mark.usefixtures("no_pictures")  # the module's own run is drawn

SMALL = (
    "architecture={name: cnn, filters: [8], dense: [16]}", "training.epochs=4", "training.batch_size=128", "optimizer.learning_rate=1e-2",
    "regularization={dropout: 0.2, early_stopping: {patience: 3}}",
)  # fmt: skip


def recipe(*changes: str) -> Recipe:
    return load_recipe("digits_cnn", [*SMALL, *changes])


def history(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "history.csv").read_text().splitlines()))


def without_times(run: Path) -> list[dict[str, str]]:
    times = {"seconds", "examples_per_second"}
    return [{name: value for name, value in row.items() if name not in times} for row in history(run)]


@pytest.fixture(scope="module")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "small"
    return train(recipe(), "small", path).path


def test_the_run_folder_holds_what_the_design_says(run_path: Path) -> None:
    found = {str(path.relative_to(run_path)) for path in run_path.rglob("*")}
    expected = {
        "recipe.yaml", "model.keras", "checkpoints", "history.csv", "metrics.json", "environment.json",
        "plots/learning_curves.png", "plots/test_confusion_matrix.png", "tensorboard",
    }  # fmt: skip
    assert expected <= found
    assert not [name for name in found if Path(name).name.startswith(".")], "a temporary file was left"
    kept = sorted(path.name for path in (run_path / "checkpoints").iterdir())
    assert kept == ["epoch-0003-step-0000000033", "epoch-0004-step-0000000044"]
    rows = history(run_path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[0]["learning_rate"]) > float(rows[-1]["learning_rate"]) == pytest.approx(0, abs=1e-9)
    metrics = json.loads((run_path / "metrics.json").read_text())
    assert metrics["split"] == "test"
    assert metrics["metrics"]["accuracy"] > 0.5
    low, high = metrics["intervals"]["accuracy"]
    assert low < metrics["metrics"]["accuracy"] < high
    assert load_run(run_path).environment["data_fingerprint"]


def test_the_saved_recipe_trains_the_same_model_again(run_path: Path, tmp_path: Path) -> None:
    again = train(load_recipe(run_path / "recipe.yaml"), "again", tmp_path / "again")
    for a, b in zip(load_run(run_path).model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_model_takes_raw_pixels_in_plain_keras(run_path: Path) -> None:
    import dlcli.layers  # noqa: F401

    model = keras.saving.load_model(run_path / "model.keras")
    probabilities = model(np.full((2, 8, 8, 1), 255, "uint8")).numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    run = load_run(run_path)
    assert run.classes == tuple("0123456789")
    assert run.recipe.architecture.name == "cnn"


def stop_after(epochs: int, monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> None:
    """Does `action` at the first step after so many epochs."""
    original = History.on_train_batch_end

    def on_train_batch_end(self: History, batch: int, logs: dict[str, float] | None = None) -> None:
        original(self, batch, logs)
        if len(self.rows) == epochs and batch == 1:
            action()

    monkeypatch.setattr(History, "on_train_batch_end", on_train_batch_end)


@pytest.mark.parametrize("extra", [(), ("regularization.ema=0.9", "schedule=reduce_on_plateau")])
def test_an_interrupted_run_goes_on_as_if_it_had_never_stopped(
    extra: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(recipe(*extra), "whole", tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(2, patch, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(
            TrainingInterruptedError, match=r"after 2 complete epochs and 2 of 11 steps.*(?s:.*)--resume"
        ) as stopped:
            train(recipe(*extra), "cut", tmp_path / "cut")
    assert stopped.value.exit_code == 130
    assert (tmp_path / "cut" / "model.keras").is_file()
    resumed = resume(load_run(tmp_path / "cut"))
    for a, b in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert without_times(tmp_path / "whole") == without_times(tmp_path / "cut")


def test_sigterm_is_143(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(0, monkeypatch, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(
        TrainingInterruptedError, match="after 0 complete epochs and 2 of 11 steps"
    ) as stopped:
        train(recipe(), "cut", tmp_path / "cut")
    assert stopped.value.exit_code == 143


def test_a_signal_in_validation_keeps_all_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = ("training.epochs=2", "regularization.ema=0.9")
    whole = train(recipe(*changes), "whole", tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(History, "on_test_begin", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(TrainingInterruptedError, match="after 0 complete epochs and 11 of 11 steps"):
            train(recipe(*changes), "cut", tmp_path / "cut")
    resumed = resume(load_run(tmp_path / "cut"))
    for a, b in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert without_times(tmp_path / "whole") == without_times(tmp_path / "cut")


def damage(run: Path, count: int) -> None:
    """Cuts the newest checkpoints off."""
    for path in sorted((run / "checkpoints").iterdir())[-count:]:
        (path / "state.npz").write_bytes((path / "state.npz").read_bytes()[:1000])


def test_a_damaged_checkpoint_is_passed_over(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run_path, tmp_path / "copy")
    (tmp_path / "copy" / "metrics.json").unlink()
    damage(tmp_path / "copy", 1)
    resumed = resume(load_run(tmp_path / "copy"))
    assert "damaged checkpoint, passed over" in capsys.readouterr().err
    for a, b in zip(load_run(run_path).model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert without_times(run_path) == without_times(tmp_path / "copy")


def test_without_a_whole_checkpoint_nothing_goes_on(run_path: Path, tmp_path: Path) -> None:
    shutil.copytree(run_path, tmp_path / "copy")
    (tmp_path / "copy" / "metrics.json").unlink()
    damage(tmp_path / "copy", 2)
    with pytest.raises(DlcliError, match="no whole checkpoint to resume from"):
        resume(load_run(tmp_path / "copy"))


def test_a_run_that_was_killed_at_once_begins_anew(run_path: Path, tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    for name in ("recipe.yaml", "environment.json"):
        shutil.copy(run_path / name, tmp_path / "cut" / name)
    resumed = resume(load_run(tmp_path / "cut"))
    for a, b in zip(load_run(run_path).model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_more_epochs_of_a_complete_run_equal_a_longer_one(tmp_path: Path) -> None:
    changes = ("schedule=constant", "regularization.ema=0.9")
    longer = train(recipe(*changes, "training.epochs=3"), "longer", tmp_path / "longer")
    train(recipe(*changes, "training.epochs=2"), "shorter", tmp_path / "shorter")
    more = resume(load_run(tmp_path / "shorter"), ["training.epochs=3"])
    assert more.metrics["training"]["epochs"] == 3
    assert (more.path / "metrics_after_2_epochs.json").is_file()
    for a, b in zip(longer.model.get_weights(), more.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert without_times(tmp_path / "longer") == without_times(tmp_path / "shorter")
    assert load_run(tmp_path / "shorter").recipe.training.epochs == 3


def test_a_changed_recipe_is_refused_unless_it_is_allowed(run_path: Path, tmp_path: Path) -> None:
    shutil.copytree(run_path, tmp_path / "copy")
    changes = ["training.epochs=5", "optimizer.learning_rate=0.001", "regularization.early_stopping=null"]
    with pytest.raises(DlcliError, match=r"optimizer.learning_rate: 0.01 when.*now 0.001") as refused:
        resume(load_run(tmp_path / "copy"), changes, ["regularization"])
    assert "--allow-change optimizer.learning_rate" in str(refused.value)
    assert "early_stopping" not in str(refused.value)
    assert load_run(tmp_path / "copy").recipe.training.epochs == 4, "nothing is written before it is allowed"
    run = resume(load_run(tmp_path / "copy"), changes, ["optimizer.learning_rate", "regularization"])
    assert len(history(run.path)) == 5
    assert set(run.environment["resumed"][0]["changed"]) >= {"optimizer.learning_rate", "training.epochs"}


def test_more_epochs_without_a_checkpoint_are_refused(run_path: Path, tmp_path: Path) -> None:
    shutil.copytree(run_path, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints"))
    assert resume(load_run(tmp_path / "copy")).metrics, "complete is complete"
    with pytest.raises(DlcliError, match="no whole checkpoint"):
        resume(load_run(tmp_path / "copy"), ["training.epochs=9"])


def test_a_run_without_a_checkpoint_has_a_recipe_all_the_same(run_path: Path, tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    for name in ("recipe.yaml", "environment.json"):
        shutil.copy(run_path / name, tmp_path / "cut" / name)
    change = "optimizer.learning_rate=0.002"
    with pytest.raises(DlcliError, match=r"learning_rate: 0.01 when it was saved, now 0.002"):
        resume(load_run(tmp_path / "cut"), [change])
    changes = [change, "training.epochs=1"]
    run = resume(load_run(tmp_path / "cut"), changes, ["optimizer"])
    assert load_run(run.path).recipe.optimizer.arguments["learning_rate"] == 0.002
    assert run.environment["resumed"][0]["changed"]["optimizer.learning_rate"] == {"was": 0.01, "now": 0.002}


def test_an_epoch_with_other_steps_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        monkeypatch.context() as patch,
        pytest.raises(TrainingInterruptedError, match="after 1 complete epochs and 2"),
    ):
        stop_after(1, patch, lambda: os.kill(os.getpid(), signal.SIGINT))
        train(recipe("training.epochs=2"), "cut", tmp_path / "cut")
    seen: list[int] = []
    monkeypatch.setattr(History, "on_train_batch_begin", lambda self, batch, logs=None: seen.append(batch))
    resume(load_run(tmp_path / "cut"), ["training.batch_size=512"], ["training.batch_size"])
    assert seen == [0, 1, 2]
    assert "epoch 2 has other steps now: it begins anew" in capsys.readouterr().err


def test_a_model_that_is_newer_than_the_checkpoint_is_not_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill between the two, where the epoch is trained again otherwise."""
    with monkeypatch.context() as patch, pytest.raises(TrainingInterruptedError):
        stop_after(1, patch, lambda: os.kill(os.getpid(), signal.SIGINT))
        train(recipe("training.epochs=2"), "cut", tmp_path / "cut")
    model = load_run(tmp_path / "cut").model
    model.set_weights([weight + 1 for weight in model.get_weights()])
    model.save(tmp_path / "cut" / "model.keras")
    run = resume(load_run(tmp_path / "cut"), ["optimizer.learning_rate=1e-9"], ["optimizer"])
    assert run.metrics["training"]["best_epoch"] == 2


def test_a_refused_resume_changes_nothing(run_path: Path, tmp_path: Path) -> None:
    shutil.copytree(run_path, tmp_path / "copy")
    before = {path: path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    changes = ["training.epochs=6", "architecture.dense=[8]"]
    with pytest.raises(DlcliError, match="does not fit the recipe"):
        resume(load_run(tmp_path / "copy"), changes, ["architecture"])
    for change, said in (
        ("training.epochs=2", "or so many epochs are done"),
        ("optimizer.learning_rate=0.5", "optimizer.learning_rate would change nothing"),
    ):
        with pytest.raises(DlcliError, match=said):
            run = load_run(tmp_path / "copy")
            resume(run, [change], ["optimizer"])
    assert {path: path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file()} == before


def test_a_misspelled_allow_change_is_refused(run_path: Path, tmp_path: Path) -> None:
    shutil.copytree(run_path, tmp_path / "copy")
    with pytest.raises(
        DlcliError, match=r"optimizer.learnin_rate: nothing has this name; did you mean optimizer"
    ):
        resume(load_run(tmp_path / "copy"), ["training.epochs=5"], ["optimizer.learnin_rate"])


def test_another_monitor_and_other_metrics_begin_anew(run_path: Path, tmp_path: Path) -> None:
    shutil.copytree(run_path, tmp_path / "copy")
    changes = ["training.epochs=6", "training.monitor=val_loss"]
    run = resume(load_run(tmp_path / "copy"), changes, ["training.monitor"])
    assert run.metrics["training"]["best_epoch"] > 4
    more = [
        "training.epochs=7",
        "dataset.validation_split=0",
        "training.monitor=null",
        "regularization.early_stopping=null",
    ]
    resume(load_run(run.path), more, ["dataset", "data", "training", "regularization"])
    assert [row["val_loss"] == "" for row in history(run.path)] == [False] * 6 + [True]


def test_a_run_that_early_stopping_ended_goes_on_without_it(tmp_path: Path) -> None:
    small = ("architecture={name: mlp, hidden: [4]}", "training.epochs=9", "optimizer.learning_rate=1e-9")
    run = train(recipe(*small, "regularization={early_stopping: {patience: 1}}"), "early", tmp_path / "early")
    done = len(history(run.path))
    assert done < 9
    with pytest.raises(DlcliError, match="early stopping has ended it"):
        resume(load_run(run.path), ["training.epochs=12"])
    changes = ["regularization.early_stopping=null", f"training.epochs={done + 2}"]
    resume(load_run(run.path), changes, ["regularization"])
    assert len(history(run.path)) == done + 2


def test_an_evaluation_does_not_end_a_training(run_path: Path, tmp_path: Path) -> None:
    shutil.copytree(run_path, tmp_path / "copy")
    metrics = load_run(run_path).metrics
    (tmp_path / "copy" / "metrics.json").write_text(json.dumps({**metrics, "training": None}))
    shutil.rmtree(max((tmp_path / "copy" / "checkpoints").iterdir()))  # it was in its last epoch
    run = load_run(tmp_path / "copy")
    assert not run.has_ended and run.model
    assert resume(run).metrics["training"]["epochs"] == 4


def test_killed_between_the_first_model_and_the_first_checkpoint(run_path: Path, tmp_path: Path) -> None:
    shutil.copytree(run_path, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints", "metrics.json"))
    path = tmp_path / "copy" / "history.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:2]) + "\n")
    resumed = resume(load_run(tmp_path / "copy"))
    for a, b in zip(load_run(run_path).model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_signal_after_the_last_step_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        monkeypatch.context() as patch,
        pytest.raises(TrainingInterruptedError, match="after 1 complete epochs"),
    ):
        patch.setattr(History, "on_train_end", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        train(recipe("training.epochs=1"), "cut", tmp_path / "cut")
    assert resume(load_run(tmp_path / "cut")).metrics


def test_of_two_trainings_into_one_empty_folder_one_is_refused(
    run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw it empty; the other one was faster, and is done."""
    before = (run_path / "recipe.yaml").read_bytes()
    monkeypatch.setattr("dlcli.training.train.new_run", lambda name, out: Run(run_path))
    with pytest.raises(DlcliError, match="is there already"):
        train(recipe(), "late", tmp_path / "late")
    assert (run_path / "recipe.yaml").read_bytes() == before


def test_every_steps_and_keep(tmp_path: Path) -> None:
    run = train(
        recipe("training.epochs=1", "training.checkpoint={every_steps: 4, keep: 3}"),
        "steps",
        tmp_path / "steps",
    )
    kept = sorted(path.name for path in run.checkpoints.iterdir())
    assert kept == ["epoch-0000-step-0000000004", "epoch-0000-step-0000000008", "epoch-0001-step-0000000011"]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (-2, "the loss became nan at step 3"),
        (0, "(weights became NaN or infinite in epoch 2|the loss became nan at step 3)"),
    ],  # ReLU hides the second
)
def test_what_is_not_finite_stops_training_and_keeps_the_last_good_model(
    layer: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[keras.Model] = []
    monkeypatch.setattr(History, "on_epoch_begin", lambda self, epoch, logs=None: models.append(self.model))

    def poison() -> None:
        weight = models[-1].trainable_weights[layer]
        weight.assign(weight * np.nan)

    stop_after(1, monkeypatch, poison)
    with pytest.raises(TrainingFailedError, match=rf"{message}.*best model so far is kept") as failed:
        train(recipe("dataset.validation_split=0", "regularization={}"), "nan", tmp_path / "nan")
    assert failed.value.exit_code == 4
    assert all(np.isfinite(weight).all() for weight in load_run(tmp_path / "nan").model.get_weights())


def test_early_stopping_stops_and_the_best_epoch_is_kept(tmp_path: Path) -> None:
    run = train(
        recipe("training.epochs=30", "regularization={early_stopping: {patience: 2}}", "schedule=constant",
               "optimizer.learning_rate=3e-2", "architecture={name: mlp, hidden: [16]}"),
        "early", tmp_path / "early",
    )  # fmt: skip
    rows = [float(row["val_accuracy"]) for row in history(run.path)]
    first_best = int(np.argmax(rows))
    assert len(rows) == first_best + 3 < 30
    assert rows[run.metrics["training"]["best_epoch"] - 1] == max(rows)


def test_a_full_disk_ends_training_with_exit_code_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "model.keras")

    monkeypatch.setattr("dlcli.training.checkpoint_store.np.savez", full)
    with pytest.raises(TrainingFailedError, match=r"No space left.*best model so far is kept"):
        train(recipe("training.epochs=1"), "full", tmp_path / "full")
    assert load_run(tmp_path / "full").model.get_weights()


def test_a_batch_that_cannot_fit_is_refused_before_training(
    tmp_path: Path, class_folders: Callable[..., Path]
) -> None:
    folder = class_folders(("dark", "light"), channels=1)
    changes = [f"dataset={{name: image_folder, path: {folder}}}", "dataset.image_size=600"]
    with pytest.raises(DlcliError, match=r"a batch of 1048576 inputs of 600x600x1 takes 1510 GB as float32"):
        train(recipe("training.batch_size=1048576", *changes), "big", tmp_path / "big")


def test_restore_best_false_keeps_the_last_epoch(tmp_path: Path) -> None:
    stopping = "regularization={early_stopping: {patience: 2, restore_best: false}}"
    run = train(recipe(stopping, "training.epochs=2"), "last", tmp_path / "last")
    assert run.metrics["training"]["best_epoch"] == 2
    assert run.metrics["training"]["monitor"] is None


def test_steps_per_execution_must_divide_the_epoch(tmp_path: Path) -> None:
    with pytest.raises(
        DlcliError, match=r"steps_per_execution 4 does not divide the 11 steps.*allowed: 1, 11"
    ):
        train(recipe("training.steps_per_execution=4"), "s", tmp_path / "s")
    assert not (tmp_path / "s").exists(), "a refused recipe leaves no run folder"


def test_resuming_a_complete_run_changes_nothing(run_path: Path) -> None:
    before = (run_path / "model.keras").stat().st_mtime_ns
    assert resume(load_run(run_path)).metrics["metrics"]
    assert (run_path / "model.keras").stat().st_mtime_ns == before


def test_without_validation_the_last_epoch_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marked: list[int | None] = []
    monkeypatch.setattr("dlcli.training.train.plot_learning_curves", lambda *drawn: marked.append(drawn[-1]))
    run = train(
        recipe("dataset.validation_split=0", "regularization={}", "training.epochs=2"),
        "all",
        tmp_path / "all",
    )
    assert (
        run.metrics["training"] | {"monitor": None, "best_epoch": 2, "epochs": 2} == run.metrics["training"]
    )
    assert marked == [None], "kept for being the last one, and not called the best"
    with pytest.raises(DlcliError, match="need validation examples"):
        train(recipe("dataset.validation_split=0"), "no", tmp_path / "no")


def test_ema_weights_are_what_the_model_holds(tmp_path: Path) -> None:
    plain = train(recipe("regularization={}", "training.epochs=1"), "plain", tmp_path / "plain")
    averaged = train(recipe("regularization={ema: 0.9}", "training.epochs=1"), "ema", tmp_path / "ema")
    assert not np.array_equal(plain.model.get_weights()[-2], averaged.model.get_weights()[-2])


def test_an_unknown_monitor_lists_the_metrics(tmp_path: Path) -> None:
    with pytest.raises(DlcliError, match=r"training\.monitor: no metric 'f1'; allowed: loss, accuracy"):
        train(recipe("training.monitor=f1"), "m", tmp_path / "m")


@pytest.mark.parametrize("steps", ["null", "2"])
def test_a_step_of_a_gan_needs_all_its_images(steps: str) -> None:
    changes = [
        "task={name: gan, objective: wasserstein}", "dataset={name: digits}", "regularization={}",
        "optimizer=rmsprop", "schedule=constant", "architecture={name: mlp_gan, hidden: [4]}",
        "training.batch_size=300", f"training.steps_per_epoch={steps}",
    ]  # fmt: skip
    message = r"reads 5 batches of 300, 1500 images, and the train split has 1437: lower"
    with pytest.raises(DlcliError, match=message):
        prepare(load_recipe("digits_cnn", changes))
