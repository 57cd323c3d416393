"""Explanations of image models: class activation maps, gradients, masks, and their pictures."""
