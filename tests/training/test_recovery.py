"""NaN and lack of memory while training: what is written down, what goes on, and that a kill in between changes nothing."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from dlcli.cli.main import app
from dlcli.data.stream import indices_of_step, training_stream
from dlcli.errors import OutOfMemoryError, TrainingFailedError, TrainingInterruptedError
from dlcli.recipe.load import load_recipe
from dlcli.recipe.schema import Recipe
from dlcli.runs import Run, load_run
from dlcli.training import recovery
from dlcli.training.callbacks import StopOnNaN
from dlcli.training.failures import explained_failures
from dlcli.training.gradient_norm import GradientNorms
from dlcli.training.recovery import note_recoveries, with_recoveries
from dlcli.training.train import resume, train

pytestmark = pytest.mark.usefixtures("no_pictures")

SMALL = (
    "training={epochs: 2, batch_size: 16, on_nan: rollback, checkpoint: {every_steps: 2}}",
    "architecture={name: mlp, hidden: [8], dropout: 0.2}", "optimizer={name: adam, learning_rate: 1e-2}",
    "schedule={name: constant, warmup_steps: 2}",
)  # fmt: skip


def recipe(*changes: str) -> Recipe:
    return load_recipe("iris_mlp", [*SMALL, *changes])


class Trouble:
    """After some steps of the training (from 1) something happens, while the peak of the learning rate is as given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: dict[float, int], what: Any) -> None:
        original, self.steps = StopOnNaN.on_train_batch_end, 0

        def look(callback: StopOnNaN, batch: int, logs: dict[str, float] | None = None) -> None:
            self.steps += 1
            optimizer: Any = callback.model.optimizer
            if int(optimizer.iterations) == at.get(round(optimizer._learning_rate.target, 9)):
                what(callback.model)
            original(callback, batch, callback.model.get_metrics_result())

        monkeypatch.setattr(StopOnNaN, "on_train_batch_end", look)


def spoil_loss(model: Any) -> None:
    model._loss_tracker.update_state(np.nan)


def failures(path: Path) -> list[dict[str, Any]]:
    return json.loads((path / "failures.json").read_text())


def history(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((path / "history.csv").read_text().splitlines()))


def rates(path: Path) -> list[float]:
    return [float(row["learning_rate"]) for row in history(path)]


