"""Check one cut with arithmetic of its own. This program does not import `exporter`.

It runs the original and the cut file on the same inputs, takes the kept units from the answers of
the original, normalizes them again where the original's units sum to 1, and compares.

Usage: `python check.py ROW.json ORIGINAL CUT REMAP`; prints one JSON object:
`{"error": largest difference divided by the scale, "limit": ..., "changed": names of cut outputs,
"problem": "" or a sentence}`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SAMPLES = 3
FLOAT_LIMIT = 5e-6  # of a cut file against the original in the same runtime
EXPORT_LIMIT = 2e-4  # against the producer's own runtime
SUM_LIMIT = 1e-3  # probabilities sum to 1 within this


class WrongError(Exception):
    """The cut file does not answer as the original does."""


@dataclass(frozen=True)
class Answer:
    """One output.

    Attributes:
        name: of the output.
        values: real values, or class indices (integers), or labels (strings).
        step: of quantized values; 0 for floats.
    """

    name: str
    values: Any
    step: float = 0.0


@dataclass(frozen=True)
class Cut:
    """The units that the command kept: positions first + 0 ... first + units - 1 of an axis.

    Attributes:
        plain: values that sum to 1 without a softmax, as those of trees: they are not normalized.
    """

    units: int
    kept: tuple[int, ...]
    first: int
    plain: bool = False

    def positions(self, width: int) -> list[int]:
        """All positions of an axis of this width that must remain."""
        removed = {self.first + unit for unit in range(self.units) if unit not in self.kept}
        return [at for at in range(width) if at not in removed]


# --- inputs -------------------------------------------------------------------------------------


def values_for(
    name: str, shape: Sequence[int], dtype: str, row: Mapping[str, Any], seed: int
) -> Any:
    """One input. Integers are below row["high"][name]; floats are normal."""
    if name in row.get("values", {}):
        return np.full(shape, row["values"][name], np.dtype(dtype))
    random = np.random.default_rng(seed)
    if dtype == "bool":
        return np.ones(shape, bool)
    if dtype in ("int64", "int32"):
        high = row.get("high", {}).get(name, 2)
        return random.integers(0, high, shape).astype(dtype)
    if dtype in ("int8", "uint8", "int16"):
        limits = np.iinfo(np.dtype(dtype))
        return random.integers(limits.min, limits.max, shape).astype(dtype)
    return random.normal(size=shape).astype(dtype)


def closed(name: str, shape: Sequence[Any], row: Mapping[str, Any]) -> list[int]:
    """The shape with numbers: of the row, else 1 for a batch and 8 for lengths."""
    given = row.get("shapes", {}).get(name)
    if given is not None:
        return list(given)
    return [
        size if isinstance(size, int) and size > 0 else (1 if axis == 0 else 8)
        for axis, size in enumerate(shape)
    ]


# --- runtimes -----------------------------------------------------------------------------------


def run_onnx(path: Path, row: Mapping[str, Any], seed: int) -> list[Answer]:
    import onnxruntime  # noqa: PLC0415 - only one runtime is needed

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    dtypes = {"float": "float32", "double": "float64"}
    inputs = []
    for node in session.get_inputs():
        dtype = node.type.removeprefix("tensor(").removesuffix(")")
        inputs.append((node.name, node.shape, dtypes.get(dtype, dtype)))
    feeds = feeds_of(inputs, row, seed)
    names = [node.name for node in session.get_outputs()]
    return [
        Answer(name, plain(value), row.get("step", 0.0))
        for name, value in zip(names, session.run(None, feeds), strict=True)
    ]


def plain(value: Any) -> Any:
    """An array. Maps (of ZipMap) become rows, in the order of their keys."""
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return np.array([list(entry.values()) for entry in value])
    return np.asarray(value)


def run_tflite(path: Path, row: Mapping[str, Any], seed: int) -> list[Answer]:
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - only one runtime is needed

    interpreter = Interpreter(str(path), num_threads=1)
    details = sorted(interpreter.get_input_details(), key=lambda entry: str(entry["name"]))
    for entry in details:
        signature = entry.get("shape_signature", entry["shape"])
        shape = [int(n) for n in (signature if len(signature) else entry["shape"])]
        if -1 in shape or entry["name"] in row.get("shapes", {}):
            interpreter.resize_tensor_input(entry["index"], closed(entry["name"], shape, row))
    interpreter.allocate_tensors()
    for at, entry in enumerate(
        sorted(interpreter.get_input_details(), key=lambda e: str(e["name"]))
    ):
        dtype = np.dtype(entry["dtype"]).name
        values = values_for(entry["name"], list(entry["shape"]), dtype, row, seed * 100 + at)
        interpreter.set_tensor(entry["index"], values)
    interpreter.invoke()
    answers = []
    for entry in interpreter.get_output_details():
        codes = interpreter.get_tensor(entry["index"])
        scale, zero = entry["quantization"]
        if scale and codes.dtype != np.float32:
            answers.append(Answer(entry["name"], (codes.astype(np.float64) - zero) * scale, scale))
        else:
            answers.append(Answer(entry["name"], codes, row.get("step", 0.0)))
    return answers


def run_keras(path: Path, row: Mapping[str, Any], seed: int) -> list[Answer]:
    import keras  # noqa: PLC0415 - only one runtime is needed

    inputs = keras.saving.load_model(path, compile=False).inputs
    return run_on(path, feeds_of([(n.name, n.shape, n.dtype) for n in inputs], row, seed))


def feeds_of(
    inputs: Sequence[tuple[str, Sequence[Any], str]], row: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """An array for each (name, shape, dtype)."""
    return {
        name: values_for(name, closed(name, shape, row), dtype, row, seed * 100 + at)
        for at, (name, shape, dtype) in enumerate(inputs)
    }


RUNTIMES = {".onnx": run_onnx, ".tflite": run_tflite, ".keras": run_keras}


def run_on(path: Path, feeds: Mapping[str, Any]) -> list[Answer]:
    """Run a file on these inputs, matched by name or by shape."""
    if path.suffix == ".onnx":
        import onnxruntime  # noqa: PLC0415 - only one runtime is needed

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        given = match([(n.name, n.shape) for n in session.get_inputs()], feeds)
        names = [node.name for node in session.get_outputs()]
        return [Answer(n, v) for n, v in zip(names, session.run(None, given), strict=True)]
    if path.suffix == ".tflite":
        return _run_tflite_on(path, feeds)
    import keras  # noqa: PLC0415 - only one runtime is needed

    arrays = list(feeds.values())
    model = keras.saving.load_model(path, compile=False)
    results = model(arrays if len(arrays) > 1 else arrays[0], training=False)
    flat = list(results.values()) if isinstance(results, dict) else results
    flat = flat if isinstance(flat, (list, tuple)) else [flat]
    return [Answer(str(at), np.asarray(value)) for at, value in enumerate(flat)]


def _run_tflite_on(path: Path, feeds: Mapping[str, Any]) -> list[Answer]:
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - only one runtime is needed

    interpreter = Interpreter(str(path), num_threads=1)
    details = {e["name"]: e for e in interpreter.get_input_details()}
    given = match([(n, list(e["shape_signature"])) for n, e in details.items()], feeds)
    count = len(next(iter(feeds.values())))
    rows = []
    for at in range(count):  # a file may have a fixed batch of 1
        for name, value in given.items():
            interpreter.resize_tensor_input(details[name]["index"], [1, *value.shape[1:]])
        interpreter.allocate_tensors()
        for name, value in given.items():
            interpreter.set_tensor(details[name]["index"], value[at : at + 1])
        interpreter.invoke()
        rows.append([interpreter.get_tensor(e["index"]) for e in interpreter.get_output_details()])
    names = [e["name"] for e in interpreter.get_output_details()]
    return [
        Answer(n, np.concatenate(column))
        for n, column in zip(names, zip(*rows, strict=True), strict=True)
    ]


def match(wanted: Sequence[tuple[str, Sequence[Any]]], feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Give each input a recorded array: by name, else the first with its rank and sizes."""
    left, given = dict(feeds), {}
    for name, shape in wanted:
        bare = name.split(":")[0].removeprefix("serving_default_")
        fits = [n for n, value in left.items() if n == bare] or [
            n
            for n, value in left.items()
            if len(value.shape) == len(shape)
            and all(
                not isinstance(s, int) or s in (-1, v)
                for s, v in zip(shape[1:], value.shape[1:], strict=True)
            )
        ]
        given[name] = left.pop(fits[0])
    return given


