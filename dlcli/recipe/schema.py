"""The sections of a recipe. Only a Spec is open: its builder's signature is the schema of its arguments."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from dlcli.recipe.arguments import Fraction, Positive, PositiveInt, Probability, Weight


class Section(BaseModel):
    """A closed, immutable part of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Spec(BaseModel):
    """A name and its arguments: `{name: resnet, depth: 20}`, or just `resnet`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments for the builder that `name` stands for."""
        return dict(self.model_extra or {})


NETWORKS = ("generator", "discriminator")
"""The two networks of an adversarial task, each of which may have an optimizer and a schedule of its own."""


class PerNetwork(Section):
    """One Spec for each network of an adversarial task (gan, image_translation)."""

    generator: Annotated[Spec, Field(description="of the generator")]
    discriminator: Annotated[Spec, Field(description="of the discriminator, or critic")]


def is_per_network(value: Any) -> bool:
    """Whether a section's value is `{generator: ..., discriminator: ...}` and not one Spec."""
    if isinstance(value, dict):
        return "name" not in value and any(network in value for network in NETWORKS)
    return isinstance(value, PerNetwork)


OneOrTwo = Annotated[
    Annotated[Spec, Tag("one")] | Annotated[PerNetwork, Tag("two")],
    Discriminator(lambda value: "two" if is_per_network(value) else "one"),
]
"""A Spec for all networks, or one for each."""


def spec_of(given: Spec | PerNetwork, network: str | None = None) -> Spec:
    """The Spec of a network; of a training with one optimizer when `network` is left out.

    Raises:
        ValueError: there are two, and nobody said which.
    """
    if isinstance(given, Spec):
        return given
    if network not in NETWORKS:
        raise ValueError(f"Expected one of {', '.join(NETWORKS)}. Received: {network!r}")
    found: Spec = getattr(given, network)
    return found


class Dataset(Spec):
    """Where the examples come from. Keys beside these are the source's own (see `dlcli schema`)."""

    validation_split: Annotated[
        Fraction, Field(description="share of the train split kept for validation")
    ] = 0.1
    tokenizer: Annotated[
        Spec | None,
        Field(description="how text becomes tokens; its vocabulary is learnt from the train split"),
    ] = None
    max_length: Annotated[
        Annotated[int, Field(ge=2, le=1_000_000)] | None,
        Field(description="tokens of an example; what is longer is cut"),
    ] = None
    augmentation: Annotated[
        tuple[Spec, ...],
        # Strict JSON takes lists for tuples, but not below `_from_bare_name`, which hands on Python objects.
        BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
        Field(description="random changes of the training images or texts, in this order"),
    ] = ()


class EarlyStopping(Section):
    """Stop when the monitored metric has not improved for `patience` epochs."""

    patience: Annotated[
        PositiveInt, Field(description="epochs without improvement before training stops")
    ] = 5
    min_delta: Annotated[Weight, Field(description="a smaller change is no improvement")] = 0.0
    restore_best: Annotated[bool, Field(description="go back to the weights of the best epoch")] = True


class GradientClipping(Section):
    """Exactly one of the three ways to bound a gradient."""

    norm: Annotated[Positive | None, Field(description="largest norm of each variable's gradient")] = None
    value: Annotated[Positive | None, Field(description="largest absolute value of each element")] = None
    global_norm: Annotated[Positive | None, Field(description="largest norm over all gradients together")] = (
        None
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> GradientClipping:
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of norm, value, global_norm; received: {', '.join(given) or 'none'}"
            )
        return self


class Regularization(Section):
    """What keeps the model from learning the training set by heart."""

    l1: Annotated[Weight, Field(description="L1 penalty on kernels")] = 0.0
    l2: Annotated[Weight, Field(description="L2 penalty on kernels")] = 0.0
    dropout: Annotated[Fraction | None, Field(description="the architecture's `dropout` argument")] = None
    label_smoothing: Annotated[Fraction, Field(description="share of the target spread over all classes")] = (
        0.0
    )
    early_stopping: EarlyStopping | None = None
    gradient_clipping: GradientClipping | None = None
    weight_decay: Annotated[Weight | None, Field(description="decoupled decay of kernels (AdamW, SGDW)")] = (
        None
    )
    ema: Annotated[
        Annotated[float, Field(gt=0, lt=1)] | None,
        Field(description="momentum of an average of the weights, which evaluation and model.keras use"),
    ] = None
    max_norm: Annotated[
        Positive | None, Field(description="largest norm of each unit's incoming weights")
    ] = None
    class_weights: Annotated[
        Literal["balanced"] | dict[str, Positive] | None,
        Field(description="`balanced`, or a weight for each class name"),
    ] = None


