import random
from pathlib import Path

import pytest

from dlcli.recipe.load import RecipeError, dump_recipe, find_recipe, load_recipe, resolve, shipped_recipes
from dlcli.recipe.schema import Recipe


def mistakes(path, text=None, overrides=()):
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return str(caught.value).replace(str(path), "r.yaml").splitlines()


def test_every_default_is_written_out(good):
    recipe = load_recipe(good)
    assert recipe.architecture.arguments == {
        "filters": [32, 64], "kernel_size": 3, "activation": "relu", "initializer": "glorot_uniform",
        "dropout": 0.0, "residual": False,
    }  # fmt: skip
    assert recipe.task.arguments == {"loss": None, "metrics": []}
    assert recipe.dataset.arguments == {"path": None, "normalization": "rescale"}
    assert [spec.arguments for spec in recipe.dataset.augmentation] == [{"mode": "horizontal"}] * 2
    assert recipe.optimizer.arguments["beta_2"] == 0.999
    assert recipe.schedule.arguments == {"warmup_epochs": 0.0}
    assert recipe.regularization.early_stopping.patience == 5
    assert recipe.distribution.strategy == "auto"


def test_the_least_recipe(good):
    good.write_text("{task: Regression, dataset: digits, architecture: LeNet-5}")
    recipe = load_recipe(good)
    assert recipe.task.name == "regression" and recipe.architecture.name == "lenet5"
    assert recipe.optimizer.name == "adam" and recipe.optimizer.arguments["epsilon"] == 1e-7
    assert recipe.training.epochs == 10


def test_a_resolved_recipe_loads_back_to_itself(good, tmp_path):
    recipe = load_recipe(good, ["regularization.dropout=0.3", "regularization.weight_decay=0.05"])
    assert recipe.architecture.arguments["dropout"] == 0.3
    assert recipe.optimizer.arguments["weight_decay"] == 0.05
    again = tmp_path / "resolved.yaml"
    again.write_text(dump_recipe(recipe))
    assert load_recipe(again) == recipe == resolve(recipe)
    assert load_recipe(again).model_dump() == recipe.model_dump()


@pytest.mark.parametrize(
    "path",
    [
        "no", "010", "1e-3", "1_000", "12:30", "<<", "~", "", " x ", "a: b", "*.jpg", "&a", "!t", "'q'",
        '"q"', "#c", "漢字", "a\tb", "a\nb", "{x}", "[x]", "%x", "@x", ".nan", "0x10", "null", "true",
        "2020-01-01", "long " * 60,
        "C:\\new", "..", "~/data", "\x85", "😀",
    ],
)  # fmt: skip
def test_every_text_survives_the_way_through_yaml(good, tmp_path, path):
    recipe = load_recipe(good)
    spec = recipe.dataset.model_copy(update={"path": path})
    weights = recipe.regularization.model_copy(update={"class_weights": {path: 2.0}})
    changed = recipe.model_copy(update={"dataset": spec, "regularization": weights})
    again = tmp_path / "resolved.yaml"
    again.write_text(dump_recipe(changed), encoding="utf-8")
    loaded = load_recipe(again)
    assert loaded.dataset.arguments["path"] == str(Path(path)) or loaded.dataset.arguments["path"] == path
    assert loaded.regularization.class_weights == {path: 2.0}


MANY_MISTAKES = """\
task: {name: classificatoin}
dataset:
  name: digits
  normalisation: rescale
  validation_split: 1.5
  augmentation:
    - {name: random_flip, mode: sideways}
    - {mode: horizontal}
architecture: {name: cnn, filters: [32, -4], activation: rellu, kernel_size: [3, 0]}
optimizer: {name: adam, learning_rat: 1e400, clipnorm: 1, beta_1: yes, learning_rate: .nan}
shedule: constant
regularization: {l2: "1e-4", early_stopping: {patience: 0, foo: 1}, gradient_clipping: {}, class_weights: {a: -1}}
training: {epochs: 1e1, learning_rate: 3, batch_size: 1000000000, patience: 5, seed: true, lr: 1}
distribution: {strategy: mirrord, cross_device: nccll, devices: [], logical_devices: 1}
"""

