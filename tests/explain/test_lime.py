from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.linear_model import Lasso, LinearRegression, Ridge

from dlcli.explain import lime as module
from dlcli.explain.lime import all_coalitions, drawn, fit, lime, proximity


class Game:
    """Players whose value is a function of which of them are present, as floats (N, M)."""

    def __init__(self, count: int, function: Callable[[np.ndarray], np.ndarray]) -> None:
        self.count, self.function = count, function
        self.asked = 0

    def value(self, present: np.ndarray) -> np.ndarray:
        self.asked += len(present)
        return self.function(np.asarray(present, float))

    def spread(self, each: np.ndarray) -> np.ndarray:
        return each.astype(np.float32)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def small_network(x: np.ndarray) -> np.ndarray:
    """`BasicModel_MultiLayer` of captum 0.9 (captum/testing/helpers/basic_models.py), its first output."""
    return np.maximum(x.sum(-1, keepdims=True) + np.array([-10, 1, 1, 1]), 0).sum(-1) - 1


def penalty(present: np.ndarray, weights: np.ndarray) -> float:
    """As scikit-learn counts it: for weights that do not sum to 1."""
    spread = np.average(
        (present - np.average(present, axis=0, weights=weights)) ** 2, axis=0, weights=weights
    )
    return module.RIDGE * spread.mean() * weights.sum()


def test_coefficients_of_a_line_are_its_own() -> None:
    random = generator(1)
    x, mean, w = random.normal(size=(3, 20))
    game = Game(20, lambda present: (present * x + (1 - present) * mean) @ w + 7)
    coefficients, scores, warnings = lime(game, samples=1000, generator=generator())
    np.testing.assert_allclose(coefficients, (x - mean) * w, rtol=0.05, atol=0.005)
    assert scores["r2"] > 0.99
    assert scores["segments"] == 20
    assert warnings == ()
    assert game.asked == 1000


def test_values_of_captum() -> None:
    """Captum 0.9, tests/attr/test_lime.py: [73.37, 193.33, 113.33], of 500 samples and a Lasso with alpha 1."""
    x = np.array([20.0, 50.0, 30.0])
    present = all_coalitions(3)
    values, weights = small_network(present * x), proximity(present, width=1.0)
    lasso = Lasso(alpha=1.0, tol=1e-9).fit(present, values, sample_weight=weights)
    np.testing.assert_allclose(lasso.coef_, [73.3716, 193.3349, 113.3349], atol=0.5)
    line = LinearRegression().fit(present, values, sample_weight=proximity(present))
    coefficients, scores, _ = lime(
        Game(3, lambda present: small_network(present * x)), samples=50, generator=generator()
    )
    np.testing.assert_allclose(coefficients, line.coef_, rtol=0.01)
    assert scores["r2"] == pytest.approx(line.score(present, values, proximity(present)), abs=1e-3)


def test_the_weights_are_those_of_the_lime_package() -> None:
    present = drawn(12, 60, generator())
    whole = np.ones(12)
    cosine = 1 - present @ whole / np.maximum(np.linalg.norm(present, axis=1), 1e-12) / np.linalg.norm(whole)
    np.testing.assert_allclose(proximity(present), np.sqrt(np.exp(-(cosine**2) / 0.25**2)), rtol=1e-9)
    assert proximity(present)[0] == 1


def test_the_line_is_that_of_the_lime_package() -> None:
    lime_base = pytest.importorskip("lime.lime_base", reason="compares with the lime package, in dev")
    random = generator(3)
    present = drawn(15, 200, random)
    values = np.tanh(present @ random.normal(size=15))
    weights = proximity(present)
    theirs = lime_base.LimeBase(lambda distances: weights, random_state=0)
    _, pairs, r2, _ = theirs.explain_instance_with_data(
        present.astype(float), values[:, None], np.zeros(200), 0, 15, feature_selection="none",
        model_regressor=Ridge(alpha=penalty(present, weights)),
    )  # fmt: skip
    coefficients, own_r2 = fit(present, values, weights, unseen=False)
    np.testing.assert_allclose(coefficients, [value for _, value in sorted(pairs)], atol=1e-9)
    assert own_r2 == pytest.approx(r2, abs=1e-9)


