//! For how long threads wait and for how long they run.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::statistics::{Parts, effective_number_of_gaps};
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Test};
use profiler_tests::{
    Fixture, Profiler, Scratch, WeightedSample, one_interpreter, read_speedscope, samples_per_second, test,
    wait_until_still,
};
use serde_json::Value;

/// Samples a second of a recording of all threads, those that wait included.
const IDLE_RATE: f64 = 1000.0;

/// Processes that want the CPUs all the time: several times as many as there are CPUs.
const BUSY: &str = "6";

/// What else wants the CPUs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    BusyProcesses,
}

/// For how long the threads are shown in each function, and what chance allows the share of rest to be off.
struct Alternation {
    samples: Vec<WeightedSample>,
    text: String,
    account: Value,
}

impl Alternation {
    /// Shows all threads while one of them alternates until the target has had that much CPU time. It begins after the
    /// recording and ends before it does, so that its account is of what was recorded.
    fn record(case: &Case, cpu: Duration, beside: Beside) -> Result<Self> {
        let scratch = Scratch::new()?;
        let file = scratch.file("out.json");
        let mut fixture = Fixture::start(case.interpreter, "waiting/waiting.py", &[])?;
        wait_until_still(fixture.pid())?;
        let words = format!("-f speedscope -r {IDLE_RATE} -i -t {} -o", case.sampler_words());
        let mut record = Profiler::new("record").words(&words).arg(&file).pid(&fixture).spawn()?;
        record.wait_until_sampling()?;
        let busy = match beside {
            Beside::Nothing => None,
            Beside::BusyProcesses => Some(Fixture::start(
                one_interpreter(),
                "threads_processes/threads_processes.py",
                &["--processes", BUSY],
            )?),
        };
        fixture.ask("alternate")?;
        fixture.work_for(cpu)?;
        fixture.ask("rest")?;
        busy.map(Fixture::finish).transpose()?;
        record.signal(Signal::SIGINT)?;
        let run = record.wait()?;
        ensure!(run.code() == Some(0), "{run:?}");
        let text = std::fs::read_to_string(&file)?;
        Ok(Alternation { samples: read_speedscope(&text)?, text, account: fixture.finish()? })
    }

    fn of(&self, name: &str) -> f64 {
        self.samples.iter().filter(|sample| sample.has(name)).map(|sample| sample.weight).sum()
    }

    /// It rests for as much of its time as its own clock says, within what chance explains.
    fn must_be_true(&self, about: &str) -> Result<()> {
        let mut parts = Parts::default();
        let mut all = 0.0;
        for name in ["rests", "works"] {
            let counted = self.account["spent"][name].as_f64().with_context(|| name.to_owned())?;
            parts.add(name, counted, self.of(name));
            all += self.of(name);
        }
        parts.add_number(effective_number_of_gaps(all, samples_per_second(&self.text, IDLE_RATE)?));
        parts.judge(about, None, 0.0)
    }
}

fn idle_threads_are_shown_all_the_time(case: &Case) -> Result<()> {
    let shown = Alternation::record(case, Duration::from_millis(200), Beside::Nothing)?;
    let (sleeps, rests) = (shown.of("sleeps"), shown.of("rests"));
    ensure!(sleeps > rests, "{sleeps} s of a thread that sleeps all the time, {rests} s of another");
    for name in ["waits_for_lock", "waits_for_socket", "waits_for_pipe"] {
        let time = shown.of(name);
        ensure!((time - sleeps).abs() * 20.0 <= sleeps, "{name}: {time} s, but {sleeps} s of sleeps");
    }
    shown.must_be_true(&format!("rest and work on {case}"))
}

fn woken_thread_without_a_cpu_stays_where_it_slept(case: &Case) -> Result<()> {
    Alternation::record(case, Duration::from_millis(40), Beside::BusyProcesses)?
        .must_be_true(&format!("rest and work beside busy processes on {case}"))
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(idle_threads_are_shown_all_the_time).on(On::Layouts).by(PAUSE_AND_BPF),
        test!(woken_thread_without_a_cpu_stays_where_it_slept).by(PAUSE_AND_BPF),
    ]
}
