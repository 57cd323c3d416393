import pytest

from dlcli.recipe.names import (
    NAMESPACES,
    canonical,
    find,
    keras_aliases,
    keras_class_name,
    keras_names,
    keras_source,
    suggest,
)


@pytest.mark.parametrize(
    ("namespace", "written", "name", "attribute"),
    [
        ("optimizers", "AdamW", "adamw", "AdamW"),
        ("optimizers", "RMS-Prop", "rmsprop", "RMSprop"),
        ("optimizers", "ScheduleFreeAdamW", "schedule_free_adamw", "ScheduleFreeAdamW"),
        ("initializers", "Xavier", "glorot_uniform", "GlorotUniform"),
        ("initializers", "kaiming", "he_normal", "HeNormal"),
        ("initializers", "random", "random_normal", "RandomNormal"),
        ("initializers", "OrthogonalInitializer", "orthogonal", "Orthogonal"),
        ("activations", "ReLU", "relu", "relu"),
        ("activations", "swish", "silu", "silu"),
        ("activations", "HardSwish", "hard_silu", "hard_silu"),
        ("losses", "MSE", "mean_squared_error", "MeanSquaredError"),
        ("losses", "mean_squared_error", "mean_squared_error", "MeanSquaredError"),
        ("losses", "KLDivergence", "kl_divergence", "KLDivergence"),
        ("metrics", "AUC", "auc", "AUC"),
        ("metrics", "binary_iou", "binary_iou", "BinaryIoU"),
        ("metrics", "f1", "f1_score", "F1Score"),
        ("applications", "EfficientNetB0", "efficientnet_b0", "EfficientNetB0"),
        ("applications", "ConvNeXtXLarge", "convnext_xlarge", "ConvNeXtXLarge"),
        ("applications", "inception_resnet_v2", "inception_resnet_v2", "InceptionResNetV2"),
        ("applications", "res_net_50", "resnet50", "ResNet50"),
    ],
)
def test_any_spelling_is_one_name(namespace, written, name, attribute):
    assert canonical(namespace, written) == name
    assert keras_class_name(namespace, written) == attribute


@pytest.mark.parametrize(
    ("namespace", "name"),
    [
        ("optimizers", "Optimizer"),
        ("optimizers", "LossScaleOptimizer"),
        ("optimizers", "MultiOptimizer"),
        ("optimizers", "OptimizerMap"),
        ("optimizers", "schedules"),
        ("optimizers", "get"),
        ("optimizers", "os.system"),
        ("activations", "deserialize"),
        ("activations", "threshold"),
        ("losses", "Loss"),
        ("metrics", "MeanMetricWrapper"),
        ("applications", "imagenet_utils"),
        ("optimizers", ""),
    ],
)
def test_what_is_no_name_for_a_recipe(namespace, name):
    with pytest.raises(ValueError, match="Expected one of"):
        canonical(namespace, name)


def test_every_name_is_one_that_keras_has():
    keras = pytest.importorskip("keras")
    for namespace in NAMESPACES:
        module = getattr(keras, namespace)
        assert len(keras_names(namespace)) > 10
        for name in keras_names(namespace):
            attribute = keras_class_name(namespace, name)
            assert hasattr(module, attribute), (namespace, name)
            path, original = keras_source(namespace, name)
            assert path.is_file()
            if namespace in ("optimizers", "losses", "metrics", "initializers"):
                assert getattr(module, attribute).__name__ == original
                getattr(module, attribute)()  # usable by name alone
        for alias, name in keras_aliases(namespace).items():
            assert canonical(namespace, alias) == name in keras_names(namespace)


def test_find_and_suggest():
    table = ["random_crop", "random_flip"]
    assert find("RandomCrop", table) == "random_crop"
    assert find("random crop", table) == "random_crop"
    assert find("random_crops", table) is None
    assert suggest("random_crops", table) == "random_crop"
    assert suggest("zzz", table) is None
    assert suggest("lr", ["learning_rate", "momentum"]) == "learning_rate"
    assert suggest("x" * 1_000_000, table) is None
