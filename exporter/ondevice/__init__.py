"""Code that runs on this machine and on devices: Python 3.9, NumPy and a runtime.

`exporter.devices.archive` sends these modules, and `exporter.errors`, to a device.
"""

import os

# onnxruntime starts its maker's telemetry when it is imported
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