class Checkpoints(Section):
    """When the whole state of a training is written to RUN/checkpoints; each epoch's end is always one of the times."""

    every_minutes: Annotated[
        Positive | None, Field(description="minutes between two; null: none by the clock")
    ] = 5.0
    every_steps: Annotated[
        PositiveInt | None, Field(description="steps between two, counted from the first step")
    ] = None
    keep: Annotated[
        int, Field(ge=2, le=1_000, description="newest ones that stay; older ones are removed")
    ] = 2


class Training(Section):
    """How long, in what steps, from which seed."""

    epochs: Annotated[int, Field(ge=1, le=100_000, description="passes over the train split")] = 10
    steps_per_epoch: Annotated[
        Annotated[int, Field(ge=1, le=10_000_000)] | None,
        Field(description="steps of an epoch; one pass over the train split when left out"),
    ] = None
    batch_size: Annotated[int, Field(ge=1, le=1_048_576, description="examples a step, over all devices")] = (
        128
    )
    batch_size_per_replica: Annotated[
        Annotated[int, Field(ge=1, le=1_048_576)] | None,
        Field(description="examples a step of each device; then batch_size is this times the devices"),
    ] = None
    scale_learning_rate: Annotated[
        Literal["none", "linear", "sqrt"],
        Field(
            description="with batch_size_per_replica: the learning rate is multiplied by the number of devices (Goyal "
            "et al. 2017), or by its square root"
        ),
    ] = "none"
    seed: Annotated[int, Field(ge=0, lt=2**31, description="of weights, order, augmentation and dropout")] = 0
    precision: Annotated[
        Literal["float32", "mixed_float16", "mixed_bfloat16"],
        Field(description="mixed precision needs a GPU"),
    ] = "float32"
    monitor: Annotated[
        str | None, Field(description="metric that decides which epoch is best; the task's own when left out")
    ] = None
    steps_per_execution: Annotated[
        int, Field(ge=1, le=10_000, description="steps in one compiled call; helps models under 1 ms a step")
    ] = 1
    gradient_accumulation: Annotated[
        int,
        Field(
            ge=1,
            le=65_536,
            description="parts that a batch is cut into; one step sums their gradients, in less memory",
        ),
    ] = 1
    checkpoint: Checkpoints = Checkpoints()
    on_nan: Annotated[
        Literal["stop", "rollback"],
        Field(
            description="a loss that is not finite: stop, or go back to the last checkpoint and on at half the "
            "learning rate"
        ),
    ] = "stop"
    on_out_of_memory: Annotated[
        Literal["stop", "halve_batch"],
        Field(description="stop, or double gradient_accumulation and go on from the last checkpoint"),
    ] = "stop"

    @model_validator(mode="after")
    def _scales_what_grows(self) -> Training:
        if self.scale_learning_rate != "none" and self.batch_size_per_replica is None:
            raise ValueError(
                "training.scale_learning_rate needs training.batch_size_per_replica: batch_size is that of all "
                "devices, and stays as it is however many there are"
            )
        return self


class Distribution(Section):
    """Which devices train, and how they exchange gradients. The numbers are those of one device."""

    strategy: Annotated[
        Literal["auto", "none", "one_device", "mirrored", "multi_worker", "tpu"],
        Field(
            description="auto: multi_worker where TF_CONFIG or Slurm names several processes, else tpu, else mirrored "
            "on several GPUs, else none; none: the first GPU, else the CPU; one_device: the one in `devices`; "
            "mirrored: all devices of this machine, or those in `devices`; multi_worker: several processes, each with "
            "all its devices; tpu: the cores of a TPU"
        ),
    ] = "auto"
    devices: Annotated[
        Annotated[tuple[str, ...], Field(min_length=1)] | None,
        BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
        Field(description="of one_device (one) and mirrored: GPU:0, GPU:1, CPU:0, ..."),
    ] = None
    cross_device: Annotated[
        Literal["nccl", "hierarchical", "reduction"] | None,
        Field(
            description="how mirrored sums gradients: nccl (NVIDIA's, its default on GPUs), hierarchical (copies "
            "within groups of GPUs first), reduction (on one device)"
        ),
    ] = None
    communication: Annotated[
        Literal["auto", "ring", "nccl"],
        Field(description="how multi_worker sums gradients: ring over gRPC, nccl between GPUs"),
    ] = "auto"
    logical_devices: Annotated[
        Annotated[int, Field(ge=2, le=64)] | None,
        Field(description="cuts the CPU, or one GPU, into so many devices, to try mirrored on one machine"),
    ] = None

    @model_validator(mode="after")
    def _keys_of_the_strategy(self) -> Distribution:
        for key, takes in _STRATEGIES_WITH.items():
            if getattr(self, key) not in (None, "auto") and self.strategy not in takes:
                raise ValueError(
                    f"distribution.{key} is for strategy {' and '.join(takes)}; received strategy {self.strategy}"
                )
        if self.strategy == "one_device" and self.devices is not None and len(self.devices) != 1:
            raise ValueError(f"one_device takes one device; received: {', '.join(self.devices)}")
        return self


