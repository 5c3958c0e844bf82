"""Write a TFLite file as C source and header, for firmware without a file system.

The text is both C99 and C++11. The array is aligned to 16 bytes, which the interpreter for
microcontrollers needs. Equal files give equal text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from exporter.errors import ModelError
from exporter.remap import HeadRemap, Remap
from exporter.remap.head_remap import members

_BYTES_PER_LINE = 12
_NUMBERS_PER_LINE = 16


def sources(content: bytes, file_name: str, remap: Remap | None) -> Mapping[str, str]:
    """The texts of the two C files for one model.

    Args:
        content: the model file.
        file_name: its name, which gives the identifier: `small.tflite` is `small_tflite`.
        remap: its labels and original unit indices are written too.

    Returns:
        File name -> text: the header, then the source.

    Raises:
        ModelError: a label contains a NUL, which a C string cannot.
    """
    name = identifier(file_name)
    header, source = names(file_name)
    tables = list(_unit_tables(name, remap))
    return {
        header: _header(name, file_name, tables),
        source: _source(name, (file_name, header), content, tables),
    }


def names(file_name: str) -> tuple[str, str]:
    """The names of the header and of the source."""
    name = identifier(file_name)
    return f"{name}.h", f"{name}.c"


def identifier(file_name: str) -> str:
    """A C identifier: ASCII letters, digits and underscores, starting with a letter."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", file_name).strip("_")
    return plain if plain[:1].isalpha() else f"model_{plain}".rstrip("_")


# --- the tables of units -------------------------------------------------------------------------


class _UnitTable:
    """The C arrays that describe the units of one head.

    Attributes:
        name: the start of the names of its arrays.
        integers: name of an array -> its values. A merged unit has several original units, so that
            a second array says where those of each unit start.
    """

    def __init__(self, name: str, head: HeadRemap) -> None:
        self.name = name
        self.head = head
        originals = [members(unit) for unit in head.new_to_old]
        self.integers = {f"{name}_new_to_old": [unit for each in originals for unit in each]}
        self.is_merged = any(len(each) > 1 for each in originals)
        if self.is_merged:
            self.integers[f"{name}_new_to_old_start"] = [0, *accumulate(map(len, originals))]

    def declarations(self) -> Iterator[str]:
        units = self.head.new_units
        output = _comment(self.head.output)
        yield f"/* The units of the output {output}, in the order of the model. */"
        yield f"#define {self.name.upper()}_UNITS {units}"
        if self.head.labels is not None:
            yield f"extern const char *const {self.name}_labels[{units}]; /* UTF-8 */"
        if self.is_merged:
            yield "/* Unit i: originals new_to_old[start[i]] to new_to_old[start[i + 1] - 1]. */"
        for name, values in self.integers.items():
            yield f"extern const int32_t {name}[{len(values)}];"

    def definitions(self) -> Iterator[str]:
        if self.head.labels is not None:
            yield f"const char *const {self.name}_labels[{self.head.new_units}] = {{"
            yield from (f"  {_string(label)}," for label in self.head.labels)
            yield "};"
        for name, values in self.integers.items():
            yield f"const int32_t {name}[{len(values)}] = {{"
            for start in range(0, len(values), _NUMBERS_PER_LINE):
                row = values[start : start + _NUMBERS_PER_LINE]
                yield "  " + " ".join(f"{n}," for n in row)
            yield "};"


def _unit_tables(name: str, remap: Remap | None) -> Iterator[_UnitTable]:
    """One table for all heads with the same units; from the second on named after the output."""
    seen: list[HeadRemap] = []
    for head in remap.heads if remap else ():
        if any((s.new_to_old, s.labels) == (head.new_to_old, head.labels) for s in seen):
            continue
        yield _UnitTable(f"{name}_{identifier(head.output)}" if seen else name, head)
        seen.append(head)


# --- the files -----------------------------------------------------------------------------------

_HEADER = """\
/* The model {file}, written by exporter. */
#ifndef {guard}
#define {guard}

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

/* Starts at a multiple of 16 bytes. */
extern const unsigned char {name}[];
extern const size_t {name}_len;

{tables}#ifdef __cplusplus
}}
#endif

#endif /* {guard} */
"""

_SOURCE = """\
/* The model {file}, written by exporter. */
#include "{header}"

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

MODEL_ALIGNED const unsigned char {name}[] = {{
{bytes}}};
const size_t {name}_len = {size};
{tables}"""


def _header(name: str, file_name: str, tables: Iterable[_UnitTable]) -> str:
    texts = ("\n".join(table.declarations()) + "\n\n" for table in tables)
    guard = f"{name.upper()}_H"
    return _HEADER.format(file=_comment(file_name), guard=guard, name=name, tables="".join(texts))


def _source(name: str, files: tuple[str, str], content: bytes, tables: Iterable[_UnitTable]) -> str:
    """Args: files: the names of the model file and of the header."""
    starts = range(0, len(content), _BYTES_PER_LINE)
    rows = (content[start : start + _BYTES_PER_LINE].hex(" ") for start in starts)
    return _SOURCE.format(
        file=_comment(files[0]),
        header=files[1],
        name=name,
        bytes="".join(f"  0x{row.replace(' ', ', 0x')},\n" for row in rows),
        size=len(content),
        tables="".join("\n" + "\n".join(table.definitions()) + "\n" for table in tables),
    )


def _comment(text: str) -> str:
    """The text in ASCII and quotes, unable to end the comment."""
    return ascii(text).replace("*/", "*\\/").replace("/*", "/\\*").replace("??", "?\\?")


def _string(text: str) -> str:
    """A C string of the UTF-8 bytes; bytes that are not plain ASCII are three octal digits.

    With three digits, a digit that follows does not belong to them. "??" would start a trigraph.
    """
    data = text.encode()
    if 0 in data:
        raise ModelError(
            f"the label {text!r} contains a NUL, which ends a C string", "give --labels FILE"
        )
    shown = "".join(chr(n) if chr(n) in _PLAIN else f"\\{n:03o}" for n in data)
    return f'"{shown}"'


_PLAIN = frozenset(map(chr, range(0x20, 0x7F))) - frozenset('"\\?')
