//! Storms of short-lived children, one after the other, and fleets of busy processes.

use anyhow::{Result, ensure};
use profiler_os::ProcessEvents;
use profiler_tests::place::can_put_elsewhere;
use profiler_tests::suite::{Case, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::test;
use profiler_tests::tree::{PROGRAM, Storm, record};
use profiler_tests::{Fixture, Ledger, Profiler, Scratch, soak};

const STORM: Storm = Storm { children: 200, seconds: 2.0, is_reported: true };

fn storms_of_children_are_counted(case: &Case) -> Result<()> {
    let storm = Storm { is_reported: ProcessEvents::listen().is_ok(), ..STORM };
    soak(|| storm.must_be_counted(case.interpreter, Profiler::new("record").words(&case.sampler_words())))
}

/// The kernel reports processes in the network namespace of the machine only; elsewhere they are looked for.
fn storms_are_counted_without_process_events(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let storm = Storm { is_reported: false, ..STORM };
    soak(|| {
        let record = Profiler::within(&["unshare".into(), "--net".into()], "record");
        storm.must_be_counted(case.interpreter, record.words(&case.sampler_words()))
    })
}

/// The share of the samples, shown and late, that came late.
fn late_share(ledger: &Ledger) -> f64 {
    let late = ledger.lost_for("sampler late");
    late as f64 / (late + ledger.shown).max(1) as f64
}

/// The in-kernel program samples only processes that it knows, and two hundred busy threads leave the profiler two CPUs
/// only now and then. Half a second is short: a host that takes a virtual machine's CPUs away for 40 ms makes 8 % of the
/// samples late.
fn busy_fleet_is_known_from_the_start(case: &Case) -> Result<()> {
    const PROCESSES: u64 = 50;
    const MOST_LATE: f64 = 0.05;
    let scratch = Scratch::new()?;
    let number = PROCESSES.to_string();
    let fixture = Fixture::start(case.interpreter, PROGRAM, &["fleet", &number, "--threads", "4"])?;
    let run = record(&scratch, &case.sampler_words()).words("-d 0.5").pid(&fixture).succeed()?;
    let ledger = run.ledger()?;
    let counts = ["found", "sampled"].map(|outcome| ledger.processes_of(outcome));
    ensure!(counts == [PROCESSES + 1; 2], "{}", run.stderr);
    ensure!(ledger.shown > 0 && late_share(ledger) <= MOST_LATE, "{}", run.stderr);
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(storms_of_children_are_counted).by(&[Sampler::Pause, Sampler::Bpf, Sampler::Peek]),
        test!(storms_are_counted_without_process_events).by(PAUSE_AND_BPF),
        test!(busy_fleet_is_known_from_the_start).by(&[Sampler::Bpf]),
    ]
}
