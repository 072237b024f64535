//! Recordings of programs that wait for known things, and what they must show.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::times::{BOUND, CPU, GIL, PAGE, leaf, seconds};
use crate::{Collapsed, Fixture, Interpreter, Profiler, Scratch, Stack, expectation};

/// What the threads of the fixture `waiting` are shown to wait for from its start on, by their functions.
const WAITING: [(&str, &str); 4] = [
    ("sleeps", "<waiting: sleep>"),
    ("waits_for_lock", "<waiting: lock>"),
    ("waits_for_socket", "<waiting: socket>"),
    ("waits_for_pipe", "<waiting: file>"),
];

/// Checks that each thread of the fixture `waiting` is shown to wait for what it is named after, and for nothing else.
///
/// # Errors
/// When one is not.
pub fn must_have_reasons(profile: &Collapsed) -> Result<()> {
    for (function, state) in WAITING {
        let leaves: Vec<_> =
            profile.stacks.iter().filter(|stack| stack.contains(function)).map(leaf).collect();
        ensure!(!leaves.is_empty() && leaves.iter().all(|leaf| *leaf == state), "{function}: {leaves:?}");
    }
    Ok(())
}

/// Checks that each of them is shown to do so for the `elapsed` seconds of the recording.
///
/// # Errors
/// When one is not.
pub fn must_wait_all_the_time(profile: &Collapsed, elapsed: f64) -> Result<()> {
    for (function, state) in WAITING {
        let found = seconds(profile, |stack| stack.contains(function) && leaf(stack) == state);
        ensure!((found / elapsed - 1.0).abs() <= BOUND, "{function}: {found} s {state} of {elapsed} s");
    }
    Ok(())
}

/// A function that waited, by its own account.
#[derive(Clone, Debug)]
pub struct TimedWait {
    /// Its name.
    pub function: String,
    /// The mark of what it waited for.
    pub state: String,
    /// The seconds that it waited at least.
    pub least: f64,
    /// The seconds that it waited at most.
    pub most: f64,
}

impl TimedWait {
    /// Whether it is about to go on: it was woken, but others are on the CPUs, the thread that woke it still has the GIL, or
    /// the kernel fetches a page that it has taken from the program.
    fn is_delay(stack: &Stack) -> bool {
        [CPU, GIL, PAGE].contains(&leaf(stack))
    }

    /// The stacks `within` are shown to have waited for what they are meant to, and for nothing else.
    ///
    /// # Errors
    /// When they are not.
    pub fn must_have_reason(&self, profile: &Collapsed, within: impl Fn(&Stack) -> bool) -> Result<()> {
        let waits = profile.stacks.iter().filter(|stack| within(stack) && crate::times::is_wait(stack));
        let is_other = |stack: &&Stack| leaf(stack) == self.state || !Self::is_delay(stack);
        let reasons: Vec<_> = waits.filter(is_other).map(leaf).collect();
        let is_right = !reasons.is_empty() && reasons.iter().all(|reason| *reason == self.state);
        ensure!(is_right, "{} instead of {}: {reasons:?}", self.function, self.state);
        Ok(())
    }

    /// The stacks `within` have waited for as long as it says.
    ///
    /// # Errors
    /// When the times differ by more than `bound`.
    pub fn must_have_time(
        &self,
        profile: &Collapsed,
        within: impl Fn(&Stack) -> bool,
        bound: f64,
    ) -> Result<()> {
        let named = seconds(profile, |stack| within(stack) && leaf(stack) == self.state);
        // Delays can also happen in the moment before it looks at its clock.
        let is_delay = |stack: &Stack| leaf(stack) != self.state && Self::is_delay(stack);
        let delayed = seconds(profile, |stack| within(stack) && is_delay(stack));
        let TimedWait { function, state, least, most } = self;
        ensure!(
            named > 0.0 && named <= most * (1.0 + bound) && named + delayed >= least * (1.0 - bound),
            "{function}: {named} s {state}, {delayed} s delayed, by its own clock {least} to {most} s; {:?}",
            profile.ledger
        );
        Ok(())
    }
}

/// Runs a fixture that waits when it is asked to, and records it meanwhile. Absences shorter than `least` are summed.
fn record(
    fixture: &mut Fixture,
    words: &str,
    mut ask: impl FnMut(&mut Fixture) -> Result<()>,
) -> Result<Collapsed> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let record = Profiler::new("record").words("--sampler bpf --mode off-cpu -f raw").words(words);
    let mut running = record.words("-o").arg(&file).pid(fixture).spawn()?;
    running.wait_until_sampling()?;
    ask(fixture)?;
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    Collapsed::parse(&fs::read_to_string(&file)?)
}

/// The off-CPU times of the fixture `timed_waits`, which waits for each kind of thing of a list of its expectation; and its
/// own account.
///
/// # Errors
/// When it cannot be recorded.
pub fn timed_waits(interpreter: &Interpreter, list: &str) -> Result<(Collapsed, Vec<TimedWait>)> {
    let expected = expectation("timed_waits")?;
    let states = expected[list].as_object().context("no states")?;
    let mut fixture = Fixture::start(interpreter, "timed_waits/timed_waits.py", &[])?;
    let mut waits = Vec::new();
    let profile = record(&mut fixture, "--min-wait 0", |fixture| {
        fixture.ask("warms_up")?;
        for (function, state) in states {
            let answer = fixture.ask(function)?;
            let times = answer.strip_prefix("done ").context("no answer")?.split(' ').map(str::parse);
            let times = times.collect::<Result<Vec<f64>, _>>()?;
            waits.push(TimedWait {
                function: function.clone(),
                state: format!("<{}>", state.as_str().context("no state")?),
                least: times.iter().copied().fold(f64::MAX, f64::min),
                most: times.iter().copied().fold(f64::MIN, f64::max),
            });
        }
        Ok(())
    })?;
    Ok((profile, waits))
}

/// For how long a wait of the fixture `timed_waits` may be off.
///
/// # Errors
/// When its expectation does not say it.
pub fn bound_of_timed_waits() -> Result<f64> {
    expectation("timed_waits")?["at_most_off"].as_f64().context("no bound")
}

/// For how many milliseconds each wait of the fixture `reused_numbers` lasts.
const REUSED_MILLISECONDS: &str = "3";

/// The off-CPU times of the fixture `reused_numbers` where absences shorter than `least` milliseconds are summed; and its own
/// account.
///
/// # Errors
/// When it cannot be recorded.
pub fn reused_numbers(interpreter: &Interpreter, least: &str) -> Result<(Collapsed, Vec<TimedWait>)> {
    let mut fixture = Fixture::start(interpreter, "reused_numbers/reused_numbers.py", &[])?;
    let profile = record(&mut fixture, &format!("-t --min-wait {least}"), |fixture| {
        fixture.ask(REUSED_MILLISECONDS).map(drop)
    })?;
    let account: Value = fixture.finish()?;
    let expected = expectation("reused_numbers")?;
    let states = expected["states"].as_object().context("no states")?;
    let waits = states.iter().map(|(function, state)| {
        let spent = account["spent"][function].as_f64().with_context(|| function.clone())?;
        let state = format!("<{}>", state.as_str().context("no state")?);
        Ok(TimedWait { function: function.clone(), state, least: spent, most: spent })
    });
    Ok((profile, waits.collect::<Result<_>>()?))
}
