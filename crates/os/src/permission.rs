//! Why a process may not be read or stopped: the kernel only answers "not permitted", this finds the rule
//! behind it.
//!
//! A diagnosis, not a check: nothing here decides whether anything is tried. The rules are those of
//! `ptrace(2)`, "Ptrace access mode checking". The crate `procfs` parses the statuses; it knows neither `uid_map` nor the
//! setting of Yama.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use profiler_model::Pid;

use crate::proc_file::parsed;
use crate::user_name::UserName;

/// The number of the capability that overrides most rules.
const CAP_SYS_PTRACE: u64 = 1 << 19;

/// How far up a process's ancestors are followed. Real trees are a dozen deep; a limit is needed because
/// the tree changes while it is walked.
const MAX_ANCESTORS: usize = 256;

/// A rule that stands between us and a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Another process traces it: a debugger, or another profiler. Only one may.
    TracedBy(Pid),
    /// It runs as another user (or group), and we lack `CAP_SYS_PTRACE`.
    OtherUser {
        /// The process's user.
        owner: UserName,
        /// Our own.
        own: UserName,
    },
    /// `/proc` is mounted with `hidepid` and shows nothing of it: it belongs to another user.
    Hidden,
    /// It asked not to be looked into (`PR_SET_DUMPABLE`), or its executable may not be read, or it changed
    /// its user while it ran, as services do that start as root.
    NotDumpable,
    /// It has capabilities that we do not have.
    MoreCapable,
    /// The Yama module restricts tracing.
    PtraceScope(PtraceScope),
    /// It lives in a user namespace on which our capabilities have no hold.
    OtherUserNamespace,
    /// A system call filter (seccomp, as container runtimes install) is on for us and may be what refuses.
    SystemCallFilter,
}

/// The values of `kernel.yama.ptrace_scope` that restrict anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PtraceScope {
    /// 1: only own descendants, without `CAP_SYS_PTRACE`.
    Descendants,
    /// 2: only with `CAP_SYS_PTRACE`.
    Capable,
    /// 3: nobody, until the next boot.
    Nobody,
}

/// Why a process may not be read, as far as can be found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The rules that apply, the most specific first. Empty where the reason stays unknown (another
    /// security module).
    pub obstacles: Vec<Obstacle>,
    /// Whether we run as root, which inside of a container does not mean `CAP_SYS_PTRACE`.
    pub is_root: bool,
    /// Whether `CAP_SYS_PTRACE` is in our effective set.
    pub has_capability: bool,
    /// Whether we run inside of a container.
    pub in_container: bool,
}

/// Finds out why `pid` may not be read.
pub fn diagnose(pid: Pid) -> Refusal {
    let own = Status::of(Path::new("/proc/self"));
    let target_folder = crate::Process::new(pid).folder();
    let target = Status::of(&target_folder);
    let situation = Situation {
        scope: fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope")
            .ok()
            .and_then(|text| parse_scope(&text)),
        is_hidden: target.uids.is_empty(),
        is_dumpable: is_dumpable(&target_folder, &target),
        is_descendant: is_descendant(pid),
        same_user_namespace: uid_map(Path::new("/proc/self")) == uid_map(&target_folder),
    };
    Refusal {
        obstacles: obstacles(&own, &target, situation),
        is_root: own.uids.first() == Some(&0),
        has_capability: own.is_capable(),
        in_container: crate::host::container().is_some(),
    }
}

/// Whether a system call filter forbids to stop anything, whosever it is: Docker's did up to Linux 4.8.
pub fn is_tracing_filtered() -> bool {
    let nobody = nix::unistd::Pid::from_raw(i32::MAX);
    // No process has this number, which is the answer where the call is let through.
    nix::sys::ptrace::detach(nobody, None) != Err(Errno::ESRCH)
}

/// The part of a process's status that the rules ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Status {
    /// Real, effective, saved, file system.
    uids: Vec<u32>,
    gids: Vec<u32>,
    permitted: u64,
    effective: u64,
    tracer: u32,
    parent: u32,
    /// 2 is a filter.
    seccomp: u32,
}

/// What the rules ask for beside both statuses.
#[derive(Clone, Copy, Debug)]
struct Situation {
    scope: Option<PtraceScope>,
    is_hidden: bool,
    is_dumpable: bool,
    is_descendant: bool,
    same_user_namespace: bool,
}

