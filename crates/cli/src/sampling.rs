//! Which sampler takes the samples: the one that was asked for, else the best one that is possible here; and why.

use profiler_model::{Nanos, Pid};
use profiler_os::{BpfRestriction, KernelSymbolsError, Process, Restriction, first_event, limits};
use profiler_profile::CapturePolicy;
use profiler_sampler::{BpfError, BpfProgram, KernelNames, SamplerKind, SamplerOptions, Session};

use crate::failure::Failure;
use crate::flags::Mode;
use crate::messages::say;

/// Which time counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// What of a thread's time.
    pub mode: Mode,
    /// Waits shorter than this are told in sum.
    pub min_wait: Nanos,
    /// Whether what threads do in the kernel is shown as well.
    pub kernel_frames: bool,
    /// Of which process, if that is there already.
    pub of: Option<Pid>,
}

/// How samples are taken.
pub struct Sampling {
    /// The options, with the sampler that was chosen.
    pub options: SamplerOptions,
    /// The in-kernel program, loaded, where it takes them.
    kernel: Option<BpfProgram>,
    /// Why another one was not taken.
    instead: Option<String>,
}

impl Sampling {
    /// By the sampler `choice`, or the best one, for what `wanted` counts.
    ///
    /// # Errors
    /// When the one that was asked for is not possible here, with what to try.
    pub fn choose(
        choice: Option<SamplerKind>,
        wanted: Wanted,
        options: SamplerOptions,
    ) -> Result<Self, Failure> {
        let sampling = Self::possible(choice, wanted, options)?;
        if sampling.options.kind != SamplerKind::Bpf || sampling.options.policy != CapturePolicy::Running {
            // What is looked at from outside is proved by the kernel's clocks of threads.
            first_event::prepare();
        }
        Ok(sampling)
    }

    fn possible(
        choice: Option<SamplerKind>,
        wanted: Wanted,
        options: SamplerOptions,
    ) -> Result<Self, Failure> {
        let load = || load(&options, wanted);
        match choice {
            None if wanted.mode != Mode::OffCpu && !wanted.kernel_frames => Ok(match load() {
                Ok(kernel) => Sampling::in_kernel(kernel, options),
                Err(obstacle) => Sampling {
                    options: SamplerOptions { kind: SamplerKind::Pause, ..options },
                    kernel: None,
                    instead: Some(format!("not bpf, as {obstacle}")),
                },
            }),
            None | Some(SamplerKind::Bpf) => {
                let kernel = load().map_err(|obstacle| obstacle.failure(wanted))?;
                Ok(Sampling::in_kernel(kernel, options))
            }
            Some(_) if wanted.mode == Mode::OffCpu => {
                Err(Failure::new("how long threads wait is told by the kernel's scheduler alone")
                    .with_advice("--sampler bpf")
                    .with_advice(ASKING_INSTEAD))
            }
            Some(kind) => {
                Ok(Sampling { options: SamplerOptions { kind, ..options }, kernel: None, instead: None })
            }
        }
    }

    fn in_kernel(kernel: BpfProgram, options: SamplerOptions) -> Self {
        let options = SamplerOptions { kind: SamplerKind::Bpf, ..options };
        Sampling { options, kernel: Some(kernel), instead: None }
    }

    /// The same for a process without Python, if it is one: the in-kernel program does not unwind native code.
    ///
    /// # Errors
    /// When the in-kernel sampler was asked for, by itself or by what only it can do.
    pub fn fit(self, is_native: bool, choice: Option<SamplerKind>, wanted: Wanted) -> Result<Self, Failure> {
        if !is_native || self.options.kind != SamplerKind::Bpf {
            return Ok(self);
        }
        const WHY: &str = "the in-kernel sampler does not unwind native code yet";
        if choice.is_some() || wanted.mode != Mode::Cpu || wanted.kernel_frames {
            let failure = Failure::new(format!("the process has no Python, and {WHY}"));
            return Err(failure.with_advice("--sampler pause, without --mode and --kernel"));
        }
        first_event::prepare();
        let options = SamplerOptions { kind: SamplerKind::Pause, ..self.options };
        let instead = Some(format!("not bpf, as {}", WHY));
        Ok(Sampling { options, kernel: None, instead })
    }

    /// Has `session` take its samples in this way.
    pub fn begin(self, session: &mut Session) {
        if let Some(kernel) = self.kernel {
            session.sample_by(kernel);
        }
    }
}

