"""SavedModel folders are refused by name, or converted and pruned as files."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

import exporter
from exporter.conversion.options import ConvertOptions
from exporter.conversion.process import Child
from exporter.conversion.remote import ROUTES, open_folder
from exporter.errors import ConversionError, ExporterError, ModelError, UsageError
from exporter.formats import kind_of, open_model, size_bytes
from exporter.formats.model import Model, RunOptions
from exporter.formats.savedmodel.model import open_file
from exporter.formats.savedmodel.validate import only_computes
from exporter.jobs.inspect import inspect_model
from exporter.jobs.job import Job
from exporter.jobs.source import OpenedModel
from tests.builders import saved_models
from tests.builders.commands import Done
from tests.builders.keras_models import softmax
from tests.builders.saved_models import FEATURES, export, give_optimizer, logits, save_scorer

Command = Callable[[str, Path], Done]
BARE, PLAIN = "tf2onnx, bare graph", "tf2onnx"

pytestmark = pytest.mark.usefixtures("jobs_share_child")


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "scorer"
    return save_scorer(folder, serving_default="scores", raw="logits", echo="echo")


def features(count: int = 1) -> Any:
    return np.random.default_rng(4).normal(size=(count, FEATURES)).astype(np.float32)


def run(model: Model, **inputs: Any) -> dict[str, Any]:
    return model.runner(RunOptions())(inputs)


# --- refused --------------------------------------------------------------------------------------


def _truncated(folder: Path) -> None:
    graph = folder / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-100])


def _of_tensorflow_1(folder: Path) -> None:
    proto = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    proto.meta_graphs[0].ClearField("object_graph_def")
    (folder / "saved_model.pb").write_bytes(proto.SerializeToString())


def _link(folder: Path) -> None:
    weights = next((folder / "variables").glob("*.data*"))
    weights.rename(folder.parent / "weights")
    weights.symlink_to(folder.parent / "weights")


DAMAGED: dict[str, tuple[Callable[[Path], Any], type[ExporterError], str]] = {
    "no graph": (
        lambda folder: (folder / "saved_model.pb").unlink(),
        ModelError,
        "scorer is a folder without a saved_model.pb",
    ),
    "empty graph": (
        lambda folder: (folder / "saved_model.pb").write_bytes(b""),
        ModelError,
        "saved_model.pb is empty",
    ),
    "truncated graph": (_truncated, ModelError, "saved_model.pb is damaged or truncated"),
    "another protobuf message": (
        lambda folder: (folder / "saved_model.pb").write_bytes(b"\x08\x01"),
        ModelError,
        "in the format of TensorFlow 1",
    ),
    "TensorFlow 1": (_of_tensorflow_1, ModelError, "scorer is a SavedModel in the format of Te"),
    "no weights": (
        lambda folder: shutil.rmtree(folder / "variables"),
        ModelError,
        "TensorFlow cannot load scorer: ",
    ),
    "truncated weights": (
        lambda folder: next((folder / "variables").glob("*.data*")).write_bytes(b"short"),
        ModelError,
        "TensorFlow cannot load scorer: ",
    ),
    "link to the weights": (
        _link,
        ModelError,
        "scorer: variables/variables.data-00000-of-00001 is a link",
    ),
}


@pytest.mark.parametrize(("damage", "error", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged(
    scorer: Path,
    tmp_path: Path,
    damage: Callable[[Path], Any],
    error: type[ExporterError],
    message: str,
) -> None:
    folder = tmp_path / "scorer"
    shutil.copytree(scorer, folder)
    damage(folder)
    with pytest.raises(error, match=message) as raised:
        open_file(folder)
    assert "\n" not in raised.value.message


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        open_file(tmp_path / "missing")


def test_the_signature_is_chosen(scorer: Path, tmp_path: Path) -> None:
    assert open_file(scorer).graph().outputs == ("scores",)
    assert open_file(scorer, "raw").graph().outputs == ("logits",)
    with pytest.raises(UsageError, match="no signature 'other'") as raised:
        open_file(scorer, "other")
    assert raised.value.hint == "it has echo, raw, serving_default"
    both = save_scorer(tmp_path / "both", a="scores", b="logits")
    with pytest.raises(UsageError, match="several signatures, and none is named serving_default"):
        open_file(both)
    assert open_file(both, "b").graph().outputs == ("logits",)
    assert open_file(save_scorer(tmp_path / "one", only="logits")).graph().outputs == ("logits",)
    with pytest.raises(ModelError, match="none has no signature, so its inputs"):
        open_file(save_scorer(tmp_path / "none"))


def _reads(x: Any, folder: Path) -> Any:
    return x * tf.strings.to_number(tf.io.read_file(str(folder / "read")))


def _writes(x: Any, folder: Path) -> Any:
    with tf.control_dependencies([tf.io.write_file(str(folder / "written"), "here")]):
        return tf.identity(x)


def _calls(x: Any, _folder: Path) -> Any:
    return tf.ensure_shape(tf.py_function(lambda values: values, [x], tf.float32), x.shape)


def _hides(x: Any, folder: Path) -> Any:
    """In a branch, which is a separate function."""
    return tf.cond(tf.reduce_sum(x) > 0, lambda: _reads(x, folder), lambda: x)


def save_function(function: Callable[[Any, Path], Any], folder: Path) -> None:
    module = tf.Module()
    spec = tf.TensorSpec([None, 2], name="x")
    module.run = tf.function(lambda x: {"y": function(x, folder)}, input_signature=[spec])
    tf.saved_model.save(module, str(folder / "net"), {"serving_default": module.run})


SIDE_EFFECTS: dict[str, Callable[[Any, Path], Any]] = {
    "ReadFile": _reads,
    "WriteFile": _writes,
    "EagerPyFunc": _calls,
    "StatelessIf": _hides,
}


@pytest.mark.parametrize(("operator", "function"), SIDE_EFFECTS.items(), ids=SIDE_EFFECTS)
def test_a_graph_with_side_effects_is_not_loaded(
    tmp_path: Path, operator: str, function: Callable[[Any, Path], Any]
) -> None:
    save_function(function, tmp_path)
    named = "ReadFile" if function is _hides else operator
    with pytest.raises(ModelError, match=f"net contains the operator {named}, which does more"):
        open_file(tmp_path / "net")


def test_a_graph_that_writes_a_file_is_not_run(command_here: Command, tmp_path: Path) -> None:
    """TensorFlow itself writes the file, so the test would notice."""
    save_function(_writes, tmp_path)
    done = command_here("convert net -o net.onnx", tmp_path)
    assert done.code == 3
    assert "error: net contains the operator WriteFile" in done.err
    assert {path.name for path in tmp_path.iterdir()} == {"net"}
    loaded = tf.saved_model.load(str(tmp_path / "net"))
    loaded.signatures["serving_default"](tf.zeros((1, 2)))
    assert (tmp_path / "written").exists()


def test_a_function_that_is_run_cannot_hide_behind_the_name_of_a_saver(tmp_path: Path) -> None:
    save_function(_writes, tmp_path)
    path = tmp_path / "net" / "saved_model.pb"
    text = text_format.MessageToString(saved_model_pb2.SavedModel.FromString(path.read_bytes()))
    names = set(re.findall(r"__inference_[^\"]*?_\d+(?=\")", text))
    for i, name in enumerate(sorted(names)):
        text = text.replace(f'"{name}"', f'"__inference__traced_save_{1000 + i}"')
    path.write_bytes(text_format.Parse(text, saved_model_pb2.SavedModel()).SerializeToString())
    with pytest.raises(ModelError, match="net contains the operator WriteFile, which does more"):
        open_file(tmp_path / "net")


def save_with(folder: Path, result: Callable[[Any], Any], shape: Any, **parts: Any) -> Path:
    """A module with one signature and further parts, such as functions that nobody calls."""
    module = tf.Module()
    for name, part in parts.items():
        setattr(module, name, part)
    module.run = tf.function(result, input_signature=[tf.TensorSpec(*shape, name="x")])
    tf.saved_model.save(module, str(folder), {"serving_default": module.run})
    return folder


def test_a_function_that_is_not_run_may_read_a_data_set(tmp_path: Path) -> None:
    """Keras keeps such a function in an adapted Normalization."""
    values = tf.data.IteratorSpec(tf.TensorSpec([], tf.float32))
    adapt = tf.function(lambda iterator: next(iterator) + 1, input_signature=[values])
    folder = save_with(tmp_path / "net", lambda x: {"y": x * 2}, ([None, 2],), adapt=adapt)
    text = (folder / "saved_model.pb").read_bytes()
    assert b"IteratorGetNext" in text
    np.testing.assert_array_equal(run(open_file(folder), x=np.ones((1, 2)))["y"], [[2, 2]])


def test_a_function_that_fills_a_table_is_run(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("cat\ndog\n")
    lines = tf.lookup.TextFileIndex.LINE_NUMBER
    reader = tf.lookup.TextFileInitializer(
        str(words), tf.int64, lines, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE
    )
    table = tf.lookup.StaticHashTable(reader, "?")
    folder = save_with(tmp_path / "net", lambda x: {"y": x * 2}, ([None, 2],), table=table)
    with pytest.raises(ModelError, match="contains the operator InitializeTableFromTextFileV2"):
        open_file(folder)


def test_outputs_of_strings_are_left_out(child: Child, tmp_path: Path) -> None:
    kernel, names = tf.constant(np.eye(3, dtype=np.float32)), tf.constant(["cat", "dog", "owl"])

    def scores(x: Any) -> Any:
        return {"names": tf.gather(names, tf.argmax(x, 1)), "scores": tf.nn.softmax(x @ kernel)}

    folder = save_with(tmp_path / "net", scores, ([None, 3],))
    assert open_file(folder).graph().outputs == ("scores",)
    done = open_folder(folder, child).convert("onnx", tmp_path / "net.onnx", ConvertOptions())
    assert done.warnings == ("1 output of the SavedModel is not converted: 'names' (string)",)
    assert [each.name for each in onnx.load(tmp_path / "net.onnx").graph.output] == ["scores"]


def test_strings_only(tmp_path: Path) -> None:
    names = tf.constant(["cat", "dog"])
    only = save_with(tmp_path / "out", lambda x: {"y": tf.gather(names, x)}, ([None], tf.int32))
    with pytest.raises(ModelError, match=r"no output contains numbers: 'y' \(string\)"):
        open_file(only)
    taken = save_with(tmp_path / "in", lambda x: {"y": tf.strings.length(x)}, ([None], tf.string))
    with pytest.raises(ModelError, match="the input 'x' takes values of the type string"):
        open_file(taken)


@pytest.mark.parametrize("kind", ROUTES)
def test_an_input_of_rank_0(child: Child, tmp_path: Path, kind: str) -> None:
    module = tf.Module()
    module.kernel = tf.Variable(np.eye(3, 4, dtype=np.float32))
    specs = [tf.TensorSpec([1, 3], name="x"), tf.TensorSpec([], name="t")]
    module.run = tf.function(lambda x, t: {"y": x @ module.kernel / t}, input_signature=specs)
    tf.saved_model.save(module, str(tmp_path / "net"), {"serving_default": module.run})
    x, path = np.array([[1, 2, 3]], np.float32), tmp_path / f"net.{kind}"
    open_folder(tmp_path / "net", child).convert(kind, path, ConvertOptions())
    values = run(open_model(path), x=x, t=np.array(2, np.float32))
    np.testing.assert_allclose(values["y"], [[0.5, 1, 1.5, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    "operator",
    [
        *("MatMul", "Conv2D", "StatefulPartitionedCall", "While", "ReadVariableOp", "HashTableV2"),
        *("RandomUniform", "StatelessRandomUniformV2", "TensorListReserve", "Einsum"),
    ],
)
def test_operators_that_only_compute(operator: str) -> None:
    assert only_computes(operator)


@pytest.mark.parametrize(
    "operator",
    [
        *("ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "PyFuncStateless", "EagerPyFunc"),
        *("PrintV2", "SaveV2", "RestoreV2", "InitializeTableFromTextFileV2", "TextLineDataset"),
        *("DebugIdentityV2", "RemoteCall", "GenerateVocabRemapping", "LoadAndRemapMatrix", "Send"),
        *("DecodeProtoV2", "Abort", "ImmutableConst", "SummaryWriter", "WriteSummary", "NotOfTF"),
    ],
)
def test_operators_that_do_more(operator: str) -> None:
    assert not only_computes(operator)


COMMANDS: dict[str, tuple[str, int, str]] = {
    "pruned directly": (
        "prune scorer -o x.onnx --keep 1",
        2,
        "a SavedModel cannot be cut directly, and none can be written",
    ),
    "written": ("run scorer -o out --keep 1 --to savedmodel", 2, "'savedmodel' is not one of"),
    "file inside a SavedModel": ("inspect scorer/saved_model.pb", 2, "is a part of a SavedModel"),
    "other folder": ("inspect scorer/variables", 2, "a folder without a saved_model"),
    "timed": ("bench scorer scorer", 2, "do not run in the same edge runtime"),
}


@pytest.mark.parametrize(("line", "code", "message"), COMMANDS.values(), ids=COMMANDS)
def test_commands_refused(
    command_here: Command, scorer: Path, line: str, code: int, message: str
) -> None:
    done = command_here(line, scorer.parent)
    assert (done.code, done.out) == (code, "")
    assert message in done.err.splitlines()[-2]
    assert done.err.splitlines()[-1].startswith("hint: ")
    assert {path.name for path in scorer.parent.iterdir()} == {"scorer"}


def test_no_route_to_keras(child: Child, scorer: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="SavedModel cannot be converted to Keras") as raised:
        OpenedModel(open_folder(scorer, child), scorer, child).as_kind("keras", tmp_path)
    assert raised.value.hint.startswith("use --to onnx,tflite")
    with pytest.raises(UsageError, match="no 'savedmodel' can be written"):
        Job(to=("savedmodel",))


# --- accepted -------------------------------------------------------------------------------------


def test_inspection(scorer: Path) -> None:
    record = inspect_model(open_file(scorer), size_bytes(scorer)).to_dict()
    files = sorted(path for path in scorer.rglob("*") if path.is_file())
    files.remove(scorer / "fingerprint.pb")  # no output depends on it
    assert record["model"]["bytes"] == size_bytes(scorer) == sum(f.stat().st_size for f in files)
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(scorer)}\n"
        for file in sorted(files, key=lambda file: (file.name != "saved_model.pb", file))
    ]
    assert record["model"]["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert (kind_of(scorer), record["model"]["kind"]) == ("savedmodel", "savedmodel")
    assert record["inputs"] == [{"name": "features", "shape": [None, FEATURES], "dtype": "float32"}]
    (refused,) = record["refused"]
    assert refused["output"] == "scores"
    assert "its layers are not visible; heads are found in the files" in refused["reason"]


def test_run_in_this_process(scorer: Path) -> None:
    model, values = open_model(scorer), features(3)
    np.testing.assert_allclose(
        run(model, features=values)["scores"], softmax(logits(values)), rtol=0, atol=1e-6
    )
    with pytest.raises(UsageError, match="no values for the input 'features'"):
        run(model)
    with pytest.raises(ModelError, match="'scorer' cannot be written before it is converted"):
        model.write(scorer.parent / "x")


def test_slot_variables_of_an_optimizer_are_ignored(tmp_path: Path) -> None:
    """TensorFlow can restore them only to an optimizer of Keras 2, and fails without it."""
    folder = save_scorer(tmp_path / "compiled", serving_default="scores")
    give_optimizer(folder)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    with pytest.raises(AttributeError, match="add_slot"):
        tf.saved_model.load(str(folder))
    values = features(3)
    scores = run(open_file(folder), features=values)["scores"]
    assert np.allclose(scores, softmax(logits(values)), rtol=0, atol=1e-6)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_a_module_without_keras(scorer: Path, tmp_path: Path) -> None:
    report = exporter.run(scorer, tmp_path / "out", keep=[80, 2, 41], bench=False, samples=2)
    assert report.ok
    assert {check.stage for check in report.checks} == {"cut", "export"}
    assert [artifact.route for artifact in report.artifacts] == [BARE, ROUTES["tflite"]]
    assert (report.original.kind, report.original.bytes) == ("savedmodel", size_bytes(scorer))
    assert report.remap is not None
    assert report.remap.original.sha256 == report.original.sha256
    values = features()
    expected = softmax(logits(values)[:, [2, 41, 80]])
    for artifact in report.artifacts:
        outputs = run(open_model(tmp_path / "out" / artifact.path), features=values)["scores"]
        np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-6)
    cut = tmp_path / "out" / "pruned.fp32.onnx"
    with pytest.raises(UsageError, match="the logits of scorer, a SavedModel, cannot be read"):
        exporter.verify(scorer, cut)


def converted(child: Child, folder: Path, path: Path, **options: Any) -> tuple[str, Model]:
    model = open_folder(folder, child, options.pop("signature", None))
    done = model.convert(path.suffix[1:], path, ConvertOptions(**options))
    assert done.warnings == ()
    return done.route, open_model(path)


@pytest.mark.parametrize("kind", ROUTES)
def test_an_output_with_the_name_of_an_input(
    child: Child, scorer: Path, tmp_path: Path, kind: str
) -> None:
    _, model = converted(child, scorer, tmp_path / f"net.{kind}", signature="echo")
    assert model.graph().outputs == ("features_",)
    values = features()
    expected = logits(values) - saved_models.BIAS
    np.testing.assert_allclose(
        run(model, features=values)["features_"], expected, rtol=0, atol=1e-5
    )


def test_several_inputs_and_outputs(child: Child, tmp_path: Path) -> None:
    live = export(saved_models.several, tmp_path / "net")
    random = np.random.default_rng(3)
    values = {name: random.normal(size=(1, n)).astype(np.float32) for name, n in _SIZES.items()}
    expected = live([values["right"], values["left"]], training=False)
    for kind in ROUTES:
        _, model = converted(child, tmp_path / "net", tmp_path / f"net.{kind}")
        assert set(model.graph().inputs) == {"left", "right"}
        outputs = run(model, **values)
        assert set(outputs) == {"kind", "tags"}
        for name, result in outputs.items():
            np.testing.assert_allclose(result, expected[name], rtol=0, atol=1e-6)


_SIZES = {"left": 4, "right": 3}


@pytest.mark.parametrize(("width", "route"), [(8, PLAIN), (64, BARE)])
def test_failures_of_tf2onnx_are_fixed_in_both_routes(
    child: Child, tmp_path: Path, width: int, route: str
) -> None:
    live = export(lambda: saved_models.tf2onnx_failures(width), tmp_path / "net")
    values = np.random.default_rng(1).normal(size=(1, 6, 6, width)).astype(np.float32)
    expected = live(values, training=False)
    for kind in ROUTES:
        path = tmp_path / f"net.{kind}"
        by, model = converted(child, tmp_path / "net", path)
        assert by == {"onnx": route, "tflite": "TFLiteConverter"}[kind]
        assert model.graph().inputs == ("image",)
        np.testing.assert_allclose(
            run(model, image=values)["output_0"], expected, rtol=0, atol=1e-5
        )
    graph = onnx.load(tmp_path / "net.onnx").graph
    operators = Counter(node.op_type for node in graph.node)
    assert operators["Conv"] == 1
    assert [node.op_type for node in graph.node if node.domain not in {"", "ai.onnx"}] == []


def test_a_recurrent_layer_stays_one_node(child: Child, tmp_path: Path) -> None:
    live = export(saved_models.recurrent, tmp_path / "net")
    ids = np.random.default_rng(1).integers(0, 80, (1, 6)).astype(np.int32)
    for kind in ROUTES:
        by, model = converted(child, tmp_path / "net", tmp_path / f"net.{kind}")
        assert by == {"onnx": BARE, "tflite": "TFLiteConverter"}[kind]
        np.testing.assert_allclose(
            run(model, ids=ids)["output_0"], live(ids, training=False), rtol=0, atol=1e-5
        )
    nodes = Counter(node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node)
    assert (nodes["LSTM"], nodes["Loop"]) == (1, 0)


def test_batches(child: Child, scorer: Path, tmp_path: Path) -> None:
    _, model = converted(child, scorer, tmp_path / "net.onnx", batch=3)
    assert model.graph().shape("features") == (None, FEATURES)
    _, model = converted(child, scorer, tmp_path / "net.tflite", batch=3)
    assert model.graph().shape("features") == (3, FEATURES)
    report = exporter.verify(tmp_path / "net.onnx", tmp_path / "net.tflite", samples=4)
    assert report.ok
    assert report.inputs == {"source": "synthetic, seed 0, 3 at a time", "samples": 2}


class Loose(tf.Module):  # type: ignore[misc]  # TensorFlow is untyped
    """A model with an input of unknown rank."""

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="x")])  # type: ignore[untyped-decorator]
    def called(self, x: Any) -> Any:
        return {"y": tf.nn.softmax(x * 2.0)}


def test_an_input_of_unknown_rank(child: Child, tmp_path: Path) -> None:
    made = Loose()
    tf.saved_model.save(made, str(tmp_path / "net"), {"serving_default": made.called})
    values = np.random.default_rng(1).normal(size=(1, 5)).astype(np.float32)
    for kind in ROUTES:
        path = tmp_path / f"net.{kind}"
        with pytest.raises(UsageError, match="the rank of the input 'x' is not known"):
            converted(child, tmp_path / "net", path)
        _, model = converted(child, tmp_path / "net", path, input_shapes={"x": (1, 5)})
        np.testing.assert_allclose(
            run(model, x=values)["y"], softmax(2.0 * values), rtol=0, atol=1e-6
        )


def _half() -> Any:
    values = keras.Input((8,), name="x")
    return keras.Model(values, keras.layers.Dense(60, dtype="mixed_float16", name="y")(values))


def test_half_precision(child: Child, tmp_path: Path) -> None:
    """TFLite's builtin operators have none, and a SavedModel cannot be rebuilt in float32."""
    live = export(_half, tmp_path / "net")
    values = np.random.default_rng(1).normal(size=(1, 8)).astype(np.float32)
    path = tmp_path / "net.onnx"
    _, model = converted(child, tmp_path / "net", path)
    np.testing.assert_allclose(
        run(model, x=values)["output_0"], live(values, training=False), rtol=0, atol=2e-3
    )
    with pytest.raises(ConversionError, match="computes in half precision, which TFLite"):
        converted(child, tmp_path / "net", tmp_path / "net.tflite")


