//! `dump --locals` on NumPy's values in a live process. Those of NumPy 1 and 2 are read of stored memory in tier 1.

use std::collections::HashMap;

use anyhow::{Context, Result};
use profiler_tests::account::numpy_values::{FUNCTION, Reported};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{Environment, Fixture, Profiler, wait_until_still};
use serde_json::Value;

const PROGRAM: &str = "locals/numpy_values.py";

/// The values of the function's variables as they are shown.
fn shown(fixture: &Fixture) -> Result<HashMap<String, String>> {
    let json = Profiler::new("dump").words("--json -ll").pid(fixture).succeed()?.stdout;
    let threads: Vec<Value> = serde_json::from_str(&json)?;
    let frames = threads.first().and_then(|thread| thread["frames"].as_array()).context("no frames")?;
    let frame = frames.iter().find(|frame| frame["name"] == FUNCTION).context("not in the function")?;
    let locals = frame["locals"].as_array().context("no variables")?;
    let pair = |local: &Value| {
        Some((local["name"].as_str()?.to_owned(), local["repr"].as_str().unwrap_or("not read").to_owned()))
    };
    Ok(locals.iter().filter_map(pair).collect())
}

fn values_are_what_numpy_reports() -> Result<()> {
    let Some(interpreter) = Environment::Packages.interpreter() else { return Ok(()) };
    let mut fixture = Fixture::start(interpreter, PROGRAM, &[])?;
    let reported = Reported::parse(&fixture.ask("")?)?;
    wait_until_still(fixture.pid())?;
    reported.agrees(&shown(&fixture)?)
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(values_are_what_numpy_reports)]
}
