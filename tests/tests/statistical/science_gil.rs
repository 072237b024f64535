//! Who holds the GIL below one line of Python: the bindings that release it while they work have few samples
//! of a holder, those that keep it have as many as they have CPU time. (That the former have all their
//! samples without that filter is in the table of the same fixture.)

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{Collapsed, Environment, Interpreter, Profiler, Scratch, expectation};
use serde_json::Value;

/// The samples of a holder of the GIL.
fn record_holders(interpreter: &Interpreter, bindings: &[&str]) -> Result<Collapsed> {
    let scratch = Scratch::new()?;
    let file = scratch.file("out.txt");
    let arguments = [&["--seconds", "2", "--in-turns"], bindings].concat();
    let command = interpreter.fixture_words("bindings/bindings.py", &arguments);
    Profiler::new("record").words("-r 500 --gil -f raw -o").arg(&file).command(&command).succeed()?;
    Collapsed::parse(&std::fs::read_to_string(&file)?)
}

fn names<'a>(expected: &'a Value, list: &str) -> Result<Vec<&'a str>> {
    let names = expected[list].as_array().with_context(|| list.to_owned())?;
    Ok(names.iter().filter_map(Value::as_str).collect())
}

fn bindings_hold_the_gil_or_release_it() -> Result<()> {
    let Some(interpreter) = Environment::Bindings.interpreter() else { return Ok(()) };
    let expected = &expectation("bindings")?["judged_elsewhere"]["gil"];
    let number = |name: &str| expected[name].as_f64().with_context(|| name.to_owned());
    let (released, held) = (names(expected, "released")?, names(expected, "held")?);
    let profile = record_holders(interpreter, &[released.as_slice(), held.as_slice()].concat())?;
    let holding =
        |name: &str| profile.count(|stack| stack.contains("in_turns") && stack.contains(name)) as f64;
    let of_those_that_hold: f64 = held.iter().map(|name| holding(name)).sum();
    ensure!(of_those_that_hold >= number("least_samples")?, "only {of_those_that_hold} samples");
    let usual = of_those_that_hold / held.len() as f64;
    for name in held {
        let share = holding(name) / usual;
        ensure!(share >= number("held_at_least")?, "{name} keeps the GIL: {share:.2} of what is usual");
    }
    for name in released {
        let share = holding(name) / usual;
        ensure!(share <= number("released_at_most")?, "{name} releases the GIL: {share:.2} of what is usual");
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(bindings_hold_the_gil_or_release_it)]
}
