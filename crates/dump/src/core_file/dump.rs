//! What every thread was doing when its core file was made.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use profiler_memory::{CoreActivity, CoreThread, ReadError, ReadMemory};
use profiler_model::{Frame, LossReason, NsTid, RemoteAddr, ThreadState, Tid, WaitReason};
use profiler_os::Activity;
use profiler_profile::{FrameDetails, ProcessDump, Stops, Tasks, ThreadDump, Variables};
use profiler_python::{
    CodeError, CodeHead, Interpreter, RawFrame, ReprLimits, Values, first_interpreters, first_thread_states,
    native_ids, thread_names, variables,
};
use profiler_sampler::once::{
    MAX_FRAMES_WITH_VARIABLES, StackReader, TaskList, TaskReader, loss, read_gil, task_dumps,
};
use profiler_stack::{Describe, Resolver};
use profiler_target::{ShortFiles, Sources};

use super::CoreTarget;

/// What is shown of a core file beside stacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreOptions {
    /// The variables of each frame, so much of each value.
    pub variables: Option<ReprLimits>,
    /// The line of source that each frame is at.
    pub source: bool,
    /// asyncio's tasks.
    pub tasks: bool,
}

/// What the threads of a core file were doing, and why their list is not
/// whole, where it is not.
pub fn dump_core(target: &CoreTarget, options: CoreOptions) -> (ProcessDump, Option<ReadError>) {
    let (interpreters, mut cut) = first_interpreters(&target.memory, &target.runtime);
    let mut found = Vec::new();
    for interpreter in &interpreters {
        let (states, error) = first_thread_states(&target.memory, target.offsets(), interpreter);
        cut = cut.or(error);
        found.extend(states.into_iter().map(|state| (interpreter, state)));
    }
    let kernel = KernelThreads::of(target, &found);
    let names = names(target, &interpreters);
    let mut look = Look::new(target, options);
    // The oldest first, as in dumps of live processes.
    let threads: Vec<ThreadDump> = found
        .iter()
        .rev()
        .map(|(interpreter, state)| {
            let name = names.get(&state.pthread_id).cloned();
            let mut thread = look.thread(interpreter, state, kernel.of_state(state), name);
            thread.holds_gil |= found.len() == 1 && look.has_no_gil_yet(interpreter);
            thread
        })
        .collect();
    let process = target.file().process.as_ref();
    let dump = ProcessDump {
        pid: target.pid(),
        command_line: process.map(|process| process.command_line.clone()).unwrap_or_default(),
        python_version: target.offsets().version.to_string(),
        executable: target.file().executable().unwrap_or_default().to_owned(),
        ancestors: Vec::new(),
        other_pythons: Vec::new(),
        threads,
        tasks: if options.tasks { look.tasks(&interpreters, &found, &kernel) } else { Tasks::None },
        stops: Stops::default(),
    };
    (dump, cut)
}

/// The names of all threads, by `pthread_self()`.
fn names(target: &CoreTarget, interpreters: &[Interpreter]) -> HashMap<u64, String> {
    let names = |one: &Interpreter| thread_names(&target.memory, target.offsets(), one.address).ok();
    interpreters.iter().filter_map(names).flatten().collect()
}

/// Which kernel thread each thread state had.
struct KernelThreads<'a> {
    /// By `pthread_self()`, where the registers tell it: right in every PID namespace.
    by_pthread: HashMap<u64, &'a CoreThread>,
    by_tid: HashMap<NsTid, &'a CoreThread>,
    /// For versions that do not keep the id: by `pthread_self()`.
    read_ids: HashMap<u64, NsTid>,
}

