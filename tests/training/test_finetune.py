"""Fine-tuning from runs: what travels, what learns, what is refused, and how it goes on."""

from __future__ import annotations

import csv
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dlcli.errors import DlcliError, TrainingInterruptedError
from dlcli.layers.tokens import tokens_of
from dlcli.recipe.load import RecipeError, dump_recipe, load_recipe
from dlcli.recipe.schema import Recipe
from dlcli.runs import Run, load_run
from dlcli.training.callbacks import History
from dlcli.training.finetune import with_source
from dlcli.training.job import prepare
from dlcli.training.plan import make_plan
from dlcli.training.train import finetune, resume, train

pytestmark = pytest.mark.usefixtures("no_pictures")


def recipe(*changes: str) -> Recipe:
    small = (
        "architecture={name: resnet, depth: 8}", "dataset.normalization=standardize", "training.epochs=2",
        "training.batch_size=256", "optimizer={name: adam, learning_rate: 3e-3}", "schedule=constant",
    )  # fmt: skip
    return load_recipe("digits_cnn", [*small, *changes])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(recipe("dataset.augmentation=[]"), "source", tmp_path_factory.mktemp("runs") / "source")


def made(recipe: Recipe, folder: Path) -> Run:
    """A run with weights that no training gave: as good to start from as any, and no chance finds them again."""
    job = prepare(recipe)
    random = np.random.default_rng(0)
    for weight in job.models.network.weights:
        if weight.dtype == "float32":
            weight.assign(weight + random.uniform(0.1, 0.2, weight.shape))
    folder.mkdir()
    job.models.predictor.save(folder / "model.keras")
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    return load_run(folder)


def weights_of(model: keras.Model, *, head: bool) -> dict[int, np.ndarray]:
    """Position -> weight, of the head or of the rest."""
    return {
        index: weight.numpy()
        for index, weight in enumerate(model.weights)
        if weight.path.startswith("logits") == head
    }


def pixels(count: int = 20, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 1), "uint8")


# What travels.


def test_the_same_task_and_classes_go_on_where_the_source_stopped(source: Run) -> None:
    """Preprocessing too: the recipe's own normalization would give other numbers."""
    job = prepare(with_source(recipe("dataset.normalization=rescale"), str(source.path)))
    expected = source.model.predict_on_batch(pixels())
    np.testing.assert_allclose(job.models.predictor.predict_on_batch(pixels()), expected, atol=1e-6)


def test_head_new_keeps_everything_but_the_head(source: Run) -> None:
    job = prepare(with_source(recipe("finetune.head=new"), str(source.path)))
    for index, weight in weights_of(source.model, head=False).items():
        np.testing.assert_array_equal(job.models.predictor.weights[index].numpy(), weight)
    assert any(
        (job.models.predictor.weights[index].numpy() != weight).any()
        for index, weight in weights_of(source.model, head=True).items()
    )


