import math

import numpy as np
import pytest

from dlcli.evaluation.metrics import (
    calibration_bins,
    classification_report,
    in_top,
    multilabel_report,
    regression_report,
)

# Five examples of three classes, worked out by hand. Predicted: a, b, b, c, a. True: a, b, c, c, b.
PROBABILITIES = np.array(
    [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.6, 0.2], [0.0, 0.1, 0.9], [0.5, 0.4, 0.1]]
)
TARGETS = np.array([0, 1, 2, 2, 1])
NAMES = ["a", "b", "c"]


def test_classification_by_hand():
    report = classification_report(PROBABILITIES, TARGETS, NAMES)
    assert report["confusion_matrix"] == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    assert report["per_class"] == [
        {"name": "a", "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1},
        {"name": "b", "precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2},
        {"name": "c", "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2},
    ]
    assert report["metrics"] == pytest.approx(
        {
            "accuracy": 3 / 5,
            "macro_precision": 2 / 3,
            "macro_recall": 2 / 3,
            "macro_f1": (2 / 3 + 1 / 2 + 2 / 3) / 3,
            # Every confidence has a bin of its own: |1-.7|, |1-.8|, |0-.6|, |1-.9|, |0-.5|
            "expected_calibration_error": (0.3 + 0.2 + 0.6 + 0.1 + 0.5) / 5,
            "log_loss": -(math.log(0.7) + math.log(0.8) + math.log(0.2) + math.log(0.9) + math.log(0.4)) / 5,
        }
    )


def test_calibration_error_averages_within_a_bin_before_the_absolute_value():
    # 0.81 and 0.85 share the bin (0.8, 0.867]: one right, one wrong -> |0.5 - 0.83|; 0.95 is alone and right.
    confidence = np.array([0.81, 0.85, 0.95])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    report = classification_report(probabilities, np.array([0, 1, 0]), ["a", "b"])
    expected = 2 / 3 * abs(0.5 - 0.83) + 1 / 3 * 0.05
    assert report["metrics"]["expected_calibration_error"] == pytest.approx(expected)


def test_calibration_bins_are_closed_above():
    assert calibration_bins(np.array([0.0, 1 / 15, 0.0667, 0.99, 1.0])).tolist() == [0, 0, 1, 14, 14]


def test_two_classes_rank():
    # Positives at 0.9 and 0.4, negatives at 0.6 and 0.4: of 4 pairs 2 are won, 1 is lost, 1 is a tie.
    scores = np.array([0.9, 0.6, 0.4, 0.4])
    metrics = classification_report(
        np.stack([1 - scores, scores], axis=1), np.array([1, 0, 1, 0]), ["no", "yes"]
    )["metrics"]
    assert metrics["roc_auc"] == pytest.approx(2.5 / 4)
    assert metrics["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * (2 / 4))


def test_top_5_counts_the_true_class_among_the_five_best():
    probabilities = np.array([[0.3, 0.25, 0.2, 0.15, 0.07, 0.03]] * 2)
    report = classification_report(probabilities, np.array([4, 5]), list("abcdef"))
    assert report["metrics"]["top_5_accuracy"] == 0.5
    assert "top_5_accuracy" not in classification_report(np.eye(5), np.arange(5), list("abcde"))["metrics"]


def test_a_model_that_says_the_same_for_every_class_is_right_at_the_top_by_index_only():
    assert in_top(np.full((4, 4), 0.25), np.arange(4), 1).tolist() == [True, False, False, False]


def test_macro_averages_leave_out_classes_that_are_absent_from_the_split():
    from sklearn.metrics import f1_score

    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(6), 60)
    targets = generator.integers(5, size=60)  # class 5 is predicted but never true
    report = classification_report(probabilities, targets, list("abcdef"))
    predicted = probabilities.argmax(axis=1)
    assert (predicted == 5).any()
    f1 = f1_score(targets, predicted, labels=np.unique(targets), average="macro")
    assert report["metrics"]["macro_f1"] == pytest.approx(f1)
    confusion_recall = np.diag(report["confusion_matrix"])[:5] / np.bincount(targets)
    assert report["metrics"]["macro_recall"] == pytest.approx(confusion_recall.mean())
    absent = {"name": "f", "precision": None, "recall": None, "f1": None, "support": 0}
    assert report["per_class"][5] == absent


def test_one_sample_of_one_class_has_no_roc_but_a_reason():
    report = classification_report(np.array([[0.2, 0.8]]), np.array([1]), ["a", "b"])
    assert report["metrics"]["accuracy"] == 1
    assert report["metrics"]["roc_auc"] is None
    assert report["undefined"] == dict.fromkeys(
        ["roc_auc", "average_precision"], "only one class occurs in this split"
    )


@pytest.mark.parametrize(
    ("probabilities", "targets", "message"),
    [
        ([[0.5, math.nan], [0.5, 0.5]], [0, 1], "NaN or infinity in 1 of 2 rows, first in row 0"),
        ([[2.0, -1.0]], [0], "logits"),
        ([[0.5, 0.5]], [2], "from 0 to 1. Received 2 to 2"),
        ([[0.5, 0.5]], [-1], "Received -1"),
        ([[0.5, 0.5]], [0.0], "integers"),
        ([[0.5, 0.5]], [0, 1], "one target for each of 1 outputs"),
        ([[0.2, 0.3, 0.5]], [0], r"shape \(N, 2\)"),
        (np.zeros((0, 2)), np.zeros(0, int), "N at least 1"),
    ],
)
def test_bad_arrays_are_refused(probabilities, targets, message):
    with pytest.raises(ValueError, match=message):
        classification_report(np.array(probabilities), np.array(targets), ["a", "b"])


def test_half_precision_probabilities_are_accepted():
    probabilities = np.array([[0.3, 0.7], [1.0, 0.0]], np.float16)
    assert classification_report(probabilities, np.array([1, 0]), ["a", "b"])["metrics"]["accuracy"] == 1


def test_multilabel_by_hand():
    probabilities = np.array([[0.9, 0.5, 0.1], [0.8, 0.2, 0.3], [0.1, 0.6, 0.2], [0.7, 0.4, 0.1]])
    targets = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0], [1, 1, 0]])  # the third label never occurs
    report = multilabel_report(probabilities, targets, ["x", "y", "z"])
    # x: hits 2, chosen 3, support 2. y: hits 2, chosen 2 (0.5 counts), support 3.
    assert report["metrics"] == pytest.approx(
        {
            "subset_accuracy": 2 / 4,
            "micro_f1": 2 * 4 / (5 + 5),
            "macro_f1": (0.8 + 0.8) / 2,
            # x ranks 0.9 yes, 0.8 no, 0.7 yes -> 1/2 + 1/2 * 2/3; y ranks its three first.
            "mean_average_precision": ((1 / 2 + 1 / 3) + 1) / 2,
        }
    )
    x, _, z = report["per_class"]
    assert (x["precision"], x["recall"], x["support"]) == (pytest.approx(2 / 3), 1.0, 2)
    assert (z["f1"], z["average_precision"], z["support"]) == (None, None, 0)
    higher = multilabel_report(probabilities, targets, ["x", "y", "z"], threshold=0.75)
    assert higher["metrics"]["subset_accuracy"] == 0


