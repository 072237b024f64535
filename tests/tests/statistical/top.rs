//! What `top` counts as lost; on its screen the text is all there is.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use profiler_tests::statistics::most_instants;
use profiler_tests::suite::{Case, PAUSE_AND_BPF, Test};
use profiler_tests::test;
use profiler_tests::{Fixture, Terminal, count_before, profiler_path};

fn suspended_time_is_no_loss(case: &Case) -> Result<()> {
    const RATE: u32 = 500;
    const SUSPENDED: Duration = Duration::from_secs(2);
    let fixture = Fixture::start(case.interpreter, "labyrinth/labyrinth.py", &[])?;
    let mut terminal = Terminal::shell()?;
    let words = format!(
        "{} top {} -r {RATE} --delay 0.3 --pid {}\r",
        profiler_path().display(),
        case.sampler_words(),
        fixture.pid()
    );
    let began = Instant::now();
    terminal.press_for(&words, "_from_")?;
    terminal.press_for("\x1a", "Stopped")?;
    terminal.press(&format!("clear; sleep {}; fg\r", SUSPENDED.as_secs()))?;
    terminal.wait_for_text("_from_")?;
    let screen = terminal.press_for("q", " MB; ")?;
    let most = most_instants(RATE, began.elapsed().saturating_sub(SUSPENDED));
    let late = count_before(&screen, " sampler late").unwrap_or(0);
    ensure!(late <= most, "{late} late of at most {most}: {screen}");
    terminal.press("exit\r")?;
    terminal.wait().map(drop)
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(suspended_time_is_no_loss).by(PAUSE_AND_BPF)]
}
