//! Whether a process that has no Python may be about to run one.

use profiler_native::needed_libraries;
use profiler_os::{Process, target_files};
use profiler_python::is_python_file;

/// Programs that replace themselves by another one, or start it and wait for it, or whose scripts do.
const LAUNCHERS: &[&str] = &[
    "ash",
    "bash",
    "busybox",
    "chpst",
    "chroot",
    "dash",
    "dumb-init",
    "env",
    "fish",
    "flock",
    "gosu",
    "ionice",
    "ksh",
    "nice",
    "nohup",
    "nsenter",
    "numactl",
    "prlimit",
    "runuser",
    "s6-setuidgid",
    "script",
    "setarch",
    "setpriv",
    "setsid",
    "sh",
    "stdbuf",
    "strace",
    "su",
    "su-exec",
    "sudo",
    "systemd-run",
    "taskset",
    "time",
    "timeout",
    "tini",
    "unshare",
    "uv",
    "watch",
    "xargs",
    "xvfb-run",
    "zsh",
];

/// Whether the program of a process may still become a Python: it is a launcher, or is linked to a Python that is not loaded yet.
pub fn may_become_python(process: &Process) -> bool {
    let Ok(executable) = process.executable() else { return true };
    let path = executable.to_string_lossy();
    let name = path.rsplit('/').next().unwrap_or_default();
    if is_python_file(&path) || LAUNCHERS.contains(&name) {
        return true;
    }
    let Ok(file) = target_files::open_executable(process) else { return true };
    needed_libraries(&*file).iter().any(|library| is_python_file(library))
}

#[cfg(test)]
mod tests {
    use profiler_model::Pid;

    use super::*;

    #[test]
    fn own_program_becomes_no_python() {
        assert!(!may_become_python(&Process::new(Pid::new(std::process::id()))));
    }

    #[test]
    fn launchers_are_sorted_and_each_once() {
        assert!(LAUNCHERS.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