impl std::fmt::Display for Sampling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.options.kind {
            SamplerKind::Bpf => "sampler: bpf, inside the kernel: nothing is stopped",
            SamplerKind::Pause => "sampler: pause, which stops one thread for some microseconds",
            SamplerKind::Peek => "sampler: peek: nothing is stopped, what cannot be proved is lost",
        })?;
        match &self.instead {
            Some(reason) => write!(f, "; {reason}"),
            None => Ok(()),
        }
    }
}

/// What can be had where the kernel's scheduler tells nothing.
const ASKING_INSTEAD: &str =
    "--mode wall, which with --sampler pause asks now and then what each thread does";

/// What stands in the way of the in-kernel sampler.
#[derive(Debug, thiserror::Error)]
pub enum BpfObstacle {
    /// The process is in a PID namespace within ours, and the kernel does not tell ours.
    #[error(
        "the process is in another PID namespace than the profiler, which is in one itself; its ids are known only where \
         the kernel describes its types (/sys/kernel/btf/vmlinux) and is Linux 5.10 or later"
    )]
    NestedNamespace,
    /// The kernel refuses such programs, by this rule.
    #[error("{}", rule(.0))]
    Refused(BpfRestriction),
    /// Something else.
    #[error("{0}")]
    Kernel(BpfError),
}

impl BpfObstacle {
    fn failure(&self, wanted: Wanted) -> Failure {
        let (needed_by, else_try) = match (wanted.mode, wanted.kernel_frames) {
            (Mode::OffCpu, _) => (", which --mode off-cpu needs,", ASKING_INSTEAD),
            (_, true) => (
                ", which --kernel needs,",
                "the same without --kernel: that needs no more than the right to trace",
            ),
            (_, false) => ("", "--sampler pause, which needs no more than the right to trace"),
        };
        let failure = Failure::new(format!("the in-kernel sampler{needed_by} cannot be taken: {self}"));
        let failure = match self {
            BpfObstacle::NestedNamespace => failure.with_advice("the same outside of the container"),
            BpfObstacle::Refused(rule) => advice(rule).into_iter().fold(failure, Failure::with_advice),
            BpfObstacle::Kernel(error) => {
                kernel_advice(error).into_iter().fold(failure, Failure::with_advice)
            }
        };
        failure.with_advice(else_try)
    }
}

/// What the rule says, as the end of a sentence.
fn rule(obstacle: &BpfRestriction) -> String {
    match obstacle {
        BpfRestriction::Capabilities(missing) => {
            let missing = missing.join(" and ");
            format!("that takes root, or the capabilities CAP_BPF and CAP_PERFMON; missing here: {missing}")
        }
        BpfRestriction::UserNamespace => {
            "this is a user namespace, as of a rootless container: its capabilities, \
                                           also root's, count inside only"
                .to_owned()
        }
        BpfRestriction::SystemCallFilter(calls) => {
            format!("a system call filter (seccomp) refuses {}", calls.join(" and "))
        }
        BpfRestriction::NotBuilt(calls) => format!("the kernel was built without {}", calls.join(" and ")),
        BpfRestriction::LockedMemory(limit) => format!(
            "this kernel (before Linux 5.11) counts what programs keep as locked memory, of which only {limit} bytes \
             may be had"
        ),
        BpfRestriction::Paranoid(level) => format!(
            "kernel.perf_event_paranoid is {level}: this kernel then gives clocks to root and CAP_SYS_ADMIN only"
        ),
        BpfRestriction::Lockdown => {
            "the kernel is locked down for confidentiality and lets no program read memory".to_owned()
        }
    }
}

fn advice(obstacle: &BpfRestriction) -> Vec<&'static str> {
    match obstacle {
        BpfRestriction::Capabilities(_) => {
            vec![
                "sudo",
                "docker run --cap-add BPF --cap-add PERFMON --cap-add SYS_PTRACE ..., where it is a container",
            ]
        }
        BpfRestriction::UserNamespace => vec!["the same as root outside of the container"],
        BpfRestriction::SystemCallFilter(_) => vec![
            "docker run --security-opt seccomp=unconfined ... (Kubernetes: securityContext.seccompProfile.type: \
             Unconfined)",
            "SystemCallFilter=bpf perf_event_open, where it is a service of systemd",
        ],
        BpfRestriction::NotBuilt(_) => vec!["a kernel with CONFIG_BPF_SYSCALL and CONFIG_PERF_EVENTS"],
        BpfRestriction::LockedMemory(_) => vec![
            "sudo",
            "ulimit -Hl unlimited (as root), LimitMEMLOCK=infinity of a service, or the capability CAP_SYS_RESOURCE",
        ],
        BpfRestriction::Paranoid(_) => vec!["sudo", "sudo sysctl kernel.perf_event_paranoid=2"],
        BpfRestriction::Lockdown => {
            vec!["a kernel that is started with lockdown=integrity or without lockdown"]
        }
    }
}

