"""Mutated recipes: whatever stands in the file and in the flags, `dlcli validate` ends well and soon.

The recipes that dlcli ships are damaged as bytes and as values; each ends with exit code 0 or 2, without a
traceback, in 2 seconds and one gigabyte. What passes is written out and read again: it must be the same recipe.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzzing import EVERY_TIME, flip_bit, places_of
from hypothesis import Phase, example, given, seed, settings
from hypothesis import strategies as st

from dlcli.recipe.load import dump_recipe, load_recipe, shipped_recipes
from dlcli.recipe.schema import Recipe
from dlcli.recipe.signatures import KINDS, arguments_of, known_names
from dlcli.recipe.wording import recipe_schema
from dlcli.recipe.yaml_reader import read_yaml

SHIPPED = [path.read_bytes() for path in shipped_recipes().values()]
VALUES = [read_yaml(path).value for path in shipped_recipes().values()]

SNIPPETS = [
    b"\0", b"\xff", b"\xc3", b"\xef\xbb\xbf", b"\xff\xfe", b"\t", b"\r", b"\r\n", b"\x1b[31m", b"\x7f", b"\xc2\x85",
    b"\xe2\x80\xa8", "😀".encode(), "\u202e".encode(), "ﬀ".encode(), "İ".encode(), b"&a ", b"*a", b"!<x> ", b"! ",
    b"!!python/object/apply:os.system [id]", b"<<: {a: 1}\n", b"---\n", b"...\n", b"%YAML 1.1\n", b"%TAG ! x\n", b"{",
    b"}", b"[", b"]", b"{" * 60, b"[" * 3000, b"- " * 3000, b"? ", b"|\n", b">-\n", b"|99\n", b"- ", b": ", b":", b"'",
    b'"', b"#", b"@", b"`", b"%", b",", b"\\", b'"\\Uffffffff"', b'"\\ud800"', b'"\\x00"', b".nan", b"-.inf", b"1e400",
    b"010", b"0o17", b"0x" + b"f" * 500, b"9" * 5000, b"-0", b"1_000", b"12:30", b"~", b"null", b"yes", b"no", b"true",
    b"epochs: 3\n", b"training:\n", b"  epochs: 3\n", b"a" * 70_000, b"\n" * 5000, b"{name: resnet, depth: 20}",
    b"name: ", b"${HOME}", b"{{ x }}", b"../../etc/passwd", b"dlcli.errors:DlcliError", b"__class__", b"os.system",
]  # fmt: skip

SCALARS: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 64, 2**31 - 1, 2**31, 2**63, 10**30, -(10**30), 10**400, 0.0, -0.0, 0.1, 0.5,
    0.999999, 1.0, 1.5, 1e-300, 1e300, float("nan"), float("inf"), -float("inf"), "", " ", "a", "None", "auto", "nan",
    "1", "1e-3", "0.1", "true", "balanced", "all", "imagenet", "hub:x", "\0", "\ud800", "😀", "a\nb", "x" * 300, "x" * 5000,
    "../..", "/dev/zero", "/", ".", "~", "~nobody/x", "C:\\x", "http://localhost/x", "gs://x/y", "os.system", "__init__",
    "name", "Adam", "RELU", "random crop", "res-net", "İstanbul",
]  # fmt: skip
TREES: list[Any] = [
    [], [[]], [None], [0], [0, 0], [1, 2, 3], [-1, 1e9], ["a"], ["a", 1, None], [{}], [{"name": "x"}], list(range(200)),
    {}, {"": 0}, {"name": None}, {"name": ""}, {"name": 1}, {"name": []}, {"name": "cnn"}, {"name": "x", "name ": 1},
    {"generator": "adam"}, {"generator": "adam", "discriminator": "sgd"}, {"generator": {}, "discriminator": 1},
    {"norm": 1, "value": 1}, {"a": {"b": {"c": {}}}}, {"__class__": 1}, {"1": 1}, {"patience": 0}, {"every_steps": 1},
]  # fmt: skip

SPECS = {(kind, name): arguments_of(kind, name) for kind in KINDS for name in known_names(kind)}
NAMES = sorted({name for _, name in SPECS})
SECTIONS = recipe_schema()["$defs"]
SECTION_KEYS = {name.lower(): [*section.get("properties", {})] for name, section in SECTIONS.items()}
KEYS = sorted(
    {key for section_keys in SECTION_KEYS.values() for key in section_keys}
    | {key for arguments in SPECS.values() for key in arguments}
)
PATHS = [
    [section, key] for section in Recipe.model_fields for key in (*SECTION_KEYS.get(section, ()), "name", "x")
]
DEFAULTS = [argument.default for arguments in SPECS.values() for argument in arguments.values()]
DEFAULTS = [value for value in DEFAULTS if isinstance(value, int | float | str | list | tuple)]

scalars = st.one_of(
    st.sampled_from(SCALARS), st.sampled_from(NAMES), st.integers(), st.floats(), st.text(max_size=8)
)
values = st.one_of(scalars, st.sampled_from(TREES), st.sampled_from(DEFAULTS))
keys = st.one_of(
    st.sampled_from(KEYS), st.sampled_from(KEYS), st.text(max_size=8), st.sampled_from(["<<", "0", "-1"])
)


@st.composite
def damaged_texts(draw: st.DrawFn) -> bytes:
    """The bytes of a recipe after some edits."""
    text = bytearray(draw(st.sampled_from(SHIPPED)))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3, 6]))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 1, 2, 8, 40, 400])))
        edit = draw(st.sampled_from(["flip", "insert", "replace", "delete", "repeat", "truncate", "splice"]))
        if edit == "flip":
            flip_bit(draw, text, start)
        elif edit in ("insert", "replace"):
            text[start : end if edit == "replace" else start] = draw(st.sampled_from(SNIPPETS))
        elif edit == "delete":
            del text[start:end]
        elif edit == "repeat":
            text[start:start] = text[start:end] * draw(st.sampled_from([1, 2, 50]))
        elif edit == "truncate":
            del text[start:]
        elif edit == "splice":
            other = draw(st.sampled_from(SHIPPED))
            text[start:end] = other[draw(st.integers(0, len(other))) :]
    return bytes(text)


@st.composite
def damaged_values(draw: st.DrawFn) -> bytes:
    """A recipe whose values were exchanged, moved, removed and renamed, as YAML or JSON."""
    tree = copy.deepcopy(draw(st.sampled_from(VALUES)))
    for _ in range(draw(st.sampled_from([1, 1, 2, 4]))):
        places = list(places_of(tree))
        if not places:
            break
        parent, key = draw(st.sampled_from(places))
        edit = draw(
            st.sampled_from(["value", "delete", "rename", "add", "wrap", "move", "spec", "spec", "spec"])
        )
        if edit == "value":
            parent[key] = copy.deepcopy(draw(values))
        elif edit == "delete":
            del parent[key]
        elif edit == "rename" and isinstance(parent, dict):
            parent[draw(keys)] = parent.pop(key)
        elif edit == "add" and isinstance(parent[key], dict):
            parent[key][draw(keys)] = copy.deepcopy(draw(values))
        elif edit == "wrap":
            parent[key] = _nested(parent[key], draw(st.sampled_from([1, 1, 2, 29, 200])), draw(st.booleans()))
        elif edit == "move":
            other, there = draw(st.sampled_from(places))
            parent[key] = copy.deepcopy(other.get(there) if isinstance(other, dict) else other[-1:])
        elif edit == "spec":
            _change_spec(draw, tree)
    if draw(st.booleans()):
        return json.dumps(tree, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    flow = draw(st.sampled_from([None, True, False]))
    return yaml.safe_dump(tree, default_flow_style=flow, allow_unicode=draw(st.booleans())).encode(
        "utf-8", "surrogatepass"
    )


def _nested(value: Any, depth: int, in_lists: bool) -> Any:
    for _ in range(depth):
        value = [value] if in_lists else {"name": value}
    return value


def _change_spec(draw: st.DrawFn, recipe: dict[str, Any]) -> None:
    """Another task, data set, architecture ... with some of its own arguments."""
    kind, name = draw(st.sampled_from(sorted(SPECS)))
    spec: Any = {"name": name}
    for argument in SPECS[kind, name].values():
        if draw(st.booleans()):
            plain = isinstance(argument.default, int | float | str | tuple | list)
            spec[argument.name] = copy.deepcopy(
                draw(st.one_of(values, st.just(argument.default) if plain else values))
            )
    dataset = recipe.get("dataset")
    if kind in ("tokenizer", "augmentation"):
        if isinstance(dataset, dict):
            dataset[kind] = spec if kind == "tokenizer" else [spec]
    else:
        recipe[kind] = spec


@st.composite
def flags(draw: st.DrawFn) -> list[str]:
    """Arguments of `--set`."""
    found = []
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        path = ".".join(
            draw(st.one_of(st.sampled_from(PATHS), st.sampled_from(PATHS), st.lists(keys, max_size=4)))
        )
        value = draw(
            st.one_of(values.map(_as_text), st.text(max_size=12), st.sampled_from(SNIPPETS).map(_as_text))
        )
        flag = draw(
            st.sampled_from([f"{path}={value}", f"{path}={value}", path, f"={value}", f"{path}==", ""])
        )
        # A shell hands over any bytes but zeros; what is no UTF-8 becomes halves of surrogate pairs.
        found += ["--set", os.fsdecode(flag.encode("utf-8", "surrogatepass").replace(b"\0", b""))]
    return found


def _as_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else json.dumps(value, default=str)


recipes = st.one_of(
    damaged_texts(), damaged_values(), damaged_values(), st.binary(max_size=40) | damaged_values()
)


def check_recipe(run_dlcli: Any, path: Path, content: bytes, given_flags: list[str]) -> None:
    """Validates a recipe; one that passes survives being written and read again."""
    path.write_bytes(content)
    outcome = run_dlcli("validate", path, *given_flags, seconds=2, memory=2**30)
    outcome.check(0, 2)
    if outcome.code == 0:
        recipe = load_recipe(path, given_flags[1::2])
        path.write_text(dump_recipe(recipe), encoding="utf-8")
        assert load_recipe(path) == recipe


@seed(7)
@settings(max_examples=90, phases=[Phase.explicit, Phase.generate, Phase.shrink], **EVERY_TIME)
@given(content=recipes, given_flags=flags())
@example(content=b'{"task": {"\\ud800": 1}}', given_flags=[])
@example(content=b"[" * 3000, given_flags=[])
@example(content=b"{a: " * 3000, given_flags=[])
@example(content=b"a: 1", given_flags=["--set", "a.\udc80=\udc80"])
def test_mutated_recipes(run_dlcli, tmp_path_factory, content, given_flags):
    check_recipe(run_dlcli, tmp_path_factory.getbasetemp() / "fuzzed.yaml", content, given_flags)


@pytest.mark.slow
@seed(8)
@settings(max_examples=10_000, phases=[Phase.explicit, Phase.generate, Phase.shrink], **EVERY_TIME)
@given(content=recipes, given_flags=flags())
def test_ten_thousand_mutated_recipes(run_dlcli, tmp_path_factory, content, given_flags):
    check_recipe(run_dlcli, tmp_path_factory.getbasetemp() / "fuzzed.yaml", content, given_flags)
