"""Explanations of text models: words, their attributions, attention, and coloured text."""
