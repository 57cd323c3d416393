import json
import time

import numpy as np
import pytest

from dlcli.evaluation import intervals
from dlcli.evaluation.intervals import wilson_interval
from dlcli.evaluation.metrics import classification_report, multilabel_report, regression_report
from dlcli.evaluation.report import evaluate_predictions


def random_classes(count: int, classes: int, seed: int = 0, calibrated: bool = False):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, classes)) * 1.5
    targets = generator.integers(classes, size=count)
    logits[np.arange(count), targets] += 1.0
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    if calibrated:  # the truth is drawn from what the model says
        targets = (probabilities.cumsum(axis=1) > generator.random((count, 1))).argmax(axis=1)
    return probabilities, targets


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (45, 50, 0.7864, 0.9565),
        # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_published_values(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx([low, high], abs=5e-5)


def test_wilson_ends_exactly_at_0_and_1_and_refuses_nonsense():
    assert wilson_interval(0, 7)[0] == 0.0
    assert wilson_interval(7, 7)[1] == 1.0
    with pytest.raises(ValueError, match="3 of 2"):
        wilson_interval(3, 2)


def assert_textbook(fast, names, metrics, arrays, resamples=400, seed=1):
    """Intervals agree with those of the textbook: every metric from scratch on every resample."""
    generator = np.random.default_rng(seed)
    count = len(arrays[0])
    values = []
    for _ in range(resamples):
        drawn = generator.integers(count, size=count)
        found = metrics(*(array[drawn] for array in arrays))
        values.append([found[name] for name in names])
    for name, low, high in zip(names, *np.quantile(values, [0.025, 0.975], axis=0), strict=True):
        assert fast[name] == pytest.approx([low, high], abs=0.15 * (high - low)), name


def test_fast_bootstrap_agrees_with_the_textbook_one():
    probabilities, targets = random_classes(400, 4)
    fast = intervals.classification_intervals(probabilities, targets)
    names = ["macro_precision", "macro_recall", "macro_f1", "log_loss"]
    assert_textbook(
        fast,
        names,
        lambda p, t: classification_report(p, t, list("abcd"))["metrics"],
        [probabilities, targets],
    )


def test_fast_ranking_bootstrap_agrees_with_the_textbook_one():
    probabilities, targets = random_classes(300, 2)
    probabilities = probabilities.round(1)  # ties
    fast = intervals.classification_intervals(probabilities, targets)
    names = ["roc_auc", "average_precision"]
    assert_textbook(
        fast, names, lambda p, t: classification_report(p, t, ["a", "b"])["metrics"], [probabilities, targets]
    )


def test_multilabel_bootstrap_agrees_with_the_textbook_one():
    generator = np.random.default_rng(0)
    targets = generator.random((200, 3)) < 0.3
    probabilities = np.clip(generator.random((200, 3)) * 0.7 + 0.3 * targets, 0, 1)
    fast = intervals.multilabel_intervals(probabilities, targets)
    names = ["micro_f1", "macro_f1", "mean_average_precision"]
    assert_textbook(
        fast, names, lambda p, t: multilabel_report(p, t, list("abc"))["metrics"], [probabilities, targets]
    )


def test_regression_bootstrap_agrees_with_the_textbook_one():
    generator = np.random.default_rng(0)
    targets = 1e6 + generator.normal(size=(200, 2)) * [1, 5]
    predictions = targets + generator.normal(size=(200, 2)) * [0.5, 3]
    fast = intervals.regression_intervals(predictions, targets)
    names = ["mae", "rmse", "r2"]
    assert_textbook(
        fast, names, lambda p, t: regression_report(p, t, ["a", "b"])["metrics"], [predictions, targets]
    )