_STRATEGIES_WITH = {
    "devices": ("one_device", "mirrored"),
    "cross_device": ("mirrored",),
    "communication": ("multi_worker",),
    "logical_devices": ("auto", "mirrored"),
}
"""Key of `distribution` -> the strategies that read it."""


class Freeze(Section):
    """Exactly one way to say which layers of the source keep their weights, by the names of `dlcli plan --from`."""

    until: Annotated[str | None, Field(description="this layer and all before it are frozen")] = None
    layers: Annotated[
        tuple[str, ...] | None,
        BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
        Field(description="layers whose names match one of these patterns are frozen (`block_1*`)"),
    ] = None
    last: Annotated[
        PositiveInt | None, Field(description="only the last so many layers with weights learn, and the head")
    ] = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Freeze:
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of until, layers, last; received: {', '.join(given) or 'none'}"
            )
        return self


WhatIsFrozen = Literal["all", "none"] | Freeze
"""`all`: everything but the task's own output layers; `none`: everything learns."""


class Stage(Section):
    """A part of fine-tuning with its own frozen layers, length and learning rate."""

    freeze: Annotated[WhatIsFrozen, Field(description="which layers of the source keep their weights")] = (
        "none"
    )
    epochs: Annotated[PositiveInt, Field(description="passes over the train split")] = 1
    learning_rate: Annotated[
        Positive | None, Field(description="of this stage; the optimizer's own when left out")
    ] = None


class LoRA(Section):
    """Low-rank adaptation (Hu et al. 2021): frozen kernels learn a sum of `rank` outer products each."""

    rank: Annotated[int, Field(ge=1, le=1024, description="of what is added to each kernel")] = 8
    alpha: Annotated[
        Positive | None,
        Field(description="what is added is scaled by alpha / rank; alpha is rank when left out"),
    ] = None
    layers: Annotated[
        tuple[str, ...],
        BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
        Field(description="patterns of the layers that adapt: Dense, Embedding and those inside attention"),
    ] = ("*",)


class Finetune(Section):
    """What `dlcli finetune` does beyond `dlcli train`, which ignores it."""

    source: Annotated[
        str | None,
        Field(
            description="a run folder, a .keras or .h5 file, imagenet, hub:PRESET, or a local preset folder"
        ),
    ] = None
    freeze: Annotated[WhatIsFrozen, Field(description="which layers of the source keep their weights")] = (
        "none"
    )
    stages: Annotated[
        tuple[Stage, ...],
        BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
        Field(description="one after the other, in the place of `freeze` and training.epochs"),
    ] = ()
    layer_decay: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="the learning rate is multiplied by this for each layer further from the head",
        ),
    ] = 1.0
    lora: LoRA | None = None
    head: Annotated[
        Literal["auto", "new", "keep"],
        Field(description="auto keeps the source's output layers where task and classes are the same"),
    ] = "auto"

    @model_validator(mode="after")
    def _stages_freeze(self) -> Finetune:
        if self.stages and self.freeze != "none":
            raise ValueError(
                "each stage says itself what it freezes: leave finetune.freeze out, or finetune.stages"
            )
        return self


class Metrics(Section):
    """How the samples of a generative model are measured."""

    features: Annotated[
        str | None,
        Field(
            description="whose features images are compared in: a run of image_classification, or imagenet (Inception "
            "v3, nearly the FID of papers); without it there are no distances"
        ),
    ] = None
    samples: Annotated[
        int, Field(ge=100, le=1_000_000, description="images that evaluate compares with as many real ones")
    ] = 10_000
    samples_each_epoch: Annotated[
        int,
        Field(
            ge=0,
            le=1_000_000,
            description="images compared after each epoch, where features are named; 0: none",
        ),
    ] = 1_000


class Recipe(Section):
    """One training job, complete: every default is written out."""

    task: Spec
    dataset: Dataset
    architecture: Spec
    optimizer: OneOrTwo = Spec.model_validate({"name": "adam", "learning_rate": 1e-3})
    schedule: OneOrTwo = Spec(name="constant")
    regularization: Regularization = Regularization()
    training: Training = Training()
    distribution: Distribution = Distribution()
    metrics: Metrics = Metrics()
    finetune: Finetune | None = None


__all__ = [
    "NETWORKS",
    "Checkpoints",
    "Dataset",
    "Distribution",
    "EarlyStopping",
    "Finetune",
    "Freeze",
    "GradientClipping",
    "LoRA",
    "Metrics",
    "OneOrTwo",
    "PerNetwork",
    "Probability",
    "Recipe",
    "Regularization",
    "Section",
    "Spec",
    "Stage",
    "Training",
    "WhatIsFrozen",
    "is_per_network",
    "spec_of",
]  # fmt: skip
