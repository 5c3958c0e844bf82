"""A TFLite file as C source and header, for firmware that has no file system.

What is written is C99 and C++11 alike. The array starts at a multiple of 16 bytes, which is what
the interpreter for microcontrollers asks of a model. Equal files give equal text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from exporter.errors import ModelError
from exporter.remap import HeadRemap, Remap
from exporter.remap.head_remap import members

_BYTES_A_LINE = 12
_NUMBERS_A_LINE = 16


def sources(content: bytes, file_name: str, remap: Remap | None) -> Mapping[str, str]:
    """The texts of the two files that stand for one model.

    Args:
        content: the model file.
        file_name: its name, of which the identifier is made: `small.tflite` is `small_tflite`.
        remap: its table, whose labels and original indices are written too.

    Returns:
        Name of a file, which is made of the identifier -> its text: the header, then the source.

    Raises:
        ModelError: a label holds a NUL, which no C string can.
    """
    name = identifier(file_name)
    tables = list(_tables(name, remap))
    header, source = names(file_name)
    return {
        header: _header(name, file_name, tables),
        source: _source(name, (file_name, header), content, tables),
    }


def names(file_name: str) -> tuple[str, str]:
    """Of the header and the source."""
    name = identifier(file_name)
    return f"{name}.h", f"{name}.c"


def identifier(file_name: str) -> str:
    """A name for C: ASCII letters, digits and underscores, no digit or underscore in front."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", file_name).strip("_")
    return plain if plain[:1].isalpha() else f"model_{plain}".rstrip("_")


# --- the tables of units -------------------------------------------------------------------------


class _Table:
    """What is said of the units of one head.

    Attributes:
        name: what its arrays begin with.
    """

    def __init__(self, name: str, head: HeadRemap) -> None:
        self.name = name
        self.output = head.output
        self.units = head.new_units
        self.labels = head.labels
        self.members = [members(place) for place in head.new_to_old]

    @property
    def merged(self) -> bool:
        return any(len(each) > 1 for each in self.members)


def _tables(name: str, remap: Remap | None) -> Iterator[_Table]:
    """One for all heads that show the same units; a second one is called after its output."""
    seen: list[HeadRemap] = []
    for head in remap.heads if remap else ():
        if any((s.new_to_old, s.labels) == (head.new_to_old, head.labels) for s in seen):
            continue
        yield _Table(f"{name}_{identifier(head.output)}" if seen else name, head)
        seen.append(head)


def _declared(table: _Table) -> Iterator[str]:
    yield f"/* The units of the output {_comment(table.output)}, in the order of the model. */"
    yield f"#define {table.name.upper()}_UNITS {table.units}"
    if table.labels is not None:
        yield f"extern const char *const {table.name}_labels[{table.units}]; /* UTF-8 */"
    if not table.merged:
        yield f"extern const int32_t {table.name}_new_to_old[{table.units}];"
        return
    yield "/* Unit i stands for new_to_old[start[i]] to new_to_old[start[i + 1] - 1]. */"
    total = sum(map(len, table.members))
    yield f"extern const int32_t {table.name}_new_to_old[{total}];"
    yield f"extern const int32_t {table.name}_new_to_old_start[{table.units + 1}];"


def _defined(table: _Table) -> Iterator[str]:
    if table.labels is not None:
        yield f"const char *const {table.name}_labels[{table.units}] = {{"
        yield from (f"  {_string(label)}," for label in table.labels)
        yield "};"
    flat = [unit for each in table.members for unit in each]
    yield from _numbers(f"{table.name}_new_to_old", flat)
    if table.merged:
        starts = [0]
        for each in table.members:
            starts.append(starts[-1] + len(each))
        yield from _numbers(f"{table.name}_new_to_old_start", starts)


def _numbers(name: str, values: list[int]) -> Iterator[str]:
    yield f"const int32_t {name}[{len(values)}] = {{"
    for start in range(0, len(values), _NUMBERS_A_LINE):
        yield "  " + " ".join(f"{n}," for n in values[start : start + _NUMBERS_A_LINE])
    yield "};"


# --- the files -----------------------------------------------------------------------------------


def _header(name: str, file_name: str, tables: list[_Table]) -> str:
    guard = f"{name.upper()}_H"
    lines = [
        f"/* The model {_comment(file_name)}, written by exporter. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        "/* Starts at a multiple of 16 bytes. */",
        f"extern const unsigned char {name}[];",
        f"extern const size_t {name}_len;",
        "",
    ]
    for table in tables:
        lines += [*_declared(table), ""]
    lines += ["#ifdef __cplusplus", "}", "#endif", "", f"#endif /* {guard} */"]
    return "\n".join(lines) + "\n"


_ALIGNED = """\
#if defined(__cplusplus)
#define MODEL_ALIGNED alignas(16)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define MODEL_ALIGNED _Alignas(16)
#elif defined(__GNUC__) || defined(__clang__)
#define MODEL_ALIGNED __attribute__((aligned(16)))
#elif defined(_MSC_VER)
#define MODEL_ALIGNED __declspec(align(16))
#else
#error "say here how this compiler aligns an array to 16 bytes"
#endif
"""


def _source(name: str, files: tuple[str, str], content: bytes, tables: list[_Table]) -> str:
    file_name, header = files
    lines = [
        f"/* The model {_comment(file_name)}, written by exporter. */",
        f'#include "{header}"',
        "",
        _ALIGNED,
        f"MODEL_ALIGNED const unsigned char {name}[] = {{",
    ]
    for start in range(0, len(content), _BYTES_A_LINE):
        row = content[start : start + _BYTES_A_LINE].hex(" ").replace(" ", ", 0x")
        lines.append(f"  0x{row},")
    lines += ["};", f"const size_t {name}_len = {len(content)};"]
    for table in tables:
        lines += ["", *_defined(table)]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    """In ASCII and quotes, and unable to end the comment."""
    return ascii(text).replace("*/", "*\\/").replace("/*", "/\\*").replace("??", "?\\?")


def _string(text: str) -> str:
    """A C string of the UTF-8 bytes: what is not plain ASCII is three octal digits.

    Three, so that a digit behind them does not join them; and no "??", which begins a trigraph.
    """
    data = text.encode()
    if 0 in data:
        raise ModelError(
            f"the label {text!r} holds a NUL, which a C string ends with", "give --labels FILE"
        )
    shown = "".join(chr(n) if chr(n) in _PLAIN else f"\\{n:03o}" for n in data)
    return f'"{shown}"'


_PLAIN = frozenset(chr(n) for n in range(0x20, 0x7F)) - frozenset('"\\?')
