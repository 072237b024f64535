//! Why the kernel refuses programs of ours (`bpf`, and the perf events that run them): it only answers "not permitted", or
//! that it has no such call; this finds the rule behind it.
//!
//! A diagnosis, as `permission` is for the memory of processes: nothing here decides whether anything is tried.

use crate::host::{Answer, Host};

/// The calls that it takes.
const CALLS: [&str; 2] = ["bpf", "perf_event_open"];

/// Which capabilities both calls ask for.
const NEEDED: [(&str, u32); 2] = [("CAP_BPF", 39), ("CAP_PERFMON", 38)];

/// The one that has stood for both since before they were there.
const CAP_SYS_ADMIN: u32 = 21;

/// A rule that stands between us and the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramObstacle {
    /// These of the capabilities are missing.
    Capabilities(Vec<&'static str>),
    /// They are there, but count in this user namespace only.
    UserNamespace,
    /// A system call filter (seccomp) is on, and what it is to decide about these calls is refused.
    SystemCallFilter(Vec<&'static str>),
    /// The kernel was built without these calls.
    NotBuilt(Vec<&'static str>),
}

impl ProgramObstacle {
    /// The one that is in force here; `None` where none of them is, and something else refuses: a security module, a kernel
    /// that is locked down.
    pub fn in_force() -> Option<Self> {
        ProgramObstacle::on(&Host::look())
    }

    fn on(host: &Host) -> Option<Self> {
        let calls = |answer: Answer| -> Vec<&'static str> {
            let given = [host.bpf, host.perf_event_open].into_iter().zip(CALLS);
            given.filter(|(given, _)| *given == answer).map(|(_, call)| call).collect()
        };
        let (absent, refused) = (calls(Answer::Missing), calls(Answer::Refused));
        if !absent.is_empty() {
            // Filters say so as well, for programs that try something else then.
            return Some(match host.has_filter {
                true => ProgramObstacle::SystemCallFilter(absent),
                false => ProgramObstacle::NotBuilt(absent),
            });
        }
        let has = |number| host.effective.has(number) || host.effective.has(CAP_SYS_ADMIN);
        let missing: Vec<_> = NEEDED.into_iter().filter(|(_, number)| !has(*number)).collect();
        if !missing.is_empty() {
            return Some(ProgramObstacle::Capabilities(missing.into_iter().map(|(name, _)| name).collect()));
        }
        if !host.in_first_user_namespace {
            return Some(ProgramObstacle::UserNamespace);
        }
        (host.has_filter && !refused.is_empty()).then_some(ProgramObstacle::SystemCallFilter(refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::CapabilitySet;

    const BOTH: u64 = 1 << 38 | 1 << 39;

    fn host(capabilities: u64, has_filter: bool, bpf: Answer, perf_event_open: Answer) -> Host {
        let effective = CapabilitySet::of_bits(capabilities);
        Host { effective, in_first_user_namespace: true, has_filter, bpf, perf_event_open, ..Host::look() }
    }

    #[test]
    fn each_rule_is_told_from_the_others() {
        use Answer::{Allowed, Missing, Refused};
        use ProgramObstacle::{Capabilities, NotBuilt, SystemCallFilter};
        let cases = [
            (host(BOTH, false, Allowed, Allowed), None),
            (host(BOTH, true, Allowed, Allowed), None),
            // A security module.
            (host(BOTH, false, Refused, Allowed), None),
            (host(0, false, Refused, Refused), Some(Capabilities(vec!["CAP_BPF", "CAP_PERFMON"]))),
            (host(1 << 38, true, Refused, Refused), Some(Capabilities(vec!["CAP_BPF"]))),
            (host(1 << 39, false, Allowed, Allowed), Some(Capabilities(vec!["CAP_PERFMON"]))),
            (host(1 << 21, true, Refused, Allowed), Some(SystemCallFilter(vec!["bpf"]))),
            (host(BOTH, true, Allowed, Refused), Some(SystemCallFilter(vec!["perf_event_open"]))),
            (host(0, true, Missing, Allowed), Some(SystemCallFilter(vec!["bpf"]))),
            (host(0, false, Missing, Missing), Some(NotBuilt(vec!["bpf", "perf_event_open"]))),
        ];
        for (host, expected) in cases {
            assert_eq!(ProgramObstacle::on(&host), expected, "{host:?}");
        }
        let rootless = Host { in_first_user_namespace: false, ..host(!0, false, Refused, Refused) };
        assert_eq!(ProgramObstacle::on(&rootless), Some(ProgramObstacle::UserNamespace));
    }
}
