"""Load an ONNX file by its path, as a device does, and run it once.

`exporter.performance.memory` starts this as a separate process and documents the arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import onnxruntime

from exporter.formats.memory_probe import print_memory_growth
from exporter.graph import Array


def load_and_run(path: str, feeds: Mapping[str, Array], threads: int) -> object:
    """The session, after one run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, dict(feeds))
    return session


if __name__ == "__main__":
    print_memory_growth(load_and_run, sys.argv)
