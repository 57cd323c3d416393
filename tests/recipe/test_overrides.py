import pytest

from dlcli.recipe.load import RecipeError, load_recipe


def error(path, *overrides):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


def test_values_are_yaml(good):
    recipe = load_recipe(
        good,
        [
            "optimizer.learning_rate=3e-4",
            "architecture.filters=[8, 16]",
            "training.monitor=accuracy",
            "architecture.residual=true",
            "regularization.early_stopping=null",
            "dataset.path=some folder/it's",
        ],
    )
    assert recipe.optimizer.arguments["learning_rate"] == 3e-4
    assert recipe.architecture.arguments["filters"] == [8, 16]
    assert recipe.training.monitor == "accuracy"
    assert recipe.architecture.arguments["residual"] is True
    assert recipe.regularization.early_stopping is None
    assert recipe.dataset.arguments["path"] == "some folder/it's"


def test_sections_that_the_file_lacks(good):
    good.write_text("{task: classification, dataset: digits, architecture: cnn}")
    recipe = load_recipe(
        good,
        [
            "training.epochs=3",
            "optimizer.learning_rate=1e-2",
            "schedule.warmup_epochs=2",
            "regularization.early_stopping.patience=2",
            "task.loss=hinge",
            "architecture.dropout=0.1",
            "dataset.augmentation.0=mix_up",
        ],
    )
    assert recipe.training.epochs == 3
    assert (recipe.optimizer.name, recipe.optimizer.arguments["learning_rate"]) == ("adam", 1e-2)
    assert recipe.schedule.arguments["warmup_epochs"] == 2
    assert recipe.regularization.early_stopping.patience == 2
    assert recipe.task.arguments["loss"] == "hinge"
    assert recipe.architecture.arguments["dropout"] == 0.1
    assert [spec.name for spec in recipe.dataset.augmentation] == ["mix_up"]


def test_items_of_a_list(good):
    recipe = load_recipe(
        good,
        [
            "dataset.augmentation.0.mode=vertical",
            "dataset.augmentation.1.mode=vertical",
            "dataset.augmentation.2=mix_up",
            "dataset.augmentation.3.name=mix_up",
            "dataset.augmentation.3.alpha=0.5",
            "architecture.filters.0=8",
        ],
    )
    specs = recipe.dataset.augmentation
    assert [spec.name for spec in specs] == ["random_flip", "random_flip", "mix_up", "mix_up"]
    assert [spec.arguments for spec in specs] == [{"mode": "vertical"}] * 2 + [{"alpha": 0.2}, {"alpha": 0.5}]
    assert recipe.architecture.arguments["filters"] == [8, 64]


@pytest.mark.parametrize("flag", ["optimizer=sgd", "optimizer.name=sgd"])
def test_another_name_drops_the_arguments_of_the_old_one(good, flag):
    good.write_text(good.read_text().replace("learning_rate: 1e-3", "learning_rate: 0.5, beta_1: 0.8"))
    assert load_recipe(good, [flag]).optimizer.arguments["learning_rate"] == 0.01
    assert load_recipe(good, ["optimizer=adam"]).optimizer.arguments["beta_1"] == 0.8


def test_names_come_first_whatever_the_order(good):
    for flags in (
        ["optimizer.momentum=0.9", "optimizer.name=sgd"],
        ["optimizer.name=sgd", "optimizer.momentum=0.9"],
    ):
        assert load_recipe(good, flags).optimizer.arguments["momentum"] == 0.9


def test_another_source_keeps_what_belongs_to_the_section(good):
    good.write_text(good.read_text().replace("  name: digits\n", "  name: digits\n  validation_split: 0.2\n"))
    recipe = load_recipe(
        good, ["dataset.name=csv", "dataset.path=x", "dataset.target=y", "dataset.augmentation=[]"]
    )
    assert recipe.dataset.validation_split == 0.2
    assert recipe.dataset.arguments == {"path": "x", "target": "y"}


def test_the_last_flag_wins(good):
    assert load_recipe(good, ["training.epochs=3", "training.epochs=4"]).training.epochs == 4


def test_a_flag_mends_a_wrong_value(good):
    good.write_text(good.read_text().replace("epochs: 10", "epochs: -1"))
    assert "r.yaml:12:20 training.epochs: out of range" in error(good)
    assert load_recipe(good, ["training.epochs=4"]).training.epochs == 4


def test_mistakes_name_the_flag(good):
    assert error(good, "optimizer.learning_rat=1") == (
        "--set optimizer.learning_rat=1: unknown key; did you mean learning_rate; allowed: learning_rate, "
        "beta_1, beta_2, epsilon, amsgrad, weight_decay, gradient_accumulation_steps; received 1"
    )
    assert error(good, "training.epochs=ten") == (
        "--set training.epochs=ten: wrong type; allowed: a whole number from 1 to 100000; received ten"
    )
    assert error(good, "training={epochs: 1, seed: -1}").startswith(
        "--set training={epochs: 1, seed: -1} training.seed: out of range; "
    )
    assert error(good, "dataset.augmentation.0.mode=x").startswith(
        "--set dataset.augmentation.0.mode=x: unknown value; allowed: horizontal, vertical"
    )
    assert error(good, "architecture=cmn").startswith(
        "--set architecture=cmn architecture.name: unknown architecture; did you mean cnn"
    )


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("training.epochs", "--set training.epochs: expected KEY.PATH=VALUE"),
        ("=1", "--set =1: expected KEY.PATH=VALUE"),
        ("training..epochs=1", "--set training..epochs=1: expected KEY.PATH=VALUE"),
        ("", "--set ...: expected KEY.PATH=VALUE"),
        (
            "dataset.augmentation.5.mode=x",
            "dataset.augmentation is a list of 2; expected an index from 0 to 2",
        ),
        ("dataset.augmentation.x=1", "dataset.augmentation is a list of 2"),
        ("training.epochs.x=1", "training.epochs is 10, which has no keys"),
        ("training.monitor=[a", "not YAML"),
        ("training.monitor=a: b", "write a mapping as {key: value}"),
        ("training.monitor=*.jpg", "not YAML"),
        ("training.monitor=*a", "aliases are not allowed"),
        ("training.epochs=010", "a leading zero"),
        ("training.epochs=\x00", "character U+0000"),
        ("training.seed=" + "9" * 5000, "a number of 5000 digits"),
        ("nowhere.x=1", "nowhere: unknown key"),
        (
            "architecture.kernel_size.0=1",
            "the recipe does not give architecture.kernel_size; set the whole list",
        ),
        (".".join("a" * 40) + "=1", "expected KEY.PATH=VALUE"),
        ("optimizer.learning_rate=1e400", "received 1e400"),
        (
            "distribution.strategy=parameter_server",
            "parameter_server: Keras 3 no longer trains with parameter servers; take multi_worker; allowed: auto, none, ",
        ),
        (
            "distribution.strategy=multi_worker_mirrored",
            "it is called multi_worker here; did you mean multi_worker",
        ),
    ],
)
def test_flags_that_say_nothing(good, flag, message):
    text = error(good, flag)
    assert text.startswith("--set ") and message in text and len(text.splitlines()) == 1


def test_mistakes_of_file_and_flags_come_together(good):
    good.write_text(good.read_text().replace("seed: 0", "seed: -1"))
    lines = error(good, "training.epochs=0", "nowhere=1").splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        f"{good}:12:47 training.seed",
        "--set nowhere=1",
        "--set training.epochs=0",
    ] or [line.split(": ")[0] for line in lines] == [
        f"{good}:12:47 training.seed",
        "--set training.epochs=0",
        "--set nowhere=1",
    ]
