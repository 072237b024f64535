//! The in-kernel sampler is killed again and again: nothing of it stays, whatever it was doing.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use profiler_tests::suite::{Sampler, Test};
use profiler_tests::{Fixture, Profiler, Scratch, one_interpreter, programs_of, soak, test};

use crate::kernel_programs::still_loaded;

/// What no process holds any more the kernel frees a moment later; what is there after this time has stayed.
const PATIENCE: Duration = Duration::from_secs(10);

fn nothing_stays_in_kernel_after_any_kill() -> Result<()> {
    let mut fixture = Fixture::start(one_interpreter(), "labyrinth/labyrinth.py", &[])?;
    let mut modes = ["--mode cpu", "--mode wall"].into_iter().cycle();
    soak(|| {
        let scratch = Scratch::new()?;
        let record = Profiler::new("record").words("--sampler bpf -f raw -r 2000");
        let record = record.words(modes.next().unwrap_or_default()).words("-o").arg(scratch.file("out.txt"));
        let mut running = record.pid(&fixture).spawn()?;
        running.wait_until_sampling()?;
        let programs = programs_of(running.profiler_pid())?;
        ensure!(!still_loaded(&programs).is_empty(), "none is loaded: {programs:?}");
        running.kill()?;
        let limit = Instant::now() + PATIENCE;
        while !still_loaded(&programs).is_empty() {
            ensure!(Instant::now() < limit, "some of {programs:?} stayed");
            std::thread::yield_now();
        }
        fixture.progress().map(drop)
    })
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(nothing_stays_in_kernel_after_any_kill).by(&[Sampler::Bpf])]
}