impl<'a> KernelThreads<'a> {
    fn of(target: &'a CoreTarget, found: &[(&Interpreter, profiler_python::PyThreadState)]) -> Self {
        let threads = &target.file().threads;
        let by_pthread: HashMap<_, _> =
            threads.iter().filter_map(|thread| Some((thread.pthread_id?, thread))).collect();
        let by_tid: HashMap<_, _> = threads.iter().map(|thread| (thread.tid, thread)).collect();
        let unknown: Vec<u64> = found
            .iter()
            .filter(|(_, state)| state.native_id.is_none() && !by_pthread.contains_key(&state.pthread_id))
            .map(|(_, state)| state.pthread_id)
            .collect();
        let alive: HashSet<NsTid> = by_tid.keys().copied().collect();
        let ids = if unknown.is_empty() { Vec::new() } else { native_ids(&target.memory, &unknown, &alive) };
        let read_ids = unknown.iter().zip(ids).filter_map(|(pthread, id)| Some((*pthread, id?))).collect();
        KernelThreads { by_pthread, by_tid, read_ids }
    }

    fn of_state(&self, state: &profiler_python::PyThreadState) -> Option<&'a CoreThread> {
        let by_id = || {
            let tid = state.native_id.or_else(|| self.read_ids.get(&state.pthread_id).copied())?;
            self.by_tid.get(&tid)
        };
        self.by_pthread.get(&state.pthread_id).or_else(by_id).copied()
    }
}

struct Look<'a> {
    target: &'a CoreTarget,
    options: CoreOptions,
    sources: Sources,
    reader: StackReader,
    /// Frames are numbered as they are met.
    resolver: Resolver<usize>,
    frames: Vec<Frame>,
    short_files: ShortFiles,
}

impl<'a> Look<'a> {
    fn new(target: &'a CoreTarget, options: CoreOptions) -> Self {
        Look {
            target,
            options,
            sources: Sources::below(target.root.clone(), target.written),
            reader: StackReader::new(),
            resolver: Resolver::new(),
            frames: Vec::new(),
            short_files: ShortFiles::below(target.root.clone()),
        }
    }

    fn thread(
        &mut self,
        interpreter: &Interpreter,
        state: &profiler_python::PyThreadState,
        kernel: Option<&CoreThread>,
        name: Option<String>,
    ) -> ThreadDump {
        let (lost, stack) = match self.stack(state) {
            Ok(stack) => (None, stack),
            Err(reason) => (Some(reason), Stack::default()),
        };
        let holder = interpreter.gil.and_then(|gil| read_gil(&self.target.memory, &gil).ok()?.holder());
        let holds_gil = holder == Some(state.address);
        let tid = kernel.map(|thread| Tid::new(thread.tid.as_u32()));
        ThreadDump {
            pthread_id: state.pthread_id,
            tid,
            name,
            state: thread_state(interpreter, kernel),
            waits_on: None,
            holds_gil,
            gc: holds_gil && self.is_collecting(interpreter.gc_collecting),
            is_main: tid.is_some_and(|tid| tid.as_u32() == self.target.pid().as_u32()),
            interpreter: interpreter.id,
            frames: stack.frames,
            truncated: stack.truncated,
            lost,
            details: stack.details,
        }
    }

    /// Whether the GIL is still to be made: then the only thread runs as if it held it.
    fn has_no_gil_yet(&self, interpreter: &Interpreter) -> bool {
        let state = interpreter.gil.and_then(|gil| read_gil(&self.target.memory, &gil).ok());
        state.is_some_and(|state| !state.exists)
    }

    fn is_collecting(&self, flag: Option<RemoteAddr>) -> bool {
        flag.is_some_and(|at| self.target.memory.scalar::<i32>(at).is_ok_and(|value| value != 0))
    }

    fn stack(&mut self, state: &profiler_python::PyThreadState) -> Result<Stack, LossReason> {
        let (memory, offsets) = (&self.target.memory, self.target.offsets());
        self.reader.begin(memory).map_err(loss)?;
        let raw = self.reader.stack(memory, offsets, state)?;
        let mut stack = Stack { truncated: raw.truncated, ..Stack::default() };
        for (depth, (place, frame)) in raw.places().zip(&raw.frames).enumerate() {
            let Some(described) = self.describe(frame)? else { continue };
            if self.options.variables.is_some() || self.options.source {
                let is_near = depth < MAX_FRAMES_WITH_VARIABLES;
                let variables = self.variables(place, frame, is_near);
                let source = if self.options.source { self.sources.line(&described) } else { None };
                stack.details.push(FrameDetails { variables, source });
            }
            stack.frames.push(described);
        }
        Ok(stack)
    }

