"""Defaults and conflicts of generative tasks: each objective has its own optimizer, and keys that are only its."""

from __future__ import annotations

from typing import Any

from dlcli.architectures import GENERATIVE
from dlcli.data import MIXING
from dlcli.recipe.mistakes import Mistake, shown
from dlcli.recipe.schema import is_per_network
from dlcli.recipe.signatures import canonical_name
from dlcli.recipe.wording import Specs, mistake_at, value_at
from dlcli.recipe.yaml_reader import Document
from dlcli.tasks import ADVERSARIAL, GENERATIVE_TASKS

DCGAN_ADAM = {"name": "adam", "learning_rate": 2e-4, "beta_1": 0.5}
"""Radford et al. 2016, "Unsupervised Representation Learning with DCGAN", section 4."""
SNGAN_ADAM = {"name": "adam", "learning_rate": 2e-4, "beta_1": 0.0, "beta_2": 0.9}
"""Miyato and Koyama 2018, "cGANs with Projection Discriminator", section 5."""
WGAN_GP_ADAM = {"name": "adam", "learning_rate": 1e-4, "beta_1": 0.0, "beta_2": 0.9}
"""Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", algorithm 1."""
WGAN_RMSPROP = {"name": "rmsprop", "learning_rate": 5e-5}
"""Arjovsky et al. 2017, "Wasserstein GAN", algorithm 1."""

OBJECTIVES: dict[str, dict[str, Any]] = {
    "standard": {"optimizer": DCGAN_ADAM, "task": {"critic_steps": 1}},
    "least_squares": {"optimizer": DCGAN_ADAM, "task": {"critic_steps": 1}},
    "hinge": {"optimizer": SNGAN_ADAM, "task": {"critic_steps": 1}},
    "wasserstein": {"optimizer": WGAN_RMSPROP, "task": {"critic_steps": 5, "weight_clip": 0.01}},
    "wasserstein_gp": {"optimizer": WGAN_GP_ADAM, "task": {"critic_steps": 5, "gradient_penalty": 10.0}},
}
"""What task gan takes for each objective where the recipe says nothing."""

TRANSLATION: dict[str, dict[str, Any]] = {
    "cycle_gan": {"objective": "least_squares", "cycle_weight": 10.0, "identity_weight": 5.0, "buffer": 50},
    "pix2pix": {"objective": "standard", "reconstruction_weight": 100.0},
}
"""What task image_translation takes for each architecture; what is not here is refused there."""

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "image_translation": DCGAN_ADAM,
    "autoencoding": {"name": "adam", "learning_rate": 1e-3},
    "diffusion": {"name": "adam", "learning_rate": 2e-4},
}
"""Of the other generative tasks."""


def with_generative_defaults(value: dict[str, Any]) -> dict[str, Any]:
    """A recipe's values with what its generative task takes when nothing is said; other recipes as they are."""
    task = value.get("task")
    task = {"name": task} if isinstance(task, str) else task
    if not isinstance(task, dict) or not isinstance(task.get("name"), str):
        return value
    name = canonical_name("task", task["name"])
    if name == "gan":
        defaults = OBJECTIVES.get(str(task.get("objective", "standard")), OBJECTIVES["standard"])
        value = value | {"task": defaults["task"] | task}
        if value["task"].get("gradient_penalty"):
            value = _without_batch_statistics(value)
        optimizer = defaults["optimizer"]
    elif name in OPTIMIZERS:
        optimizer = OPTIMIZERS[name]
        if name == "image_translation":
            value = value | {"task": TRANSLATION.get(_architecture_of(value), {}) | task}
            training = value.get("training", {})
            if isinstance(
                training, dict
            ):  # both papers' batches: instance normalization is of each image alone
                value = value | {"training": {"batch_size": 1} | training}
    else:
        return value
    value = {"optimizer": optimizer} | value
    dataset = value.get("dataset")
    dataset = {"name": dataset} if isinstance(dataset, str) else dataset
    if name in ADVERSARIAL and isinstance(dataset, dict):
        # No loss of theirs says which epoch is best, so that held-out images would only be lost.
        value = value | {"dataset": {"validation_split": 0.0} | dataset}
    return value


def _without_batch_statistics(value: dict[str, Any]) -> dict[str, Any]:
    """With a penalty on the slope at each image, a DCGAN's discriminator normalizes each image by itself."""
    architecture = value.get("architecture")
    architecture = {"name": architecture} if isinstance(architecture, str) else architecture
    if not isinstance(architecture, dict) or _architecture_of(value) != "dcgan":
        return value
    return value | {"architecture": {"discriminator_normalization": "layer"} | architecture}


