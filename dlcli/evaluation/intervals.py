"""How sure a score is: 95 % intervals over the choice of the N test examples.

Proportions have Wilson's closed form. All else is a percentile bootstrap that never recomputes a metric from
scratch: each metric is a function of means of per-example quantities, so one matrix product gives it for many
resamples.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np

from dlcli.evaluation import metrics as scores

Interval = list[float]
Intervals = dict[str, Interval]

CONFIDENCE = 0.95
RESAMPLES = 1000
# Random numbers drawn for one interval at most, which bounds its time to seconds on a million examples ...
DRAWS = 200_000_000
# ... with no fewer resamples than the 2.5 % tail needs to hold a few.
FEWEST_RESAMPLES = 200
CHUNK = 4_000_000


def wilson_interval(successes: float, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a proportion.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference". Unlike the textbook
    interval it is right near 0 and 1 and for few trials.

    Args:
        successes: 0 to `trials`.
        trials: At least 1.
        confidence: Between 0 and 1.

    Returns:
        `[low, high]`.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"Expected 0 <= successes <= trials, trials >= 1. Received {successes} of {trials}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, shrink = successes / trials, 1 + z**2 / trials
    center = (share + z**2 / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    # At 0 and at N of N the bound is exactly 0 or 1; rounding must not say 0.9999999999999999.
    return [0.0 if successes == 0 else center - half, 1.0 if successes == trials else center + half]


def classification_intervals(probabilities: np.ndarray, targets: np.ndarray, seed: int = 0) -> Intervals:
    """Intervals of the metrics of `classification_report`; its arguments, checked."""
    count, classes = probabilities.shape
    predicted = probabilities.argmax(axis=1)
    generator = np.random.default_rng(seed)
    intervals = {"accuracy": wilson_interval(int((predicted == targets).sum()), count)}
    if classes > 5:
        intervals["top_5_accuracy"] = wilson_interval(
            int(scores.in_top(probabilities, targets, 5).sum()), count
        )
    confusion = scores.confusion_matrix(predicted, targets, classes)
    macro = _confusion_resamples(confusion, generator)
    intervals |= {f"macro_{name}": percentiles(values) for name, values in macro.items()}

    losses, gaps = (
        scores.example_losses(probabilities, targets),
        scores.calibration_gaps(probabilities, targets),
    )
    means = resampled_means(np.column_stack([losses, gaps]), generator)
    intervals["log_loss"] = percentiles(means[:, 0])
    intervals["expected_calibration_error"] = _unbiased(
        np.abs(means[:, 1:]).sum(axis=1), np.abs(gaps.mean(axis=0)).sum()
    )
    if classes == 2 and 0 < targets.sum() < count:
        positive = targets[:, None] == 1
        area, precision = _ranking_resamples(probabilities[:, 1:], positive, generator, resample_count(count))
        intervals |= {"roc_auc": percentiles(area[0]), "average_precision": percentiles(precision[0])}
    return intervals


def multilabel_intervals(
    probabilities: np.ndarray, positive: np.ndarray, threshold: float = 0.5, seed: int = 0
) -> Intervals:
    """Intervals of the metrics of `multilabel_report`; its arguments, checked."""
    count, labels = probabilities.shape
    predicted = probabilities >= threshold
    generator = np.random.default_rng(seed)
    intervals = {"subset_accuracy": wilson_interval(int((predicted == positive).all(axis=1).sum()), count)}
    means = resampled_means(np.hstack([predicted & positive, positive, predicted]), generator)
    hits, support, chosen = (np.rint(part * count) for part in np.split(means, 3, axis=1))  # each (R, K)
    intervals["micro_f1"] = percentiles(
        2 * hits.sum(axis=1) / np.maximum(support.sum(axis=1) + chosen.sum(axis=1), 1)
    )
    occurring = np.flatnonzero(positive.any(axis=0))
    if len(occurring):
        intervals["macro_f1"] = percentiles(
            _mean_of_present(scores.scores_of_counts(hits, support, chosen)[2])
        )
        resamples = resample_count(10 * count * labels)  # sorting and summing cost ten times a plain mean
        _, precision = _ranking_resamples(
            probabilities[:, occurring], positive[:, occurring], generator, resamples
        )
        intervals["mean_average_precision"] = percentiles(_mean_of_present(precision.T))
    return intervals


def regression_intervals(predictions: np.ndarray, targets: np.ndarray, seed: int = 0) -> Intervals:
    """Intervals of the metrics of `regression_report`; its arguments, checked."""
    errors = predictions - targets
    # Centered, so that the mean of squares minus the square of means does not cancel for targets far from 0.
    centered = targets - targets.mean(axis=0)
    quantities = np.hstack([np.abs(errors), errors**2, centered, centered**2])
    means = resampled_means(quantities, np.random.default_rng(seed))
    absolute, squared, mean, mean_square = np.split(means, 4, axis=1)  # each (R, K)
    intervals = {
        "mae": percentiles(absolute.mean(axis=1)),
        "rmse": percentiles(np.sqrt(squared).mean(axis=1)),
    }
    if (centered != 0).any(axis=0).all():
        variance = mean_square - mean**2
        # What rounding leaves of a resample that holds one value many times is no variance.
        variance = np.where(variance > 1e-12 * mean_square, variance, 0)
        intervals["r2"] = percentiles(scores.r2_of_means(squared, variance).mean(axis=1))
    return intervals


def percentiles(values: np.ndarray) -> Interval:
    """The middle 95 % of a metric's resamples (R,); those where it was undefined do not count."""
    low, high = np.nanquantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return [float(low), float(high)]


