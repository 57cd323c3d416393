"""Permutation importance: which columns the model needs, over many rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlcli.evaluation.predict import LABEL_THRESHOLD
from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.network import Network
from dlcli.explain.table.players import Mixed, background_like

REPEATS = 10
"""How often each column is shuffled."""

MAX_ROWS = 1000
"""Rows that are shuffled; the error of an accuracy over them is at most 1.6 %."""

FEW_ROWS = 30
"""With fewer rows one of them moves the accuracy by more than 3 %."""


@dataclass(frozen=True, eq=False)
class Importance:
    """How much worse a model becomes when a column is shuffled."""

    mean: np.ndarray
    """float64 (D,): drop of accuracy, or rise of the mean absolute error in the target's unit; over the repeats."""
    deviation: np.ndarray
    """float64 (D,): standard deviation over the repeats."""
    score: float
    """Accuracy or error of the rows as they are."""
    metric: str
    """`accuracy` or `mean_absolute_error`."""
    rows: int


def permutation_importance(
    network: Network,
    subjects: Sequence[Subject],
    outputs: np.ndarray,
    *,
    background: Any = None,
    labelled: tuple[Any, np.ndarray] | None = None,
    samples: int = REPEATS,
    seed: int = 0,
) -> list[Attribution]:
    """The importance of each column for the model as a whole, the same for every row.

    Breiman 2001, "Random Forests", section 10; for any model Fisher, Rudin and Dominici 2019, "All Models are Wrong,
    but Many are Useful", section 3. Without labels, the model's own answers take their place: then it says how often
    the answers change, not how good they are.

    Args:
        network: of a table.
        subjects: the rows.
        outputs: the explained outputs; the accuracy is that of all classes together, of labels and values of each.
        background: rows without labels, when there are no others.
        labelled: rows that the model was not trained on, and their targets.
        samples: how often each column is shuffled.
        seed: of the shuffling.

    Raises:
        DlcliError: there are no rows.
    """
    rows, targets = (background, None) if labelled is None else labelled
    row = subjects[0].inputs
    columns = background_like(row, rows)
    known: dict[int, Attribution] = {}
    explained = []
    for output in np.asarray(outputs).tolist():
        # Classes share one accuracy; of labels and values each has its own.
        key = 0 if network.target == "classes" else output
        if key not in known:
            found = importance(
                network, columns, targets, output=output, repeats=samples, seed=seed,
                stack=not isinstance(row, Mapping),
            )  # fmt: skip
            known[key] = _attribution(found, targets is not None, samples)
        explained.append(known[key])
    return explained


def importance(
    network: Network,
    columns: Mapping[str, np.ndarray],
    targets: np.ndarray | None = None,
    *,
    output: int = 0,
    repeats: int = REPEATS,
    seed: int = 0,
    stack: bool = False,
) -> Importance:
    """How much worse the model becomes when each column is shuffled among the rows.

    Args:
        network: of a table.
        columns: each (N, 1); of at most MAX_ROWS rows, the first.
        targets: class indices (N,), labels or values (N, K); the model's own answers when None.
        output: which label or value; of no meaning for classes.
        repeats: how often each column is shuffled.
        seed: of the shuffling.
        stack: whether the model reads the columns as one array (B, D).
    """
    columns = {name: values[:MAX_ROWS] for name, values in columns.items()}
    mixed = Mixed(network, columns, stack=stack)
    own = np.arange(len(next(iter(columns.values()))))
    sources = np.tile(own, (len(columns), 1))  # (D, N)
    given = mixed.outputs(sources)
    truth = (
        _answers(network, given, output) if targets is None else _truth(network, targets, output, len(own))
    )
    loss = _loss(network, given, truth, output)
    rises = np.zeros((len(columns), repeats))
    for place in range(len(columns)):
        generator = np.random.default_rng([seed, place])  # the other columns do not matter
        shuffled = np.tile(sources, (1, repeats))
        shuffled[place] = np.concatenate([generator.permutation(own) for _ in range(repeats)])
        outputs = mixed.outputs(shuffled).reshape(repeats, len(own), -1)
        rises[place] = [_loss(network, each, truth, output) - loss for each in outputs]
    is_error = network.target == "values"
    return Importance(
        mean=rises.mean(axis=1),
        deviation=rises.std(axis=1, ddof=1 if repeats > 1 else 0),
        score=loss if is_error else 1 - loss,
        metric="mean_absolute_error" if is_error else "accuracy",
        rows=len(own),
    )


def _attribution(found: Importance, labelled: bool, repeats: int) -> Attribution:
    warnings = ["it is of the model as a whole, and the same for every row"]
    if not labelled:
        warnings.append("there are no labels: it says how often shuffling changes the model's answers")
    if found.rows < FEW_ROWS:
        warnings.append(f"{found.rows} rows are too few to trust it")
    return Attribution(
        found.mean.astype(np.float32),
        signed=True,
        scores={found.metric: found.score, "largest_deviation": float(found.deviation.max())},
        settings={
            "samples": repeats,
            "rows": found.rows,
            "metric": found.metric if labelled else f"{found.metric} of the model's own answers",
            "deviations": [float(f"{each:.6g}") for each in found.deviation],
        },
        warnings=tuple(warnings),
    )


def _answers(network: Network, given: np.ndarray, output: int) -> np.ndarray:
    """(N,): the class, whether the label holds, or the value."""
    if network.target == "classes":
        return given.argmax(axis=1)
    if network.target == "labels":
        return network.probabilities(given)[:, output] >= LABEL_THRESHOLD
    return given[:, output]


def _truth(network: Network, targets: np.ndarray, output: int, count: int) -> np.ndarray:
    targets = np.asarray(targets)[:count]
    if network.target == "classes":
        return targets.reshape(-1)
    column = targets.reshape(len(targets), -1)[:, output]
    return column >= LABEL_THRESHOLD if network.target == "labels" else column


def _loss(network: Network, given: np.ndarray, truth: np.ndarray, output: int) -> float:
    """Share of wrong answers, or the mean absolute error."""
    answers = _answers(network, given, output)
    return float(np.mean(np.abs(answers - truth) if network.target == "values" else answers != truth))
