"""Text classification from a recipe: learns, ignores padding, and is found again in the saved run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dlcli.data.text.tokenizer import END, START
from dlcli.evaluation.evaluate import evaluate_run
from dlcli.layers.tokens import saved_tokenizer, tokens_of
from dlcli.recipe.load import RecipeError, load_recipe
from dlcli.training.job import prepare
from dlcli.training.train import resume, train

RECIPE = """\
task: text_classification
dataset: {{name: text_folder, path: {path}, validation_split: 0.25, max_length: 12}}
architecture: {{name: transformer, num_layers: 1, num_heads: 2, width: 16, dropout: 0.0}}
optimizer: {{name: adam, learning_rate: 0.01}}
training: {{epochs: 4, batch_size: 8}}
"""


@pytest.fixture
def recipe_path(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for mood, word in (("bad", "awful"), ("good", "lovely"), ("odd", "strange")):
            folder = tmp_path / "texts" / split / mood
            folder.mkdir(parents=True)
            for number in range(24):
                others = random.choice(["the", "film", "was", "so", "and", split], random.integers(1, 9))
                (folder / f"{number}.txt").write_text(" ".join([word, *others, str(number)]))
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(path=tmp_path / "texts"))
    return path


@pytest.mark.usefixtures("no_pictures")
def test_it_learns_and_the_run_scores_the_same_again(recipe_path, tmp_path):
    run = train(load_recipe(recipe_path), "texts", tmp_path / "run")
    assert run.metrics["metrics"]["accuracy"] > 0.9
    again = evaluate_run(run, run.recipe, "test")
    assert again["metrics"] == run.metrics["metrics"]
    assert tokens_of(run.model).tokenizer.json == saved_tokenizer(run.model_path).json
    vocabulary = tokens_of(run.model).tokenizer
    assert vocabulary.encode(["lovely test"])[0].tolist()[1] == 1, "a word of the test split alone is unknown"


@pytest.mark.usefixtures("no_pictures")
def test_padding_changes_no_prediction(recipe_path, tmp_path):
    model = prepare(load_recipe(recipe_path)).models.predictor
    alone = model.predict_on_batch(np.array([[7, 8, 9]]))
    beside = model.predict_on_batch(np.array([[7, 8, 9, 0, 0, 0], [5, 6, 7, 8, 9, 10]]))
    np.testing.assert_allclose(beside[0], alone[0], atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "max", "first", "attention"])
def test_each_pooling_is_another_model(recipe_path, pooling):
    job = prepare(load_recipe(recipe_path, [f"task={{name: text_classification, pooling: {pooling}}}"]))
    inputs = job.train.read(np.arange(2)).numpy()
    assert ((inputs[:, 0] == START) == (pooling == "first")).all()
    assert (END in inputs) == (pooling == "first")
    features = job.models.network.get_layer("logits").input
    assert features.shape == (None, 16)
    outputs = {
        other: prepare(load_recipe(recipe_path, [f"task={{name: text_classification, pooling: {other}}}"]))
        for other in ("mean", "max")
    }
    logits = [each.models.network(np.array([[7, 8, 9]])).numpy() for each in outputs.values()]
    assert not np.allclose(*logits)


@pytest.mark.usefixtures("no_pictures")
def test_a_run_goes_on_with_its_own_vocabulary(recipe_path, tmp_path, monkeypatch):
    recipe = load_recipe(recipe_path, ["dataset.tokenizer={name: wordpiece, vocabulary_size: 90}"])
    run = train(recipe, "texts", tmp_path / "run")
    (run.path / "metrics.json").unlink()
    monkeypatch.setattr("dlcli.data.text.vocabulary.learn_vocabulary", lambda *_: pytest.fail("learnt again"))
    assert resume(type(run)(run.path)).metrics["metrics"]["accuracy"] >= 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task=image_classification", "holds texts; use task text_classification"),
        ("architecture=cnn", "architecture cnn reads numbers, and dataset text_folder holds text"),
        ("dataset.augmentation=[random_flip]", "random_flip changes images"),
        ("dataset.tokenizer=wrod", "unknown tokenizer"),
        ("dataset.tokenizer.vocabulary_size=0", "out of range"),
        ("dataset.max_length=1", "out of range"),
    ],
)
def test_mistakes_are_found_while_the_recipe_loads(recipe_path, override, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_path, [override])


def test_text_keys_are_refused_for_other_data():
    with pytest.raises(RecipeError, match="max_length is for texts, and dataset digits holds images"):
        load_recipe("digits_cnn", ["dataset.max_length=5"])
    with pytest.raises(
        RecipeError, match="architecture fasttext reads tokens, and dataset digits holds images"
    ):
        load_recipe("digits_cnn", ["architecture=fasttext"])
