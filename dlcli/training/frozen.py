"""Frozen features: a pretrained model reads every example once, before training, and only the head learns.

As with tables, `Data.preprocessing` leads from raw inputs to vectors, `network_examples` runs it over all examples, and
the saved model holds all of it. The vectors lie in `$DLCLI_CACHE/features` (or the user's cache folder), mapped into
memory: a second training of the same source, layer, pooling and examples runs no backbone. Deleting the folder is
always safe.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from dlcli.architectures import READ_A_SOURCE
from dlcli.console import Counting, note
from dlcli.data.cache import NewEntry, read_entry
from dlcli.data.examples import ArrayExamples, Data, DataInfo, Examples
from dlcli.data.load import load_data
from dlcli.data.stream import by_length, evaluation_stream
from dlcli.errors import DlcliError
from dlcli.layers.tokens import Tokens
from dlcli.pretrained.backbone import Backbone
from dlcli.pretrained.copies import connect
from dlcli.pretrained.features import POOLED, Pooling, pool, pooled
from dlcli.recipe.schema import Recipe
from dlcli.tasks.task import Task
from dlcli.training.needed import require_downloads

if TYPE_CHECKING:
    from dlcli.data.text.tokenizer import Tokenizer

CACHE = "features"

BATCH_SIZE = 64
"""Examples that the backbone reads at once: what a large one makes of them fits into memory."""

HASHED_AT_ONCE = 128

TAKEN = (POOLED, "frozen_features", "predictions")
"""Names of layers behind the backbone in the saved model."""

UNITS = {"image": "images", "table": "rows"}


@dataclass(frozen=True)
class FrozenData(Data):
    """Data whose preprocessing is a frozen pretrained model."""

    source: str = ""
    """What the user named."""
    settings: str = ""
    """All that decides on the features of an example, beside the example."""

    @property
    def backbone(self) -> keras.Model:
        """Raw inputs -> float32 (B, D)."""
        if self.preprocessing is None:
            raise ValueError("Expected data with a backbone. Received: none")
        return self.preprocessing


def source_backbone(recipe: Recipe) -> Backbone | None:
    """What the recipe's architecture takes from elsewhere; None for one that starts from nothing."""
    if recipe.architecture.name not in READ_A_SOURCE:
        return None
    from dlcli.pretrained.source import load_backbone

    arguments = recipe.architecture.arguments
    return load_backbone(arguments["source"], arguments.get("layer"), arguments.get("preprocessing", "auto"))


def load_data_for(recipe: Recipe, tokenizer: Tokenizer | None = None) -> Data:
    """The recipe's data as its architecture reads them; for `frozen_features` as vectors.

    Texts for a pretrained model have its vocabulary, and no more tokens than it can read.

    Args:
        recipe: resolved.
        tokenizer: of a run that goes on; else the source's, and without a source it is learnt.

    Raises:
        DlcliError: the source cannot read these data.
    """
    require_downloads(recipe)
    name = recipe.architecture.name
    if name == "pretrained" and recipe.dataset.tokenizer is None:  # its builder loads the source
        return load_data(recipe, tokenizer)
    backbone = source_backbone(recipe)
    if backbone is None:
        return load_data(recipe, tokenizer)
    data = load_data(recipe, tokenizer or backbone.tokenizer)
    if name == "frozen_features":
        return with_frozen_features(recipe, data, backbone)
    return replace(data, info=_as_the_source_reads(data.info, backbone))


def with_frozen_features(recipe: Recipe, data: Data, backbone: Backbone) -> FrozenData:
    """Data whose preprocessing is a backbone and its pooling.

    Args:
        recipe: with architecture `frozen_features`.
        data: as loaded.
        backbone: the recipe's source.

    Raises:
        DlcliError: the source cannot read these data.
    """
    for text in backbone.notes:
        note(f"{backbone.source}: {text}")
    pooling = recipe.architecture.arguments.get("pooling", "mean")
    info = _as_the_source_reads(data.info, backbone)
    preprocessing = _preprocessing(info, backbone, pooling, data.train)
    preprocessing.trainable = False
    settings = [backbone.fingerprint, backbone.layer, pooling, keras.config.dtype_policy().name]
    return FrozenData(
        data.train,
        data.validation,
        data.test,
        info,
        preprocessing,
        precomputed=True,
        source=backbone.source,
        settings=json.dumps(settings),
    )


def frozen_examples(examples: Examples, task: Task, data: FrozenData, *, training: bool) -> ArrayExamples:
    """Examples as vectors, from the cache or computed now, with the targets that the loss compares with."""
    if data.info.tokenizer is not None:
        examples = task.sequences(examples, training=training)
        targets = examples.targets
    else:
        targets = task.encode(examples.targets)
    return ArrayExamples(_features(examples, data), targets)


