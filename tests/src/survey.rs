//! Everything that can be read of a CPython, read once: what a sampler does, from finding the runtime to the
//! names of threads, without a schedule, a stop or a proof. It works on any memory: of a live process, of a
//! stored snapshot, and of one that lies. What cannot be read is left out or said to be lost; only where no
//! runtime is found there is nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anyhow::Result;
use profiler_memory::{PageCopy, ReadMemory};
use profiler_model::{Frame, NsTid, RemoteAddr};
use profiler_python::{
    Callers, CodeHead, Interpreter, Module, PyThreadState, RawFrame, RawStack, Runtime, STACK_PAGE_BYTES,
    find, interpreters, native_ids, thread_names, thread_states,
};
use profiler_stack::{Describe, Resolver};
use serde::{Deserialize, Serialize};

/// What was read of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// The version, such as `3.11.7`.
    pub version: String,
    /// Where the runtime is.
    pub runtime: u64,
    /// Its interpreters, in the order of its list.
    pub interpreters: Vec<SurveyedInterpreter>,
}

/// What was read of an interpreter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SurveyedInterpreter {
    /// Its number.
    pub id: u32,
    /// Whether its GIL was found.
    pub has_gil: bool,
    /// Whether its collector runs.
    pub collecting: bool,
    /// Its threads, in the order of its list.
    pub threads: Vec<SurveyedThread>,
}

/// What was read of a thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SurveyedThread {
    /// `pthread_self()`.
    pub pthread_id: u64,
    /// The kernel's id.
    pub native_id: Option<u32>,
    /// The name that the program gave it.
    pub name: Option<String>,
    /// Whether it holds the GIL.
    pub holds_gil: bool,
    /// The frames, leaf first, or why there are none.
    pub frames: Result<Vec<SurveyedFrame>, String>,
}

/// What was read of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SurveyedFrame {
    /// The function, qualified where there is a qualified name.
    pub function: String,
    /// The file.
    pub file: String,
    /// The line on which the function starts.
    pub first_line: Option<u32>,
    /// Line, last line, column and column after the end of the expression that runs.
    pub position: [Option<u32>; 4],
    /// Whether C code called it.
    pub is_entry: bool,
}

