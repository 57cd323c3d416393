"""Explanations of table models: columns, their attributions, and shap's own plots."""
