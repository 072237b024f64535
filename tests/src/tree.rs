//! What the tests of process trees share between the tiers: recordings of the fixture `tree`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::{Collapsed, Fixture, Interpreter, Profiler, Scratch, cpu_nanos, process_state, tracer_of};

/// The fixture.
pub const PROGRAM: &str = "tree/tree.py";

/// No test waits longer for a process to have worked.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The collapsed stacks that [`record`] wrote.
///
/// # Errors
/// When there are none.
pub fn profile_of(scratch: &Scratch) -> Result<Collapsed> {
    Collapsed::parse(&std::fs::read_to_string(scratch.file("out.txt")).context("no data was written")?)
}

/// A recording of a tree as collapsed stacks, with more options.
pub fn record(scratch: &Scratch, options: &str) -> Profiler {
    Profiler::new("record").words("-s -f raw -r 1000").words(options).arg("-o").arg(scratch.file("out.txt"))
}

/// Waits until each of the processes has used this much CPU time from now on.
///
/// # Errors
/// When one does not work.
pub fn wait_for_work(pids: &[u32], work: Duration) -> Result<()> {
    let limit = Instant::now() + LONGEST_WAIT;
    let before: Vec<u64> = pids.iter().map(|pid| cpu_nanos(*pid)).collect::<Result<_>>()?;
    for (pid, before) in pids.iter().zip(before) {
        while u128::from(cpu_nanos(*pid)? - before) < work.as_nanos() {
            ensure!(Instant::now() < limit, "process {pid} does not work");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// Short-lived children, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    /// How many.
    pub children: u64,
    /// Over how many seconds they are spread.
    pub seconds: f64,
    /// Whether the profiler hears of each of them from the kernel.
    pub is_reported: bool,
}

impl Storm {
    /// Records the storm: it is left alone, and the ledger counts its processes.
    ///
    /// # Errors
    /// When it is not.
    pub fn must_be_counted(self, interpreter: &Interpreter, record: Profiler) -> Result<()> {
        let scratch = Scratch::new()?;
        let (children, seconds) = (self.children.to_string(), self.seconds.to_string());
        let mut fixture = Fixture::start(interpreter, PROGRAM, &["storm", &children, "--seconds", &seconds])?;
        let record = record.words("-s -f raw -r 200 -o").arg(scratch.file("out.txt"));
        let mut running = record.pid(&fixture).spawn()?;
        running.wait_until_sampling()?;
        // It waits for each child: a child that its tracer keeps stopped would keep it for ever.
        ensure!(fixture.ask("go")? == format!("done {children}"));
        running.signal(Signal::SIGINT)?;
        let run = running.wait()?;
        ensure!(run.code() == Some(0), "{run:?}");
        ensure!(tracer_of(fixture.pid())? == 0 && process_state(fixture.pid())? != 't', "left traced");
        let all = self.children + 1;
        let ledger = run.ledger()?;
        let (found, sampled) = (ledger.processes_of("found"), ledger.processes_of("sampled"));
        ensure!(sampled > self.children / 10, "{}", run.stderr);
        ensure!(if self.is_reported { found == all } else { found <= all }, "{}", run.stderr);
        ensure!(profile_of(&scratch)?.count(|stack| stack.contains("short_work")) > 0, "{}", run.stderr);
        Ok(())
    }
}
