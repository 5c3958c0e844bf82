"""Heads too large for Keras and for a converter, tested with small heads and a low limit.

The expected outputs are computed in NumPy from the weights that the test sets.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import onnx
import pytest
from keras import layers

import exporter
from exporter.conversion import graft, to_onnx, to_tflite
from exporter.conversion.options import ConvertOptions
from exporter.conversion.process import Child
from exporter.conversion.remote import RemoteKerasModel, open_keras
from exporter.errors import ConversionError, ModelError
from exporter.formats import open_model, size_bytes
from exporter.formats.keras.large_head_file import narrow, stub_values
from exporter.formats.keras.large_head_model import LargeHeadModel, open_large
from exporter.formats.keras.model import KerasModel, check_contents, open_file
from exporter.formats.keras.stub import stub_of
from exporter.formats.model import RunOptions
from exporter.formats.onnx import splice
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Plan
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_file
from exporter.jobs.run import run_job
from exporter.planning.cut import CutOptions, plan_cut
from tests.builders.keras_models import old_layer, old_sequential, softmax, write_old

pytestmark = pytest.mark.usefixtures("jobs_share_child")

FEATURES, UNITS, MIN_BYTES = 16, 900, 20_000
KEPT = (7, 2, 899, 400)
TOLERANCE = 1e-5


def network(*after: Any, name: str = "y", bias: bool = True) -> Any:
    keras.utils.set_random_seed(5)
    x = keras.Input((6,), name="x")
    values = layers.Dense(FEATURES, activation="tanh", name="hidden")(x)
    inside = None if after else "softmax"
    values = layers.Dense(UNITS, activation=inside, use_bias=bias, name=name)(values)
    for layer in after:
        values = layer(values)
    model = keras.Model(x, values, name="net")
    random = np.random.default_rng(6)
    model.set_weights([random.normal(0.0, 0.5, w.shape) for w in model.get_weights()])
    return model


def inputs(count: int = 3) -> Array:
    return np.random.default_rng(7).normal(size=(count, 6)).astype(np.float32)


def logits(model: Any, x: Array) -> Array:
    first, shift, *head = (np.asarray(w, np.float64) for w in model.get_weights())
    features = np.tanh(x @ first + shift)
    return np.asarray(features @ head[0] + (head[1] if len(head) > 1 else 0.0))


def outputs(model: Any, x: Array, output: str = "y") -> Array:
    run = model.runner(RunOptions())
    return np.concatenate([run({"x": sample[None]})[output] for sample in x])


@dataclass(frozen=True)
class Files:
    """One model in both containers, and the child that opens them."""

    path: Path
    hdf5: Path
    net: Any
    child: Child
    folder: Path

    def opened(self) -> RemoteKerasModel:
        return open_keras(self.path, self.child, MIN_BYTES)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, child: Child) -> Files:
    folder = tmp_path_factory.mktemp("large")
    net = network()
    net.save(folder / "net.keras")
    _saved_as_hdf5(net, folder / "net.h5")
    return Files(folder / "net.keras", folder / "net.h5", net, child, folder)


def _saved_as_hdf5(net: Any, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Keras warns about HDF5
        net.save(path)


# --- models that are built whole ------------------------------------------------------------------


def _not_a_head() -> Any:
    """The large layer is not a head: another layer depends on its width."""
    x = keras.Input((FEATURES,), name="x")
    return keras.Model(x, layers.Dense(4, name="y")(layers.Dense(UNITS, name="wide")(x)))


def _twice() -> Any:
    x = keras.Input((FEATURES,), name="x")
    wide = [layers.Dense(UNITS, name=name)(x) for name in ("y", "z")]
    return keras.Model(x, wide)


def _half() -> Any:
    x = keras.Input((FEATURES,), name="x")
    return keras.Model(x, layers.Dense(UNITS, dtype="mixed_float16", name="y")(x))


def _convolution() -> Any:
    x = keras.Input((FEATURES,), name="x")
    return keras.Model(x, layers.Conv1D(UNITS, 2, name="y")(layers.Reshape((4, 4))(x)))


BUILT_WHOLE: dict[str, Callable[[], Any]] = {
    "layer that depends on the width": _not_a_head,
    "two layers of one shape": _twice,
    "half precision": _half,
    "another class of layer": _convolution,
    "unit weights after the layer": lambda: network(layers.BatchNormalization(name="norm")),
}


@pytest.mark.parametrize("case", BUILT_WHOLE)
def test_built_whole(case: str, tmp_path: Path) -> None:
    BUILT_WHOLE[case]().save(tmp_path / "net.keras")
    assert isinstance(open_large(tmp_path / "net.keras", 10_000), KerasModel)


def test_a_smaller_head_is_built(files: Files) -> None:
    assert isinstance(open_large(files.path, 10**9), KerasModel)
    assert isinstance(open_large(files.hdf5, 10**9), KerasModel)


def _renamed(group: Any) -> None:
    names = group.attrs["weight_names"]
    group.attrs["weight_names"] = ["y/gamma", *names[1:]]
    group.move("y/kernel", "y/gamma")


def _double(group: Any) -> None:
    values = group["y/kernel"][()]
    del group["y/kernel"]
    group["y/kernel"] = values.astype(np.float64)


def _other_bias(group: Any) -> None:
    del group["y/bias"]
    group["y/bias"] = np.zeros(3, np.float32)


@pytest.mark.parametrize("change", [_renamed, _double, _other_bias])
def test_hdf5_weights_that_a_dense_layer_does_not_have(
    files: Files, change: Callable[[Any], None], tmp_path: Path
) -> None:
    path = tmp_path / "net.h5"
    path.write_bytes(files.hdf5.read_bytes())
    with h5py.File(path, "r+") as file:
        change(file["model_weights/y"])
    assert narrow(check_contents(files.hdf5), tmp_path, MIN_BYTES)
    assert narrow(check_contents(path), tmp_path, MIN_BYTES) is None


KERNELS = {".keras": "layers/dense_1/vars/0", ".h5": "model_weights/y/y/kernel"}


@pytest.mark.parametrize("container", KERNELS)
def test_a_kernel_in_another_file(files: Files, container: str, tmp_path: Path) -> None:
    path = (tmp_path / "net").with_suffix(container)
    path.write_bytes(files.path.with_suffix(container).read_bytes())
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file["values"] = np.zeros((FEATURES, UNITS), np.float32)

    def change(file: Any) -> None:
        del file[KERNELS[container]]
        file[KERNELS[container]] = h5py.ExternalLink(str(tmp_path / "outside.h5"), "/values")

    if container == ".h5":
        with h5py.File(path, "r+") as file:
            change(file)
    else:
        _with_weights(path, change)
    with pytest.raises(ModelError, match="is stored in another file, which is not read"):
        open_large(path, MIN_BYTES)


@pytest.mark.parametrize("case", ["unit weights after the layer", "another class of layer"])
def test_no_stub(case: str) -> None:
    stub = stub_of(KerasModel(BUILT_WHOLE[case]()), 10_000)
    assert (stub is None) == (case == "unit weights after the layer")


# --- a head that is not built ---------------------------------------------------------------------


def test_the_graph_is_equal_to_the_whole_model(files: Files) -> None:
    wide, whole = open_large(files.path, MIN_BYTES), open_file(files.path)
    assert isinstance(wide, LargeHeadModel)
    assert (wide.name, wide.sha256, wide.precision) == (whole.name, whole.sha256, whole.precision)
    graph, expected = wide.graph(), whole.graph()
    assert (graph.inputs, graph.outputs) == (expected.inputs, expected.outputs)
    assert graph.nodes == expected.nodes
    for name, tensor in expected.tensors.items():
        found = graph.tensors[name]
        assert (found.shape, found.dtype) == (tensor.shape, tensor.dtype)
        if tensor.read is not None:
            read = graph.tensors[name].read
            assert read is not None
            np.testing.assert_array_equal(read(), tensor.read())


def test_the_kernel_is_memory_mapped(files: Files) -> None:
    wide = open_large(files.path, MIN_BYTES)
    assert isinstance(wide, LargeHeadModel)
    assert all(isinstance(values, np.memmap) for values in wide.stub.weights.values())
    assert wide.stub.model.model.count_params() < FEATURES * UNITS / 10


def _deflated(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _chunked(path: Path) -> None:
    _with_weights(path, lambda file: _compress(file["layers/dense_1/vars"]))


def _chunked_hdf5(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        _compress(file["model_weights/y/y"])


def _compress(group: Any) -> None:
    for name in list(group):
        values = group[name][()]
        del group[name]
        group.create_dataset(name, data=values, chunks=True, compression="gzip")


def _with_weights(path: Path, change: Callable[[Any], None]) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = path.with_suffix(".weights.h5")
    weights.write_bytes(members["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        change(file)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, weights.read_bytes() if name.endswith(".h5") else content)


@pytest.mark.parametrize(
    ("after", "change"),
    [
        pytest.param((), None, id="as Keras writes it"),
        pytest.param((), _deflated, id="compressed members"),
        pytest.param((), _chunked, id="compressed kernel"),
        pytest.param(
            (layers.ReLU(max_value=2.0), layers.Softmax(name="a")),
            None,
            id="more layers",
        ),
    ],
)
def test_outputs_match_numpy(after: tuple[Any, ...], change: Any, tmp_path: Path) -> None:
    net, x = network(*after), inputs()
    net.save(tmp_path / "net.keras")
    if change is not None:
        change(tmp_path / "net.keras")
    wide = open_large(tmp_path / "net.keras", MIN_BYTES)
    assert isinstance(wide, LargeHeadModel)
    z = logits(net, x)
    expected = softmax(np.clip(z, 0, 2) if after else z)
    np.testing.assert_allclose(outputs(wide, x, wide.outputs[0]), expected, atol=1e-6)


def _linked_below_itself(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["model_weights/soft"] = h5py.SoftLink("/model_weights")
        file["model_weights/nowhere"] = h5py.SoftLink("/nowhere")
        file["model_weights/hard"] = file["model_weights"]


def _by_keras_2(path: Path) -> None:
    """A configuration and weight names as Keras 2 writes them for a Sequential model."""
    net = keras.models.load_model(path, compile=False)
    entries = [old_layer(layer) for layer in net.layers[1:]]
    write_old(path, net, old_sequential((6,), *entries))
    with h5py.File(path, "r+") as file:
        for name in ("hidden", "y"):
            group = file["model_weights"][name]
            for weight in group.attrs["weight_names"]:
                group.move(weight, f"{weight}:0")
            names = [f"{weight}:0".encode() for weight in group.attrs["weight_names"]]
            group.attrs["weight_names"] = names


@pytest.mark.filterwarnings("ignore:.*HDF5 file via:UserWarning")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(None, id="as Keras writes it"),
        pytest.param(_chunked_hdf5, id="compressed kernel"),
        pytest.param(_linked_below_itself, id="groups linked below themselves"),
        pytest.param(_by_keras_2, id="as Keras 2 writes it"),
    ],
)
def test_outputs_of_hdf5_files_match_numpy(change: Any, *, bias: bool, tmp_path: Path) -> None:
    net, x, path = network(bias=bias), inputs(), tmp_path / "net.h5"
    _saved_as_hdf5(net, path)
    if change is not None:
        change(path)
    wide: Any = open_large(path, MIN_BYTES)
    mapped = [isinstance(values, np.memmap) for values in wide.stub.weights.values()]
    assert mapped == [change is not _chunked_hdf5] * (1 + bias)
    z = logits(net, x)
    np.testing.assert_allclose(outputs(wide, x), softmax(z), atol=1e-6)
    cut = wide.apply(plan_cut(wide, CutOptions(keep=KEPT, keep_order=True)).plan)
    np.testing.assert_allclose(outputs(cut, x), softmax(z[:, list(KEPT)]), atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*HDF5 file via:UserWarning")
def test_the_other_container_is_written_whole(files: Files, tmp_path: Path) -> None:
    for source, target in ((files.path, "net.hdf5"), (files.hdf5, "net.keras")):
        open_large(source, MIN_BYTES).write(tmp_path / target)
        again = keras.models.load_model(tmp_path / target, compile=False)
        for old, new in zip(files.net.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


def test_keeping_everything(files: Files, tmp_path: Path) -> None:
    """Keras decides by the suffix, so that a copy must match its name."""
    out, options = tmp_path / "out", CutOptions(keep=range(UNITS))
    job = Job(keep_original=True, to=("keras",), verify=False, bench=False)
    run_job(files.hdf5, out, options, replace(job, large_head_bytes=MIN_BYTES))
    for name in ("net.hdf5", "net.keras"):
        prune_file(files.hdf5, tmp_path / name, options, job)
    for path in (out / "original.h5", tmp_path / "net.hdf5"):
        assert path.read_bytes() == files.hdf5.read_bytes()
    for path in (out / "pruned.fp32.keras", tmp_path / "net.keras"):
        again = keras.models.load_model(path, compile=False)
        for old, new in zip(files.net.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


def test_logits_can_be_added_and_the_head_cut(files: Files, tmp_path: Path) -> None:
    wide: Any = open_large(files.path, MIN_BYTES)
    x = inputs()
    z = logits(files.net, x)
    extended = wide.apply(Plan((AddOutput("y/linear", "y/linear"),)))
    np.testing.assert_allclose(outputs(extended, x, "y/linear"), z, atol=TOLERANCE)
    cut = wide.apply(plan_cut(wide, CutOptions(keep=KEPT, keep_order=True)).plan)
    np.testing.assert_allclose(outputs(cut, x), softmax(z[:, list(KEPT)]), atol=1e-6)
    zeroed = wide.apply(plan_cut(wide, CutOptions(keep=KEPT, mode="zero")).plan)
    is_kept = np.isin(np.arange(UNITS), KEPT)
    np.testing.assert_allclose(outputs(zeroed, x), softmax(np.where(is_kept, z, 0.0)), atol=1e-6)
    wide.write(tmp_path / "again.keras")
    assert (tmp_path / "again.keras").read_bytes() == files.path.read_bytes()


# --- conversion -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_converted_head_has_its_full_width(files: Files, kind: str) -> None:
    path, x = files.folder / f"net.{kind}", inputs()
    done = files.opened().convert(kind, path, ConvertOptions(large_head_bytes=MIN_BYTES))
    assert "converted with 8 of 900 units, the whole head (0 MB) written afterwards" in done.route
    assert "not built in Keras" in done.warnings[0]
    z, model = logits(files.net, x), open_model(path)
    np.testing.assert_allclose(outputs(model, x), softmax(z), atol=TOLERANCE)
    cut = model.apply(plan_cut(model, CutOptions(keep=KEPT, keep_order=True)).plan)
    np.testing.assert_allclose(outputs(cut, x), softmax(z[:, list(KEPT)]), atol=TOLERANCE)


@pytest.mark.parametrize(
    "after",
    [
        pytest.param((), id="with its activation inside"),
        pytest.param((layers.Reshape((30, 30), name="r"), layers.Flatten(name="a")), id="reshaped"),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_live_head_is_converted_to_tflite_as_a_stub(
    after: tuple[Any, ...], *, bias: bool, tmp_path: Path
) -> None:
    net, x = network(*after, bias=bias), inputs()
    path = tmp_path / "net.tflite"
    done = to_tflite.convert(KerasModel(net), path, ConvertOptions(large_head_bytes=MIN_BYTES))
    assert ("with 8 of 900 units" in done.route) == (not after)  # two unit axes: no stub
    assert done.warnings == ()
    z = logits(net, x)
    expected = z if after else softmax(z)
    np.testing.assert_allclose(
        outputs(open_model(path), x, net.output_names[0]), expected, atol=TOLERANCE
    )


@pytest.mark.parametrize("convert", [to_onnx.convert, to_tflite.convert])
def test_a_stub_with_changed_values_is_refused(
    files: Files, convert: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The head is then built and converted, with a warning."""
    monkeypatch.setattr(graft, "stub_values", lambda shape: stub_values(shape) * 2)
    kind = "onnx" if convert is to_onnx.convert else "tflite"
    path, x = tmp_path / f"net.{kind}", inputs()
    wide = open_large(files.path, MIN_BYTES)
    done = convert(wide, path)
    assert "units" not in done.route
    assert any("large head" in warning for warning in done.warnings)
    np.testing.assert_allclose(
        outputs(open_model(path), x), softmax(logits(files.net, x)), atol=TOLERANCE
    )