    fn variables(&self, place: RemoteAddr, frame: &RawFrame, is_near: bool) -> Variables {
        let Some(limits) = self.options.variables else { return Variables::default() };
        let values = Values::new(&self.target.memory, self.target.offsets(), limits);
        let read = if is_near { variables(&values, place, frame).ok() } else { None };
        read.map_or(Variables::Lost(None), Variables::Read)
    }

    /// asyncio's tasks, as far as the process says where they are.
    fn tasks(
        &mut self,
        interpreters: &[Interpreter],
        found: &[(&Interpreter, profiler_python::PyThreadState)],
        kernel: &KernelThreads<'_>,
    ) -> Tasks {
        let Some(asyncio) = self.target.asyncio.filter(|_| self.target.offsets().generators.is_some()) else {
            return Tasks::None;
        };
        let memory = &self.target.memory;
        let of_threads = found.iter().filter_map(|(_, state)| {
            let tid = kernel.of_state(state).map(|thread| Tid::new(thread.tid.as_u32()));
            TaskList::of_thread(memory, &asyncio, state.address, tid)
        });
        let left = |one: &Interpreter| TaskList::of_interpreter(memory, &asyncio, one.address);
        let lists: Vec<TaskList> = of_threads.chain(interpreters.iter().filter_map(left)).collect();
        if lists.is_empty() {
            return Tasks::None;
        }
        let mut reader = TaskReader::new(self.target.offsets(), &asyncio);
        let shorten = &mut |file: &Arc<str>| self.short_files.shorten(file);
        let tasks = lists.iter().flat_map(|list| task_dumps(&mut reader, memory, list, shorten)).collect();
        Tasks::Read { tasks, truncated: lists.iter().any(TaskList::is_truncated) }
    }

    /// The frame with its name; `None` for one that is no function.
    fn describe(&mut self, raw: &RawFrame) -> Result<Option<Frame>, LossReason> {
        let (memory, offsets) = (&self.target.memory, self.target.offsets());
        let (known, short_files) = (&mut self.frames, &mut self.short_files);
        let mut intern = |frame: &Frame| {
            known.push(frame.clone());
            known.len() - 1
        };
        let mut shorten = |file: &Arc<str>| short_files.shorten(file);
        let mut describe = Describe { shorten: &mut shorten, intern: &mut intern };
        let head = CodeHead::read(memory, offsets, raw.code).map_err(loss)?;
        let id = self.resolver.resolve(memory, offsets, raw, &head, &mut describe).map_err(nameless)?;
        Ok(id.map(|id| self.frames[id].clone()))
    }
}

/// The frames of a thread, innermost first.
#[derive(Default)]
struct Stack {
    frames: Vec<Frame>,
    details: Vec<FrameDetails>,
    truncated: bool,
}

/// The loss that follows from a code object that has no name.
fn nameless(error: CodeError) -> LossReason {
    match error {
        CodeError::Read(_) | CodeError::Name(_) => LossReason::Unreadable,
        CodeError::NotCode(_) | CodeError::Changed(_) => LossReason::Invalid,
    }
}

/// What the registers tell, as far as their numbers are those of the machine that this runs on.
fn thread_state(interpreter: &Interpreter, kernel: Option<&CoreThread>) -> ThreadState {
    let activity = match kernel.map(|thread| thread.activity) {
        Some(CoreActivity::Running) => Activity::Running,
        Some(CoreActivity::Blocked { call, argument }) if cfg!(target_arch = "x86_64") => {
            Activity::Blocked { call: Some(call), argument }
        }
        _ => return ThreadState::Waiting(WaitReason::Unknown),
    };
    match (activity.futex(), interpreter.gil) {
        (Some(futex), Some(gil)) if gil.contains(futex) => ThreadState::WaitingForGil,
        _ => activity.thread_state(),
    }
}
