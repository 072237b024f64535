"""A process that stands still in stacks of every kind, and says what they are. Python 3.6 to 3.15.

Everything is called a few hundred times before it stops, so that the interpreter runs its specialised
instructions. `ready` says that all threads have started; the line `describe` on stdin is answered with the
stacks and names of all threads, as the interpreter itself has them; after the line `hold` one thread holds
the GIL for ever. Functions called `from_c_...` are called by C code, `plain_...` by Python code.
"""

import ctypes
import json
import sys
import threading

try:
    import _interpreters as subinterpreters
except ImportError:
    try:
        import _xxsubinterpreters as subinterpreters
    except ImportError:
        subinterpreters = None

DEPTH = 60
WARM_UP = 300

started = threading.Semaphore(0)
for_ever = threading.Lock()
for_ever.acquire()
stopping = False


def plain_stop():
    if stopping:
        started.release()
        for_ever.acquire()
    return 0


class Outer:
    class Inner:
        def __init__(self):
            self.plain_method()

        def plain_method(self):
            return self.property

        @property
        def property(self):
            return plain_stop()


def from_c_key(item):
    Outer.Inner()
    return item


def generator():
    yield sorted([1], key=from_c_key)


def from_c_map(item):
    return [value for value in generator()]


def plain_recursion(depth):
    return plain_recursion(depth - 1) if depth else list(
        map(
            from_c_map,
            (1,)))


def plain_spread(value, *, expression):
    return (value
            + expression()
            + value)


def thread_worker():
    return plain_spread(1, expression=lambda: plain_stop())


def thread_closure():
    local = 1

    def plain_inner():
        return local + plain_stop()

    return plain_inner()


def thread_elsewhere():
    interpreter = subinterpreters.create()
    subinterpreters.run_string(interpreter, '''
import _thread
lock = _thread.allocate_lock()
lock.acquire()
class Elsewhere:
    def plain_wait(self):
        lock.acquire()
Elsewhere().plain_wait()
''')


def named(name, path):
    """A function with this name in a file with this path."""
    source = "def {0}():\n    return plain_stop()\n".format(name)
    scope = {"plain_stop": plain_stop}
    exec(compile(source, path, "exec"), scope)
    return scope[name]


def start(function, name):
    threading.Thread(target=function, name=name, daemon=True).start()


def frames_of(frame):
    while frame is not None:
        code = frame.f_code
        position = [frame.f_lineno, None, None, None]
        if hasattr(code, "co_positions"):
            position = list(list(code.co_positions())[frame.f_lasti // 2])
        yield [getattr(code, "co_qualname", code.co_name), code.co_filename, code.co_firstlineno, position]
        frame = frame.f_back


def describe():
    own = threading.get_ident()
    stacks = {ident: list(frames_of(frame)) for ident, frame in sys._current_frames().items() if ident != own}
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    version = ".".join(map(str, sys.version_info[:3]))
    return json.dumps({"prefix": sys.base_prefix, "version": version, "stacks": stacks, "names": names,
                       "describer": own, "interpreters": 2 if subinterpreters else 1})


def thread_describer():
    for _ in range(threads):
        started.acquire()
    print("ready", flush=True)
    sys.stdin.readline()
    print(describe(), flush=True)
    if subinterpreters:
        start(thread_elsewhere, "in another interpreter")
    sys.stdin.readline()
    print("holding", flush=True)
    # Unlike any other way to wait, this keeps the GIL.
    ctypes.PyDLL(None).pause()


names = [("gr\xfc\xdfe", "/caf\xe9/gr\xfcn.py"), ("\u0444\u0443\u043d\u043a", "/\u0434\u0438\u0440/\u6a21.py"),
         ("\U00020000\U00020001", "/\U0001f40d/\U00020000.py")]
for _ in range(WARM_UP):
    plain_recursion(3)
    thread_worker()
    thread_closure()
stopping = True
threads = 3 + len(names)
start(thread_describer, "describer")
start(thread_worker, "worker 1")
start(thread_closure, "a closure\u2026")
for name, path in names:
    start(named(name, path), name)
plain_recursion(DEPTH)
