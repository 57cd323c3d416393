"""Why did the model say that? Run + inputs -> attributions -> pictures and numbers.

The data flow: what a user names becomes Subjects; `network.py` is the model as explanations see it; a method of the
table METHODS gives an Attribution for each Subject; `trust/` says how far to believe it; pictures and pages show it,
and `explain.py` leads through all this and writes the folder. `audit.py` compares the methods over a split.
"""

METHODS = {
    "image": {
        "grad_cam": "dlcli.explain.image.cam:grad_cam",
        "grad_cam_plus_plus": "dlcli.explain.image.cam:grad_cam_plus_plus",
        "score_cam": "dlcli.explain.image.cam:score_cam",
        "layer_cam": "dlcli.explain.image.cam:layer_cam",
        "saliency": "dlcli.explain.image.gradients:saliency",
        "smooth_grad": "dlcli.explain.image.gradients:smooth_grad",
        "integrated_gradients": "dlcli.explain.image.gradients:integrated_gradients",
        "occlusion": "dlcli.explain.image.masks:occlusion",
        "rise": "dlcli.explain.image.masks:rise",
        "lime": "dlcli.explain.image.masks:lime",
        "shap": "dlcli.explain.image.masks:shap",
    },
    "text": {
        "integrated_gradients": "dlcli.explain.text.gradients:integrated_gradients",
        "occlusion": "dlcli.explain.text.masks:occlusion",
        "lime": "dlcli.explain.text.masks:lime",
        "shap": "dlcli.explain.text.masks:shap",
        "attention": "dlcli.explain.text.attention:attention",
    },
    "table": {
        "shap": "dlcli.explain.table.masks:shap",
        "lime": "dlcli.explain.table.masks:lime",
        "permutation_importance": "dlcli.explain.table.importance:permutation_importance",
    },
}
"""Kind of input -> method -> `explain(network, subjects, outputs, *, options) -> an Attribution for each subject`.

A method's keyword arguments are the options that it takes, of those that `dlcli explain` has: `layer`, `samples`,
`steps`, `segments`, `baseline`, `seed`, and `background`.
"""

DEFAULT_METHODS = {
    "image": ("grad_cam", "integrated_gradients", "lime"),
    "text": ("integrated_gradients", "lime"),
    "table": ("shap",),
}
"""What `--method` is when left out; methods that a model cannot have are left out with a note."""

OF_THE_MODEL = ("permutation_importance",)
"""Methods that explain the model as a whole, the same for every input: nothing of one input is measured of them."""
