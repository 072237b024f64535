//! The variables of frames. The program is `fixtures/locals/locals.py`.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use profiler_memory::ReadMemory;
use profiler_model::{RemoteAddr, Variable};
use profiler_python::{Offsets, RawFrame, ReprLimits, Values, variables};
use serde::{Deserialize, Serialize};

use super::{Account, Anchors};

/// How many characters of a value `dump --locals` shows, and `dump -ll`.
pub const SHORT: usize = 128;
/// See [`SHORT`].
pub const LONG: usize = 256;

/// Fewer variables than the program has.
const MANY: usize = 60;

/// A frame as the program reports it, innermost first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportedFrame {
    /// The function.
    pub function: String,
    /// Its variables, each with its address and value.
    pub variables: HashMap<String, (u64, String)>,
    place: u64,
    code: u64,
}

/// What the program answers: its version, where its runtime is, and its frames.
pub type Answer = (u64, u64, Vec<ReportedFrame>);

/// The frames of an answer of the program, of which the innermost and the outermost have no variables of their own.
///
/// # Errors
/// When it has fewer variables than it should.
pub fn reported(answer: &str) -> Result<Vec<ReportedFrame>> {
    let (_, _, frames): Answer = serde_json::from_str(answer)?;
    ensure!(frames.iter().map(|frame| frame.variables.len()).sum::<usize>() > MANY, "few: {frames:?}");
    Ok(frames)
}

/// An answer of the program with the place of its thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Locals {
    anchors: Anchors,
    frames: Vec<ReportedFrame>,
}

impl Locals {
    /// Of an answer of the program.
    ///
    /// # Errors
    /// As for [`reported`].
    pub fn new(anchors: Anchors, answer: &str) -> Result<Self> {
        Ok(Locals { anchors, frames: reported(answer)? })
    }

    /// Compares places and values of all variables, at both lengths, with what the program reports.
    ///
    /// # Errors
    /// When any differs.
    pub fn values_agree(&self, memory: &impl ReadMemory, stacks: &impl ReadMemory) -> Result<()> {
        for characters in [SHORT, LONG] {
            let read = self.read(memory, stacks, characters)?;
            let with_variables = self.frames.iter().zip(&read).skip(1).take(self.frames.len() - 2);
            for (reported, read) in with_variables {
                reported.agrees(read.iter().map(Shown::of), characters)?;
            }
        }
        Ok(())
    }

    /// Checks that parameters are marked and other variables are not.
    ///
    /// # Errors
    /// When they are not.
    pub fn parameters_are_marked(&self, memory: &impl ReadMemory, stacks: &impl ReadMemory) -> Result<()> {
        let read = self.read(memory, stacks, SHORT)?;
        parameters_are_marked(|function| {
            let index = self.frames.iter().position(|frame| frame.function == function)?;
            Some(read[index].iter().map(|variable| (variable.name.clone(), variable.is_argument)).collect())
        })
    }

    /// The variables of each frame of the stack, which must be the one that is reported.
    fn read(
        &self,
        memory: &impl ReadMemory,
        stacks: &impl ReadMemory,
        characters: usize,
    ) -> Result<Vec<Vec<Variable>>> {
        let offsets = self.anchors.offsets(memory)?;
        let stack = self.anchors.main_stack(memory, stacks, &offsets)?;
        let walked: Vec<_> = stack.places().zip(stack.frames.iter().map(|frame| frame.code)).collect();
        let reported: Vec<_> = self.frames.iter().map(ReportedFrame::address).collect();
        ensure!(walked == reported, "frames at {walked:?} instead of {reported:?}");
        let values = Values::new(memory, &offsets, ReprLimits { characters });
        let read = stack.places().zip(&stack.frames).map(|(place, frame)| variables(&values, place, frame));
        read.collect::<Result<_, _>>().context("the variables of a frame")
    }

    /// The functions of the stack with their variables, innermost first.
    ///
    /// # Errors
    /// When they cannot be read, or the stack is not the one that is reported.
    pub fn frames(
        &self,
        memory: &impl ReadMemory,
        characters: usize,
    ) -> Result<Vec<(String, Vec<Variable>)>> {
        let functions = self.frames.iter().map(|frame| frame.function.clone());
        Ok(functions.zip(self.read(memory, memory, characters)?).collect())
    }