/// Surveys a process. `alive` are the ids that its threads have, as it knows them itself.
///
/// # Errors
/// When no runtime is found, or its list of interpreters cannot be read.
pub fn survey(modules: &[Module<'_>], memory: &impl ReadMemory, alive: &HashSet<NsTid>) -> Result<Survey> {
    survey_apart(modules, memory, memory, alive)
}

/// The same, with frames read from `stacks`: they are read by the page, which is more than is needed.
///
/// # Errors
/// As for [`survey`].
pub fn survey_apart(
    modules: &[Module<'_>],
    memory: &impl ReadMemory,
    stacks: &impl ReadMemory,
    alive: &HashSet<NsTid>,
) -> Result<Survey> {
    let runtime = find(modules, memory)?;
    let mut surveyor = Surveyor {
        runtime: &runtime,
        memory,
        stacks,
        alive,
        pages: PageCopy::with_page_bytes(STACK_PAGE_BYTES),
        callers: Callers::default(),
        resolver: Resolver::new(),
        frames: Vec::new(),
    };
    let interpreters = interpreters(memory, &runtime)?;
    Ok(Survey {
        version: runtime.offsets.version.to_string(),
        runtime: runtime.main_address.as_u64(),
        interpreters: interpreters.iter().map(|interpreter| surveyor.interpreter(interpreter)).collect(),
    })
}

struct Surveyor<'a, M, S> {
    runtime: &'a Runtime,
    memory: &'a M,
    stacks: &'a S,
    alive: &'a HashSet<NsTid>,
    pages: PageCopy,
    callers: Callers,
    /// Frames are numbered as they are met.
    resolver: Resolver<usize>,
    frames: Vec<SurveyedFrame>,
}

impl<M: ReadMemory, S: ReadMemory> Surveyor<'_, M, S> {
    fn interpreter(&mut self, interpreter: &Interpreter) -> SurveyedInterpreter {
        let offsets = &self.runtime.offsets;
        let states = thread_states(self.memory, offsets, interpreter).unwrap_or_default();
        let names = thread_names(self.memory, offsets, interpreter.address).unwrap_or_default();
        let pthread_ids: Vec<u64> = states.iter().map(|state| state.pthread_id).collect();
        let told = match offsets.thread.native_thread_id {
            Some(_) => vec![None; states.len()],
            None => native_ids(self.memory, &pthread_ids, self.alive),
        };
        let holder = self.holder(interpreter);
        let threads = states.iter().zip(told).map(|(state, told)| SurveyedThread {
            pthread_id: state.pthread_id,
            native_id: state.native_id.or(told).map(NsTid::as_u32),
            name: names.get(&state.pthread_id).cloned(),
            holds_gil: holder == Some(state.address),
            frames: self.stack(state),
        });
        SurveyedInterpreter {
            threads: threads.collect(),
            id: interpreter.id.as_u32(),
            has_gil: interpreter.gil.is_some(),
            collecting: interpreter.gc_collecting.is_some_and(|at| self.memory.scalar(at) == Ok(1i32)),
        }
    }

    /// The thread state that holds the interpreter's GIL.
    fn holder(&self, interpreter: &Interpreter) -> Option<RemoteAddr> {
        let gil = interpreter.gil?;
        let locked: i32 = self.memory.scalar(gil.locked).ok()?;
        let last_holder = self.memory.scalar(gil.last_holder).ok()?;
        (locked == 1).then_some(last_holder)
    }

    fn stack(&mut self, state: &PyThreadState) -> Result<Vec<SurveyedFrame>, String> {
        let offsets = &self.runtime.offsets;
        let mut copy = vec![0; offsets.thread.size as usize];
        self.memory.read(state.address, &mut copy).map_err(|error| error.to_string())?;
        let mut raw = RawStack::default();
        raw.walk(self.stacks, &mut self.pages, &self.callers, offsets, &copy)
            .map_err(|error| error.to_string())?;
        self.callers.learn(&raw);
        let mut frames = Vec::with_capacity(raw.frames.len());
        for frame in &raw.frames {
            frames.extend(self.frame(frame)?);
        }
        Ok(frames)
    }

    /// The frame with its names; `None` where it is no function.
    fn frame(&mut self, raw: &RawFrame) -> Result<Option<SurveyedFrame>, String> {
        let offsets = &self.runtime.offsets;
        let head = CodeHead::read(self.memory, offsets, raw.code).map_err(|error| error.to_string())?;
        let frames = &mut self.frames;
        let mut describe = Describe {
            shorten: &mut Arc::clone,
            intern: &mut |frame| {
                frames.push(surveyed(frame));
                frames.len() - 1
            },
        };
        let id = self.resolver.resolve(self.memory, offsets, raw, &head, &mut describe);
        Ok(id.map_err(|error| error.to_string())?.map(|id| self.frames[id].clone()))
    }
}

fn surveyed(frame: &Frame) -> SurveyedFrame {
    let position = frame.position;
    SurveyedFrame {
        function: frame.function.to_string(),
        file: frame.file.to_string(),
        first_line: frame.first_line,
        position: [position.line, position.end_line, position.column, position.end_column],
        is_entry: frame.is_entry,
    }
}

impl Survey {
    /// All threads, by `pthread_self()`; where several interpreters know the same one, of the first.
    pub fn threads(&self) -> HashMap<u64, &SurveyedThread> {
        let all = self.interpreters.iter().rev().flat_map(|interpreter| &interpreter.threads);
        all.map(|thread| (thread.pthread_id, thread)).collect()
    }
}
