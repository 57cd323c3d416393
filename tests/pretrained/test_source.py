"""Pretrained models from runs and files: where they are cut, what they read, and what tells them apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as L

from dlcli.errors import DlcliError
from dlcli.pretrained.head import before_named
from dlcli.pretrained.pixels import choose_mode, family_of
from dlcli.pretrained.source import load_backbone
from dlcli.recipe.load import dump_recipe, load_recipe
from dlcli.runs import Run
from dlcli.training.job import prepare

Save = Callable[[keras.Model], str]
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype("uint8")


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(model: keras.Model, name: str = "model.keras") -> str:
        model.save(tmp_path / name)
        return str(tmp_path / name)

    return write


def base(name: str = "base") -> keras.Model:
    inputs = keras.Input((16, 16, 3))
    x = L.Conv2D(4, 3, strides=2, activation="relu", name="first")(inputs)
    return keras.Model(inputs, L.Conv2D(5, 3, activation="relu", name="second")(x), name=name)


def functional() -> tuple[keras.Model, keras.KerasTensor]:
    inputs = keras.Input((16, 16, 3))
    features = L.GlobalAveragePooling2D(name="average")(base()(inputs))
    x = L.Dense(7, name="classes")(L.Dropout(0.5, name="rest")(features))
    return keras.Model(inputs, L.Activation("softmax")(x)), features


def sequential() -> tuple[keras.Model, keras.KerasTensor]:
    model = keras.Sequential(
        [keras.Input((16, 16, 3)), L.Conv2D(4, 3), L.Flatten(name="flat"), L.Dense(7, activation="softmax")]
    )
    return model, model.get_layer("flat").output


def head_inside() -> tuple[keras.Model, keras.KerasTensor]:
    inside = keras.Sequential([keras.Input((5,)), L.Dense(7), L.Softmax()], name="head")
    inputs = keras.Input((16, 16, 3))
    features = L.GlobalMaxPooling2D(name="highest")(base()(inputs))
    return keras.Model(inputs, inside(features)), features


def pointwise() -> tuple[keras.Model, keras.KerasTensor]:
    inputs = keras.Input((16, 16, 3))
    features = L.Conv2D(6, 3, activation="relu", name="map")(inputs)
    x = L.GlobalAveragePooling2D()(L.Conv2D(7, 1, name="classes")(features))
    return keras.Model(inputs, L.Softmax()(x)), features


def headless() -> tuple[keras.Model, keras.KerasTensor]:
    inputs = keras.Input((16, 16, 3))
    x = L.BatchNormalization()(L.Conv2D(6, 1)(inputs))
    model = keras.Model(inputs, L.ReLU(name="last")(x))
    return model, model.output


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (functional, "rest"),
        (sequential, "flat"),
        (head_inside, "highest"),
        (pointwise, "map"),
        (headless, "last"),
    ],
)
def test_features_are_what_the_last_weights_read(make, layer, save):
    model, features = make()
    backbone = load_backbone(save(model), preprocessing="none")
    expected = keras.Model(model.inputs[0], features)(PIXELS.astype("float32"))
    assert backbone.layer == layer
    assert backbone.model.input.dtype == "uint8"
    np.testing.assert_array_equal(backbone.model(PIXELS), expected)
    assert any("no output layer" in text for text in backbone.notes) == (make is headless)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_both_formats_give_the_same(suffix, tmp_path):
    model, features = functional()
    model.save(tmp_path / f"model{suffix}")
    backbone = load_backbone(str(tmp_path / f"model{suffix}"), preprocessing="none")
    expected = keras.Model(model.inputs[0], features)(PIXELS.astype("float32"))
    np.testing.assert_array_equal(backbone.model(PIXELS), expected)


def test_a_layer_inside_a_nested_model_is_found_by_its_path_or_name(save):
    model, _ = functional()
    path = save(model)
    inner = model.get_layer("base")
    expected = keras.Model(inner.inputs[0], inner.get_layer("first").output)(PIXELS.astype("float32"))
    for name in ("base/first", "first"):
        backbone = load_backbone(path, name, "none")
        assert backbone.layer == "base/first"
        np.testing.assert_array_equal(backbone.model(PIXELS), expected)


def test_an_unknown_layer_gets_near_misses_and_shapes(save):
    model, _ = functional()
    with pytest.raises(DlcliError, match="did you mean base/second") as caught:
        load_backbone(save(model), "base/secnod")
    assert "base/first  7x7x4" in str(caught.value)
    assert "classes  7" in str(caught.value)


@pytest.mark.parametrize("inside", [False, True])
def test_own_preprocessing_gets_levels_as_they_are(inside, save):
    scale = L.Rescaling(1 / 127.5, offset=-1, name="own")
    inputs = keras.Input((16, 16, 3))
    body = keras.Sequential([keras.Input((16, 16, 3)), scale, L.Conv2D(3, 3)]) if inside else None
    x = body(inputs) if body else L.Conv2D(3, 3)(scale(inputs))
    model = keras.Model(inputs, L.Dense(2, name="out")(L.Flatten()(x)))
    backbone = load_backbone(save(model))
    features = keras.Model(model.inputs[0], model.get_layer("out").input)(PIXELS.astype("float32"))
    np.testing.assert_array_equal(backbone.model(PIXELS), features)
    assert "the file scales itself" in backbone.notes[0]


def test_scaling_by_operations_counts_as_own_preprocessing(save):
    inputs = keras.Input((16, 16, 3))
    x = keras.applications.mobilenet_v2.preprocess_input(inputs)
    model = keras.Model(inputs, L.Dense(2, name="out")(L.Flatten()(L.Conv2D(3, 3)(x))))
    backbone = load_backbone(save(model))
    features = keras.Model(model.inputs[0], model.get_layer("out").input)(PIXELS.astype("float32"))
    np.testing.assert_allclose(backbone.model(PIXELS), features, rtol=1e-6)


@pytest.mark.parametrize(
    ("mode", "reference"),
    [
        ("tf", keras.applications.mobilenet_v2.preprocess_input),
        ("caffe", keras.applications.resnet50.preprocess_input),
        ("torch", keras.applications.densenet.preprocess_input),
        ("rescale", lambda x: x / 255),
        ("none", lambda x: x),
    ],
)
def test_preprocessing_is_that_of_keras_applications(mode, reference, save):
    model = keras.Sequential(
        [keras.Input((16, 16, 3)), L.Conv2D(2, 1, name="first"), L.Flatten(), L.Dense(2)]
    )
    backbone = load_backbone(save(model), preprocessing=mode)
    expected = model.layers[1](model.layers[0](reference(PIXELS.astype("float32"))))
    np.testing.assert_allclose(backbone.model(PIXELS), expected, rtol=1e-4, atol=1e-4)


def test_families_are_known_by_model_and_by_layer_names():
    mobilenet = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), alpha=0.35, weights=None, include_top=False
    )
    opened = keras.Model(mobilenet.inputs, mobilenet.outputs)  # a name says nothing
    assert family_of(mobilenet) == family_of(opened) == ("MobileNetV2", "tf")
    for name, mode in {
        "resnet50": "caffe",
        "resnet101v2": "tf",
        "densenet169": "torch",
        "vgg16": "caffe",
    }.items():
        assert family_of(base(name))[1] == mode, name
    assert family_of(base("resnet_of_mine")) is None
    assert "MobileNetV2 of keras.applications" in choose_mode(opened, "auto")[1]


def test_a_guess_is_told(save):
    assert "a guess" in load_backbone(save(functional()[0])).notes[0]


def test_layers_that_the_source_had_frozen_are_free(save):
    model, _ = functional()
    model.get_layer("base").get_layer("first").trainable = False
    backbone = load_backbone(save(model))
    assert len(backbone.model.trainable_weights) == 4


def test_fingerprints_tell_weights_layers_and_preprocessing_apart(save):
    model, _ = functional()
    path = save(model)
    same = {load_backbone(path).fingerprint, load_backbone(path).fingerprint}
    assert len(same) == 1
    others = {load_backbone(path, "average").fingerprint, load_backbone(path, None, "tf").fingerprint}
    kernel = model.get_layer("base").get_layer("first").kernel
    kernel.assign(kernel + 1e-6)
    others.add(load_backbone(save(model)).fingerprint)
    assert len(same | others) == 4


def test_fingerprints_do_not_depend_on_names_that_keras_numbers(save):
    def with_operation(path: str) -> str:
        keras.utils.set_random_seed(0)
        inputs = keras.Input((16, 16, 3))
        x = L.Flatten()(keras.ops.flip(L.Conv2D(2, 1)(inputs), axis=1))
        model = keras.Model(inputs, L.Dense(2)(x))
        model.save(path)
        return load_backbone(path).fingerprint

    folder = Path(save(functional()[0])).parent
    assert with_operation(str(folder / "a.keras")) == with_operation(str(folder / "b.keras"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "no such file or folder; allowed: a run folder"),
        ("imagenet", "imagenet:NAME"),
        ("imagenet:resnet500", "resnet50"),
        (".", "neither recipe.yaml"),
    ],
)
def test_sources_that_are_none(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DlcliError, match=message):
        load_backbone(source)


def test_imagenet_weights_that_cannot_be_downloaded_are_named(monkeypatch):
    def fail(*arguments: object, **keywords: object) -> None:
        raise Exception("URL fetch failure on https://somewhere/weights.h5: None -- unreachable")

    monkeypatch.setattr("keras.src.applications.mobilenet_v2.file_utils.get_file", fail)
    with pytest.raises(DlcliError, match="could not be downloaded") as caught:
        load_backbone("imagenet:MobileNetV2")
    assert "weights.h5" in str(caught.value)


def test_two_outputs_need_a_layer(save):
    inputs = keras.Input((16, 16, 3))
    x = L.GlobalAveragePooling2D(name="mean")(L.Conv2D(4, 3)(inputs))
    path = save(keras.Model(inputs, [L.Dense(2)(x), L.Dense(3)(x)]))
    with pytest.raises(DlcliError, match="2 outputs"):
        load_backbone(path)
    assert load_backbone(path, "mean").model.output.shape == (None, 4)


def test_ids_without_a_vocabulary_are_refused(save):
    model = keras.Sequential([keras.Input((None,), dtype="int32"), L.Embedding(9, 4), L.LSTM(3), L.Dense(1)])
    with pytest.raises(DlcliError, match="does not hold the vocabulary"):
        load_backbone(save(model))


def test_an_image_run_brings_its_preprocessing_and_classes(class_folders, tmp_path):
    run = make_run(
        tmp_path,
        f"dataset={{name: image_folder, path: {class_folders(size=16)}}}",
        "architecture={name: cnn, filters: [4], dense: []}",
        task="image_classification",
    )
    backbone = load_backbone(str(run.path))
    assert backbone.classes == ("cat", "dog", "owl")
    assert backbone.model.input.dtype == "uint8"
    pooled = run.model.get_layer("pooling")(backbone.model(PIXELS))
    predictions = keras.ops.softmax(run.model.get_layer("logits")(pooled))
    np.testing.assert_allclose(run.model(PIXELS), predictions, rtol=1e-5)
    # The same model without its recipe, which would say where the task begins.
    alone = load_backbone(str(run.model_path))
    assert (alone.layer, alone.classes) == ("pooling", backbone.classes)
    np.testing.assert_allclose(alone.model(PIXELS), pooled, rtol=1e-5)


def test_a_table_run_reads_its_columns(tmp_path):
    sizes = np.random.default_rng(0).uniform(0, 60, 60)
    rows = [
        f"{size:.2f},{'red' if size % 3 > 1 else 'blue'},{'large' if size > 30 else 'small'}"
        for size in sizes
    ]
    (tmp_path / "table.csv").write_text("\n".join(["size,colour,kind", *rows]) + "\n")
    run = make_run(
        tmp_path,
        f"dataset={{name: csv, path: {tmp_path / 'table.csv'}, target: kind}}",
        "architecture={name: mlp, hidden: [5]}",
        task="tabular_classification",
    )
    backbone = load_backbone(str(run.path))
    columns = run_columns(run)
    assert list(backbone.model.input) == list(run.model.input)
    features = backbone.model(columns)
    assert features.shape == (2, 5)
    body = next(layer for layer in run.model.layers if isinstance(layer, keras.Model))
    np.testing.assert_allclose(
        run.model(columns), run.model.layers[-1](body.get_layer("logits")(features)), rtol=1e-5
    )


def test_a_language_model_is_cut_before_its_embedding_reads_backwards(tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 80)
    run = make_run(
        tmp_path,
        f"dataset={{name: text_file, path: {tmp_path / 'text.txt'}, max_length: 8, tokenizer: character}}",
        "architecture={name: gpt, num_layers: 1, num_heads: 2, width: 8}",
        task="language_modeling",
    )
    backbone = load_backbone(str(run.path))
    ids = np.array([[5, 6, 7, 8]], "int32")
    assert backbone.model.output.shape == (None, None, 8)
    assert backbone.max_length == 8
    assert backbone.tokenizer.vocabulary_size == run.model.output.shape[-1]
    logits = run.model.get_layer("logits")(
        run.model.get_layer("token_embedding")(backbone.model(ids), reverse=True)
    )
    np.testing.assert_allclose(run.model(ids), logits, rtol=1e-5, atol=1e-6)


def run_columns(run: Run) -> dict[str, object]:
    values = {"float32": [[3.0], [44.0]], "string": [["red"], ["blue"]]}
    return {
        name: keras.ops.convert_to_tensor(values[column.dtype]) for name, column in run.model.input.items()
    }


def test_names_of_the_head_inside_a_pretrained_model_do_not_count():
    inside = keras.Sequential([keras.Input((4,)), L.Dense(3, name="logits"), L.ReLU()], name="body")
    inputs = keras.Input((4,))
    x = L.Dense(5, name="hidden")(inside(inputs))
    x = keras.ops.squeeze(L.Dense(1, name="logits")(x), -1)
    cut = before_named(
        keras.Model(inputs, L.Activation("sigmoid", name="predictions")(x)), ("logits", "predictions")
    )
    assert cut.layer == "hidden"


def make_run(folder: Path, *settings: str, task: str) -> Run:
    (folder / "recipe.yaml").write_text(f"task: {task}\ndataset: digits\narchitecture: cnn\n")
    recipe = load_recipe(folder / "recipe.yaml", settings)
    run = Run(folder / "run")
    run.path.mkdir()
    (run.path / "recipe.yaml").write_text(dump_recipe(recipe))
    prepare(recipe).models.predictor.save(run.model_path)
    return run