def test_intervals_cover_the_truth_about_95_times_in_100():
    # The truth: errors are normal with deviation 1, so RMSE is 1 and MAE sqrt(2 / pi).
    covered = np.zeros(2)
    for seed in range(200):
        generator = np.random.default_rng(seed)
        targets = generator.normal(size=(150, 1)) * 3
        found = intervals.regression_intervals(targets + generator.normal(size=(150, 1)), targets, seed)
        for position, (name, truth) in enumerate([("rmse", 1.0), ("mae", np.sqrt(2 / np.pi))]):
            covered[position] += found[name][0] <= truth <= found[name][1]
    assert (covered >= 0.90 * 200).all()
    assert (covered <= 0.99 * 200).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_of_a_calibrated_models_error_holds_the_error(seed):
    # Resampling adds noise to every bin, so plain percentiles would lie above the error itself.
    probabilities, targets = random_classes(400, 5, seed, calibrated=True)
    report = evaluate_predictions("classes", probabilities, targets, list("abcde"), "test")
    error = report["metrics"]["expected_calibration_error"]
    low, high = report["intervals"]["expected_calibration_error"]
    assert 0 <= low < error < high
    assert error - low == pytest.approx(high - error, rel=0.5)


def test_same_seed_same_interval():
    probabilities, targets = random_classes(100, 3)
    first, second = (intervals.classification_intervals(probabilities, targets, seed=3) for _ in range(2))
    assert first == second
    assert first["macro_f1"] != intervals.classification_intervals(probabilities, targets, seed=4)["macro_f1"]


def test_10000_examples_of_10_classes_take_about_a_third_of_a_second_of_cpu():
    probabilities, targets = random_classes(10_000, 10)
    start = time.process_time()
    intervals.classification_intervals(probabilities, targets)
    # Recomputing each metric a thousand times would take a minute.
    assert time.process_time() - start < 3


@pytest.mark.parametrize("draws", [10, 100_000, 10**9])
def test_fewer_resamples_for_many_examples(draws):
    assert intervals.resample_count(draws) == {10: 1000, 100_000: 1000, 10**9: 200}[draws]


def test_chunks_give_the_same_number_of_resamples(monkeypatch):
    quantities = np.random.default_rng(0).normal(size=(50, 2))
    monkeypatch.setattr(intervals, "CHUNK", 120)  # two resamples at a time
    means = intervals.resampled_means(quantities, np.random.default_rng(0))
    assert means.shape == (1000, 2)
    assert means.std(axis=0) == pytest.approx(quantities.std(axis=0) / np.sqrt(50), rel=0.1)


def test_the_whole_form_is_json_and_every_metric_lies_in_its_interval():
    probabilities, targets = random_classes(500, 7)
    names = list("abcdefg")
    report = evaluate_predictions("classes", probabilities, targets, names, "test")
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert list(report)[:4] == ["split", "examples", "metrics", "intervals"]
    assert (report["split"], report["examples"], report["class_names"]) == ("test", 500, names)
    assert (
        report["intervals"].keys() == report["metrics"].keys() >= {"accuracy", "top_5_accuracy", "macro_f1"}
    )
    for name, (low, high) in report["intervals"].items():
        assert low <= report["metrics"][name] <= high
    assert np.sum(report["confusion_matrix"]) == 500
    assert "undefined" not in report


def test_labels_and_values_have_their_forms():
    generator = np.random.default_rng(0)
    targets = (generator.random((50, 3)) < 0.4).astype(np.float32)
    labels = evaluate_predictions("labels", generator.random((50, 3)), targets, list("abc"), "validation")
    assert labels["intervals"].keys() == labels["metrics"].keys()
    assert len(labels["per_class"]) == 3
    values = evaluate_predictions("values", np.arange(5.0), np.array([0.0, 1, 2, 3, 5]), ["y"], "test")
    assert values["intervals"].keys() == {"mae", "rmse", "r2"}
    with pytest.raises(ValueError, match="kind"):
        evaluate_predictions("boxes", targets, targets, list("abc"), "test")


@pytest.mark.parametrize("kind", ["classes", "labels", "values"])
def test_one_example_gives_a_report(kind):
    outputs = np.array([[0.2, 0.8]])
    targets = np.array([1]) if kind == "classes" else np.array([[0.0, 1.0]])
    report = evaluate_predictions(kind, outputs, targets, ["a", "b"], "test")
    json.dumps(report, allow_nan=False)
    assert report["examples"] == 1
    assert report["undefined"] if kind != "labels" else "undefined" not in report
