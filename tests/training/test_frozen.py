"""Features of a frozen source: computed once, kept, the source's own, and inside the saved model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dlcli.data.examples import ArrayExamples, Data, DataInfo
from dlcli.data.load import load_data
from dlcli.data.stream import training_stream
from dlcli.data.text.sequences import padded
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.data.text.tokenizer import END, START, Tokenizer
from dlcli.data.text.tokenizers import word
from dlcli.errors import DlcliError
from dlcli.evaluation.evaluate import predict_examples
from dlcli.layers.tokens import tokens_of
from dlcli.pretrained.backbone import Backbone
from dlcli.recipe.load import load_recipe
from dlcli.training import frozen
from dlcli.training.build import Models, build_models, network_examples
from dlcli.training.frozen import load_data_for, with_frozen_features

DIGITS = ["dataset={name: digits}", "optimizer=sgd", "schedule=constant", "regularization={}"]


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLCLI_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Backbone], None]:
    """Puts a backbone in the place of what the recipe's source would give."""

    def use(backbone: Backbone) -> None:
        monkeypatch.setattr(frozen, "source_backbone", lambda recipe: backbone)

    return use


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples each run of a backbone read."""
    counts: list[int] = []
    compute = frozen._compute
    monkeypatch.setattr(
        frozen, "_compute", lambda examples, *rest: (counts.append(len(examples)), compute(examples, *rest))
    )
    return counts


def of_images(fingerprint: str = "one") -> Backbone:
    """uint8 (B, H, W, 1) -> maps (B, H / 2, W / 2, 6), with a normalization that would learn if it were not frozen."""
    keras.utils.set_random_seed(7)
    image = keras.Input((None, None, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    model = keras.Model(image, x, name="source")
    model.set_weights([np.abs(weight) + 0.3 for weight in model.get_weights()])
    return Backbone(model, "batch_normalization", "a.keras", fingerprint)


def of_texts(tokenizer: Tokenizer, masked: bool = True, max_length: int = 0) -> Backbone:
    """Token ids (B, T) -> (B, T, 4)."""
    keras.utils.set_random_seed(7)
    tokens = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(50, 4, mask_zero=masked)(tokens)
    x = keras.layers.Dense(4, activation="tanh", bias_initializer="ones")(x)
    return Backbone(keras.Model(tokens, x), "dense", "a_run", "texts", tokenizer, max_length)


def prepared(*changes: str) -> tuple[Models, Data]:
    keras.utils.set_random_seed(0)
    architecture = "architecture={name: frozen_features, source: a.keras}"
    recipe = load_recipe("digits_cnn", [*DIGITS, architecture, *changes])
    data = load_data_for(recipe)
    return build_models(recipe, data), data


def test_features_are_the_sources_own(use: Any) -> None:
    backbone = of_images()
    use(backbone)
    images = load_data(load_recipe("digits_cnn", DIGITS)).train.inputs
    maps = np.asarray(backbone.model(images, training=False))
    for pooling, expected in (("mean", maps.mean((1, 2))), ("max", maps.max((1, 2)))):
        models, data = prepared(f"architecture.pooling={pooling}")
        rows = network_examples(data.train, models.task, data)
        assert isinstance(rows, ArrayExamples) and rows.inputs.dtype == np.float32
        np.testing.assert_allclose(rows.inputs, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(rows.targets, data.train.targets)


def test_the_backbone_runs_once(use: Any, computed: list[int], tmp_path: Path) -> None:
    use(of_images())
    models, data = prepared()
    first = [network_examples(part, models.task, data).inputs for part in (data.train, data.validation)]
    assert computed == [len(data.train), len(data.validation)]
    assert all(isinstance(each, np.memmap) for each in first)
    models, data = prepared("architecture.dense=[8]", "training.epochs=3")
    second = [network_examples(part, models.task, data).inputs for part in (data.train, data.validation)]
    assert len(computed) == 2
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not list((tmp_path / "cache" / "features").glob(".*"))


@pytest.mark.parametrize("change", ["source", "layer", "pooling", "split", "pixels"])
def test_what_changes_the_features_makes_another_entry(
    change: str, use: Any, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = of_images()
    use(backbone)
    models, data = prepared()
    network_examples(data.train, models.task, data)
    changes = []
    if change in ("source", "layer"):
        use(replace(backbone, fingerprint="two") if change == "source" else replace(backbone, layer="other"))
    elif change != "pixels":
        changes = ["architecture.pooling=max" if change == "pooling" else "training.seed=1"]
    models, data = prepared(*changes)
    train = data.train
    if change == "pixels":
        images = train.inputs.copy()
        images[3, 0, 0] ^= 1
        train = ArrayExamples(images, train.targets)
    network_examples(train, models.task, data)
    assert len(computed) == 2, change


def test_a_damaged_entry_is_computed_anew(use: Any, computed: list[int], tmp_path: Path) -> None:
    use(of_images())
    models, data = prepared()
    expected = np.array(network_examples(data.train, models.task, data).inputs)
    entry = next((tmp_path / "cache" / "features").glob("*.npy"))
    entry.write_bytes(entry.read_bytes()[:1000])
    np.testing.assert_array_equal(network_examples(data.train, models.task, data).inputs, expected)
    assert len(computed) == 2


def test_without_room_in_the_cache_features_stay_in_memory(
    use: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DLCLI_CACHE_LIMIT", "100")
    use(of_images())
    models, data = prepared()
    rows = network_examples(data.train, models.task, data).inputs
    assert rows.shape == (len(data.train), 6) and not isinstance(rows, np.memmap)
    assert not list((tmp_path / "cache" / "features").iterdir())
    assert "not kept for the next training" in capsys.readouterr().err


def test_an_interrupt_leaves_nothing_behind(
    use: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(frozen, "_compute", stop)
    use(of_images())
    models, data = prepared()
    with pytest.raises(KeyboardInterrupt):
        network_examples(data.train, models.task, data)
    assert not list((tmp_path / "cache" / "features").iterdir())


def test_training_is_that_of_a_frozen_backbone_in_every_step(use: Any) -> None:
    """Same head, same batches: the same weights, within rounding."""
    backbone = of_images()
    use(backbone)
    models, data = prepared()
    before = backbone.model.get_weights()
    whole = keras.Model(data.preprocessing.input, models.network(data.preprocessing.output))
    start = models.network.get_weights()
    results = []
    for network, examples in (
        (whole, data.train),
        (models.network, network_examples(data.train, models.task, data)),
    ):
        models.network.set_weights(start)
        network.compile("sgd", models.task.loss_function(0, False))
        stream = training_stream(examples, batch_size=64, seed=0)
        network.fit(stream, steps_per_epoch=40, verbose=0, shuffle=False)
        results.append(models.network.get_weights())
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert not np.allclose(results[0][0], start[0], atol=1e-3), "it learns"
    for one, other in zip(before, backbone.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_saved_model_reads_raw_inputs(use: Any, tmp_path: Path) -> None:
    use(of_images())
    models, data = prepared("architecture.dense=[8]", "architecture.dropout=0.5")
    assert len(models.predictor.trainable_weights) == 4, "of the hidden and of the output layer"
    rows = network_examples(data.validation, models.task, data).inputs
    expected = keras.ops.softmax(models.network(rows))
    models.predictor.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.input.dtype == "uint8" and loaded.input.shape == (None, 8, 8, 1)
    np.testing.assert_allclose(predict_examples(loaded, data.validation), expected, rtol=1e-4, atol=1e-6)


TEXT = [
    "a fine film",
    "dull",
    "a film that is dull and long and dull and long",
    "fine fine",
    "long",
    "a a a a film",
]


def texts(*changes: str, masked: bool = True, longest: int = 0) -> tuple[Models, Data, Backbone]:
    tokenizer = Tokenizer(word(TEXT).to_str())
    backbone = of_texts(tokenizer, masked, longest)
    architecture = "architecture={name: frozen_features, source: a_run}"
    recipe = load_recipe("imdb_fasttext", [architecture, "dataset.max_length=9", *changes])
    examples = TextExamples({"text": Texts.of(TEXT)}, np.array([1, 0, 0, 1, 0, 1], np.int32))
    other = Tokenizer(word(["something else"]).to_str())
    info = DataInfo("text", (), "classes", ("neg", "pos"), tokenizer=other, max_length=9)
    data = with_frozen_features(recipe, Data(examples, None, None, info, None), backbone)
    return build_models(recipe, data), data, backbone


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "max", "first"])
def test_padding_of_texts_counts_for_nothing(masked: bool, pooling: str) -> None:
    """Also when the source hands no mask on."""
    changes = [f"architecture.pooling={pooling}", "task={name: text_classification, pooling: first}"]
    models, data, backbone = texts(*changes, masked=masked)
    rows = network_examples(data.train, models.task, data)
    reduce = {"mean": np.mean, "max": np.max, "first": lambda values, axis: values[0]}[pooling]
    for text, row in zip(TEXT, rows.inputs, strict=True):
        ids = padded(backbone.tokenizer.encode([text]), 9, (START,), (END,))
        np.testing.assert_allclose(
            row, reduce(np.asarray(backbone.model(ids))[0], axis=0), rtol=1e-5, atol=1e-6
        )
    np.testing.assert_array_equal(rows.targets[:, 0], [1, 0, 0, 1, 0, 1])


def test_texts_are_read_with_the_sources_vocabulary(tmp_path: Path) -> None:
    models, data, backbone = texts(longest=4)
    assert data.info.tokenizer is backbone.tokenizer and data.info.max_length == 4
    models.predictor.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    tokens = tokens_of(loaded)
    assert tokens is not None and tokens.tokenizer_json == backbone.tokenizer.json and tokens.max_length == 4
    expected = keras.ops.sigmoid(models.network(network_examples(data.train, models.task, data).inputs))[:, 0]
    outputs = predict_examples(loaded, models.task.sequences(data.train))
    np.testing.assert_allclose(outputs[:, 1], expected, rtol=1e-5, atol=1e-6)


def test_what_the_source_cannot_read_is_refused(use: Any) -> None:
    spectrum = keras.Input((8, 8, 5), dtype="uint8")
    use(replace(of_images(), model=keras.Model(spectrum, keras.layers.Flatten()(spectrum))))
    with pytest.raises(DlcliError, match="reads images of 5 channels, and these are 8x8x1"):
        prepared()
    use(of_texts(Tokenizer(word(TEXT).to_str())))
    with pytest.raises(DlcliError, match="reads texts, and the dataset is of kind image"):
        prepared()
    use(of_images())
    with pytest.raises(DlcliError, match=r"maps of .*, which have no first token"):
        prepared("architecture.pooling=first")


def test_features_that_are_no_numbers_are_refused(use: Any) -> None:
    backbone = of_images()
    backbone.model.layers[2].kernel.assign(np.full(backbone.model.layers[2].kernel.shape, np.inf))
    use(backbone)
    models, data = prepared()
    with pytest.raises(DlcliError, match="not finite numbers"):
        network_examples(data.train, models.task, data)


def test_a_table_is_read_by_a_source_of_the_same_columns(use: Any) -> None:
    recipe = load_recipe("iris_mlp", ["architecture={name: frozen_features, source: runs/iris}"])
    data = load_data(recipe)
    use(Backbone(data.preprocessing, "standardization", "runs/iris", "iris"))
    frozen_data = load_data_for(recipe)
    models = build_models(recipe, frozen_data)
    rows = network_examples(data.train, models.task, frozen_data).inputs
    np.testing.assert_allclose(rows, data.preprocessing(data.train.inputs), rtol=1e-5, atol=1e-6)
    other = keras.Input((1,), name="column_age")
    use(Backbone(keras.Model({"column_age": other}, other), "age", "runs/people", "people"))
    with pytest.raises(
        DlcliError, match=r"its columns are column_age \(float32\); the dataset's are column_"
    ):
        load_data_for(recipe)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (["dataset.augmentation=[{name: random_flip}]"], "no augmentation reaches them"),
        (["dataset.normalization=standardize"], "its source's own preprocessing"),
        (["task=token_classification"], "one vector for each example"),
        (
            ["dataset.name=imdb", "task=text_classification", "architecture.pooling=first"],
            "set task.pooling: first",
        ),
    ],
)
def test_contradictions_are_found_while_the_recipe_loads(changes: list[str], what: str) -> None:
    with pytest.raises(DlcliError, match=what):
        load_recipe("digits_cnn", [*DIGITS, "architecture={name: frozen_features, source: a}", *changes])
