"""Stands still in three threads, so that every look at it shows the same stacks: for layouts of output.

Says `ready PID` and ends when its stdin does. With the argument `tree` it starts itself once more.
"""

import os
import subprocess
import sys
import threading


def wait_here():
    sys.stdin.read()


class Köche:
    def wait_there(self):
        never.wait()


never = threading.Event()
for name in ("MainHelper", 'sem;colon "q" é'):
    threading.Thread(target=Köche().wait_there, name=name, daemon=True).start()
child = []
if sys.argv[1:] == ["tree"]:
    child.append(subprocess.Popen([sys.executable, __file__, "leaf"], stdin=0, stdout=subprocess.PIPE))
    child[0].stdout.readline()
print("ready", os.getpid(), *(process.pid for process in child), flush=True)
wait_here()
