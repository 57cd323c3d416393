"""Data: a recipe's `dataset` section becomes train, validation and test examples.

Both tables are plain names, so that a recipe is checked without TensorFlow; `pkgutil.resolve_name` finds the builder.
"""

DATASETS = {
    "digits": "dlcli.data.sklearn_sets:digits",
    "iris": "dlcli.data.sklearn_sets:iris",
    "wine": "dlcli.data.sklearn_sets:wine",
    "breast_cancer": "dlcli.data.sklearn_sets:breast_cancer",
    "diabetes": "dlcli.data.sklearn_sets:diabetes",
    "mnist": "dlcli.data.keras_sets:mnist",
    "fashion_mnist": "dlcli.data.keras_sets:fashion_mnist",
    "cifar10": "dlcli.data.keras_sets:cifar10",
    "cifar100": "dlcli.data.keras_sets:cifar100",
    "image_folder": "dlcli.data.image_folder:image_folder",
    "csv": "dlcli.data.csv_table:csv",
}
"""Sources: `build(*, <keys of the dataset section>) -> Source`."""

AUGMENTATIONS = {
    "random_crop": "dlcli.data.geometry:random_crop",
    "random_flip": "dlcli.data.geometry:random_flip",
    "random_rotation": "dlcli.data.geometry:random_rotation",
    "random_translation": "dlcli.data.geometry:random_translation",
    "random_zoom": "dlcli.data.geometry:random_zoom",
    "random_shear": "dlcli.data.geometry:random_shear",
    "random_brightness": "dlcli.data.color:random_brightness",
    "random_contrast": "dlcli.data.color:random_contrast",
    "random_color_jitter": "dlcli.data.color:random_color_jitter",
    "random_erasing": "dlcli.data.mixing:random_erasing",
    "rand_augment": "dlcli.data.rand_augment:rand_augment",
    "mix_up": "dlcli.data.mixing:mix_up",
    "cut_mix": "dlcli.data.mixing:cut_mix",
}
"""Keras's names and argument names, but stateless, each image with its own draw:
`augment(images, targets, position, *, ...) -> images, targets`; `position` holds seed, step, epoch and indices."""