EXPECTED = """\
r.yaml:1:14 task.name: unknown task; did you mean classification; allowed: classification, regression; received "classificatoin"
r.yaml:4:3 dataset.normalisation: unknown key; did you mean normalization; allowed: path, normalization, validation_split, tokenizer, max_length, augmentation; received rescale
r.yaml:5:21 dataset.validation_split: out of range; allowed: a number at least 0 and below 1; received 1.5
r.yaml:7:33 dataset.augmentation.0.mode: unknown value; allowed: horizontal, vertical; received sideways
r.yaml:8:7 dataset.augmentation.1.name: required key is missing; allowed: text
r.yaml:9:41 architecture.filters.1: out of range; allowed: a whole number from 1 to 1000000; received -4
r.yaml:9:82 architecture.kernel_size.1: out of range; allowed: a whole number from 1 to 1000000; received 0
r.yaml:10:25 optimizer.learning_rat: unknown key; did you mean learning_rate; allowed: learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay, gradient_accumulation_steps; received 1e400
r.yaml:10:46 optimizer.clipnorm: belongs to regularization.gradient_clipping.norm
r.yaml:10:67 optimizer.beta_1: wrong type; allowed: a number at least 0 and below 1; received yes
r.yaml:10:87 optimizer.learning_rate: out of range; allowed: a number above 0 and at most 1000; received .nan
r.yaml:11:1 shedule: unknown key; did you mean schedule; allowed: task, dataset, architecture, optimizer, schedule, regularization, training, distribution, metrics, finetune; received constant
r.yaml:12:22 regularization.l2: wrong type; did you mean 1e-4; allowed: a number from 0 to 1000000; received "1e-4"
r.yaml:12:57 regularization.early_stopping.patience: out of range; allowed: a whole number from 1 to 1000000; received 0
r.yaml:12:60 regularization.early_stopping.foo: unknown key; allowed: patience, min_delta, restore_best; received 1
r.yaml:12:88 regularization.gradient_clipping: give exactly one of norm, value, global_norm; received: none
r.yaml:12:111 regularization.class_weights.a: out of range; allowed: a number above 0 and at most 1000000; received -1
r.yaml:13:20 training.epochs: wrong type; did you mean 10; allowed: a whole number from 1 to 100000; received 1e1
r.yaml:13:25 training.learning_rate: unknown key; belongs to optimizer; allowed: epochs, steps_per_epoch, batch_size, batch_size_per_replica, scale_learning_rate, seed, precision, monitor, steps_per_execution, gradient_accumulation, checkpoint, on_nan, on_out_of_memory; received 3
r.yaml:13:55 training.batch_size: out of range; allowed: a whole number from 1 to 1048576; received 1000000000
r.yaml:13:67 training.patience: unknown key; belongs to regularization.early_stopping; allowed: epochs, steps_per_epoch, batch_size, batch_size_per_replica, scale_learning_rate, seed, precision, monitor, steps_per_execution, gradient_accumulation, checkpoint, on_nan, on_out_of_memory; received 5
r.yaml:13:86 training.seed: wrong type; allowed: a whole number at least 0 and below 2147483648; received true
r.yaml:13:92 training.lr: unknown key; did you mean optimizer.learning_rate; allowed: epochs, steps_per_epoch, batch_size, batch_size_per_replica, scale_learning_rate, seed, precision, monitor, steps_per_execution, gradient_accumulation, checkpoint, on_nan, on_out_of_memory; received 1
r.yaml:14:26 distribution.strategy: unknown value; did you mean mirrored; allowed: auto, none, one_device, mirrored, multi_worker, tpu; received mirrord
r.yaml:14:49 distribution.cross_device: unknown value; did you mean nccl; allowed: nccl, hierarchical, reduction or null; received nccll
r.yaml:14:65 distribution.devices: too few values; allowed: a list of at least 1, each text or null; received []
r.yaml:14:86 distribution.logical_devices: out of range; allowed: a whole number from 2 to 64 or null; received 1
"""


