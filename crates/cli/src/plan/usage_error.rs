//! Why a command line is refused.

use profiler_model::Pid;

use super::limits::{MAX_DELAY, MAX_MIN_WAIT, MAX_PID, MAX_RATE_HZ, MIN_CPU_PERCENT, MIN_DELAY, MIN_RATE_HZ};

/// Why a command line is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// Something of py-spy's that this profiler does not have yet.
    #[error("{0} is not there yet: this version cannot {1}")]
    NotYet(&'static str, &'static str),
    /// Neither a process nor a command.
    #[error("nothing to profile: give --pid or, after --, a command to run")]
    NoSubject,
    /// Both of them.
    #[error("give either --pid or a command to run, not both")]
    TwoSubjects,
    /// `dump` without a process.
    #[error("nothing to look into: give --pid or --core")]
    NoPid,
    /// No process has such a number.
    #[error("{0:?} is no process id: a number from 1 to {max}, decimal or 0xhex, is", max = MAX_PID)]
    BadPid(String),
    /// The profiler cannot stop itself and go on.
    #[error("process {0} is this profiler itself")]
    OwnPid(Pid),
    /// The samplers outside of the kernel see nothing of it.
    #[error(
        "{0} does not see what threads do in the kernel, which --kernel asks for: give --sampler bpf, or leave the choice \
         to the profiler"
    )]
    KernelFromOutside(&'static str),
    /// The format shows each thread in time.
    #[error(
        "--merge-processes does not go with -f {0}, which shows what each thread did when; raw, flamegraph and speedscope can"
    )]
    CannotMerge(&'static str),
    /// Not a rate.
    #[error("{0:?} is no rate: a number of samples per second from {min} to {max} is", min = MIN_RATE_HZ, max = MAX_RATE_HZ)]
    BadRate(String),
    /// Not a share of a core.
    #[error(
        "invalid CPU limit {0:?} (--max-cpu): expected a number of percent from {MIN_CPU_PERCENT} to 100"
    )]
    BadMaxCpu(String),
    /// Not a delay between pictures.
    #[error("{0:?} is no delay: a number of seconds from {min} to {max} is", min = MIN_DELAY.as_secs_f64(), max = MAX_DELAY.as_secs())]
    BadDelay(String),
    /// Not the length of a wait.
    #[error("{0:?} is no shortest wait: a number of seconds from 0 to {max} is", max = MAX_MIN_WAIT.as_secs())]
    BadMinWait(String),
    /// Not a duration.
    #[error("{0:?} is no duration: a number of seconds above 0 or \"unlimited\" is")]
    BadDuration(String),
}
