"""Measure latency and memory, a model against its original."""
