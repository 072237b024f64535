//! What a fixture's profile must show: its `expect.json`, and the numbers of the lines it speaks of.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

/// The folder of all fixtures, in the checkout.
pub fn fixture_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

/// The expectation of a fixture.
pub fn expectation(topic: &str) -> Result<Value> {
    let path = fixture_folder().join(topic).join("expect.json");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_str(&text)?)
}

/// The numbers of the lines of a fixture that read so, indentation apart.
pub fn line_numbers(program: &str, text: &str) -> Result<Vec<u32>> {
    let source = fs::read_to_string(fixture_folder().join(program))?;
    let numbers: Vec<u32> =
        (1..).zip(source.lines()).filter(|(_, line)| line.trim() == text).map(|(number, _)| number).collect();
    anyhow::ensure!(!numbers.is_empty(), "no line of {program} reads {text:?}");
    Ok(numbers)
}
