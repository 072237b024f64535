//! Strings, code objects and thread names. The program is `tests/data/known_objects.py`.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use profiler_memory::ReadMemory;
use profiler_model::RemoteAddr;
use profiler_python::{CodeHead, CodeObject, Offsets, code_type, read_string, thread_names};
use serde::{Deserialize, Serialize};

use super::{Account, Anchors, offsets};

/// The program.
pub const KNOWN_OBJECTS: &str = include_str!("../../data/known_objects.py");

/// What the program reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Objects {
    hex_version: u64,
    interpreter: u64,
    runtime: u64,
    code_type: u64,
    strings: Vec<(u64, String)>,
    codes: Vec<(u64, String, Option<String>, String, u32)>,
    threads: HashMap<u64, String>,
}

impl Account for Objects {
    const TOPIC: &'static str = "objects";

    fn check(&self, memory: &impl ReadMemory, _: &impl ReadMemory) -> Result<()> {
        let offsets = offsets(memory, self.hex_version, self.runtime)?;
        self.strings_agree(memory, &offsets)?;
        self.codes_agree(memory, &offsets)?;
        let names = thread_names(memory, &offsets, RemoteAddr::new(self.interpreter))?;
        ensure!(names.len() > 100, "only {} threads have names", names.len());
        ensure!(names == self.threads, "names {names:?}\n instead of {:?}", self.threads);
        Ok(())
    }

    fn walked(&self) -> Option<&Anchors> {
        None
    }
}

impl Objects {
    fn strings_agree(&self, memory: &impl ReadMemory, offsets: &Offsets) -> Result<()> {
        for (address, text) in &self.strings {
            let read = read_string(memory, offsets, RemoteAddr::new(*address))?;
            ensure!(read == *text, "the string {text:?} is read as {read:?}");
        }
        Ok(())
    }

    fn codes_agree(&self, memory: &impl ReadMemory, offsets: &Offsets) -> Result<()> {
        for (address, name, qualified_name, file, first_line) in &self.codes {
            let address = RemoteAddr::new(*address);
            let code = CodeObject::read(memory, offsets, address)?;
            let read = (&*code.name, code.qualified_name.as_deref(), &*code.file, code.first_line);
            let reported = (&**name, qualified_name.as_deref(), &**file, Some(*first_line));
            ensure!(read == reported, "the code object {reported:?} is read as {read:?}");
            let lines = code.line_table.as_ref().context("its line table is not read")?;
            ensure!(lines.position(None).line == Some(*first_line), "{name} starts elsewhere");
            ensure!(lines.position(Some(0)).line.is_some(), "the first instruction of {name} has no line");
            ensure!(CodeHead::read(memory, offsets, address)? == code.head, "the head of {name} changes");
            let found = code_type(memory, offsets, address)?;
            ensure!(found.as_u64() == self.code_type, "the type of code objects is not at {found}");
        }
        let no_code = RemoteAddr::new(self.strings[0].0);
        ensure!(code_type(memory, offsets, no_code).is_err(), "a string passes for a code object");
        Ok(())
    }
}
