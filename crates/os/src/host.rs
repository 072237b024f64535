//! What this host allows a profiler: its kernel, our own rights in it, and what its settings forbid.
//!
//! Facts for people who look for what is missing. Nothing here decides whether anything is tried, and why one
//! process may not be read is the business of `permission`.
//!
//! The crate `procfs` parses our status and our mounts. It knows none of the settings below `/proc/sys` that matter here,
//! nor `uid_map`, and reads either all namespaces or none.

use std::fs;
use std::io;
use std::os::linux::fs::MetadataExt as _;
use std::path::Path;

use nix::errno::Errno;
use procfs::process::{MountInfo, Status};

use crate::proc_file::{parsed, text_of};
use crate::user_name::UserName;

/// The capabilities that matter to a profiler, with their numbers in the kernel's sets.
pub const CAPABILITIES: [(&str, u32); 6] = [
    // Looking into processes of others.
    ("CAP_SYS_PTRACE", 19),
    // Not having to wait for a CPU while a thread is stopped.
    ("CAP_SYS_NICE", 23),
    // Perf events and BPF; before Linux 5.8 it was all SYS_ADMIN.
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
    ("CAP_SYS_ADMIN", 21),
    // Seeing what the kernel calls its functions.
    ("CAP_SYSLOG", 34),
];

/// A set of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// The set of these bits.
    #[cfg(test)]
    pub(crate) fn of_bits(bits: u64) -> Self {
        CapabilitySet(bits)
    }

    /// Whether the capability of this number is in it.
    pub fn has(self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }
}

/// What the kernel says to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It may be called.
    Allowed,
    /// It may not: by a system call filter, or for want of a capability.
    Refused,
    /// The kernel was built without it.
    Missing,
}

/// How `/proc` shows the processes of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcMount {
    /// The value of the option `hidepid`, where it is set.
    pub hidepid: Option<String>,
    /// Whether only processes are shown (`subset=pid`), and no settings of the kernel.
    pub only_processes: bool,
}

/// What this host allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The kernel's release.
    pub kernel: String,
    /// Who we are.
    pub user: UserName,
    /// Whether we are in the first user namespace, where capabilities count everywhere.
    pub in_first_user_namespace: bool,
    /// The kind of container that we are in, as far as there is a sign of one.
    pub container: Option<&'static str>,
    /// Whether a system call filter (seccomp) is on for us.
    pub has_filter: bool,
    /// The capabilities that we have.
    pub effective: CapabilitySet,
    /// The capabilities that programs which we start can have at all.
    pub bounding: CapabilitySet,
    /// `kernel.yama.ptrace_scope`; `None` where there is no Yama.
    pub ptrace_scope: Option<i32>,
    /// `kernel.perf_event_paranoid`.
    pub perf_event_paranoid: Option<i32>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<i32>,
    /// `perf_event_open`.
    pub perf_event_open: Answer,
    /// `bpf`.
    pub bpf: Answer,
    /// Whether the kernel describes its types (`/sys/kernel/btf/vmlinux`).
    pub has_btf: bool,
    /// Whether the kernel is locked down, and how far: `none`, `integrity` or `confidentiality`; `None` where it does
    /// not say.
    pub lockdown: Option<String>,
    /// `/proc`; `None` where it cannot be seen how it is mounted.
    pub proc_mount: Option<ProcMount>,
}

impl Host {
    /// Looks at this host.
    pub fn look() -> Self {
        let status = parsed::<Status>(Path::new("/proc/self/status")).ok();
        let status = status.as_ref();
        Host {
            kernel: setting("kernel/osrelease").unwrap_or_else(|| "?".to_owned()),
            user: UserName::own(),
            in_first_user_namespace: is_whole_range(&text("/proc/self/uid_map")),
            container: container(),
            has_filter: status.and_then(|status| status.seccomp) == Some(2),
            effective: CapabilitySet(status.map_or(0, |status| status.capeff)),
            bounding: CapabilitySet(status.and_then(|status| status.capbnd).unwrap_or(0)),
            ptrace_scope: number("kernel/yama/ptrace_scope"),
            perf_event_paranoid: number("kernel/perf_event_paranoid"),
            unprivileged_bpf_disabled: number("kernel/unprivileged_bpf_disabled"),
            perf_event_open: answer(libc::SYS_perf_event_open),
            bpf: answer(libc::SYS_bpf),
            has_btf: std::fs::metadata("/sys/kernel/btf/vmlinux").is_ok_and(|types| types.len() > 0),
            lockdown: chosen(&text("/sys/kernel/security/lockdown")),
            proc_mount: proc_mount(&text_of(Path::new("/proc/self/mountinfo")).unwrap_or_default()),
        }
    }
}

/// The one in brackets of several words.
fn chosen(words: &str) -> Option<String> {
    let word = words.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    word.map(str::to_owned)
}

