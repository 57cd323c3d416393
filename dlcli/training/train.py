"""Recipe -> Run: the whole of `dlcli train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from dlcli.architectures import READ_A_SOURCE
from dlcli.console import note, warn
from dlcli.data.augmentation import Augment, Position, build_augment, mixes_targets
from dlcli.data.examples import Data, Examples
from dlcli.data.stream import by_length, evaluation_stream, steps_per_epoch, training_stream
from dlcli.errors import DlcliError, TrainingInterruptedError
from dlcli.evaluation.evaluate import BATCH_SIZE, TEXT_BATCH_SIZE
from dlcli.evaluation.plots import plot_learning_curves
from dlcli.files import write_text
from dlcli.layers.tokens import saved_tokenizer
from dlcli.recipe.load import dump_recipe, with_absolute_paths
from dlcli.recipe.schema import Recipe, Stage
from dlcli.runs import Run, check_free, environment, locked, new_run, write_json
from dlcli.tasks import GENERATIVE_TASKS
from dlcli.tasks.generative import GenerativeTask
from dlcli.tasks.task import Task
from dlcli.training.build import Models, adapt_layers, build_models, check_targets, network_examples
from dlcli.training.callbacks import AverageWeights, EarlyStopping, History, KeepBest, StopOnNaN, StopOnSignal
from dlcli.training.checkpoint import Checkpoint, Place
from dlcli.training.checks import check_memory, check_steps_per_execution, monitored_metric
from dlcli.training.distribution import strategy_scope
from dlcli.training.failures import explained_failures, what_is_kept
from dlcli.training.finetune import (
    SourceRun,
    source_sha256,
    with_source,
    without_preprocessing,
)
from dlcli.training.freezing import Freezing
from dlcli.training.frozen import load_data_for
from dlcli.training.generative import finish_samples, generative_callbacks
from dlcli.training.lora import best_weights
from dlcli.training.optimizer import class_weights
from dlcli.training.plateau import PlateauCallback, find_plateau
from dlcli.training.progress import TrainingProgress
from dlcli.training.schedules import Steps
from dlcli.training.stages import compile_stage, stages_of

if TYPE_CHECKING:
    from dlcli.data.text.tokenizer import Tokenizer


UNITS = {
    "image": "images",
    "image_pairs": "pairs",
    "unpaired_images": "images",
    "table": "rows",
}
"""Kind of data -> what progress counts."""


@dataclass(frozen=True)
class Job:
    """Everything that `fit` needs, built from a recipe and its data."""

    recipe: Recipe
    data: Data
    models: Models
    train: Examples
    validation: Examples | None
    steps: Steps
    schedule: keras.optimizers.schedules.LearningRateSchedule
    monitor: str | None
    """Key of an epoch's logs that decides which epoch is best; None without validation examples."""
    mode: Any
    """`max` or `min`: which values of it are better."""
    class_weight: dict[int, float] | None
    one_hot_classes: int | None
    """Width of one-hot targets; None leaves class indices (or values) as they are."""
    stages: tuple[Stage, ...]
    freezing: Freezing | None
    """Of a pretrained network; None when all of it starts anew."""


def train(recipe: Recipe, name: str, out: Path | None = None) -> Run:
    """Trains a recipe and leaves a run folder.

    Args:
        recipe: resolved recipe.
        name: name of the run folder when `out` is not given.
        out: the run folder.

    Raises:
        DlcliError: recipe and data do not fit.
        TrainingFailedError: the loss is no longer finite, or memory ran out; the best model so far is kept.
        TrainingInterruptedError: Ctrl-C or SIGTERM.
    """
    if recipe.finetune is not None:
        note(
            "the recipe's `finetune` section is for `dlcli finetune`; this training starts from random weights"
        )
    return _run_anew(with_absolute_paths(recipe.model_copy(update={"finetune": None})), name, out)


