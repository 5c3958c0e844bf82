"""Keras models: `.keras` and `.h5` files, and live models."""
