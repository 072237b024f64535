//! Scripts so long that their line tables are: thousands of statements in one code object, as notebooks export them.

use anyhow::{Result, ensure};
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Test};
use profiler_tests::{Profiler, Scratch, read_speedscope, test};

/// Enough that the line table is longer than the in-kernel program sends, in every version of CPython.
const STATEMENTS: usize = 5000;

/// The statements, and behind them two lines that work, the second one for twice as long.
fn script() -> String {
    let work =
        "end = clock() + 0.4\nwhile clock() < end: pass\nend = clock() + 0.8\nwhile clock() < end: pass\n";
    format!("import time\nclock, y = time.process_time, 1\n{}{work}", "x=(1,y,y)\n".repeat(STATEMENTS))
}

fn lines_far_down_have_their_shares(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.json");
    let words = format!("-f speedscope -r 1000 {} -o", case.sampler_words());
    let command = case.interpreter.inline_words(&script());
    Profiler::new("record").words(&words).arg(&file).command(&command).succeed()?;
    let samples = read_speedscope(&std::fs::read_to_string(&file)?)?;
    let on_line = |line: usize| -> f64 {
        let there = samples.iter().filter(|sample| {
            let leaf = sample.frames.last();
            leaf.is_some_and(|leaf| leaf.function == "<module>" && leaf.line == u32::try_from(line).ok())
        });
        there.map(|sample| sample.weight).sum()
    };
    let (first, second) = (on_line(STATEMENTS + 4), on_line(STATEMENTS + 6));
    // The script is compiled before, for some hundredths of a second that have no frames.
    ensure!((0.3..=0.5).contains(&first), "{first} s on the first of the lines, not 0.4");
    ensure!((0.7..=0.9).contains(&second), "{second} s on the second of the lines, not 0.8");
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(lines_far_down_have_their_shares).on(On::Layouts).by(PAUSE_AND_BPF)]
}
