//! No stack of the labyrinth is ever torn, whatever its shape, on every interpreter.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::labyrinth::{Place, judge};
use profiler_tests::statistics::{bound, deviations};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Interpreter, Profiler, Running, Scratch, can_load_programs, every_interpreter,
    every_interpreter_side_by_side,
};

/// The part of its time that the walk spends around the maze, at most; where rooms got lost it would be far more.
const AROUND: f64 = 0.05;

/// So sure must it be that more than that was seen.
const CONFIDENCE: f64 = 0.99999;

/// For how long the labyrinth is recorded, in its own CPU time: however long a busy machine takes for it, there are
/// as many samples.
const RECORDED: Duration = Duration::from_millis(800);

/// What a recording of the labyrinth consists of.
#[derive(Debug, Default)]
struct Findings {
    maze: u64,
    around: u64,
    idle: u64,
    deepest: usize,
    torn: Vec<String>,
}

fn judge_all(collapsed: &Collapsed) -> Findings {
    let mut findings = Findings::default();
    for stack in &collapsed.stacks {
        match judge(&stack.frames) {
            Ok(Place::Maze { depth }) => {
                findings.maze += stack.count;
                findings.deepest = findings.deepest.max(depth);
            }
            Ok(Place::Idle) => findings.idle += stack.count,
            Ok(Place::Around | Place::Before) => findings.around += stack.count,
            Err(torn) => findings.torn.push(torn.to_string()),
        }
    }
    findings
}

/// The samplers that show what they could see of a labyrinth: both at once, as they do not disturb each other.
fn samplers() -> &'static [&'static str] {
    match can_load_programs() {
        true => &["pause", "bpf"],
        false => &["pause"],
    }
}

/// Attaches to the labyrinth in one of its shapes, records with each of the samplers, and insists that nothing is
/// torn and that (nearly) everything was seen inside the maze: stacks whose rooms got lost would show as its
/// surroundings.
fn walk(
    interpreter: &Interpreter,
    shape: &[&str],
    options: &str,
    samplers: &[&str],
    expect: impl Fn(&Findings) -> Result<()>,
) -> Result<()> {
    let scratch = Scratch::new()?;
    let fixture = Fixture::start(interpreter, "labyrinth/labyrinth.py", shape)?;
    let file = |sampler: &str| scratch.file(&format!("{sampler}.txt"));
    let record = |sampler: &&str| {
        let words = format!("-f raw {options} --sampler {sampler} -o");
        Profiler::new("record").words(&words).arg(file(sampler)).pid(&fixture).spawn()
    };
    let mut running: Vec<Running> = samplers.iter().map(record).collect::<Result<_>>()?;
    running.iter_mut().try_for_each(Running::wait_until_sampling)?;
    fixture.work_for(RECORDED)?;
    running.iter().try_for_each(|run| run.signal(Signal::SIGINT))?;
    for (run, sampler) in running.into_iter().zip(samplers) {
        let run = run.wait()?;
        ensure!(run.code() == Some(0), "{sampler}: {run:?}");
    }
    let account = fixture.finish()?;
    ensure!(account["rounds"].as_u64() > Some(0), "the walk did not go on: {account}");
    for sampler in samplers {
        let findings = judge_all(&Collapsed::parse(&std::fs::read_to_string(file(sampler))?)?);
        must_be_whole(&findings).and_then(|()| expect(&findings)).with_context(|| (*sampler).to_owned())?;
    }
    Ok(())
}

fn must_be_whole(findings: &Findings) -> Result<()> {
    ensure!(
        findings.torn.is_empty(),
        "{} torn, such as {:?}",
        findings.torn.len(),
        &findings.torn[..findings.torn.len().min(3)]
    );
    ensure!(findings.maze >= 50, "only {} samples of the maze", findings.maze);
    // A twentieth of the time may be spent around the maze; so many samples can show it, by chance.
    let all = findings.maze + findings.around;
    let most = AROUND * all as f64 + bound(AROUND, all as f64, deviations(CONFIDENCE, 1)) * all as f64;
    ensure!(
        findings.around as f64 <= most,
        "{} around the maze to {} in it, at most {most:.0} of them by chance",
        findings.around,
        findings.maze
    );
    Ok(())
}

fn deeper_than(depth: usize) -> impl Fn(&Findings) -> Result<()> {
    move |findings| {
        ensure!(findings.deepest > depth, "never deeper than {}", findings.deepest);
        Ok(())
    }
}

fn plain_calls() {
    every_interpreter_side_by_side(|interpreter| {
        walk(interpreter, &[], "-r 1000", samplers(), deeper_than(15))
    });
}

fn plain_calls_without_stopping() {
    // How much can be proved without a stop depends on the target; that nothing is torn does not.
    every_interpreter_side_by_side(|interpreter| {
        let scratch = Scratch::new()?;
        let file = scratch.file("out.txt");
        let fixture = Fixture::start(interpreter, "labyrinth/labyrinth.py", &[])?;
        let run = Profiler::new("record").words("-f raw -d 1 -r 1000 --nonblocking").pid(&fixture);
        let run = run.arg("-o").arg(&file).run()?;
        if run.code() == Some(1) && !file.exists() {
            // Nothing at all could be proved; then the reason must be named.
            return run.must_say(&["ran while it was read"]);
        }
        ensure!(run.code() == Some(0), "{run:?}");
        let findings = judge_all(&Collapsed::parse(&std::fs::read_to_string(&file)?)?);
        ensure!(findings.torn.is_empty(), "{} torn, such as {}", findings.torn.len(), findings.torn[0]);
        Ok(())
    });
}

fn a_stack_five_hundred_deep() {
    let shape = ["--deep", "500"];
    every_interpreter_side_by_side(|interpreter| {
        walk(interpreter, &shape, "-r 1000", samplers(), deeper_than(500))
    });
}

fn generators() {
    every_interpreter_side_by_side(|interpreter| {
        walk(interpreter, &["--generators"], "-r 1000", samplers(), |_| Ok(()))
    });
}

fn callbacks_through_c() {
    every_interpreter_side_by_side(|interpreter| {
        walk(interpreter, &["--callbacks"], "-r 1000", samplers(), |_| Ok(()))
    });
}

fn three_threads() {
    every_interpreter_side_by_side(|interpreter| {
        walk(interpreter, &["--threads", "3"], "-r 1000", samplers(), |_| Ok(()))
    });
}

fn idle_threads_beside_a_busy_one() {
    every_interpreter(|interpreter| {
        walk(interpreter, &["--idle-threads", "160"], "-r 150 -i", &["pause"], |findings| {
            let least = findings.maze * 150;
            ensure!(findings.idle >= least, "{} samples of idle threads, not {least}", findings.idle);
            Ok(())
        })
    });
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(plain_calls),
        test!(plain_calls_without_stopping),
        test!(a_stack_five_hundred_deep),
        test!(generators),
        test!(callbacks_through_c),
        test!(three_threads),
        test!(idle_threads_beside_a_busy_one),
    ]
}
