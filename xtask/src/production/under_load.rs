//! A server under load while something is done to it, and what must be true of it afterwards.

use std::thread;

use anyhow::{Context, Result, bail, ensure};
use profiler_tests::hostile::must_be_free;
use profiler_tests::{Profiler, Run};

use super::Place;
use super::report::Rounds;
use crate::servers::{Load, Server};

/// Does `work` while the server answers requests for so many seconds. No request may fail, and no thread may be left stopped
/// or traced.
pub fn under_load<T: Send>(
    server: &Server,
    seconds: u32,
    rounds: &mut Rounds,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (load, done) = thread::scope(|scope| {
        let load = scope.spawn(|| server.load(seconds));
        let done = work();
        let load: Result<Load> = load.join().unwrap_or_else(|_| bail!("the thread with the load panicked"));
        (load, done)
    });
    let (load, done) = (load?, done?);
    rounds.count("requests", load.requests);
    rounds.most("ms for the slowest", load.worst / 1e3);
    ensure!(load.failed == 0, "{} of {} requests failed", load.failed, load.requests + load.failed);
    must_be_whole(server)?;
    Ok(done)
}

/// All processes of the server run, and nothing holds any of their threads.
pub fn must_be_whole(server: &Server) -> Result<()> {
    for pid in server.processes() {
        // A worker that was replaced meanwhile is gone.
        if std::fs::exists(format!("/proc/{pid}"))? {
            must_be_free(pid).with_context(|| format!("process {pid} of the server"))?;
        }
    }
    Ok(())
}

/// A recording of a process, with these options, that is not started yet.
pub fn recording(place: &Place, pid: u32, options: &str) -> Profiler {
    let output = place.scratch.file("out.txt");
    Profiler::new("record").words(&format!("-f raw --pid {pid} {options} -o")).arg(output)
}

/// It succeeded, shows something, and accounts for everything.
pub fn must_have_recorded(run: &Run, rounds: &mut Rounds) -> Result<()> {
    ensure!(run.code() == Some(0), "status {:?}: {}", run.status, run.stderr);
    let ledger = run.ledger()?;
    ensure!(ledger.shown > 0, "no sample: {}", run.stderr);
    rounds.count("samples", ledger.shown);
    rounds.count("lost", ledger.lost());
    Ok(())
}