def finetune(recipe: Recipe, name: str, source: str | None = None, out: Path | None = None) -> Run:
    """Trains a recipe from the weights of SOURCE, and leaves a run folder.

    Args:
        recipe: resolved recipe.
        name: name of the run folder when `out` is not given.
        source: run folder, model file, `imagenet` or preset; the recipe's `finetune.source` when left out.
        out: the run folder.

    Raises:
        DlcliError: recipe, data and source do not fit; otherwise as `train`.
    """
    return _run_anew(with_source(recipe, source), name, out)


def _run_anew(recipe: Recipe, name: str, out: Path | None) -> Run:
    if out is not None:
        check_free(out)
    with strategy_scope(recipe):
        job = prepare(recipe)
        run = new_run(name, out)
        write_text(run.path / "recipe.yaml", dump_recipe(recipe))
        source = {"source_sha256": source_sha256(recipe)}
        write_json(run.path / "environment.json", {**environment(job.data.info.fingerprint), **source})
        with locked(run):
            return _fit(job, run, resume=False)


def resume(run: Run) -> Run:
    """Continues an interrupted run after its last complete epoch, as if it had never stopped."""
    if run.metrics:
        note(f"{run.path} is complete already")
        return run
    with strategy_scope(run.recipe):
        job = prepare(run.recipe, _tokenizer_of(run))
        _check_source(run)
        known, found = run.environment["data_fingerprint"], job.data.info.fingerprint
        if known != found:
            raise DlcliError(
                f"{run.path}: the data have changed since this run began: other files, sizes or times (fingerprint "
                f"{known[:12]}, now {found[:12]}); train the recipe anew"
            )
        with locked(run):
            return _fit(job, run, resume=True)


def _check_source(run: Run) -> None:
    """Refuses to go on from another model than the one that the run began with."""
    known, found = run.environment.get("source_sha256"), source_sha256(run.recipe)
    if known != found:
        raise DlcliError(
            f"{run.path}: the model that this run began from has changed or is gone (finetune.source or "
            "architecture.source in its recipe.yaml); put it back, or train the recipe anew"
        )


def _tokenizer_of(run: Run) -> Tokenizer | None:
    """The vocabulary of a run that goes on; None when it has no model yet, or reads no text."""
    return saved_tokenizer(run.model_path) if run.model_path.is_file() else None


def prepare(recipe: Recipe, tokenizer: Tokenizer | None = None) -> Job:
    """Loads the data, builds and compiles the model; nothing is written.

    Args:
        recipe: resolved.
        tokenizer: of a run that goes on: some tokenizers learn another vocabulary each time.
    """
    with explained_failures(recipe):
        return _prepare(recipe, tokenizer)


def _prepare(recipe: Recipe, tokenizer: Tokenizer | None) -> Job:
    keras.utils.set_random_seed(recipe.training.seed)
    if recipe.training.precision != "float32" and not tf.config.list_physical_devices("GPU"):
        raise DlcliError(
            f"training.precision {recipe.training.precision} needs a GPU; on a CPU it is 2.5 to 11 times slower than "
            "float32: --set training.precision=float32"
        )
    keras.mixed_precision.set_dtype_policy(recipe.training.precision)
    source = SourceRun.of(recipe)
    data = load_data_for(recipe, tokenizer or (source.tokenizer if source else None))
    data = source.with_preprocessing(data) if source else data
    if recipe.architecture.name == "pretrained":
        data = without_preprocessing(data)  # its own is among its layers
    if recipe.task.name not in GENERATIVE_TASKS:
        check_targets(data)
    check_memory(recipe, data)
    for text in data.info.notes:
        note(f"data: {text}")
    models = build_models(recipe, data)
    if source:
        source.copy_weights(models, recipe)
    elif recipe.architecture.name not in READ_A_SOURCE:  # what a source has learnt stays
        adapt_layers(models.network, data.train, data, recipe.training.seed)
    train_examples = network_examples(data.train, models.task, data, training=True)
    validation = None if data.validation is None else network_examples(data.validation, models.task, data)
    one_pass = _steps_per_epoch(len(train_examples), recipe.training.batch_size, models.task)
    batches = recipe.training.steps_per_epoch or one_pass
    check_steps_per_execution(recipe.training.steps_per_execution, batches)
    stages = stages_of(recipe)
    one_hot = models.task.wants_one_hot(
        recipe.regularization.label_smoothing, mixes_targets(recipe.dataset.augmentation)
    )
    freezing = _freezing(recipe, models)
    if freezing is not None:
        for stage in reversed(
            stages
        ):  # a layer that is not there is said now; the first stage stands at last
            freezing.apply(stage.freeze)
    schedule = compile_stage(recipe, models, freezing, stages[0], batches, one_hot)
    _check_augmentation(recipe, data, models.task)
    classes = models.task.num_classes if one_hot else None
    return Job(
        recipe,
        data,
        models,
        train_examples,
        validation,
        Steps(per_epoch=batches, total=batches * sum(stage.epochs for stage in stages)),
        schedule,
        *monitored_metric(recipe, models.task, validation),
        class_weights(recipe.regularization, data),
        classes,
        stages,
        freezing,
    )


