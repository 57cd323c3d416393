"""Data: a recipe's `dataset` section becomes train, validation and test examples.

All tables are plain names, so that a recipe is checked without TensorFlow; `pkgutil.resolve_name` finds the builder.
"""

IMAGES = {
    "digits": "dlcli.data.sklearn_sets:digits",
    "mnist": "dlcli.data.keras_sets:mnist",
    "fashion_mnist": "dlcli.data.keras_sets:fashion_mnist",
    "cifar10": "dlcli.data.keras_sets:cifar10",
    "cifar100": "dlcli.data.keras_sets:cifar100",
    "image_folder": "dlcli.data.image_folder:image_folder",
}
TABLES = {
    "iris": "dlcli.data.sklearn_sets:iris",
    "wine": "dlcli.data.sklearn_sets:wine",
    "breast_cancer": "dlcli.data.sklearn_sets:breast_cancer",
    "diabetes": "dlcli.data.sklearn_sets:diabetes",
    "csv": "dlcli.data.csv_table:csv",
}
TEXTS = {
    "imdb": "dlcli.data.text.keras_sets:imdb",
    "reuters": "dlcli.data.text.keras_sets:reuters",
    "text_folder": "dlcli.data.text.folder:text_folder",
    "text_csv": "dlcli.data.text.table:text_csv",
    "text_file": "dlcli.data.text.file:text_file",
}
PAIRS = {"pairs": "dlcli.data.text.pairs:pairs"}
QUESTIONS = {"squad": "dlcli.data.text.squad:squad"}
TAGGED = {"conll": "dlcli.data.text.conll:conll"}
IMAGE_PAIRS = {"image_pairs": "dlcli.data.image_pairs:image_pairs"}
UNPAIRED_IMAGES = {"unpaired_images": "dlcli.data.unpaired_images:unpaired_images"}

KINDS_OF_DATA = {
    "image": IMAGES,
    "table": TABLES,
    "text": TEXTS,
    "pairs": PAIRS,
    "questions": QUESTIONS,
    "tagged": TAGGED,
    "image_pairs": IMAGE_PAIRS,
    "unpaired_images": UNPAIRED_IMAGES,
}
"""What the examples of a source are; each task says which kinds it learns from (`dlcli.tasks.READS`)."""

IMAGE_KINDS = ("image", "image_pairs", "unpaired_images")
"""Kinds that image augmentations change."""

TEXT_KINDS = ("text", "pairs", "questions", "tagged")
"""Kinds that a tokenizer reads."""

DATASETS = {name: builder for table in KINDS_OF_DATA.values() for name, builder in table.items()}
"""Sources: `build(*, <keys of the dataset section>) -> Source`."""

TOKENIZERS = {
    "word": "dlcli.data.text.tokenizers:word",
    "character": "dlcli.data.text.tokenizers:character",
    "byte": "dlcli.data.text.tokenizers:byte",
    "bpe": "dlcli.data.text.tokenizers:bpe",
    "wordpiece": "dlcli.data.text.tokenizers:wordpiece",
    "unigram": "dlcli.data.text.tokenizers:unigram",
}
"""`learn(texts, *, ...) -> tokenizers.Tokenizer`, from the texts of the train split."""

IMAGE_AUGMENTATIONS = {
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

MIXING = ("mix_up", "cut_mix")
"""These blend targets too, which must therefore be floats: one-hot classes, labels or values."""

TEXT_AUGMENTATIONS = {
    "random_deletion": "dlcli.data.text.augmentation:random_deletion",
    "random_swap": "dlcli.data.text.augmentation:random_swap",
    "random_insertion": "dlcli.data.text.augmentation:random_insertion",
    "synonym_replacement": "dlcli.data.text.augmentation:synonym_replacement",
}
"""`augment(words, random, *, ...) -> words`, before the tokenizer; `random` is the example's own generator."""

AUGMENTATIONS = IMAGE_AUGMENTATIONS | TEXT_AUGMENTATIONS
