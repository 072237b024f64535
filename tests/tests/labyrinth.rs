//! No stack of the labyrinth is ever torn, whatever its shape, on every interpreter.

use anyhow::{Result, ensure};
use profiler_tests::labyrinth::{Place, judge};
use profiler_tests::{Collapsed, Fixture, Interpreter, Profiler, Scratch, every_interpreter};

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

/// Attaches to the labyrinth in one of its shapes, records, and insists that nothing is torn and that
/// (nearly) everything was seen inside the maze: stacks whose rooms got lost would show as its surroundings.
fn walk(interpreter: &Interpreter, shape: &[&str], options: &str) -> Result<Findings> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let fixture = Fixture::start(interpreter, "labyrinth/labyrinth.py", shape)?;
    Profiler::new("record")
        .words("-f raw -d 1")
        .words(options)
        .pid(&fixture)
        .arg("-o")
        .arg(&file)
        .succeed()?;
    let account = fixture.finish()?;
    ensure!(account["rounds"].as_u64() > Some(0), "the walk did not go on: {account}");
    let findings = judge_all(&Collapsed::parse(&std::fs::read_to_string(&file)?)?);
    ensure!(
        findings.torn.is_empty(),
        "{} torn, such as {:?}",
        findings.torn.len(),
        &findings.torn[..findings.torn.len().min(3)]
    );
    ensure!(findings.maze >= 50, "only {} samples of the maze", findings.maze);
    ensure!(
        findings.around * 20 <= findings.maze,
        "{} around the maze to {} in it",
        findings.around,
        findings.maze
    );
    Ok(findings)
}

#[test]
fn plain_calls() {
    every_interpreter(|interpreter| {
        let findings = walk(interpreter, &[], "-r 1000")?;
        ensure!(findings.deepest > 15, "never deeper than {}", findings.deepest);
        Ok(())
    });
}

#[test]
fn plain_calls_without_stopping() {
    // How much can be proved without a stop depends on the target; that nothing is torn does not.
    every_interpreter(|interpreter| {
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

#[test]
fn a_stack_five_hundred_deep() {
    every_interpreter(|interpreter| {
        let findings = walk(interpreter, &["--deep", "500"], "-r 1000")?;
        ensure!(findings.deepest > 500, "never deeper than {}", findings.deepest);
        Ok(())
    });
}

#[test]
fn generators() {
    every_interpreter(|interpreter| walk(interpreter, &["--generators"], "-r 1000").map(drop));
}

#[test]
fn callbacks_through_c() {
    every_interpreter(|interpreter| walk(interpreter, &["--callbacks"], "-r 1000").map(drop));
}

#[test]
fn three_threads() {
    every_interpreter(|interpreter| walk(interpreter, &["--threads", "3"], "-r 1000 -i").map(drop));
}

#[test]
fn idle_threads_beside_a_busy_one() {
    every_interpreter(|interpreter| {
        let findings = walk(interpreter, &["--idle-threads", "160"], "-r 100 -i")?;
        let least = findings.maze * 150;
        ensure!(findings.idle >= least, "{} samples of idle threads, not {least}", findings.idle);
        Ok(())
    });
}
