"""Stores stacks of a program at instants some instructions apart, for gdb:

    gdb -nx -batch -ex 'py program, out = "program", "captures"' -x capture.py

A line has the program counter, the sixteen registers by DWARF number, the bytes of the stack from the stack pointer on, and
the program counters of the frames as gdb finds them, the innermost first.
"""

import random

NAMES = "rax rdx rcx rbx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15".split()
MAX_STACK = 8192


def value(name):
    return int(gdb.parse_and_eval("(unsigned long)$" + name))


def frames():
    found, frame = [], gdb.newest_frame()
    while frame is not None:
        if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
            found.append(frame.pc())
        frame = frame.older()
    return found


gdb.execute("file " + program)
gdb.execute("handle SIGUSR1 nostop noprint pass")
gdb.execute("set confirm off")
gdb.execute("starti")
top = value("rsp")
chosen = random.Random(7)
gdb.execute("break handler")
with open(out, "w") as file:
    for number in range(40):
        if number % 8 == 6:
            # Into a signal handler, which steps pass by.
            gdb.execute("continue", to_string=True)
        gdb.execute("stepi %d" % chosen.randrange(1, 300), to_string=True)
        if not gdb.selected_inferior().pid:
            break
        stack = gdb.selected_inferior().read_memory(value("rsp"), min(top - value("rsp"), MAX_STACK))
        words = [value("rip")] + [value(name) for name in NAMES]
        print(" ".join("%x" % word for word in words), bytes(stack).hex() or "-",
              " ".join("%x" % pc for pc in frames()), sep="|", file=file)
gdb.execute("kill")
