"""Unusual training: each file is a `keras.Model` with a `train_step`, which `fit` runs as any other model."""
