"""Recipe -> Run: the whole of `dlcli train`."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
from keras.src.utils.naming import reset_uids  # public is only what also forgets the strategy that is on

from dlcli.console import note, warn
from dlcli.errors import DlcliError, NotFiniteError, OutOfMemoryError, TrainingInterruptedError
from dlcli.evaluation.plots import plot_learning_curves
from dlcli.files import remove_leftovers, sha256_of, write_text
from dlcli.layers.tokens import read_tokenizer, saved_tokenizer
from dlcli.recipe.load import dump_recipe, load_recipe, with_absolute_paths
from dlcli.recipe.schema import Recipe
from dlcli.run_lock import locked
from dlcli.runs import Run, check_free, environment, new_run, write_json
from dlcli.tasks.generative import GenerativeTask
from dlcli.training.agreement import Agreement, outside
from dlcli.training.callbacks import AverageWeights, EarlyStopping, History, KeepBest, StopOnNaN
from dlcli.training.checkpoint import Checkpoint, Place, Resumable
from dlcli.training.checkpoint_store import CheckpointStore, Saved
from dlcli.training.distribution import Choice, choose, strategy_scope
from dlcli.training.failures import explained_failures, what_is_kept
from dlcli.training.finetune import source_sha256, with_source
from dlcli.training.fit import build, fit
from dlcli.training.generative import finish_samples, generative_callbacks
from dlcli.training.interrupts import Interrupts
from dlcli.training.job import Job, images_per_step, prepare, training_batches, validation_stream
from dlcli.training.plateau import PlateauCallback, find_plateau
from dlcli.training.progress import TrainingProgress
from dlcli.training.recovery import (
    after_not_finite,
    after_out_of_memory,
    failures_of,
    note_recoveries,
    with_recoveries,
)
from dlcli.training.resume import (
    Difference,
    about_training,
    at_beginning,
    check_changes,
    is_complete,
    place_of,
    refuse_fewer,
    refuse_idle_changes,
)
from dlcli.training.settled import settled
from dlcli.training.stages import compile_stage

if TYPE_CHECKING:
    from dlcli.data.text.tokenizer import Tokenizer


UNITS = {
    "image": "images",
    "image_pairs": "pairs",
    "unpaired_images": "images",
    "table": "rows",
}
"""Kind of data -> what progress counts."""


def train(recipe: Recipe, name: str, out: Path | None = None, tokenizer: Tokenizer | None = None) -> Run:
    """Trains a recipe and leaves a run folder.

    Args:
        recipe: resolved recipe.
        name: name of the run folder when `out` is not given.
        out: the run folder.
        tokenizer: of a run that is trained again; left out, its vocabulary is learnt.

    Raises:
        DlcliError: recipe and data do not fit.
        TrainingFailedError: the loss is no longer finite, or memory ran out; the best model so far is kept.
        TrainingInterruptedError: Ctrl-C or SIGTERM.
    """
    if recipe.finetune is not None:
        note(
            "the recipe's `finetune` section is for `dlcli finetune`; this training starts from random weights"
        )
    recipe = with_absolute_paths(recipe.model_copy(update={"finetune": None}))
    return _run_anew(recipe, name, out, tokenizer)


def finetune(
    recipe: Recipe,
    name: str,
    source: str | None = None,
    out: Path | None = None,
    tokenizer: Tokenizer | None = None,
) -> Run:
    """Trains a recipe from the weights of SOURCE, and leaves a run folder.

    Args:
        recipe: resolved recipe.
        name: name of the run folder when `out` is not given.
        source: run folder, model file, `imagenet` or preset; the recipe's `finetune.source` when left out.
        out: the run folder.
        tokenizer: of a run that is trained again; left out, the source's, or its vocabulary is learnt.

    Raises:
        DlcliError: recipe, data and source do not fit; otherwise as `train`.
    """
    return _run_anew(with_source(recipe, source), name, out, tokenizer)


def _run_anew(recipe: Recipe, name: str, out: Path | None, tokenizer: Tokenizer | None) -> Run:
    if out is not None:
        check_free(out)
    with strategy_scope(recipe) as choice:
        recipe = settled(recipe, choice)
        job = prepare(recipe, tokenizer, Agreement(choice.workers, choice.worker))
        _check_same_place(job.agreement, None)
        about = about_training(recipe, job.data.info)
        if not choice.is_chief:
            with _scratch() as run:
                return _train_on(recipe, job, run, about, None)
        run = new_run(name, out)
        with locked(run.path):
            check_free(run.path)  # of two trainings that saw an empty folder, one gets it
            remove_leftovers(run.path)
            with explained_failures(recipe):
                _write_beginning(run, recipe, job, choice)
            return _train_on(recipe, job, run, about, None)


@contextmanager
def _scratch() -> Iterator[Run]:
    """A folder for a worker that is not the chief: what it leaves behind belongs to nobody."""
    with tempfile.TemporaryDirectory(prefix="dlcli-worker-") as folder:
        yield Run(Path(folder))


def _write_beginning(run: Run, recipe: Recipe, job: Job, choice: Choice) -> None:
    """All that `--resume` needs of a run which is killed before its first checkpoint; recipe.yaml makes it a run."""
    if job.data.info.tokenizer is not None:
        write_text(run.tokenizer_path, job.data.info.tokenizer.json)
    about = {
        "source_sha256": source_sha256(recipe),
        "distribution": {
            "strategy": choice.strategy, "workers": choice.workers, "devices_of_each": list(choice.devices),
        },
    }  # fmt: skip
    write_json(run.path / "environment.json", {**environment(job.data.info.fingerprint), **about})
    write_text(run.path / "recipe.yaml", dump_recipe(recipe))


def resume(run: Run, changes: Sequence[str] = (), allowed: Sequence[str] = ()) -> Run:
    """Continues an interrupted run from its newest checkpoint, as if it had never stopped.

    Args:
        run: interrupted, or complete and to be trained for more epochs.
        changes: of the recipe, `key.path=value` each.
        allowed: what may be another than it was, though it matters: keys of the recipe, or `data`, `keras`, ...

    Raises:
        DlcliError: something else differs, or no checkpoint is whole; otherwise as `train`.
    """
    recipe = load_recipe(run.path / "recipe.yaml", changes)
    recipe = with_absolute_paths(recipe) if changes else recipe
    choice = choose(recipe.distribution)
    with locked(run.path, patient=choice.workers > 1) if choice.is_chief else nullcontext():
        saved = _newest_checkpoint(run, recipe.training.checkpoint.keep, choice)
        if run.has_ended and (not changes if saved is None else is_complete(saved, recipe)):
            refuse_idle_changes(run, recipe)
            note(f"{run.path} is complete already; more epochs: --set training.epochs=N")
            return run
        if saved is None and (list(run.checkpoints.glob("epoch-*")) or _has_epochs(run)):
            raise DlcliError(f"{run.path}: no whole checkpoint to resume from; train the recipe anew")
        if saved is not None:
            refuse_fewer(run, saved, recipe)
        with strategy_scope(recipe):
            recipe = settled(recipe, choice)
            agreement = Agreement(choice.workers, choice.worker)
            job = prepare(with_recoveries(recipe, failures_of(run)), _tokenizer_of(run), agreement)
            _check_same_place(agreement, saved)
            about = about_training(recipe, job.data.info)
            known = saved.progress if saved else at_beginning(about, run.recipe, run.environment)
            found = check_changes(run, known, about, allowed)
            note_recoveries(run, recipe)
            if not choice.is_chief:
                with _scratch() as scratch:
                    return _train_on(recipe, job, scratch, about, saved)
            return _train_on(recipe, job, run, about, saved, lambda: _accept(run, recipe, saved, found))


def _check_same_place(agreement: Agreement, saved: Saved | None) -> None:
    """Refuses a worker that would go on from elsewhere than the chief: they would wait for each other for ever.

    Raises:
        DlcliError: it does not see the chief's run folder.
    """
    here = "the beginning" if saved is None else saved.path.name
    if (chief := agreement.from_chief(here)) != here:
        raise DlcliError(
            f"this worker would train from {here}, and the first one from {chief}: the run folder must be on a file "
            "system that all of them share"
        )


def _has_epochs(run: Run) -> bool:
    """Whether more is lost by beginning anew than what a kill before the first checkpoint costs."""
    path = run.path / "history.csv"
    return path.is_file() and len(path.read_text(encoding="utf-8").splitlines()) > 2


def _newest_checkpoint(run: Run, keep: int, choice: Choice | None = None) -> Saved | None:
    store = CheckpointStore(run.checkpoints, keep)
    if choice is None or choice.is_chief:
        remove_leftovers(run.path)
    saved = store.newest()
    if saved is not None and (choice is None or choice.is_chief):
        store.remove_older(saved.path)
    for text in store.broken:
        warn(f"damaged checkpoint, passed over: {text}")
    return saved


def _accept(run: Run, recipe: Recipe, saved: Saved | None, found: Sequence[Difference]) -> None:
    """Writes down what is another than it was, once the saved state has turned out to fit."""
    then, place = run.environment, Place() if saved is None else saved.place
    if recipe != run.recipe:
        write_text(run.path / "recipe.yaml", dump_recipe(recipe))
    if found:
        changed = {each.key: {"was": each.was, "now": each.now} for each in found}
        record = {"epochs_done": place.epochs_done, "step": place.step, "changed": changed}
        write_json(run.path / "environment.json", {**then, "resumed": [*then.get("resumed", []), record]})
    if saved is None:
        note(f"{run.path} has no checkpoint yet: it begins anew")
    _put_scores_aside(run)


def _put_scores_aside(run: Run) -> None:
    """The scores of a complete run that is trained further are of a model which will be another one."""
    if scores := run.metrics:
        epochs = (scores["training"] or {}).get("epochs", "some")
        (run.path / "metrics.json").replace(run.path / f"metrics_after_{epochs}_epochs.json")


def _tokenizer_of(run: Run) -> Tokenizer | None:
    """The vocabulary of a run that goes on: some are learnt otherwise each time. None where it reads no text."""
    if run.tokenizer_path.is_file():
        return read_tokenizer(run.tokenizer_path)
    return saved_tokenizer(run.model_path) if run.model_path.is_file() else None


@dataclass(frozen=True)
class Lasting:
    """What stays through all stages of a training."""

    history: History
    keep_best: KeepBest
    checkpoint: Checkpoint
    progress: TrainingProgress


def _train_on(
    recipe: Recipe,
    job: Job,
    run: Run,
    about: Mapping[str, Any],
    saved: Saved | None,
    accept: Callable[[], None] | None = None,
) -> Run:
    """Trains to the end, past NaN and lack of memory where the recipe says so, and scores the kept model.

    Args:
        recipe: as the run has it.
        job: of it, and of what the run has recovered from so far.
        run: its folder.
        about: the training as its recipe describes it.
        saved: where it goes on; None from the beginning.
        accept: is called once when the saved state has turned out to fit.
    """
    while True:
        try:
            lasting = _fit(job, run, about, saved, accept)
        except NotFiniteError as error:
            after_not_finite(job, run, error)
        except OutOfMemoryError as error:
            after_out_of_memory(job, run, error)
        else:
            if job.agreement.is_chief:
                _finish(job, run, lasting.history, lasting.keep_best)
            with explained_failures(recipe):  # the chief may have failed
                job.agreement.meet()  # it is the one whom the others find each other by
            return run
        # From here on as a run that was killed and goes on: nothing of the failed try stays, in memory or in names.
        job_agreement = job.agreement
        del job
        accept = None
        gc.collect()
        reset_uids()
        saved = _newest_checkpoint(run, recipe.training.checkpoint.keep)
        job = prepare(with_recoveries(recipe, failures_of(run)), _tokenizer_of(run), job_agreement)


def _fit(
    job: Job, run: Run, about: Mapping[str, Any], saved: Saved | None, accept: Callable[[], None] | None
) -> Lasting:
    """Trains from a checkpoint, or from the beginning, to the end."""
    recipe, interrupts = job.recipe, Interrupts(speaks=job.agreement.is_chief)
    stopping = recipe.regularization.early_stopping
    decides = job.monitor if stopping is None or stopping.restore_best else None
    settings = recipe.training.checkpoint
    lasting = Lasting(
        History(run.path / "history.csv", min(len(job.train), job.steps.per_epoch * images_per_step(job))),
        KeepBest(
            job.models.predictor, run.model_path, decides, job.mode, job.models.parts, job.agreement.is_chief
        ),
        Checkpoint(
            CheckpointStore(run.checkpoints, settings.keep), settings, interrupts, about, job.steps.per_epoch,
            run.path / "recipe.yaml", job.agreement,
        ),
        TrainingProgress(
            sum(stage.epochs for stage in job.stages), job.steps.per_epoch,
            images_per_step(job), UNITS.get(job.data.info.kind, "sequences"),
        ),
    )  # fmt: skip
    try:
        with interrupts, explained_failures(recipe, run if job.agreement.is_chief else None):
            _train_stages(job, run, lasting, saved, accept)
    except TrainingInterruptedError as error:
        raise TrainingInterruptedError(_how_to_go_on(run, lasting, job), error.exit_code) from None
    except KeyboardInterrupt:
        raise TrainingInterruptedError(_how_to_go_on(run, lasting, job)) from None
    finally:
        lasting.progress.close()
    return lasting


def _train_stages(
    job: Job, run: Run, lasting: Lasting, saved: Saved | None, accept: Callable[[], None] | None
) -> None:
    network, history, checkpoint = job.models.network, lasting.history, lasting.checkpoint
    place = start = Place() if saved is None else place_of(saved, job.recipe, job.steps.per_epoch)
    for number in range(start.stage, len(job.stages)):
        schedule = _begin_stage(job, number)
        averaging = [AverageWeights()] if job.recipe.regularization.ema is not None else []
        stateful = _stateful_callbacks(job, schedule)
        remembering: dict[str, Resumable] = {
            type(each).__name__: each for each in (history, lasting.keep_best, *averaging, *stateful)
        }
        checkpoint.begin_stage(network, place, remembering)
        build(network, training_batches(job))
        if saved is None and number == 0:
            job.agreement.equalize(network.variables)
        if saved is not None and number == start.stage:
            checkpoint.restore(saved, place)
            inside = f", step {place.step} of {job.steps.per_epoch} of the next one" if place.step else ""
            note(f"resuming {run.path} after epoch {place.epochs_done}{inside}")
        if accept is not None and number == start.stage:
            accept()
        if not place.stopped:
            fit(
                network,
                training_batches(job, place.epochs_done * job.steps.per_epoch + place.step),
                first_epoch=place.epochs_done,
                first_step=place.step,
                epochs=place.stage_began + job.stages[number].epochs,
                steps_per_epoch=job.steps.per_epoch,
                validation=validation_stream(job),
                callbacks=[
                    *averaging, *generative_callbacks(job, run), StopOnNaN(), history, lasting.keep_best, *stateful,
                    lasting.progress, *_tensorboard(job, run), checkpoint,
                ],
                agreement=job.agreement,
            )  # fmt: skip
        place = Place(number + 1, len(history.rows), len(history.rows))
        checkpoint.stop_if_asked()  # a signal after the last step


def _tensorboard(job: Job, run: Run) -> list[keras.callbacks.Callback]:
    folder = run.path / "tensorboard"
    return [keras.callbacks.TensorBoard(folder, write_graph=False)] if job.agreement.is_chief else []


def _begin_stage(job: Job, number: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Freezes and compiles for a stage, and shows what learns; the first one is compiled already."""
    stage, schedule = job.stages[number], job.schedule
    if number > 0:
        schedule = compile_stage(
            job.recipe, job.models, job.freezing, stage, job.steps.per_epoch, job.one_hot_classes is not None
        )
    if job.freezing is not None:
        of = f"stage {number + 1} of {len(job.stages)}" if len(job.stages) > 1 else "fine-tuning"
        rate = f", learning rate {stage.learning_rate:g}" if stage.learning_rate is not None else ""
        epochs = "1 epoch" if stage.epochs == 1 else f"{stage.epochs} epochs"
        job.freezing.show(f"{of}: {epochs}{rate}")
    return schedule


