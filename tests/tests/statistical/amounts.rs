//! Shares of CPU time are those that the program has counted itself: one recording per interpreter and sampler, judged by
//! all statements about shares.

use anyhow::{Context, Result, ensure};
use profiler_tests::statistics::Parts;
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::{TimedRecording, WeightedSample, expectation, test};

const PROGRAM: &str = "amounts/amounts.py";

/// So much a share may be off and not be found with a probability of 1 %, at most: else more is recorded.
const MUST_FIND: f64 = 0.12;

/// How often the program is recorded at most. It is recorded again where a recording has too few samples, whatever they say.
const MOST_RECORDINGS: usize = 3;

/// The same at 100 Hz, where samples are few.
const MUST_FIND_SELDOM: f64 = 0.2;

/// Samples per second. `pause` is not asked for more than it does without lowering its rate.
fn rate(sampler: Sampler) -> f64 {
    if sampler == Sampler::Bpf { 4000.0 } else { 1000.0 }
}

/// What is recorded of the program, and how it is judged.
struct Plan<'a> {
    arguments: &'a [&'a str],
    rate: f64,
    must_find: f64,
    /// What a share may be off besides what chance explains.
    systematic: f64,
}

/// Records the program until its recordings find what they must, and judges them.
fn judge(
    case: &Case,
    plan: &Plan<'_>,
    parts_of: impl Fn(&TimedRecording, &mut Vec<(&'static str, Parts)>) -> Result<()>,
) -> Result<()> {
    let mut statements: Vec<(&'static str, Parts)> = Vec::new();
    for _ in 0..MOST_RECORDINGS {
        let sampler = case.sampler_words();
        let recording = TimedRecording::of(case.interpreter, PROGRAM, plan.arguments, plan.rate, &sampler)?;
        parts_of(&recording, &mut statements)?;
        if statements.iter().all(|(_, parts)| parts.finds() <= plan.must_find) {
            break;
        }
    }
    for (statement, parts) in &statements {
        let about = format!("{statement} on {} by {}", case.interpreter.id, case.sampler());
        ensure!(
            parts.finds() <= plan.must_find,
            "{about}: undecided, it would miss a bias of {:.3}",
            parts.finds()
        );
        let pool = (plan.systematic == 0.0).then(|| format!("{statement} by {}", case.sampler()));
        parts.judge(&about, pool.as_deref(), plan.systematic)?;
    }
    Ok(())
}

/// The parts of a statement; they are added to those of earlier recordings.
fn statement<'a>(statements: &'a mut Vec<(&'static str, Parts)>, about: &'static str) -> &'a mut Parts {
    let at = statements.iter().position(|(other, _)| *other == about).unwrap_or_else(|| {
        statements.push((about, Parts::default()));
        statements.len() - 1
    });
    &mut statements[at].1
}

fn names(list: &str) -> Result<Vec<String>> {
    let expected = expectation("amounts")?;
    Ok(serde_json::from_value(expected[list].clone())?)
}

fn functions_and_threads_have_their_shares(case: &Case) -> Result<()> {
    let (functions, threads) = (names("slices")?, names("threads")?);
    // As many samples by both samplers.
    let arguments = match case.sampler() {
        Sampler::Bpf => ["slices=1.2", "threads=0.6"],
        Sampler::Pause | Sampler::Peek => ["slices=2.4", "threads=2"],
    };
    let rate = rate(case.sampler());
    let plan = Plan { arguments: &arguments, rate, must_find: MUST_FIND, systematic: 0.0 };
    judge(case, &plan, |recording, statements| {
        let in_function = |sample: &WeightedSample, name: &str| sample.has(name);
        add(recording, statement(statements, "functions"), "slices", &functions, in_function)?;
        let of_thread =
            |sample: &WeightedSample, name: &str| sample.profile.contains(name) && sample.has("count");
        add(recording, statement(statements, "threads"), "threads", &threads, of_thread)
    })
}

/// Adds a recording's samples and account of some functions or threads.
fn add(
    recording: &TimedRecording,
    parts: &mut Parts,
    part: &str,
    names: &[String],
    is_of: impl Fn(&WeightedSample, &str) -> bool,
) -> Result<()> {
    let mut all = 0.0;
    for name in names {
        let sampled = recording.sampled(|sample| is_of(sample, name));
        parts.add(name, recording.counted(part, name)?, sampled);
        all += sampled;
    }
    parts.add_number(recording.effective_number(all));
    Ok(())
}

fn short_calls_have_the_time_they_take(case: &Case) -> Result<()> {
    let expected = expectation("amounts")?;
    let systematic = expected["calls_at_most_off"].as_f64().context("calls_at_most_off")?;
    let rate = rate(case.sampler());
    let plan = Plan { arguments: &["calls=4"], rate, must_find: MUST_FIND, systematic };
    judge(case, &plan, |recording, statements| {
        let parts = statement(statements, "short calls");
        let sampled = |name: &str| recording.sampled(|sample| sample.has("mixed") && sample.ends_in(name));
        let (calls, spins) = (sampled("call"), sampled("spin"));
        parts.add("call", recording.counted("calls", "only_calls")?, calls);
        parts.add("spin", recording.counted("calls", "only_spins")?, spins);
        parts.add_number(recording.effective_number(calls + spins));
        Ok(())
    })
}

/// Cycles of a program of even intervals.
const CYCLES: [&str; 2] = ["cycle_2ms", "cycle_20ms"];

fn functions_of_cycles_have_their_shares(case: &Case, rate: f64, seconds: u32, must_find: f64) -> Result<()> {
    let functions = names("cycles")?;
    let arguments = CYCLES.map(|cycle| format!("{cycle}={seconds}"));
    let arguments = arguments.each_ref().map(String::as_str);
    let plan = Plan { arguments: &arguments, rate, must_find, systematic: 0.0 };
    judge(case, &plan, |recording, statements| {
        // One part follows the other, so that both have the same functions: together they are one statement.
        let parts = statement(statements, if rate < 1000.0 { "cycles at 100 Hz" } else { "cycles at 1 kHz" });
        let mut all = 0.0;
        for name in &functions {
            let sampled = recording.sampled(|sample| sample.has(name));
            let counted = CYCLES.iter().map(|cycle| recording.counted(cycle, name)).sum::<Result<f64>>()?;
            parts.add(name, counted, sampled);
            all += sampled;
        }
        parts.add_number(recording.effective_number(all));
        Ok(())
    })
}

fn program_of_even_intervals_is_shown_as_it_is(case: &Case) -> Result<()> {
    functions_of_cycles_have_their_shares(case, 1000.0, 2, MUST_FIND)
}

fn program_of_even_intervals_is_shown_as_it_is_at_100_hz(case: &Case) -> Result<()> {
    functions_of_cycles_have_their_shares(case, 100.0, 6, MUST_FIND_SELDOM)
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(functions_and_threads_have_their_shares).on(On::Every).by(PAUSE_AND_BPF),
        test!(short_calls_have_the_time_they_take).by(PAUSE_AND_BPF),
        test!(program_of_even_intervals_is_shown_as_it_is).by(PAUSE_AND_BPF),
        test!(program_of_even_intervals_is_shown_as_it_is_at_100_hz).by(PAUSE_AND_BPF),
    ]
}
