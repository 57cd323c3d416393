"""What `dlcli evaluate` takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlcli.cli.evaluate import evaluate
from dlcli.errors import DlcliError
from dlcli.recipe.load import dump_recipe, load_recipe


@pytest.mark.parametrize(
    "change", ["architecture.filters=[8]", "training.seed=3", "task=regression", "datase=x"]
)
def test_only_the_data_can_be_changed(change: str, tmp_path: Path) -> None:
    """Another seed would mix train examples into the validation split; the rest would change nothing."""
    (tmp_path / "recipe.yaml").write_text(dump_recipe(load_recipe("iris_mlp")))
    with pytest.raises(
        DlcliError, match=r"only dataset\.\* and, of one that draws images, metrics\.\* can be changed"
    ):
        evaluate(tmp_path, set_=["dataset.path=x", change])