def _finish(job: Job, run: Run, history: History, keep_best: KeepBest) -> None:
    """Scores the kept model and draws the curves."""
    with explained_failures(job.recipe, run):
        if tf.distribute.get_strategy().num_replicas_in_sync == 1:
            keep_best.restore()
            for name, part in job.models.parts.items():
                part.set_weights(run.part(name).get_weights())
            _score(job, run, history, keep_best, job.models.predictor)
        else:
            outside(lambda: _score_as_saved(job, run, history, keep_best))


def _score_as_saved(job: Job, run: Run, history: History, keep_best: KeepBest) -> None:
    """Scores what was saved: a model of several devices cannot be asked by one of them alone."""
    if isinstance(job.models.task, GenerativeTask):
        job.models.task.parts = {name: run.part(name) for name in job.models.parts}
    _score(job, run, history, keep_best, run.model)


def _score(job: Job, run: Run, history: History, keep_best: KeepBest, predictor: keras.Model) -> None:
    split = "test" if job.data.test is not None else "validation"
    examples = job.data.test if job.data.test is not None else job.data.validation
    if examples is None and isinstance(job.models.task, GenerativeTask):
        split, examples = "train", job.data.train  # samples can be compared with any real images
    best_epoch = None if keep_best.best_epoch is None else keep_best.best_epoch + 1
    about: dict[str, Any] = {
        "best_epoch": best_epoch,
        "monitor": keep_best.monitor,
        "epochs": len(history.rows),
        "train_seconds": round(sum(row["seconds"] for row in history.rows), 1),
        "parameters": job.models.network.count_params(),
        "sha256": {path.name: sha256_of(path) for path in sorted(run.path.glob("*.keras"))},
    }
    if isinstance(job.models.task, GenerativeTask):
        about["warnings"] = finish_samples(run)
    # Where nothing decides, the last epoch is kept, and nobody knows whether it is the best one.
    marked = None if keep_best.monitor is None else best_epoch
    plot_learning_curves(history.columns(), run.plots / "learning_curves.png", marked)
    if examples is None:
        warn("no test or validation examples: this run has no score (dataset.validation_split keeps some)")
        write_json(
            run.path / "metrics.json", {"split": None, "metrics": {}, "intervals": {}, "training": about}
        )
        return
    report = job.models.task.evaluate(predictor, examples, split, run.plots)
    write_json(run.path / "metrics.json", {**report, "training": about})


def _stateful_callbacks(job: Job, schedule: keras.optimizers.schedules.LearningRateSchedule) -> list[Any]:
    """Callbacks that remember earlier epochs."""
    callbacks: list[Any] = []
    stopping = job.recipe.regularization.early_stopping
    if stopping is not None:
        callbacks.append(
            EarlyStopping(
                job.monitor, min_delta=stopping.min_delta, patience=stopping.patience, mode=job.mode
            )
        )
    plateau = find_plateau(schedule)
    if plateau is not None:
        callbacks.append(PlateauCallback(plateau, job.monitor or "loss", job.mode if job.monitor else "min"))
    return callbacks


def _how_to_go_on(run: Run, lasting: Lasting, job: Job) -> str:
    if not job.agreement.is_chief:
        return "interrupted; worker 0 has saved"
    place, command = lasting.checkpoint.saved_place, f"dlcli train --resume {quote(str(run.path))}"
    if place is None:
        return f"interrupted before the first checkpoint; it begins anew with: {command}"
    reached = f"{place.epochs_done} complete epochs"
    if place.step:
        reached += f" and {place.step} of {job.steps.per_epoch} steps"
    return f"interrupted; saved after {reached}. {what_is_kept(run)}\nGo on with: {command}"