def test_r2_is_of_samples_that_the_line_has_not_seen() -> None:
    random = generator(4)
    present = drawn(6, 30, random)
    values = random.normal(size=30) + present @ np.arange(6)
    weights = proximity(present)
    _, r2 = fit(present, values, weights)
    missed = []
    for left_out in range(30):
        rest = np.delete(np.arange(30), left_out)
        line = Ridge(alpha=penalty(present, weights)).fit(present[rest], values[rest], weights[rest])
        missed.append(values[left_out] - line.predict(present[[left_out]])[0])
    around = values - np.average(values, weights=weights)
    assert r2 == pytest.approx(1 - weights @ np.square(missed) / (weights @ around**2), abs=1e-9)


def test_few_samples_of_noise_do_not_look_like_a_line() -> None:
    noise = generator(5)
    game = Game(60, lambda present: noise.normal(size=len(present)))
    _, scores, warnings = lime(game, samples=70, generator=generator())
    assert scores["r2"] == 0
    assert warnings == ("R2 0.00 is below 0.3: a line does not describe the model here",)


def test_a_parity_is_no_line() -> None:
    _, scores, warnings = lime(
        Game(9, lambda present: present.sum(1) % 2), samples=600, generator=generator()
    )
    assert scores["r2"] < 0.01
    assert "below 0.3" in warnings[0]


@pytest.mark.parametrize(("count", "said"), [(1, "1 part, which"), (7, "7 parts, which"), (8, None)])
def test_few_parts_are_said(count: int, said: str | None) -> None:
    _, _, warnings = lime(Game(count, lambda present: present.sum(1)), samples=500, generator=generator())
    assert [said in each for each in warnings] == ([True] if said else [])


def test_where_all_subsets_are_tried_there_is_no_chance() -> None:
    game = Game(5, lambda present: np.exp(present @ np.arange(5)))
    one, two = (lime(game, samples=40, generator=generator(seed)) for seed in (0, 1))
    np.testing.assert_array_equal(one[0], two[0])
    assert game.asked == 64
    assert one[1] == two[1]


def test_players_that_draw_values_are_asked_again() -> None:
    """Of tables: one value of each subset would be noise."""
    noise = generator(6)
    game = Game(3, lambda present: present @ [1, 2, 3] + noise.normal(size=len(present)))
    coefficients, _, _ = lime(game, samples=8000, generator=generator())
    np.testing.assert_allclose(coefficients, [1, 2, 3], atol=0.1)


@pytest.mark.parametrize("count", [1, 2, 6])
def test_few_parts_get_what_they_give(count: int) -> None:
    """Hiding the only part is far from the whole input and weighs 0.0003: the penalty must not outweigh it."""
    coefficients, _, _ = lime(
        Game(count, lambda present: present @ np.arange(1, count + 1)), samples=100, generator=generator()
    )
    np.testing.assert_allclose(coefficients, np.arange(1, count + 1), rtol=0.02)


def test_the_same_seed_gives_the_same_bytes() -> None:
    game = Game(30, lambda present: np.tanh(present.sum(1) - 15))
    one, two, other = (lime(game, samples=200, generator=generator(seed))[0].tobytes() for seed in (0, 0, 1))
    assert one == two != other


def test_an_output_that_only_rounding_moves_gives_zeros() -> None:
    noise = generator(7)
    game = Game(10, lambda present: 5 + 1e-7 * noise.normal(size=len(present)))
    coefficients, _, _ = lime(game, samples=300, generator=generator())
    assert not coefficients.any()


def test_outputs_that_are_not_finite_give_nan() -> None:
    game = Game(10, lambda present: np.where(present[:, 0], np.nan, 1.0))
    coefficients, scores, warnings = lime(game, samples=300, generator=generator())
    assert np.isnan(coefficients).all()
    assert scores["r2"] == 0
    assert warnings


def test_no_parts() -> None:
    coefficients, scores, warnings = lime(
        Game(0, lambda present: np.zeros(len(present))), samples=10, generator=generator()
    )
    assert coefficients.shape == (0,)
    assert scores["segments"] == 0
    assert warnings == ("there are no parts to hide",)


def test_fewer_samples_than_parts_are_solved() -> None:
    coefficients, _, _ = lime(Game(50, lambda present: present[:, 3]), samples=30, generator=generator())
    assert np.isfinite(coefficients).all()
    with pytest.raises(ValueError, match="Received: 0"):
        lime(Game(5, lambda present: present[:, 0]), samples=0, generator=generator())
