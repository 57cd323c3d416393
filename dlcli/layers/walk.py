"""The layers of a model, nested models unfolded, under the names that every command shows and takes."""

from __future__ import annotations

import keras


def named_layers(model: keras.Model) -> list[tuple[str, keras.layers.Layer]]:
    """Layers in the order of the data, those of a model inside a model as `outer/inner`.

    Operations such as `keras.ops.reshape` are among them; a layer made of layers (a Transformer block) is one.
    """
    found: list[tuple[str, keras.layers.Layer]] = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += [(f"{layer.name}/{name}", inner) for name, inner in named_layers(layer)]
        else:
            found.append((layer.name, layer))
    return found
