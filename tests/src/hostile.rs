//! What the tests of hostile targets share between the tiers: recordings of targets that create threads, processes or
//! pages all the time, and of targets with very many threads.

use std::ffi::OsString;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use crate::{
    Fixture, Interpreter, Ledger, Profiler, Run, Terminal, USUAL_SIZE, dumped_json, missing, profiler_path,
    state_of, tracer_of,
};

/// The fixture that creates threads, processes or pages all the time.
pub const CHURN: &str = "hostile/churn.py";

/// How many new threads, processes or pages a recording of [`CHURN`] must see created, at least.
const NEW_ONES: u64 = 25;

/// The fixture has stalled if it has not created them after this time.
const LONGEST_ROUND: Duration = Duration::from_secs(60);

/// CPU time of the fixture in a recording.
const ENOUGH_WORK: Duration = Duration::from_millis(200);

/// No thread of the process is left stopped or traced.
///
/// # Errors
/// When one is.
pub fn must_be_free(pid: u32) -> Result<()> {
    ensure!(tracer_of(pid)? == 0, "still traced");
    for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let tid = entry.file_name().to_string_lossy().parse()?;
        // A thread that has ended meanwhile has no state.
        let state = state_of(pid, tid).unwrap_or('X');
        ensure!(!"tT".contains(state), "thread {tid} is left in state {state}");
    }
    Ok(())
}

/// Records [`CHURN`] until it has created enough and has worked for a while: the recording must not stall it.
///
/// # Errors
/// When the fixture stalls, nothing is shown, or a thread is left stopped.
pub fn must_make_progress(fixture: &mut Fixture, words: &str) -> Result<()> {
    let record = Profiler::new("record").words("-f speedscope -o -").words(words);
    let mut running = record.pid(fixture).spawn()?;
    running.wait_until_sampling()?;
    let before: u64 = fixture.ask("")?.parse()?;
    fixture.work_for(ENOUGH_WORK)?;
    let limit = Instant::now() + LONGEST_ROUND;
    while fixture.ask("")?.parse::<u64>()? < before + NEW_ONES {
        ensure!(Instant::now() < limit, "{words}: the fixture stalls");
        std::thread::sleep(Duration::from_millis(1));
    }
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{words}: {run:?}");
    let file: serde_json::Value = serde_json::from_str(&run.stdout)?;
    Ledger::read(&file["ledger"])?;
    ensure!(run.ledger()?.shown > 0, "{words}: {}", run.stderr);
    must_be_free(fixture.pid())
}

/// Dumps of a target whose threads come and go: each is whole or a clear failure.
///
/// # Errors
/// When one is neither.
pub fn must_dump_or_fail(fixture: &Fixture) -> Result<()> {
    let run = Profiler::new("dump").words("--json").pid(fixture).run()?;
    ensure!(matches!(run.code(), Some(0 | 1)) && !run.stderr.contains("panicked"), "{run:?}");
    dumped_json(&run.stdout).map(drop)
}

/// `profiler top` of a fixture in a terminal.
///
/// # Errors
/// When it does not start.
pub fn top(fixture: &Fixture, options: &str, size: (u16, u16)) -> Result<Terminal> {
    let words = format!("top --delay 0.3 {options} --pid {}", fixture.pid());
    let words = words.split_whitespace().map(OsString::from);
    let words: Vec<OsString> = std::iter::once(profiler_path().into()).chain(words).collect();
    Terminal::start(&words, size)
}

/// The reason of samples for which a busy machine had no time.
pub const LATE: &str = "sampler late";

/// A target with very many threads that wait, and a main thread that works.
#[derive(Debug)]
pub struct ManyThreads {
    fixture: Fixture,
    /// All of them, the main thread included.
    all: u64,
}

