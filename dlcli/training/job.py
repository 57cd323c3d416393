"""Recipe -> Job: data, models, streams and the first stage's optimizer, all that training needs; nothing is written."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from dlcli.architectures import READ_A_SOURCE
from dlcli.console import note, warn
from dlcli.data.augmentation import Augment, Position, build_augment, mixes_targets, rows_before
from dlcli.data.examples import Data, Examples
from dlcli.data.stream import by_length, evaluation_stream, steps_per_epoch, training_stream
from dlcli.errors import DataError, DlcliError
from dlcli.evaluation.evaluate import BATCH_SIZE, TEXT_BATCH_SIZE
from dlcli.recipe.flat import flattened
from dlcli.recipe.schema import Recipe, Stage
from dlcli.tasks import GENERATIVE_TASKS
from dlcli.tasks.task import Task
from dlcli.training.agreement import Agreement, outside
from dlcli.training.build import Models, adapt_layers, build_models, check_targets, network_examples
from dlcli.training.checks import check_memory, check_outputs, check_steps_per_execution, monitored_metric
from dlcli.training.distribution import shard_here
from dlcli.training.failures import explained_failures
from dlcli.training.finetune import SourceRun, without_preprocessing
from dlcli.training.freezing import Freezing
from dlcli.training.frozen import load_data_for
from dlcli.training.optimizer import class_weights
from dlcli.training.resume import is_place
from dlcli.training.schedules import Steps
from dlcli.training.stages import compile_stage, stages_of

if TYPE_CHECKING:
    from dlcli.data.text.tokenizer import Tokenizer


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
    agreement: Agreement
    """Of the workers; a process alone agrees with itself."""


def prepare(recipe: Recipe, tokenizer: Tokenizer | None = None, agreement: Agreement | None = None) -> Job:
    """Loads the data, builds and compiles the model; nothing is written.

    Args:
        recipe: resolved.
        tokenizer: of a run that goes on: some tokenizers learn another vocabulary each time.
        agreement: of the workers; None for a process alone.
    """
    with explained_failures(recipe):
        return _prepare(recipe, tokenizer, agreement or Agreement())


def _prepare(recipe: Recipe, tokenizer: Tokenizer | None, agreement: Agreement) -> Job:
    check_same_recipe(recipe, agreement)
    keras.utils.set_random_seed(recipe.training.seed)
    if recipe.training.precision != "float32" and not tf.config.list_physical_devices("GPU"):
        raise DlcliError(
            f"training.precision {recipe.training.precision} needs a GPU; on a CPU it is 2.5 to 11 times slower than "
            "float32: --set training.precision=float32"
        )
    keras.mixed_precision.set_dtype_policy(recipe.training.precision)
    source = SourceRun.of(recipe)
    data = _load(recipe, tokenizer or (source.tokenizer if source else None), agreement)
    data = source.with_preprocessing(data) if source else data
    if recipe.architecture.name == "pretrained":
        data = without_preprocessing(data)  # its own is among its layers
    if recipe.task.name not in GENERATIVE_TASKS:
        check_targets(data)
    check_memory(recipe, data)
    for text in data.info.notes:
        note(f"data: {text}")
    models = build_models(recipe, data)
    check_outputs(models.network, recipe, data)
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
        agreement,
    )


def _load(recipe: Recipe, tokenizer: Tokenizer | None, agreement: Agreement) -> Data:
    """The recipe's data; of workers the chief loads first, and downloads and learns what is to be learnt for all.

    Raises:
        DataError: this worker reads other data than the chief.
    """
    if agreement.workers == 1:
        return load_data_for(recipe, tokenizer)
    from dlcli.data.text.tokenizer import Tokenizer

    text = ""
    if agreement.is_chief:
        begun = (
            random.getstate()
        )  # Keras draws the seeds of layers from it, and all others load a source once
        learnt = outside(lambda: load_data_for(recipe, tokenizer)).info.tokenizer
        random.setstate(begun)
        text = "" if learnt is None else learnt.json
    text = agreement.from_chief(text)
    data = load_data_for(recipe, Tokenizer(text) if text else None)
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    here = {name: len(split) for name, split in splits.items() if split is not None}
    seen = json.dumps({"examples": here, "classes": list(data.info.class_names)})
    if (chief := agreement.from_chief(seen)) != seen:
        raise DataError(
            f"the workers read different data: here {seen[:300]}, and the first worker {chief[:300]}"
        )
    fingerprint = data.info.fingerprint
    if others := agreement.count(agreement.from_chief(fingerprint) != fingerprint):
        # No mistake for certain: of files it holds their times, which copies need not keep.
        warn(
            f"{others} of {agreement.workers} workers read other files than this one, or copies with other times"
        )
    return data


def check_same_recipe(recipe: Recipe, agreement: Agreement) -> None:
    """Refuses a worker with another recipe than the chief: nobody would see that their weights go apart.

    Args:
        recipe: settled; where its data lie may differ.
        agreement: of the workers.

    Raises:
        DlcliError: with all keys that differ.
    """
    mine = json.dumps(flattened(recipe.model_dump(mode="json")))
    chief, here = json.loads(agreement.from_chief(mine)), json.loads(mine)
    other = [
        f"{key}: {here.get(key)} here, {chief.get(key)} at the first worker"
        for key in dict.fromkeys([*here, *chief])
        if here.get(key) != chief.get(key) and not is_place(key)
    ]
    if other:
        raise DlcliError(f"the workers have different recipes, start all with one: {'; '.join(other)}")


def _freezing(recipe: Recipe, models: Models) -> Freezing | None:
    if recipe.finetune is None:
        return None
    return Freezing(models.network, models.task.head, recipe.finetune.lora)


def training_batches(job: Job, start_step: int = 0) -> tf.data.Dataset:
    """The endless stream of batches that `fit` reads, from a step of the training on; in a strategy's scope."""
    task = job.models.task
    return training_stream(
        job.train,
        batch_size=images_per_step(job),
        seed=job.recipe.training.seed,
        augment=_augment(job),
        one_hot_classes=job.one_hot_classes,
        start_step=start_step,
        whole_batches=task.whole_batches,
        weigh=None if job.class_weight is None else _weights_of(job.class_weight),
        shard=shard_here(),
        before=rows_before(job.recipe.dataset.augmentation),
        group=task.batches_per_step,
    )


def _weights_of(class_weight: dict[int, float]) -> Callable[[tf.Tensor], tf.Tensor]:
    """Targets -> each example's weight, by its class."""
    weights = tf.constant([class_weight.get(index, 1.0) for index in range(max(class_weight) + 1)])

    def weigh(targets: tf.Tensor) -> tf.Tensor:
        one_hot = targets.shape.rank == 2 and targets.shape[-1] > 1
        classes = tf.argmax(targets, axis=-1) if one_hot else tf.reshape(targets, [-1])
        return tf.gather(weights, tf.cast(classes, tf.int32))

    return weigh


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


def validation_stream(job: Job) -> tf.data.Dataset | None:
    """The validation examples once, in batches; None where there are none, or where losses of them say nothing."""
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
        shard=shard_here(),
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
