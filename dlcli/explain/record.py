"""One explanation with all that is known of it, and its form in explanation.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlcli.explain.attribution import Attribution, Subject


@dataclass(frozen=True)
class Trust:
    """How far to believe one explanation.

    Insertion shows the parts in the order of their attribution, deletion hides them in that order (Petsiuk et al. 2018,
    "RISE", section 4.1); the area under the curve of the explained class's probability, in 0..1, says how early it
    rises or falls. A random order does the same without any explanation.
    """

    insertion: float
    """Area; the higher the better."""
    deletion: float
    """Area; the lower the better."""
    random_insertion: float
    """Mean area of random orders."""
    random_deletion: float
    """Mean area of random orders."""
    random_spread: float
    """Standard deviation of (insertion - deletion) over random orders."""
    completeness: float | None = None
    """|sum of attributions - (f(x) - f(baseline))| / max(|f(x) - f(baseline)|, 1e-3); None where no sum is promised."""
    stability: float | None = None
    """Spearman's correlation of this map and that of another seed, in -1..1; None for methods without chance."""

    @property
    def faithfulness(self) -> float:
        """(insertion - deletion) beyond that of a random order: 0 is no better than chance, above it is better."""
        return (self.insertion - self.deletion) - (self.random_insertion - self.random_deletion)

    @property
    def verdict(self) -> str:
        """In words, for the picture."""
        if self.faithfulness > 2 * self.random_spread:
            return "better than random"
        if self.faithfulness < -2 * self.random_spread:
            return "worse than random"
        return "no better than random"


@dataclass(frozen=True, eq=False)
class Explained:
    """One input, explained by one method for one output."""

    subject: Subject
    method: str
    output: int
    """Index of what is explained."""
    class_name: str
    """Its name."""
    value: float
    """f(x), on the scale that is explained."""
    scale: str
    """`logit`, `probability` or `value`."""
    probability: float | None
    """Of the explained class; None for values."""
    predicted: str
    """The most probable class; for labels all of at least 0.5; for values the first column's name."""
    predicted_probability: float | None
    attribution: Attribution
    trust: Trust | None = None

    @property
    def status(self) -> str:
        """`ok`, `flat_map` or `not_finite`."""
        return self.attribution.problem or "ok"

    def record(self) -> dict[str, Any]:
        """For explanation.json: plain numbers of six digits, the same for the same seed."""
        trust = None if self.trust is None else {
            **{name: number(value) for name, value in vars(self.trust).items()},
            "faithfulness": number(self.trust.faithfulness),
            "verdict": self.trust.verdict,
        }  # fmt: skip
        return {
            "method": self.method,
            "class": self.class_name,
            "output": self.output,
            "probability": number(self.probability),
            "explains": self.scale,
            "value": number(self.value),
            "base": number(self.attribution.base),
            "status": self.status,
            "summary": summary(self.attribution),
            "scores": {name: number(value) for name, value in self.attribution.scores.items()},
            "trust": trust,
            "settings": dict(self.attribution.settings),
            "warnings": list(self.attribution.warnings),
        }


def explained_again(subject: Subject, record: Mapping[str, Any], values: np.ndarray) -> Explained:
    """What a record of explanation.json and its array tell, for pictures of many inputs.

    Args:
        subject: the input.
        record: of `Explained.record`.
        values: of its array.
    """
    signed = bool(record["summary"].get("signed", True))
    attribution = Attribution(values, signed, record["base"], settings=record["settings"])
    return Explained(
        subject, record["method"], record["output"], record["class"], record["value"], record["explains"],
        record["probability"], "", None, attribution,
    )  # fmt: skip


def summary(attribution: Attribution) -> dict[str, Any]:
    """Range, sums and place of the largest attribution."""
    values = np.asarray(attribution.values, np.float64)
    if not np.isfinite(values).all() or not values.size:
        return {"shape": list(values.shape), "finite": False}
    place = np.unravel_index(int(np.abs(values).argmax()), values.shape)
    return {
        "shape": list(values.shape),
        "finite": True,
        "signed": attribution.signed,
        "min": number(values.min()),
        "max": number(values.max()),
        "sum": number(values.sum()),
        "absolute_sum": number(np.abs(values).sum()),
        "strongest": [int(index) for index in place],
    }


def number(value: Any) -> float | None:
    """Six significant digits; None for what is no finite number, since JSON has none."""
    if value is None or not np.isfinite(value):
        return None
    return float(f"{float(value):.6g}")
