//! Why the kernel refuses programs of ours (`bpf`, and the perf events that run them): it only answers "not permitted", or
//! that it has no such call; this finds the rule behind it.
//!
//! A diagnosis, as `permission` is for the memory of processes: nothing here decides whether anything is tried.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use crate::host::{Answer, Host};

/// The calls that it takes.
const CALLS: [&str; 2] = ["bpf", "perf_event_open"];

/// Which capabilities both calls ask for.
const NEEDED: [(&str, u32); 2] = [("CAP_BPF", 39), ("CAP_PERFMON", 38)];

/// The one that has stood for both since before they were there.
const CAP_SYS_ADMIN: u32 = 21;

/// A rule that stands between us and the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BpfRestriction {
    /// These of the capabilities are missing.
    Capabilities(Vec<&'static str>),
    /// They are there, but count in this user namespace only.
    UserNamespace,
    /// A system call filter (seccomp) is on, and what it is to decide about these calls is refused.
    SystemCallFilter(Vec<&'static str>),
    /// The kernel was built without these calls.
    NotBuilt(Vec<&'static str>),
    /// The kernel counts what programs keep as locked memory, as it did before Linux 5.11, and no more than so many bytes
    /// of that may be had.
    LockedMemory(u64),
    /// `kernel.perf_event_paranoid` is above 2: Debian's and Ubuntu's kernels then refuse perf events to all who are not
    /// CAP_SYS_ADMIN.
    Paranoid(i32),
    /// The kernel is locked down for confidentiality.
    Lockdown,
}

/// Linux 5.11 counts what programs keep by control groups.
const NO_LOCKED_MEMORY_SINCE: (u32, u32) = (5, 11);

impl BpfRestriction {
    /// The one that is in force here; `None` where none of them is, and something else refuses: a security module, a kernel
    /// that is locked down.
    pub fn in_force() -> Option<Self> {
        BpfRestriction::on(&Host::look())
    }

    /// The one by which a program or its memory may be refused where none of those is in force.
    pub fn of_programs() -> Option<Self> {
        let host = Host::look();
        let is_locked_down = host.lockdown.as_deref() == Some("confidentiality");
        let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(RLIM_INFINITY, |(limit, _)| limit);
        let is_counted = version(&host.kernel).is_some_and(|version| version < NO_LOCKED_MEMORY_SINCE);
        if is_locked_down {
            Some(BpfRestriction::Lockdown)
        } else {
            (is_counted && limit != RLIM_INFINITY).then_some(BpfRestriction::LockedMemory(limit))
        }
    }

    /// The one by which a perf event may be refused where none of those is in force.
    pub fn of_events() -> Option<Self> {
        let host = Host::look();
        let level = host.perf_event_paranoid.filter(|level| *level > 2);
        level.filter(|_| !host.effective.has(CAP_SYS_ADMIN)).map(BpfRestriction::Paranoid)
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
                true => BpfRestriction::SystemCallFilter(absent),
                false => BpfRestriction::NotBuilt(absent),
            });
        }
        let has = |number| host.effective.has(number) || host.effective.has(CAP_SYS_ADMIN);
        let missing: Vec<_> = NEEDED.into_iter().filter(|(_, number)| !has(*number)).collect();
        if !missing.is_empty() {
            return Some(BpfRestriction::Capabilities(missing.into_iter().map(|(name, _)| name).collect()));
        }
        if !host.in_first_user_namespace {
            return Some(BpfRestriction::UserNamespace);
        }
        (host.has_filter && !refused.is_empty()).then_some(BpfRestriction::SystemCallFilter(refused))
    }
}

/// The first two numbers of a release of the kernel.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::CapabilitySet;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(version("5.10.0-46-cloud-amd64"), Some((5, 10)));
        assert_eq!(version("7.3-rc7"), Some((7, 3)));
        assert_eq!(version("next"), None);
        assert!(
            version("5.9.1") < Some(NO_LOCKED_MEMORY_SINCE)
                && version("6.1.0") > Some(NO_LOCKED_MEMORY_SINCE)
        );
    }

    const BOTH: u64 = 1 << 38 | 1 << 39;

    fn host(capabilities: u64, has_filter: bool, bpf: Answer, perf_event_open: Answer) -> Host {
        let effective = CapabilitySet::of_bits(capabilities);
        Host { effective, in_first_user_namespace: true, has_filter, bpf, perf_event_open, ..Host::look() }
    }

    #[test]
    fn each_rule_is_told_from_the_others() {
        use Answer::{Allowed, Missing, Refused};
        use BpfRestriction::{Capabilities, NotBuilt, SystemCallFilter};
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
            assert_eq!(BpfRestriction::on(&host), expected, "{host:?}");
        }
        let rootless = Host { in_first_user_namespace: false, ..host(!0, false, Refused, Refused) };
        assert_eq!(BpfRestriction::on(&rootless), Some(BpfRestriction::UserNamespace));
    }
}