def test_all_mistakes_at_once_in_the_form_of_the_design(good):
    found = mistakes(good, MANY_MISTAKES)
    assert [line for line in found if "architecture.activation" not in line] == EXPECTED.splitlines()
    activation = next(line for line in found if "architecture.activation" in line)
    assert activation.startswith(
        "r.yaml:9:58 architecture.activation: unknown name; did you mean relu; allowed: celu, "
    )


def test_a_suggestion_alone_ends_with_a_question_mark(tmp_path):
    with pytest.raises(RecipeError, match=r"did you mean .*/recipe\.yaml\?$"):
        (tmp_path / "recipe.yaml").write_text("")
        find_recipe(tmp_path)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "null"])
def test_empty_files_say_what_a_recipe_needs(good, text):
    (line,) = mistakes(good, text)
    assert ": empty; allowed: task, dataset, " in line and "required: task, dataset, architecture" in line


@pytest.mark.parametrize("text", ["- a\n- b", "text", "3"])
def test_what_is_no_mapping(good, text):
    (line,) = mistakes(good, text)
    assert line.startswith("r.yaml:1:1: a recipe is a mapping of sections; allowed: task, ")


def test_missing_sections_are_named(good):
    assert [line.split("; ")[0] for line in mistakes(good, "training: {epochs: 1}")] == [
        "r.yaml:1:1 task: required key is missing",
        "r.yaml:1:1 dataset: required key is missing",
        "r.yaml:1:1 architecture: required key is missing",
    ]


def test_mistakes_of_the_text_and_of_the_values_come_together(good):
    found = mistakes(good, good.read_text().replace("l2: 1e-4", "l2: &a 1e-4, l1: -1") + "training: {}\n")
    assert [line.split("; ")[0] for line in found] == [
        "r.yaml:11:22 regularization.l2: anchors are not allowed",
        "r.yaml:11:35 regularization.l1: out of range",
        "r.yaml:14:1 training: duplicate key",
    ]


def test_null_for_a_section_is_refused(good):
    (line,) = mistakes(good, good.read_text().replace("{epochs: 10, batch_size: 128, seed: 0}", ""))
    assert line.startswith(
        "r.yaml:12:10 training: wrong type; allowed: a mapping of epochs, steps_per_epoch, "
    )
    assert line.endswith("received null")


CONFLICTS = [
    (["architecture=lenet5", "regularization.dropout=0.3"], "architecture lenet5 has no argument dropout"),
    (["architecture.dropout=0.5", "regularization.dropout=0.3"], "architecture.dropout is 0.5"),
    (["optimizer.weight_decay=0.5", "regularization.weight_decay=0.3"], "optimizer.weight_decay is 0.5"),
    (["regularization.weight_decay=20"], "out of range"),
    (["task=regression", "regularization.class_weights=balanced"], "task regression has no classes to weigh"),
    (
        ["task=regression", "regularization.label_smoothing=0.1"],
        "task regression has no class labels to smooth",
    ),
    (["task=regression", "dataset.augmentation.1=mix_up"], "task regression has no class labels that mix_up"),
    (
        ["dataset=csv", "dataset.path=x", "dataset.target=y"],
        "dataset csv holds rows, which no augmentation changes",
    ),
    (
        ["architecture={name: application, model: vgg16}", "dataset.normalization=standardize"],
        "architecture application does its model's own preprocessing",
    ),
]


@pytest.mark.parametrize(("overrides", "expected"), CONFLICTS)
def test_conflicts_name_both_keys(good, overrides, expected):
    (line,) = mistakes(good, None, overrides)
    assert expected in line


