//! A tree of processes that a profiler records, for the cases that measure such: what it was told, what it cost
//! while it sampled, and what it said.

use std::ffi::OsString;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use profiler_tests::{Collapsed, Fixture, Interpreter, Scratch, cpu_nanos};

use crate::bench::measured::{Ended, Measured};
use crate::bench::spread::Spread;
use crate::bench::table::Table;
use crate::bench::tools::Tool;

/// Samples a second of each process.
pub const RATE: u32 = 100;

/// What each of them says when it is about to sample.
const BEGINNING: &str = "Sampling process";

/// Where a tree leaves hardly any CPU, that takes a while.
const LONGEST_BEGINNING: Duration = Duration::from_secs(60);

/// From then until each of them samples.
pub const SETTLING: Duration = Duration::from_secs(2);

/// Between the end of the window that is measured and that of the recording.
const MARGIN: Duration = Duration::from_secs(1);

/// How much longer than the recording a profiler may take before it is asked to end.
const OVERTIME: Duration = Duration::from_secs(8);

/// What a recording of so many seconds gave.
#[derive(Debug)]
pub struct Watched {
    /// CPU of the profiler in the window, in cores.
    pub cpu: f64,
    /// CPU of the children in the window, in cores.
    pub cpu_of_children: f64,
    /// How many seconds more than it was told to it took.
    pub overtime: f64,
    /// What it wrote.
    pub stacks: Collapsed,
    /// What it used and said.
    pub ended: Ended,
}

/// Has a profiler record a tree for so many seconds.
pub fn watch(tool: Tool, interpreter: &Interpreter, fixture: &Fixture, seconds: u32) -> Result<Watched> {
    let scratch = Scratch::new()?;
    let mut process = start(tool, interpreter, fixture, &format!("-d {seconds}"), &scratch)?;
    let length = Duration::from_secs(seconds.into());
    let used = |process: &Measured| -> Result<(u64, u64, Instant)> {
        let of_children = fixture.children().iter().map(|pid| cpu_nanos(*pid)).sum::<Result<u64>>()?;
        Ok((cpu_nanos(process.pid())?, of_children, Instant::now()))
    };
    ensure!(
        process.says_within(BEGINNING, LONGEST_BEGINNING)?,
        "{}",
        process.finish(Duration::ZERO)?.last_words()
    );
    thread::sleep(SETTLING.min(length / 3));
    ensure!(process.is_running()?, "it ended too early: {}", process.finish(Duration::ZERO)?.last_words());
    let (cpu, of_children, began) = used(&process)?;
    thread::sleep(length.saturating_sub(SETTLING + MARGIN).max(length / 3));
    let (cpu_after, of_children_after, ended_at) = used(&process)?;
    let window = (ended_at - began).as_nanos() as f64;
    let ended = process.finish((length + OVERTIME).saturating_sub(began.elapsed()))?;
    Ok(Watched {
        cpu: (cpu_after - cpu) as f64 / window,
        cpu_of_children: (of_children_after - of_children) as f64 / window,
        overtime: ended.usage.wall - f64::from(seconds),
        stacks: stacks(&ended, &scratch)?,
        ended,
    })
}

/// Starts a profiler on a tree.
pub fn start(
    tool: Tool,
    interpreter: &Interpreter,
    fixture: &Fixture,
    more: &str,
    scratch: &Scratch,
) -> Result<Measured> {
    let mut words = tool.words_before(interpreter)?;
    let options = format!("record -s -f raw -r {RATE} -p {} {more}", fixture.pid());
    words.extend(options.split_whitespace().map(OsString::from));
    words.extend(tool.recording_options().iter().map(OsString::from));
    words.extend(["-o".into(), scratch.file("out.txt").into()]);
    Measured::start(&words)
}

/// What it wrote.
pub fn stacks(ended: &Ended, scratch: &Scratch) -> Result<Collapsed> {
    ensure!(ended.usage.success, "{}", ended.last_words());
    Collapsed::parse(&fs::read_to_string(scratch.file("out.txt"))?)
}

/// The median and the extremes of a figure of all turns.
pub fn spread<T>(turns: &[T], value: impl Fn(&T) -> f64) -> String {
    Spread::of(turns.iter().map(value)).map_or_else(String::new, |spread| spread.to_string())
}

/// Our own account, or what a peer complained of.
pub fn note(table: &mut Table, tool: Tool, ended: &Ended) {
    let said = ended.said.iter().map(|(_, line)| line.as_str());
    let wanted = |line: &&str| match tool.is_ours() {
        true => ["Hz asked", "processes: ", "target stopped"].iter().any(|word| line.contains(word)),
        false => line.contains("behind") || line.contains("rror"),
    };
    let told: Vec<&str> = said.filter(wanted).collect();
    let (first, more) = told.split_at(told.len().min(3));
    if !first.is_empty() {
        let more = if more.is_empty() { String::new() } else { format!(" and {} lines more", more.len()) };
        table.note(format!("{}, last turn: {}{more}", tool.name(), first.join("; ")));
    }
}

/// That a profiler was given up, and why.
pub fn failed(table: &mut Table, tool: Tool, error: &anyhow::Error) {
    table.row([tool.name(), "failed"]);
    table.note(format!("{}: {error:#}", tool.name()));
}
