//! The ledger in words: one line for the views that have room for one, and the lines that close every run.

use std::io::{self, Write};

use profiler_model::{Nanos, OtherPython};
use profiler_profile::{Ledger, ProcessCounts};

use crate::escape;

/// How many samples were taken in which time, and how many were lost for which reasons, in one line.
pub fn summary(ledger: &Ledger) -> String {
    let mut text = format!("{} in {}", counted(ledger.shown(), "sample"), duration(ledger.duration()));
    if let Some(interval) = ledger.interval.filter(|interval| *interval > Nanos::ZERO) {
        text += &format!(" ({:.1} Hz asked)", 1.0 / interval.as_secs_f64());
    }
    if ledger.before_python > Nanos::ZERO {
        text += &format!(", no Python in the first {}", ledger.before_python);
    }
    if ledger.not_asked_for() > 0 {
        text += &format!(", {} more not asked for", grouped(ledger.not_asked_for()));
    }
    text = text + "; " + &losses(ledger);
    if ledger.without_kernel_frames() > 0 {
        let stacks = counted(ledger.without_kernel_frames(), "stack");
        text += &format!("; {stacks} without the frames of the kernel, which it did not tell");
    }
    text
}

/// The closing lines of a run.
pub fn write_ledger(ledger: &Ledger, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", summary(ledger))?;
    if let Some(counts) = &ledger.processes {
        writeln!(out, "{}", processes(counts))?;
    }
    for other in &ledger.other_pythons {
        writeln!(out, "{}", not_sampled(other))?;
    }
    writeln!(out, "{}", stops(ledger))?;
    writeln!(out, "{}", cost(ledger))
}

/// `not sampled: another Python in process 4711, CPython 3.12.1 (/usr/lib/libpython3.12.so.1.0)`
fn not_sampled(other: &OtherPython) -> String {
    let (version, path) = (escape::plain(&other.version), escape::plain(&other.path));
    format!("not sampled: another Python in process {}, CPython {version} ({path})", other.pid)
}

/// `lost 12 (0.10 %, 11.20 ms of CPU): 9 thread ended, 3 sampler late`
fn losses(ledger: &Ledger) -> String {
    if ledger.lost() == 0 {
        return "none lost".to_owned();
    }
    let reasons: Vec<String> =
        ledger.losses().iter().map(|(reason, times)| format!("{} {reason}", grouped(*times))).collect();
    let share = 100.0 * ledger.lost() as f64 / ledger.attempts() as f64;
    let cpu = match ledger.lost_cpu() {
        Nanos::ZERO => String::new(),
        cpu => format!(", {} of CPU", duration(cpu)),
    };
    format!("lost {} ({share:.2} %{cpu}): {}", grouped(ledger.lost()), reasons.join(", "))
}

/// `processes: 1,001, of which 990 were sampled, 8 had no Python, 3 ended before they were looked at`
fn processes(counts: &ProcessCounts) -> String {
    let parts = [
        (counts.sampled, "were sampled"),
        (counts.without_python, "had no Python"),
        (counts.not_permitted, "could not be looked into (not permitted)"),
        (counts.missed, "ended before they were looked at"),
    ];
    let told = parts.iter().enumerate().filter(|(index, (count, _))| *index == 0 || *count > 0);
    let told: Vec<String> = told.map(|(_, (count, what))| format!("{} {what}", grouped(*count))).collect();
    format!("processes: {}, of which {}", grouped(counts.found()), told.join(", "))
}

/// `target stopped 12,034 times, 241.00 ms in all (0.2 %), 85.0 µs at most`
fn stops(ledger: &Ledger) -> String {
    if ledger.stops() == 0 {
        return "target never stopped".to_owned() + &interruptions(ledger);
    }
    let mut text = format!(
        "target stopped {}, {} in all{}, {} at most",
        counted(ledger.stops(), "time"),
        ledger.stopped_total(),
        share(ledger.stopped_total(), ledger.duration(), ""),
        ledger.stopped_longest(),
    );
    if ledger.without_stop() > 0 {
        text += &format!("; {} needed no stop", counted(ledger.without_stop(), "instant"));
    }
    text
}

