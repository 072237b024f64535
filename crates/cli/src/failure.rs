//! An error as the user sees it: what failed, on what, and what to try next.

use std::fmt;

use profiler_model::Pid;
use profiler_os::permission::{Obstacle, PtraceScope, Refusal};

/// What failed and what may help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    what: String,
    advice: Vec<String>,
}

/// What to try when pages do not come.
pub const SOURCES_OF_PAGES: &str =
    "again when what provides its pages answers: a network file system, a userfaultfd handler";

impl Failure {
    /// The kernel waits for something of a process, and no signal ends that.
    pub fn no_answer() -> Self {
        Failure::new("the process does not answer: the kernel waits for its memory or for a file of it")
            .with_advice(SOURCES_OF_PAGES)
    }

    /// A failure without advice.
    pub fn new(what: impl Into<String>) -> Self {
        Failure { what: what.into(), advice: Vec::new() }
    }

    /// The same with one more thing to try.
    pub fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice.push(advice.into());
        self
    }

    /// What failed.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What may help, one thing to try each.
    pub fn advice(&self) -> &[String] {
        &self.advice
    }

    /// The same with one more thing that explains it.
    pub fn with_detail(mut self, detail: impl AsRef<str>) -> Self {
        self.what.push_str("; ");
        self.what.push_str(detail.as_ref());
        self
    }

    /// The process may not be read. `again` is the command line that does the same again.
    pub fn not_permitted(pid: Pid, refusal: &Refusal, again: &str) -> Self {
        let reasons: Vec<String> = refusal.obstacles.iter().map(reason).collect();
        let reasons = match reasons.is_empty() {
            true => "the kernel does not say why (a security module such as SELinux or AppArmor?)".to_owned(),
            false => reasons.join("; "),
        };
        let mut failure = Failure::new(format!("process {pid} may not be read: {reasons}"));
        let advice = refusal.obstacles.iter().flat_map(|obstacle| advice(obstacle, refusal, pid, again));
        for line in advice.chain(general_advice(refusal)) {
            if !failure.advice.contains(&line) {
                failure.advice.push(line);
            }
        }
        failure
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        for advice in &self.advice {
            write!(f, "\n  try: {advice}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

fn reason(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::TracedBy(tracer) => format!("process {tracer} traces it already, and only one may"),
        Obstacle::OtherUser { owner, own } => {
            format!("it belongs to {owner}, and the profiler runs as {own}")
        }
        Obstacle::Hidden => {
            "it belongs to another user, and /proc hides it (it is mounted with hidepid)".to_owned()
        }
        Obstacle::NotDumpable => {
            "it does not let itself be looked into (it changed its user, its executable may not be read, or it \
             protects itself)"
                .to_owned()
        }
        Obstacle::MoreCapable => "it has capabilities that the profiler does not have".to_owned(),
        Obstacle::PtraceScope(PtraceScope::Descendants) => {
            "kernel.yama.ptrace_scope is 1: without CAP_SYS_PTRACE, only own child processes may be"
                .to_owned()
        }
        Obstacle::PtraceScope(PtraceScope::Capable) => {
            "kernel.yama.ptrace_scope is 2: only with CAP_SYS_PTRACE any process may be".to_owned()
        }
        Obstacle::PtraceScope(PtraceScope::Nobody) => {
            "kernel.yama.ptrace_scope is 3: no process may be".to_owned()
        }
        Obstacle::OtherUserNamespace => {
            "it lives in another user namespace, where our capabilities do not count".to_owned()
        }
        Obstacle::SystemCallFilter => {
            "a system call filter (seccomp) is on here and may refuse it".to_owned()
        }
    }
}

fn advice(obstacle: &Obstacle, refusal: &Refusal, pid: Pid, again: &str) -> Vec<String> {
    match obstacle {
        Obstacle::TracedBy(tracer) => {
            vec![format!("end the debugger or profiler that is process {tracer}, or let it detach")]
        }
        Obstacle::OtherUser { .. } | Obstacle::Hidden | Obstacle::NotDumpable | Obstacle::MoreCapable => {
            vec![capability_advice(refusal, again)]
        }
        Obstacle::PtraceScope(PtraceScope::Descendants) => vec![
            capability_advice(refusal, again),
            "sudo sysctl kernel.yama.ptrace_scope=0 (until the next boot)".to_owned(),
            "own child processes need none of this: profiler record -- command".to_owned(),
        ],
        Obstacle::PtraceScope(PtraceScope::Capable) => vec![capability_advice(refusal, again)],
        Obstacle::PtraceScope(PtraceScope::Nobody) => {
            vec!["boot with a kernel.yama.ptrace_scope of 0, 1 or 2: it cannot be lowered from 3".to_owned()]
        }
        Obstacle::OtherUserNamespace => vec![format!(
            "run the profiler as root outside of all containers, or inside the process's own namespace: \
             nsenter --user --target {pid}"
        )],
        Obstacle::SystemCallFilter => {
            vec![CONTAINER_ADVICE.to_owned(), "docker run --security-opt seccomp=unconfined ...".to_owned()]
        }
    }
}

/// How a container gets the right to look into processes and to stop them.
pub const CONTAINER_ADVICE: &str = "docker run --cap-add SYS_PTRACE ... (Kubernetes: \
                                securityContext.capabilities.add: [\"SYS_PTRACE\"])";

/// How `CAP_SYS_PTRACE` is had: root has it, except in containers, where it is not given by default.
fn capability_advice(refusal: &Refusal, again: &str) -> String {
    if refusal.is_root && !refusal.has_capability {
        CONTAINER_ADVICE.to_owned()
    } else {
        format!("sudo {again}")
    }
}

fn general_advice(refusal: &Refusal) -> Option<String> {
    if refusal.obstacles.is_empty() {
        return Some(
            "dmesg or the audit log (ausearch -m avc), which tell what security modules refuse".to_owned(),
        );
    }
    let lacks_capability = !refusal.has_capability;
    (refusal.in_container && lacks_capability).then(|| CONTAINER_ADVICE.to_owned())
}

/// The command line of this process, with the path of the binary in full (`sudo` looks in other folders),
/// fit to be pasted into a shell.
pub fn own_command_line() -> String {
    let binary = std::env::current_exe().map_or_else(|_| "profiler".into(), |path| path.into_os_string());
    let words = std::iter::once(binary).chain(std::env::args_os().skip(1));
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use profiler_os::UserName;

    use super::*;

    fn refused(obstacle: Obstacle, is_root: bool, in_container: bool) -> String {
        let refusal = Refusal { obstacles: vec![obstacle], is_root, has_capability: false, in_container };
        Failure::not_permitted(Pid::new(7), &refusal, "profiler dump -p 7").to_string()
    }

    fn other_user() -> Obstacle {
        let name = |uid, name: &str| UserName { uid, name: Some(name.to_owned()) };
        Obstacle::OtherUser { owner: name(0, "root"), own: name(1000, "ann") }
    }

    #[test]
    fn another_users_process_asks_for_sudo() {
        assert_eq!(
            refused(other_user(), false, false),
            "process 7 may not be read: it belongs to root (uid 0), and the profiler runs as ann (uid 1000)\n  \
             try: sudo profiler dump -p 7"
        );
    }

    #[test]
    fn in_containers_the_capability_is_asked_for() {
        let as_root = refused(other_user(), true, true);
        assert!(
            as_root.contains("docker run --cap-add SYS_PTRACE") && !as_root.contains("sudo"),
            "{as_root}"
        );
        let as_user = refused(other_user(), false, true);
        assert!(as_user.contains("docker run --cap-add SYS_PTRACE") && as_user.contains("sudo"), "{as_user}");
    }

    #[test]
    fn ptrace_scope_names_its_sysctl() {
        let text = refused(Obstacle::PtraceScope(PtraceScope::Descendants), false, false);
        for hint in
            ["sysctl kernel.yama.ptrace_scope=0", "sudo profiler dump -p 7", "profiler record -- command"]
        {
            assert!(text.contains(hint), "{text}");
        }
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quoted("a-b/c.svg"), "a-b/c.svg");
        assert_eq!(
            (quoted("a b"), quoted("it's"), quoted("")),
            ("'a b'".into(), r"'it'\''s'".into(), "''".into())
        );
    }
}
