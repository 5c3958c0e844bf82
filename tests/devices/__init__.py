"""Tests of `exporter.devices` and `exporter.ondevice`."""
