//! NumPy's values. The program is `fixtures/locals/numpy_values.py`.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use profiler_memory::ReadMemory;
use profiler_python::{CodeObject, ReprLimits, Values, variables};
use serde::{Deserialize, Serialize};

use super::locals::LONG;
use super::{Account, Anchors};

/// The function whose variables are reported.
pub const FUNCTION: &str = "holds";

/// Fewer variables than it has.
const MANY: usize = 100;

/// Variables of which nothing but type and address is shown.
const OBJECTS: [&str; 5] = ["record", "matrix", "masked", "dtype", "kind"];

/// What NumPy reports of a variable.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ReportedValue {
    /// Of an array: its shape and the type of its items.
    Array {
        /// The shape.
        shape: Vec<u64>,
        /// The type.
        #[serde(rename = "type")]
        kind: String,
    },
    /// Of anything else.
    Other {
        /// What `repr` says.
        repr: String,
    },
}

/// What the program answers: NumPy's version, and each variable.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reported {
    version: String,
    variables: HashMap<String, ReportedValue>,
}

impl Reported {
    /// Of an answer of the program.
    ///
    /// # Errors
    /// When it has fewer variables than it should.
    pub fn parse(answer: &str) -> Result<Self> {
        let (version, variables): (String, HashMap<String, ReportedValue>) = serde_json::from_str(answer)?;
        ensure!(variables.len() > MANY, "only {} variables", variables.len());
        Ok(Reported { version, variables })
    }

    /// NumPy's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Compares what is shown of all variables with what NumPy reports.
    ///
    /// # Errors
    /// When any differs.
    pub fn agrees(&self, shown: &HashMap<String, String>) -> Result<()> {
        let (reported, shown_count) = (self.variables.len(), shown.len());
        ensure!(reported == shown_count, "{shown_count} variables instead of {reported}");
        for (name, reported) in &self.variables {
            let shown = shown.get(name).with_context(|| format!("{name} is not shown"))?;
            agrees(name, shown, reported, self.version.starts_with("1."))?;
        }
        Ok(())
    }
}

/// An answer of the program with the place of its thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NumpyValues {
    anchors: Anchors,
    reported: Reported,
}

impl NumpyValues {
    /// Of an answer of the program.
    pub fn new(anchors: Anchors, reported: Reported) -> Self {
        NumpyValues { anchors, reported }
    }
}

impl Account for NumpyValues {
    const TOPIC: &'static str = "numpy_values";

    fn check(&self, memory: &impl ReadMemory, stacks: &impl ReadMemory) -> Result<()> {
        let offsets = self.anchors.offsets(memory)?;
        let stack = self.anchors.main_stack(memory, stacks, &offsets)?;
        let values = Values::new(memory, &offsets, ReprLimits { characters: LONG });
        for (place, frame) in stack.places().zip(&stack.frames) {
            if &*CodeObject::read(memory, &offsets, frame.code)?.name == FUNCTION {
                let variables = variables(&values, place, frame)?.into_iter();
                let shown = variables.map(|one| (one.name, one.value.unwrap_or("not read".to_owned())));
                return self.reported.agrees(&shown.collect());
            }
        }
        anyhow::bail!("no frame of {FUNCTION}")
    }

    fn walked(&self) -> Option<&Anchors> {
        Some(&self.anchors)
    }
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

fn agrees(name: &str, shown: &str, reported: &ReportedValue, is_numpy_1: bool) -> Result<()> {
    let repr = match reported {
        ReportedValue::Array { shape, kind } => {
            ensure!(shown == array(shape, kind), "{name} is shown as {shown}: {shape:?} {kind}");
            return Ok(());
        }
        ReportedValue::Other { repr } => repr,
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
    ensure!(shown_here == *repr, "{name} is shown as {shown}, NumPy reports {repr}");
    Ok(())
}
