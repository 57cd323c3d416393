"""Recipes of generative tasks: one Spec or one for each network, and settings that belong to some tasks alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlcli.recipe.load import RecipeError, dump_recipe, load_recipe
from dlcli.recipe.schema import PerNetwork, Spec, spec_of

GAN = "task: {name: gan}\ndataset: digits\narchitecture: dcgan\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def mistakes(folder: Path, text: str, *changes: str) -> list[str]:
    path = written(folder, text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, changes)
    return [line.replace(f"{path}:", "") for line in str(caught.value).splitlines()]


def test_each_network_may_have_its_own(tmp_path: Path) -> None:
    text = GAN + (
        "optimizer:\n  generator: {name: Adam, learning_rate: 1e-4}\n  discriminator: sgd\n"
        "schedule: {generator: constant, discriminator: cosine_decay}\n"
    )
    recipe = load_recipe(written(tmp_path, text))
    assert isinstance(recipe.optimizer, PerNetwork)
    assert spec_of(recipe.optimizer, "generator").arguments["beta_1"] == 0.9, "defaults are written out"
    assert spec_of(recipe.optimizer, "discriminator").name == "sgd"
    assert spec_of(recipe.schedule, "discriminator").name == "cosine_decay"
    again = load_recipe(written(tmp_path, dump_recipe(recipe)))
    assert again == recipe


def test_one_is_of_both(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, GAN + "optimizer: {name: sgd, learning_rate: 0.5}\n"))
    assert isinstance(recipe.optimizer, Spec)
    assert spec_of(recipe.optimizer, "generator") is spec_of(recipe.optimizer, "discriminator")


def test_a_flag_can_part_them(tmp_path: Path) -> None:
    path = written(tmp_path, GAN + "optimizer: {name: sgd, learning_rate: 0.5}\n")
    recipe = load_recipe(path, ["optimizer.discriminator.learning_rate=0.25"])
    rates = [
        spec_of(recipe.optimizer, name).arguments["learning_rate"] for name in ("generator", "discriminator")
    ]
    assert rates == [0.5, 0.25]
    assert "discriminator" in mistakes(tmp_path, GAN, "optimizer.generator.learning_rate=0.25")[0]


def test_mistakes_in_each_are_placed(tmp_path: Path) -> None:
    text = GAN + (
        "optimizer:\n  generator: {name: adm}\n  discriminator: {name: adam, learning_rat: 1e-3}\n"
        "schedule:\n  generator: constant\n"
    )
    found = mistakes(tmp_path, text)
    assert found[0].startswith("5:21 optimizer.generator.name: unknown optimizer; did you mean adam")
    assert found[1].startswith(
        "6:31 optimizer.discriminator.learning_rat: unknown key; did you mean learning_rate"
    )
    assert found[2].startswith("7:1 schedule.discriminator: required key is missing")
    assert len(found) == 3


def test_misspelled_network(tmp_path: Path) -> None:
    text = GAN + "optimizer: {generator: adam, discriminatr: adam}\n"
    found = mistakes(tmp_path, text)
    assert [line.split(": ")[0].split(" ")[1] for line in found] == [
        "optimizer.discriminator", "optimizer.discriminatr",
    ]  # fmt: skip
    assert "did you mean discriminator" in found[1]


def test_weight_decay_reaches_both(tmp_path: Path) -> None:
    text = GAN + "optimizer: {generator: adamw, discriminator: adamw}\nregularization: {weight_decay: 0.02}\n"
    recipe = load_recipe(written(tmp_path, text))
    for network in ("generator", "discriminator"):
        assert spec_of(recipe.optimizer, network).arguments["weight_decay"] == 0.02


CNN = "task: image_classification\ndataset: digits\narchitecture: cnn\n"
REFUSED = [
    (CNN + "optimizer: {generator: adam, discriminator: adam}\n", "task image_classification has one optimizer"),
    (CNN + "metrics: {features: imagenet}\n", "draws no images"),
    (CNN.replace("cnn", "dcgan"), "architecture dcgan is of task gan"),
    (GAN.replace("dcgan", "cnn"), "use architecture mlp_gan, dcgan, resnet_gan, style_gan"),
    (GAN.replace("dcgan", "vae"), "use architecture mlp_gan"),
    (GAN.replace("name: gan", "name: gan, objective: hinge, weight_clip: 0.1"), "weight_clip is of objective wasserstein"),
    (GAN.replace("name: gan", "name: gan, objective: wasserstein_gp, gradient_penalty: 0"), "needs its penalty"),
    (GAN.replace("name: gan", "name: gan, objective: wasserstein, gradient_penalty: 1"), "use objective wasserstein_gp"),
    (GAN.replace("name: gan", "name: gan, objective: wasserstein_gp").replace("dcgan", "{name: dcgan, discriminator_normalization: batch}"), "of each image by itself"),
    (GAN.replace("name: gan", "name: gan, objective: wasserstein") + "regularization: {max_norm: 1}\n", "bounds the critic's weights"),
    (GAN.replace("name: gan", "name: gan, objective: hinge") + "regularization: {label_smoothing: 0.1}\n", "label smoothing is for"),
    (GAN + "regularization: {class_weights: balanced}\n", "does not weigh classes"),
    (GAN + "schedule: reduce_on_plateau\n", "none has a plateau"),
    (GAN + "schedule: {generator: constant, discriminator: reduce_on_plateau}\n", "none has a plateau"),
    (GAN + "training: {precision: mixed_float16}\n", "use mixed_bfloat16 or float32"),
    (GAN.replace("digits", "{name: digits, normalization: standardize}"), "scales pixels itself"),
    (GAN.replace("digits", "{name: digits, augmentation: [mix_up]}"), "leave mix_up out"),
    (GAN.replace("digits", "iris"), "dataset iris holds rows"),
    (GAN.replace("name: gan", "name: gan, objective: hinges"), "did you mean hinge"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "what"), REFUSED, ids=[what for _, what in REFUSED])
def test_what_could_only_be_ignored_is_refused(text: str, what: str, tmp_path: Path) -> None:
    found = mistakes(tmp_path, text)
    assert len(found) == 1, found
    assert what in found[0]


def test_a_penalty_changes_the_default_normalization(tmp_path: Path) -> None:
    def normalization(task: str) -> str:
        recipe = load_recipe(written(tmp_path, GAN.replace("name: gan", task)))
        found: str = recipe.architecture.arguments["discriminator_normalization"]
        return found

    assert normalization("name: gan") == "batch"
    assert normalization("name: gan, objective: wasserstein_gp") == "layer"
    assert normalization("name: gan, gradient_penalty: 1.0") == "layer"