impl Status {
    /// The status in a folder of `/proc`; all zeroes if it cannot be read, which no rule objects to.
    fn of(folder: &Path) -> Status {
        parsed(&folder.join("status")).map(|status| Status::from_file(&status)).unwrap_or_default()
    }

    fn from_file(status: &procfs::process::Status) -> Status {
        Status {
            uids: vec![status.ruid, status.euid, status.suid, status.fuid],
            gids: vec![status.rgid, status.egid, status.sgid, status.fgid],
            permitted: status.capprm,
            effective: status.capeff,
            tracer: status.tracerpid.cast_unsigned(),
            parent: status.ppid.cast_unsigned(),
            seccomp: status.seccomp.unwrap_or(0),
        }
    }

    fn is_capable(&self) -> bool {
        self.effective & CAP_SYS_PTRACE != 0
    }

    /// Whether all of the target's ids are our real ones, as the kernel demands without the capability.
    fn owns(&self, target: &Status) -> bool {
        let all_are = |theirs: &[u32], ours: Option<&u32>| theirs.iter().take(3).all(|id| Some(id) == ours);
        all_are(&target.uids, self.uids.first()) && all_are(&target.gids, self.gids.first())
    }
}

fn obstacles(own: &Status, target: &Status, situation: Situation) -> Vec<Obstacle> {
    let mut found = Vec::new();
    if target.tracer != 0 {
        found.push(Obstacle::TracedBy(Pid::new(target.tracer)));
    }
    if situation.is_hidden {
        found.push(Obstacle::Hidden);
    } else if own.is_capable() {
        if !situation.same_user_namespace {
            found.push(Obstacle::OtherUserNamespace);
        }
    } else if !own.owns(target) {
        let user = |status: &Status| UserName::of(status.uids.get(1).copied().unwrap_or(0));
        found.push(Obstacle::OtherUser { owner: user(target), own: user(own) });
    } else if !situation.is_dumpable {
        found.push(Obstacle::NotDumpable);
    } else if target.permitted & !own.permitted != 0 {
        found.push(Obstacle::MoreCapable);
    }
    let scope_applies = |scope: &PtraceScope| match scope {
        PtraceScope::Descendants => !own.is_capable() && !situation.is_descendant,
        PtraceScope::Capable => !own.is_capable(),
        PtraceScope::Nobody => true,
    };
    found.extend(situation.scope.filter(scope_applies).map(Obstacle::PtraceScope));
    if own.seccomp == 2 && found.is_empty() {
        found.push(Obstacle::SystemCallFilter);
    }
    found
}

fn parse_scope(text: &str) -> Option<PtraceScope> {
    match text.trim() {
        "1" => Some(PtraceScope::Descendants),
        "2" => Some(PtraceScope::Capable),
        "3" => Some(PtraceScope::Nobody),
        _ => None,
    }
}

/// The kernel gives the files of a process that is not dumpable to root, but not the folder itself.
fn is_dumpable(folder: &Path, status: &Status) -> bool {
    match fs::metadata(folder.join("environ")) {
        Ok(file) => status.uids.get(1).is_none_or(|uid| *uid == file.uid()),
        Err(_) => true,
    }
}

fn uid_map(folder: &Path) -> Option<String> {
    fs::read_to_string(folder.join("uid_map")).ok()
}

