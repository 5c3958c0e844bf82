"""Large files are parsed without their large constants, if that is safe."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import Message
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)

from exporter.errors import ModelError
from exporter.formats import copy_model, size_bytes
from exporter.formats.model import RunOptions
from exporter.formats.onnx import OnnxModel, files, lazy_parse, open_file
from exporter.formats.onnx.external_data import ExternalData, is_external
from exporter.formats.onnx.splice import content_of
from exporter.formats.onnx.wire import field_start, number_of
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Plan
from tests.builders.onnx_models import cut, node, numbers, proto, softmax

X = numbers(3, 6, seed=1)
KERNEL, BIAS, SCALE = numbers(6, 500), numbers(500, seed=2), numbers(500, seed=3)
Z = (X @ KERNEL + BIAS) * SCALE
KEPT = [4, 0, 2]
LARGE = 1500  # bytes


@pytest.fixture(autouse=True)
def _bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file counts as large, and so do most of its constants."""
    monkeypatch.setattr(files, "_LARGE_FILE", 0)
    monkeypatch.setattr(lazy_parse, "LARGE_BYTES", LARGE)


def network(**more: Array) -> ModelProto:
    nodes = [
        node("MatMul", ["x", "kernel"], ["product"], "product"),
        node("Add", ["product", "bias"], ["sum"], "sum"),
        node("Mul", ["sum", "scale"], ["z"], "scaled"),
        node("Softmax", ["z"], ["y"], "softmax"),
    ]
    return proto(nodes, {"kernel": KERNEL, "bias": BIAS, "scale": SCALE, **more})


def constant(model: ModelProto, name: str) -> TensorProto:
    found: dict[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
    return found[name]


def skimmed(content: bytes) -> ModelProto | None:
    return lazy_parse.parse_without_values(memoryview(content))


def left_out(model: ModelProto | None) -> set[str]:
    assert model is not None
    return {tensor.name for tensor in model.graph.initializer if is_external(tensor)}


# --- parsed completely ----------------------------------------------------------------------------


def _shorter(model: ModelProto) -> None:
    tensor = constant(model, "kernel")
    tensor.raw_data = tensor.raw_data[:-4]


def _of_no_shape(model: ModelProto) -> None:
    constant(model, "kernel").dims[0] = -6


def _of_strings(model: ModelProto) -> None:
    constant(model, "kernel").data_type = TensorProto.STRING


def _complex(model: ModelProto) -> None:
    values = KERNEL.astype(np.complex64)
    constant(model, "kernel").CopyFrom(numpy_helper.from_array(values, "kernel"))


def _complex_in_floats(model: ModelProto) -> None:
    made = helper.make_tensor(
        "kernel", TensorProto.COMPLEX64, [3, 500], KERNEL.ravel().tolist()[::2]
    )
    constant(model, "kernel").CopyFrom(made)


def _in_numbers_of_any_length(model: ModelProto) -> None:
    values = (100 * KERNEL).astype(np.int32).ravel().tolist()
    constant(model, "kernel").CopyFrom(
        helper.make_tensor("kernel", TensorProto.INT32, KERNEL.shape, values)
    )


def _in_a_segment(model: ModelProto) -> None:
    constant(model, "kernel").segment.begin = 0


def _elsewhere_by_name(model: ModelProto) -> None:
    constant(model, "kernel").data_location = TensorProto.EXTERNAL


INSIDE: Mapping[str, Callable[[ModelProto], None]] = {
    "another length than its shape": _shorter,
    "no such shape": _of_no_shape,
    "strings": _of_strings,
    "a type that is not handed over": _complex,
    "floats that are parts of numbers": _complex_in_floats,
    "numbers of any length": _in_numbers_of_any_length,
    "a segment": _in_a_segment,
    "both inside and external": _elsewhere_by_name,
}


@pytest.mark.parametrize("case", INSIDE)
def test_unusual_constants_are_parsed_completely(case: str) -> None:
    model = network()
    INSIDE[case](model)
    found = skimmed(model.SerializeToString())
    assert found is not None
    assert constant(found, "kernel") == constant(model, "kernel")
    assert left_out(found) >= {"bias", "scale"}


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.DOUBLE])
def test_packed_floats_are_left_out(tmp_path: Path, kind: int) -> None:
    model = network()
    made = helper.make_tensor("kernel", kind, KERNEL.shape, KERNEL.ravel().tolist())
    constant(model, "kernel").CopyFrom(made)
    content = model.SerializeToString()
    found = skimmed(content)
    assert found is not None
    assert left_out(found) == {"kernel", "bias", "scale"}
    values = ExternalData(tmp_path, memoryview(content)).read(constant(found, "kernel"))
    np.testing.assert_array_equal(values, numpy_helper.to_array(made))