def test_two_processes_write_the_same_bytes(
    child: Child, other_child: Child, tmp_path: Path
) -> None:
    """From copies in two folders: the files depend neither on the path nor on the process."""
    first, second = tmp_path / "first", tmp_path / "second"
    for source, build in _TWICE.items():
        export(build, first / source)
    shutil.copytree(first, second)
    routes = []
    for source in _TWICE:
        for kind in ROUTES:
            name = f"{source}.{kind}"
            converted(child, first / source, first / name)
            routes.append(converted(other_child, second / source, second / name)[0])
            assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert routes == [PLAIN, _TFLITE, BARE, _TFLITE]


_TFLITE = ROUTES["tflite"]
_TWICE: dict[str, Callable[[], Any]] = {
    "small": lambda: saved_models.tf2onnx_failures(8),
    "large": lambda: saved_models.tf2onnx_failures(64),
}


def test_the_commands(command_here: Command, scorer: Path, tmp_path: Path) -> None:
    """Convert with a batch, and plan a cut."""
    work = tmp_path / "work"
    shutil.copytree(scorer, work / "net")
    done = command_here("convert net -o net.tflite --batch 4 --samples 6 --json", work)
    assert done.code == 0, done.err
    assert done.record["inputs"] == {"source": "synthetic, seed 0, 4 at a time", "samples": 2}
    assert open_model(work / "net.tflite").graph().shape("features") == (4, FEATURES)
    planned = command_here("run net -o out --keep 3-5 --to tflite --dry-run -q", work)
    assert planned.code == 0, planned.err
    assert planned.out.startswith("head 'scores', slice: 3 of 90 units kept\n")
    assert not (work / "out").exists()
