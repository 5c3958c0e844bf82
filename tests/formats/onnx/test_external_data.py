"""Constants in files next to a model: unsafe files are refused, others are read and written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from exporter.errors import ModelError, OutputError
from exporter.formats import size_bytes
from exporter.formats.model import RunOptions
from exporter.formats.onnx import OnnxModel, external_data, open_file
from exporter.formats.onnx.protos import all_tensors
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Plan
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_file
from exporter.output.draft import new_file
from exporter.planning.cut import CutOptions
from tests.builders.onnx_models import cut, node, numbers, proto, softmax

KEPT = [4, 0, 2]
X = numbers(3, 6, seed=1)
KERNEL, BIAS = numbers(6, 500), numbers(500)
Z = X @ KERNEL + BIAS
SIZE = (6 * 500 + 500) * 4


def network(**more: Array) -> ModelProto:
    nodes = [
        node("Gemm", ["x", "kernel", "bias"], ["z"], "gemm"),
        node("Softmax", ["z"], ["y"], "softmax"),
    ]
    return proto(nodes, {"kernel": KERNEL, "bias": BIAS, **more})


def saved(folder: Path, model: ModelProto | None = None, *, skip: int = 3) -> Path:
    """A model with its constants in `weights.bin`, after some unused bytes."""
    model = model or network()
    content = b"\0" * skip  # so that the constants are not aligned
    for tensor in all_tensors(model.graph):
        raw = numpy_helper.to_array(tensor).tobytes()
        if tensor.data_type in {TensorProto.INT4, TensorProto.STRING}:
            continue
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {
            "location": "weights.bin",
            "offset": str(len(content)),
            "length": str(len(raw)),
            "checksum": "of no interest",
        }.items():
            tensor.external_data.add(key=key, value=value)
        content += raw
    (folder / "weights.bin").write_bytes(content)
    path = folder / "network.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def change(**entries: str | None) -> Callable[[Path], None]:
    """Changes the kernel's external-data entries; None removes one."""

    def edit(path: Path) -> None:
        model = onnx.load(path, load_external_data=False)
        (kernel,) = (t for t in model.graph.initializer if t.name == "kernel")
        found = {e.key: e.value for e in kernel.external_data}
        found.update({k: v for k, v in entries.items() if v is not None})
        del kernel.external_data[:]
        for key, value in found.items():
            if entries.get(key, "") is not None:
                kernel.external_data.add(key=key, value=value)
        path.write_bytes(model.SerializeToString())

    return edit


def weights(path: Path) -> Path:
    return path.parent / "weights.bin"


def shorten(path: Path) -> None:
    weights(path).write_bytes(weights(path).read_bytes()[:-1])


def link(path: Path) -> None:
    weights(path).rename(path.parent / "elsewhere")
    weights(path).symlink_to("elsewhere")


def hard_link(path: Path) -> None:
    os.link(weights(path), path.parent / "elsewhere")


def folder_instead(path: Path) -> None:
    weights(path).unlink()
    weights(path).mkdir()


def linked_folder(path: Path) -> None:
    inner = path.parent / "inner"
    inner.mkdir()
    (path.parent / "way").symlink_to(inner)
    weights(path).rename(inner / "weights.bin")
    change(location="way/weights.bin")(path)


def pipe_instead(path: Path) -> None:
    weights(path).unlink()
    os.mkfifo(weights(path))


