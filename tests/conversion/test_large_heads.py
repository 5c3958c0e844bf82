"""Heads too large for Keras and for a converter, tried on small ones with the bound lowered.

What they must answer is computed in NumPy from the weights that the test itself has set.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable, Iterator
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
from exporter.conversion.process import Child
from exporter.conversion.remote import ConvertOptions, RemoteKerasModel, open_keras
from exporter.errors import ConversionError, ModelError
from exporter.formats import open_model, size_bytes
from exporter.formats.keras.large_head_file import narrow, stub_values
from exporter.formats.keras.large_head_model import WideModel, open_large
from exporter.formats.keras.model import KerasModel, open_file
from exporter.formats.keras.stub import stub_of
from exporter.formats.model import RunOptions
from exporter.formats.onnx import write_large
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Plan
from exporter.jobs.options import Job
from exporter.jobs.prune import prune_file
from exporter.jobs.run import run_job
from exporter.planning.cut import CutOptions, plan_cut
from tests.builders.keras_models import old_layer, old_sequential, softmax, write_old

FEATURES, UNITS, BOUND = 16, 900, 20_000
KEPT = (7, 2, 899, 400)
LIMIT = 1e-5


def network(*behind: Any, name: str = "y", bias: bool = True) -> Any:
    keras.utils.set_random_seed(5)
    x = keras.Input((6,), name="x")
    values = layers.Dense(FEATURES, activation="tanh", name="hidden")(x)
    inside = None if behind else "softmax"
    values = layers.Dense(UNITS, activation=inside, use_bias=bias, name=name)(values)
    for layer in behind:
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


def answers(model: Any, x: Array, output: str = "y") -> Array:
    run = model.runner(RunOptions())
    return np.concatenate([run({"x": sample[None]})[output] for sample in x])


@dataclass(frozen=True)
class Bench:
    path: Path
    hdf5: Path
    net: Any
    child: Child
    folder: Path

    def opened(self) -> RemoteKerasModel:
        return open_keras(self.path, self.child, BOUND)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("large")
    net = network()
    net.save(folder / "net.keras")
    _saved_as_hdf5(net, folder / "net.h5")
    with Child() as child:
        yield Bench(folder / "net.keras", folder / "net.h5", net, child, folder)


def _saved_as_hdf5(net: Any, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Keras dislikes this kind of file
        net.save(path)


# --- what is built whole --------------------------------------------------------------------------


def _followed() -> Any:
    """The wide layer is not a head: another one counts on its width."""
    x = keras.Input((FEATURES,), name="x")
    return keras.Model(x, layers.Dense(4, name="y")(layers.Dense(UNITS, name="wide")(x)))


def _twice() -> Any:
    x = keras.Input((FEATURES,), name="x")
    wide = [layers.Dense(UNITS, name=name)(x) for name in ("y", "z")]
    return keras.Model(x, wide)


def _half() -> Any:
    x = keras.Input((FEATURES,), name="x")
    return keras.Model(x, layers.Dense(UNITS, dtype="mixed_float16", name="y")(x))


def _stays() -> Any:
    x = keras.Input((FEATURES,), name="x")
    return keras.Model(x, layers.Conv1D(UNITS, 2, name="y")(layers.Reshape((4, 4))(x)))


WHOLE: dict[str, Callable[[], Any]] = {
    "a layer that counts on the width": _followed,
    "two layers of one shape": _twice,
    "half precision": _half,
    "another kind of layer": _stays,
    "weights of each unit behind it": lambda: network(layers.BatchNormalization(name="norm")),
}


@pytest.mark.parametrize("case", WHOLE)
def test_built_whole(case: str, tmp_path: Path) -> None:
    WHOLE[case]().save(tmp_path / "net.keras")
    assert isinstance(open_large(tmp_path / "net.keras", 10_000), KerasModel)


def test_below_the_bound_it_is_built(bench: Bench) -> None:
    assert isinstance(open_large(bench.path, 10**9), KerasModel)
    assert isinstance(open_large(bench.hdf5, 10**9), KerasModel)


def _renamed(held: Any) -> None:
    names = held.attrs["weight_names"]
    held.attrs["weight_names"] = ["y/gamma", *names[1:]]
    held.move("y/kernel", "y/gamma")


def _double(held: Any) -> None:
    values = held["y/kernel"][()]
    del held["y/kernel"]
    held["y/kernel"] = values.astype(np.float64)


def _other_bias(held: Any) -> None:
    del held["y/bias"]
    held["y/bias"] = np.zeros(3, np.float32)


@pytest.mark.parametrize("change", [_renamed, _double, _other_bias])
def test_weights_of_an_hdf5_file_that_are_none_of_a_dense_layer(
    bench: Bench, change: Callable[[Any], None], tmp_path: Path
) -> None:
    path = tmp_path / "net.h5"
    path.write_bytes(bench.hdf5.read_bytes())
    with h5py.File(path, "r+") as file:
        change(file["model_weights/y"])
    assert narrow(bench.hdf5, ".h5", tmp_path, BOUND)
    assert narrow(path, ".h5", tmp_path, BOUND) is None


OUTSIDE = {".keras": "layers/dense_1/vars/0", ".h5": "model_weights/y/y/kernel"}


@pytest.mark.parametrize("container", OUTSIDE)
def test_a_kernel_that_lies_in_another_file(bench: Bench, container: str, tmp_path: Path) -> None:
    path = (tmp_path / "net").with_suffix(container)
    path.write_bytes(bench.path.with_suffix(container).read_bytes())
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file["values"] = np.zeros((FEATURES, UNITS), np.float32)

    def change(file: Any) -> None:
        del file[OUTSIDE[container]]
        file[OUTSIDE[container]] = h5py.ExternalLink(str(tmp_path / "outside.h5"), "/values")

    if container == ".h5":
        with h5py.File(path, "r+") as file:
            change(file)
    else:
        _with_weights(path, change)
    with pytest.raises(ModelError, match="lies in another file, which is not read"):
        open_large(path, BOUND)


@pytest.mark.parametrize("case", ["weights of each unit behind it", "another kind of layer"])
def test_no_stub(case: str) -> None:
    stub = stub_of(KerasModel(WHOLE[case]()), 10_000)
    assert (stub is None) == (case == "weights of each unit behind it")


# --- a head that is not built ---------------------------------------------------------------------


def test_it_looks_like_the_whole_model(bench: Bench) -> None:
    wide, whole = open_large(bench.path, BOUND), open_file(bench.path)
    assert isinstance(wide, WideModel)
    assert (wide.name, wide.sha256, wide.precision) == (whole.name, whole.sha256, whole.precision)
    one, other = wide.graph(), whole.graph()
    assert (one.inputs, one.outputs, one.nodes) == (other.inputs, other.outputs, other.nodes)
    for name, tensor in other.tensors.items():
        assert (one.tensors[name].shape, one.tensors[name].dtype) == (tensor.shape, tensor.dtype)
        if tensor.read is not None:
            read = one.tensors[name].read
            assert read is not None
            np.testing.assert_array_equal(read(), tensor.read())


def test_its_kernel_is_seen_where_it_lies(bench: Bench) -> None:
    wide = open_large(bench.path, BOUND)
    assert isinstance(wide, WideModel)
    assert all(isinstance(values, np.memmap) for values in wide.stub.weights.values())
    assert wide.stub.model.model.count_params() < FEATURES * UNITS / 10


def _deflated(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _chunked(path: Path) -> None:
    _with_weights(path, lambda file: _pack(file["layers/dense_1/vars"]))


def _chunked_hdf5(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        _pack(file["model_weights/y/y"])


def _pack(held: Any) -> None:
    for name in list(held):
        values = held[name][()]
        del held[name]
        held.create_dataset(name, data=values, chunks=True, compression="gzip")


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
    ("behind", "change"),
    [
        pytest.param((), None, id="as Keras writes it"),
        pytest.param((), _deflated, id="packed members"),
        pytest.param((), _chunked, id="a compressed kernel"),
        pytest.param((layers.ReLU(max_value=2.0), layers.Softmax(name="a")), None, id="behind"),
    ],
)
def test_its_answers(behind: tuple[Any, ...], change: Any, tmp_path: Path) -> None:
    net, x = network(*behind), inputs()
    net.save(tmp_path / "net.keras")
    if change is not None:
        change(tmp_path / "net.keras")
    wide = open_large(tmp_path / "net.keras", BOUND)
    assert isinstance(wide, WideModel)
    z = logits(net, x)
    expected = softmax(np.clip(z, 0, 2) if behind else z)
    np.testing.assert_allclose(answers(wide, x, wide.outputs[0]), expected, atol=1e-6)


def _knotted(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["model_weights/soft"] = h5py.SoftLink("/model_weights")
        file["model_weights/nowhere"] = h5py.SoftLink("/nowhere")
        file["model_weights/hard"] = file["model_weights"]


def _by_keras_2(path: Path) -> None:
    """Its configuration and its names of weights; Keras 2 knew these models as Sequential."""
    net = keras.models.load_model(path, compile=False)
    entries = [old_layer(layer) for layer in net.layers[1:]]
    write_old(path, net, old_sequential((6,), *entries))
    with h5py.File(path, "r+") as file:
        for name in ("hidden", "y"):
            held = file["model_weights"][name]
            for weight in held.attrs["weight_names"]:
                held.move(weight, f"{weight}:0")
            old = [f"{weight}:0".encode() for weight in held.attrs["weight_names"]]
            held.attrs["weight_names"] = old


@pytest.mark.filterwarnings("ignore:.*HDF5 file via:UserWarning")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(None, id="as Keras writes it"),
        pytest.param(_chunked_hdf5, id="a compressed kernel"),
        pytest.param(_knotted, id="groups that hold themselves"),
        pytest.param(_by_keras_2, id="as Keras 2 wrote it"),
    ],
)
def test_its_answers_out_of_hdf5(change: Any, *, bias: bool, tmp_path: Path) -> None:
    net, x, path = network(bias=bias), inputs(), tmp_path / "net.h5"
    _saved_as_hdf5(net, path)
    if change is not None:
        change(path)
    wide: Any = open_large(path, BOUND)
    mapped = [isinstance(values, np.memmap) for values in wide.stub.weights.values()]
    assert mapped == [change is not _chunked_hdf5] * (1 + bias)
    z = logits(net, x)
    np.testing.assert_allclose(answers(wide, x), softmax(z), atol=1e-6)
    cut = wide.apply(plan_cut(wide, CutOptions(keep=KEPT, keep_order=True)).plan)
    np.testing.assert_allclose(answers(cut, x), softmax(z[:, list(KEPT)]), atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*HDF5 file via:UserWarning")
def test_all_of_it_in_the_other_container(bench: Bench, tmp_path: Path) -> None:
    for source, target in ((bench.path, "net.hdf5"), (bench.hdf5, "net.keras")):
        open_large(source, BOUND).write(tmp_path / target)
        again = keras.models.load_model(tmp_path / target, compile=False)
        for old, new in zip(bench.net.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


def test_a_file_of_which_everything_is_kept(bench: Bench, tmp_path: Path) -> None:
    """A copy is what its name says: Keras goes by the suffix."""
    out, choice = tmp_path / "out", CutOptions(keep=range(UNITS))
    job = Job(keep_original=True, to=("keras",), verify=False, bench=False)
    run_job(bench.hdf5, out, choice, replace(job, large_head_bytes=BOUND))
    for name in ("net.hdf5", "net.keras"):
        prune_file(bench.hdf5, tmp_path / name, choice, job)
    for path in (out / "original.h5", tmp_path / "net.hdf5"):
        assert path.read_bytes() == bench.hdf5.read_bytes()
    for path in (out / "pruned.fp32.keras", tmp_path / "net.keras"):
        again = keras.models.load_model(path, compile=False)
        for old, new in zip(bench.net.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


def test_it_shows_its_logits_and_is_cut(bench: Bench, tmp_path: Path) -> None:
    wide: Any = open_large(bench.path, BOUND)
    x = inputs()
    z = logits(bench.net, x)
    shown = wide.apply(Plan((AddOutput("y/linear", "y/linear"),)))
    np.testing.assert_allclose(answers(shown, x, "y/linear"), z, atol=LIMIT)
    cut = wide.apply(plan_cut(wide, CutOptions(keep=KEPT, keep_order=True)).plan)
    np.testing.assert_allclose(answers(cut, x), softmax(z[:, list(KEPT)]), atol=1e-6)
    zeroed = wide.apply(plan_cut(wide, CutOptions(keep=KEPT, mode="zero")).plan)
    alive = np.isin(np.arange(UNITS), KEPT)
    np.testing.assert_allclose(answers(zeroed, x), softmax(np.where(alive, z, 0.0)), atol=1e-6)
    wide.write(tmp_path / "again.keras")
    assert (tmp_path / "again.keras").read_bytes() == bench.path.read_bytes()


# --- stub and graft -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_the_head_is_grafted_at_full_width(bench: Bench, kind: str) -> None:
    path, x = bench.folder / f"net.{kind}", inputs()
    done = bench.opened().convert(kind, path, ConvertOptions(large_head_bytes=BOUND))
    assert "a stub of 8 units, the head of 900 (0 MB) grafted" in done.route
    assert "not built in Keras" in done.warnings[0]
    z, model = logits(bench.net, x), open_model(path)
    np.testing.assert_allclose(answers(model, x), softmax(z), atol=LIMIT)
    cut = model.apply(plan_cut(model, CutOptions(keep=KEPT, keep_order=True)).plan)
    np.testing.assert_allclose(answers(cut, x), softmax(z[:, list(KEPT)]), atol=LIMIT)


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param((), id="with its activation inside"),
        pytest.param((layers.Reshape((30, 30), name="r"), layers.Flatten(name="a")), id="reshaped"),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_live_head_goes_to_tflite_as_a_stub(
    behind: tuple[Any, ...], *, bias: bool, tmp_path: Path
) -> None:
    net, x = network(*behind, bias=bias), inputs()
    path = tmp_path / "net.tflite"
    options: dict[str, Any] = {"opset": 17, "batch": 1, "input_shapes": {}}
    route, told = to_tflite.convert(KerasModel(net), path, **options, large_head_bytes=BOUND)
    assert ("grafted" in route) == (not behind)  # units on two axes are no plain head
    assert told == []
    z = logits(net, x)
    expected = z if behind else softmax(z)
    np.testing.assert_allclose(
        answers(open_model(path), x, net.output_names[0]), expected, atol=LIMIT
    )


@pytest.mark.parametrize("convert", [to_onnx.convert, to_tflite.convert])
def test_a_stub_that_comes_back_changed_is_not_trusted(
    bench: Bench, convert: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Then the head is built and goes through the converter, and the report says so."""
    monkeypatch.setattr(graft, "stub_values", lambda shape: stub_values(shape) * 2)
    kind = "onnx" if convert is to_onnx.convert else "tflite"
    path, x = tmp_path / f"net.{kind}", inputs()
    wide = open_large(bench.path, BOUND)
    route, told = convert(wide, path, opset=17, batch=1, input_shapes={})
    assert "graft" not in route
    assert "large head" in told[-1] or "large head" in told[0]
    np.testing.assert_allclose(
        answers(open_model(path), x), softmax(logits(bench.net, x)), atol=LIMIT
    )


