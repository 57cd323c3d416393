"""Tasks: features -> outputs, loss, metrics. One row here and one class make a new task."""

TASKS = {
    "image_classification": "dlcli.tasks.classification:ImageClassification",
    "tabular_classification": "dlcli.tasks.classification:TabularClassification",
    "regression": "dlcli.tasks.regression:Regression",
}
