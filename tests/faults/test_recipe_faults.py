"""Rows 1-16: what is wrong with a recipe is said with its place, before anything heavy is loaded or allocated."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dlcli.recipe.load import dump_recipe, load_recipe, with_absolute_paths
from dlcli.recipe.schema import Recipe

SECONDS = 2.0
MEMORY = 2**30
"""What no recipe may cost to check: CPU time, and bytes by which the process grows."""

RECIPE = """\
task: image_classification
dataset: {name: digits}
architecture: {name: cnn, filters: [8]}
training: {epochs: 2}
"""
TABLE = """\
task: tabular_classification
dataset: {name: csv, path: rows.csv, target: label}
architecture: mlp
"""


def changed(old: str, new: str, recipe: str = RECIPE) -> str:
    assert recipe.count(old) == 1
    return recipe.replace(old, new)


def optimizer(rate: str) -> str:
    return f"{RECIPE}optimizer: {{name: adam, learning_rate: {rate}}}\n"


@dataclass(frozen=True)
class Fault:
    """A recipe that is refused with exit code 2."""

    number: int
    what: str
    recipe: str | bytes
    said: list[str] = field(default_factory=list)
    """Parts of the message; `r.yaml` stands for the file."""

    def __str__(self) -> str:
        return f"row{self.number:02d}_{self.what.replace(' ', '_')}"


WRONG_TYPES = changed("{epochs: 2}", '{epochs: "ten", batch_size: [1], seed: yes}')
BOMB = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
RATES = "optimizer.learning_rate: out of range; allowed: a number above 0 and at most 1000; received"

FAULTS = [
    Fault(1, "unknown key", RECIPE + "optimizer: {name: adam, learing_rate: 1e-3}\n",
          ["r.yaml:5:25 optimizer.learing_rate: unknown key; did you mean learning_rate"]),
    Fault(1, "unknown name", changed("cnn", "cmn"), ["r.yaml:3:22 architecture.name", "did you mean cnn"]),
    Fault(2, "wrong types all at once", WRONG_TYPES,
          ['r.yaml:4:20 training.epochs: wrong type; allowed: a whole number from 1 to 100000; received "ten"',
           "r.yaml:4:39 training.batch_size: wrong type", "r.yaml:4:50 training.seed: wrong type"]),
    Fault(4, "nan", optimizer(".nan"), [f"r.yaml:5:40 {RATES} .nan"]),
    Fault(4, "infinity", optimizer("-.inf"), [f"{RATES} -.inf"]),
    Fault(4, "negative", optimizer("-0.1"), [f"{RATES} -0.1"]),
    Fault(4, "too large for a float", optimizer("1e400"), [f"{RATES} 1e400"]),
    Fault(5, "batch of a billion", changed("epochs: 2", "batch_size: 1000000000"),
          ["r.yaml:4:24 training.batch_size: out of range; allowed: a whole number from 1 to 1048576"]),
    Fault(5, "a million layers", changed("{name: cnn, filters: [8]}", "{name: resnet, depth: 1000000}"),
          ["architecture.depth", "20, 32, 44", "received 1000000"]),
    Fault(5, "list of a million layers", changed("[8]", f"[{'8, ' * 1_000_000}8]"), ["larger than 1,000,000 bytes"]),
    Fault(5, "images of 100000 pixels a side",
          changed("{name: digits}", "{name: image_folder, path: x, image_size: [100000, 100000]}"),
          ["dataset.image_size", "from 1 to 16384"]),
    Fault(6, "duplicate key", RECIPE + "training: {epochs: 3}\n",
          ["r.yaml:5:1 training: duplicate key; the first is in line 4"]),
    Fault(7, "billion laughs", BOMB, ["r.yaml:2:8 b.0: aliases are not allowed"]),
    Fault(7, "recursive alias", RECIPE + "a: &a [*a]\n", ["r.yaml:5:8 a.0: aliases are not allowed"]),
    Fault(8, "depth 5000", "[" * 5000, ["nested deeper than 30 levels"]),
    Fault(8, "50 MB", b"a: " + b"x" * 50_000_000, ["larger than 1,000,000 bytes"]),
    Fault(9, "tag that runs code", RECIPE + "x: !!python/object/apply:os.mkdir [canary]\n",
          ["r.yaml:5:4 x: tags are not allowed; received !!python/object/apply:os.mkdir"]),
    Fault(10, "empty", "", ["r.yaml: empty", "(required: task, dataset, architecture)"]),
    Fault(10, "only comments", "# a recipe\n", ["r.yaml: empty", "(required: task, dataset, architecture)"]),
    Fault(10, "a list at the top", "- task\n- dataset\n",
          ["r.yaml:1:1: a recipe is a mapping of sections", 'received ["task", "dataset"]']),
    Fault(10, "two documents", RECIPE + "---\n" + RECIPE, ["r.yaml:5:1: a second document"]),
    Fault(11, "not UTF-8", RECIPE.encode() + b"# \xff\n",
          [f"r.yaml:5:3: not UTF-8: byte 0xff at offset {len(RECIPE) + 2}"]),
    Fault(11, "UTF-16", RECIPE.encode("utf-16"), ["byte 0xff at offset 0"]),
    Fault(11, "zero byte", RECIPE + "\0", [f"r.yaml:5:1: character U+0000 (byte {len(RECIPE)}) is not allowed"]),
    Fault(11, "escaped zero byte", changed("rows.csv", '"a\\0b"', TABLE), ["dataset.path: a zero byte is no text"]),
    Fault(11, "tab", RECIPE + "\tx: 1\n", ["r.yaml:5:1: a tab indents this line; use spaces"]),
    Fault(12, "name with a leading zero", changed("label", "010", TABLE),
          ["r.yaml:2:46 dataset.target: a leading zero is octal in some YAML; write 10 for the number, '010' for text"]),
    Fault(12, "name that is a number", changed("label", "7", TABLE), ["dataset.target: wrong type; allowed: text"]),
    Fault(15, "networks of another task", changed("image_classification", "gan"),
          ["architecture: task gan needs", "dcgan"]),
    Fault(15, "one key in two sections",
          changed("[8]", "[8], dropout: 0.3") + "regularization: {dropout: 0.1}\n",
          ["regularization.dropout: architecture.dropout is 0.3; give dropout in one place"]),
    Fault(15, "two ways to clip", RECIPE + "regularization: {gradient_clipping: {norm: 1.0, value: 1.0}}\n",
          ["exactly one of norm, value, global_norm; received: norm, value"]),
    Fault(15, "a loss of probabilities",
          changed("image_classification", "{name: image_classification, loss: {name: hinge, from_logits: false}}"),
          ["r.yaml:1:42 task.loss: wrong type", "from_logits"]),
    Fault(15, "smoothing without classes",
          changed("tabular_classification", "regression", TABLE) + "regularization: {label_smoothing: 0.1}\n",
          ["regularization.label_smoothing: task regression has no class labels to smooth"]),
    Fault(16, "newer version", "version: 2\ndropout_everywhere: true\n" + RECIPE,
          ["r.yaml:1:10 version: this recipe is of version 2, and dlcli ", "reads version 1; install a newer dlcli"]),
    Fault(16, "no version", "version: one\n" + RECIPE, ["there is no such version", 'allowed: 1; received "one"']),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(recipe: str | bytes) -> Path:
    path = Path("r.yaml")
    path.write_bytes(recipe if isinstance(recipe, bytes) else recipe.encode())
    return path


def names(folder: str = ".") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_refused(fault: Fault, run_dlcli: Callable[..., Any]) -> None:
    outcome = run_dlcli("validate", write(fault.recipe), seconds=SECONDS, memory=MEMORY)
    outcome.check(2)
    for part in fault.said:
        assert part in outcome.err
    if fault.number == 16:  # what a newer version may say is not held against it
        assert "dropout_everywhere" not in outcome.err
    assert names() == ["r.yaml"]


@pytest.mark.parametrize("rate", ["1e-3", "1E-3", "1.e-3", "0.001"])
def test_row03_numbers_with_an_exponent_are_numbers(rate: str) -> None:
    """YAML 1.1 takes 1e-3 for a text."""
    recipe = load_recipe(write(optimizer(rate)))
    assert recipe.optimizer.arguments["learning_rate"] == 0.001


def test_row07_aliases_cost_nothing(limited: Callable[..., Any]) -> None:
    from dlcli.recipe.yaml_reader import parse_yaml

    with limited(memory=20 * 2**20, seconds=1):
        start = time.process_time()
        assert parse_yaml(BOMB, "r.yaml").mistakes
        assert time.process_time() - start < 0.05


@dataclass(frozen=True)
class Accepted:
    """A recipe that is right, and what becomes of it."""

    number: int
    what: str
    recipe: str | bytes
    holds: Callable[[Recipe], bool]

    def __str__(self) -> str:
        return f"row{self.number:02d}_{self.what.replace(' ', '_')}"


WORDS = {"no": 1.0, "on": 2.0, "010": 3.0, "12:30": 4.0}
ACCEPTED = [
    Accepted(3, "number with an exponent", optimizer("1e-3"), lambda it: it.optimizer.arguments["learning_rate"] == 0.001),
    Accepted(11, "byte order mark", b"\xef\xbb\xbf" + RECIPE.encode(), lambda it: it.training.epochs == 2),
    Accepted(11, "CRLF", RECIPE.replace("\n", "\r\n"), lambda it: it.training.epochs == 2),
    Accepted(12, "classes that YAML 1.1 takes for other things",
             RECIPE + f"regularization: {{class_weights: {{{', '.join(f'{k}: {v}' for k, v in WORDS.items())}}}}}\n",
             lambda it: it.regularization.class_weights == WORDS),
    Accepted(12, "target no", changed("label", "no", TABLE), lambda it: it.dataset.arguments["target"] == "no"),
    Accepted(14, "path above", changed("rows.csv", "../rows.csv", TABLE),
             lambda it: Path(it.dataset.arguments["path"]) == Path("../rows.csv").absolute()),
    Accepted(14, "path at home", changed("rows.csv", "~/rows.csv", TABLE),
             lambda it: Path(it.dataset.arguments["path"]) == Path.home() / "rows.csv"),
    Accepted(14, "path with a variable is as written", changed("rows.csv", "$HOME/rows.csv", TABLE),
             lambda it: Path(it.dataset.arguments["path"]) == Path("$HOME/rows.csv").absolute()),
    Accepted(14, "path of other characters", changed("rows.csv", "'ü 😀/א.csv'", TABLE),
             lambda it: it.dataset.arguments["path"].endswith("/ü 😀/א.csv")),
    Accepted(16, "version 1", "version: 1\n" + RECIPE, lambda it: it.training.epochs == 2),
]  # fmt: skip


@pytest.mark.parametrize("row", ACCEPTED, ids=str)
def test_accepted(row: Accepted) -> None:
    assert row.holds(with_absolute_paths(load_recipe(write(row.recipe))))


def pipe(path: Path) -> None:
    os.mkfifo(path)


@dataclass(frozen=True)
class NoFile:
    """Something that is no recipe file, in its place."""

    what: str
    make: Callable[[Path], Any]
    said: str

    def __str__(self) -> str:
        return f"row13_{self.what.replace(' ', '_')}"


NO_FILES = [
    NoFile("directory", lambda path: path.mkdir(), "is a directory, not a recipe file"),
    NoFile("pipe", pipe, "not a regular file but a pipe, socket or device"),
    NoFile("endless device", lambda path: path.symlink_to("/dev/zero"), "not a regular file but a pipe"),
    NoFile("link to itself", lambda path: path.symlink_to(path.name), "a symbolic link that points to itself"),
    NoFile("link to nothing", lambda path: path.symlink_to("nowhere"), "no such file"),
    NoFile("nothing", lambda path: Path("s.yaml").touch(), "r.yaml: no such file; did you mean s.yaml?"),
]  # fmt: skip


@pytest.mark.parametrize("fault", NO_FILES, ids=str)
def test_no_recipe_file(fault: NoFile, run_dlcli: Callable[..., Any]) -> None:
    fault.make(Path("r.yaml"))
    outcome = run_dlcli("validate", "r.yaml", seconds=SECONDS, memory=MEMORY)
    outcome.check(2)
    assert f"r.yaml: {fault.said}".replace("r.yaml: r.yaml", "r.yaml") in outcome.err


def test_row13_unreadable(run_dlcli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refuse(path: Any, *arguments: Any) -> int:
        if not str(path).endswith("r.yaml"):
            return opened(path, *arguments)
        raise PermissionError(13, "Permission denied")

    write(RECIPE)
    monkeypatch.setattr("dlcli.recipe.yaml_reader.os.open", refuse)
    outcome = run_dlcli("validate", "r.yaml")
    outcome.check(2)
    assert "r.yaml: no permission to read it" in outcome.err


def test_row14_names_of_300_characters(run_dlcli: Callable[..., Any]) -> None:
    outcome = run_dlcli("validate", "x" * 300 + ".yaml")
    outcome.check(2)
    assert "File name too long" in outcome.err
    outcome = run_dlcli("train", write(changed("rows.csv", "y" * 300, TABLE)))
    outcome.check(2)
    assert "y" * 300 in outcome.err and "File name too long" in outcome.err


@pytest.mark.usefixtures("no_pictures")  # whose names are all our own
def test_row14_nothing_is_written_outside_the_run(run_dlcli: Callable[..., Any], tmp_path: Path) -> None:
    classes = ("../../evil", "/tmp/evil", "a/b", "..")
    rows = "".join(f"{number},{number % 5},{classes[number % 4]}\n" for number in range(40))
    Path("inside").mkdir()
    Path("inside/rows.csv").write_text(f"x,y,label\n{rows}")
    recipe = changed("rows.csv", "inside/../inside/rows.csv", TABLE) + "training: {epochs: 1}\n"
    run_dlcli("train", write(recipe), "--out", "runs/deep/run").check(0)
    assert names() == ["inside", "r.yaml", "runs"] and names("runs/deep") == ["run"]
    assert names("inside") == ["rows.csv"] and not (tmp_path.parent / "evil").exists()
    assert str(tmp_path / "inside") in Path("runs/deep/run/recipe.yaml").read_text()


def test_row15_explaining_what_predicts_nothing(run_dlcli: Callable[..., Any]) -> None:
    recipe = load_recipe(
        write(changed("image_classification", "gan").replace("{name: cnn, filters: [8]}", "dcgan"))
    )
    Path("run").mkdir()
    Path("run/recipe.yaml").write_text(dump_recipe(recipe))
    Path("run/environment.json").write_text("{}")
    outcome = run_dlcli("explain", "run", "x.png", "--method", "lime")
    outcome.check(2)
    assert "its task is gan" in outcome.err and "`dlcli explain`" in outcome.err


def test_row05_a_network_larger_than_the_memory(run_dlcli: Callable[..., Any]) -> None:
    huge = changed("{name: cnn, filters: [8]}", "{name: mlp, hidden: [100000, 1000000]}")
    outcome = run_dlcli("plan", write(huge), memory=4 * MEMORY)
    outcome.check(2)
    assert "it has 100,00" in outcome.err and "take 80" in outcome.err and "GB are free" in outcome.err
    assert names() == ["r.yaml"]


def test_row05_images_larger_than_the_memory(
    run_dlcli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlcli.training.checks.available_memory", lambda: 2**20)
    outcome = run_dlcli("plan", write(changed("[8]", "[64]")), "--set", "training.batch_size=256")
    outcome.check(2)
    assert (
        "layer conv2d" in outcome.err and "gives 8x8x64 numbers for each of 256 examples: 0 GB" in outcome.err
    )
    outcome = run_dlcli("plan", write(RECIPE), "--set", "training.batch_size=65536")
    outcome.check(2)
    assert "a batch of 65536 inputs of 8x8x1 takes" in outcome.err and names() == ["r.yaml"]


def test_row05_a_network_deeper_than_its_images(run_dlcli: Callable[..., Any]) -> None:
    outcome = run_dlcli("plan", write(changed("[8]", f"[{'8, ' * 3000}8]")))
    outcome.check(2)
    assert "3001 blocks" in outcome.err and "give fewer `filters`" in outcome.err and len(outcome.err) < 1000
