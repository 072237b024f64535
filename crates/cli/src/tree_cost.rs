//! What `pause` costs a tree of processes at high rates, said before it begins.

use profiler_model::Pid;
use profiler_sampler::{SamplerKind, SamplerOptions};
use profiler_target::family;

use crate::messages::say;

/// Up to this rate a tree bears `pause`: the cost is within what servers vary by themselves.
const HARMLESS_RATE_HZ: f64 = 250.0;

/// The number of processes, including the first one, from which on several are likely to be busy at the same time.
const SEVERAL_PROCESSES: usize = 3;

/// CPU time that one sample of a busy process takes, in seconds: that of the profiler, and what the process loses because its
/// caches and its turn on the CPU are gone. Measured with servers under load.
const COST_OF_A_SAMPLE: f64 = 100e-6;

/// Says on stderr what sampling the process `pid` and its descendants will cost, and what costs less, where that is much.
pub fn tell(options: &SamplerOptions, subprocesses: bool, pid: Pid) {
    if subprocesses && let Some(line) = cost(options, || family(pid).len()) {
        say(line);
    }
}

/// The line, if `pause` takes more samples a second than several processes bear. They are only counted if it matters.
fn cost(options: &SamplerOptions, processes: impl FnOnce() -> usize) -> Option<String> {
    if options.kind != SamplerKind::Pause || options.rate_hz <= HARMLESS_RATE_HZ {
        return None;
    }
    let processes = processes();
    let share = (100.0 * COST_OF_A_SAMPLE * options.rate_hz).min(100.0);
    (processes >= SEVERAL_PROCESSES).then(|| {
        format!(
            "pause at {} Hz costs about {share:.0} % of a CPU for each busy one of these {processes} processes; \
             less: -r {HARMLESS_RATE_HZ} or lower, or --sampler bpf",
            options.rate_hz
        )
    })
}

#[cfg(test)]
mod tests {
    use profiler_profile::CapturePolicy;

    use super::*;

    fn line(kind: SamplerKind, rate_hz: f64, processes: usize) -> Option<String> {
        cost(
            &SamplerOptions { rate_hz, kind, policy: CapturePolicy::Running, max_cpu: 1.0, native: false },
            || processes,
        )
    }

    #[test]
    fn cost_is_said_of_fast_pause_on_several_processes() {
        let expected = "pause at 1000 Hz costs about 10 % of a CPU for each busy one of these 3 processes; \
                        less: -r 250 or lower, or --sampler bpf";
        assert_eq!(line(SamplerKind::Pause, 1000.0, 3).as_deref(), Some(expected));
        assert_eq!(line(SamplerKind::Pause, 1000.0, 2), None, "a master with one worker");
        assert_eq!(line(SamplerKind::Pause, 250.0, 100), None);
        assert_eq!(line(SamplerKind::Bpf, 1000.0, 100), None);
        assert_eq!(line(SamplerKind::Peek, 1000.0, 100), None, "it stops nothing");
    }
}