/// The kind of container that we are in, by the marks that container runtimes leave.
pub fn container() -> Option<&'static str> {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return Some("Kubernetes");
    }
    [("/.dockerenv", "Docker"), ("/run/.containerenv", "Podman")]
        .into_iter()
        .find_map(|(mark, kind)| Path::new(mark).exists().then_some(kind))
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn setting(name: &str) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().to_owned())
}

fn number(name: &str) -> Option<i32> {
    setting(name)?.parse().ok()
}

/// Whether a map of ids maps all of them to themselves, as in the first user namespace only.
fn is_whole_range(map: &str) -> bool {
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

/// Calls `number` with arguments that no kernel accepts, and sees whether it got as far as looking at them.
fn answer(number: libc::c_long) -> Answer {
    // SAFETY: with a null pointer as its structure neither `bpf` nor `perf_event_open` does anything but fail,
    // whatever the other arguments are; no memory of ours is passed.
    let result = unsafe { libc::syscall(number, 0, 0, 0, 0, 0) };
    match (result, Errno::last()) {
        (-1, Errno::ENOSYS) => Answer::Missing,
        (-1, Errno::EPERM | Errno::EACCES) => Answer::Refused,
        _ => Answer::Allowed,
    }
}

/// The mount of `/proc` in a `mountinfo` file: the last one, which hides those before it; `None` if there is none.
fn proc_mount(mountinfo: &str) -> Option<ProcMount> {
    // A mount that the crate does not understand does not keep the others from being found.
    let mut mounts = mountinfo.lines().rev().filter_map(|line| MountInfo::from_line(line).ok());
    let options = mounts.find(|mount| mount.mount_point == Path::new("/proc"))?.super_options;
    let value = |name| options.get(name).cloned().flatten();
    Some(ProcMount {
        // 0 and `off` hide nothing.
        hidepid: value("hidepid").filter(|value| !matches!(value.as_str(), "0" | "off")),
        only_processes: value("subset").is_some_and(|subset| subset == "pid"),
    })
}

/// A namespace, as its file tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceFile {
    /// The device that it lies on, as the kernel itself numbers it.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

/// The first PID namespace (`PROC_PID_INIT_INO` of <linux/proc_ns.h>).
const FIRST_PID_NAMESPACE: u64 = 4_026_531_836;

/// The PID namespace that this process runs in; `None` where that is the first one, whose ids are those that the kernel
/// itself goes by.
///
/// # Errors
/// When `/proc` does not tell.
pub fn pid_namespace() -> io::Result<Option<NamespaceFile>> {
    let file = fs::metadata("/proc/self/ns/pid")?;
    // User space is told the number of a device in another order.
    let device = u64::from(libc::major(file.st_dev())) << 20 | u64::from(libc::minor(file.st_dev()));
    Ok((file.st_ino() != FIRST_PID_NAMESPACE).then_some(NamespaceFile { device, inode: file.st_ino() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc_file::status_with;

    #[test]
    fn options_of_last_proc_mount_are_found() {
        let line = "22 28 0:20 / /proc rw,nosuid shared:5 - proc proc rw";
        let hidden = "91 28 0:20 / /proc rw - proc proc rw,gid=4,hidepid=invisible,subset=pid";
        let mount = |hidepid: Option<&str>, only_processes| {
            Some(ProcMount { hidepid: hidepid.map(str::to_owned), only_processes })
        };
        assert_eq!(proc_mount(line), mount(None, false));
        assert_eq!(proc_mount(&format!("{line}\n{hidden}\n")), mount(Some("invisible"), true));
        assert_eq!(proc_mount(&format!("{line},hidepid=0")), mount(None, false));
        // A line that is not understood hides no other one.
        assert_eq!(proc_mount(&format!("{hidden}\n?\n")), mount(Some("invisible"), true));
        assert_eq!(proc_mount("1 2 0:3 / / rw - ext4 /dev/sda rw"), None);
    }

    #[test]
    fn sets_and_maps_are_read_bit_by_bit() {
        let status = status_with(&["Name:\tSeccomp: 2", "Seccomp:\t0", "CapEff:\t0000000000080000"]);
        assert_eq!((status.seccomp, status.capbnd), (Some(0), None));
        let set = CapabilitySet(status.capeff);
        assert!(set.has(19) && !set.has(18) && !set.has(20));
        assert!(is_whole_range("         0          0 4294967295\n"));
        assert!(!is_whole_range("         0       1000          1\n") && !is_whole_range(""));
    }

    #[test]
    fn this_host_is_understood() {
        let host = Host::look();
        assert!(host.kernel.starts_with(|first: char| first.is_ascii_digit()), "{}", host.kernel);
        assert_eq!(host.user.uid, nix::unistd::geteuid().as_raw());
        assert!(host.proc_mount.is_some());
    }
}
