//! `dump --locals` on NumPy's values: every kind of scalar is written as NumPy itself writes it, arrays by shape
//! and type, with NumPy 1 and NumPy 2.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{Environment, Fixture, Profiler, wait_until_still};
use serde::Deserialize;
use serde_json::Value;

const PROGRAM: &str = "locals/numpy_values.py";

/// Variables in the fixture that nothing but their type and address is shown of.
const OBJECTS: [&str; 5] = ["record", "matrix", "masked", "dtype", "kind"];

/// What the program says of a variable.
#[derive(Deserialize)]
#[serde(untagged)]
enum Told {
    Array {
        shape: Vec<u64>,
        #[serde(rename = "type")]
        kind: String,
    },
    Other {
        repr: String,
    },
}

/// The values of the function's variables as they are shown.
fn shown(fixture: &Fixture) -> Result<HashMap<String, String>> {
    let json = Profiler::new("dump").words("--json -ll").pid(fixture).succeed()?.stdout;
    let threads: Vec<Value> = serde_json::from_str(&json)?;
    let frames = threads.first().and_then(|thread| thread["frames"].as_array()).context("no frames")?;
    let frame = frames.iter().find(|frame| frame["name"] == "holds").context("not in `holds`")?;
    let locals = frame["locals"].as_array().context("no variables")?;
    let pair = |local: &Value| {
        Some((local["name"].as_str()?.to_owned(), local["repr"].as_str().unwrap_or("not read").to_owned()))
    };
    Ok(locals.iter().filter_map(pair).collect())
}

/// `<ndarray (5,) int32>`.
fn array(shape: &[u64], kind: &str) -> String {
    let sizes: Vec<String> = shape.iter().map(u64::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    format!("<ndarray ({}{comma}) {kind}>", sizes.join(", "))
}

/// What NumPy 1 writes of a value that is shown as NumPy 2 would: most scalars without their type.
fn as_numpy_1(shown: &str) -> String {
    let of_type = |name: &str| shown.strip_prefix("np.").is_some_and(|rest| rest.starts_with(name));
    if of_type("datetime64(") || of_type("timedelta64(") {
        return shown.replacen("np.", "numpy.", 1);
    }
    if let Some(truth) = shown.strip_prefix("np.").and_then(|rest| rest.strip_suffix('_')) {
        return truth.to_owned();
    }
    let content = shown.split_once('(').map_or(shown, |(_, rest)| rest.strip_suffix(')').unwrap_or(rest));
    let content =
        if of_type("longdouble(") || of_type("clongdouble(") { content.trim_matches('\'') } else { content };
    let is_complex = of_type("complex") || of_type("clongdouble");
    // Python's parentheses, which it leaves out where there is no real part.
    let digits = content.trim_start_matches(['-', '+']).trim_end_matches('j');
    let has_parts = digits.replace("e+", "").replace("e-", "").contains(['+', '-']);
    if is_complex && has_parts { format!("({content})") } else { content.to_owned() }
}

fn agrees(name: &str, shown: &str, told: &Told, is_numpy_1: bool) -> Result<()> {
    let repr = match told {
        Told::Array { shape, kind } => {
            ensure!(shown == array(shape, kind), "{name} is shown as {shown}: {shape:?} {kind}");
            return Ok(());
        }
        Told::Other { repr } => repr,
    };
    if OBJECTS.contains(&name) {
        ensure!(shown.starts_with('<') && shown.contains(" object at 0x"), "{name} is shown as {shown}");
        return Ok(());
    }
    if is_numpy_1 && name.starts_with("in_") {
        let of_version_2 = [("in_list", "[np.float64(0.5), np.int8(1)]"), ("in_dict", "{'a': np.str_('b')}")];
        ensure!(of_version_2.contains(&(name, shown)), "{name} is shown as {shown}");
        return Ok(());
    }
    let shown_here = if is_numpy_1 { as_numpy_1(shown) } else { shown.to_owned() };
    ensure!(shown_here == *repr, "{name} is shown as {shown}, NumPy says {repr}");
    Ok(())
}

fn every_value_agrees(environment: Environment, major: &str) -> Result<()> {
    let Some(interpreter) = environment.interpreter() else { return Ok(()) };
    let mut fixture = Fixture::start(interpreter, PROGRAM, &[])?;
    let answer = fixture.ask("")?;
    let (version, told): (String, HashMap<String, Told>) = serde_json::from_str(&answer)?;
    ensure!(version.starts_with(major), "this is NumPy {version}");
    wait_until_still(fixture.pid())?;
    let shown = shown(&fixture)?;
    ensure!(told.len() > 100 && shown.len() == told.len(), "{} told, {} shown", told.len(), shown.len());
    for (name, told) in &told {
        let shown = shown.get(name).with_context(|| format!("{name} is not shown"))?;
        agrees(name, shown, told, major == "1.")?;
    }
    Ok(())
}

fn values_of_numpy_2_are_what_it_says() -> Result<()> {
    every_value_agrees(Environment::Packages, "2.")
}

fn values_of_numpy_1_are_what_it_says() -> Result<()> {
    every_value_agrees(Environment::Numpy1, "1.")
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(values_of_numpy_2_are_what_it_says), test!(values_of_numpy_1_are_what_it_says)]
}
