//! What doctor finds out. How it is said is the business of `text` and `json`.

use std::io;
use std::path::PathBuf;

use profiler_dump::{Examination, examine};
use profiler_memory::ReadError;
use profiler_model::{NsTid, Pid, Tid};
use profiler_os::UserName;
use profiler_os::host::Host;
use profiler_os::self_test::{SelfTest, rehearse};
use profiler_os::{KernelSymbols, KernelSymbolsError, Process, StopError};
use profiler_profile::CapturePolicy;
use profiler_sampler::{MAX_RUNTIMES, SamplerKind, SamplerOptions};
use profiler_target::Target;

use crate::attach::{attach, expect_free, expect_own_proc, expect_tracing};
use crate::failure::{CONTAINER_ADVICE, Failure, quoted};
use crate::sampling::{BpfObstacle, Wanted, load, unnamed};

/// To see whether it works.
const ONCE_A_SECOND: SamplerOptions = SamplerOptions {
    rate_hz: 1.0,
    kind: SamplerKind::Bpf,
    policy: CapturePolicy::Running,
    max_cpu: 1.0,
    native: false,
};

/// The number of `CAP_SYS_PTRACE`.
const SYS_PTRACE: u32 = 19;
/// The number of `CAP_SYS_NICE`.
const SYS_NICE: u32 = 23;

/// Everything that was found out.
pub struct Report {
    /// What the host allows.
    pub host: Host,
    /// What could be done to a child process of our own; the error where none could be started.
    pub self_test: io::Result<SelfTest>,
    /// What stands in the way of sampling inside the kernel; nothing where that works.
    pub in_kernel: Result<(), BpfObstacle>,
    /// Why functions of the kernel have no names; nothing where they have.
    pub kernel_names: Result<(), KernelSymbolsError>,
    /// The process that was asked about, if it exists.
    pub process: Option<ProcessReport>,
    /// What stands in the way of `record`; nothing where it would work.
    pub obstacles: Vec<Failure>,
    /// What would make it better.
    pub hints: Vec<Failure>,
}

/// A process.
pub struct ProcessReport {
    /// Its id.
    pub pid: Pid,
    /// The command it was started with.
    pub command_line: String,
    /// The path of its executable, as it sees it.
    pub executable: Option<PathBuf>,
    /// Who runs it.
    pub user: Option<UserName>,
    /// The letter of its state.
    pub state: u8,
    /// Who traces it.
    pub tracer: Option<Pid>,
    /// Its id in its own PID namespace, where that is another one.
    pub inner_pid: Option<NsTid>,
    /// Whether it is in our PID, mount and user namespaces, where that may be seen.
    pub shares: Shares,
    /// Its root folder, seen from here, where that may be seen.
    pub root: Option<PathBuf>,
    /// How many kernel threads it has.
    pub kernel_threads: usize,
    /// Its Python, where one was found.
    pub python: Option<PythonReport>,
}

/// Which namespaces are ours as well.
#[derive(Clone, Copy)]
pub struct Shares {
    pub pid: Option<bool>,
    pub mount: Option<bool>,
    pub user: Option<bool>,
}

/// A Python.
pub struct PythonReport {
    /// Its version.
    pub version: String,
    /// What was seen of it; the error where it could not be walked.
    pub examination: Result<Examination, String>,
}

impl Report {
    /// Finds out about this host, and about a process.
    pub fn of(pid: Option<Pid>) -> Self {
        // While there is one thread: a child is forked.
        let self_test = rehearse();
        let host = Host::look();
        let mut obstacles = Vec::new();
        obstacles.extend(expect_own_proc().err());
        obstacles.extend(host_obstacle(&host, &self_test));
        let process = pid.and_then(|pid| examined(pid, &host, &mut obstacles));
        // One thing after the other.
        let mut hints = if obstacles.is_empty() { hints(&host) } else { Vec::new() };
        let in_kernel = load(&ONCE_A_SECOND, Wanted::default()).map(drop);
        let kernel_names = KernelSymbols::are_shown();
        if let (true, Ok(()), Err(trouble)) = (obstacles.is_empty(), &in_kernel, &kernel_names) {
            hints.push(unnamed(trouble));
        }
        Report { host, self_test, in_kernel, kernel_names, process, obstacles, hints }
    }

    /// Whether threads can be stopped here, as far as it was tried.
    pub fn can_stop(&self) -> bool {
        self.self_test.as_ref().is_ok_and(|self_test| self_test.stops.is_ok())
    }

    /// Whether memory can be read here.
    pub fn can_read(&self) -> bool {
        self.self_test.as_ref().is_ok_and(|self_test| self_test.reads)
    }
}

/// What keeps even a child process of our own from being sampled.
fn host_obstacle(host: &Host, self_test: &io::Result<SelfTest>) -> Option<Failure> {
    let failure = match self_test {
        Err(error) => return Some(Failure::new(format!("no child process could be started: {error}"))),
        Ok(SelfTest { reads: false, .. }) => {
            Failure::new("the memory of processes may not be read here, not even of a child process")
        }
        Ok(SelfTest { stops: Err(_), .. }) if expect_tracing(SamplerKind::Pause).is_err() => {
            return expect_tracing(SamplerKind::Pause).err();
        }
        Ok(SelfTest { stops: Err(StopError::NotPermitted), .. }) => {
            Failure::new("processes may not be stopped here (ptrace), not even a child process")
                .with_advice("--nonblocking, which stops nothing")
        }
        Ok(SelfTest { stops: Err(error), .. }) => {
            Failure::new(format!("a child process could not be stopped: {error}"))
                .with_advice("--nonblocking, which stops nothing")
        }
        Ok(SelfTest { stops: Ok(()), .. }) => return None,
    };
    Some(with_host_advice(failure, host))
}

