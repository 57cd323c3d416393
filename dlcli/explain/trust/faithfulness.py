"""Does the model agree with an explanation? Insertion and deletion, beside random orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.integral import missed
from dlcli.explain.network import BATCH_SIZE, Network
from dlcli.explain.record import Trust
from dlcli.explain.trust.parts import Hidden, parts_of

STEPS = 20
"""Parts are shown or hidden in so many steps; one by one where there are fewer parts."""

ORDERS = 10
"""Random orders, whose mean and spread tell what no explanation at all would reach."""


@dataclass(frozen=True)
class _Areas:
    insertion: float
    deletion: float


class Faithfulness:
    """Measures explanations of one output for one input.

    Insertion shows the parts in the order of their attribution, the highest first, deletion hides them in that order
    (Petsiuk et al. 2018, "RISE", section 4.1). The areas are those under the explained output's probability. Values,
    which have no probability, are scaled to 0..1 by the lowest and highest value on the curves of the random orders.

    The random orders are measured once, when the first explanation is; they depend on the seed and on the input alone.

    Args:
        network: the model.
        subject: the input.
        output: index of the explained output.
        seed: of the random orders, and of the order of parts with equal attribution.
        background: of tables: rows like the model's inputs (a dict of columns (R, 1), or (R, D)), whose values take the
            place of hidden columns.
        batch_size: images in one call of the model; results do not depend on it.
    """

    def __init__(
        self,
        network: Network,
        subject: Subject,
        output: int,
        *,
        seed: int = 0,
        background: Any = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self._network, self._subject, self._output = network, subject, output
        self._parts = parts_of(network, subject, background, batch_size)
        steps = max(1, min(STEPS, self._parts.count))
        self._shown = np.round(np.linspace(0, self._parts.count, steps + 1)).astype(int)
        self._seed = seed
        self._random: list[_Areas] | None = None
        self._scale = (0.0, 1.0)
        self._value: float | None = None
        self._ends: dict[tuple[Hidden, bool], float] = {}

    def of(self, attribution: Attribution) -> Trust:
        """How far to believe one attribution; without its stability."""
        random = self._random_areas()
        beyond = np.array([each.insertion - each.deletion for each in random])
        areas = self._areas(self._curves(self._parts.scores(attribution.values)))
        return Trust(
            insertion=areas.insertion,
            deletion=areas.deletion,
            random_insertion=float(np.mean([each.insertion for each in random])),
            random_deletion=float(np.mean([each.deletion for each in random])),
            random_spread=float(beyond.std(ddof=1)),
            completeness=self._completeness(attribution),
        )

    def curves(self, attribution: Attribution) -> dict[str, np.ndarray]:
        """The points of which `of` gives the areas: `share` of parts shown or hidden, `insertion`, `deletion`."""
        self._random_areas()
        low, width = self._scale
        curves = self._curves(self._parts.scores(attribution.values))
        return {"share": self._share(), **{name: (curve - low) / width for name, curve in curves.items()}}

    def _share(self) -> np.ndarray:
        return self._shown / max(1, self._parts.count)

    def _random_areas(self) -> list[_Areas]:
        if self._random is None:
            generator = self._subject.generator(self._seed)
            curves = [self._curves(self._parts.random_scores(generator)) for _ in range(ORDERS)]
            if self._network.target == "values":
                values = np.concatenate([curve for each in curves for curve in each.values()])
                self._scale = (float(values.min()), float(np.ptp(values)) or 1.0)
            self._random = [self._areas(each) for each in curves]
        return self._random

    def _areas(self, curves: dict[Hidden, np.ndarray]) -> _Areas:
        low, width = self._scale
        insertion, deletion = (
            _area((curves[name] - low) / width, self._share()) for name in ("insertion", "deletion")
        )
        return _Areas(insertion, deletion)

    def _curves(self, scores: np.ndarray) -> dict[Hidden, np.ndarray]:
        """The explained output after each step: float64 (steps + 1,) each."""
        if not np.isfinite(scores).all():
            unknown = np.full(len(self._shown), np.nan)
            return {"insertion": unknown, "deletion": unknown}
        # Equal attributions are taken in a random order: by their place, a flat map would begin at the top left.
        tie_break = self._subject.generator(self._seed).permutation(self._parts.count)
        order = np.lexsort((tie_break, -scores))
        rank = np.empty(len(order), int)
        rank[order] = np.arange(len(order))
        first = rank[None] < self._shown[:, None]  # (steps + 1, M): the parts of which it is the turn
        return {"insertion": self._curve(first, "insertion"), "deletion": self._curve(~first, "deletion")}

    def _curve(self, present: np.ndarray, hidden: Hidden) -> np.ndarray:
        """The points between the ends are of this order; the ends are the same for all orders."""
        for row in (present[:1], present[-1:]):
            key = (hidden, bool(row.all()))
            if key not in self._ends:
                self._ends[key] = float(self._values(row, hidden)[0])
        first, last = (self._ends[hidden, bool(row.all())] for row in (present[0], present[-1]))
        return np.concatenate([[first], self._values(present[1:-1], hidden), [last]])

    def _values(self, present: np.ndarray, hidden: Hidden) -> np.ndarray:
        """The explained output, as a probability where there is one: float64 (N,)."""
        if not len(present):
            return np.zeros(0)
        outputs = self._parts.outputs(present, hidden)  # (N, R, K)
        shares = self._network.probabilities(outputs.reshape(-1, outputs.shape[-1]))[:, self._output]
        return np.asarray(shares, np.float64).reshape(outputs.shape[:2]).mean(axis=1)

    def _completeness(self, attribution: Attribution) -> float | None:
        if attribution.base is None:
            return None
        if self._value is None:
            outputs = self._network.outputs(self._network.batch([self._subject]))
            self._value = float(outputs[0, self._output])
        total = float(np.asarray(attribution.values, np.float64).sum())
        return missed(total, self._value - attribution.base)


def _area(values: np.ndarray, share: np.ndarray) -> float:
    """Under straight lines between the points."""
    return float(((values[1:] + values[:-1]) / 2 * np.diff(share)).sum())
