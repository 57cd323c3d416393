import json

import pytest

from dlcli.recipe.json_schema import json_schema
from dlcli.recipe.load import dump_recipe, load_recipe, shipped_recipes
from dlcli.recipe.names import keras_names
from dlcli.recipe.signatures import KINDS, arguments_of, known_names
from dlcli.recipe.yaml_reader import parse_yaml


@pytest.fixture(scope="module")
def schema():
    return json.loads(json.dumps(json_schema(), allow_nan=False))


def test_every_builder_has_its_arguments(schema):
    for kind in KINDS:
        for name in known_names(kind):
            builder = schema["$defs"][f"{kind}.{name}"]
            assert builder["additionalProperties"] is False
            assert builder["properties"]["name"] == {"const": name}
            assert set(arguments_of(kind, name)) <= set(builder["properties"]), name
    assert "augmentation" in schema["$defs"]["dataset.cifar10"]["properties"]


def test_ranges_defaults_and_words(schema):
    rate = schema["$defs"]["optimizer.adam"]["properties"]["learning_rate"]
    assert (rate["exclusiveMinimum"], rate["maximum"], rate["default"]) == (0, 1000, 0.001)
    assert rate["description"]
    assert schema["$defs"]["Training"]["properties"]["epochs"]["description"] == "passes over the train split"
    assert schema["$defs"]["Training"]["additionalProperties"] is False


def test_names_of_keras_are_listed(schema):
    activation = schema["$defs"]["architecture.cnn"]["properties"]["activation"]
    assert set(keras_names("activations")) <= set(activation["enum"])
    assert "keras" not in json.dumps(activation)


def test_every_reference_leads_somewhere(schema):
    text = json.dumps(schema)
    for name in [part.split('"')[0] for part in text.split('"$ref": "#/$defs/')[1:]]:
        assert name in schema["$defs"]


def test_the_schema_agrees_with_the_loader(schema, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    for path in shipped_recipes().values():
        value = parse_yaml(path.read_text(), "r").value
        assert not list(validator.iter_errors(value)), path
        resolved = parse_yaml(dump_recipe(load_recipe(path)), "r").value
        assert not list(validator.iter_errors(resolved)), path
    good = parse_yaml(shipped_recipes()["digits_cnn"].read_text(), "r").value
    assert not list(validator.iter_errors(good | {"version": 1}))
    devices = {"strategy": "mirrored", "devices": ["GPU:0", "GPU:1"], "cross_device": "nccl"}
    assert not list(validator.iter_errors(good | {"distribution": devices}))
    for change in (
        {"distribution": {"strategy": "parameter_server"}},
        {"distribution": {"strategy": "mirrored", "devices": []}},
        {"training": {"batch_size_per_replica": 0}},
        {"optimizer": {"name": "adam", "learning_rat": 1}},
        {"optimizer": {"name": "adam", "learning_rate": 0}},
        {"optimizer": "adamm"},
        {"architecture": {"name": "cnn", "activation": "rellu"}},
        {"training": {"epochs": 0}},
        {"nowhere": 1},
        {"version": 2},
    ):
        assert list(validator.iter_errors(good | change)), change
