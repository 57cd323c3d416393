"""Text from a language model: token after token, each drawn from what the model predicts behind those before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from dlcli.data.text.tokenizer import END, MASK, PAD, START, UNKNOWN
from dlcli.errors import DlcliError
from dlcli.layers.output_projection import LOGITS, PROJECTION, projection_of
from dlcli.layers.tokens import Tokens, tokens_of

if TYPE_CHECKING:
    from dlcli.data.text.tokenizer import Tokenizer

NEVER_DRAWN = [PAD, UNKNOWN, START, MASK]
UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What stands, in decoded text, for the first bytes of a character whose last ones are yet to come."""

Reader = Callable[[list[int], int], np.ndarray]
"""(tokens of the context, how many of the last are new) -> logits (V,) of the token behind them."""

_EACH_BY_ITSELF = (
    Tokens, keras.layers.Embedding, keras.layers.Dense, keras.layers.LayerNormalization, keras.layers.Dropout,
    keras.layers.SpatialDropout1D, keras.layers.Rescaling, keras.layers.Activation, keras.layers.Identity,
)  # fmt: skip
"""Layers that treat each token by itself, so that a step simply calls them."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Args:
        temperature: what the logits are divided by: below 1 the likely tokens gain, 0 always takes the likeliest.
        top_k: draw only from the k likeliest; None: from all.
        top_p: draw only from the likeliest that together have this probability (Holtzman et al. 2020, "The Curious
            Case of Neural Text Degeneration", section 3.1), in (0, 1].

    Raises:
        DlcliError: a value outside its range.
    """

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise DlcliError(
                f"temperature {self.temperature}: give 0 (always the likeliest token) or more; 1 leaves the model's "
                "probabilities as they are"
            )
        if self.top_k is not None and self.top_k < 1:
            raise DlcliError(f"top_k {self.top_k}: give 1 or more, or leave it out to draw from all tokens")
        if not 0 < self.top_p <= 1:
            raise DlcliError(
                f"top_p {self.top_p}: give a probability above 0 and up to 1 (1 draws from all tokens)"
            )

    def draw(self, logits: np.ndarray, random: np.random.Generator) -> int:
        """The id of a token, from logits (V,).

        Raises:
            DlcliError: logits that are not finite.
        """
        if not np.isfinite(logits).all():
            raise DlcliError(
                "the model predicts values that are not finite: its training went wrong; train it again"
            )
        scores = logits.astype(np.float64)
        scores[NEVER_DRAWN] = -np.inf
        if self.temperature == 0:
            return int(scores.argmax())
        with np.errstate(
            over="ignore"
        ):  # at a temperature near 0 all but the likeliest are infinitely unlikely
            scores = (scores - scores.max()) / self.temperature
        probabilities = np.exp(scores)
        probabilities /= probabilities.sum()
        order = np.argsort(-probabilities, kind="stable")[: self.top_k]
        if self.top_p < 1:
            share = probabilities[order] / probabilities[order].sum()
            order = order[np.cumsum(share) - share < self.top_p]
        kept = np.sort(order[probabilities[order] > 0])
        cumulated = np.cumsum(probabilities[kept])
        place = np.searchsorted(cumulated, random.random() * cumulated[-1], side="right")
        return int(kept[min(place, len(kept) - 1)])


def generate(
    model: keras.Model,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    max_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int | None = None,
    use_cache: bool = True,
) -> Iterator[str]:
    """The continuation of `prompt`, in pieces as they come; never a part of a character.

    Special tokens are not drawn, but for `<end>`, which ends the text. Before an empty prompt stands a line end, or
    where the vocabulary has none `<end>`, which stands between the documents in training. When the context is full (the
    `max_length` of training), its last half is kept and read again.

    Args:
        model: of the task language_modeling: int32 tokens (1, T) -> logits (1, T, V).
        tokenizer: the model's.
        prompt: the text to continue; may be empty.
        max_tokens: the most that are drawn.
        temperature: as for `Sampling`.
        top_k: as for `Sampling`.
        top_p: as for `Sampling`.
        seed: the same gives the same text, with cache or without; None: another text each time.
        use_cache: whether each token is read once, its keys, values or states kept; otherwise the whole context is
            read again for each new token. A model whose layers are no chain is always read so.

    Raises:
        DlcliError: a value outside its range, a prompt that is no text, or a model that is no language model.
    """
    sampling = Sampling(temperature, top_k, top_p)
    if max_tokens < 1:
        raise DlcliError(f"max_tokens {max_tokens}: give 1 or more")
    tokens = tokens_of(model)
    if tokens is None or len(model.output_shape) != 3:
        raise DlcliError(
            "this model is no language model, so it writes no text; train one with task language_modeling"
        )
    ids = first_tokens(tokenizer, prompt)
    read = (cached_reader(model, tokens.max_length) if use_cache else None) or whole_reader(model)
    random = np.random.default_rng(seed)
    return _pieces(tokenizer, ids, _draw(read, ids, tokens.max_length, sampling, random), max_tokens)