# --- the comparison -----------------------------------------------------------------------------


def expected(original: Answer, found: Any, cut: Cut) -> tuple[Any, Any]:
    """The kept positions of the original's values, normalized again where the units sum to 1.

    Returns:
        the values, and the difference that the quantization of the original allows.
    """
    values = np.asarray(original.values)
    axes = [a for a in range(values.ndim) if values.shape[a] != found.shape[a]]
    removed = cut.units - len(cut.kept)
    if len(axes) != 1 or values.shape[axes[0]] - found.shape[axes[0]] != removed:
        raise WrongError(f"shape {list(values.shape)} became {list(found.shape)}")
    axis = axes[0]
    real = values.astype(np.float64)
    taken = np.take(real, cut.positions(values.shape[axis]), axis)
    if values.shape[axis] != cut.units or cut.plain:
        return taken, 2 * original.step  # boxes or other columns share the axis
    step = original.step
    tolerance = max(SUM_LIMIT, cut.units * step)
    if real.min() >= -SUM_LIMIT and np.all(np.abs(real.sum(axis) - 1) < tolerance):
        share = np.maximum(taken.sum(axis, keepdims=True), 1e-30)
        return taken / share, 2 * step / share
    if real.max() <= 0 and np.all(np.abs(np.exp(real).sum(axis) - 1) < SUM_LIMIT):  # log-softmax
        return taken - np.log(np.exp(taken).sum(axis, keepdims=True)), 2 * step
    return taken, 2 * step


