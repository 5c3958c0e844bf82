"""Settings of onnxruntime that every measurement uses, on this machine and on devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import onnxruntime

FATAL = 4  # log severity: lower ones are not logged


def session_options(threads: int) -> Any:
    """Options of a session whose threads do not spin between runs."""
    result = onnxruntime.SessionOptions()
    result.intra_op_num_threads = threads
    result.inter_op_num_threads = 1
    result.log_severity_level = FATAL
    result.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return result


def bound_run(
    session: Any, inputs: Mapping[str, Any], outputs: Iterable[str]
) -> Callable[[], object]:
    """A function that only runs the session: inputs are bound, and outputs stay in the runtime.

    It passes no `onnxruntime.RunOptions`: they add a fixed 35 us to each bound run
    (onnxruntime 1.31), which made the times of small models 10 % too long.
    """
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_cpu_input(name, np.require(value, requirements="C"))
    for name in outputs:
        binding.bind_output(name)
    return partial(session.run_with_iobinding, binding)
