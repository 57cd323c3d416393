"""What several devices cannot do is refused by name: of a recipe that names them, and of one that finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlcli.errors import DlcliError
from dlcli.recipe.load import RecipeError, dump_recipe, load_recipe, shipped_recipes
from dlcli.recipe.schema import Recipe
from dlcli.recipe.several_devices import check_several

CNN = "task: image_classification\ndataset: digits\narchitecture: cnn\n"
GAN = "task: gan\ndataset: digits\narchitecture: style_gan\n"

MIRRORED, WORKERS, TPU = (f"distribution.strategy={name}" for name in ("mirrored", "multi_worker", "tpu"))
HALVES = "training.on_out_of_memory=halve_batch"


def recipe(folder: Path, text: str, *changes: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return load_recipe(path, changes)


def mistakes(folder: Path, *changes: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        recipe(folder, CNN, *changes)
    return str(caught.value).splitlines()


REFUSED = [
    ((WORKERS, "training.on_nan=rollback"), "training.on_nan=rollback: several workers would all have to go back at once"),
    ((WORKERS, HALVES), "training.on_out_of_memory=halve_batch: several workers would all have to go back"),
    ((MIRRORED, "task.loss=dice"), "task.loss=dice: loss dice is of a whole batch"),
    ((WORKERS, "task.loss=tversky"), "task.loss=tversky: loss tversky is of a whole batch"),
    (("distribution.logical_devices=2", "task.loss=Dice"), "task.loss=Dice: loss Dice is of a whole batch"),
    ((MIRRORED, "optimizer.gradient_accumulation_steps=2"), "take training.gradient_accumulation"),
    ((TPU, "training.gradient_accumulation=2"), "a TPU needs shapes known beforehand"),
    ((TPU, "training.precision=mixed_float16"), "short numbers of a TPU are bfloat16; take mixed_bfloat16"),
    ((MIRRORED, "training.precision=mixed_float16"), "into the weights of all; take mixed_bfloat16"),
    (("training.batch_size_per_replica=8", "training.gradient_accumulation=9"), "a batch of 8 cannot be cut into 9"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "what"), REFUSED)
def test_what_the_named_devices_cannot_do(changes: tuple[str, ...], what: str, tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, *changes)
    assert line.startswith("--set ") and what in line


KEYS_OF_ONE_STRATEGY = [
    (("distribution.cross_device=nccl",), "distribution.cross_device is for strategy mirrored; received strategy auto"),
    ((MIRRORED, "distribution.communication=ring"), "distribution.communication is for strategy multi_worker; received"),
    (("distribution.devices=[GPU:0]",), "distribution.devices is for strategy one_device and mirrored; received"),
    ((WORKERS, "distribution.logical_devices=2"), "logical_devices is for strategy auto and mirrored; received"),
    (("distribution.strategy=one_device", "distribution.devices=[GPU:0, GPU:1]"), "received: GPU:0, GPU:1"),
    (("training.scale_learning_rate=linear",), "training.scale_learning_rate needs training.batch_size_per_replica"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "what"), KEYS_OF_ONE_STRATEGY)
def test_keys_that_a_strategy_would_not_read(changes: tuple[str, ...], what: str, tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, *changes)
    assert what in line


ALLOWED = [
    (MIRRORED, "training.on_nan=rollback", HALVES),
    (MIRRORED, "distribution.devices=[GPU:1]", "task.loss=dice"),
    ("distribution.strategy=one_device", "distribution.devices=[CPU:0]", "task.loss=dice"),
    ("distribution.strategy=none", "task.loss=dice", "optimizer.gradient_accumulation_steps=2"),
    ("task.loss=dice", "training.on_nan=rollback"),
    (WORKERS, "training.gradient_accumulation=4"),
    ("training.batch_size_per_replica=200", "training.gradient_accumulation=200"),
]


@pytest.mark.parametrize("changes", ALLOWED)
def test_what_they_can_do_is_not_refused(changes: tuple[str, ...], tmp_path: Path) -> None:
    found = recipe(tmp_path, CNN, *changes)
    (tmp_path / "resolved.yaml").write_text(dump_recipe(found))
    assert load_recipe(tmp_path / "resolved.yaml") == found


def test_of_auto_the_machine_decides(tmp_path: Path) -> None:
    changes = ("task.loss=dice", "training.on_nan=rollback", "optimizer.gradient_accumulation_steps=2")
    found = recipe(tmp_path, CNN, *changes)
    check_several(found, replicas=1)
    with pytest.raises(DlcliError) as caught:
        check_several(found, replicas=2)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "task.loss dice", "optimizer.gradient_accumulation_steps 2",
    ]  # fmt: skip
    with pytest.raises(DlcliError, match=r"training\.on_nan rollback: several workers"):
        check_several(found, replicas=2, workers=2)


def test_images_that_are_compared_lie_on_one_device(tmp_path: Path) -> None:
    found = recipe(tmp_path, GAN, "training.batch_size=16")
    check_several(found, replicas=4)
    with pytest.raises(DlcliError, match=r"3 devices share a batch of 16; take a batch size that 12"):
        check_several(found, replicas=3)
    with pytest.raises(DlcliError, match="that 32 divides, or null"):
        check_several(found, replicas=8)
    check_several(recipe(tmp_path, GAN, "architecture.minibatch_groups=null"), replicas=8)


def test_shipped_recipes_train_on_several_devices() -> None:
    for name in shipped_recipes():
        # Some train on one image a step, as their papers do.
        check_several(load_recipe(name, ["training.batch_size=64"]), replicas=2, workers=2)
