"""Fold the constants of a converted ONNX graph once, with onnxruntime.

1. The large constants are in files next to the graph, before and after, so that only the folding
   itself loads them.
2. Only the lowest level is used: higher levels write operators of onnxruntime.
3. Transposes stay where tf2onnx put them: moved again, they leave more nodes.
4. Only float32 graphs: the CPU has no kernels for half precision, and Casts would be written.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, helper

from exporter.errors import ConversionError
from exporter.formats.onnx.protos import all_nodes, all_tensors
from exporter.graph import Array
from exporter.output.files import byte_chunks

_HALF = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
_UNFOLDED, _WEIGHTS = "unfolded.onnx", "unfolded.data"
_FOLDED, _FOLDED_WEIGHTS = "folded.onnx", "folded.data"
_EXTERNAL_BYTES = 16 * 1024


def add_external(name: str, values: Array, folder: Path) -> TensorProto:
    """A constant with its values in a file in `folder`; they are written in chunks."""
    tensor = TensorProto(
        name=name,
        dims=values.shape,
        data_type=helper.np_dtype_to_tensor_dtype(values.dtype),
        data_location=TensorProto.EXTERNAL,
    )
    with (folder / _WEIGHTS).open("ab") as file:
        entries = {"location": _WEIGHTS, "offset": file.tell(), "length": values.nbytes}
        file.writelines(byte_chunks(values))
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def fold(model: ModelProto, folder: Path) -> ModelProto:
    """An equivalent model with fewer nodes.

    Args:
        model: its large constants may be in `folder`.
        folder: private; receives the large constants of the result.

    Raises:
        ConversionError: a part of it computes in half precision.
    """
    _check_no_half(model)
    onnx.save(model, folder / _UNFOLDED)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / _FOLDED)
    options.intra_op_num_threads = 1  # a fixed order of summation gives a fixed result
    options.log_severity_level = 3
    prefix = "session.optimized_model_external_initializers"
    options.add_session_config_entry(f"{prefix}_file_name", _FOLDED_WEIGHTS)
    options.add_session_config_entry(f"{prefix}_min_size_in_bytes", str(_EXTERNAL_BYTES))
    onnxruntime.InferenceSession(
        folder / _UNFOLDED,
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["TransposeOptimizer"],
    )
    return onnx.load(folder / _FOLDED, load_external_data=False)


def _check_no_half(model: ModelProto) -> None:
    types = {tensor.data_type for tensor in all_tensors(model.graph)}
    types |= {info.type.tensor_type.elem_type for info in model.graph.input}
    casts = (node for node in all_nodes(model.graph) if node.op_type == "Cast")
    types |= {a.i for node in casts for a in node.attribute if a.name == "to"}
    if types & _HALF:
        raise ConversionError("a part of the model computes in half precision")
