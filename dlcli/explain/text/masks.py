"""What a model says of a text without some of its words: occlusion, LIME and SHAP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlcli.explain import lime as linear
from dlcli.explain import shapley
from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.network import Network
from dlcli.explain.text.words import Words

HIDDEN = "removed"
"""What happens to hidden words, in the settings of an attribution."""


def occlusion(network: Network, subjects: Sequence[Subject], outputs: np.ndarray) -> list[Attribution]:
    """What the output loses when one word is left out (Zeiler & Fergus 2014, section 4.2, of images; Li et al. 2016).

    Words that say the same stand in for each other, and get little.
    """
    found = []
    for subject, output in zip(subjects, outputs, strict=True):
        words = Words(network, subject, int(output))
        present = np.concatenate([np.ones((1, words.count), bool), ~np.eye(words.count, dtype=bool)])
        whole, *without = words.value(present)
        values = words.spread(whole - np.array(without))
        found.append(Attribution(values, signed=True, settings={"hidden": HIDDEN}))
    return found


def lime(
    network: Network, subjects: Sequence[Subject], outputs: np.ndarray, *, samples: int = 1000, seed: int = 0
) -> list[Attribution]:
    """A line through what the model says when random words are left out (Ribeiro et al. 2016, section 3.3).

    Args:
        network: the model.
        subjects: texts.
        outputs: the index of what is explained, of each.
        samples: texts with words left out, of each subject.
        seed: of which words.
    """
    settings = {"samples": samples, "seed": seed, "hidden": HIDDEN}
    found = []
    for subject, output in zip(subjects, outputs, strict=True):
        words = Words(network, subject, int(output))
        generator = subject.generator(seed)
        found.append(linear.explained(words, samples=samples, generator=generator, settings=settings))
    return found


def shap(
    network: Network, subjects: Sequence[Subject], outputs: np.ndarray, *, samples: int = 1000, seed: int = 0
) -> list[Attribution]:
    """Shapley values of the words (Lundberg & Lee 2017): exact for a few, else estimated.

    They sum to f(text) - f(no words).

    Args:
        network: the model.
        subjects: texts.
        outputs: the index of what is explained, of each.
        samples: texts with words left out, of each subject with too many words to try all.
        seed: of which words.
    """
    settings = {"samples": samples, "seed": seed, "hidden": HIDDEN}
    found = []
    for subject, output in zip(subjects, outputs, strict=True):
        words = Words(network, subject, int(output))
        generator = subject.generator(seed)
        found.append(shapley.explained(words, samples=samples, generator=generator, settings=settings))
    return found
