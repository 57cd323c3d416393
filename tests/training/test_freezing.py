"""Which layers learn, by names across nested models."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dlcli.errors import DlcliError
from dlcli.layers.transformer_block import TransformerBlock
from dlcli.layers.walk import named_layers
from dlcli.recipe.schema import Freeze, LoRA
from dlcli.training.freezing import Freezing, frozen_names
from dlcli.training.layer_decay import learning_rate_factors, with_factors
from dlcli.training.lora import best_weights, save_merged

LAYERS = keras.layers


@pytest.fixture
def nested() -> keras.Model:
    """conv -> inner model (conv, norm) -> conv -> logits."""
    keras.utils.set_random_seed(0)
    inner_input = keras.Input((8, 8, 4))
    x = LAYERS.Conv2D(4, 3, padding="same", name="conv_a")(inner_input)
    inner = keras.Model(inner_input, LAYERS.BatchNormalization(name="norm")(x), name="inner")
    inputs = keras.Input((8, 8, 3), name="image")
    x = LAYERS.Conv2D(4, 3, padding="same", name="stem")(inputs)
    x = LAYERS.Conv2D(4, 3, name="top")(inner(x))
    x = LAYERS.GlobalAveragePooling2D(name="pooling")(x)
    return keras.Model(inputs, LAYERS.Dense(2, name="logits")(x))


HEAD = ("pooling", "logits")


def learning(model: keras.Model) -> set[str]:
    return {name for name, layer in named_layers(model) if layer.trainable_weights}


@pytest.mark.parametrize(
    ("what", "learns"),
    [
        ("none", {"stem", "inner/conv_a", "inner/norm", "top", "logits"}),
        ("all", {"logits"}),
        (Freeze(until="stem"), {"inner/conv_a", "inner/norm", "top", "logits"}),
        (Freeze(until="inner/conv_a"), {"inner/norm", "top", "logits"}),
        (Freeze(until="inner"), {"top", "logits"}),
        (Freeze(layers=("inner/*",)), {"stem", "top", "logits"}),
        (Freeze(layers=("inner",)), {"stem", "top", "logits"}),
        (Freeze(layers=("stem", "*/norm")), {"inner/conv_a", "top", "logits"}),
        (Freeze(last=1), {"top", "logits"}),
        (Freeze(last=2), {"inner/norm", "top", "logits"}),
        (Freeze(last=4), {"stem", "inner/conv_a", "inner/norm", "top", "logits"}),
    ],
)
def test_what_learns(nested: keras.Model, what: object, learns: set[str]) -> None:
    freezing = Freezing(nested, HEAD)
    freezing.apply("all")
    freezing.apply(what)  # the second call replaces the first
    assert learning(nested) == learns


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (
            Freeze(until="inner/conv_b"),
            "freeze.until inner/conv_b: matches no layer; did you mean inner/conv_a?",
        ),
        (Freeze(layers=("stm*",)), "freeze.layers stm*: matches no layer; did you mean stem?"),
        (
            Freeze(layers=("stem", "logits")),
            "freeze.layers logits: matches no layer",
        ),  # the head always learns
        (Freeze(last=5), "only 4 layers before the head have weights"),
    ],
)
def test_a_name_that_is_not_there_is_refused(nested: keras.Model, what: Freeze, said: str) -> None:
    with pytest.raises(DlcliError) as error:
        frozen_names(what, Freezing(nested, HEAD).body)
    assert said in str(error.value)


def test_frozen_weights_are_bit_equal_after_training_and_the_norm_infers(nested: keras.Model) -> None:
    freezing = Freezing(nested, HEAD)
    freezing.apply(Freeze(until="inner"))
    before = {w.path: keras.ops.convert_to_numpy(w).copy() for w in nested.weights}
    nested.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    nested.fit(np.random.default_rng(0).normal(3, 2, (16, 8, 8, 3)), np.ones((16, 2)), epochs=2, verbose=0)
    changed = {w.path for w in nested.weights if (keras.ops.convert_to_numpy(w) != before[w.path]).any()}
    assert changed == {"top/kernel", "top/bias", "logits/kernel", "logits/bias"}  # no moving mean among them


def test_what_an_architecture_froze_itself_stays_frozen(nested: keras.Model) -> None:
    nested.get_layer("stem").trainable = False
    freezing = Freezing(nested, HEAD)
    freezing.apply("none")
    assert "stem" not in learning(nested)


def test_the_table_folds_neighbours_that_are_all_frozen(
    nested: keras.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    freezing = Freezing(nested, HEAD)
    freezing.apply(Freeze(until="inner"))
    freezing.show("fine-tuning")
    lines = capsys.readouterr().err.splitlines()
    row = next(line for line in lines if "stem ... inner/norm (3 layers)" in line)
    frozen = sum(int(np.prod(w.shape)) for n in ("stem", "inner") for w in nested.get_layer(n).weights)
    assert f"{frozen:,}" in row
    assert any("top" in line and "148" in line for line in lines)


# Discriminative learning rates.


def test_factors_fall_with_the_distance_from_the_head(nested: keras.Model) -> None:
    factors = learning_rate_factors(named_layers(nested), set(HEAD), 0.5)
    assert factors["logits/kernel"] == 1
    assert factors["top/kernel"] == factors["top/bias"] == 0.5
    assert factors["norm/gamma"] == 0.25  # no kernel: it shares the step of the convolution before it
    assert factors["conv_a/kernel"] == 0.25
    assert factors["stem/kernel"] == 0.125


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("SGD", {}),
        ("SGD", {"momentum": 0.9, "weight_decay": 0.1}),
        ("Adam", {}),
        ("AdamW", {"weight_decay": 0.3}),
        ("Lion", {}),
        ("RMSprop", {}),
        ("Adafactor", {}),
    ],
)
def test_each_weight_has_a_learning_rate_of_its_own(name: str, arguments: dict[str, float]) -> None:
    """One step of one weight with factor f is one step of the plain optimizer with f times the learning rate."""
    kind = getattr(keras.optimizers, name)
    slow, fast = (keras.Variable(np.full((2, 2), 3.0), name=n) for n in ("slow", "fast"))
    alone = keras.Variable(np.full((2, 2), 3.0), name="alone")
    gradient = np.array([[1.0, -2.0], [0.5, 4.0]], "float32")
    both = with_factors(kind, {slow.path: 0.1})(learning_rate=0.01, **arguments)
    plain = kind(learning_rate=0.001, **arguments)
    for _ in range(3):
        both.apply([keras.ops.convert_to_tensor(gradient)] * 2, [slow, fast])
        plain.apply([keras.ops.convert_to_tensor(gradient)], [alone])
    np.testing.assert_allclose(slow.numpy(), alone.numpy(), rtol=1e-6)
    assert (np.abs(fast.numpy() - 3) > 2 * np.abs(slow.numpy() - 3)).all()


# Low-rank adapters.


@pytest.fixture
def encoder() -> keras.Model:
    keras.utils.set_random_seed(0)
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = LAYERS.Embedding(20, 8, name="token_embedding")(tokens)
    x = TransformerBlock(8, 2, 16, name="block_1")(x)
    x = LAYERS.Dense(8, activation="relu", name="hidden")(x)
    x = LAYERS.GlobalAveragePooling1D(name="pooling")(x)
    return keras.Model(tokens, LAYERS.Dense(2, name="logits")(x))


def train(model: keras.Model, tokens: np.ndarray) -> None:
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    model.fit(tokens, np.eye(2)[tokens[:, 0] % 2], epochs=2, verbose=0)


def test_only_adapters_and_head_learn(encoder: keras.Model) -> None:
    tokens = np.random.default_rng(0).integers(0, 20, (32, 6))
    plain = encoder.predict_on_batch(tokens)
    freezing = Freezing(encoder, HEAD, LoRA(rank=2))
    freezing.apply("none")
    np.testing.assert_allclose(encoder.predict_on_batch(tokens), plain, atol=1e-6)  # B starts at zero
    assert {name.rpartition("/")[2] for name in (w.path for w in encoder.trainable_weights)} == {
        "lora_kernel_a", "lora_kernel_b", "lora_embeddings_a", "lora_embeddings_b", "kernel", "bias"
    }  # fmt: skip
    assert all(
        "lora" in w.path
        for layer in encoder.layers
        if layer.name != "logits"
        for w in layer.trainable_weights
    )
    before = {w.path: w.numpy().copy() for w in encoder.weights}
    train(encoder, tokens)
    changed = {w.path for w in encoder.weights if (w.numpy() != before[w.path]).any()}
    assert all("lora" in path or path.startswith("logits") for path in changed)
    assert any("block_1" in path for path in changed)


def test_patterns_choose_the_layers_inside_an_attention(encoder: keras.Model) -> None:
    freezing = Freezing(encoder, HEAD, LoRA(rank=2, layers=("block_1/attention/*",)))
    assert set(freezing.adapters) == {"block_1"}
    assert {w.shape for w in freezing.adapters["block_1"]} == {(8, 2), (2, 8)}
    with pytest.raises(DlcliError, match="hiden: matches no layer; did you mean hidden"):
        Freezing(keras.models.clone_model(encoder), HEAD, LoRA(layers=("hiden",)))


def test_frozen_adapters_do_not_learn(encoder: keras.Model) -> None:
    freezing = Freezing(encoder, HEAD, LoRA(rank=2))
    freezing.apply(Freeze(until="block_1"))
    paths = {w.path for w in encoder.trainable_weights}
    assert any("hidden" in path for path in paths)
    assert not any("block_1" in path or "token_embedding" in path for path in paths)


def test_a_saved_model_holds_merged_kernels_and_no_adapters(encoder: keras.Model, tmp_path) -> None:
    tokens = np.random.default_rng(0).integers(0, 20, (32, 6))
    Freezing(encoder, HEAD, LoRA(rank=2, alpha=5.0)).apply("none")
    train(encoder, tokens)
    save_merged(encoder, tmp_path / "model.keras")
    loaded = keras.saving.load_model(
        tmp_path / "model.keras", compile=False
    )  # as runs are: without optimizer
    assert not [w.path for w in loaded.weights if "lora" in w.path]
    np.testing.assert_allclose(loaded.predict_on_batch(tokens), encoder.predict_on_batch(tokens), atol=1e-5)
    encoder.set_weights(best_weights(encoder, loaded))
    np.testing.assert_allclose(encoder.predict_on_batch(tokens), loaded.predict_on_batch(tokens), atol=1e-5)


def test_a_network_without_dense_layers_has_nothing_to_adapt(nested: keras.Model) -> None:
    with pytest.raises(DlcliError, match="no Dense, EinsumDense or Embedding layer"):
        Freezing(nested, HEAD, LoRA())
