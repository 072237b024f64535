"""Writes the line table of every code object of the standard library, with the positions that this
interpreter itself gives for each code unit, as one binary stream on stdout. Works on CPython 3.6 to 3.15.

    head:      b"LINES2\n", u8 minor version, u8 numbers per position (1: line; 4: line, end line, column,
               end column)
    code:      i32 first line, u32 table bytes, u32 code units, u32 runs, the table, the runs: i32 number of code
               units in a row with the same position, then this position (i32 each number, -1 for None)
    end:       u32 0xFFFFFFFF, u32 files compiled, u32 files that this version cannot compile, u32 files of which the
               code came from the interpreter's own cache

All numbers little-endian. No code has the first line -1, so the end cannot be taken for a code.

A file's code comes from `__pycache__` where the interpreter would take it from there, too: to compile all files takes
longer than everything else.
"""

import array
import dis
import importlib.util
import itertools
import marshal
import os
import struct
import sys
import sysconfig
import types
import warnings

UNIT = 2


class Runs:
    """The positions of a code object's units, as runs of equal ones."""

    def __init__(self):
        self.numbers = array.array("i")
        self.count = self.units = 0

    def add(self, units, position):
        if units:
            self.numbers.append(units)
            self.numbers.extend(-1 if number is None else number for number in position)
            self.count += 1
            self.units += units


def from_line_starts(code, units):
    starts = [(offset // UNIT, line) for offset, line in dis.findlinestarts(code)]
    if not starts or starts[0][0] != 0:
        starts.insert(0, (0, code.co_firstlineno))
    runs = Runs()
    for (start, line), (end, _) in zip(starts, starts[1:] + [(units, None)]):
        runs.add(end - start, (line,))
    if address_to_line is not None:
        compare_with_c(code, dict(starts), units)
    return runs


def compare_with_c(code, line_of, units):
    """Both answers change only where a pair of the table or a line starts: so they are compared there."""
    pair_starts = {offset // UNIT for offset in itertools.accumulate(code.co_lnotab[::2])}
    line = None
    for unit in sorted(pair_starts.union(line_of)):
        line = line_of.get(unit, line)
        if unit < units:
            assert address_to_line(code, unit * UNIT) == line, (code, unit)


def from_line_ranges(code, units):
    runs = Runs()
    for start, end, line in code.co_lines():
        runs.add(start // UNIT - runs.units, (None,))
        runs.add(end // UNIT - runs.units, (line,))
    runs.add(units - runs.units, (None,))
    return runs


def from_positions(code, _units):
    runs = Runs()
    # Millions of runs: so without a call for each.
    extend = runs.numbers.extend
    for position, equal_ones in itertools.groupby(code.co_positions()):
        units = len(list(equal_ones))
        extend((units,))
        extend([-1 if number is None else number for number in position] if None in position else position)
        runs.count += 1
        runs.units += units
    return runs


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
    table_of, runs_of, numbers = (lambda code: code.co_linetable), from_positions, 4
elif sys.version_info >= (3, 10):
    table_of, runs_of, numbers = (lambda code: code.co_linetable), from_line_ranges, 1
else:
    table_of, runs_of, numbers = (lambda code: code.co_lnotab), from_line_starts, 1


def write_code(code, out):
    pending = [code]
    while pending:
        code = pending.pop()
        pending.extend(constant for constant in code.co_consts if isinstance(constant, types.CodeType))
        table = table_of(code)
        units = len(code.co_code) // UNIT
        runs = runs_of(code, units)
        assert runs.units == units, code
        if sys.byteorder != "little":
            runs.numbers.byteswap()
        out.write(struct.pack("<iIII", code.co_firstlineno, len(table), units, runs.count))
        out.write(table)
        out.write(runs.numbers.tobytes())


def standard_library():
    for folder, folders, files in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = sorted(name for name in folders if name not in ("site-packages", "dist-packages"))
        for name in sorted(files):
            if name.endswith(".py"):
                yield os.path.join(folder, name)


# Of a cached file: the magic number, flags (from 3.7 on), the time and the size of the source.
CACHE_HEAD = struct.Struct("<4sIII" if sys.version_info >= (3, 7) else "<4sII")


def cached_code(path):
    """The code that an import of the file would take from the cache; `None` where it would compile the file."""
    source = os.stat(path)
    try:
        with open(importlib.util.cache_from_source(path), "rb") as file:
            magic, *flags, time, size = CACHE_HEAD.unpack(file.read(CACHE_HEAD.size))
            is_of_source = (time, size) == (int(source.st_mtime) & 0xFFFFFFFF, source.st_size & 0xFFFFFFFF)
            if magic == importlib.util.MAGIC_NUMBER and not any(flags) and is_of_source:
                return marshal.loads(file.read())
    except (OSError, struct.error):
        pass
    return None


def extremes():
    """What the standard library does not have enough of: distances that need the longest encodings."""
    yield "far apart", b"a = 1\n" + b"\n" * 100000 + b"def f():\n" + b"\n" * 70000 + b"    return 1\n"
    yield "wide", b"x = " + b" + ".join(b"name_%d" % n for n in range(3000)) + b"\n"
    yield "tall call", b"f(\n" + b"".join(b"  g(%d),\n" % n for n in range(3000)) + b")\n"
    yield "wide and tall", b"f(" + b" " * 5000 + b"(a +\n" + b"\n" * 300 + b" " * 9000 + b"b), c)\n"
    yield "backwards", b"for x in (\n" + b"\n" * 400 + b"  y):\n  if x:\n    continue\n  z(\n" + b"\n" * 400 + b"x)\n"
    yield "long", b"".join(b"if a%d: b(\n  c, d[%d])\n" % (n, n) for n in range(4000))


class Writer:
    """Writes the code of files and counts them."""

    def __init__(self, out):
        self.out = out
        self.compiled = self.refused = self.cached = 0

    def write_source(self, path, source):
        try:
            code = compile(source, path, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            self.refused += 1
            return
        self.compiled += 1
        write_code(code, self.out)

    def write_file(self, path):
        code = cached_code(path)
        if code is None:
            with open(path, "rb") as file:
                self.write_source(path, file.read())
        else:
            self.cached += 1
            write_code(code, self.out)


def main():
    warnings.simplefilter("ignore")
    out = sys.stdout.buffer
    out.write(b"LINES2\n" + struct.pack("<BB", sys.version_info[1], numbers))
    writer = Writer(out)
    for path, source in extremes():
        writer.write_source(path, source)
    for path in standard_library():
        writer.write_file(path)
    out.write(struct.pack("<IIII", 0xFFFFFFFF, writer.compiled, writer.refused, writer.cached))


main()
