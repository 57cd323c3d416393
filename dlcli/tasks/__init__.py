"""Tasks: features -> outputs, loss, metrics, decoding. One row in each table and one class make a new task."""

TASKS = {
    "image_classification": "dlcli.tasks.classification:ImageClassification",
    "tabular_classification": "dlcli.tasks.classification:TabularClassification",
    "regression": "dlcli.tasks.regression:Regression",
    "text_classification": "dlcli.tasks.text_classification:TextClassification",
    "language_modeling": "dlcli.tasks.language_modeling:LanguageModeling",
    "masked_language_modeling": "dlcli.tasks.masked_language_modeling:MaskedLanguageModeling",
    "replaced_token_detection": "dlcli.tasks.replaced_token_detection:ReplacedTokenDetection",
    "translation": "dlcli.tasks.translation:Translation",
    "question_answering": "dlcli.tasks.question_answering:QuestionAnswering",
    "token_classification": "dlcli.tasks.token_classification:TokenClassification",
    "gan": "dlcli.tasks.gan:Gan",
    "image_translation": "dlcli.tasks.image_translation:ImageTranslation",
    "autoencoding": "dlcli.tasks.autoencoding:Autoencoding",
    "diffusion": "dlcli.tasks.diffusion:Diffusion",
}

READS = {
    "image_classification": ("image",),
    "tabular_classification": ("table",),
    "regression": ("image", "table"),
    "text_classification": ("text",),
    "language_modeling": ("text",),
    "masked_language_modeling": ("text",),
    "replaced_token_detection": ("text",),
    "translation": ("pairs",),
    "question_answering": ("questions",),
    "token_classification": ("tagged",),
    "gan": ("image",),
    "image_translation": ("image_pairs", "unpaired_images"),
    "autoencoding": ("image",),
    "diffusion": ("image",),
}
"""The kinds of data (`dlcli.data.KINDS_OF_DATA`) that each task learns from."""

GENERATIVE_TASKS = ("gan", "image_translation", "autoencoding", "diffusion")
"""Tasks that draw images; their class is a `dlcli.tasks.generative.GenerativeTask`."""

ADVERSARIAL = ("gan", "image_translation")
"""Tasks of two networks that learn against each other, each with an optimizer."""