def field(message: type[Message], name: str, content: bytes) -> bytes:
    return field_start(number_of(message, name), len(content)) + content


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(TensorProto(raw_data=KERNEL[::-1].tobytes()), id="other values"),
        pytest.param(TensorProto(raw_data=b"\0" * KERNEL.nbytes), id="zeros"),
        pytest.param(TensorProto(data_type=TensorProto.INT32), id="another type"),
        pytest.param(TensorProto(data_type=TensorProto.FLOAT16), id="a type of half the length"),
        pytest.param(TensorProto(dims=[2]), id="another dimension"),
    ],
)
def test_value_of_an_attribute_that_is_written_twice(second: TensorProto) -> None:
    """Protobuf joins both to one message, whose values may be those of either."""
    tensors = [numpy_helper.from_array(KERNEL), second]
    value = AttributeProto(name="value", type=AttributeProto.TENSOR).SerializeToString()
    for each in tensors:
        value += field(AttributeProto, "t", each.SerializeToString())
    constant_node = NodeProto(op_type="Constant", output=["kernel"]).SerializeToString()
    constant_node += field(NodeProto, "attribute", value)
    content = field(ModelProto, "graph", field(GraphProto, "node", constant_node))
    assert skimmed(content) == ModelProto.FromString(content)


def test_small_constant_is_parsed() -> None:
    small = numbers(LARGE // 4 - 1)
    assert left_out(skimmed(network(small=small).SerializeToString())) == {
        "kernel",
        "bias",
        "scale",
    }


def test_file_with_the_internal_location_is_refused(tmp_path: Path) -> None:
    """Otherwise the file could declare any of its bytes a constant."""
    model = network()
    tensor = constant(model, "kernel")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": lazy_parse.WITHIN, "offset": "0", "length": "12000"}.items():
        tensor.external_data.add(key=key, value=value)
    content = model.SerializeToString()
    assert skimmed(content) is None
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="which is not a path"):
        open_file(tmp_path / "net.onnx")


def test_truncated_or_changed_files_do_not_crash() -> None:
    """A truncated or changed file is parsed or not; it never raises."""
    content = network().SerializeToString()
    for stop in range(0, len(content), 61):
        found = skimmed(content[:stop])
        assert found is None or len(found.graph.initializer) < len(network().graph.initializer)
    for place in range(0, len(content), 97):
        changed = bytearray(content)
        changed[place] ^= 0xFF
        skimmed(bytes(changed))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\x3b", id="a kind of field that is no more"),
        pytest.param(b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", id="an endless length"),
        pytest.param(b"\x3a\x05\x0a", id="a length beyond the end"),
        pytest.param(b"\x3a", id="no length"),
    ],
)
def test_other_bytes_are_not_parsed(content: bytes) -> None:
    assert skimmed(content) is None


# --- parsed without values ------------------------------------------------------------------------


def test_parsed_model_is_written_back_bit_identical(tmp_path: Path) -> None:
    model = network()
    model.metadata_props.add(key="author", value="somebody")
    constant(model, "bias").doc_string = "added to z"
    content = model.SerializeToString()
    found = skimmed(content)
    assert left_out(found) == {"kernel", "bias", "scale"}
    assert found is not None
    assert sum(map(len, (t.raw_data for t in found.graph.initializer))) == 0
    again = content_of(found, ExternalData(tmp_path, memoryview(content)))
    assert ModelProto.FromString(again) == model


@pytest.fixture
def opened(tmp_path: Path) -> OnnxModel:
    path = tmp_path / "source.onnx"
    path.write_bytes(network().SerializeToString())
    return open_file(path)


def output_of(model: OnnxModel, name: str = "y") -> Array:
    return model.runner(RunOptions())({"x": X})[name]


