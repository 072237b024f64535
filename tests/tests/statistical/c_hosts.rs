//! Threads of C code that call Python now and then have their shares of CPU time.

use anyhow::{Result, ensure};
use profiler_tests::statistics::Parts;
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::{TimedRecording, expectation, test};

/// So much a share may be off and not be found with a probability of 1 %, at most.
const MUST_FIND: f64 = 0.15;

fn calls_from_c_threads_have_their_share(case: &Case) -> Result<()> {
    // As many samples by both samplers. The fewer calls, the more often the thread is met between two of them.
    let (seconds, share, rate) = match case.sampler() {
        Sampler::Bpf => ("2", "0.25", 4000.0),
        Sampler::Pause | Sampler::Peek => ("2.4", "0.5", 1000.0),
    };
    let options = case.sampler_words();
    let arguments = ["--seconds", seconds, "--share", share];
    let recording = TimedRecording::of(case.interpreter, "c_hosts/callbacks.py", &arguments, rate, &options)?;
    let names: Vec<String> = serde_json::from_value(expectation("c_hosts")?["python"].clone())?;
    let (mut parts, mut all) = (Parts::default(), 0.0);
    for name in &names {
        let sampled = recording.sampled(|sample| sample.has(name));
        parts.add(name, recording.counted("python", name)?, sampled);
        all += sampled;
    }
    parts.add_number(recording.effective_number(all));
    let about = format!("calls from C threads on {case}");
    ensure!(parts.finds() <= MUST_FIND, "{about}: undecided, it would miss a bias of {:.3}", parts.finds());
    parts.judge(&about, None, 0.0)
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(calls_from_c_threads_have_their_share).on(On::Layouts).by(PAUSE_AND_BPF)]
}