def test_other_classes_get_a_new_head(
    source: Run, class_folders: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = class_folders(channels=1, per_class=10)
    changes = (f"dataset={{name: image_folder, path: {path}, color_mode: grayscale}}", "dataset.image_size=8")
    job = prepare(with_source(recipe(*changes), str(source.path)))
    assert "the output layers are new" in capsys.readouterr().err
    assert job.models.network.output.shape == (None, 3)
    with pytest.raises(
        DlcliError, match=r"head keep: the outputs of .* are 0, 1, .* and the data have cat, dog, owl"
    ):
        prepare(with_source(recipe(*changes, "finetune.head=keep"), str(source.path)))


def test_another_size_is_taken_by_a_fully_convolutional_net(source: Run, class_folders: Any) -> None:
    path = class_folders(channels=1, per_class=10, size=20)
    data = f"dataset={{name: image_folder, path: {path}, color_mode: grayscale, image_size: 20}}"
    job = prepare(with_source(recipe(data), str(source.path)))
    assert job.models.network.input.shape == (None, 20, 20, 1)
    for index, weight in weights_of(source.model, head=False).items():
        np.testing.assert_array_equal(job.models.predictor.weights[index].numpy(), weight)


def test_another_size_is_refused_by_a_dense_layer_with_both_shapes(
    tmp_path: Path, class_folders: Any
) -> None:
    flat = "architecture={name: cnn, filters: [4], dense: [8]}"
    run = made(recipe(flat), tmp_path / "flat")
    path = class_folders(channels=1, per_class=10, size=20)
    data = f"dataset={{name: image_folder, path: {path}, color_mode: grayscale, image_size: 20}}"
    with pytest.raises(
        DlcliError, match=r"layer dense\S* has weights of 1600x8 and 8, and dense\S* of .* has 256x8 and 8"
    ):
        prepare(with_source(recipe(flat, data), str(run.path)))


def test_other_channels_are_refused(source: Run, class_folders: Any) -> None:
    path = class_folders(channels=3, per_class=10, size=8)
    data = f"dataset={{name: image_folder, path: {path}, image_size: 8}}"
    with pytest.raises(DlcliError, match="images of shape 8x8x1, and the data have 8x8x3"):
        prepare(with_source(recipe(data), str(source.path)))


@pytest.mark.parametrize(
    "architecture",
    ["{name: resnet, depth: 14}", "{name: cnn, filters: [8], dense: [16]}", "{name: perceptron}"],
)
def test_another_architecture_is_refused_naming_both(source: Run, architecture: str) -> None:
    with pytest.raises(
        DlcliError, match=r"(?s)layers? .*The source's architecture is \{name: resnet, depth: 8"
    ):
        prepare(with_source(recipe(f"architecture={architecture}"), str(source.path)))


def test_a_table_keeps_the_statistics_of_the_source(tmp_path: Path) -> None:
    short = ("training.epochs=1", "training.batch_size=64")
    run = made(load_recipe("iris_mlp", short), tmp_path / "iris")
    job = prepare(with_source(load_recipe("iris_mlp", [*short, "training.seed=7"]), str(run.path)))
    columns = {name: np.linspace(0, 8, 5, dtype="float32")[:, None] for name in run.model.input}
    np.testing.assert_allclose(
        job.models.predictor.predict_on_batch(columns), run.model.predict_on_batch(columns), atol=1e-6
    )
    with pytest.raises(
        DlcliError, match=r"columns are not those of .*missing petal length.*unknown alcalinity"
    ):
        prepare(with_source(load_recipe("iris_mlp", [*short, "dataset.name=wine"]), str(run.path)))


def test_texts_are_split_as_the_source_splits_them(tmp_path: Path) -> None:
    """A pretrained encoder becomes a classifier: its vocabulary and its weights, under another head."""
    words = ["good", "bad", "film", "plot", "the", "a", "very"]
    rows = [f"{' '.join(np.roll(words, n)[:5])}\t{'pos' if n % 2 else 'neg'}" for n in range(40)]
    (tmp_path / "a.tsv").write_text("\n".join(["text\tlabel", *rows]))
    (tmp_path / "a.txt").write_text(" ".join(words * 60))
    bert = "architecture={name: bert, num_layers: 1, num_heads: 2, width: 8}"
    short = (bert, "training.epochs=1", "training.batch_size=16", "dataset.max_length=8", "schedule=constant")
    run = made(load_recipe("tiny_bert", [*short, f"dataset={{name: text_file, path: {tmp_path / 'a.txt'}}}",
        "training.steps_per_epoch=2", "dataset.tokenizer={name: word, vocabulary_size: 50}"]),
        tmp_path / "bert")  # fmt: skip
    data = (f"dataset.path={tmp_path / 'a.tsv'}", "dataset.test_path=null", "dataset.max_length=6")
    job = prepare(with_source(load_recipe("rt_textcnn", [*short, *data]), str(run.path)))
    assert job.data.info.tokenizer.json == tokens_of(run.model).tokenizer.json
    ours, theirs = ({layer.name: layer for layer in m.layers} for m in (job.models.predictor, run.model))
    np.testing.assert_array_equal(ours["block_1"].get_weights()[0], theirs["block_1"].get_weights()[0])
    table = theirs["position_embedding"].get_weights()[0]
    np.testing.assert_array_equal(ours["position_embedding"].get_weights()[0], table[:6])  # shorter texts
    assert job.models.network.output.shape == (None, 1)


def test_layers_that_learn_from_data_keep_what_the_source_learnt(tmp_path: Path, class_folders: Any) -> None:
    """airbench's whitening, through `pretrained` and from the run itself."""
    path = class_folders(per_class=10, size=25)
    data = (f"dataset={{name: image_folder, path: {path}, image_size: 25}}", "dataset.normalization=rescale")
    airbench = "architecture={name: airbench, filters: [4, 4, 4]}"
    run = made(recipe(*data, airbench), tmp_path / "source")
    pretrained = recipe(
        *data, f"architecture={{name: pretrained, source: {run.path}}}", "dataset.validation_split=0.4"
    )
    known = [w.numpy() for layer in run.model.layers if hasattr(layer, "adapt") for w in layer.weights]
    for job in (prepare(pretrained), prepare(with_source(recipe(*data, airbench), str(run.path)))):
        found = [
            w.numpy()
            for layer in job.models.network.layers
            if hasattr(layer, "adapts_to_inputs")
            for w in layer.weights
        ]
        assert len(found) > 0
        for ours, theirs in zip(
            found, [w for w in known if w.shape in {f.shape for f in found}], strict=False
        ):
            np.testing.assert_array_equal(ours, theirs)


# What learns.


STAGES = "finetune.stages=[{freeze: all, epochs: 1, learning_rate: 0.01}, {freeze: {last: 2}, epochs: 2, learning_rate: 1e-3}]"


def history(run: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
    return [{key: value for key, value in row.items() if "second" not in key} for row in rows]


@pytest.fixture(scope="module")
def staged(source: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finetune(
        recipe(STAGES, "schedule=cosine_decay"),
        "staged",
        str(source.path),
        tmp_path_factory.mktemp("runs") / "staged",
    )


def test_stages_have_their_own_length_rate_and_frozen_layers(source: Run, staged: Run) -> None:
    rows = history(staged.path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert staged.recipe.training.epochs == 3
    # A cosine of its own in each stage.
    assert float(rows[0]["learning_rate"]) == pytest.approx(0, abs=1e-6)
    assert float(rows[1]["learning_rate"]) == pytest.approx(5e-4, rel=0.3)
    assert float(rows[2]["learning_rate"]) == pytest.approx(0, abs=1e-6)
    with_weights = [layer for layer in staged.model.layers if layer.weights and layer.name != "logits"]
    theirs = [layer for layer in source.model.layers if layer.weights and layer.name != "logits"]
    equal = [
        all((a.numpy() == b.numpy()).all() for a, b in zip(ours.weights, known.weights, strict=True))
        for ours, known in zip(with_weights, theirs, strict=True)
    ]
    assert all(equal[:-2]), "a frozen layer has changed"
    assert not any(equal[-2:]), "a layer that should learn has not"


def test_frozen_normalization_keeps_its_statistics(source: Run, tmp_path: Path) -> None:
    run = finetune(
        recipe("finetune.freeze=all", "training.epochs=1"), "frozen", str(source.path), tmp_path / "frozen"
    )
    for index, weight in weights_of(source.model, head=False).items():
        np.testing.assert_array_equal(run.model.weights[index].numpy(), weight)


def test_an_interrupted_stage_goes_on_as_if_it_had_never_stopped(
    source: Run, staged: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = History.on_train_batch_end

    def stop(self: History, batch: int, logs: dict[str, float] | None = None) -> None:
        original(self, batch, logs)
        if len(self.rows) == 2 and batch == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(History, "on_train_batch_end", stop)
        with pytest.raises(TrainingInterruptedError, match="after 2 complete epochs"):
            finetune(recipe(STAGES, "schedule=cosine_decay"), "cut", str(source.path), tmp_path / "cut")
    resumed = resume(load_run(tmp_path / "cut"))
    for a, b in zip(staged.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert history(staged.path) == history(tmp_path / "cut")


def test_a_stage_that_early_stopping_ended_is_not_taken_up_again(
    source: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = (
        "finetune.stages=[{freeze: all, epochs: 5, learning_rate: 1e-9}, {epochs: 2, learning_rate: 1e-9}]",
        "regularization.early_stopping={patience: 1}",
    )
    from dlcli.training import train as training

    begun: list[int] = []
    original = training._begin_stage

    def begin(job: Any, number: int) -> Any:
        begun.append(number)
        if number == 1 and len(begun) == 2:
            raise KeyboardInterrupt
        return original(job, number)

    monkeypatch.setattr(training, "_begin_stage", begin)
    with pytest.raises(TrainingInterruptedError):
        finetune(recipe(*changes), "cut", str(source.path), tmp_path / "cut")
    done = len(history(tmp_path / "cut"))
    assert done < 5
    resume(load_run(tmp_path / "cut"))
    assert begun == [0, 1, 0, 1]
    assert [row["epoch"] for row in history(tmp_path / "cut")] == [str(epoch) for epoch in range(1, done + 3)]


def test_another_source_in_its_place_is_refused_on_resume(source: Run, tmp_path: Path) -> None:
    shutil.copytree(source.path, tmp_path / "source")
    run = finetune(recipe("training.epochs=1"), "a", str(tmp_path / "source"), tmp_path / "a")
    (run.path / "metrics.json").unlink()
    other = made(recipe("training.seed=5"), tmp_path / "other")
    shutil.copy(other.model_path, tmp_path / "source" / "model.keras")
    (tmp_path / "source" / "metrics.json").unlink()  # with what its own model was
    with pytest.raises(DlcliError, match=r"source: .* when it was saved"):
        resume(load_run(run.path))


def test_lora_trains_adapters_alone_and_leaves_a_plain_model(source: Run, tmp_path: Path) -> None:
    flat = "architecture={name: cnn, filters: [4], dense: [32, 16]}"
    base = made(recipe(flat), tmp_path / "base")
    run = finetune(
        recipe(flat, "training.epochs=1", "finetune.lora={rank: 2}"),
        "lora",
        str(base.path),
        tmp_path / "lora",
    )
    assert [w.shape for w in run.model.weights] == [w.shape for w in base.model.weights]
    differ = {
        ours.path: (ours.numpy() != theirs.numpy()).any()
        for ours, theirs in zip(run.model.weights, base.model.weights, strict=True)
    }
    dense, convolution = (
        next(layer.name for layer in run.model.layers if isinstance(layer, kind))
        for kind in (keras.layers.Dense, keras.layers.Conv2D)
    )
    assert differ[f"{dense}/kernel"], "the adapters are merged into the kernel"
    assert not differ[f"{convolution}/kernel"]
    assert not differ[f"{dense}/bias"]
    kernels = [
        next(w for w in model.weights if w.shape == (256, 32)).numpy() for model in (run.model, base.model)
    ]
    change = kernels[0] - kernels[1]
    assert np.linalg.matrix_rank(change, tol=1e-4) <= 2


def test_layer_decay_changes_the_training(source: Run, tmp_path: Path) -> None:
    """With a tiny factor nothing but the head and the last layer moves far."""
    decay = recipe(
        "finetune.layer_decay=0.01", "training.epochs=1", "optimizer={name: sgd, learning_rate: 0.01}"
    )
    run = finetune(decay, "decay", str(source.path), tmp_path / "decay")
    moved = [
        float(np.abs(ours.kernel.numpy() - theirs.kernel.numpy()).max())
        for ours, theirs in zip(run.model.layers, source.model.layers, strict=True)
        if hasattr(ours, "kernel")
    ]
    assert moved[0] < 1e-3 * moved[-1]


# Recipes and commands.


def test_train_ignores_the_section_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    perceptron = "architecture={name: perceptron}"
    run = train(recipe("finetune.source=nowhere", "training.epochs=1", perceptron), "a", tmp_path / "a")
    assert "for `dlcli finetune`" in capsys.readouterr().err
    assert run.recipe.finetune is None


def test_the_source_may_stand_in_the_recipe(source: Run) -> None:
    assert with_source(recipe(f"finetune.source={source.path}"), None).finetune.source == str(source.path)  # type: ignore[union-attr]
    with pytest.raises(DlcliError, match="fine-tune from what"):
        with_source(recipe(), None)
    with pytest.raises(DlcliError, match=r"no such run, file or folder; runs there: .*source"):
        with_source(recipe(), str(source.path.parent / "sourc"))


def test_imagenet_is_for_networks_of_keras_applications() -> None:
    with pytest.raises(DlcliError, match="the recipe's architecture is resnet"):
        with_source(recipe(), "imagenet")
    application = (
        "architecture={name: application, model: mobilenet_v2, weights: none}",
        "dataset.normalization=rescale",
    )
    found = with_source(recipe(*application), "imagenet")
    assert found.architecture.arguments["weights"] == "imagenet"


def test_a_file_becomes_the_architecture(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(b"")
    found = with_source(recipe(), str(tmp_path / "model.keras")).architecture
    assert (found.name, found.arguments["source"]) == ("pretrained", str(tmp_path / "model.keras"))
    with pytest.raises(DlcliError, match="head keep"):
        with_source(recipe("finetune.head=keep"), str(tmp_path / "model.keras"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "finetune.freeze={until: a, last: 2}",
            "give exactly one of until, layers, last; received: until, last",
        ),
        ("finetune.freeze=al", "did you mean all"),
        ("finetune.freeze={last: 0}", "out of range"),
        ("finetune={freeze: all, stages: [{epochs: 1}]}", "leave finetune.freeze out, or finetune.stages"),
        ("finetune.layer_decay=1.5", "above 0 and at most 1"),
        ("finetune.lora={rank: 0}", "from 1 to 1024"),
        ("finetune.stages=[{freze: all}]", "did you mean freeze"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: str, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        recipe(change)
    assert said in str(error.value)


def test_lora_that_nothing_could_learn_is_refused(source: Run) -> None:
    with pytest.raises(DlcliError, match="no adapter would learn"):
        with_source(recipe("finetune={lora: {rank: 2}, freeze: all}"), str(source.path))


def test_plan_names_the_layers_as_finetune_takes_them(source: Run, tmp_path: Path) -> None:
    keras.utils.clear_session()  # each command is a process of its own
    plan = make_plan(recipe(), tmp_path / "plan.png", str(source.path))
    middle = [layer["name"] for layer in plan["layers"] if layer["parameters"]][3]
    keras.utils.clear_session()
    planned = make_plan(
        recipe(f"finetune.freeze={{until: {middle}}}"), tmp_path / "plan.png", str(source.path)
    )
    learns = {layer["name"]: layer["learns"] for layer in planned["layers"] if layer["parameters"]}
    assert [*learns.values()] == [False] * 4 + [True] * (len(learns) - 4)