REFUSED: Mapping[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: weights(path).unlink(), "cannot be read: No such file"),
    "short": (shorten, f"too short: {SIZE + 2} bytes"),
    "empty": (lambda path: weights(path).write_bytes(b""), "too short: 0 bytes"),
    "a link": (link, "is a link"),
    "a hard link": (hard_link, "is a link: the same file has another name"),
    "in a linked folder": (linked_folder, "is a link"),
    "a folder": (folder_instead, "is not a regular file"),
    "a pipe": (pipe_instead, "is not a regular file"),
    "absolute": (change(location="/etc/hostname"), "is not a path relative to the model"),
    "of another system": (change(location="C:\\weights.bin"), "is not a path relative"),
    "outside": (change(location="../weights.bin"), "leads out of the model's folder"),
    "outside and back": (change(location="a/../../b/weights.bin"), "leads out"),
    "outside, another system's way": (change(location="..\\weights.bin"), "leads out"),
    "no location": (change(location=None), "is not a path relative"),
    "a location of nothing": (change(location=""), "is not a path relative"),
    "the folder itself": (change(location="."), "is not a regular file"),
    "a name that is too long": (change(location="w" * 5000), "cannot be read"),
    "no name at all": (change(location="a\0b"), "is not a path"),
    "an offset that is not a number": (change(offset="3x"), "not a number"),
    "a negative offset": (change(offset="-3"), "is too short"),
    "an offset after the end": (change(offset=str(2**62)), "is too short"),
    "another length": (
        change(length="12"),
        "is read for 12 bytes, but the constant's shape needs 12000",
    ),
    "a length beyond all": (change(length=str(2**50)), "the constant's shape needs 12000"),
    "a length that is not a number": (change(length="all"), "not a number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsafe_files_are_refused(tmp_path: Path, name: str) -> None:
    damage, fact = REFUSED[name]
    path = saved(tmp_path)
    damage(path)
    with pytest.raises(ModelError) as caught:
        open_file(path)
    assert fact in caught.value.message
    assert "'kernel'" in caught.value.message or "'bias'" in caught.value.message
    assert caught.value.hint


def test_message_names_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path)
    weights(path).unlink()
    with pytest.raises(
        ModelError, match=r"'kernel' is stored in 'weights\.bin', which cannot be read"
    ):
        open_file(path)


