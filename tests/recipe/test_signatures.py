import pytest
from pydantic import ValidationError

from dlcli.recipe.argument_models import argument_model, build_model, check_arguments
from dlcli.recipe.signatures import KINDS, REQUIRED, Argument, arguments_of, known_names, read_signature


def test_a_signature_is_read_without_importing_the_module(builders):
    found = read_signature("small_builders:cnn")
    assert list(found) == ["filters", "kernel_size", "activation", "initializer", "dropout", "residual"]
    assert found["filters"].default == (32, 64)
    assert found["filters"].description == "of each block, 1 to 1,000,000, in order."
    assert found["kernel_size"].description == "side of a kernel, or `[height, width]`."
    assert found["dropout"].description == ""


def test_a_class_has_the_arguments_of_init_and_the_words_of_its_docstring(builders):
    found = read_signature("small_builders:Classification")
    assert list(found) == ["loss", "metrics"]
    assert found["loss"].description == "any of keras.losses."
    assert found["metrics"].default == ()


def test_arguments_without_default_are_required(builders):
    found = read_signature("small_builders:application")
    assert found["model"].default is REQUIRED
    with pytest.raises(ValidationError, match="Field required"):
        check_arguments(argument_model("architecture", "application"), {})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def build(x, *, a=1): ...", "Expected an annotation"),
        ("def build(x, *, a: int = len('x')): ...", "Expected a literal default"),
        ("def build(x, *, a: Unknown = 1): ...", "Expected names of"),
        ("def build(x, *, a: open('x') = 1): ...", "Expected names of"),
        ("build = 1", "Expected a top-level function"),
    ],
)
def test_signatures_that_are_no_schema(tmp_path, monkeypatch, source, message):
    (tmp_path / "bad_builder.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    read_signature.cache_clear()
    with pytest.raises(ValueError, match=message):
        read_signature("bad_builder:build")


def test_a_module_that_is_not_there():
    with pytest.raises(ValueError, match="Expected a module with source"):
        read_signature("dlcli.no_such_package.module:build")


def test_values_become_plain_and_canonical(builders):
    model = argument_model("architecture", "cnn")
    given = {
        "filters": [8],
        "kernel_size": [3, 5],
        "activation": "ReLU",
        "initializer": "Kaiming",
        "dropout": 0,
    }
    assert check_arguments(model, given) == {
        "filters": [8], "kernel_size": [3, 5], "activation": "relu", "initializer": "he_normal",
        "dropout": 0.0, "residual": False,
    }  # fmt: skip


def test_defaults_are_canonical_too(builders):
    assert check_arguments(argument_model("architecture", "cnn"), {})["initializer"] == "glorot_uniform"
    assert check_arguments(argument_model("task", "regression"), {})["loss"] == "mean_squared_error"


@pytest.mark.parametrize(
    "given",
    [
        {"filters": ["8"]},
        {"filters": [True]},
        {"filters": [8.0]},
        {"filters": 8},
        {"filters": []},
        {"kernel_size": [3]},
        {"kernel_size": 0},
        {"activation": "rellu"},
        {"activation": 3},
        {"dropout": "0.1"},
        {"dropout": 1},
        {"dropout": True},
        {"dropout": float("nan")},
        {"dropout": None},
        {"residual": 1},
        {"residual": "true"},
        {"inputs": 1},
    ],
)
def test_nothing_is_converted_silently(builders, given):
    with pytest.raises(ValidationError):
        check_arguments(argument_model("architecture", "cnn"), given)


def test_an_argument_may_be_called_like_a_method_of_pydantic():
    model = build_model("x", {"copy": Argument("copy", bool, False), "json": Argument("json", int, 1)})
    assert check_arguments(model, {"copy": True}) == {"copy": True, "json": 1}


def test_optimizers_have_ranges_and_no_arguments_of_other_sections():
    for name in known_names("optimizer"):
        found = arguments_of("optimizer", name)
        assert not set(found) & {"name", "clipnorm", "clipvalue", "global_clipnorm", "use_ema", "kwargs"}
        assert {"learning_rate", "weight_decay", "gradient_accumulation_steps"} <= set(found)
        model = argument_model("optimizer", name)
        defaults = check_arguments(model, {})
        assert check_arguments(model, defaults) == defaults
        for wrong in (0, -1e-3, 1001, float("inf"), "1e-3", True, None):
            with pytest.raises(ValidationError):
                check_arguments(model, {"learning_rate": wrong})
        with pytest.raises(ValidationError):
            check_arguments(model, {"weight_decay": -1})
    sgd = argument_model("optimizer", "sgd")
    assert check_arguments(sgd, {"momentum": 0.9, "nesterov": True})["nesterov"] is True
    with pytest.raises(ValidationError):
        check_arguments(sgd, {"momentum": 1})


def test_optimizer_signatures_are_those_of_keras():
    keras = pytest.importorskip("keras")
    from dlcli.recipe.names import keras_class_name

    for name in known_names("optimizer"):
        arguments = check_arguments(argument_model("optimizer", name), {})
        getattr(keras.optimizers, keras_class_name("optimizers", name))(**arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_every_builder_is_a_schema(kind):
    """Contract over the real tables: at most 7 arguments, described, defaults within their own ranges."""
    for name in known_names(kind):
        found = arguments_of(kind, name)
        model = argument_model(kind, name)
        assert model.model_json_schema()
        assert kind == "optimizer" or len(found) <= 7, name
        assert not {"name", "validation_split", "augmentation"} & set(found), name
        undescribed = [argument.name for argument in found.values() if not argument.description]
        assert not undescribed or kind == "optimizer", (name, undescribed)
        if all(argument.default is not REQUIRED for argument in found.values()):
            defaults = check_arguments(model, {})
            assert check_arguments(model, defaults) == defaults, name