def generative_conflicts(value: dict[str, Any], specs: Specs, document: Document) -> list[Mistake]:
    """What contradicts a generative task, or is only for one."""
    name = _named(specs, "task")
    if not name:
        return []
    found = [*_architecture(name, specs, document), *_networks(name, value, document)]
    if name not in GENERATIVE_TASKS:
        features = value_at(value, ("metrics", "features"))
        if features is not None:
            what = f"task {name} draws no images that could be compared; leave it out"
            found.append(mistake_at(document, ("metrics", "features"), what, features))
        return found
    return [
        *found,
        *_objective(name, value, specs, document),
        *_translation(name, specs, document),
        *_autoencoding(name, specs, document),
        *_guidance(name, specs, document),
        *_plateau(name, specs, document),
        *_what_does_nothing(name, value, specs, document),
    ]


def _architecture(task: str, specs: Specs, document: Document) -> list[Mistake]:
    architecture = _named(specs, "architecture")
    if not architecture:
        return []
    wanted = GENERATIVE.get(architecture, ())
    fitting = [other for other, tasks in GENERATIVE.items() if task in tasks]
    if fitting and task not in wanted:
        what = f"task {task} needs networks that it knows; use architecture {', '.join(fitting)}"
        return [mistake_at(document, ("architecture",), what, architecture)]
    if wanted and task not in wanted:
        what = f"architecture {architecture} is of task {', '.join(wanted)}"
        return [mistake_at(document, ("task",), what, task)]
    source = _named(specs, "dataset")
    paired = {"cycle_gan": "unpaired_images", "pix2pix": "image_pairs"}.get(architecture)
    if paired and source in ("unpaired_images", "image_pairs") and source != paired:
        what = f"architecture {architecture} learns from dataset {paired}"
        return [mistake_at(document, ("dataset",), what, source)]
    return []


def _networks(task: str, value: dict[str, Any], document: Document) -> list[Mistake]:
    if task in ADVERSARIAL:
        return []
    what = f"task {task} has one optimizer; give one, not one for each network (that is for {', '.join(ADVERSARIAL)})"
    return [
        mistake_at(document, (section,), what)
        for section in ("optimizer", "schedule")
        if is_per_network(value.get(section))
    ]


def _objective(task: str, value: dict[str, Any], specs: Specs, document: Document) -> list[Mistake]:
    """Keys of task gan that only some objectives have."""
    if task != "gan":
        return []
    given = specs[("task",)][2]
    objective = given.get("objective", "standard")
    found = []
    if given.get("weight_clip") is not None and objective != "wasserstein":
        what = f"weight_clip is of objective wasserstein, and this is {shown(objective)}; leave it out"
        found.append(mistake_at(document, ("task", "weight_clip"), what, given["weight_clip"]))
    _, architecture, arguments = specs.get(("architecture",), ("", "", {}))
    normalization = arguments.get("discriminator_normalization")
    if architecture == "dcgan" and normalization == "batch" and given.get("gradient_penalty"):
        what = (
            "the gradient penalty is of each image by itself, and batch normalization makes each logit depend on the "
            "whole batch (Gulrajani et al. 2017, section 4); use layer or none"
        )
        found.append(
            mistake_at(document, ("architecture", "discriminator_normalization"), what, normalization)
        )
    max_norm = value_at(value, ("regularization", "max_norm"))
    if objective == "wasserstein" and max_norm is not None:
        what = "objective wasserstein bounds the critic's weights with task.weight_clip already; leave it out"
        found.append(mistake_at(document, ("regularization", "max_norm"), what, max_norm))
    if objective == "wasserstein" and given.get("weight_clip") is not None and given.get("gradient_penalty"):
        what = (
            "objective wasserstein clips the critic's weights, and the penalty is what came in the place of that: use "
            "objective wasserstein_gp, or leave it out"
        )
        found.append(mistake_at(document, ("task", "gradient_penalty"), what, given["gradient_penalty"]))
    if objective == "wasserstein_gp" and given.get("gradient_penalty") == 0:
        what = "objective wasserstein_gp needs its penalty; give it a weight (10 in the paper), or another objective"
        found.append(mistake_at(document, ("task", "gradient_penalty"), what, 0))
    return found


def _architecture_of(value: dict[str, Any]) -> str:
    """Canonical name; empty when the recipe has none that can be read."""
    given = value.get("architecture")
    given = given.get("name") if isinstance(given, dict) else given
    return (canonical_name("architecture", given) if isinstance(given, str) else None) or ""


