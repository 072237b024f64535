//! Where a process can be put: under another user, in namespaces of its own, behind a system call filter.
//! A place is the words that stand before the command line of what is put there. What a place needs of the
//! machine (mostly root) is asked for by `requirement`.

use std::ffi::OsString;
use std::process::Command;

use nix::errno::Errno;
use nix::libc::c_long;

use crate::{Interpreter, is_root, missing, one_interpreter};

/// The user and group `nobody` of Debian.
pub const NOBODY: u32 = 65534;

/// Whether the tests may put processes into other namespaces and under other users; says so if not.
pub fn can_put_elsewhere() -> bool {
    if !is_root() {
        missing("other users and namespaces: both need root");
    }
    is_root()
}

fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(Into::into).collect()
}

/// Under the user nobody, without any rights.
pub fn as_nobody() -> Vec<OsString> {
    words(&format!("setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"))
}

/// Under the user nobody, with these capabilities (`bpf,perfmon`) and no others.
pub fn as_nobody_with_capabilities(names: &str) -> Vec<OsString> {
    let given = names.split(',').map(|name| format!("+{name}")).collect::<Vec<_>>().join(",");
    let mut place = as_nobody();
    place.extend([format!("--inh-caps={given}").into(), format!("--ambient-caps={given}").into()]);
    place
}

/// In PID and mount namespaces of its own, with a `/proc` that shows them. What is put there is process 1,
/// and the only child of the process that the words start; it ends with that.
pub fn in_own_namespaces() -> Vec<OsString> {
    words("unshare --mount --pid --fork --kill-child --mount-proc")
}

/// In a PID namespace of its own that kept the `/proc` of the outer one.
pub fn in_own_namespace_with_foreign_proc() -> Vec<OsString> {
    words("unshare --pid --fork --kill-child")
}

/// Under the user nobody as the root of a user namespace, as in a rootless container: with all capabilities,
/// which count inside only. `None` where the machine does not allow that; says so.
pub fn as_root_of_nobodys_namespace() -> Option<Vec<OsString>> {
    let place = within(as_nobody(), words("unshare --user --map-root-user"));
    let is_allowed = Command::new(&place[0]).args(&place[1..]).arg("true").status();
    if is_allowed.is_ok_and(|status| status.success()) {
        return Some(place);
    }
    missing("user namespaces of ordinary users: forbidden here");
    None
}

/// As root, but without this capability (`sys_ptrace`).
pub fn without_capability(name: &str) -> Vec<OsString> {
    words(&format!("setpriv --bounding-set=-{name} --inh-caps=-{name}"))
}

/// With every signal as it is by default, whatever the tests inherited (`nohup`, background jobs of a shell).
pub fn with_usual_signals() -> Vec<OsString> {
    words("env --default-signal")
}

/// With one signal ignored, as `nohup` does with `HUP`, and all others as they are by default.
pub fn with_ignored_signal(name: &str) -> Vec<OsString> {
    words(&format!("env --default-signal --ignore-signal={name}"))
}

/// Where the kernel does not describe its own types.
pub fn without_types() -> Vec<OsString> {
    let mut place = words("unshare --mount sh -c");
    let script = "mount --bind /dev/null /sys/kernel/btf/vmlinux && exec \"$@\"";
    place.extend([script.into(), "sh".into()]);
    place
}

/// Where no memory may be locked, which older kernels counted what programs in the kernel take against.
pub fn without_locked_memory() -> Vec<OsString> {
    words("prlimit --memlock=0:0")
}

/// Where so many files may be open, and so many after asking for more.
pub fn with_few_files(soft: &str, hard: &str) -> Vec<OsString> {
    words(&format!("prlimit --nofile={soft}:{hard}"))
}

/// Where `/proc` is mounted so that it shows only what belongs to the user who looks, and that user is nobody.
pub fn as_nobody_with_hidden_processes(how: u32) -> Vec<OsString> {
    let script = format!("mount -t proc -o hidepid={how} proc /proc && exec \"$@\"");
    let mut place = words("unshare --mount sh -c");
    place.extend([script.into(), "sh".into()]);
    place.extend(as_nobody());
    place
}

/// Behind a filter that answers each of these system calls with an error instead of making it.
///
/// # Panics
/// When there is no interpreter, which is what sets the filter.
pub fn without_calls(calls: &[(c_long, Errno)]) -> Vec<OsString> {
    let refused: Vec<String> =
        calls.iter().map(|(call, errno)| format!("{call}:{}", *errno as i32)).collect();
    let mut place = one_interpreter().inline_words(SET_FILTER);
    place.push(refused.join(",").into());
    place
}

