"""Rank correlation and sensitivity to noise, against numbers worked out by hand."""

import numpy as np
import pytest

from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.trust.stability import NOISE, noise_sensitivity, seed_stability, spearman


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


@pytest.fixture
def image():
    return Subject("grey", np.random.default_rng(0).integers(20, 235, (6, 6, 3)).astype(np.uint8))


def brightness(subjects, outputs):
    return [Attribution(each.inputs.astype(np.float32).mean(-1), signed=False) for each in subjects]


def constant(subjects, outputs):
    return [Attribution(np.ones((6, 6), np.float32), signed=False) for _ in subjects]


def test_noise_moves_a_map_of_pixels_by_the_noise_and_a_constant_one_not_at_all(image):
    outputs = np.array([1])
    moved = noise_sensitivity(brightness, [image], outputs, brightness([image], outputs))
    still = noise_sensitivity(constant, [image], outputs, constant([image], outputs))
    assert still == [0]
    # Every pixel moves by up to 2 % of 255 in each channel.
    mean = np.linalg.norm(image.inputs.mean(-1))
    assert 0 < moved[0] <= 6 * (NOISE * 255 + 0.5) / mean


def test_noise_keeps_the_type_the_range_and_the_explained_output(image):
    seen = []

    def watch(subjects, outputs):
        seen.append((subjects[0].inputs, outputs[0]))
        return constant(subjects, outputs)

    noise_sensitivity(watch, [image], np.array([3]), constant([image], [3]), repeats=2)
    assert [output for _, output in seen] == [3, 3]
    assert all(each.dtype == np.uint8 for each, _ in seen)
    first, second = (each.astype(int) - image.inputs.astype(int) for each, _ in seen)
    assert 0 < np.abs(first).max() <= 5
    assert (first != second).any()