def first_tokens(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The ids of a prompt; those of an empty one as `generate` says.

    Raises:
        DlcliError: characters that are no Unicode text.
    """
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DlcliError(
            f"the prompt is no valid UTF-8 text (at character {error.start}); give it as UTF-8"
        ) from error
    (ids,) = tokenizer.encode([prompt])
    if len(ids):
        return [int(index) for index in ids]
    (line_end,) = tokenizer.encode(["\n"])
    return [int(index) for index in line_end] if len(line_end) and UNKNOWN not in line_end else [END]


def unknown_parts(tokenizer: Tokenizer, text: str) -> list[str]:
    """The characters or words of a text that the vocabulary lacks, each once, in their order."""
    ((ids, offsets),) = tokenizer.encode_with_offsets([text])
    return list(dict.fromkeys(text[start:end] for start, end in offsets[ids == UNKNOWN]))


def _draw(
    read: Reader, prompt: list[int], length: int, sampling: Sampling, random: np.random.Generator
) -> Iterator[int]:
    """Token after token, until `<end>`."""
    ids = list(prompt)
    start, known = 0, 0  # the context is ids[start:], of which the model has read ids[start:known]
    while True:
        if len(ids) - start > length:
            start = len(ids) - max(length // 2, 1)
            known = start
        drawn = sampling.draw(read(ids[start:], len(ids) - known), random)
        if drawn == END:
            return
        known = len(ids)
        ids.append(drawn)
        yield drawn


def _pieces(tokenizer: Tokenizer, prompt: list[int], drawn: Iterator[int], max_tokens: int) -> Iterator[str]:
    """The text of tokens as it grows.

    A token is decoded together with the ones before it, since decoders put spaces between words and join bytes.
    """
    ids, before, shown = (
        list(prompt),
        0,
        len(prompt),
    )  # ids[:shown] are written; ids[before:shown] are context
    for _, index in zip(range(max_tokens), drawn, strict=False):  # draws no token too many
        ids.append(index)
        written, text = tokenizer.decode(ids[before:shown]), tokenizer.decode(ids[before:])
        if len(text) > len(written) and not text.endswith(UNFINISHED):
            yield text[len(written) :]
            before, shown = shown, len(ids)
    rest = tokenizer.decode(ids[before:])[len(tokenizer.decode(ids[before:shown])) :]
    if rest:
        yield rest


def whole_reader(model: keras.Model) -> Reader:
    """Reads the whole context for each token."""
    predict = tf.function(
        lambda ids: model(ids, training=False)[0, -1], input_signature=[tf.TensorSpec((1, None), tf.int32)]
    )
    return lambda ids, _: predict(tf.constant([ids], tf.int32)).numpy()


def cached_reader(model: keras.Model, length: int) -> Reader | None:
    """Reads each token once, and keeps what later ones need of it; None for a model that cannot be read so.

    A layer with `step` and `empty_cache` keeps keys and values, a recurrent one its states; a layer with `step` alone
    is told the position; all others treat each token by itself.

    Args:
        model: a chain of layers from `Tokens` to the logits.
        length: the longest context.
    """
    layers = _chain(model)
    if layers is None:
        return None
    project = projection_of(model)
    empty = [_empty_state(layer, length) for layer in layers]
    state_specs = tf.nest.map_structure(tf.TensorSpec.from_tensor, empty)

    # A step is hundreds of small operations: compiled into one it takes 1.2 ms instead of 3 (gpt, 4 layers, 128 wide),
    # and compiling takes a second. XLA for GPUs needs parts of CUDA that are not always there.
    @tf.function(
        input_signature=[tf.TensorSpec((1, 1), tf.int32), state_specs, tf.TensorSpec((), tf.int32)],
        jit_compile=not tf.config.list_physical_devices("GPU"),
    )
    def step(ids: tf.Tensor, states: list[Any], position: tf.Tensor) -> tuple[tf.Tensor, list[Any]]:
        x, kept = ids, []
        for layer, state in zip(layers, states, strict=True):
            x, after = _step(layer, x, state, position)
            kept.append(after)
        return project(x)[0, -1], kept

    states = empty

    def read(ids: list[int], new: int) -> np.ndarray:
        nonlocal states
        first = len(ids) - new
        if not first:
            states = empty
        # Token by token, also a prompt: that takes less time than tracing a second function for prompts.
        for position in range(first, len(ids)):
            logits, states = step(tf.constant([ids[position : position + 1]]), states, tf.constant(position))
        return logits.numpy()

    return read


def _chain(model: keras.Model) -> list[keras.layers.Layer] | None:
    """The layers from the tokens to the features, one after another; None where they are no such chain."""
    chain = []
    x = model.inputs[0]
    for layer in model.layers[1:]:
        if layer.name in (PROJECTION, LOGITS):
            break
        read = (
            layer.input[0]
            if isinstance(layer, keras.layers.RNN) and isinstance(layer.input, list)
            else layer.input
        )
        if read is not x or not _has_steps(layer):  # beside its input, a recurrent layer may get the mask
            return None
        chain.append(layer)
        x = layer.output
    tail = {layer.name for layer in model.layers[1 + len(chain) :]}
    return chain if tail in ({LOGITS}, {PROJECTION, LOGITS}) else None


def _has_steps(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.layers.RNN):
        return layer.return_sequences and not layer.go_backwards
    if hasattr(layer, "empty_cache"):
        return layer.causal
    return hasattr(layer, "step") or isinstance(layer, _EACH_BY_ITSELF)


def _empty_state(layer: keras.layers.Layer, length: int) -> Any:
    if isinstance(layer, keras.layers.RNN):
        return list(layer.cell.get_initial_state(batch_size=1))
    return layer.empty_cache(1, length) if hasattr(layer, "empty_cache") else []


def _step(layer: keras.layers.Layer, x: tf.Tensor, state: Any, position: tf.Tensor) -> tuple[tf.Tensor, Any]:
    if isinstance(layer, keras.layers.RNN):
        output, state = layer.cell(x[:, 0], state, training=False)
        return output[:, None], list(state) if isinstance(state, list | tuple) else [state]
    if hasattr(layer, "empty_cache"):
        return layer.step(x, state, position)
    return (layer.step(x, position) if hasattr(layer, "step") else layer(x)), state
