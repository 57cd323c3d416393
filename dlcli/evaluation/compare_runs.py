"""Several runs side by side: recipes, environments, metrics, paired tests on the same examples, learning curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from dlcli.console import status
from dlcli.errors import DlcliError
from dlcli.evaluation.comparison_plot import plot_comparison
from dlcli.evaluation.evaluate import examples_of_run, task_of_run
from dlcli.evaluation.example_scores import ExampleScores
from dlcli.evaluation.paired_tests import holm, mcnemar, paired_bootstrap, share_difference_interval
from dlcli.evaluation.run_differences import (
    Differences,
    check_comparable,
    environment_differences,
    history_columns,
    recipe_differences,
)
from dlcli.runs import Run
from dlcli.tasks import GENERATIVE_TASKS


@dataclass(frozen=True)
class Comparison:
    """What `dlcli compare` found."""

    names: tuple[str, ...]
    """Of the runs, as short as they can be told apart."""
    runs: tuple[Run, ...]
    recipes: Differences
    environments: Differences
    metrics: list[dict[str, Any]]
    """Of each run `split`, `metrics` and `intervals`, as metrics.json has them."""
    split: str
    """On which the tests were made."""
    tests: list[dict[str, Any]]
    """One for each pair of runs: a test, or why there is none."""
    picture: Path | None
    """The learning curves; None when no run has any."""

    def record(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "runs": [str(run.path) for run in self.runs],
            "recipes": self.recipes,
            "environments": self.environments,
            "metrics": self.metrics,
            "split": self.split,
            "tests": self.tests,
            "picture": None if self.picture is None else str(self.picture),
        }


def compare_runs(runs: Sequence[Run], picture: Path, split: str | None = None) -> Comparison:
    """Compares runs; what makes a test of two of them impossible is said in its place.

    Args:
        runs: two or more.
        picture: where the learning curves go.
        split: whose examples both models of a pair are scored on; left out, the one that metrics.json is about.

    Raises:
        DlcliError: fewer than two runs, one of them twice, or no such split.
    """
    check_comparable(runs, split)
    names = short_names([run.path for run in runs])
    reports = [run.metrics for run in runs]
    chosen = split or next((report["split"] for report in reports if report.get("split")), "test")
    histories = {name: history_columns(run) for name, run in zip(names, runs, strict=True)}
    histories = {name: columns for name, columns in histories.items() if columns}
    tests = _tests(runs, names, chosen)
    if histories:
        plot_comparison(histories, picture)
    return Comparison(
        names,
        tuple(runs),
        recipe_differences(runs),
        environment_differences(runs),
        [{part: report.get(part) for part in ("split", "metrics", "intervals")} for report in reports],
        chosen,
        tests,
        picture if histories else None,
    )


def short_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Names of the folders, or the whole paths where two folders have the same name."""
    names = tuple(path.name for path in paths)
    return names if all(names) and len(set(names)) == len(names) else tuple(str(path) for path in paths)


def _tests(runs: Sequence[Run], names: Sequence[str], split: str) -> list[dict[str, Any]]:
    """One row for each pair; p-values are raised for the number of tests."""
    pairs = list(combinations(range(len(runs)), 2))
    reasons = {pair: _why_not(runs[pair[0]], runs[pair[1]], split) for pair in pairs}
    needed = sorted({place for pair in pairs if reasons[pair] is None for place in pair})
    scores: dict[int, ExampleScores] = {}
    for place in needed:
        try:
            with status(f"scoring the {split} examples with {names[place]}"):
                scores[place] = _scores(runs[place], split)
        except DlcliError as error:
            for pair in pairs:
                if place in pair:
                    reasons[pair] = reasons[pair] or str(error)
    rows = []
    for first, second in pairs:
        reason = reasons[first, second] or _why_not_paired(scores[first], scores[second])
        found = {"reason": reason} if reason else paired_test(scores[first], scores[second])
        rows.append({"first": str(runs[first].path), "second": str(runs[second].path), **found})
    tested = [row for row in rows if row.get("p") is not None]
    for row, raised in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = raised
    return rows


def _why_not(first: Run, second: Run, split: str) -> str | None:
    """Why two runs cannot be compared on the same examples; None when nothing is known against it."""
    tasks = [run.recipe.task.name for run in (first, second)]
    if tasks[0] in GENERATIVE_TASKS or tasks[1] in GENERATIVE_TASKS:
        return "images are drawn, so there are no answers to pair; compare the distances and their intervals"
    if tasks[0] != tasks[1]:
        return f"one answers a task of {tasks[0]}, the other of {tasks[1]}"
    data = [run.trained_on for run in (first, second)]
    if None in data:
        return "an environment.json is missing, so nobody knows whether their data are the same"
    if data[0] != data[1]:
        return f"their data differ (fingerprints {str(data[0])[:8]} and {str(data[1])[:8]})"
    draws = [(run.recipe.dataset.validation_split, run.recipe.training.seed) for run in (first, second)]
    if split != "test" and draws[0] != draws[1]:
        return f"their {split} examples are drawn by dataset.validation_split and training.seed, which differ"
    return None


def _why_not_paired(first: ExampleScores, second: ExampleScores) -> str | None:
    if first.answers != second.answers or first.quantities.shape != second.quantities.shape:
        return f"they do not read the same {first.units} with the same right answers"
    if len(first.quantities) < 2:
        return "one example says nothing"
    return None


def _scores(run: Run, split: str) -> ExampleScores:
    run = Run(run.path)  # its model goes when the scores are there: several may not fit into memory
    examples, info = examples_of_run(run, run.recipe, split)
    return task_of_run(run, examples, info).score_examples(run.model, examples)


def paired_test(first: ExampleScores, second: ExampleScores) -> dict[str, Any]:
    """McNemar's test for models that pick one class, else the paired bootstrap of their first metric.

    Differences are first minus second.
    """
    found = paired_bootstrap(first.quantities, second.quantities, first.metrics)
    name = next(iter(found))
    differences = {
        metric: {"difference": _number(each.value), "interval": _interval(each.interval)}
        for metric, each in found.items()
    }
    result: dict[str, Any] = {"examples": len(first.quantities), "units": first.units, "metric": name}
    if first.right is None or second.right is None:
        p = _number(found[name].p)
        return {**result, "test": "paired bootstrap", "p": p, "differences": differences}
    only_first = int((first.right & ~second.right).sum())
    only_second = int((second.right & ~first.right).sum())
    differences[name]["interval"] = share_difference_interval(only_first, only_second, len(first.right))
    return {
        **result,
        "test": "McNemar",
        "p": mcnemar(only_first, only_second),
        "only_first_right": only_first,
        "only_second_right": only_second,
        "differences": differences,
    }


def _interval(interval: Sequence[float]) -> list[float] | None:
    return None if any(map(math.isnan, interval)) else [float(bound) for bound in interval]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
