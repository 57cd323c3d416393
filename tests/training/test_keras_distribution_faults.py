"""What Keras does wrong on several devices, in Keras alone: a test fails when it is mended, and says what can go then."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest

from dlcli.training.keras_fixes import FAULTS

Found = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def found() -> Found:
    """What Keras did on two devices, and as two workers."""
    program = Path(__file__).parent / "keras_alone.py"
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    results: Found = json.loads(done.stdout)
    broken = [each["error"] for each in results.values() if "error" in each]
    assert len(results) == 3, done.stderr
    assert not broken, broken[0]
    return results


def mended(what: str, then: str) -> str:
    return f"Keras {keras.__version__} {what}: {then}"


WORKERS = "`distributed_step` in training/keras_fixes.py may give way to Keras's own train function"

RAISES = {
    "20585": ("first", "fit", r"ValueError: Attempt to convert a value \(PerReplica", WORKERS),
    "20585, logs": ("first", "step", "ValueError: Invalid reduction dimension 0", WORKERS),
    "19246": (
        "devices", "many_steps", "InvalidArgumentError.*Placeholder",
        "`settled` may leave steps_per_execution as it is",
    ),
    "19005": (
        "devices", "xla", "InvalidArgumentError.*(different_device|located in device)",
        "`distributed_step` may compile with XLA",
    ),
    "20582": (
        "devices", "accumulation", "RuntimeError.*merge_call",
        "but `AccumulatingModel` stays: it bounds memory and weighs parts, which Keras's accumulation does not",
    ),
    "odd first batch": (
        "devices", "odd_first_batch", "InvalidArgumentError.*AddN",
        "`fit.build` may leave the first batch to Keras",
    ),
    "draws without a seed": (
        "devices", "draws_without_seed", "ValueError.*only supports singleton",
        "layers may draw without a generator of their own",
    ),
    "normalization in a loop": (
        "devices", "normalization_in_a_loop", "RuntimeError.*merge_call",
        "`AccumulatingModel._unrolled` can go, `_looped` does for all",
    ),
}  # fmt: skip
"""Fault -> where it is seen, what comes of it, and what can go without it."""


@pytest.mark.parametrize("fault", RAISES)
def test_keras_still_raises(found: Found, fault: str) -> None:
    where, case, pattern, then = RAISES[fault]
    error = found[where][case]
    assert error, mended(f"no longer raises ({fault})", then)
    assert re.search(pattern, error, re.DOTALL), (
        f"Keras {keras.__version__} raises otherwise ({fault}): {error[:2000]}"
    )


@pytest.mark.parametrize("kind", ["clipvalue", "clipnorm", "global_clipnorm"])
def test_keras_still_clips_before_it_sums(found: Found, kind: str) -> None:
    weight = found["devices"]["clipped"][kind]
    # Of the gradients 12 and -4 each is cut to 1 and -1; their mean, 4, would be cut to 1.
    assert weight == 0, mended(
        f"clips by {kind} to a step of {weight}", "`with_summed_gradients` in training/keras_fixes.py can go"
    )


@pytest.mark.parametrize(("case", "step"), [("odd_last_batch", 7.5), ("one_example", 3.0)])
def test_keras_still_weighs_replicas_alike(found: Found, case: str, step: float) -> None:
    # The mean over examples has a step of 6 in both.
    assert found["devices"][case] == pytest.approx(step), mended(
        f"takes a step of {found['devices'][case]} ({case})",
        "`AccumulatingModel` may leave batches without parts to Keras, where a loss counts examples and not tokens",
    )


def test_keras_still_drops_the_same_on_all_replicas(found: Found) -> None:
    first, second = found["devices"]["draws"]
    assert first == second, mended(
        "draws otherwise on each replica",
        "`own_draws` in training/replica_state.py can go if states agree too",
    )


def test_keras_still_lets_states_of_draws_differ(found: Found) -> None:
    first, second = found["devices"]["uneven_draws"]
    assert (first[1], second[1]) == (1, 2), mended(
        f"has the states {first} and {second}",
        "`own_draws` in training/replica_state.py need not make them equal",
    )


def test_keras_still_keeps_moving_averages_of_each_replica(found: Found) -> None:
    then = "`agree` in training/replica_state.py can go if both hold"
    uneven, empty = found["devices"]["moving_averages"]
    assert uneven == [[1.0], [2.0]], mended(f"has the moving averages {uneven}", then)
    assert math.isnan(empty[1][0]), mended(f"has moving averages {empty} after an empty part", then)


def test_synchronized_normalization_counts_examples(found: Found) -> None:
    """Not a fault: dlcli relies on it for odd batches."""
    assert found["devices"]["synchronized_averages"] == [[[5.0], [5.0]], [[5.0], [5.0]]]


def test_losses_are_shares_where_they_were(found: Found) -> None:
    """Not a fault, but a trap: steps of our own divide by the replicas what Keras does not."""
    shares = {name: copies[0] for name, copies in found["devices"]["losses"].items()}
    assert shares == {"object": 0.5, "function": 1.0, "penalty": 1.0}, mended(
        f"gives on one of two replicas {shares} of losses of 1",
        "see what train steps in training/ divide by the replicas",
    )


def test_every_fault_with_a_number_is_shown_here() -> None:
    assert {fault.issue for fault in FAULTS if fault.issue} == {name for name in RAISES if name.isdecimal()}
