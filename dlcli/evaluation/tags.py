"""Tags of words: scores of each word, and of the entities that words make up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from dlcli.data.stream import by_length, evaluation_stream
from dlcli.evaluation import metrics as scores
from dlcli.evaluation.evaluate import TEXT_BATCH_SIZE
from dlcli.evaluation.example_scores import ExampleScores, digest_of
from dlcli.evaluation.intervals import percentiles, resampled_means, wilson_interval

Entity = tuple[str, int, int]
"""Type, first and last word."""

_PART = re.compile(r"([BIESLU])-(.+)")
_LIKE_IOBES = {"L": "E", "U": "S"}  # BILOU's last and unit


def word_probabilities(predictor: keras.Model, sequences: Any) -> np.ndarray:
    """Probabilities (words, K) of each word's tag, in the order of the words.

    Args:
        predictor: gives probabilities (B, T, K).
        sequences: `dlcli.tasks.token_classification.TaggedTokens`, whose targets mark each word's first token.
    """
    ordered, order = by_length(sequences)
    found = []
    for inputs, targets in evaluation_stream(ordered, TEXT_BATCH_SIZE):
        first_pieces = targets.numpy() > 0
        probabilities = predictor.predict_on_batch(inputs)
        found += [row[words] for row, words in zip(probabilities, first_pieces, strict=True)]
    return np.concatenate([found[place] for place in np.argsort(order)])


def tags_report(
    probabilities: np.ndarray, targets: np.ndarray, counts: np.ndarray, names: Sequence[str], split: str
) -> dict[str, Any]:
    """Scores of tagged sentences, in the form of metrics.json.

    Intervals are of the choice of the sentences, as the words of one are not independent.

    Args:
        probabilities: (words, K).
        targets: (words,) class indices.
        counts: (N,) words of each sentence.
        names: K tags.
        split: the split's name.

    Returns:
        `accuracy` and macro averages over the words; where tags mark the parts of entities also `entity_precision`,
        `entity_recall` and `entity_f1`: an entity counts when its words and its type are exactly right.
    """
    probabilities, targets = scores.check_classes(probabilities, targets, names)
    if len(targets) != counts.sum():
        raise ValueError(f"Expected {counts.sum()} words. Received {len(targets)}")
    known = scores.classification_report(probabilities, targets, names)
    kept = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "log_loss")
    metrics = {name: known["metrics"][name] for name in kept}
    predicted = probabilities.argmax(axis=1)
    intervals = _word_intervals(probabilities, predicted, targets, counts)
    # No resample of a model without mistakes holds one; Wilson's interval knows that there may be some.
    by_words = wilson_interval(int((predicted == targets).sum()), len(targets))
    intervals["accuracy"] = [
        min(intervals["accuracy"][0], by_words[0]),
        max(intervals["accuracy"][1], by_words[1]),
    ]
    report = {"per_class": known["per_class"], "confusion_matrix": known["confusion_matrix"]}
    if marks_entities(names):
        pairs = _entity_pairs(predicted, targets, counts, names)
        entity_metrics, entity_intervals, per_entity = _entity_scores(pairs)
        metrics, intervals = metrics | entity_metrics, intervals | entity_intervals
        report["per_entity"] = per_entity
    undefined = {name: "no entity occurs in this split" for name, value in metrics.items() if value is None}
    return {
        "split": split,
        "examples": len(counts),
        "words": len(targets),
        "metrics": metrics,
        "intervals": {name: bounds for name, bounds in intervals.items() if metrics[name] is not None},
        **({"undefined": undefined} if undefined else {}),
        **report,
        "class_names": list(names),
    }


def marks_entities(names: Sequence[str]) -> bool:
    """Whether tags mark the parts of entities: B-PER, I-PER and the like, and nothing else but O."""
    parts = [_PART.fullmatch(name) for name in names if name != "O"]
    return all(parts) and any(part and part[1] in "BI" for part in parts)


def entities(tags: Sequence[str]) -> list[Entity]:
    """Entities of a sentence's tags in IOB1, IOB2, IOBES or BILOU form, by the rules of CoNLL's conlleval.

    Args:
        tags: such as `B-PER I-PER O`; a tag that continues nothing begins an entity.
    """
    found: list[Entity] = []
    open_type, first = "", 0
    before = "O"
    for index, tag in enumerate([*tags, "O"]):
        match = _PART.fullmatch(tag)
        part, kind = (_LIKE_IOBES.get(match[1], match[1]), match[2]) if match else ("O", "")
        goes_on = part in "IE" and before in "BI" and kind == open_type
        if open_type and not goes_on:
            found.append((open_type, first, index - 1))
        if part == "O":
            open_type = ""
        elif not goes_on:
            open_type, first = kind, index
        before = part
    return found


def tag_scores(
    probabilities: np.ndarray, targets: np.ndarray, counts: np.ndarray, names: Sequence[str]
) -> ExampleScores:
    """What each sentence scored; arguments as of `tags_report`."""
    probabilities, targets = scores.check_classes(probabilities, targets, names)
    predicted = probabilities.argmax(axis=1)
    sentences = np.repeat(np.arange(len(counts)), counts)
    right = np.bincount(sentences, predicted == targets, len(counts))
    quantities = [right, counts.astype(np.float64)]
    if marks_entities(names):
        pairs = [
            (set(wanted), set(found)) for wanted, found in _entity_pairs(predicted, targets, counts, names)
        ]
        quantities.append(np.array([float(len(wanted & found)) for wanted, found in pairs]))
        quantities.append(np.array([float(len(wanted) + len(found)) for wanted, found in pairs]))

    def metrics(means: np.ndarray) -> dict[str, np.ndarray]:
        accuracy = {"accuracy": means[:, 0] / np.maximum(means[:, 1], 1e-12)}
        if means.shape[1] == 2:
            return accuracy
        return {"entity_f1": 2 * means[:, 2] / np.maximum(means[:, 3], 1e-12), **accuracy}

    answers = digest_of(tuple(names), targets, counts)
    return ExampleScores(np.stack(quantities, axis=1), metrics, answers, units="sentences")


def _entity_pairs(
    predicted: np.ndarray, targets: np.ndarray, counts: np.ndarray, names: Sequence[str]
) -> list[tuple[list[Entity], list[Entity]]]:
    """(right, found) entities of each sentence."""
    tags, cuts = np.array(names), np.cumsum(counts)[:-1]
    split = zip(np.split(tags[targets], cuts), np.split(tags[predicted], cuts), strict=True)
    return [(entities(right.tolist()), entities(found.tolist())) for right, found in split]


def _entity_scores(
    pairs: Sequence[tuple[list[Entity], list[Entity]]],
) -> tuple[dict[str, float | None], dict[str, list[float]], list[dict[str, Any]]]:
    """Scores over all entities, their intervals, and those of each type, from (right, found) of each sentence."""
    types = sorted({kind for pair in pairs for side in pair for kind, _, _ in side})
    hits, support, chosen = (np.zeros((len(pairs), max(len(types), 1))) for _ in range(3))
    for row, (right, found) in enumerate(pairs):
        for column, kind in enumerate(types):
            wanted, given = ({each for each in side if each[0] == kind} for side in (right, found))
            hits[row, column], support[row, column], chosen[row, column] = (
                len(wanted & given), len(wanted), len(given),
            )  # fmt: skip
    names = ("entity_precision", "entity_recall", "entity_f1")
    overall = scores.scores_of_counts(*(part.sum(keepdims=True)[0] for part in (hits, support, chosen)))
    each = scores.scores_of_counts(*(part.sum(axis=0) for part in (hits, support, chosen)))
    sums = np.stack([part.sum(axis=1) for part in (hits, support, chosen)], axis=1)  # (N, 3)
    means = resampled_means(sums, np.random.default_rng(0)) * len(pairs)
    bounds = {}
    if support.any():
        drawn = scores.scores_of_counts(*np.rint(means).T)
        bounds = {name: percentiles(values) for name, values in zip(names, drawn, strict=True)}
    per_entity = [
        {
            "name": kind, "precision": _number(each[0][i]), "recall": _number(each[1][i]),
            "f1": _number(each[2][i]), "support": int(support[:, i].sum()),
        }
        for i, kind in enumerate(types)
    ]  # fmt: skip
    values = {name: _number(value[0]) for name, value in zip(names, overall, strict=True)}
    return values, bounds, per_entity


def _word_intervals(
    probabilities: np.ndarray, predicted: np.ndarray, targets: np.ndarray, counts: np.ndarray
) -> dict[str, list[float]]:
    """Intervals of the metrics of words over resamples of the sentences."""
    sentences = np.repeat(np.arange(len(counts)), counts)
    classes = probabilities.shape[1]

    def summed(values: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
        """Sums of values (words,) in each sentence, one column for each class: (N, K)."""
        width = 1 if columns is None else classes
        places = sentences * width + (0 if columns is None else columns)
        return np.bincount(places, values, len(counts) * width).reshape(len(counts), width)

    ones, right = np.ones(len(targets)), (predicted == targets).astype(float)
    losses = scores.example_losses(probabilities, targets)
    counted = [summed(right, targets), summed(ones, targets), summed(ones, predicted), summed(losses)]
    means = resampled_means(np.hstack(counted), np.random.default_rng(0))
    hits, support, chosen, lost = np.split(
        means * len(counts), np.cumsum([classes] * 3), axis=1
    )  # (R, K) each
    hits, support, chosen = (np.rint(part) for part in (hits, support, chosen))
    words = support.sum(axis=1)
    per_class = scores.scores_of_counts(hits, support, chosen)
    return {
        "accuracy": percentiles(hits.sum(axis=1) / words),
        "log_loss": percentiles(lost[:, 0] / words),
        **{
            f"macro_{name}": percentiles(np.nanmean(values, axis=1))
            for name, values in zip(("precision", "recall", "f1"), per_class, strict=True)
        },
    }


def _number(value: float) -> float | None:
    """A float that JSON can hold; None for NaN."""
    return None if np.isnan(value) else float(value)