def same(a: Run, b: Run) -> None:
    for one, other in zip(
        load_run(a.path).model.get_weights(), load_run(b.path).model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    columns = [
        [{**row, "seconds": "", "examples_per_second": ""} for row in history(run.path)] for run in (a, b)
    ]
    assert columns[0] == columns[1]


def test_a_rollback_goes_on_at_half_the_rate_and_the_same_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Trouble(patch, {0.01: 6}, spoil_loss)
        rolled = train(recipe(), "rolled", tmp_path / "rolled")
    (record,) = failures(rolled.path)
    assert (record["what"], record["action"], record["value"]) == ("loss not finite", "rollback", "nan")
    assert (record["epoch"], record["step"], record["step_of_training"]) == (1, 6, 6)
    assert record["gradient_norm"] > 0 < record["gradient_norm_before"]
    assert rates(rolled.path) == pytest.approx([0.005, 0.005])

    def stop(model: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        Trouble(
            patch,
            {0.01: 6, 0.005: 7},
            lambda model: spoil_loss(model) if rate_of(model) > 0.007 else stop(model),
        )
        with pytest.raises(TrainingInterruptedError):
            train(recipe(), "killed", tmp_path / "killed")
    assert failures(tmp_path / "killed")[0]["examples"] == record["examples"]
    same(resume(load_run(tmp_path / "killed")), rolled)


def rate_of(model: Any) -> float:
    return float(model.optimizer._learning_rate.target)


def test_after_so_many_rollbacks_it_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recovery.MOST_ROLLBACKS == 3
    monkeypatch.setattr(recovery, "MOST_ROLLBACKS", 1)
    trouble = Trouble(monkeypatch, {0.01: 4, 0.005: 4, 0.0025: 4}, spoil_loss)
    with pytest.raises(TrainingFailedError, match=r"gone back 1 of 1 times\. A learning rate") as failed:
        train(recipe(), "often", tmp_path / "often")
    assert failed.value.exit_code == 4
    assert [each["action"] for each in failures(tmp_path / "often")] == ["rollback", "stop"]
    assert trouble.steps == 4 + 2  # the second time from the checkpoint at step 2 on


def test_it_stops_where_nothing_else_is_said_and_names_what_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil_weights(callback: StopOnNaN, epoch: int, logs: Any = None) -> None:
        callback._epoch = epoch
        weight = callback.model.trainable_weights[-1]
        weight.assign(weight * (np.nan if epoch == 1 else 1))

    # All steps of an epoch in one go: the callbacks see the last one, and the gradients tell which was the first.
    monkeypatch.setattr(StopOnNaN, "on_epoch_begin", spoil_weights)
    changes = ("training.on_nan=stop", "training.steps_per_execution=7")
    with pytest.raises(
        TrainingFailedError,
        match=r"step 8 of the training; gradient norm nan, before [\d.]+, learning rate 0\.01",
    ) as failed:
        train(recipe(*changes), "stop", tmp_path / "stop")
    assert failed.value.exit_code == 4
    assert "--set training.on_nan=rollback" in str(failed.value)
    (record,) = failures(tmp_path / "stop")
    assert (record["action"], record["epoch"], record["step"], record["step_of_training"]) == (
        "stop",
        2,
        1,
        8,
    )
    assert record["gradient_norm"] == "nan"
    examples: Any = Numbered(108, lengths=False)
    assert record["examples"] == indices_of_step(examples, 16, 0, 7).tolist()


def test_a_batch_that_is_too_large_goes_on_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(model: Any) -> None:
        if model.parts < 2:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[16,8]")

    Trouble(monkeypatch, {0.01: 5}, full)
    run = train(recipe("training.on_out_of_memory=halve_batch"), "parts", tmp_path / "parts")
    assert [each["gradient_accumulation"] for each in failures(run.path)] == [2]
    assert run.metrics is not None
    assert run.recipe.training.gradient_accumulation == 1  # the recipe stays what the user wrote
    assert with_recoveries(run.recipe, failures(run.path)).training.gradient_accumulation == 2


def test_what_it_recovered_from_is_said_and_does_not_lower_what_the_recipe_asks_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[dict[str, Any]] = [{"action": "rollback"}, {"action": "halve_batch", "gradient_accumulation": 2}, {"action": "stop"},
             {"action": "rollback"}, {"action": "halve_batch", "gradient_accumulation": 4}]  # fmt: skip
    for parts, trained in ((1, 4), (4, 4), (8, 8)):
        asked = recipe(f"training.gradient_accumulation={parts}")
        assert with_recoveries(asked, found).training.gradient_accumulation == trained
    run = Run(tmp_path)
    note_recoveries(run, recipe())
    assert capsys.readouterr().err == ""
    (tmp_path / "failures.json").write_text(json.dumps(found))
    note_recoveries(run, recipe())
    assert capsys.readouterr().err == (
        f"{tmp_path} goes on with what it recovered from ({tmp_path}/failures.json): learning rates times 0.25 (2 "
        "times not finite); each batch in 4 parts (out of memory)\n"
    )
    note_recoveries(run, recipe("training.gradient_accumulation=8"))
    assert "parts" not in capsys.readouterr().err


def test_the_command_after_lack_of_memory_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(model: Any) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[16,8]")

    with monkeypatch.context() as patch:
        Trouble(patch, {0.01: 5}, full)
        with pytest.raises(OutOfMemoryError) as failed:
            train(recipe(), "full", tmp_path / "full")
    command = shlex.split(str(failed.value).partition(" with: dlcli ")[2])
    assert command[:3] == ["train", "--resume", str(tmp_path / "full")]
    assert "training.gradient_accumulation=2" in command
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert load_run(tmp_path / "full").recipe.training.gradient_accumulation == 2


def test_a_step_that_cannot_be_cut_goes_on_with_fewer_examples(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "epoch-1").mkdir(parents=True)

    def said(given: Recipe) -> str:
        with pytest.raises(OutOfMemoryError) as failed, explained_failures(given, Run(tmp_path)):
            raise MemoryError
        return str(failed.value)

    go_on = f"dlcli train --resume {tmp_path}"
    fewer = f"{go_on} --set training.batch_size=8 --allow-change training.batch_size"
    for given in (
        load_recipe("digits_dcgan", ["training.batch_size=16"]),
        recipe("task={name: tabular_classification, loss: dice}"),
    ):
        assert said(given).endswith(fewer)
        assert "gradient_accumulation" not in said(given)
    single = said(recipe("training.gradient_accumulation=16"))
    assert "batch_size" not in single
    assert "a smaller architecture" in single
    assert single.endswith(go_on)  # where there is more memory


def test_without_it_the_message_says_what_to_lower(tmp_path: Path) -> None:
    parts = r"training\.batch_size=8; or --set training\.gradient_accumulation=2"
    with pytest.raises(OutOfMemoryError, match=parts), explained_failures(recipe()):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    gan = load_recipe("digits_dcgan")
    smaller = r"batch_size=\d+; or a smaller architecture"
    with pytest.raises(OutOfMemoryError, match=smaller), explained_failures(gan):
        raise MemoryError
    with pytest.raises(TrainingFailedError, match="the disk is full") as full, explained_failures(recipe()):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")
    assert not isinstance(full.value, OutOfMemoryError)


def test_every_learning_rate_of_a_recipe_is_halved() -> None:
    rolled = [{"action": "rollback"}] * 2
    gan = load_recipe(
        "digits_dcgan",
        [
            "optimizer={generator: {name: adam, learning_rate: 4e-4}, discriminator: {name: sgd, learning_rate: 0.1}}"
        ],
    )
    slower: Any = with_recoveries(gan, rolled).optimizer
    assert slower.generator.arguments["learning_rate"] == pytest.approx(1e-4)
    assert slower.discriminator.arguments["learning_rate"] == pytest.approx(0.025)
    plateau: Any = with_recoveries(
        recipe("schedule={name: reduce_on_plateau, min_learning_rate: 1e-3}"), rolled
    )
    assert plateau.schedule.arguments["min_learning_rate"] == pytest.approx(2.5e-4)
    stages = recipe("finetune={stages: [{epochs: 1, learning_rate: 0.1}, {epochs: 1}]}")
    assert [stage.learning_rate for stage in with_recoveries(stages, rolled).finetune.stages] == [0.025, None]  # type: ignore[union-attr]
    assert with_recoveries(gan, []) == gan


class Numbered:
    """Each example is its own number; some are long."""

    def __init__(self, count: int, lengths: bool) -> None:
        self.targets = np.arange(count, dtype="int32")
        if lengths:
            self.lengths = np.arange(count) * 7 % 11

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        return indices


@pytest.mark.parametrize("lengths", [False, True])
def test_the_examples_of_a_step_are_those_of_the_stream(lengths: bool) -> None:
    examples: Any = Numbered(23, lengths)
    stream = training_stream(examples, batch_size=5, seed=3)
    for step, (read, _) in zip(range(12), stream, strict=False):
        np.testing.assert_array_equal(indices_of_step(examples, 5, 3, step), read)


def test_gradient_norms_are_those_of_all_gradients_together() -> None:
    norms = GradientNorms()
    rows = tf.IndexedSlices(tf.constant([[2.0, 1.0]]), tf.constant([4]), tf.constant([9, 2]))
    norms.note(tf.constant(0, tf.int64), [tf.constant([3.0, 1.0]), None, tf.constant([[1.0]]), rows])
    norms.note(tf.constant(1, tf.int64), [tf.constant([np.inf])])
    assert norms.of(0) == pytest.approx(4.0)
    assert norms.of(7) is None
    assert norms.first_not_finite(0, 1) == 1
    assert norms.first_not_finite(0, 0) is None