def resample_count(draws: int, most: int = RESAMPLES) -> int:
    """How many resamples of `draws` random numbers each: `most`, or fewer where that takes too long."""
    return max(FEWEST_RESAMPLES, min(most, DRAWS // max(draws, 1)))


def resampled_means(
    quantities: np.ndarray, generator: np.random.Generator, most: int = RESAMPLES
) -> np.ndarray:
    """Means of per-example quantities (N, Q) over bootstrap resamples of the examples: (R, Q), R at most `most`."""
    count = len(quantities)
    quantities = quantities.astype(np.float64)
    chunks = _resampled_counts(count, resample_count(count, most), generator)
    return np.concatenate([counts @ quantities for counts in chunks]) / count


def _resampled_counts(count: int, resamples: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each example stands in each resample, some resamples at a time: float64 (r, N)."""
    step = max(1, CHUNK // count)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = generator.integers(count, size=(rows, count))
        drawn += np.arange(rows)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


def _confusion_resamples(confusion: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Macro precision, recall and F1 of resamples, each (R,).

    Resampling examples is a multinomial draw of the matrix's cells, of which few are not 0.
    """
    count, classes = int(confusion.sum()), len(confusion)
    rows, columns = np.nonzero(confusion)  # in row order
    resamples = resample_count(len(rows))
    parts = []
    step = max(1, CHUNK // len(rows))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = generator.multinomial(count, confusion[rows, columns] / count, size=size)  # (r, cells)
        support = _sum_by_class(drawn, rows, classes)
        order = np.argsort(columns, kind="stable")
        chosen = _sum_by_class(drawn[:, order], columns[order], classes)
        hits = np.zeros((size, classes), np.int64)
        hits[:, rows[rows == columns]] = drawn[:, rows == columns]
        parts.append([_mean_of_present(values) for values in scores.scores_of_counts(hits, support, chosen)])
    return dict(zip(("precision", "recall", "f1"), np.concatenate(parts, axis=1), strict=True))


def _sum_by_class(drawn: np.ndarray, owners: np.ndarray, classes: int) -> np.ndarray:
    """Sums of the columns (r, cells) that share an owner, owners ascending: (r, K)."""
    present, starts = np.unique(owners, return_index=True)
    sums = np.zeros((len(drawn), classes), drawn.dtype)
    sums[:, present] = np.add.reduceat(drawn, starts, axis=1)
    return sums


def _mean_of_present(values: np.ndarray) -> np.ndarray:
    """Means over classes (R, K) -> (R,), leaving out those that a resample lacks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return np.nanmean(values, axis=1)


def _ranking_resamples(
    ranking: np.ndarray, positive: np.ndarray, generator: np.random.Generator, resamples: int
) -> np.ndarray:
    """Area under the ROC curve and average precision of resamples; NaN where a class is missing.

    Args:
        ranking: scores (N, L) for each of L yes-or-no questions, which all see the same resamples.
        positive: the answers (N, L).
        generator: of the resamples.
        resamples: R.

    Returns:
        (2, L, R).
    """
    parts = []
    orders = np.argsort(-ranking, axis=0, kind="stable")
    for counts in _resampled_counts(len(ranking), resamples, generator):
        chunk = []
        for label, order in enumerate(orders.T):
            starts = np.flatnonzero(
                np.diff(ranking[order, label], prepend=math.inf)
            )  # of runs of equal scores
            sorted_counts, answers = counts[:, order], positive[order, label]
            hits = np.add.reduceat(sorted_counts * answers, starts, axis=1)  # (r, S), best first
            chunk.append(_ranking_scores(hits, np.add.reduceat(sorted_counts, starts, axis=1) - hits))
        parts.append(np.stack(chunk, axis=1))  # (2, L, r)
    return np.concatenate(parts, axis=2)


def _ranking_scores(hits: np.ndarray, misses: np.ndarray) -> list[np.ndarray]:
    """Area under the ROC curve and average precision from positives and negatives at each score, best first.

    Both (r, S). A pair of a positive and a negative counts 1 when the positive stands first, 1/2 at a tie.
    """
    all_hits, all_misses = hits.cumsum(axis=1), misses.cumsum(axis=1)
    positives, negatives = all_hits[:, -1], all_misses[:, -1]
    won = (misses * (all_hits - hits / 2)).sum(axis=1)
    gained = (hits * all_hits / np.maximum(all_hits + all_misses, 1)).sum(axis=1)
    area = np.where(positives * negatives > 0, won / np.maximum(positives * negatives, 1), np.nan)
    return [area, np.where(positives > 0, gained / np.maximum(positives, 1), np.nan)]


def _unbiased(values: np.ndarray, estimate: float) -> Interval:
    """Percentiles moved by the resamples' bias, for a sum of absolute values: noise only ever adds to it.

    Without this the interval of a well calibrated model's calibration error lies wholly above that error.
    """
    low, high = percentiles(values - (values.mean() - estimate))
    return [max(0.0, low), max(0.0, high)]
