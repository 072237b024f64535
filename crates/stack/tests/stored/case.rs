//! A stored process as the tests see it: its deepest stack, and the memory that the stack is in.

use profiler_memory::{PageCopy, ReadError, ReadMemory, Snapshot};
use profiler_model::RemoteAddr;
use profiler_python::{
    Callers, CodeHead, Interpreter, Module, Offsets, PyThreadState, RawFrame, RawStack, find, interpreters,
    thread_states,
};
use profiler_tests::snapshot::StoredProcess;
use profiler_tests::survey::SurveyedFrame;

/// The deepest stack of a stored process, and the memory it is in.
pub struct Case {
    pub id: String,
    pub memory: Snapshot,
    pub offsets: Offsets,
    pub stack: RawStack,
    /// The same stack as the process described it, leaf first.
    pub described: Vec<SurveyedFrame>,
}

pub fn cases() -> Vec<Case> {
    StoredProcess::all().expect("the stored snapshots").iter().map(case).collect()
}

fn case(process: &StoredProcess) -> Case {
    let memory = process.memory.with_whole_pages();
    let modules = process.modules().expect("the stored modules");
    let modules: Vec<Module<'_>> = modules.iter().map(|module| module.as_module()).collect();
    let runtime = find(&modules, &memory).expect("the runtime");
    let interpreters = interpreters(&memory, &runtime).expect("the interpreters");
    let threads = interpreters.iter().flat_map(|interpreter| threads(&memory, &runtime.offsets, interpreter));
    let stacks = threads.map(|thread| walk(&memory, &runtime.offsets, &thread));
    let surveyed = process.about.survey.interpreters.iter().flat_map(|interpreter| &interpreter.threads);
    let (stack, surveyed) =
        stacks.zip(surveyed).max_by_key(|(stack, _)| stack.frames.len()).expect("a thread");
    let described = surveyed.frames.clone().expect("a whole stack");
    Case { id: process.id.clone(), memory, offsets: runtime.offsets, stack, described }
}

fn threads(memory: &Snapshot, offsets: &Offsets, interpreter: &Interpreter) -> Vec<PyThreadState> {
    thread_states(memory, offsets, interpreter).expect("the threads")
}

fn walk(memory: &Snapshot, offsets: &Offsets, thread: &PyThreadState) -> RawStack {
    let mut copy = vec![0; offsets.thread.size as usize];
    memory.read(thread.address, &mut copy).expect("the thread state");
    let (mut stack, mut pages) = (RawStack::default(), PageCopy::new());
    stack.walk(memory, &mut pages, &Callers::default(), offsets, &copy).expect("the stack");
    stack
}

impl Case {
    pub fn head(&self, frame: &RawFrame) -> CodeHead {
        CodeHead::read(&self.memory, &self.offsets, frame.code).expect("the head")
    }

    /// The memory in which another code object lies where `frame` has its own: it starts on this line.
    pub fn with_replaced_code(&self, frame: &RawFrame, first_line: i32) -> Snapshot {
        let mut replaced = self.memory.clone();
        let field = self.offsets.code.first_line;
        replaced.overwrite(frame.code.offset(field.offset().into()), &first_line.to_le_bytes());
        replaced
    }
}

/// Memory of a process that has ended: every read fails.
pub struct Ended;

impl ReadMemory for Ended {
    fn read(&self, _: RemoteAddr, _: &mut [u8]) -> Result<(), ReadError> {
        Err(ReadError::ProcessEnded)
    }
}
