"""The layers that travel with a model: complete, self-contained, and the same as dlcli's."""

from __future__ import annotations

import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import dlcli.layers
from dlcli.architectures.transformer import transformer
from dlcli.export.layer_source import FILE, layer_source, layers_beside, registered_names
from dlcli.layers.masked_pooling import MaskedPooling
from dlcli.layers.tokens import Tokens

EVERY = {f"dlcli>{name}" for name in dlcli.layers.__all__}


def test_every_layer_of_dlcli_can_travel(tmp_path):
    source = layer_source(EVERY, "all", "1.2.3")
    assert not re.search(r"^\s*(import|from) dlcli", source, re.MULTILINE)
    assert "TYPE_CHECKING" not in source
    assert "1.2.3" in source.splitlines()[0]
    (tmp_path / FILE).write_text(source, encoding="utf-8")
    before = keras.saving.get_registered_object("dlcli>Attention")
    with layers_beside(tmp_path):
        copies = {name: keras.saving.get_registered_object(name) for name in EVERY}
        assert all(cls.__module__ == "exported_layers" for cls in copies.values())
    assert keras.saving.get_registered_object("dlcli>Attention") is before


def test_only_what_is_needed_comes_along():
    source = layer_source({"dlcli>TransformerBlock"}, "one", "1")
    assert "class Attention(" in source  # it is made of it
    assert "def rotate(" in source
    assert "class Tokens" not in source
    assert source.index("class Attention(") < source.index("class TransformerBlock(")
    assert source.count("MASKED = -3e4") == 1


def test_names_are_found_wherever_a_configuration_holds_them():
    config = {
        "layers": [
            {
                "registered_name": "dlcli>Tokens",
                "config": {"kernel_initializer": {"registered_name": "dlcli>Dirac"}},
            },
            {"registered_name": None, "config": [{"registered_name": "keras_hub>Backbone"}]},
        ]
    }
    assert registered_names(config) == {"dlcli>Tokens", "dlcli>Dirac"}
    assert registered_names(config, "keras_hub") == {"keras_hub>Backbone"}


def test_two_things_of_one_name_are_refused(monkeypatch, tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}_layer.py").write_text(
            "import keras\nSIZE = 3\n"
            f"@keras.saving.register_keras_serializable('dlcli_test')\nclass {name.title()}(keras.layers.Layer):\n"
            "    size = SIZE\n"
        )
    monkeypatch.syspath_prepend(tmp_path)
    import one_layer  # noqa: F401
    import two_layer  # noqa: F401

    with pytest.raises(ValueError, match="SIZE in one_layer and in two_layer"):
        layer_source({"dlcli_test>One", "dlcli_test>Two"}, "both", "1")


def test_a_copied_transformer_computes_the_same_in_a_process_without_dlcli(tmp_path):
    keras.utils.set_random_seed(0)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    features = transformer(
        Tokens("{}", 9, name="tokenizer")(tokens), 30, 9, num_layers=1, num_heads=2, width=8
    )
    model = keras.Model(tokens, keras.layers.Dense(2)(MaskedPooling("mean")(features)))
    model.save(tmp_path / "model.keras")
    names = registered_names(model.get_config())
    assert names >= {"dlcli>Tokens", "dlcli>TransformerBlock", "dlcli>MaskedPooling"}
    (tmp_path / FILE).write_text(layer_source(names, "a test", "1"), encoding="utf-8")
    ids = np.array([[5, 6, 7, 0], [8, 9, 0, 0]], np.int32)
    np.save(tmp_path / "ids.npy", ids)
    np.save(tmp_path / "outputs.npy", model(ids).numpy())
    program = (
        "import sys; sys.modules['dlcli'] = None; import keras, layers, numpy as np\n"
        "model = keras.models.load_model('model.keras')\n"
        "found = keras.ops.convert_to_numpy(model(np.load('ids.npy')))\n"
        "np.testing.assert_allclose(found, np.load('outputs.npy'), atol=1e-6)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