def _features(examples: Examples, data: FrozenData) -> np.ndarray:
    """float32 (N, D), mapped from the disk where the cache has room."""
    unit = UNITS.get(data.info.kind, "texts")
    key = hashlib.sha256(f"{data.settings} {_identity(examples, data.info)}".encode()).hexdigest()
    entry = read_entry(key, CACHE, np.float32)
    if entry is not None:
        note(f"features of {data.source}: {len(examples):,} {unit}, kept from an earlier training")
        return entry[0]
    new = NewEntry(key, (len(examples), data.backbone.output.shape[-1]), CACHE, np.float32)
    if new.problem:
        note(f"features are not kept for the next training: {new.problem}")
    try:
        with Counting(f"features of {data.source}", unit, len(examples)) as count:
            _compute(examples, data, new.pixels, count)
    except BaseException:
        new.discard()
        raise
    return new.finish({"source": data.source, "settings": data.settings})


def _compute(examples: Examples, data: FrozenData, features: np.ndarray, count: Counting) -> None:
    """Fills `features` batch by batch; sequences are read sorted by length, so that batches pad little."""
    ordered, order = by_length(examples)
    # Not `predict_on_batch`, which gives the rows of every device of a strategy, here all of them for each.
    compute = tf.function(lambda inputs: data.backbone(inputs, training=False), reduce_retracing=True)
    for inputs, _ in evaluation_stream(ordered, BATCH_SIZE):
        rows = np.asarray(compute(inputs))
        if not np.isfinite(rows).all():
            raise DlcliError(
                f"{data.source}: gives features that are not finite numbers; its weights are damaged, or its inputs "
                "are not what it was trained on (architecture.preprocessing)"
            )
        features[order[count.done : count.done + len(rows)]] = rows
        count.add(len(rows))


def _identity(examples: Examples, info: DataInfo) -> str:
    """sha256 of what the backbone reads: pixels, columns or token ids; of files their names, sizes and times."""
    digest = hashlib.sha256()
    paths = getattr(examples, "paths", None)
    if paths is not None:  # the data's fingerprint knows the files
        digest.update(repr((info.fingerprint, info.input_shape, len(paths))).encode())
        for path in paths:
            digest.update(f"{path}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()
    for inputs, _ in evaluation_stream(examples, HASHED_AT_ONCE):
        for array in tree.flatten(inputs):
            values = np.ascontiguousarray(array)
            digest.update(repr((values.dtype.str, values.shape)).encode())
            # Strings stand as objects in numpy, whose bytes are addresses.
            digest.update(repr(values.tolist()).encode() if values.dtype.hasobject else values.data)
    return digest.hexdigest()


def _as_the_source_reads(info: DataInfo, backbone: Backbone) -> DataInfo:
    """Of texts: the source's own vocabulary, and no more tokens than it can read."""
    if (info.tokenizer is None) != (backbone.tokenizer is None):
        reads = "texts" if backbone.tokenizer else "no texts"
        raise DlcliError(
            f"architecture.source {backbone.source}: reads {reads}, and the dataset is of kind {info.kind}"
        )
    if backbone.tokenizer is None:
        return info
    longest = backbone.max_length or info.max_length
    if info.max_length > longest:
        note(
            f"dataset.max_length {info.max_length} is more than the {longest} tokens that {backbone.source} can read"
        )
    return replace(info, tokenizer=backbone.tokenizer, max_length=min(info.max_length, longest))


def _preprocessing(info: DataInfo, backbone: Backbone, pooling: Pooling, train: Examples) -> keras.Model:
    """From pixels uint8 (B, H, W, C), token ids int32 (B, T) or a dict of columns (B, 1) to float32 (B, D)."""
    if info.kind == "table":
        _check_columns(backbone, train)
        return pooled(backbone, pooling)
    if info.tokenizer is None:
        image = keras.Input(info.input_shape, dtype="uint8", name="image")
        features = pool(backbone, connect(backbone, image, TAKEN), pooling)
        return keras.Model(image, features, name="preprocessing")
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    ids = Tokens(info.tokenizer.json, info.max_length, name="tokenizer")(tokens)
    features = pool(backbone, connect(backbone, ids, TAKEN), pooling, ids)
    return keras.Model(tokens, features, name="preprocessing")


def _check_columns(backbone: Backbone, train: Examples) -> None:
    """Refuses a table of other columns than the source's."""
    expected = backbone.model.input
    columns = train.read(np.arange(1))
    ours = {name: keras.backend.standardize_dtype(values.dtype.name) for name, values in columns.items()}
    theirs = (
        {name: keras.backend.standardize_dtype(each.dtype) for name, each in expected.items()}
        if isinstance(expected, dict)
        else {}
    )
    if ours != theirs:
        raise DlcliError(
            f"architecture.source {backbone.source}: does not read this table: its columns are {_listed(theirs)}; "
            f"the dataset's are {_listed(ours)}"
        )


def _listed(kinds: dict[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "none"