def test_values_are_views_of_the_file(opened: OnnxModel, tmp_path: Path) -> None:
    content = (tmp_path / "source.onnx").read_bytes()
    assert opened.sha256 == hashlib.sha256(content).hexdigest()
    for name, expected in {"kernel": KERNEL, "bias": BIAS}.items():
        read = opened.graph().tensors[name].read
        assert read is not None
        values = read()
        np.testing.assert_array_equal(values, expected)
        assert not values.flags.owndata
        assert not values.flags.writeable
    np.testing.assert_allclose(output_of(opened), softmax(Z), atol=1e-6)
    assert ModelProto.FromString(opened.to_bytes()) == network()


@pytest.mark.parametrize("mode", ["slice", "zero", "mask"])
def test_cut_file_does_not_need_the_original(opened: OnnxModel, tmp_path: Path, mode: str) -> None:
    (tmp_path / "source.onnx").rename(tmp_path / "moved.onnx")  # as a publication does
    result = cut(opened, KEPT, mode)
    alive = np.isin(np.arange(500), KEPT)
    expected: Mapping[str, Any] = {
        "slice": softmax(Z[:, KEPT]),
        "zero": softmax(np.where(alive, Z, 0)),
        "mask": softmax(np.where(alive, Z, -np.inf)),
    }
    np.testing.assert_allclose(output_of(result), expected[mode], atol=1e-6)
    (tmp_path / "result").mkdir()
    path = tmp_path / "result" / "small.onnx"
    result.write(path)
    assert [file.name for file in path.parent.iterdir()] == ["small.onnx"]
    assert path.read_bytes() == result.to_bytes()
    onnx.checker.check_model(str(path), full_check=True)
    np.testing.assert_allclose(output_of(open_file(path)), expected[mode], atol=1e-6)
    shown = opened.apply(Plan((AddOutput("z", "z"),)))
    np.testing.assert_allclose(output_of(shown, "z"), Z, atol=1e-5)


def test_constants_in_both_files(tmp_path: Path) -> None:
    source = network()
    tensor = constant(source, "scale")
    (tmp_path / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    path = tmp_path / "net.onnx"
    path.write_bytes(source.SerializeToString())
    model = open_file(path)
    np.testing.assert_allclose(output_of(model), softmax(Z), atol=1e-6)
    assert size_bytes(path) == path.stat().st_size + SCALE.nbytes
    (tmp_path / "copy").mkdir()
    copy_model(path, tmp_path / "copy" / "net.onnx")
    assert len(list((tmp_path / "copy").iterdir())) == 2
    (tmp_path / "cut").mkdir()
    kept = list(range(1, 500))
    cut(model, kept).write(tmp_path / "cut" / "small.onnx")
    again = open_file(tmp_path / "cut" / "small.onnx")
    np.testing.assert_allclose(output_of(again), softmax(Z[:, kept]), atol=1e-6)


def test_result_may_replace_a_file_that_is_open(opened: OnnxModel, tmp_path: Path) -> None:
    """A process dies if a file that it has mapped gets shorter."""
    path, result = tmp_path / "source.onnx", cut(opened, KEPT)
    link = tmp_path / "link.onnx"
    link.symlink_to(tmp_path / "other.onnx")
    link.write_bytes(path.read_bytes())
    with link.open("rb") as before:
        result.write(link)
        assert before.read() == path.read_bytes()
    result.write(path)
    assert link.is_symlink()
    np.testing.assert_allclose(output_of(opened), softmax(Z), atol=1e-6)
    for each in (link, path):
        np.testing.assert_allclose(output_of(open_file(each)), softmax(Z[:, KEPT]), atol=1e-6)
    assert {file.name for file in tmp_path.iterdir()} == {"source.onnx", "other.onnx", "link.onnx"}


def _node(model: ModelProto) -> None:
    values = numpy_helper.from_array(KERNEL)
    model.graph.node.append(helper.make_node("Constant", [], ["unread"], value=values))


def _initializer(model: ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(KERNEL, "unread"))


def _default_of_an_input(model: ModelProto) -> None:
    model.ir_version = 3
    _initializer(model)
    for tensor in model.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(info)


@pytest.mark.parametrize("add", [_node, _initializer, _default_of_an_input])
def test_large_constant_that_nothing_reads(
    tmp_path: Path, add: Callable[[ModelProto], None]
) -> None:
    """Runtimes remove it, and refuse values for it then."""
    model = network()
    add(model)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    opened = open_file(tmp_path / "net.onnx")
    np.testing.assert_allclose(output_of(opened), softmax(Z), atol=1e-6)
    np.testing.assert_allclose(output_of(cut(opened, KEPT)), softmax(Z[:, KEPT]), atol=1e-6)
