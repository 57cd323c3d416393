"""Pixels' distributions against scipy, and the divergence against its integral."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, stats

from dlcli.training.steps.likelihoods import LIKELIHOODS, divergences, nats_of_images


def nats(name: str, drawn: float, levels: np.ndarray, scale: float = 1.0) -> np.ndarray:
    values = tf.constant(levels, tf.float32)
    return LIKELIHOODS[name].nats(tf.constant(drawn), values, tf.constant(np.log(scale), tf.float32)).numpy()


@pytest.mark.parametrize("drawn", [-6.0, -0.3, 0.0, 1.2, 6.0])
@pytest.mark.parametrize("scale", [0.02, 1.0, 20.0, 400.0])
def test_logistic_gives_every_level_a_share_of_one(drawn: float, scale: float):
    probabilities = np.exp(-nats("discretized_logistic", drawn, np.arange(256), scale).astype(float))
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)


def test_logistic_is_the_difference_of_two_sigmoids():
    mean, levels = (np.tanh(0.4) + 1) * 127.5, np.arange(256)
    edges = stats.logistic.cdf(np.r_[-np.inf, levels[:-1] + 0.5, np.inf], mean, 12.0)
    np.testing.assert_allclose(nats("discretized_logistic", 0.4, levels, 12.0), -np.log(np.diff(edges)), 1e-4)


def test_logistic_far_from_its_mean_keeps_a_slope():
    drawn = tf.Variable([-3.0, 3.0])
    with tf.GradientTape() as tape:
        value = LIKELIHOODS["discretized_logistic"].nats(drawn, tf.constant([200.0, 100.0]), tf.math.log(0.1))
    slopes = tape.gradient(value, drawn).numpy()
    assert np.isfinite(value).all()
    assert slopes[0] < 0 < slopes[1]  # both move towards the level


def test_gaussian_is_a_density_of_levels():
    levels, mean = np.array([0.3, 128.9, 255.5]), (np.tanh(0.4) + 1) * 128
    expected = -stats.norm.logpdf(levels, mean, 9.0)
    np.testing.assert_allclose(nats("gaussian", 0.4, levels, 9.0), expected, 1e-5)


@pytest.mark.parametrize("drawn", [-40.0, -0.7, 0.0, 2.0])
def test_bernoulli_of_what_the_decoder_shows(drawn: float):
    white = (np.tanh(drawn) + 1) / 2  # the pixel that a sample has
    expected = [-np.log1p(-white), 80.0 if drawn == -40 else -np.log(white)]
    np.testing.assert_allclose(nats("bernoulli", drawn, np.array([0.0, 255.0])), expected, 1e-5, 1e-6)


def test_pixels_of_an_image_are_added():
    levels = np.random.default_rng(0).uniform(0, 255, (3, 4, 5, 2)).astype("float32")
    whole = nats_of_images("gaussian", tf.zeros_like(levels), tf.constant(levels), tf.constant(2.0))
    single = nats("gaussian", 0.0, levels, np.exp(2.0))
    np.testing.assert_allclose(whole, single.reshape(3, -1).sum(axis=1), 1e-5)


@pytest.mark.parametrize(("mean", "log_variance"), [(0.0, 0.0), (1.5, -2.0), (-0.4, 1.3)])
def test_divergence_is_its_integral(mean: float, log_variance: float):
    posterior, prior = stats.norm(mean, np.exp(log_variance / 2)), stats.norm()

    def integrand(z: float) -> float:
        return posterior.pdf(z) * (posterior.logpdf(z) - prior.logpdf(z))

    expected, _ = integrate.quad(integrand, -20, 20, points=[mean])
    found = divergences(tf.constant([[mean]]), tf.constant([[log_variance]])).numpy()
    assert found[0, 0] == pytest.approx(expected, abs=1e-5)