def compare(
    originals: Sequence[Answer], founds: Sequence[Answer], cut: Cut, *, topk: bool = False
) -> tuple[float, list[str]]:
    """The largest difference, divided by the scale of its output, and the outputs that were cut.

    Raises:
        WrongError: the number of outputs, a shape, a class index or a label is not right.
    """
    if len(originals) != len(founds):
        raise WrongError(f"{len(originals)} outputs became {len(founds)}")
    by_name = {answer.name: answer for answer in founds}
    if all(answer.name in by_name for answer in originals):
        founds = [by_name[answer.name] for answer in originals]
    scores = [
        units_last(np.asarray(original.values), np.shape(found.values))
        for original, found in zip(originals, founds, strict=True)
        if np.shape(original.values) != np.shape(found.values)
    ]
    worst, changed = 0.0, []
    for original, found in zip(originals, founds, strict=True):
        values, result = np.asarray(original.values), np.asarray(found.values)
        if values.dtype.kind in "OUS" or (values.dtype.kind in "iu" and not original.step):
            check_choice(original.name, values, result, scores, cut)
            continue
        allowed: Any = 2 * original.step
        if values.shape != result.shape:
            right, allowed = expected(original, result, cut)
            changed.append(original.name)
        elif topk:
            right = best_values(values, scores, cut)
        else:
            right = values.astype(np.float64)
        worst = max(worst, distance(original.name, right, result, allowed))
    return worst, changed


def distance(name: str, right: Any, result: Any, allowed: Any) -> float:
    """The largest difference above the allowed one, divided by the scale.

    Raises:
        WrongError: other values are infinite or not a number.
    """
    finite = np.isfinite(right)
    if not np.array_equal(finite, np.isfinite(result)):
        raise WrongError(f"'{name}' has other values that are not finite")
    if not finite.any():
        return 0.0
    excess = np.abs(right - result.astype(np.float64)) - allowed
    scale = max(1.0, float(np.abs(right[finite]).max()))
    return max(0.0, float(excess[finite].max())) / scale


def units_last(values: Any, shape: Sequence[int]) -> Any:
    """The values with the axis that became narrower at the end."""
    axes = [
        a for a, size in enumerate(values.shape) if len(shape) == values.ndim and size != shape[a]
    ]
    return np.moveaxis(values, axes[0], -1) if axes else values


def check_choice(name: str, values: Any, result: Any, scores: Sequence[Any], cut: Cut) -> None:
    """A class index or label must be unchanged, or be that of the best kept unit."""
    if np.array_equal(values, result):
        return
    for original in scores:
        if original.shape[:-1] != values.shape and original.shape[0] != len(values):
            continue
        if values.ndim == original.ndim and values.shape[-1] > 1:  # the indices of a top-k
            order = np.argsort(-original[..., list(cut.kept)], -1)[..., : values.shape[-1]]
            if np.array_equal(np.asarray(cut.kept)[order], result):
                return
            continue
        best = original[..., list(cut.kept)].argmax(-1)
        names: dict[int, Any] = {}
        for unit, label in zip(original.argmax(-1).ravel(), values.ravel(), strict=False):
            names[int(unit)] = label  # how the original names the winners
        right = [
            names.get(cut.kept[at], cut.kept[at] if values.dtype.kind in "iu" else None)
            for at in best.ravel()
        ]
        if all(r is None or r == f for r, f in zip(right, result.ravel(), strict=True)):
            return
    raise WrongError(
        f"'{name}' changed from {values.ravel()[:6].tolist()} to {result.ravel()[:6].tolist()}"
    )