/// `; interrupted 12,034 times, 31.20 ms in all (0.3 %), 11.0 µs at most`, or nothing
fn interruptions(ledger: &Ledger) -> String {
    if ledger.interruptions() == 0 {
        return String::new();
    }
    format!(
        "; interrupted {}, {} in all{}, {} at most",
        counted(ledger.interruptions(), "time"),
        ledger.interrupted_total(),
        share(ledger.interrupted_total(), ledger.duration(), ""),
        ledger.interrupted_longest(),
    )
}

/// `profiler used 1.100 s of CPU (0.9 % of a core), 14 MB; target used 119.8 s of CPU`
fn cost(ledger: &Ledger) -> String {
    format!(
        "profiler used {} of CPU{}{}, {:.0} MB; target used {} of CPU",
        duration(ledger.own_cpu),
        share(ledger.own_cpu, ledger.duration(), " of a core"),
        if ledger.left_real_time { " and gave up its real-time priority for that" } else { "" },
        ledger.own_memory as f64 / 1e6,
        duration(ledger.target_cpu),
    )
}

/// ` (0.2 %…)`, or nothing where there is no whole to have a share of.
fn share(part: Nanos, whole: Nanos, of: &str) -> String {
    match whole {
        Nanos::ZERO => String::new(),
        whole => format!(" ({:.1} %{of})", 100.0 * part.as_secs_f64() / whole.as_secs_f64()),
    }
}

/// Seconds with one decimal where there are many, else what the duration says itself.
fn duration(nanos: Nanos) -> String {
    const MANY_SECONDS: f64 = 10.0;
    match nanos.as_secs_f64() {
        secs if secs >= MANY_SECONDS => format!("{secs:.1} s"),
        _ => nanos.to_string(),
    }
}

