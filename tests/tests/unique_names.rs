//! Counting names with a list: two hot lines, on every interpreter.

use anyhow::{Context, Result, ensure};
use profiler_tests::{Collapsed, Profiler, Scratch, every_interpreter, expectation, line_numbers};
use serde_json::Value;

#[test]
fn the_inner_loop_is_hot() {
    every_interpreter(|interpreter| {
        let scratch = Scratch::new()?;
        let file = scratch.file("out.txt");
        Profiler::new("record")
            .words("-f raw -r 500 -o")
            .arg(&file)
            .command(&interpreter.fixture_words("unique_names/unique_names.py", &["--names", "6000"]))
            .succeed()?;
        check(&Collapsed::parse(&std::fs::read_to_string(&file)?)?)
    });
}

fn check(profile: &Collapsed) -> Result<()> {
    let expected = expectation("unique_names")?;
    let text = |name: &str| expected[name].as_str().with_context(|| name.to_owned());
    let number = |name: &str| expected[name].as_f64().with_context(|| name.to_owned());
    let counting =
        |name: &str| profile.count(|stack| stack.leaf().is_some_and(|leaf| leaf.plain_name() == name));
    let (slow, fast) = (counting(text("hot_function")?), counting(text("other_function")?));
    ensure!(slow >= 50, "only {slow} samples in the slow function");
    let (slow_number, both) = (slow as f64, (slow + fast) as f64);
    ensure!(slow_number / both >= number("least_share")?, "{slow} slow, {fast} fast");
    ensure!(fast as f64 / both <= number("most_share_other")?, "{slow} slow, {fast} fast");
    let hot = text("hot_function")?;
    let mut on_lines = Vec::new();
    for line in expected["lines"].as_array().context("lines")?.iter().filter_map(Value::as_str) {
        let numbers = line_numbers("unique_names/unique_names.py", line)?;
        let count = profile.count(|stack| {
            let leaf = stack.leaf().filter(|leaf| leaf.plain_name() == hot);
            leaf.and_then(|leaf| leaf.line).is_some_and(|line| numbers.contains(&line))
        });
        ensure!(count as f64 / slow_number >= number("each_line_at_least")?, "{line:?}: {count} of {slow}");
        on_lines.push((count, line));
    }
    let sum: u64 = on_lines.iter().map(|(count, _)| count).sum();
    ensure!(sum as f64 / slow_number >= number("least_share_of_lines")?, "{on_lines:?} of {slow}");
    let hottest = on_lines.iter().max().context("no lines")?.1;
    ensure!(hottest == text("hottest_line")?, "{on_lines:?}");
    Ok(())
}
