"""Runs inside the virtual machine of `cargo xtask kernels`: has the profiler record under every circumstance that this
kernel knows, and prints one line of JSON for each: what was said, what was written, which programs stayed loaded.

Judges nothing: whoever started the machine does. The last line is that of the check `end`, which says what went wrong
with all of this, if anything did.
"""

import contextlib
import ctypes
import json
import os
import platform
import subprocess
import time
import traceback

PROFILER = "/bin/profiler"
LABYRINTH = "/fixtures/labyrinth/labyrinth.py"
WAITING = "/fixtures/waiting/waiting.py"
NOBODY = 65534
# An emulated machine needs a second for what takes a real one 20 ms.
PATIENCE_SECONDS = 60
SECONDS = 2
# Longer than anything that happens to it meanwhile.
LONG_SECONDS = 5
ENDLESS_SECONDS = 600
OUT = "/tmp/out.txt"

BPF_SYSCALL = 321
BPF_PROG_GET_NEXT_ID = 11

IN_PID_NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc"]
NOT_BY_ROOT = ["setpriv", "--reuid=%d" % NOBODY, "--regid=%d" % NOBODY, "--clear-groups"]


def as_nobody_with(*capabilities):
    """Words that run a command as an ordinary user with these capabilities."""
    given = ",".join("+" + name for name in capabilities)
    return NOT_BY_ROOT + ["--inh-caps=" + given, "--ambient-caps=" + given]


def loaded_programs():
    """The numbers of all programs in the kernel."""
    libc = ctypes.CDLL(None, use_errno=True)
    found, ask = set(), (ctypes.c_uint32 * 4)()
    while libc.syscall(BPF_SYSCALL, BPF_PROG_GET_NEXT_ID, ask, ctypes.sizeof(ask)) == 0:
        found.add(ask[1])
        ask[0] = ask[1]
    return found


def programs_that_stay(before):
    """Those loaded since, once the kernel has had the time to put away what nobody holds."""
    limit = time.monotonic() + PATIENCE_SECONDS / 4
    while time.monotonic() < limit:
        left = loaded_programs() - before
        if not left:
            return []
        time.sleep(0.1)
    return sorted(left)


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


@contextlib.contextmanager
def setting(path, value):
    """A file of the kernel that says something else for a while."""
    with open(path) as file:
        before = file.read().strip()
    write(path, value)
    try:
        yield
    finally:
        write(path, before)


@contextlib.contextmanager
def without_types():
    """The kernel does not describe its types."""
    subprocess.run(["mount", "--bind", "/dev/null", "/sys/kernel/btf/vmlinux"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "/sys/kernel/btf/vmlinux"], check=True)


