from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.record import Explained, Trust
from dlcli.explain.table import plots
from dlcli.explain.table.plots import draw_columns, draw_row


def explained(values: list[float], base: float | None = 1.0, *, row: int = 0, **changes: Any) -> Explained:
    inputs = {
        "column_price_0x24_": np.array([row / 3], np.float32),
        "column_colour": np.array(["" if row % 2 else "red"], object),
        "column_age": np.array([np.nan if row == 2 else row], np.float32),
    }
    attribution = Attribution(np.array(values, np.float32), signed=True, base=base)
    one = Explained(
        Subject(f"$rows<b>.csv row {row}", inputs),
        "shap",
        1,
        "$yes$",
        2.0,
        "logit",
        0.9,
        "$yes$",
        0.9,
        attribution,
    )
    return replace(one, **changes)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def share(image: np.ndarray, colour: str) -> float:
    """Of pixels that are shap's red (for the class) or blue (against it)."""
    red, blue = image[..., 0] - image[..., 2] > 80, image[..., 2] - image[..., 0] > 80
    return float((red if colour == "red" else blue).mean())


def test_a_row_is_drawn_with_what_speaks_for_and_against(tmp_path: Path) -> None:
    trust = Trust(0.9, 0.2, 0.5, 0.5, 0.1)
    for name, values in (("for", [0.6, 0.3, 0.1]), ("against", [-0.6, -0.3, -0.1])):
        draw_row([explained(values, trust=trust)], tmp_path / f"{name}.png")
    speaks_for, against = pixels(tmp_path / "for.png"), pixels(tmp_path / "against.png")
    assert share(speaks_for, "red") > 5 * share(speaks_for, "blue")
    assert share(against, "blue") > 5 * share(against, "red")
    assert share(speaks_for, "red") > 0.02


def test_several_classes_stand_below_each_other(tmp_path: Path) -> None:
    one = explained([0.6, -0.3, 0.1])
    draw_row([one], tmp_path / "one.png")
    draw_row([one, replace(one, output=0, class_name="no")], tmp_path / "two.png")
    assert abs(pixels(tmp_path / "two.png").shape[0] - 2 * pixels(tmp_path / "one.png").shape[0]) <= 4


def test_values_that_promise_no_sum_get_bars(tmp_path: Path) -> None:
    draw_row([explained([0.6, -0.3, 0.1], base=None, method="lime")], tmp_path / "lime.png")
    draw_row([explained([0.6, -0.3, 0.1])], tmp_path / "shap.png")
    lime = pixels(tmp_path / "lime.png")
    assert lime.shape[0] < pixels(tmp_path / "shap.png").shape[0]  # no force plot
    assert share(lime, "red") > 0.02
    assert share(lime, "blue") > 0.01


def test_importances_are_drawn_with_their_deviations(tmp_path: Path) -> None:
    settings = {"deviations": [0.1, 0.2, 0.0], "metric": "accuracy", "rows": 50}
    one = explained([0.6, -0.3, 0.1], base=None)
    drawn = replace(one, attribution=replace(one.attribution, settings=settings))
    draw_row([drawn], tmp_path / "one.png")
    certain = replace(one.attribution, settings={**settings, "deviations": [0.0, 0.0, 0.0]})
    draw_row([replace(one, attribution=certain)], tmp_path / "other.png")
    assert share(pixels(tmp_path / "one.png"), "blue") > 0.02
    grey = [
        int((np.abs(pixels(tmp_path / f"{name}.png") - 127).max(axis=-1) < 3).sum())
        for name in ("one", "other")
    ]
    assert grey[0] > grey[1] + 50


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([0, 0, 0], "no column makes a difference"),
        ([np.nan, 1, 2], "the attributions are not finite numbers"),
    ],
)
def test_what_cannot_be_drawn_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[float], sentence: str
) -> None:
    said: list[str] = []
    words = plots._words
    monkeypatch.setattr(plots, "_words", lambda title, text: said.append(text) or words(title, text))
    draw_row([explained(values)], tmp_path / "flat.png")
    assert said == [sentence]
    assert (pixels(tmp_path / "flat.png") < 128).any()


def test_many_rows_are_drawn_together(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [explained(random.normal(size=3).tolist(), row=row) for row in range(12)]
    flat = explained([0, 0, 0], row=12)
    bar, beeswarm = draw_columns([*rows, flat], tmp_path, "shap.yes")
    assert [bar.name, beeswarm.name] == ["shap.yes.bar.png", "shap.yes.beeswarm.png"]
    assert share(pixels(bar), "red") > 0.05
    assert share(pixels(beeswarm), "blue") > 0.001
    assert draw_columns([rows[0], flat], tmp_path, "one") == []
    settings = {"deviations": [0, 0, 0], "metric": "accuracy", "rows": 9}
    shared = [replace(one, attribution=replace(one.attribution, settings=settings)) for one in rows]
    assert [path.name for path in draw_columns(shared, tmp_path, "importance")] == ["importance.bar.png"]
    with pytest.raises(ValueError, match="one output"):
        draw_columns([rows[0], replace(rows[1], output=0)], tmp_path, "mixed")


def test_no_figure_stays_open_and_the_style_of_others_is_kept(tmp_path: Path) -> None:
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mine = plt.figure()
    before = dict(mpl.rcParams)
    draw_row([explained([0.6, -0.3, 0.1])], tmp_path / "row.png")
    assert plt.get_fignums() == [mine.number]
    assert dict(mpl.rcParams) == before
    plt.close(mine)


def test_the_title_says_who_what_and_how_far_to_believe_it() -> None:
    one = explained([0.6, -0.3, 0.1], trust=Trust(0.9, 0.2, 0.5, 0.5, 0.1))
    one = replace(one, attribution=replace(one.attribution, warnings=("R2 0.1 is below 0.3",)))
    title = plots._title(one)
    for part in (
        "<b>.csv row 0",
        "90.0 %",
        "shap of the logit",
        "+0.70: better than random",
        "R2 0.1",
        r"explained \$yes\$",
    ):
        assert part in title
