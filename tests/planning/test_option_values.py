"""Options by name, with values of TOML, of CSV or of the command line."""

from __future__ import annotations

from typing import Any

import pytest

from exporter.errors import UsageError
from exporter.jobs.job import Job
from exporter.planning.option_values import merged, options_by_key, read_options
from exporter.planning.options import CutOptions

KNOWN = options_by_key("run", CutOptions, Job)

REFUSED = [
    ({"kep": "0"}, "'keep'"),
    ({"sampels": 3}, "'samples'"),
    ({"output": "x"}, "no option"),
    ({"samples": 1.5}, "whole number"),
    ({"samples": True}, "whole number"),
    ({"samples": "many"}, "samples"),
    ({"bench": "perhaps"}, "true or false"),
    ({"bench": 2}, "true or false"),
    ({"bench-seconds": "long"}, "bench-seconds"),
    ({"bench-seconds": float("nan")}, "number"),
    ({"max-size": "big"}, "size"),
    ({"max-size": True}, "whole number"),
    ({"max-latency": "5 parsecs"}, "time"),
    ({"mode": "slcie"}, "slice"),
    ({"mode": 3}, "text"),
    ({"to": ["onx"]}, "onnx"),
    ({"to": 3}, "list of texts"),
    ({"precision": "fp32,int9"}, "int8"),
    ({"keep": 1.5}, "text or a list"),
    ({"keep": [1.5]}, "text or a list"),
    ({"keep": True}, "text or a list"),
    ({"data": {}}, "text or a list"),
    ({"dim": {"batch": "x"}}, "dim"),
    ({"dim": "batch"}, "NAME=1"),
    ({"input-shape": {"x": [1, "y"]}}, "input-shape"),
    ({"cut": ["head"]}, "A=B"),
    ({"merge": {"bird": 1.5}}, "text or a list"),
    ({"integer-io": 3}, "list of texts"),
]

READ: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"keep": "0,owl"}, {"keep": "0,owl"}),
    ({"keep": [0, "owl"]}, {"keep": (0, "owl")}),
    ({"keep": 3}, {"keep": "3"}),
    ({"keep_order": True}, {"keep_order": True}),
    ({"bench": "no"}, {"bench": False}),
    ({"samples": "8"}, {"samples": 8}),
    ({"tolerance": 1}, {"tolerance": 1}),
    ({"min-top1": "0.9"}, {"min_top1": 0.9}),
    ({"max-size": "300kB"}, {"max_size_bytes": 300_000}),
    ({"max-size": 5}, {"max_size_bytes": 5}),
    ({"max-latency": "2s"}, {"max_latency_ms": 2000.0}),
    ({"max-latency": 5}, {"max_latency_ms": 5}),
    ({"to": "onnx, tflite"}, {"to": ("onnx", "tflite")}),
    ({"precision": ["fp32", "int8"]}, {"precisions": ("fp32", "int8")}),
    ({"drop-output": "a,b"}, {"drop_outputs": ("a,b",)}),
    ({"labels": "names.txt"}, {"labels": "names.txt"}),
    ({"labels": ["a", "b"]}, {"labels": ("a", "b")}),
    ({"dim": {"batch": 2}}, {"dims": {"batch": 2}}),
    ({"dim": "batch=2,time=8"}, {"dims": {"batch": 2, "time": 8}}),
    ({"input-shape": {"x": "1,16"}}, {"input_shapes": {"x": (1, 16)}}),
    ({"input-shape": {"x": [1, 16]}}, {"input_shapes": {"x": (1, 16)}}),
    ({"input-shape": "x=1,16"}, {"input_shapes": {"x": (1, 16)}}),
    ({"cut": {"a": "0-3", "b": [1]}}, {"cuts": {"a": "0-3", "b": (1,)}}),
    ({"cut": ["a=0-3", "b=1"]}, {"cuts": {"a": "0-3", "b": "1"}}),
    ({"integer-io": True}, {"integer_io": True}),
    ({"integer-io": "a,b"}, {"integer_io": ("a", "b")}),
    ({"integer-io": ["a"]}, {"integer_io": ("a",)}),
]


@pytest.mark.parametrize(("table", "part"), REFUSED, ids=lambda value: str(value)[:30])
def test_wrong_keys_and_values_are_refused(table: dict[str, Any], part: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_options(table, KNOWN, "[options]")
    assert "[options]" in refused.value.message
    assert part in str(refused.value)


@pytest.mark.parametrize(("table", "expected"), READ, ids=lambda value: str(value)[:30])
def test_values_are_those_of_the_records(table: dict[str, Any], expected: dict[str, Any]) -> None:
    found = read_options(table, KNOWN, "")
    assert found == expected
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in expected.items()
    }


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([{"samples": 1}, {"samples": 2}], {"samples": 2}),
        ([{"keep": "0", "mode": "mask"}, {"remove": "1"}], {"mode": "mask", "remove": "1"}),
        ([{"cuts": {"a": "0"}}, {"keep": "1"}], {"keep": "1"}),
        (
            [{"calibration": "c.npz"}, {"synthetic_calibration": True}],
            {"synthetic_calibration": True},
        ),
    ],
)
def test_a_later_layer_replaces_what_it_excludes(
    layers: list[dict[str, Any]], expected: dict[str, Any]
) -> None:
    assert merged(layers) == expected