/// A number of things: `1 sample`, `12,034 samples`.
fn counted(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// A number with its thousands apart: `12,034`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use profiler_model::{LossReason, Pid, Timestamp};
    use profiler_profile::{
        Event, Held, HeldBy, Loss, Mark, MarkKind, MetricValue, ProcessInfo, Profile, Sample, Scope, Skip,
        ThreadInfo,
    };

    use super::*;

    #[test]
    fn thousands_stand_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    /// A profile of so many samples without any frame.
    fn profile_of(samples: u64) -> Profile {
        let mut profile = Profile::new();
        let process = profile.process(ProcessInfo::default());
        let thread = profile.thread(ThreadInfo {
            key: Default::default(),
            process,
            pthread_id: None,
            name: None,
            is_main: true,
        });
        for _ in 0..samples {
            profile.record(Sample {
                at: Timestamp::default(),
                thread,
                stack: None,
                state: profiler_model::ThreadState::Running,
                holds_gil: true,
                cpu: Nanos::ZERO,
                wall: Nanos::ZERO,
            });
        }
        profile
    }

    #[test]
    fn a_run_closes_with_its_counts_and_costs() {
        let mut profile = profile_of(11_988);
        let (scope, at) = (Scope::Session, Timestamp::from_nanos(120_300_000_005));
        let held =
            |by, duration: u64| Event::Held(Held { at, scope, by, duration: Nanos::from_nanos(duration) });
        let of_ended = Loss::of(LossReason::ThreadEnded, scope, at, 9);
        for event in [
            Event::metric(at, MetricValue::Sampled(Timestamp::from_nanos(5))),
            Event::metric(at, MetricValue::Interval(Nanos::from_nanos(10_000_000))),
            Event::metric(at, MetricValue::OwnCpu(Nanos::from_nanos(1_100_000_000))),
            Event::metric(at, MetricValue::TargetCpu(Nanos::from_nanos(119_800_000_000))),
            Event::metric(at, MetricValue::OwnMemory(14_200_000)),
            Event::loss(LossReason::Late, at, 3),
            Event::Loss(Loss { cpu: Nanos::from_nanos(11_200_000), ..of_ended }),
            held(HeldBy::Stop, 85_000),
        ] {
            profile.add(&event);
        }
        for _ in 0..1000 {
            profile.add(&held(HeldBy::Stop, 20_000));
            profile.add(&held(HeldBy::Nothing, 0));
        }

        let mut text = Vec::new();
        write_ledger(profile.ledger(), &mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "11,988 samples in 120.3 s (100.0 Hz asked); lost 12 (0.10 %, 11.20 ms of CPU): \
             9 thread ended, 3 sampler late\n\
             target stopped 1,001 times, 20.09 ms in all (0.0 %), 85.0 µs at most; 1,000 instants needed no stop\n\
             profiler used 1.100 s of CPU (0.9 % of a core), 14 MB; target used 119.8 s of CPU\n"
        );
    }

    #[test]
    fn profiler_at_its_limit_says_what_it_gave_up() {
        let mut ledger = Ledger::default();
        ledger.period = Some((Timestamp::default(), Timestamp::from_nanos(10_000_000_000)));
        (ledger.own_cpu, ledger.left_real_time) = (Nanos::from_nanos(1_000_000_000), true);
        ledger.add(&Event::loss(LossReason::CpuLimit, Timestamp::default(), 800));
        let text = "profiler used 1.000 s of CPU (10.0 % of a core) and gave up its real-time priority for that, 0 MB; \
                    target used 0 ns of CPU";
        assert_eq!(cost(&ledger), text);
        assert_eq!(losses(&ledger), "lost 800 (100.00 %): 800 profiler at its CPU limit (--max-cpu)");
    }

    #[test]
    fn a_tree_tells_of_its_processes() {
        let counts = ProcessCounts { sampled: 1_001, without_python: 2, not_permitted: 0, missed: 4 };
        assert_eq!(
            processes(&counts),
            "processes: 1,007, of which 1,001 were sampled, 2 had no Python, 4 ended before they were looked at"
        );
        assert_eq!(processes(&ProcessCounts::default()), "processes: 0, of which 0 were sampled");
    }

    #[test]
    fn another_python_is_said_not_to_be_sampled() {
        let mut ledger = Ledger::default();
        let path = "/usr/lib/libpython3.12.so.1.0".to_owned();
        let other = OtherPython { pid: Pid::new(4711), version: "3.12.1".to_owned(), path };
        ledger.other_pythons.insert(other);
        let mut text = Vec::new();
        write_ledger(&ledger, &mut text).unwrap();
        let line =
            "not sampled: another Python in process 4711, CPython 3.12.1 (/usr/lib/libpython3.12.so.1.0)";
        assert_eq!(String::from_utf8(text).unwrap().lines().nth(1), Some(line));
    }

    #[test]
    fn a_run_of_nothing_divides_by_nothing() {
        let mut text = Vec::new();
        write_ledger(&Ledger::default(), &mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "0 samples in 0 ns; none lost\ntarget never stopped\n\
             profiler used 0 ns of CPU, 0 MB; target used 0 ns of CPU\n"
        );
    }

    #[test]
    fn what_is_not_stopped_may_be_interrupted() {
        let mut ledger = Ledger::default();
        ledger.period = Some((Timestamp::default(), Timestamp::from_nanos(1_000_000_000)));
        let (at, by, duration) = (Timestamp::default(), HeldBy::Program, Nanos::from_nanos(3_000));
        let held = Event::Held(Held { at, scope: Scope::Session, by, duration });
        (0..1000).for_each(|_| ledger.add(&held));
        assert_eq!(
            stops(&ledger),
            "target never stopped; interrupted 1,000 times, 3.00 ms in all (0.3 %), 3.0 µs at most"
        );
    }

    #[test]
    fn what_the_kernel_did_not_tell_of_itself_is_no_loss_of_samples() {
        let mut ledger = Ledger::default();
        let (at, scope) = (Timestamp::default(), Scope::Session);
        ledger.add(&Event::Mark(Mark { at, scope, kind: MarkKind::NoKernelFrames }));
        let text =
            "0 samples in 0 ns; none lost; 1 stack without the frames of the kernel, which it did not tell";
        assert_eq!(summary(&ledger), text);
    }

    #[test]
    fn idle_threads_that_nobody_asked_for_are_no_losses() {
        let mut ledger = Ledger::default();
        ledger.add(&Event::Skip(Skip::of(Scope::Session, Timestamp::default(), 1)));
        assert_eq!(summary(&ledger), "0 samples in 0 ns, 1 more not asked for; none lost");
    }
}
