"""Code that runs on this machine and on devices: Python 3.9, NumPy and a runtime.

`exporter.devices.archive` sends these modules, and `exporter.errors`, to a device.
"""