def test_constant_in_a_branch_is_checked(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info("w", TensorProto.FLOAT, [500])
    weight = [numpy_helper.from_array(BIAS, "w")]
    inside = helper.make_graph([], "branch", [], [info], weight)
    model = proto(
        [node("If", ["yes"], ["y"], "choice", then_branch=inside, else_branch=inside)],
        {"yes": np.array(True)},
        outputs={"y": [500]},
    )
    path = saved(tmp_path, model)
    shorten(path)
    with pytest.raises(ModelError, match=r"'w' is stored in 'weights\.bin', which is too short"):
        open_file(path)


# --- accepted -------------------------------------------------------------------------------------


def output_of(model: OnnxModel) -> Array:
    return model.runner(RunOptions())({"x": X})["y"]


@pytest.fixture
def opened(tmp_path: Path) -> OnnxModel:
    folder = tmp_path / "source"
    folder.mkdir()
    return open_file(saved(folder))


def test_values_are_views_of_the_file(opened: OnnxModel) -> None:
    read = opened.graph().tensors["kernel"].read
    assert read is not None
    values = read()
    np.testing.assert_array_equal(values, KERNEL)
    assert not values.flags.owndata
    assert not values.flags.writeable
    assert not values.flags.aligned
    np.testing.assert_allclose(output_of(opened), softmax(Z), atol=1e-6)


def test_size_of_a_model_counts_all_its_files(tmp_path: Path) -> None:
    path = saved(tmp_path)
    held = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert size_bytes(path) == held > path.stat().st_size
    before = set(tmp_path.iterdir())
    report = prune_file(path, tmp_path / "small.onnx", CutOptions(keep=[0]), Job())
    (artifact,) = report.artifacts
    assert report.original.bytes == artifact.original_bytes == held
    written = set(tmp_path.iterdir()) - before - {tmp_path / "small.onnx.remap.json"}
    assert artifact.bytes == sum(file.stat().st_size for file in written)


def test_length_is_optional(tmp_path: Path) -> None:
    path = saved(tmp_path)
    change(length=None)(path)
    np.testing.assert_allclose(output_of(open_file(path)), softmax(Z), atol=1e-6)


def test_file_in_a_subfolder(tmp_path: Path) -> None:
    path = saved(tmp_path)
    (tmp_path / "below").mkdir()
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "below/weights.bin"
    path.write_bytes(model.SerializeToString())
    weights(path).rename(tmp_path / "below" / "weights.bin")
    np.testing.assert_allclose(output_of(open_file(path)), softmax(Z), atol=1e-6)


@pytest.mark.parametrize("mode", ["slice", "zero"])
def test_cut_model_runs_before_it_is_written(opened: OnnxModel, mode: str) -> None:
    result = cut(opened, KEPT, mode)
    zeroed = np.where(np.isin(np.arange(500), KEPT), Z, 0)
    expected = softmax(Z[:, KEPT]) if mode == "slice" else softmax(zeroed)
    np.testing.assert_allclose(output_of(result), expected, atol=1e-6)
    shown = opened.apply(Plan((AddOutput("z", "z"),)))
    np.testing.assert_allclose(shown.runner(RunOptions())({"x": X})["z"], Z, atol=1e-5)


def written(opened: OnnxModel, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "small.onnx"
    write_new(path, opened.write)
    return path


def write_new(path: Path, write: Callable[[Path], object]) -> None:
    with new_file(path, force=True) as draft:
        draft.write(write)
        draft.publish()


@pytest.mark.parametrize(
    ("kept", "data_files"),
    [(KEPT, 0), (list(range(400)), 1), (list(range(500)), 1)],
    ids=["3", "400", "all"],
)
def test_written_model_does_not_need_the_original_files(
    opened: OnnxModel, tmp_path: Path, kept: list[int], data_files: int
) -> None:
    before = {p.name: p.read_bytes() for p in (tmp_path / "source").iterdir()}
    path = written(cut(opened, kept), tmp_path / "result")
    assert {p.name: p.read_bytes() for p in (tmp_path / "source").iterdir()} == before
    data = [p for p in path.parent.iterdir() if p != path]
    assert [p.name.partition("-")[0] for p in data] == ["network"] * data_files  # none for 3 units
    onnx.checker.check_model(str(path), full_check=True)
    (path.parent / "small.onnx").rename(path.parent / "other.onnx")
    again = open_file(path.parent / "other.onnx")
    np.testing.assert_allclose(output_of(again), softmax(Z[:, kept]), atol=1e-6)


def test_constant_of_no_bytes_is_written_into_the_model(tmp_path: Path) -> None:
    """Runtimes map the ranges of constants that they fold, and cannot map one of no bytes."""
    model = network(none=np.zeros((0, 4), np.float32))
    model.graph.node.append(helper.make_node("Identity", ["none"], ["same"]))
    model.graph.output.append(helper.make_tensor_value_info("same", TensorProto.FLOAT, [0, 4]))
    path = saved(tmp_path, model)
    kept = list(range(400))
    written(cut(open_file(path), kept), tmp_path / "result")
    session = onnxruntime.InferenceSession(tmp_path / "result" / "small.onnx")
    (y,) = session.run(["y"], {"x": X})
    np.testing.assert_allclose(y, softmax(Z[:, kept]), atol=1e-6)


def test_same_model_gives_the_same_files(opened: OnnxModel, tmp_path: Path) -> None:
    one, two = (written(cut(opened, list(range(400))), tmp_path / name) for name in ("a", "b"))
    files = [{p.name: p.read_bytes() for p in path.parent.iterdir()} for path in (one, two)]
    assert files[0] == files[1]


def test_second_result_keeps_the_data_of_the_first(opened: OnnxModel, tmp_path: Path) -> None:
    first = written(cut(opened, list(range(400))), tmp_path / "result")
    kept = first.rename(first.with_name("first.onnx"))
    written(cut(opened, list(range(100, 500))), tmp_path / "result")
    np.testing.assert_allclose(output_of(open_file(kept)), softmax(Z[:, :400]), atol=1e-6)


@pytest.mark.parametrize("when", ["data", "model"])
def test_full_disk_leaves_no_file(
    opened: OnnxModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    if when == "data":
        monkeypatch.setattr(external_data, "apply_umask", full)
    else:
        monkeypatch.setattr(external_data, "replace_file", full)
    folder = tmp_path / "result"
    folder.mkdir()
    with pytest.raises(OutputError, match="No space left"):
        write_new(folder / "small.onnx", cut(opened, list(range(400))).write)
    assert list(folder.iterdir()) == []


def test_constants_of_other_types(tmp_path: Path) -> None:
    """Values in typed fields, of less than a byte, and in nodes."""
    model = network()
    typed = helper.make_tensor("typed", TensorProto.FLOAT, [600], np.arange(600.0).tolist())
    int8_values = numpy_helper.from_array(numbers(3000).astype(np.int8), "codes")
    small = helper.make_tensor("small", TensorProto.INT4, [4, 1000], [n % 8 for n in range(4000)])
    path = saved(tmp_path, model)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer.extend([typed, int8_values, small])
    path.write_bytes(model.SerializeToString())
    again = open_file(written(open_file(path), tmp_path / "result"))
    wanted: dict[str, Array] = {
        "typed": np.arange(600, dtype=np.float32),
        "codes": numbers(3000).astype(np.int8),
        "small": np.array([n % 8 for n in range(4000)]).reshape(4, 1000),
    }
    for name, expected in wanted.items():
        read = again.graph().tensors[name].read
        assert read is not None
        np.testing.assert_array_equal(read().astype(np.float32), expected.astype(np.float32))


def test_large_constants_are_passed_as_arrays(tmp_path: Path) -> None:
    """More than a megabyte of a cut kernel is passed to the runtime without a copy."""
    kernel = numbers(6, 60_000)
    nodes = [node("MatMul", ["x", "kernel"], ["y"], "head")]
    opened = open_file(saved(tmp_path, proto(nodes, {"kernel": kernel})))
    kept = list(range(1, 60_000))
    np.testing.assert_allclose(output_of(cut(opened, kept)), X @ kernel[:, kept], atol=1e-4)


# --- larger than a message ------------------------------------------------------------------------


@pytest.fixture
def huge(tmp_path: Path) -> Iterator[Path]:
    """A sparse file of 2 GB."""
    path = tmp_path / "huge.onnx"
    path.write_bytes(b"\x08\x08")
    os.truncate(path, 2**31)
    yield path
    path.unlink()


def test_too_large_file_is_refused_unread(huge: Path) -> None:
    with pytest.raises(ModelError, match=r"huge\.onnx is larger than the 2 GB"):
        open_file(huge)


def test_model_over_2_gb_opens_and_is_written_with_a_second_file(tmp_path: Path) -> None:
    """3 GB of constants in a sparse file: values are read only when needed."""
    units, features = 200_000, 3_800
    kernel = TensorProto(name="kernel", data_type=TensorProto.FLOAT, dims=[units, features])
    kernel.data_location = TensorProto.EXTERNAL
    kernel.external_data.add(key="location", value="weights.bin")
    model = proto(
        [node("Gemm", ["x", "kernel"], ["y"], "head", transB=1)],
        {},
        x=(1, features),
        outputs={"y": [1, units]},
    )
    model.graph.initializer.append(kernel)
    (tmp_path / "weights.bin").touch()
    os.truncate(tmp_path / "weights.bin", units * features * 4)
    with (tmp_path / "weights.bin").open("r+b") as file:
        file.seek(199_999 * features * 4)
        file.write(np.ones(features, np.float32).tobytes())
    (tmp_path / "big.onnx").write_bytes(model.SerializeToString())
    result = cut(open_file(tmp_path / "big.onnx"), [3, 199_999])
    path = written(result, tmp_path / "result")
    assert sum(p.stat().st_size for p in path.parent.iterdir()) < 40_000
    y = open_file(path).runner(RunOptions())({"x": np.ones((1, features), np.float32)})["y"]
    assert y.tolist() == [[0.0, float(features)]]
