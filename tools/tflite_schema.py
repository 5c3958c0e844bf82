"""Write exporter/formats/tflite/schema_tables.py from the schema that ai-edge-litert contains."""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

TARGET = Path(__file__).parent.parent / "exporter/formats/tflite/schema_tables.py"
START = '''"""The tables, unions and enumerations of the TFLite schema, by tools/tflite_schema.py.

A table is a line: its name and its fields in the order of their slots. A type is a format of
`struct`, `s` (a string), the name of a table, or `<` with the name of a union; brackets make it a
vector. A field that has no name here (`-`) is not used any more. A union or enumeration is the
names of its values from 0 on.
"""

# ruff: noqa: E501

from __future__ import annotations

'''
FORMATS = {
    "Bool": "?",
    "Int8": "b",
    "Uint8": "B",
    "Int16": "h",
    "Uint16": "H",
    "Int32": "i",
    "Uint32": "I",
    "Int64": "q",
    "Uint64": "Q",
    "Float32": "f",
    "Float64": "d",
}
ENUMERATIONS = (
    *("BuiltinOperator", "TensorType", "BuiltinOptions", "BuiltinOptions2"),
    *("QuantizationDetails", "SparseIndexVector"),
)


def fields_of(name: str) -> str:
    """The fields of a table."""
    reader, found = getattr(schema, name), dict[int, str]()
    objects = inspect.getsource(getattr(schema, f"{name}T")._UnPack)  # noqa: SLF001
    for attribute in vars(getattr(schema, f"{name}T")()):
        method = attribute[0].upper() + attribute[1:]
        source = inspect.getsource(getattr(reader, method))
        match = re.search(r"Offset\((\d+)\)", source)
        assert match, source  # noqa: S101 - another generator wrote the library
        found[(int(match[1]) - 4) // 2] = f"{attribute}:{type_of(source, attribute, objects)}"
    return " ".join(found.get(slot, "-") for slot in range(max(found, default=-1) + 1))


def type_of(source: str, attribute: str, objects: str) -> str:
    """The type of a field and its default, from its reader."""
    number = re.search(r"number_types\.(\w+)Flags, (o \+ self|a \+)", source)
    table = re.search(r"obj = (\w+)\(\)", source)
    if ".String(" in source:
        return "s"
    if "_tab.Union(" in source:
        creator = re.search(rf"self\.{attribute} = (\w+)Creator", objects)
        assert creator, attribute  # noqa: S101
        return f"<{creator[1]}"
    if table:
        return f"[{table[1]}]" if "_tab.Vector(" in source else table[1]
    assert number, source  # noqa: S101
    if number[2] == "a +":
        return f"[{FORMATS[number[1]]}]"
    default = source.strip().rpartition("return ")[2]
    return FORMATS[number[1]] + ("" if float(eval(default)) == 0 else f"={default}")  # noqa: S307


def values_of(enumeration: Any) -> str:
    """The names of an enumeration, in the order of their values."""
    values = {v: n for n, v in vars(enumeration).items() if isinstance(v, int)}
    assert sorted(values) == list(range(len(values)))  # noqa: S101
    return " ".join(values[value] for value in sorted(values))


def text() -> str:
    """The module."""
    names = [name for name in vars(schema) if hasattr(schema, f"{name}T")]
    tables = {name: fields_of(name) for name in names}
    parts = [START, 'TABLES = """\\\n']
    parts += [f"{name} {fields}\n" for name, fields in tables.items() if fields]
    parts.append('"""\nEMPTY_TABLES = """\n')
    empty = " ".join(name for name, fields in tables.items() if not fields)
    parts += [textwrap.fill(empty, 100, break_on_hyphens=False), '\n"""\nENUMERATIONS = {\n']
    for name in ENUMERATIONS:
        wrapped = textwrap.fill(values_of(getattr(schema, name)), 100)
        parts.append(f'    "{name}": """\n{wrapped}\n""",\n')
    return "".join((*parts, "}\n"))


if __name__ == "__main__":
    TARGET.write_text(text())
    print(f"wrote {TARGET.name}")