def best_values(values: Any, scores: Sequence[Any], cut: Cut) -> Any:
    """The largest probabilities over the kept units, where the first cut output are the logits."""
    kept = scores[0].astype(np.float64)[..., list(cut.kept)]
    shares = np.exp(kept - kept.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return -np.sort(-shares, -1)[..., : values.shape[-1]]


def check_remap(remap: Mapping[str, Any], cut: Cut) -> None:
    """The table must list exactly the kept units, in order."""
    tables = [head["new_to_old"] for head in remap["heads"]]
    if list(cut.kept) not in tables:
        raise WrongError(f"the remap lists {tables} for kept units {list(cut.kept)}")


def main() -> None:
    row = json.loads(Path(sys.argv[1]).read_text())
    original, cut_file, remap = map(Path, sys.argv[2:5])
    cut = Cut(row["units"], tuple(row["kept"]), row.get("first", 0), row.get("plain", False))
    worst, problem = 0.0, ""
    changed: set[str] = set()
    limit = row.get("limit", FLOAT_LIMIT)
    try:
        check_remap(json.loads(remap.read_text()), cut)
        if original.suffix in RUNTIMES and original.suffix == cut_file.suffix:
            run = RUNTIMES[original.suffix]
            for seed in range(SAMPLES):
                answers = run(original, row, seed)
                found = run(cut_file, row, seed)
                error, names = compare(answers, found, cut, topk="topk" in row)
                worst, changed = max(worst, error), changed | set(names)
        else:
            limit = row.get("limit", EXPORT_LIMIT)
            feeds, answers = recorded(original, row)
            founds = run_on(cut_file, feeds)
            worst, names = compare(answers, pair_by_shape(answers, founds, cut), cut)
            changed = set(names)
        if not changed:
            problem = "no output became narrower"
        elif worst > limit:
            problem = f"differs by {worst:.1e}"
    except WrongError as error:
        problem = str(error)
    print(
        json.dumps({"error": worst, "limit": limit, "changed": sorted(changed), "problem": problem})
    )


def recorded(original: Path, row: Mapping[str, Any]) -> tuple[dict[str, Any], list[Answer]]:
    """Inputs, and what the producer itself answered; if it recorded nothing, what Keras answers."""
    path = original.with_name(original.name + ".npz")
    if path.exists():
        arrays = dict(np.load(path))
        feeds = {k[3:]: v for k, v in arrays.items() if k.startswith("in:")}
        return feeds, [Answer(k[4:], v) for k, v in arrays.items() if k.startswith("out:")]
    import keras  # noqa: PLC0415 - only one runtime is needed

    inputs = keras.saving.load_model(original, compile=False).inputs
    feeds = feeds_of([(n.name, n.shape, n.dtype) for n in inputs], row, 0)
    return feeds, run_on(original, feeds)


def pair_by_shape(originals: Sequence[Answer], founds: Sequence[Answer], cut: Cut) -> list[Answer]:
    """Converters may change the order of outputs: pair each with the nearest of a fitting shape."""
    left, pairs = list(founds), []
    for original in originals:
        shape = np.shape(original.values)
        fits = [f for f in left if len(f.values.shape) == len(shape)]
        exact = [f for f in fits if _fits(original, f, cut)]
        chosen = min(exact or fits or left, key=lambda f: _distance(original, f, cut))
        left.remove(chosen)
        pairs.append(Answer(original.name, chosen.values))
    return pairs


def _fits(original: Answer, found: Answer, cut: Cut) -> bool:
    return _distance(original, found, cut) < np.inf


def _distance(original: Answer, found: Answer, cut: Cut) -> float:
    try:
        return compare([original], [Answer(original.name, found.values)], cut)[0]
    except (WrongError, ValueError, IndexError):
        return np.inf


if __name__ == "__main__":
    main()
