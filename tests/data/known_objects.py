"""Reports where some of its own objects are and what they hold, for tests that read them from outside. Works on
CPython 3.6 to 3.15.

The first line of output is `ready PID`. Each line on stdin is answered with the objects, as JSON: an empty one
with what programs are like, a number with what they may be like, with as many more modules.
"""

import ctypes
import json
import os
import sys
import threading
import types


class Text(str):
    """A string whose characters lie elsewhere."""


def address(library_name):
    return ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, library_name))


def interpreter():
    head = ctypes.pythonapi.PyInterpreterState_Head
    head.restype = ctypes.c_void_p
    return head()


class Outer:
    def method(self):
        return lambda: None


namespace = {}
exec("def gr\u00f6\u00dfe_\u0444\u0443\u043d\u043a\u0446\u0438\u044f(): pass", namespace)
exec(compile("\n" * 70000 + "def far():\n    pass", "/tmp/\u65e5\u672c/\U0001f40d.py", "exec"), namespace)
codes = [
    interpreter.__code__,
    Outer.method.__code__,
    [constant for constant in Outer.method.__code__.co_consts if isinstance(constant, types.CodeType)][0],
    namespace["gr\u00f6\u00dfe_\u0444\u0443\u043d\u043a\u0446\u0438\u044f"].__code__,
    namespace["far"].__code__,
]
strings = ["", "a", "plain", "na\u00efve", "\u0142\u00f3d\u017a", "\U0001f40d snake", "x" * 4096, "\u0142" * 4096]
strings += [Text(), Text("plain"), Text("na\u00efve"), Text("\u0142\u00f3d\u017a"), Text("\U0001f40d")]
strings = [(string, string) for string in strings]
strings += [("x" * 4097, "x" * 4096 + "\u2026"), ("\U0001f40d" * 9999, "\U0001f40d" * 4096 + "\u2026")]
strings += [("a\ud800b", "a\\ud800b"), ("\U0001f40d\udc80", "\U0001f40d\\udc80")]

leave = threading.Event()


def start(thread):
    thread.daemon = True
    thread.start()
    return thread


class Wide(threading.Thread):
    """More attributes than instances of a class share keys for, most of them before the name."""

    def __init__(self, name):
        for number in range(40):
            setattr(self, "attribute_%d" % number, number)
        super().__init__(target=leave.wait, name=name)


def usual_threads():
    start(threading.Thread(target=leave.wait))
    for name in ("worker", "na\u00efve", "\u0142\u00f3d\u017a", "\U0001f40d", ""):
        start(threading.Thread(target=leave.wait, name=name))
    for number in range(100):
        start(threading.Thread(target=leave.wait, name="pool-%d" % number))


def unusual_threads(modules):
    for number in range(3):
        start(Wide("wide-%d" % number))
    start(threading.Thread(target=leave.wait, name="asked")).__dict__
    changed = start(threading.Thread(target=leave.wait, name="before"))
    changed.name = "after"
    changed._name = Text("b\u00e4r")
    replaced = start(threading.Thread(target=leave.wait, name="old"))
    replaced.__dict__ = dict(replaced.__dict__, _name="new", **{"n%d" % number: 1 for number in range(300)})
    emptied = start(threading.Thread(target=leave.wait, name="emptied"))
    for number in range(20):
        setattr(emptied, "more_%d" % number, 1)
        delattr(emptied, "more_%d" % number)
    known = threading.Event()
    import _thread

    def foreign():
        threading.current_thread().name = "foreign"
        known.set()
        leave.wait()

    _thread.start_new_thread(foreign, ())
    known.wait()
    # Tables with deleted entries, with wider index slots if they are large enough, and with keys that are no strings.
    for number in range(modules):
        sys.modules["module_%d" % number] = sys
    for number in range(0, modules, 3):
        del sys.modules["module_%d" % number]
    vars(threading)[1] = 2
    vars(threading)["\u0142"] = 2


def say():
    described = {
        "hex_version": sys.hexversion,
        "interpreter": interpreter(),
        "runtime": address("_PyRuntime") if sys.version_info >= (3, 7) else 0,
        "code_type": id(types.CodeType),
        "strings": [[id(string), text] for string, text in strings],
        "codes": [
            [id(code), code.co_name, getattr(code, "co_qualname", None), code.co_filename, code.co_firstlineno]
            for code in codes
        ],
        "threads": {thread.ident: thread._name for thread in threading.enumerate()},
    }
    print(json.dumps(described), flush=True)


usual_threads()
print("ready", os.getpid(), flush=True)
for line in sys.stdin:
    if line.strip():
        unusual_threads(int(line))
    say()