fn kernel_advice(error: &BpfError) -> Vec<&'static str> {
    match error {
        _ if error.is_out_of_files() => vec!["ulimit -Hn 4096 (as root), or LimitNOFILE=4096 of a service"],
        BpfError::Types(_) | BpfError::Switches => vec!["--mode cpu, which needs nothing of that"],
        BpfError::Namespace(_) => vec!["mount -t proc proc /proc"],
        BpfError::Cpus(_) => vec!["mount -t sysfs sysfs /sys"],
        _ if error.is_permission() => {
            vec!["dmesg or the audit log (ausearch -m avc), which tell what security modules refuse"]
        }
        _ => Vec::new(),
    }
}

/// The in-kernel program, loaded and ticking.
///
/// # Errors
/// When that is not possible.
pub fn load(options: &SamplerOptions, wanted: Wanted) -> Result<BpfProgram, BpfObstacle> {
    let start = |mut kernel: BpfProgram| {
        if wanted.mode != Mode::OffCpu {
            kernel.start(Nanos::from_nanos((1e9 / options.rate_hz) as u64))?;
        }
        Ok(kernel)
    };
    let names = wanted.kernel_frames.then(kernel_names);
    // Each CPU takes some.
    limits::want_many_files();
    let loaded = match wanted.mode {
        Mode::Cpu => BpfProgram::load(names),
        Mode::Wall | Mode::Gil | Mode::OffCpu => BpfProgram::load_with_off_cpu(names, wanted.min_wait),
    };
    let loaded = loaded.and_then(start).map_err(obstacle)?;
    match wanted.of.is_none_or(|pid| loaded.knows(Process::new(pid))) {
        true => Ok(loaded),
        false => Err(BpfObstacle::NestedNamespace),
    }
}

/// The rule behind an error, where it is known.
fn obstacle(error: BpfError) -> BpfObstacle {
    let is_refused = error.is_permission() || error.is_missing_call();
    let by_rule = || is_refused.then(BpfRestriction::in_force).flatten();
    let by_another = || match error {
        _ if error.is_of_event() => is_refused.then(BpfRestriction::of_events).flatten(),
        // What is locked down is not told as a missing right.
        BpfError::Load(_) | BpfError::Program(_) | BpfError::Event(..) => {
            BpfRestriction::of_programs().filter(|rule| is_refused || *rule == BpfRestriction::Lockdown)
        }
        _ => None,
    };
    match by_rule().or_else(by_another) {
        Some(rule) => BpfObstacle::Refused(rule),
        None => BpfObstacle::Kernel(error),
    }
}

/// The names of the kernel's functions. That there are none is said, and no reason to fail: how much of its time a thread
/// spends in the kernel is known all the same.
fn kernel_names() -> KernelNames {
    let (names, trouble) = KernelNames::read();
    if let Some(trouble) = trouble {
        say(format_args!("{}", unnamed(&trouble)));
    }
    names
}

/// That the kernel's functions have no names, why, and what would help.
pub fn unnamed(trouble: &KernelSymbolsError) -> Failure {
    let failure = Failure::new(format!(
        "functions of the kernel are shown as [kernel], without their names: {trouble}"
    ));
    let KernelSymbolsError::Hidden(restriction) = trouble else { return failure };
    let sudo = "sudo, or the capability CAP_SYSLOG";
    match restriction {
        Restriction::ForEverybody => {
            failure.with_advice("sudo sysctl kernel.kptr_restrict=1 (root and CAP_SYSLOG may see them then)")
        }
        Restriction::WithoutCapability => failure.with_advice(sudo).with_advice(
            "sudo sysctl kernel.kptr_restrict=0 kernel.perf_event_paranoid=1 (everybody may see them then)",
        ),
        Restriction::Paranoid => failure
            .with_advice(sudo)
            .with_advice("sudo sysctl kernel.perf_event_paranoid=1 (everybody may see them then)"),
        Restriction::Unknown => failure.with_advice(sudo),
    }
}
