"""Methods, options and classes are checked before any work."""

from __future__ import annotations

import pkgutil

import keras
import numpy as np
import pytest

from dlcli.errors import DlcliError
from dlcli.explain import DEFAULT_METHODS, METHODS
from dlcli.explain.choice import FLAGS, Options, choose_methods, chosen_outputs, output_index, with_options
from dlcli.explain.network import Network

EVERY = [(kind, name) for kind, methods in METHODS.items() for name in methods]


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_row_of_the_table_is_a_function_whose_options_the_command_has(kind, name):
    chosen = with_options(
        kind, name, Options(layer="x", samples=20, steps=5, segments=9, baseline="mean"), {}
    )
    assert callable(chosen.function)
    assert set(chosen.arguments) <= {*FLAGS, "seed", "background", "labelled"}


def test_defaults_are_methods():
    for kind, names in DEFAULT_METHODS.items():
        assert choose_methods(kind, Options()) == names
        assert set(names) <= set(METHODS[kind])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("image", Options(methods=("grad_cma",)), "did you mean grad_cam"),
        ("text", Options(methods=("grad_cam",)), "is for models of images, and this one reads texts"),
        (
            "image",
            Options(methods=("lime",), layer="conv"),
            "--layer conv: of no use to lime; these take it: grad_cam",
        ),
        ("text", Options(segments=9), "no method for texts takes it"),
    ],
)
def test_what_cannot_be_is_refused_and_told(kind, options, message):
    with pytest.raises(DlcliError, match=message):
        choose_methods(kind, options)


def network(ending: str | None, units: int, names: list[str] | None = None) -> Network:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation=ending)])
    return Network(model, "table", np.zeros((1, 4), "float32"), class_names=names)


@pytest.mark.parametrize(("given", "index"), [("dog", 1), ("0", 0), ("2", 2), ("7", 1)])
def test_a_class_is_a_name_or_an_index(given, index):
    names = ["cat", "7" if given == "7" else "dog", "owl"]
    assert output_index(network("softmax", 3, names), given) == index


@pytest.mark.parametrize("given", ["-1", "3", "dgo", "1.5"])
def test_a_class_that_is_not_there_is_refused_with_what_is(given):
    with pytest.raises(DlcliError, match="0 to 2") as raised:
        output_index(network("softmax", 3, ["cat", "dog", "owl"]), given)
    assert ("did you mean dog" in str(raised.value)) == (given == "dgo")


def test_the_most_probable_classes_are_explained_unless_one_is_named():
    outputs = np.array([[0.1, 3.0, 2.0], [5.0, 1.0, 4.0]])
    classes = network("softmax", 3)
    np.testing.assert_array_equal(chosen_outputs(classes, outputs, None, 1), [[1], [0]])
    np.testing.assert_array_equal(chosen_outputs(classes, outputs, None, 2), [[1, 2], [0, 2]])
    np.testing.assert_array_equal(chosen_outputs(classes, outputs, 2, 1), [[2], [2]])
    # Of values none is more predicted than another: the first is explained.
    np.testing.assert_array_equal(chosen_outputs(network(None, 3), outputs, None, 1), [[0], [0]])


def test_rows_of_the_tables_are_named_once():
    assert len({name for _, name in EVERY}) == len(
        {pkgutil.resolve_name(METHODS[k][n]).__name__ for k, n in EVERY}
    )