/// Takes `CALL:ERRNO,...` and a command line, which is run behind the filter.
const SET_FILTER: &str = "\
import ctypes, os, struct, sys
LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ERRNO, ALLOW = 0x50000, 0x7fff0000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2
def instruction(code, yes, no, value):
    return struct.pack('HBBI', code, yes, no, value)
program = [instruction(LOAD, 0, 0, 0)]
for refused in sys.argv[1].split(','):
    call, errno = map(int, refused.split(':'))
    program += [instruction(IF_EQUAL, 0, 1, call), instruction(RETURN, 0, 0, ERRNO | errno)]
program.append(instruction(RETURN, 0, 0, ALLOW))
text = ctypes.create_string_buffer(b''.join(program))
filter = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', len(program), ctypes.addressof(text)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert libc.prctl(PR_SET_SECCOMP, MODE_FILTER, filter) == 0
os.execvp(sys.argv[2], sys.argv[2:])
";

/// Where it takes the kernel so long (in seconds) to stop each clock of an in-kernel program, as it may on a virtual machine
/// one of whose CPUs the host does not run.
///
/// # Panics
/// When there is no interpreter, which is what makes the clocks late.
pub fn with_late_clocks(seconds: f64) -> Vec<OsString> {
    let mut place = one_interpreter().inline_words(STOP_CLOCKS_LATE);
    place.push(seconds.to_string().into());
    place
}

/// Takes a time and a command line. Before a file descriptor of a clock is closed, the kernel asks a child of what is then
/// run, which answers after that time (seccomp_unotify(2)).
const STOP_CLOCKS_LATE: &str = "\
import ctypes, os, struct, sys, time
LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
NOTIFY, ALLOW = 0x7fc00000, 0x7fff0000
PR_SET_NO_NEW_PRIVS = 38
CLOSE, SECCOMP, PIDFD_OPEN, PIDFD_GETFD = 3, 317, 434, 438
SET_MODE_FILTER, NEW_LISTENER = 1, 8
RECEIVE, SEND, CONTINUE = 0xc0502100, 0xc0182101, 1
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(number, *(ctypes.c_void_p(a) if isinstance(a, int) else a for a in arguments))
    assert result >= 0, os.strerror(ctypes.get_errno())
    return result
def answer(listener, late):
    while 1:
        asked = ctypes.create_string_buffer(80)
        if libc.ioctl(listener, ctypes.c_ulong(RECEIVE), asked):
            return
        id, thread, descriptor = struct.unpack_from('=QI20xQ', asked)
        try:
            name = os.readlink('/proc/%d/fd/%d' % (thread, descriptor))
        except OSError:
            name = ''
        if 'perf_event' in name or 'bpf_link' in name:
            time.sleep(late)
        libc.ioctl(listener, ctypes.c_ulong(SEND), struct.pack('=QqiI', id, 0, 0, CONTINUE))
def instruction(code, yes, no, value):
    return struct.pack('HBBI', code, yes, no, value)
told, tell = os.pipe()
heard, hear = os.pipe()
asker = os.getpid()
if os.fork() == 0:
    number = int(os.read(told, 9))
    listener = call(PIDFD_GETFD, call(PIDFD_OPEN, asker, 0), number, 0)
    os.write(hear, b'.')
    for inherited in told, tell, heard, hear:
        os.close(inherited)
    answer(listener, float(sys.argv[1]))
    os._exit(0)
text = ctypes.create_string_buffer(b''.join([
    instruction(LOAD, 0, 0, 0), instruction(IF_EQUAL, 0, 1, CLOSE),
    instruction(RETURN, 0, 0, NOTIFY), instruction(RETURN, 0, 0, ALLOW)]))
filter = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', 4, ctypes.addressof(text)))
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
os.write(tell, b'%d' % call(SECCOMP, SET_MODE_FILTER, NEW_LISTENER, filter))
os.read(heard, 1)
os.execvp(sys.argv[2], sys.argv[2:])
";

/// The words that run these words in the place.
pub fn within(mut place: Vec<OsString>, command: Vec<OsString>) -> Vec<OsString> {
    place.extend(command);
    place
}

/// The words that run a program given as text under the user nobody, where that user can reach the
/// interpreter: the system's own, and those in root folders.
pub fn inline_as_nobody(interpreter: &Interpreter, source: &str) -> Option<Vec<OsString>> {
    let mut command = interpreter.inline_words(source);
    if interpreter.root().is_some() {
        // `chroot` needs the rights that are given up on the way in.
        command.splice(1..1, words(&format!("--userspec={NOBODY}:{NOBODY} --groups=")));
        return Some(command);
    }
    command[0].to_str().is_some_and(|path| path.starts_with("/usr/")).then(|| within(as_nobody(), command))
}