impl ManyThreads {
    /// Starts this many waiting threads; `None` where the machine does not allow that many, which is reported.
    ///
    /// # Errors
    /// When the fixture does not start.
    pub fn start(interpreter: &Interpreter, threads: u64) -> Result<Option<Self>> {
        let mut fixture = Fixture::start(interpreter, "hostile/many_threads.py", &[&threads.to_string()])?;
        let started: u64 = fixture.ask("")?.parse()?;
        if started < threads {
            missing(&format!("{threads} threads: only {started} may be started here"));
            return Ok(None);
        }
        Ok(Some(ManyThreads { fixture, all: threads + 1 }))
    }

    /// The process.
    pub fn fixture(&self) -> &Fixture {
        &self.fixture
    }

    /// A dump shows each of them, one as the owner of the GIL, and leaves all of them free.
    ///
    /// # Errors
    /// When it does not.
    pub fn must_be_dumped(&self) -> Result<()> {
        let dump = Profiler::new("dump").words("--json").pid(&self.fixture).succeed()?;
        let dumped = dumped_json(&dump.stdout)?;
        ensure!(dumped.len() as u64 == self.all, "{} threads of {}", dumped.len(), self.all);
        ensure!(dumped.iter().all(|thread| !thread.frames.is_empty()), "a thread without frames");
        ensure!(dumped.iter().filter(|thread| thread.owns_gil).count() == 1, "not one owner of the GIL");
        must_be_free(self.fixture.pid())
    }

    /// A recording with these options, of this much CPU time, loses less than one sample in a hundred for other reasons
    /// than these, takes little memory and leaves all of them free. With `-i`
    /// and the sampler `pause` the first look, at which every thread is new, is not one long stop.
    ///
    /// # Errors
    /// When it does not.
    pub fn must_be_recorded(&self, words: &str, work: Duration, excused: &[&str]) -> Result<()> {
        let record = Profiler::new("record").words("-f speedscope -o -").words(words);
        let run = record.pid(&self.fixture).spawn()?.end_after_cpu_time(self.fixture.pid(), work)?;
        let ledger = run.ledger()?;
        let excused: u64 = excused.iter().map(|reason| ledger.lost_for(reason)).sum();
        let lost = ledger.lost() - excused;
        ensure!(ledger.shown > 0 && lost * 100 < ledger.attempts, "{words}: {}", run.stderr);
        must_be_free(self.fixture.pid())?;
        self.must_take_little_memory(&run, words)?;
        if words.contains("-i") && !words.contains("bpf") {
            // What is copied at once is bounded by 256 threads.
            let looks = (ledger.attempts - ledger.lost()) / self.all;
            let instants = ledger.stops.count + ledger.instants_without_stop;
            ensure!(
                instants >= looks + self.all / 256,
                "{words}: {instants} instants at {looks} looks\n{}",
                run.stderr
            );
        }
        Ok(())
    }

    /// A thread has an entry in the roster, one in the profile, its name and at most two open files. The binary itself
    /// takes eight megabytes, with the in-kernel program and its buffers thirty.
    fn must_take_little_memory(&self, run: &Run, words: &str) -> Result<()> {
        let megabytes = run.ledger()?.own_memory / 1_000_000;
        let base = if words.contains("bpf") { 30 } else { 8 };
        let most = base + self.all * 10 / 1000;
        ensure!((1..=most).contains(&megabytes), "{words}: {megabytes} MB of {most}\n{}", run.stderr);
        Ok(())
    }

    /// `top` shows the thread that works and lists the others.
    ///
    /// # Errors
    /// When it does not.
    pub fn must_be_shown_by_top(&self, options: &str) -> Result<()> {
        let mut terminal = top(&self.fixture, options, USUAL_SIZE)?;
        terminal.wait_for_text("work")?;
        terminal.press_for("3", "MainThread")?;
        terminal.press("q")?;
        ensure!(terminal.wait()?.code() == Some(0), "{}", terminal.screen());
        must_be_free(self.fixture.pid())
    }
}
