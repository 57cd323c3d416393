"""What a recipe needs from the network, said as a whole before any work when the network is forbidden."""

from __future__ import annotations

import os
from pathlib import Path

from dlcli.downloads import DATA_SETS
from dlcli.errors import DlcliError
from dlcli.network import VARIABLE, is_offline
from dlcli.recipe.schema import Recipe

_INCEPTION = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
_INCEPTION_URL = f"https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/{_INCEPTION}"


def require_downloads(recipe: Recipe) -> None:
    """Offline, refuses a recipe whose data set, or network that scores its samples, is not on this machine.

    Other downloads are named with it. Where only weights to begin from are missing, building the network says so, a
    moment later.

    Raises:
        DlcliError: what is missing, and where to put it.
    """
    if not is_offline():
        return
    missing = [text for text in (_data_set(recipe), _scores(recipe)) if text]
    if missing:
        # The network is built to learn of its weights, which moves the seeds: only where nothing comes after it.
        listed = "\n".join(f"  {text}" for text in (*missing, _weights(recipe)) if text)
        raise DlcliError(
            f"the network is forbidden (--offline or {VARIABLE}=1), and this recipe needs what is not here:\n{listed}"
        )


def _data_set(recipe: Recipe) -> str:
    name = recipe.dataset.name
    if name not in DATA_SETS or recipe.dataset.arguments.get("path") is not None:
        return ""
    if name in ("imdb", "reuters"):
        from dlcli.data.text.keras_sets import to_fetch as texts_to_fetch

        return texts_to_fetch(name)
    from dlcli.data.keras_sets import to_fetch

    return to_fetch(name)


def _scores(recipe: Recipe) -> str:
    """Inception v3, which is wanted only after hours of training."""
    if (recipe.metrics.features or "").lower() != "imagenet":
        return ""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    if (home / "models" / _INCEPTION).is_file():
        return ""
    return (
        f"metrics.features imagenet: On a machine with network, fetch {_INCEPTION_URL} (84 MB) and put it in "
        f"{home / 'models'}, or leave metrics.features out"
    )


def _weights(recipe: Recipe) -> str:
    """Which file Keras would download it says only while it builds the network."""
    arguments = recipe.architecture.arguments
    source = str(arguments.get("source", ""))
    if recipe.architecture.name == "application" and arguments.get("weights", "imagenet") == "imagenet":
        model = arguments["model"]
    elif source.startswith("imagenet:"):
        model = source.removeprefix("imagenet:")
    else:
        return ""
    from dlcli.architectures.application import find_application, load_application

    try:
        load_application(find_application(model), "imagenet", (224, 224, 3))
    except (DlcliError, ValueError) as error:
        return str(error)
    return ""
