"""A run -> metrics, predictions, plots."""