fn is_descendant(pid: Pid) -> bool {
    let own = std::process::id();
    let parent = |pid: &u32| match Status::of(&Path::new("/proc").join(pid.to_string())).parent {
        0 => None,
        parent => Some(parent),
    };
    std::iter::successors(Some(pid.as_u32()), parent).take(MAX_ANCESTORS).any(|ancestor| ancestor == own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc_file::status_with;

    const USUAL: Situation = Situation {
        scope: None,
        is_hidden: false,
        is_dumpable: true,
        is_descendant: false,
        same_user_namespace: true,
    };

    fn user(uid: u32) -> Status {
        Status { uids: vec![uid; 4], gids: vec![uid; 4], ..Status::default() }
    }

    fn root() -> Status {
        Status { permitted: !0, effective: !0, ..user(0) }
    }

    #[test]
    fn status_is_parsed() {
        let file = status_with(&[
            "PPid:\t17",
            "TracerPid:\t4",
            "Uid:\t1000\t1001\t1002\t1003",
            "Gid:\t5\t6\t7\t8",
            "CapPrm:\t0000000000080000",
            "CapEff:\t0000000000080001",
            "Seccomp:\t2",
        ]);
        let status = Status::from_file(&file);
        let expected = Status {
            uids: vec![1000, 1001, 1002, 1003],
            gids: vec![5, 6, 7, 8],
            permitted: CAP_SYS_PTRACE,
            effective: CAP_SYS_PTRACE | 1,
            tracer: 4,
            parent: 17,
            seccomp: 2,
        };
        assert_eq!(status, expected);
        assert!(status.is_capable());
    }

    #[test]
    fn own_status_is_understood() {
        let status = Status::of(Path::new("/proc/self"));
        assert_eq!(status.uids.len(), 4);
        assert_ne!(status.parent, 0);
        assert!(is_descendant(Pid::new(std::process::id())));
        assert!(!is_descendant(Pid::new(1)) || std::process::id() == 1);
    }

    #[test]
    fn tracing_is_not_filtered_here() {
        assert!(!is_tracing_filtered() || Status::of(Path::new("/proc/self")).seccomp == 2);
    }

    #[test]
    fn another_user_is_named() {
        let found = obstacles(&user(4_000_001), &user(4_000_002), USUAL);
        let name = |uid| UserName { uid, name: None };
        assert_eq!(found, [Obstacle::OtherUser { owner: name(4_000_002), own: name(4_000_001) }]);
    }

    #[test]
    fn saved_ids_count_as_well() {
        let changed = Status { uids: vec![1000, 1000, 0, 1000], ..user(1000) };
        assert!(matches!(obstacles(&user(1000), &changed, USUAL)[..], [Obstacle::OtherUser { .. }]));
        let changed = Status { gids: vec![1000, 4, 1000, 1000], ..user(1000) };
        assert!(matches!(obstacles(&user(1000), &changed, USUAL)[..], [Obstacle::OtherUser { .. }]));
    }

    #[test]
    fn each_value_of_ptrace_scope_applies_where_it_should() {
        let scoped = |scope, is_descendant| Situation { scope: Some(scope), is_descendant, ..USUAL };
        let cases = [
            (user(1000), scoped(PtraceScope::Descendants, false), true),
            (user(1000), scoped(PtraceScope::Descendants, true), false),
            (root(), scoped(PtraceScope::Descendants, false), false),
            (user(1000), scoped(PtraceScope::Capable, true), true),
            (root(), scoped(PtraceScope::Capable, false), false),
            (root(), scoped(PtraceScope::Nobody, true), true),
        ];
        for (own, situation, applies) in cases {
            let found = obstacles(&own, &user(1000), situation);
            let expected = situation.scope.filter(|_| applies).map(Obstacle::PtraceScope);
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{own:?} {situation:?}");
        }
    }

    #[test]
    fn other_rules_are_found() {
        let hidden = Situation { is_hidden: true, ..USUAL };
        assert_eq!(obstacles(&user(1), &Status::default(), hidden), [Obstacle::Hidden]);
        let protected = Situation { is_dumpable: false, ..USUAL };
        assert_eq!(obstacles(&user(1), &user(1), protected), [Obstacle::NotDumpable]);
        assert_eq!(obstacles(&root(), &user(1), protected), []);
        let capable = Status { permitted: 1, ..user(1) };
        assert_eq!(obstacles(&user(1), &capable, USUAL), [Obstacle::MoreCapable]);
        let traced = Status { tracer: 9, ..user(1) };
        assert_eq!(obstacles(&user(1), &traced, USUAL), [Obstacle::TracedBy(Pid::new(9))]);
        let elsewhere = Situation { same_user_namespace: false, ..USUAL };
        assert_eq!(obstacles(&root(), &user(1), elsewhere), [Obstacle::OtherUserNamespace]);
        let filtered = Status { seccomp: 2, ..user(1) };
        assert_eq!(obstacles(&filtered, &user(1), USUAL), [Obstacle::SystemCallFilter]);
    }
}