def test_weights_that_a_converter_lost_are_missed(bench: Bench) -> None:
    wide = open_large(bench.path, BOUND)
    assert isinstance(wide, WideModel)
    graph = wide.stub.model.graph()
    assert set(graft.graft_for(graph, wide.stub).weights) == {"y/kernel", "y/bias"}
    with pytest.raises(ConversionError, match="not to be found"):
        graft.graft_for(open_file(bench.path).graph(), wide.stub)


def test_run_says_by_which_route(bench: Bench, tmp_path: Path) -> None:
    report = exporter.run(
        bench.path, tmp_path / "out", keep=KEPT, bench=False, samples=4, large_head_bytes=BOUND
    )
    assert report.ok
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    assert all("grafted" in artifact["route"] for artifact in record["artifacts"])
    assert any("product of Keras' features" in warning for warning in record["warnings"])


# --- ONNX files that would pass 2 GiB -------------------------------------------------------------


def test_what_one_message_cannot_hold_lies_beside_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(write_large, "LARGEST_BYTES", 30_000)
    path, x = tmp_path / "net.onnx", inputs()
    to_onnx.convert(open_large(bench.path, BOUND), path, opset=17, batch=1, input_shapes={})
    (data,) = tmp_path.glob("*.data")
    assert data.name.startswith("net-")
    assert path.stat().st_size < 10_000 < FEATURES * UNITS * 4 < data.stat().st_size
    assert size_bytes(path) == path.stat().st_size + data.stat().st_size
    onnx.checker.check_model(path)
    expected = softmax(logits(bench.net, x))
    np.testing.assert_allclose(answers(open_model(path), x), expected, atol=LIMIT)
    report = exporter.run(
        path, tmp_path / "out", keep=range(99), bench=False, samples=4, keep_original=True
    )
    assert report.ok
    beside = sorted(file.name for file in (tmp_path / "out").glob("*.data"))
    assert len(beside) == 2
    assert beside[0] == data.name
    assert beside[1].startswith("pruned.fp32-")
    original = open_model(tmp_path / "out" / "original.onnx")
    np.testing.assert_allclose(answers(original, x), expected, atol=LIMIT)
    (artifact,) = report.artifacts
    assert artifact.bytes == size_bytes(tmp_path / "out" / "pruned.fp32.onnx")
