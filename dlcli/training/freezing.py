"""Which layers learn: `freeze` of a recipe, applied to a network and shown to the user."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import keras
import numpy as np
from rich.table import Table

from dlcli.console import console
from dlcli.errors import DlcliError
from dlcli.layers.walk import named_layers
from dlcli.recipe.names import suggest
from dlcli.recipe.schema import LoRA, WhatIsFrozen

NamedLayers = list[tuple[str, keras.layers.Layer]]


class Freezing:
    """Freezes and thaws the layers of one network; its head always learns.

    A frozen layer is one with `trainable = False`: its weights stay as they are, and a BatchNormalization uses, and
    keeps, the mean and variance that it has (Keras's inference mode).

    Args:
        network: before anything is frozen.
        head: names of the layers that the task added.
        lora: adapts kernels in place of training them; None trains them.
    """

    def __init__(self, network: keras.Model, head: Sequence[str], lora: LoRA | None = None) -> None:
        self.layers = named_layers(network)
        self.body = [(name, layer) for name, layer in self.layers if name not in head]
        # What an architecture froze itself, such as the whitening of airbench, stays frozen.
        self._learns = {name: layer.trainable for name, layer in self.body}
        self.adapters = add_adapters(self.body, lora) if lora is not None else {}
        self._lora = lora

    def apply(self, what: WhatIsFrozen) -> None:
        """Freezes these layers and no others.

        Raises:
            DlcliError: a name or pattern matches no layer; with near misses.
        """
        frozen = frozen_names(what, self.body)
        for name, layer in self.body:
            learns = self._learns[name] and name not in frozen
            if self._lora is None:
                layer.trainable = learns
                continue
            adapters = self.adapters.get(name, [])
            layer.trainable = learns and bool(adapters)
            if layer.trainable:
                for weight in layer.weights:
                    weight.trainable = any(weight is adapter for adapter in adapters)

    def show(self, title: str) -> None:
        """A table of what learns; neighbours that are alike share a row."""
        console.print(trainable_table(self.layers, title))


def frozen_names(what: WhatIsFrozen, body: NamedLayers) -> set[str]:
    """The names of the layers that `freeze` means.

    Args:
        what: of the recipe.
        body: the layers before the head, in the order of the data.

    Raises:
        DlcliError: a name or pattern matches no layer.
    """
    names = [name for name, _ in body]
    if isinstance(what, str):
        return set(names) if what == "all" else set()
    if what.until is not None:
        if what.until not in names:
            # All layers of a model inside the model: up to its last one.
            inside = [name for name in names if name.startswith(f"{what.until}/")]
            if not inside:
                raise DlcliError(_unknown("until", what.until, names))
            return set(names[: names.index(inside[-1]) + 1])
        return set(names[: names.index(what.until) + 1])
    if what.layers is not None:
        return set().union(*(_matching("layers", pattern, names) for pattern in what.layers))
    with_weights = [name for name, layer in body if layer.weights]
    if (what.last or 0) > len(with_weights):
        raise DlcliError(
            f"freeze.last {what.last}: only {len(with_weights)} layers before the head have weights; `freeze: none` "
            "trains them all"
        )
    return set(names) - set(with_weights[-(what.last or 0) :])


def _matching(key: str, pattern: str, names: Sequence[str]) -> set[str]:
    """Layers of this name, of this pattern, or inside a model of this name."""
    found = {
        name
        for name in names
        if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}/*")
    }
    if not found:
        raise DlcliError(_unknown(key, pattern, names))
    return found


def _unknown(key: str, name: str, names: Sequence[str]) -> str:
    near = suggest(name.strip("*"), names)
    meant = f"; did you mean {near}?" if near else "."
    shown = ", ".join([*names[:6], "...", *names[-6:]] if len(names) > 12 else names)
    return (
        f"freeze.{key} {name}: matches no layer{meant} Layers before the head, as `dlcli plan RECIPE --from SOURCE` "
        f"shows them: {shown}"
    )


def add_adapters(body: NamedLayers, lora: LoRA) -> dict[str, list[keras.Variable]]:
    """Gives kernels the two low-rank matrices of Hu et al. 2021, section 4.1, by Keras's own `enable_lora`.

    Args:
        body: the layers before the head.
        lora: rank, scale and patterns.

    Returns:
        Name of a layer of `body` -> its new weights.

    Raises:
        DlcliError: no layer can adapt, or a pattern matches none.
    """
    adaptable = [
        (name if part is layer else f"{name}/{part.path.removeprefix(layer.path).strip('/')}", name, part)
        for name, layer in body
        for part in layer._flatten_layers()  # Keras has no public walk into layers of layers
        if isinstance(part, keras.layers.Dense | keras.layers.EinsumDense | keras.layers.Embedding)
        and part.built
    ]
    if not adaptable:
        raise DlcliError("finetune.lora: the source has no Dense, EinsumDense or Embedding layer to adapt")
    parts = [path for path, _, _ in adaptable]
    chosen = set().union(*(_matching("lora.layers", pattern, parts) for pattern in lora.layers))
    added: dict[str, list[keras.Variable]] = {}
    for path, name, part in adaptable:
        if path not in chosen or part.lora_enabled:
            continue
        before = {id(weight) for weight in part.weights}
        part.enable_lora(lora.rank, lora_alpha=lora.alpha)
        added.setdefault(name, []).extend(weight for weight in part.weights if id(weight) not in before)
    return added


def trainable_table(layers: NamedLayers, title: str) -> Table:
    """Layer, type, weights that learn and weights that do not; runs of layers that are all frozen share a row."""
    table = Table(title=title, title_justify="left")
    for heading in ("layer", "learns", "frozen"):
        table.add_column(heading, justify="left" if heading == "layer" else "right", overflow="fold")
    learning = frozen = 0
    rows: list[tuple[list[str], int, int]] = []
    for name, layer in layers:
        learns, rests = _count(layer.trainable_weights), _count(layer.non_trainable_weights)
        if not learns + rests:
            continue
        learning, frozen = learning + learns, frozen + rests
        if rows and not learns and not rows[-1][1]:
            names, _, before = rows[-1]
            rows[-1] = ([*names, name], 0, before + rests)
        else:
            rows.append(([name], learns, rests))
    for names, learns, rests in rows:
        shown = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]} ({len(names)} layers)"
        table.add_row(shown, f"{learns:,}" if learns else "-", f"{rests:,}" if rests else "-")
    table.add_section()
    table.add_row("all", f"{learning:,}", f"{frozen:,}")
    return table


def _count(weights: Sequence[keras.Variable]) -> int:
    return sum(int(np.prod(weight.shape)) for weight in weights)
