"""A run that several files of tests look at and nobody changes."""

from __future__ import annotations

import pytest

from dlcli.runs import Run


@pytest.fixture(scope="session")
def iris_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two epochs of a tiny network, without pictures."""
    from dlcli.evaluation import evaluate
    from dlcli.recipe.load import load_recipe
    from dlcli.training import train

    quick = ["training={epochs: 2, batch_size: 32}", "architecture={name: mlp, hidden: [8], dropout: 0.2}"]
    with pytest.MonkeyPatch.context() as patched:
        for module in (evaluate, train):
            for name in [name for name in vars(module) if name.startswith("plot_")]:
                patched.setattr(module, name, lambda *arguments: None)
        return train.train(load_recipe("iris_mlp", quick), "iris", tmp_path_factory.mktemp("iris") / "iris")