def _freezing(recipe: Recipe, models: Models) -> Freezing | None:
    if recipe.finetune is None:
        return None
    return Freezing(models.network, models.task.head, recipe.finetune.lora)


def training_batches(job: Job, epochs_done: int = 0) -> tf.data.Dataset:
    """The endless stream of batches that `fit` reads, from the first step of an epoch on."""
    return training_stream(
        job.train,
        batch_size=images_per_step(job),
        seed=job.recipe.training.seed,
        augment=_augment(job),
        one_hot_classes=job.one_hot_classes,
        start_step=epochs_done * job.steps.per_epoch,
        whole_batches=job.models.task.whole_batches,
    )


def images_per_step(job: Job) -> int:
    """Examples that one step reads: a batch, or one for each update of a GAN's discriminator."""
    return job.recipe.training.batch_size * job.models.task.batches_per_step


def _steps_per_epoch(examples: int, batch_size: int, task: Task) -> int:
    needed = batch_size * task.batches_per_step
    if task.whole_batches and examples < needed:
        each = f"{task.batches_per_step} batches of {batch_size}" if task.batches_per_step > 1 else "a batch"
        raise DlcliError(
            f"a step reads {each}, {needed} images, and the train split has {examples}: lower training.batch_size"
        )
    return steps_per_epoch(examples, needed, task.whole_batches)


def _augment(job: Job) -> Augment | None:
    """What is done to each train batch: the recipe's augmentations, then what the task does, such as masking."""
    changes = [_augmentations(job.recipe, job.data, job.models.task), job.models.task.corrupt()]
    steps = [change for change in changes if change is not None]
    if not steps:
        return None

    def augment(inputs: Any, targets: tf.Tensor, position: Position) -> tuple[Any, tf.Tensor]:
        for step in steps:
            inputs, targets = step(inputs, targets, position)
        return inputs, targets

    return augment


