"""SHAP and LIME of a row: what hiding its columns does to the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dlcli.explain import lime as linear
from dlcli.explain import shapley
from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.network import Network
from dlcli.explain.table.players import Bins, Columns

SHAP_SAMPLES = 512
"""Coalitions where there are too many columns for all of them, each of as many rows as the background has. For the 14
columns of adult the largest error is 0.5 % of the largest value."""

LIME_SAMPLES = 1000
"""Coalitions, each the mean over `dlcli.explain.table.players.DRAWS` rows."""


def shap(
    network: Network,
    subjects: Sequence[Subject],
    outputs: np.ndarray,
    *,
    background: Any = None,
    samples: int = SHAP_SAMPLES,
    seed: int = 0,
) -> list[Attribution]:
    """Shapley values of each row's columns; their sum and the base are the output.

    Lundberg and Lee 2017, "A Unified Approach to Interpreting Model Predictions": exact over all coalitions where few
    columns differ from the background, else by sampled coalitions.

    Args:
        network: of a table.
        subjects: the rows.
        outputs: the explained output of each.
        background: rows of the train split, whose values hidden columns take.
        samples: coalitions, where not all are tried.
        seed: of the sampled coalitions.

    Raises:
        DlcliError: there is no background.
    """
    explained = []
    for subject, output in zip(subjects, np.asarray(outputs).tolist(), strict=True):
        players = Columns(network, subject, output, background)
        settings = {"samples": samples, "background_rows": players.rows}
        generator = subject.generator(seed)
        one = shapley.explained(players, samples=samples, generator=generator, settings=settings)
        explained.append(_unless_alike(players.count, one))
    return explained


def lime(
    network: Network,
    subjects: Sequence[Subject],
    outputs: np.ndarray,
    *,
    background: Any = None,
    samples: int = LIME_SAMPLES,
    seed: int = 0,
) -> list[Attribution]:
    """What it does to the output that a column is about as it is: the slopes of a line fitted around each row.

    Ribeiro et al. 2016, "Why Should I Trust You?", section 3; `Bins` says what "about as it is" means.

    Args:
        network: of a table.
        subjects: the rows.
        outputs: the explained output of each.
        background: rows of the train split, from which values are drawn.
        samples: coalitions of columns.
        seed: of the drawing.

    Raises:
        DlcliError: there is no background.
    """
    explained = []
    for subject, output in zip(subjects, np.asarray(outputs).tolist(), strict=True):
        generator = subject.generator(seed)
        players = Bins(network, subject, output, background, generator)
        settings = {"samples": samples, "background_rows": players.rows}
        # Few superpixels are coarse; few columns are all there are.
        one = linear.explained(players, samples=samples, generator=generator, settings=settings, few=0)
        explained.append(_unless_alike(players.count, one))
    return explained


def _unless_alike(count: int, one: Attribution) -> Attribution:
    """Of a row without players says why there is nothing to see."""
    if count:
        return one
    return replace(one, warnings=("the row is like all of the background: there is nothing to compare",))