    /// All variables of the reported frames as text, as far as they can be read.
    ///
    /// # Panics
    /// When a value is longer than was asked for.
    pub fn read_what_there_is(&self, memory: &impl ReadMemory, offsets: &Offsets) -> Vec<String> {
        let limits = ReprLimits { characters: SHORT };
        let values = Values::new(memory, offsets, limits);
        let mut all = Vec::new();
        for (place, code) in self.frames.iter().map(ReportedFrame::address) {
            let frame = RawFrame { code, instruction: 0, bytecode_copy: 0, is_entry: false };
            for variable in variables(&values, place, &frame).unwrap_or_default() {
                let value = variable.value.unwrap_or_default();
                assert!(value.chars().count() <= limits.characters + 3, "{value}");
                all.push(format!("{}: {value}", variable.name));
            }
        }
        all
    }
}

impl Account for Locals {
    const TOPIC: &'static str = "locals";

    fn check(&self, memory: &impl ReadMemory, stacks: &impl ReadMemory) -> Result<()> {
        self.values_agree(memory, stacks)?;
        self.parameters_are_marked(memory, stacks)
    }

    fn walked(&self) -> Option<&Anchors> {
        Some(&self.anchors)
    }
}

/// A variable as it is shown.
#[derive(Clone, Debug)]
pub struct Shown<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where its value is.
    pub address: u64,
    /// The value; `None` where it could not be read.
    pub value: Option<&'a str>,
}

impl<'a> Shown<'a> {
    fn of(variable: &'a Variable) -> Self {
        Shown { name: &variable.name, address: variable.address.as_u64(), value: variable.value.as_deref() }
    }
}

impl ReportedFrame {
    fn address(&self) -> (RemoteAddr, RemoteAddr) {
        (RemoteAddr::new(self.place), RemoteAddr::new(self.code))
    }

    /// Compares what is shown of the frame with what the program reports.
    ///
    /// # Errors
    /// When a variable differs, is missing, or is one too many.
    pub fn agrees<'a>(&self, shown: impl Iterator<Item = Shown<'a>>, limit: usize) -> Result<()> {
        let shown: HashMap<&str, Shown<'_>> = shown.map(|variable| (variable.name, variable)).collect();
        for (name, (address, value)) in &self.variables {
            let shown = shown.get(&**name);
            let shown = shown.with_context(|| format!("{}: no variable {name}", self.function))?;
            ensure!(shown.address == *address, "{name} is at {:#x}, not at {address:#x}", shown.address);
            let text = shown.value.with_context(|| format!("{name} could not be read"))?;
            ensure!(is_value(text, value, limit), "{name} is shown as {text}, the program reports {value}");
        }
        ensure!(shown.len() == self.variables.len(), "{}: more variables than it has", self.function);
        Ok(())
    }
}

/// Whether what is shown is the reported value.
fn is_value(shown: &str, reported: &str, limit: usize) -> bool {
    if let Some(start) = shown.strip_suffix("...")
        && start.chars().count() == limit
    {
        return reported.starts_with(start);
    }
    // A class decides how its instances are reported; the address is compared by itself.
    let is_object = shown.starts_with('<') && reported.starts_with('<');
    let is_large = shown.starts_with("<int of up to") && reported.len() > 500;
    // Nested deeper than is shown.
    let is_deep = shown.contains("...") && shown.starts_with("[[[[[") && reported.starts_with('[');
    shown == reported || is_object || is_large || is_deep
}

/// Whether the parameters of the program's functions are marked as such, and other variables are not. `of` gives the names
/// of a function's variables, in order, with their marks.
///
/// # Errors
/// When a mark is wrong or missing.
pub fn parameters_are_marked(of: impl Fn(&str) -> Option<Vec<(String, bool)>>) -> Result<()> {
    let takes = of("takes").context("no frame of `takes`")?;
    let marked: Vec<(&str, bool)> = takes.iter().map(|(name, marked)| (&**name, *marked)).collect();
    let parameters = ["first", "second", "named", "other", "args", "kwargs"].map(|name| (name, true));
    ensure!(marked.starts_with(&parameters) && marked[6..] == [("after", false)], "{takes:?}");
    let shares = of("shares").context("no frame of `shares`")?;
    let has = |name: &str, marked: bool| shares.iter().any(|(known, mark)| known == name && *mark == marked);
    // One of them has moved into a cell.
    ensure!(has("parameter", true) && has("own", false), "{shares:?}");
    Ok(())
}