def test_multilabel_without_any_label_says_why():
    report = multilabel_report(np.full((2, 2), 0.1), np.zeros((2, 2)), ["x", "y"])
    assert report["metrics"] == {
        "subset_accuracy": 1.0, "micro_f1": 0.0, "macro_f1": None, "mean_average_precision": None,
    }  # fmt: skip
    assert report["undefined"]["macro_f1"] == "no label occurs in this split"
    with pytest.raises(ValueError, match="zeros and ones"):
        multilabel_report(np.full((2, 2), 0.1), np.full((2, 2), 2), ["x", "y"])


def test_regression_by_hand():
    targets = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    predictions = np.array([[1.0, 10.0], [2.0, 26.0], [6.0, 30.0]])
    report = regression_report(predictions, targets, ["small", "large"])
    # small: errors 0, 0, 3; total squares 2. large: errors 0, 6, 0; total squares 200.
    small = {"name": "small", "mae": 1.0, "rmse": math.sqrt(3), "r2": 1 - 9 / 2}
    large = {"name": "large", "mae": 2.0, "rmse": math.sqrt(12), "r2": 1 - 36 / 200}
    assert report["per_target"][0] == pytest.approx(small)
    assert report["per_target"][1] == pytest.approx(large)
    assert report["metrics"] == pytest.approx(
        {"mae": 1.5, "rmse": (math.sqrt(3) + math.sqrt(12)) / 2, "r2": (-3.5 + 0.82) / 2}
    )


def test_regression_takes_vectors_and_knows_when_r2_is_undefined():
    report = regression_report(np.array([1.0, 2.0]), np.array([5.0, 5.0]), ["y"])
    assert report["metrics"] == {"mae": 3.5, "rmse": pytest.approx(math.sqrt(12.5)), "r2": None}
    assert "one value only in this split: y" in report["undefined"]["r2"]
    assert "per_target" not in report
    with pytest.raises(ValueError, match="finite predictions"):
        regression_report(np.array([1.0, math.inf]), np.array([5.0, 5.0]), ["y"])
    with pytest.raises(ValueError, match=r"\(N, 2\)"):
        regression_report(np.array([1.0, 2.0]), np.array([5.0, 5.0]), ["y", "z"])
