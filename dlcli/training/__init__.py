"""Training: a recipe becomes a run."""

SCHEDULES = {
    "constant": "dlcli.training.schedules:constant",
    "step_decay": "dlcli.training.schedules:step_decay",
    "piecewise_constant_decay": "dlcli.training.schedules:piecewise_constant_decay",
    "exponential_decay": "dlcli.training.schedules:exponential_decay",
    "inverse_time_decay": "dlcli.training.schedules:inverse_time_decay",
    "polynomial_decay": "dlcli.training.schedules:polynomial_decay",
    "cosine_decay": "dlcli.training.schedules:cosine_decay",
    "cosine_decay_restarts": "dlcli.training.schedules:cosine_decay_restarts",
    "cyclical": "dlcli.training.schedules:cyclical",
    "one_cycle": "dlcli.training.schedules:one_cycle",
    "reduce_on_plateau": "dlcli.training.schedules:reduce_on_plateau",
}
"""Keras's schedules under Keras's names, and those that Keras lacks."""
