"""Removes channels inside a network, and refits what reads them (docs/trim.md)."""