def _translation(task: str, specs: Specs, document: Document) -> list[Mistake]:
    """Keys of task image_translation that only the other architecture has."""
    architecture = _named(specs, "architecture")
    if task != "image_translation" or architecture not in TRANSLATION:
        return []
    found = []
    for key, given in specs[("task",)][2].items():
        owners = [name for name, keys in TRANSLATION.items() if key in keys]
        if given is not None and owners and architecture not in owners:
            what = f"{key} is of architecture {', '.join(owners)}, and this is {architecture}; leave it out"
            found.append(mistake_at(document, ("task", key), what, given))
    return found


def _autoencoding(task: str, specs: Specs, document: Document) -> list[Mistake]:
    """Keys of task autoencoding that only some of its losses have."""
    if task != "autoencoding":
        return []
    given = specs[("task",)][2]
    found = []
    if given.get("likelihood") == "bernoulli" and given.get("scale") is not None:
        what = "black and white pixels (likelihood bernoulli) have no scale; leave it out"
        found.append(mistake_at(document, ("task", "scale"), what, given["scale"]))
    if given.get("beta") == 0 and given.get("warmup_epochs"):
        what = "the KL divergence has weight 0 (task.beta), so that nothing can rise to it; leave it out"
        found.append(mistake_at(document, ("task", "warmup_epochs"), what, given["warmup_epochs"]))
    return found


def _guidance(task: str, specs: Specs, document: Document) -> list[Mistake]:
    """Keys of task diffusion that need labels."""
    if task != "diffusion":
        return []
    given = specs[("task",)][2]
    guidance, dropout = given.get("guidance", 1), given.get("label_dropout")
    if given.get("conditional"):
        if guidance == 1 or dropout != 0:
            return []
        what = "needs a network that also learns without labels; raise task.label_dropout (0.1), or set guidance to 1"
        return [mistake_at(document, ("task", "guidance"), what, guidance)]
    what = "is of a network that knows the images' classes; set task.conditional to true, or leave it out"
    asked = {"guidance": None if guidance == 1 else guidance, "label_dropout": dropout}
    return [mistake_at(document, ("task", key), what, asked[key]) for key in asked if asked[key] is not None]


def _plateau(task: str, specs: Specs, document: Document) -> list[Mistake]:
    """A schedule that waits for a loss to stop falling, where losses rise and fall with the other network."""
    if task not in ADVERSARIAL:
        return []
    what = f"the losses of task {task} are of networks against each other: none has a plateau; use another schedule"
    return [
        mistake_at(document, path, what, name)
        for path, (kind, name, _) in specs.items()
        if kind == "schedule" and name == "reduce_on_plateau"
    ]


def _what_does_nothing(task: str, value: dict[str, Any], specs: Specs, document: Document) -> list[Mistake]:
    """Settings that a generative task could only ignore."""
    found = []
    smoothing = value_at(value, ("regularization", "label_smoothing"))
    objective = specs[("task",)][2].get("objective", "standard")
    smooths = task == "gan" and objective in ("standard", "least_squares")
    if isinstance(smoothing, int | float) and smoothing > 0 and not smooths:
        what = "label smoothing is for task gan with objective standard or least_squares; leave it out"
        found.append(mistake_at(document, ("regularization", "label_smoothing"), what, smoothing))
    weights = value_at(value, ("regularization", "class_weights"))
    if weights is not None:
        what = f"task {task} does not weigh classes; leave it out"
        found.append(mistake_at(document, ("regularization", "class_weights"), what, weights))
    if value_at(value, ("training", "precision")) == "mixed_float16":
        what = (
            f"task {task} does not scale its losses as mixed_float16 needs it; use mixed_bfloat16 or float32"
        )
        found.append(mistake_at(document, ("training", "precision"), what, "mixed_float16"))
    parts = value_at(value, ("training", "gradient_accumulation"))
    if isinstance(parts, int) and parts > 1:
        what = f"task {task} has a training step of its own, which takes batches whole; lower training.batch_size"
        found.append(mistake_at(document, ("training", "gradient_accumulation"), what, parts))
    if value_at(value, ("training", "on_out_of_memory")) == "halve_batch":
        what = f"halve_batch raises gradient_accumulation, and task {task} takes batches whole; leave it out"
        found.append(mistake_at(document, ("training", "on_out_of_memory"), what, "halve_batch"))
    for path, (kind, name, given) in specs.items():
        if kind == "augmentation" and name in MIXING:
            found.append(
                mistake_at(document, path, f"task {task} would learn to draw mixed images; leave {name} out")
            )
        if kind == "dataset" and given.get("normalization", "rescale") != "rescale":
            what = f"task {task} scales pixels itself, to -1..1; leave it out"
            found.append(mistake_at(document, (*path, "normalization"), what, given["normalization"]))
    return found


def _named(specs: Specs, section: str) -> str:
    return specs.get((section,), ("", "", {}))[1]
