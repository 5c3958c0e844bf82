"""Write `docs/schemas/`: JSON Schema (draft 2020-12) of the JSON records.

Records that are dataclasses are described by their fields. Every schema allows more keys, which
readers ignore. A record is described once: in the `$defs` of its schema, or in another schema, to
which a `$ref` relative to the `$id` leads.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

from exporter.evaluation.unit_table import UnitRow
from exporter.jobs.inspect import ChannelFacts
from exporter.performance.trend import Timing
from exporter.records import PrecisionRow, Report
from exporter.remap import Remap
from exporter.trace.refusals import Refusal

FOLDER = Path(__file__).parent.parent / "docs" / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]


def of_other(schema: str, pointer: str = "") -> Schema:
    """A reference to another schema, or to a part of it, relative to the `$id` of this one."""
    return {"$ref": f"../{schema}/1{pointer}"}


TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
ANY: Schema = {"type": "object"}
SIMPLE: Mapping[Any, Schema] = {
    str: TEXT,
    bool: FLAG,
    int: {"type": "integer"},
    float: {"type": ["number", "null"]},  # a value that is not finite is null
    Any: {},
    Remap: of_other("remap"),
}


def many(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def optional(schema: Schema) -> Schema:
    kind = schema.get("type")
    if isinstance(kind, list):  # null is one of them
        return schema
    if kind:  # the other keys hold for this type only
        return {**schema, "type": [kind, "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def define(definitions: dict[str, Schema], name: str, schema: Schema) -> Schema:
    """Add a record to the definitions of a schema, and refer to it."""
    definitions[name] = schema
    return {"$ref": f"#/$defs/{name}"}


def record(properties: Mapping[str, Schema], *not_required: str) -> Schema:
    required = [name for name in properties if name not in not_required]
    return {"type": "object", "properties": dict(properties), "required": required}


def of_type(hint: Any, definitions: dict[str, Schema]) -> Schema:
    """The schema of a type as `dataclasses.asdict` and `json` write its values.

    Records are added to the definitions.
    """
    if hint in SIMPLE:
        return SIMPLE[hint]
    if is_dataclass(hint):
        fields_ = of_fields(hint, definitions)
        return define(definitions, typing.cast("type", hint).__name__, record(fields_))
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    parts = [of_type(each, definitions) for each in arguments if each not in {NoneType, Ellipsis}]
    if origin in {UnionType, typing.Union}:
        return optional(parts[0]) if NoneType in arguments else {"anyOf": parts}
    if origin not in {tuple, list}:
        return ANY
    fixed = origin is tuple and Ellipsis not in arguments
    return {"type": "array", "prefixItems": parts} if fixed else many(parts[0])


def of_fields(record_type: Any, definitions: dict[str, Schema]) -> dict[str, Schema]:
    hints = typing.get_type_hints(record_type)
    return {field.name: of_type(hints[field.name], definitions) for field in fields(record_type)}


def with_definitions(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    return {**schema, "$defs": definitions}


UNITS = many(COUNT)
IN_REMAP: dict[str, Schema] = {}
FILE = define(IN_REMAP, "File", record({"name": TEXT, "sha256": optional(TEXT)}))
REMAP = record(
    {
        "schema": {"enum": ["exporter/remap/1", "exporter/remap/2"]},  # 2 is inside of model files
        "original": FILE,
        "parent": optional(FILE),
        "precision": TEXT,
        "pixels": {
            "type": "object",
            "additionalProperties": optional(
                record({"mean": many(NUMBER), "std": many(NUMBER)}),
            ),
        },
        "heads": many(
            record(
                {
                    "name": TEXT,
                    "output": TEXT,
                    "axis": {"type": "integer"},
                    "part": optional({"type": "array", "prefixItems": [COUNT, COUNT]}),
                    "mode": TEXT,
                    "activation": TEXT,
                    "logits": optional(TEXT),
                    "old_units": COUNT,
                    "new_units": COUNT,
                    "kept": {"anyOf": [UNITS, TEXT]},
                    "new_to_old": {
                        "anyOf": [many({"anyOf": [COUNT, UNITS]}), TEXT, {"type": "null"}]
                    },
                    "labels": optional(many(TEXT)),
                    "options": ANY,
                },
                "logits",
            )
        ),
    },
    "precision",
    "pixels",
)
SELECTION = record(
    {
        "schema": {"const": "exporter/selection/1"},
        "ok": FLAG,
        "model": of_other("remap", "#/$defs/File"),
        "head": TEXT,
        "units": COUNT,
        "kept": UNITS,
        "data": record({"source": TEXT, "samples": COUNT}),
        "table": many(record({**of_fields(UnitRow, {}), "kept": FLAG, "reason": TEXT})),
        "confused": many(record({"label": COUNT, "predicted": COUNT, "samples": COUNT})),
        "moved": many(record({"removed": COUNT, "predicted": COUNT, "samples": COUNT})),
        "warnings": many(TEXT),
        "merge": many(UNITS),
    },
    *("ok", "merge"),  # of `exporter select --json` only
)
IN_REPORT: dict[str, Schema] = {}
REPORT = record(
    {
        "schema": {"const": "exporter/report/1"},
        "ok": FLAG,
        **of_fields(Report, IN_REPORT),
        "precisions": many(of_type(PrecisionRow, IN_REPORT)),
    }
)
IN_PLAN: dict[str, Schema] = {}
MEMORY = define(
    IN_PLAN,
    "Memory",
    record(
        {
            "method": TEXT,
            "bytes": COUNT,
            "weights_bytes": COUNT,
            "activation_bytes": COUNT,
            "is_complete": FLAG,
        }
    ),
)
COUNTS = {
    "bytes": optional(COUNT),
    "parameters": COUNT,
    "multiply_adds": optional(COUNT),
    "memory": MEMORY,
}
CUT_HEAD = {
    "head": TEXT,
    "units": COUNT,
    "kept": UNITS,
    "kept_labels": optional(many(TEXT)),
}
FORECAST = record(
    {
        **CUT_HEAD,
        "heads": many(record(CUT_HEAD)),
        "mode": TEXT,
        "verdict": many(TEXT),
        "edits": many(TEXT),
        "remap": of_other("remap"),
        "warnings": many(TEXT),
        "files": many(
            record(
                {
                    "kind": TEXT,
                    "precision": TEXT,
                    "exact": FLAG,
                    **COUNTS,
                    "original": record(COUNTS),
                    "latency": record(
                        {
                            "share": optional(NUMBER),
                            "kept": NUMBER,
                            "source": {"enum": ["counted", "measured"]},
                            "interval": optional(many(NUMBER)),
                            "head_bytes": COUNT,
                            "head_multiply_adds": optional(COUNT),
                            "speedup_bound": optional(NUMBER),
                            "strict": FLAG,
                        }
                    ),
                    "verdict": TEXT,
                }
            )
        ),
    }
)
PLAN = record(
    {
        "schema": {"const": "exporter/plan/1"},
        "ok": FLAG,
        "plans": {"type": "object", "additionalProperties": define(IN_PLAN, "Forecast", FORECAST)},
    }
)
PRUNE_KEYS = ("ok", "artifacts", "remap", "checks", "quality", "coverage", "worst", "warnings")
PRUNE = record(
    {
        "schema": {"const": "exporter/prune/1"},
        **{key: of_other("report", f"#/properties/{key}") for key in (*PRUNE_KEYS, "selection")},
    }
)
INSPECT = record(
    {
        "schema": {"const": "exporter/inspect/1"},
        "ok": FLAG,
        "model": record(
            {
                "name": TEXT,
                "kind": TEXT,
                "precision": TEXT,
                "bytes": optional(COUNT),
                "sha256": optional(TEXT),
            }
        ),
        "inputs": many(
            record({"name": TEXT, "shape": optional(many(optional(COUNT))), "dtype": TEXT})
        ),
        "heads": many(
            record(
                {
                    "name": TEXT,
                    "output": TEXT,
                    "axis": {"type": "integer"},
                    "units": COUNT,
                    "parts": many(UNITS),
                    "part_names": many(TEXT),
                    "activation": TEXT,
                    "dtype": TEXT,
                    "labels": optional(many(TEXT)),
                    "bytes": optional(COUNT),
                    "share_of_bytes": optional(NUMBER),
                    "multiply_adds": optional(COUNT),
                    "share_of_multiply_adds": optional(NUMBER),
                }
            )
        ),
        "refused": many(record(of_fields(Refusal, {}))),
        "forecast": optional(of_other("plan", "#/$defs/Forecast")),
        "channels": optional(many(record(of_fields(ChannelFacts, {})))),
        "listed": {"type": "object", "additionalProperties": many(COUNT)},
    },
    "listed",
)
REPORTS = record(
    {
        "schema": {"const": "exporter/reports/1"},
        "ok": FLAG,
        "variants": {"type": "object", "additionalProperties": of_other("report")},
    }
)
ERROR = record(
    {
        "schema": {"const": "exporter/error/1"},
        "ok": {"const": False},
        "exit": {"type": "integer"},
        "error": TEXT,
        "hint": TEXT,
    }
)
HISTORY = record(
    {
        "schema": {"const": "exporter/history/1"},
        "ok": FLAG,
        "series": many(
            record(
                {
                    "series": TEXT,
                    "timings": many(
                        record(
                            {
                                **of_fields(Timing, {}),
                                "earlier": COUNT,
                                "basis": TEXT,
                                "value": optional(NUMBER),
                                "low": optional(NUMBER),
                                "high": optional(NUMBER),
                                "trend": TEXT,
                            }
                        )
                    ),
                }
            )
        ),
    }
)
IN_BATCH: dict[str, Schema] = {}
BATCH_FILE = {
    **dict.fromkeys(("file", "kind", "precision", "result", "shown_by"), TEXT),
    "bytes": COUNT,
    "original_bytes": optional(COUNT),
    **dict.fromkeys(("top1", "p50_ms", "original_p50_ms", "speedup"), optional(NUMBER)),
    **dict.fromkeys(("memory_bytes", "original_memory_bytes"), optional(COUNT)),
}
BATCH_CELL = {
    **dict.fromkeys(("name", "model", "selection", "status"), TEXT),
    "exit": optional(COUNT),
    "error": TEXT,
    "hint": TEXT,
    "kept": optional(COUNT),
    "units": optional(COUNT),
    "mode": optional(TEXT),
    "files": many(define(IN_BATCH, "File", record(BATCH_FILE))),
    "failed": many(TEXT),
    "warnings": many(TEXT),
}
BATCH = record(
    {
        "schema": {"const": "exporter/batch/1"},
        "ok": FLAG,
        "counts": {"type": "object", "additionalProperties": COUNT},
        "cells": many(define(IN_BATCH, "Cell", record(BATCH_CELL))),
    }
)
BY_NAME: Schema = {"type": "object", "additionalProperties": TEXT}
PLANNED_CELL = {**BATCH_CELL, "files": {"type": "array", "maxItems": 0}}
BATCH_PLAN = record(
    {
        "schema": {"const": "exporter/batch-plan/1"},
        "ok": FLAG,
        "cells": many(
            record(
                {
                    **PLANNED_CELL,
                    "finished": FLAG,
                    "forecast": of_other("plan", "#/$defs/Forecast"),
                },
                "forecast",
            )
        ),
    }
)
CELL = record(
    {
        "schema": {"const": "exporter/cell/1"},
        "digest": TEXT,
        "files": BY_NAME,
        "versions": BY_NAME,
        "row": of_other("batch", "#/$defs/Cell"),
    }
)
SCHEMAS: Mapping[str, tuple[str, Schema]] = {
    "batch": (
        "The cells of a batch: index.json, and `exporter batch --json`",
        with_definitions(BATCH, IN_BATCH),
    ),
    "batch-plan": ("Forecasts of the cells of a plan: `exporter batch --dry-run`", BATCH_PLAN),
    "cell": ("What a cell of a batch was made from: cell.json", CELL),
    "selection": ("The units that `exporter select` chose, with the reason for each", SELECTION),
    "report": (
        "The results of a job: report.json, and --json of most commands",
        with_definitions(REPORT, IN_REPORT),
    ),
    "remap": (
        "Old and new indices of the units of an artifact",
        with_definitions(REMAP, IN_REMAP),
    ),
    "reports": ("The reports of a run with variants, by variant", REPORTS),
    "prune": ("The results of `exporter prune --json`", PRUNE),
    "inspect": ("The heads of a model: `exporter inspect --json`", INSPECT),
    "plan": ("Forecasts of --dry-run, by variant", with_definitions(PLAN, IN_PLAN)),
    "history": ("Saved timings and their changes: `exporter history --json`", HISTORY),
    "error": ("An error that ends a command with --json", ERROR),
}


def documents() -> dict[str, Schema]:
    """Name of the file -> its content."""
    return {
        f"{name}.json": {"$schema": DIALECT, "$id": f"exporter/{name}/1", "title": title, **schema}
        for name, (title, schema) in SCHEMAS.items()
    }


def text(document: Schema) -> str:
    return json.dumps(document, indent=1) + "\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, document in documents().items():
        (FOLDER / name).write_text(text(document), encoding="utf-8")


if __name__ == "__main__":
    main()
