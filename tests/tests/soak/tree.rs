//! Storms of short-lived children, one after the other.

use anyhow::Result;
use profiler_os::ProcessEvents;
use profiler_tests::place::can_put_elsewhere;
use profiler_tests::suite::{Case, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::test;
use profiler_tests::tree::Storm;
use profiler_tests::{Profiler, soak};

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

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(storms_of_children_are_counted).by(&[Sampler::Pause, Sampler::Bpf, Sampler::Peek]),
        test!(storms_are_counted_without_process_events).by(PAUSE_AND_BPF),
    ]
}
