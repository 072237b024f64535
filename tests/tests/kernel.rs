//! Stacks that the in-kernel program takes: whole and never torn, on every interpreter.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use profiler_model::{Frame as ModelFrame, Nanos, Pid};
use profiler_sampler::Target;
use profiler_sampler::kernel::{KernelProbe, KernelStack};
use profiler_tests::labyrinth::{Place, judge};
use profiler_tests::{Fixture, Frame, Interpreter, every_interpreter, is_root, missing};

/// So many stacks of the maze are judged.
const ENOUGH: usize = 500;

/// A machine on which they do not come in this time does not sample at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// The ring is read this often; the program does not wait for it.
const GAP: Duration = Duration::from_millis(20);

fn shown(frame: &ModelFrame) -> Frame {
    let file = frame.file.rsplit('/').next().unwrap_or_default();
    Frame { function: frame.function.to_string(), file: Some(file.to_owned()), line: frame.position.line }
}

/// Samples the fixture until there is enough of the maze, and judges each stack.
fn walk(interpreter: &Interpreter, shape: &[&str], deepest: usize) -> Result<()> {
    if !is_root() {
        missing("the in-kernel sampler needs root");
        return Ok(());
    }
    let fixture = Fixture::start(interpreter, "labyrinth/labyrinth.py", shape)?;
    let target = Target::attach(Pid::new(fixture.pid()))?;
    let mut probe = KernelProbe::attach(target, Nanos::from_nanos(500_000))?;
    let end = Instant::now() + PATIENCE;
    let (mut maze, mut lost, mut depth) = (0, Vec::new(), 0);
    while maze < ENOUGH && Instant::now() < end {
        std::thread::sleep(GAP);
        for stack in probe.read() {
            match judged(&stack)? {
                Ok(Place::Maze { depth: rooms }) => {
                    maze += 1;
                    depth = depth.max(rooms);
                }
                Ok(_) => {}
                Err(reason) => lost.push(reason),
            }
        }
    }
    fixture.finish()?;
    ensure!(maze >= ENOUGH, "only {maze} stacks of the maze; lost: {lost:?}");
    ensure!(depth >= deepest, "never deeper than {depth}");
    // Pages of the target may be missing now and then, and 3.11 and 3.12 unlink a generator's frame early.
    ensure!(lost.len() * 50 <= maze, "{} lost of {maze}, such as {:?}", lost.len(), lost.first());
    Ok(())
}

fn judged(stack: &KernelStack) -> Result<Result<Place, profiler_model::LossReason>> {
    match &stack.frames {
        Ok(frames) => {
            let frames: Vec<Frame> = frames.iter().map(shown).collect();
            let place = judge(&frames).map_err(|torn| anyhow::anyhow!("{torn}"))?;
            Ok(Ok(place))
        }
        Err(reason) => Ok(Err(*reason)),
    }
}

#[test]
fn nothing_is_torn() {
    every_interpreter(|interpreter| walk(interpreter, &[], 10).context("plain"));
}

#[test]
fn nothing_is_torn_far_down() {
    every_interpreter(|interpreter| walk(interpreter, &["--deep", "500"], 500).context("deep"));
}
