"""Rank correlation, against numbers worked out by hand."""

import numpy as np
import pytest

from dlcli.explain.attribution import Attribution
from dlcli.explain.trust.stability import seed_stability, spearman


def test_spearman_knows_ranks_ties_and_flat_maps():
    assert spearman([1, 2, 3, 4], [10, 100, 1000, 10_000]) == 1
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == -1
    # Kendall's textbook case with ties: ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4.
    assert spearman([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert spearman(np.zeros((2, 2)), np.eye(2)) == 0
    assert spearman(np.zeros((2, 2)), np.ones((2, 2))) == 1
    assert np.isnan(spearman([1.0, np.nan], [1.0, 2.0]))


def test_seed_stability_pairs_the_maps():
    maps = [Attribution(np.array([1.0, 2, 3]), signed=True), Attribution(np.array([3.0, 2, 1]), signed=True)]
    assert seed_stability(maps, [maps[0], maps[0]]) == [1, -1]
    with pytest.raises(ValueError, match="shorter"):
        seed_stability(maps, maps[:1])