def test_a_conflict_stands_at_the_key_in_the_file(good):
    text = good.read_text().replace("l2: 1e-4", "dropout: 0.3")
    text = text.replace("{name: cnn, filters: [32, 64]}", "lenet5")
    assert mistakes(good, text) == [
        "r.yaml:11:27 regularization.dropout: architecture lenet5 has no argument dropout; leave it out or "
        "take another architecture; received 0.3"
    ]


def test_equal_values_in_two_sections_are_no_conflict(good):
    recipe = load_recipe(good, ["architecture.dropout=0.3", "regularization.dropout=0.3"])
    assert recipe.architecture.arguments["dropout"] == 0.3


def test_resolve_checks_a_recipe_made_in_python(builders):
    recipe = Recipe(task="classification", dataset="digits", architecture={"name": "cnn", "filters": [0]})
    with pytest.raises(RecipeError, match=r"^recipe architecture\.filters\.0: out of range"):
        resolve(recipe)


def test_paths_and_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("absent.yaml", "./absent", Path("absent")):
        with pytest.raises(RecipeError, match="no such file"):
            load_recipe(name)
    (tmp_path / "my_recipe.yaml").write_text("")
    with pytest.raises(RecipeError, match=r"^my_recpie.yaml: no such file; did you mean my_recipe.yaml\?$"):
        load_recipe("my_recpie.yaml")
    (tmp_path / "plain").write_text("")
    with pytest.raises(RecipeError, match=r"no shipped recipe has this name.*did you mean \./plain"):
        load_recipe("plain")
    with pytest.raises(RecipeError, match=r"cannot be read|no such file"):
        load_recipe("x" * 300 + ".yaml")
    with pytest.raises(RecipeError, match=r"^a\\x00b.yaml: (cannot be read|no such file)"):
        load_recipe("a\0b.yaml")


def test_shipped_recipes_are_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "digits_cnn" in shipped_recipes()
    assert find_recipe("digits_cnn").name == "digits_cnn.yaml"
    with pytest.raises(RecipeError, match="did you mean digits_cnn; allowed: "):
        find_recipe("digit_cnn")


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_right_and_resolves_to_itself(name, tmp_path):
    recipe = load_recipe(name)
    again = tmp_path / "resolved.yaml"
    again.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(again) == recipe


def test_mutated_recipes_are_recipes_or_mistakes_and_nothing_else(good):
    generator = random.Random(0)
    pieces = [b"\t", b"\x00", b"\xff", b": ", b"- ", b"&a ", b"*a", b"!!int ", b"<<: ", b"\n", b"{", b"}",
              b"[", b"]", b"'", b'"', b"#", b"1e400", b".nan", b"-1", b"null", b"true", b"|\n", b"---\n",
              b"? ", b"%", b"\\ud800"]  # fmt: skip
    original = good.read_bytes()
    recipes = errors = 0
    for _ in range(300):
        content = bytearray(original)
        for _ in range(generator.randint(1, 2)):
            start = generator.randrange(len(content))
            kind = generator.randrange(5)
            if kind == 0:
                content[start : start + generator.randint(1, 8)] = b""
            elif kind == 1:
                content[start:start] = generator.choice(pieces)
            elif kind == 2:
                content[start] = generator.randrange(256)
            elif kind == 3:  # another number: often still a recipe
                digits = [index for index, byte in enumerate(content) if byte in b"0123456789"]
                content[generator.choice(digits)] = generator.choice(b"0123456789")
            else:
                end = start + generator.randint(1, 60)
                content[start:start] = content[start:end]
        good.write_bytes(content)
        try:
            recipe = load_recipe(good)
        except RecipeError as error:
            errors += 1
            assert error.mistakes and all(str(mistake) for mistake in error.mistakes)
        else:
            recipes += 1
            good.write_text(dump_recipe(recipe), encoding="utf-8")
            assert load_recipe(good) == recipe
    assert recipes > 20 and errors > 100