def test_missing_weights_of_a_stub_are_refused(files: Files) -> None:
    wide = open_large(files.path, MIN_BYTES)
    assert isinstance(wide, LargeHeadModel)
    graph = wide.stub.model.graph()
    assert set(graft.graft_for(graph, wide.stub).weights) == {"y/kernel", "y/bias"}
    with pytest.raises(ConversionError, match="cannot be found"):
        graft.graft_for(open_file(files.path).graph(), wide.stub)


def test_run_reports_the_route(files: Files, tmp_path: Path) -> None:
    report = exporter.run(
        files.path, tmp_path / "out", keep=KEPT, bench=False, samples=4, large_head_bytes=MIN_BYTES
    )
    assert report.ok
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    assert all("with 8 of 900 units" in artifact["route"] for artifact in record["artifacts"])
    assert any("product of Keras' features" in warning for warning in record["warnings"])


# --- ONNX files larger than 2 GiB -----------------------------------------------------------------


def test_weights_too_large_for_one_file_are_external(
    files: Files, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(splice, "LARGEST_BYTES", 30_000)
    path, x = tmp_path / "net.onnx", inputs()
    to_onnx.convert(open_large(files.path, MIN_BYTES), path)
    (data,) = tmp_path.glob("*.data")
    assert data.name.startswith("net-")
    assert path.stat().st_size < 10_000 < FEATURES * UNITS * 4 < data.stat().st_size
    assert size_bytes(path) == path.stat().st_size + data.stat().st_size
    onnx.checker.check_model(path)
    expected = softmax(logits(files.net, x))
    np.testing.assert_allclose(outputs(open_model(path), x), expected, atol=TOLERANCE)
    report = exporter.run(
        path, tmp_path / "out", keep=range(99), bench=False, samples=4, keep_original=True
    )
    assert report.ok
    names = sorted(file.name for file in (tmp_path / "out").glob("*.data"))
    assert len(names) == 2
    assert names[0] == data.name
    assert names[1].startswith("pruned.fp32-")
    original = open_model(tmp_path / "out" / "original.onnx")
    np.testing.assert_allclose(outputs(original, x), expected, atol=TOLERANCE)
    (artifact,) = report.artifacts
    assert artifact.bytes == size_bytes(tmp_path / "out" / "pruned.fp32.onnx")
