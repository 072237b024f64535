"""Writes the line table of every code object of the standard library, with the positions that this
interpreter itself gives for each code unit, as one binary stream on stdout. Works on CPython 3.6 to 3.15.

    head:      b"LINES1\n", u8 minor version, u8 numbers per position (1: line; 4: line, end line, column,
               end column)
    code:      i32 first line, u32 table bytes, u32 code units, the table, the positions (i32 each number,
               -1 for None)
    end:       u32 0xFFFFFFFF, u32 files compiled, u32 files that this version cannot compile

All numbers little-endian. No code has the first line -1, so the end cannot be taken for a code.
"""

import array
import dis
import os
import struct
import sys
import sysconfig
import types
import warnings

UNIT = 2


def lines_by_unit(line_starts, units):
    """One line per code unit, from (first unit, line) pairs in ascending order."""
    lines = array.array("i")
    for index, (start, line) in enumerate(line_starts):
        end = line_starts[index + 1][0] if index + 1 < len(line_starts) else units
        lines.extend(array.array("i", [line]) * (end - start))
    return lines


def from_line_starts(code, units):
    starts = [(offset // UNIT, line) for offset, line in dis.findlinestarts(code)]
    if not starts or starts[0][0] != 0:
        starts.insert(0, (0, code.co_firstlineno))
    lines = lines_by_unit(starts, units)
    if address_to_line is not None:
        for unit in range(units):
            assert address_to_line(code, unit * UNIT) == lines[unit], (code, unit)
    return lines


def from_line_ranges(code, units):
    lines = array.array("i", [-1]) * units
    for start, end, line in code.co_lines():
        for unit in range(start // UNIT, end // UNIT):
            lines[unit] = -1 if line is None else line
    return lines


def from_positions(code, units):
    return array.array("i", [-1 if n is None else n for position in code.co_positions() for n in position])


def address_to_line_of_c():
    """The interpreter's own C function, where ctypes is there: `dis` is but a copy of it in Python."""
    try:
        import ctypes
    except ImportError:
        return None
    function = ctypes.pythonapi.PyCode_Addr2Line
    function.argtypes = [ctypes.py_object, ctypes.c_int]
    function.restype = ctypes.c_int
    return function


address_to_line = address_to_line_of_c()

if sys.version_info >= (3, 11):
    table_of, positions_of, numbers = (lambda code: code.co_linetable), from_positions, 4
elif sys.version_info >= (3, 10):
    table_of, positions_of, numbers = (lambda code: code.co_linetable), from_line_ranges, 1
else:
    table_of, positions_of, numbers = (lambda code: code.co_lnotab), from_line_starts, 1


def write_code(code, out):
    pending = [code]
    while pending:
        code = pending.pop()
        pending.extend(constant for constant in code.co_consts if isinstance(constant, types.CodeType))
        table = table_of(code)
        units = len(code.co_code) // UNIT
        positions = positions_of(code, units)
        assert len(positions) == units * numbers, code
        if sys.byteorder != "little":
            positions.byteswap()
        out.write(struct.pack("<iII", code.co_firstlineno, len(table), units))
        out.write(table)
        out.write(positions.tobytes())


def standard_library():
    for folder, folders, files in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = sorted(name for name in folders if name not in ("site-packages", "dist-packages"))
        for name in sorted(files):
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                with open(path, "rb") as source:
                    yield path, source.read()


def extremes():
    """What the standard library does not have enough of: distances that need the longest encodings."""
    yield "far apart", b"a = 1\n" + b"\n" * 100000 + b"def f():\n" + b"\n" * 70000 + b"    return 1\n"
    yield "wide", b"x = " + b" + ".join(b"name_%d" % n for n in range(3000)) + b"\n"
    yield "tall call", b"f(\n" + b"".join(b"  g(%d),\n" % n for n in range(3000)) + b")\n"
    yield "wide and tall", b"f(" + b" " * 5000 + b"(a +\n" + b"\n" * 300 + b" " * 9000 + b"b), c)\n"
    yield "backwards", b"for x in (\n" + b"\n" * 400 + b"  y):\n  if x:\n    continue\n  z(\n" + b"\n" * 400 + b"x)\n"
    yield "long", b"".join(b"if a%d: b(\n  c, d[%d])\n" % (n, n) for n in range(4000))


def main():
    warnings.simplefilter("ignore")
    out = sys.stdout.buffer
    out.write(b"LINES1\n" + struct.pack("<BB", sys.version_info[1], numbers))
    compiled = refused = 0
    for sources in (extremes(), standard_library()):
        for path, source in sources:
            try:
                code = compile(source, path, "exec", dont_inherit=True)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                refused += 1
                continue
            compiled += 1
            write_code(code, out)
    out.write(struct.pack("<III", 0xFFFFFFFF, compiled, refused))


main()