class Target:
    """A fixture that runs; `started_by` are words before its command."""

    def __init__(self, script, started_by=()):
        command = [*started_by, "/usr/bin/python3", script]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.stdout.readline().split()[1]

    def its_namespaces(self):
        """Words that run a command in the PID namespace of one that was started by IN_PID_NAMESPACE."""
        with open("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)) as file:
            child = file.read().strip()
        return ["nsenter", "--target", child, "--pid", "--mount"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(PATIENCE_SECONDS)


def recording(target, words, user=(), memlock=None, seconds=SECONDS):
    """The command that records a target."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(OUT)
    limit = [] if memlock is None else ["prlimit", "--memlock=%s:%s" % (memlock, memlock)]
    command = limit + [*user, PROFILER, "record", *words, "-f", "raw", "-o", OUT]
    command += ["-d", str(seconds), "--pid", target.pid]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def report(check, **facts):
    print(json.dumps({"check": check, **facts}), flush=True)


def told(running):
    """What a recording came to."""
    try:
        said = running.communicate(timeout=PATIENCE_SECONDS)[1]
    except subprocess.TimeoutExpired:
        running.kill()
        said = "HANGS: " + running.communicate()[1]
    raw = ""
    with contextlib.suppress(FileNotFoundError), open(OUT) as file:
        raw = file.read()
    return {"exit": running.returncode, "said": said, "raw": raw}


def record(check, target, words, **circumstances):
    """Records and reports."""
    before = loaded_programs()
    facts = told(recording(target, words.split(), **circumstances))
    report(check, **facts, left=programs_that_stay(before))


def until_sampling(running, words):
    """Reads on until the recording says that it samples, and how if it may choose."""
    said, last = "", "Sampling" if "--sampler" in words else "sampler:"
    for line in running.stderr:
        said += line
        if line.startswith(last):
            break
    return said


def record_while(check, target, words, happening):
    """Records while something happens to the machine."""
    before = loaded_programs()
    running = recording(target, words.split(), seconds=LONG_SECONDS)
    said = until_sampling(running, words)
    happening()
    facts = told(running)
    facts["said"] = said + facts["said"]
    report(check, **facts, left=programs_that_stay(before))


def kill(check, target, words):
    """Kills the profiler in the midst of a recording."""
    before = loaded_programs()
    running = recording(target, words.split(), seconds=ENDLESS_SECONDS)
    said = until_sampling(running, words)
    limit = time.monotonic() + PATIENCE_SECONDS
    held = loaded_programs() - before
    while not held and "sampler: pause" not in said and time.monotonic() < limit and running.poll() is None:
        held = loaded_programs() - before
    running.kill()
    facts = told(running)
    report(check, exit=facts["exit"], said=said + facts["said"], held=len(held), left=programs_that_stay(before))


def doctor(check, user=()):
    run = subprocess.run([*user, PROFILER, "doctor"], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    report(check, exit=run.returncode, said=run.stdout + run.stderr)


def a_cpu_goes_and_comes_back():
    online = "/sys/devices/system/cpu/cpu1/online"
    write(online, "0")
    time.sleep(0.5)
    write(online, "1")


def everything():
    with Target(LABYRINTH) as labyrinth, Target(WAITING) as waiting:
        doctor("doctor")
        record("bpf", labyrinth, "--sampler bpf -r 200")
        record("auto", labyrinth, "-r 200")
        record("kernel", labyrinth, "--sampler bpf --kernel")
        record("wall", waiting, "--mode wall")
        record("off-cpu", waiting, "--mode off-cpu")
        record("gil", labyrinth, "--mode gil")
        kill("kill", labyrinth, "--sampler bpf")
        kill("kill, wall", waiting, "--mode wall")
        record_while("CPU away", labyrinth, "--sampler bpf", a_cpu_goes_and_comes_back)
        record_while("CPU away, wall", waiting, "--mode wall", a_cpu_goes_and_comes_back)
        with setting("/proc/sys/kernel/perf_event_max_sample_rate", "100"):
            record("rate limit 100", labyrinth, "--sampler bpf -r 1000")
        with setting("/proc/sys/kernel/perf_event_paranoid", "3"):
            record("paranoid 3", labyrinth, "--sampler bpf")
        with setting("/proc/sys/kernel/kptr_restrict", "2"):
            record("kptr_restrict 2", labyrinth, "--sampler bpf --kernel")
        record("memlock 0", labyrinth, "--sampler bpf", memlock=0)
        with without_types():
            doctor("doctor, no BTF")
            record("no BTF", labyrinth, "--sampler bpf")
            record("no BTF, wall", waiting, "--mode wall")
            record("no BTF, off-cpu", waiting, "--mode off-cpu")
    with Target(LABYRINTH, IN_PID_NAMESPACE) as labyrinth:
        record("namespace", labyrinth, "--sampler bpf -r 200", user=labyrinth.its_namespaces())
    with Target(WAITING, IN_PID_NAMESPACE) as waiting:
        record("namespace, wall", waiting, "--mode wall", user=waiting.its_namespaces())
    with Target(LABYRINTH, NOT_BY_ROOT) as labyrinth:
        doctor("doctor, nobody", NOT_BY_ROOT)
        record("nobody", labyrinth, "--sampler bpf", user=NOT_BY_ROOT)
        record("nobody, auto", labyrinth, "", user=NOT_BY_ROOT)
        rights, plenty = as_nobody_with("bpf", "perfmon"), "unlimited"
        with setting("/proc/sys/kernel/perf_event_paranoid", "2"):
            record("two capabilities", labyrinth, "--sampler bpf", user=rights, memlock=plenty)
            record("two capabilities, memlock 0", labyrinth, "--sampler bpf", user=rights, memlock=0)
            record("two capabilities, memlock 0, auto", labyrinth, "", user=rights, memlock=0)
        with setting("/proc/sys/kernel/perf_event_paranoid", "3"):
            record("two capabilities, paranoid 3", labyrinth, "--sampler bpf", user=rights, memlock=plenty)
            record("two capabilities, paranoid 3, auto", labyrinth, "", user=rights, memlock=plenty)
    with Target(LABYRINTH) as labyrinth, Target(WAITING) as waiting:
        for level in ["integrity", "confidentiality"]:
            write("/sys/kernel/security/lockdown", level)
            doctor("doctor, " + level)
            record(level, labyrinth, "--sampler bpf")
            record(level + ", auto", labyrinth, "")
            record(level + ", kernel", labyrinth, "--sampler bpf --kernel")
            record(level + ", wall", waiting, "--mode wall")
            record(level + ", off-cpu", waiting, "--mode off-cpu")


def main():
    report("kernel", said=platform.release())
    trouble = ""
    try:
        everything()
    except Exception:
        trouble = traceback.format_exc()
    report("end", said=trouble)


main()