fn with_host_advice(failure: Failure, host: &Host) -> Failure {
    match host.ptrace_scope {
        Some(3) => {
            failure.with_advice("boot with kernel.yama.ptrace_scope below 3: it cannot be lowered from 3")
        }
        Some(2) => rights(host).into_iter().fold(failure, Failure::with_advice),
        _ if host.has_filter || host.container.is_some() => failure
            .with_advice(CONTAINER_ADVICE)
            .with_advice("docker run --security-opt seccomp=unconfined ..."),
        _ => failure.with_advice("dmesg or the audit log (ausearch -m avc): a security module may refuse it"),
    }
}

/// What gives the right to look into processes of others.
fn rights(host: &Host) -> Vec<String> {
    if !host.bounding.has(SYS_PTRACE) {
        return vec![CONTAINER_ADVICE.to_owned()];
    }
    let binary = std::env::current_exe().map_or_else(|_| "profiler".into(), |path| path.into_os_string());
    let binary = quoted(&binary.to_string_lossy());
    vec![
        format!("sudo {binary} ..."),
        format!(
            "sudo setcap cap_sys_ptrace,cap_sys_nice=ep {binary}, which lets all users of this binary look \
             into all processes"
        ),
    ]
}

fn hints(host: &Host) -> Vec<Failure> {
    let mut hints = Vec::new();
    if !host.effective.has(SYS_PTRACE) {
        let hint = Failure::new("without CAP_SYS_PTRACE only processes of your own can be recorded");
        hints.push(rights(host).into_iter().fold(hint, Failure::with_advice));
    } else if !host.effective.has(SYS_NICE) {
        let hint = "without CAP_SYS_NICE stops are longer when more threads want to run than there are CPUs";
        let capability = if host.container.is_some() {
            "docker run --cap-add SYS_NICE ... (Kubernetes: securityContext.capabilities.add: [\"SYS_NICE\"])"
        } else {
            "the capability CAP_SYS_NICE (root has it)"
        };
        hints.push(Failure::new(hint).with_advice(capability));
    }
    if host.ptrace_scope == Some(1) && !host.effective.has(SYS_PTRACE) {
        hints.push(
            Failure::new(
                "kernel.yama.ptrace_scope is 1: of your own processes only children can be recorded",
            )
            .with_advice("sudo sysctl kernel.yama.ptrace_scope=0 (until the next boot)"),
        );
    }
    if host.proc_mount.as_ref().is_some_and(|mount| mount.hidepid.is_some()) {
        hints.push(
            Failure::new("/proc hides the processes of others (hidepid)")
                .with_advice("sudo mount -o remount,hidepid=0 /proc"),
        );
    }
    hints
}

/// How often a Python is looked at whose lists change.
const MAX_LOOKS: usize = 5;

/// A look at a Python, of which others are made where it fails: its lists may just be changing.
fn examine_again(target: &Target) -> Result<Examination, ReadError> {
    for _ in 1..MAX_LOOKS {
        match examine(target) {
            Err(ReadError::Unmapped(_) | ReadError::BrokenList(_)) => std::thread::yield_now(),
            result => return result,
        }
    }
    examine(target)
}

fn unreadable(pid: Pid, error: &ReadError) -> Failure {
    match error {
        ReadError::ProcessEnded => Failure::new(format!("process {pid} is ending or has ended")),
        _ => Failure::new(format!(
            "the lists of interpreters and threads of process {pid} cannot be read: {error}"
        ))
        .with_advice(
            "again; if that does not help, the memory of the process is damaged, and a restart helps",
        ),
    }
}

/// The process, unless there is none, and what stands in the way of recording it.
fn examined(pid: Pid, host: &Host, obstacles: &mut Vec<Failure>) -> Option<ProcessReport> {
    let process = Process::new(pid);
    let mut python = None;
    match attach(pid) {
        Ok(target) => {
            obstacles.extend(expect_free(pid, SamplerKind::Pause).err());
            let examination = examine_again(&target);
            obstacles.extend(examination.as_ref().err().map(|error| unreadable(pid, error)));
            let examination = examination.map_err(|error| error.to_string());
            python = Some(PythonReport { version: target.version_text(), examination });
        }
        // Said already of the host.
        Err(failure) if obstacles.contains(&failure) => {}
        Err(failure) if process.user().is_some_and(|user| user != host.user.uid) => {
            let more = rights(host).into_iter().skip(1);
            let new: Vec<_> = more.filter(|advice| !failure.advice().contains(advice)).collect();
            obstacles.push(match host.effective.has(SYS_PTRACE) {
                true => failure,
                false => new.into_iter().fold(failure, Failure::with_advice),
            });
        }
        Err(failure) => obstacles.push(failure),
    }
    let shares = Shares {
        pid: process.shares_namespace("pid"),
        mount: process.shares_namespace("mnt"),
        user: process.shares_namespace("user"),
    };
    let inner_pid = process.inner_thread_id(Tid::new(pid.as_u32())).ok();
    Some(ProcessReport {
        pid,
        command_line: process.command_line().unwrap_or_default(),
        executable: process.executable().ok(),
        user: process.user().map(UserName::of),
        state: process.state()?,
        tracer: process.tracer(),
        inner_pid: inner_pid.filter(|inner| inner.as_u32() != pid.as_u32()),
        shares,
        root: process.root_folder().ok(),
        kernel_threads: process.threads().map_or(0, |threads| threads.len()),
        python,
    })
}

/// Whether a Python is sampled that has this place among those beside the first one.
pub fn is_sampled(place: usize) -> bool {
    place + 1 < MAX_RUNTIMES
}