def _fit(job: Job, run: Run, *, resume: bool) -> Run:
    recipe, network = job.recipe, job.models.network
    stopping = recipe.regularization.early_stopping
    decides = job.monitor if stopping is None or stopping.restore_best else None
    keep_best = KeepBest(job.models.predictor, run.model_path, decides, job.mode, job.models.parts)
    history = History(
        run.path / "history.csv", min(len(job.train), job.steps.per_epoch * images_per_step(job))
    )
    checkpoint = Checkpoint(run.path / "checkpoints" / "last.npz", history, keep_best)
    place = start = checkpoint.place() if resume else Place()
    progress = TrainingProgress(
        sum(stage.epochs for stage in job.stages), place.epochs_done, job.steps.per_epoch,
        images_per_step(job), UNITS.get(job.data.info.kind, "sequences"),
    )  # fmt: skip
    stop = StopOnSignal()
    try:
        with stop, explained_failures(recipe, run):
            for number in range(start.stage, len(job.stages)):
                schedule = _begin_stage(job, number)
                averaging = [AverageWeights()] if recipe.regularization.ema is not None else []
                drawing = generative_callbacks(job, run)
                stateful = _stateful_callbacks(job, schedule)
                checkpoint.begin_stage(number, place, [*averaging, *stateful])
                if resume and number == start.stage:
                    network.optimizer.build(network.trainable_variables)
                    checkpoint.restore(network, best_weights(job.models.predictor, Run(run.path).model))
                    note(f"resuming {run.path} after epoch {place.epochs_done} of {progress.epochs}")
                if not place.stopped:
                    network.fit(
                        training_batches(job, place.epochs_done),
                        epochs=place.stage_began + job.stages[number].epochs,
                        initial_epoch=place.epochs_done,
                        steps_per_epoch=job.steps.per_epoch,
                        validation_data=_validation_stream(job),
                        class_weight=job.class_weight,
                        callbacks=[
                            *averaging, *drawing, StopOnNaN(), stop, history, keep_best, *stateful, progress,
                            checkpoint, keras.callbacks.TensorBoard(run.path / "tensorboard", write_graph=False),
                        ],
                        shuffle=False,  # the stream has its own order
                        verbose=0,
                    )  # fmt: skip
                place = Place(number + 1, len(history.rows), len(history.rows))
    except TrainingInterruptedError as error:
        raise TrainingInterruptedError(_how_to_go_on(run, history), error.exit_code) from None
    except KeyboardInterrupt:
        raise TrainingInterruptedError(_how_to_go_on(run, history)) from None
    finally:
        progress.close()
    return _finish(job, run, history, keep_best)


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


def _finish(job: Job, run: Run, history: History, keep_best: KeepBest) -> Run:
    """Scores the kept model and draws the curves."""
    with explained_failures(job.recipe, run):
        return _score(job, run, history, keep_best)


def _score(job: Job, run: Run, history: History, keep_best: KeepBest) -> Run:
    keep_best.restore()
    for name, part in job.models.parts.items():
        part.set_weights(run.part(name).get_weights())
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
        return run
    report = job.models.task.evaluate(job.models.predictor, examples, split, run.plots)
    write_json(run.path / "metrics.json", {**report, "training": about})
    return run


def _validation_stream(job: Job) -> tf.data.Dataset | None:
    if job.validation is None or not job.models.task.validates:
        return None
    examples, _ = by_length(job.validation)
    # Sequences take more memory than rows, and the logits of a language model much more.
    batch_size = BATCH_SIZE if job.data.info.tokenizer is None else min(BATCH_SIZE, TEXT_BATCH_SIZE)
    return evaluation_stream(
        examples,
        batch_size,
        one_hot_classes=job.one_hot_classes,
        augment=job.models.task.corrupt(),
        seed=job.recipe.training.seed,
    )


def _augmentations(recipe: Recipe, data: Data, task: Task) -> Augment | None:
    """The recipe's augmentations as one function of a batch."""
    if data.info.tokenizer is None:
        return build_augment(recipe.dataset.augmentation, alike=data.info.kind == "image_pairs")
    from dlcli.data.text.augmentation import build_text_augment

    texts: Any = data.train  # TextExamples, since there is a tokenizer
    return build_text_augment(recipe.dataset.augmentation, texts, task)


def _check_augmentation(recipe: Recipe, data: Data, task: Task) -> None:
    """Tries the augmentations on two examples: inside the stream, their words would drown in TensorFlow's."""
    augment = _augmentations(recipe, data, task)
    if augment is None or data.info.tokenizer is not None:  # of texts, building has found every fault
        return
    indices = tf.range(min(2, len(data.train)))
    targets = tf.zeros([len(indices), max(1, len(data.info.class_names))])
    try:
        zero = tf.zeros([], tf.int64)
        augment(data.train.read(indices), targets, Position.of(recipe.training.seed, zero, zero, indices))
    except ValueError as error:
        raise DlcliError(f"dataset.augmentation: {error}") from error


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


def _how_to_go_on(run: Run, history: History) -> str:
    if not history.rows:
        return f"interrupted before the first epoch ended; nothing was kept but {run.path / 'recipe.yaml'}"
    return (
        f"interrupted after {len(history.rows)} complete epochs. {what_is_kept(run)}\n"
        f"Go on with: dlcli train --resume {run.path}"
    )
