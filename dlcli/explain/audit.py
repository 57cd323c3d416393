"""`dlcli explain RUN --audit`: which method to believe for this model, and what its errors look like.

audit.json holds the comparison; the pictures of the worst errors and of the most confused pairs stand in a folder as
`dlcli explain` writes it, beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dlcli.console import Counting
from dlcli.data.examples import DataInfo
from dlcli.errors import DlcliError
from dlcli.evaluation.metrics import confusion_matrix
from dlcli.evaluation.plots import confident_mistakes
from dlcli.explain import METHODS, OF_THE_MODEL
from dlcli.explain.choice import Options
from dlcli.explain.explain import data_of_run, explain_subjects
from dlcli.explain.explainer import BATCH_SIZE, Explainer
from dlcli.explain.labelled import Labelled, labelled_split
from dlcli.explain.record import Explained, number
from dlcli.explain.source import Source
from dlcli.explain.table.rows import some_of
from dlcli.runs import write_json

PAIRS = 3
"""Pairs of classes that are confused most often, each shown by its most confident examples."""

EXAMPLES_OF_A_PAIR = 2

WORST = 6
"""Errors of which the model was most sure."""

SCRAMBLED = 8
"""Examples of the randomization check."""

SHOWN_METHODS = 2
"""Methods that explain the errors: the most faithful of this audit."""


@dataclass
class Measured:
    """What is known of one method after the audit."""

    faithfulness: list[float] = field(default_factory=list)
    better: list[bool] = field(default_factory=list)
    stability: list[float] = field(default_factory=list)
    completeness: list[float] = field(default_factory=list)
    failed: int = 0
    """Flat maps and maps with NaN."""
    flagged: int = 0
    """Maps with a warning."""
    seconds: float = 0.0
    examples: int = 0

    def add(self, explained: Explained) -> None:
        """Counts one explanation."""
        self.examples += 1
        self.failed += explained.status != "ok"
        self.flagged += bool(explained.attribution.warnings)
        if (trust := explained.trust) is None:
            return
        self.faithfulness.append(trust.faithfulness)
        self.better.append(trust.verdict == "better than random")
        self.stability += [] if trust.stability is None else [trust.stability]
        self.completeness += [] if trust.completeness is None else [trust.completeness]

    def row(self) -> dict[str, Any]:
        """A line of the comparison; None where a method has no such number."""
        several = len(self.faithfulness) > 1
        error = np.std(self.faithfulness, ddof=1) / math.sqrt(len(self.faithfulness)) if several else None
        return {
            "faithfulness": number(_mean(self.faithfulness)),
            "faithfulness_error": number(error),
            "better_than_random": number(_mean(self.better)),
            "stability": number(_mean(self.stability)),
            "completeness": number(_mean(self.completeness)),
            "failed": self.failed,
            "flagged": self.flagged,
            "seconds_a_sample": number(self.seconds / max(self.examples, 1)),
        }


def audit_run(
    source: Source, folder: Path | None, options: Options, *, limit: int, changes: Sequence[str] = ()
) -> dict[str, Any]:
    """Compares the methods on examples of the test split, and explains the model's errors on all of it.

    Args:
        source: a run of images, tables or texts with classes, labels or values.
        folder: where files go; RUN/audit when None.
        options: of the methods; without methods, all that the model can have.
        limit: examples on which the methods are compared, drawn by the seed.
        changes: of `--set`: where the data are now.

    Returns:
        What audit.json holds.

    Raises:
        DlcliError: it is no run, has no such data, or predicts tokens, of which every text has as many as it is long.
    """
    if source.language:
        raise DlcliError(
            "--audit compares predictions with labels, and a language model has none; give it INPUTS"
        )
    if not options.trust:
        raise DlcliError("--no-trust: an audit measures nothing else; leave it out")
    folder = folder or source.path / "audit"
    labelled = labelled_split(source, changes)
    explainer = Explainer(
        source,
        options,
        data_of_run(source, options, changes) if source.kind == "table" else None,
        default=tuple(name for name in METHODS[source.kind] if name not in OF_THE_MODEL),
    )
    chosen = some_of(len(labelled.examples), limit, options.seed)
    count = len(chosen)
    with Counting(f"methods compared on the {labelled.split} split", "examples", count) as progress:
        measured, randomization = _compare(explainer, labelled, chosen, progress)
    rows = {name: each.row() for name, each in measured.items()}
    ranked = sorted(rows, key=lambda name: -(rows[name]["faithfulness"] or -math.inf))
    errors = find_errors(labelled.outputs(), labelled.targets, labelled.info)
    report: dict[str, Any] = {
        "run": str(source.path),
        "split": labelled.split,
        "examples": count,
        "of": len(labelled.examples),
        "seed": options.seed,
        "methods": {name: rows[name] for name in ranked},
        "randomization": randomization,
        "confused": errors.confused,
        "errors": list(errors.examples.values()),
        "index": None,
        "file": str(folder / "audit.json"),
    }
    write_json(folder / "audit.json", report)
    if errors.examples:
        # The true class is often the second.
        shown = replace(options, methods=tuple(ranked[:SHOWN_METHODS]), top=max(2, options.top))
        subjects = labelled.subjects(np.array(list(errors.examples)))
        wrong = {labelled.name(index): why for index, why in errors.examples.items()}
        told = [replace(each, notes=(*each.notes, wrong[each.name])) for each in subjects]
        shown_in = explain_subjects(source, told, folder / "errors", shown, changes=changes, numbered=True)
        report["index"] = shown_in["index"]
        write_json(folder / "audit.json", report)
    return report


def _compare(
    explainer: Explainer, labelled: Labelled, chosen: np.ndarray, progress: Counting
) -> tuple[dict[str, Measured], dict[str, Any]]:
    """Each method on the same examples; the time is that of the maps alone, after a first call that compiles."""
    size = BATCH_SIZE[labelled.source.kind]
    explainer.doing = progress.doing
    first = labelled.subjects(chosen[:size])
    if not first:
        raise DlcliError(f"none of the {labelled.split} examples holds a token that the model knows")
    explainer.try_on(first[0])
    explainer.explain(first[:2])
    explainer.seconds.clear()
    measured = {method.name: Measured() for method in explainer.methods}
    for start in range(0, len(chosen), size):
        subjects = labelled.subjects(chosen[start : start + size])
        for each in explainer.explain(subjects) if subjects else ():
            for one in each:
                measured[one.method].add(one)
        progress.add(len(subjects))
    for name, seconds in explainer.seconds.items():
        measured[name].seconds = seconds
    return measured, explainer.randomization(first, SCRAMBLED)


@dataclass(frozen=True)
class Errors:
    """What a model does wrong."""

    examples: dict[int, str]
    """Index of an example -> what is wrong with it."""
    confused: list[dict[str, Any]]
    """`true`, `predicted` and `count`, the most frequent pair first."""


def find_errors(outputs: np.ndarray, targets: np.ndarray, info: DataInfo) -> Errors:
    """The pairs of classes that are confused most often, and the errors of which the model was most sure.

    Args:
        outputs: probabilities or values (N, K).
        targets: class indices (N,), labels or values (N, K).
        info: what they are.
    """
    names = info.class_names
    examples: dict[int, str] = {}
    if info.target != "classes":
        distance = np.abs(outputs - targets.reshape(outputs.shape))
        if info.target == "values":  # each column in its own unit
            distance = distance / (np.std(targets.reshape(outputs.shape), axis=0) + 1e-12)
        for index in np.argsort(-distance.max(axis=1), kind="stable")[:WORST].tolist():
            column = int(distance[index].argmax())
            examples[index] = f"predicted {names[column]} {outputs[index, column]:.4g}"
        return Errors(examples, [])
    predicted = outputs.argmax(axis=1)
    counts = confusion_matrix(predicted, targets, len(names))
    np.fill_diagonal(counts, 0)
    confused = []
    for flat in np.argsort(-counts, axis=None, kind="stable")[:PAIRS].tolist():
        true, taken = divmod(flat, len(names))
        if not counts[true, taken]:
            break
        confused.append({"true": names[true], "predicted": names[taken], "count": int(counts[true, taken])})
        these = np.flatnonzero((targets == true) & (predicted == taken))
        sure = these[np.argsort(-outputs[these, taken], kind="stable")[:EXAMPLES_OF_A_PAIR]]
        others = f", like {len(these) - 1} others" if len(these) > 1 else ""
        examples |= dict.fromkeys(sure.tolist(), f"taken for {names[taken]}{others}")
    for index in confident_mistakes(outputs, targets, WORST).tolist():
        share = 100 * outputs[index, predicted[index]]
        examples.setdefault(index, f"taken for {names[predicted[index]]}, {share:.0f} % sure")
    return Errors(examples, confused)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None
