"""Reach devices, and run and measure models there: `--on`."""
