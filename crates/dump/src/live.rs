//! One look at all threads of a process.

use profiler_memory::ReadError;
use profiler_model::{Frame, InterpreterId, LossReason, ThreadState, Timestamp, WaitReason};
use profiler_os::{clock, priority};
use profiler_profile::{FrameDetails, ProcessDump, Stops, Tasks, ThreadDump, Variables};
use profiler_python::{RawStack, ReprLimits};
use profiler_sampler::SamplerKind;
use profiler_sampler::once::{
    CodeAhead, GilGroup, InstantCopy, ObjectCopy, ObjectsWanted, Probe, TaskReader, Thread, names,
    stack_variables, task_dumps,
};
use profiler_stack::{CodeEvidence, CodeSource, Describe, StackResolver};
use profiler_target::{ShortFiles, Sources, Target, other_pythons};

/// How often threads whose stack was lost are looked at again.
const MAX_LOOKS: usize = 10;

/// How often the process is looked at again only because some of its objects had moved when they were copied: in
/// a program that moves them all the time, some always have.
const MAX_LOOKS_FOR_OBJECTS: usize = 3;

/// What every thread of the target is doing. Threads whose stack could not be proved say why.
///
/// # Errors
/// When the target's runtime cannot be read: it has ended.
pub fn dump(target: Target, options: DumpOptions) -> Result<ProcessDump, ReadError> {
    let process = *target.process();
    let mut look = Look {
        stack_resolver: StackResolver::default(),
        short_files: ShortFiles::new(process),
        probe: Probe::new(target, options.kind),
        sources: Sources::new(process),
        options,
        frames: Vec::new(),
        tasks: Tasks::None,
        stops: Stops::default(),
        lacks_objects: false,
        is_stopped: false,
    };
    let asyncio = if options.tasks { look.probe.target.asyncio() } else { None };
    look.probe.want_objects(ObjectsWanted { variables: options.variables, tasks: asyncio });
    let mut threads = look.threads(clock::now())?;
    for looks in 1..MAX_LOOKS {
        let is_whole = threads.iter().all(is_whole) && !matches!(look.tasks, Tasks::Lost(_));
        if is_whole && (!look.lacks_objects || looks >= MAX_LOOKS_FOR_OBJECTS) {
            break;
        }
        match look.threads(clock::now()) {
            Ok(looked) => threads = looked,
            // What was seen before it fell silent is true.
            Err(ReadError::NoAnswer) => break,
            Err(error) => return Err(error),
        }
    }
    look.probe.release_all();
    let names = names(&look.probe.target, &look.probe.thread_table);
    for thread in &mut threads {
        thread.name = names.get(&thread.pthread_id).cloned();
    }
    let target = &look.probe.target;
    Ok(ProcessDump {
        pid: target.pid(),
        command_line: target.command_line().to_owned(),
        python_version: target.version_text(),
        executable: target.executable().to_owned(),
        ancestors: Vec::new(),
        other_pythons: other_pythons(target),
        threads,
        tasks: look.tasks,
        stops: look.stops,
    })
}

/// How a dump is taken, and what of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpOptions {
    /// How to look.
    pub kind: SamplerKind,
    /// Show the variables of each frame, so much of each value.
    pub variables: Option<ReprLimits>,
    /// Show the line of source that each frame is at.
    pub source: bool,
    /// Show asyncio's tasks.
    pub tasks: bool,
}

impl DumpOptions {
    /// Stacks and nothing else.
    pub const fn of_stacks(kind: SamplerKind) -> Self {
        DumpOptions { kind, variables: None, source: false, tasks: false }
    }

    fn details(&self) -> bool {
        self.variables.is_some() || self.source
    }
}

/// Whether nothing of the thread was lost that a second look might get.
fn is_whole(thread: &ThreadDump) -> bool {
    let is_lost = |details: &FrameDetails| matches!(details.variables, Variables::Lost(Some(_)));
    thread.lost.is_none_or(|reason| reason == LossReason::UnknownThread)
        && !thread.details.iter().any(is_lost)
}

/// The variables of each frame of `raw`, leaf first, as far as they are read.
fn variables_of(
    target: &Target,
    wanted: Option<(ReprLimits, &ObjectCopy)>,
    raw: &RawStack,
) -> Vec<Variables> {
    let Some((limits, objects)) = wanted else { return Vec::new() };
    if let Some(doubt) = objects.doubt {
        return vec![Variables::Lost(Some(doubt)); raw.frames.len()];
    }
    let read = stack_variables(&objects.memory, target, limits, raw);
    read.into_iter().map(|read| read.map_or(Variables::Lost(None), Variables::Read)).collect()
}

struct Look {
    options: DumpOptions,
    sources: Sources,
    probe: Probe,
    /// Frames are numbered as they are met.
    stack_resolver: StackResolver<usize>,
    short_files: ShortFiles,
    frames: Vec<Frame>,
    tasks: Tasks,
    stops: Stops,
    /// Whether objects had moved when they were to be copied.
    lacks_objects: bool,
    /// Whether the process is under a stop signal or a debugger: its threads wait for that, whatever
    /// they waited for before.
    is_stopped: bool,
}

impl Look {
    /// All threads, in the reverse order of CPython's list: the oldest first.
    fn threads(&mut self, now: Timestamp) -> Result<Vec<ThreadDump>, ReadError> {
        self.probe.look(now)?;
        for code in self.probe.look_ahead()? {
            self.name_ahead(code)?;
        }
        self.probe.look(clock::now())?;
        self.is_stopped =
            self.probe.target.process().state().is_some_and(|state| matches!(state, b'T' | b't'));
        let mut dumps: Vec<(usize, ThreadDump)> = Vec::new();
        self.tasks = Tasks::None;
        self.lacks_objects = false;
        for group in GilGroup::all(&self.probe.thread_table) {
            let mut wanted = group.running_first(&self.probe.thread_table);
            // What is in no list runs no Python.
            wanted.retain(|index| self.probe.thread_table.threads()[*index].is_listed);
            priority::want_promptness();
            let instants = self.probe.capture(group.gil.as_ref(), &wanted);
            priority::want_no_promptness();
            let mut instants = instants?;
            self.probe.complete(instants.iter_mut().map(|instant| &mut instant.code))?;
            for instant in instants {
                instant.stops.iter().for_each(|lasted| self.stops.add(*lasted));
                if let Some(objects) = &instant.objects {
                    self.add_tasks(objects);
                }
                self.add(&group, instant, &mut dumps);
            }
        }
        dumps.sort_by_key(|(index, _)| std::cmp::Reverse(*index));
        let unplaced = self.probe.thread_table.unplaced.iter().map(|python| self.unplaced(python));
        Ok(dumps.into_iter().map(|(_, dump)| dump).chain(unplaced).collect())
    }

    /// Names code before any thread is stopped. In the stop its evidence alone is copied, which has to be the same.
    fn name_ahead(&mut self, CodeAhead { code: mut capture, stacks }: CodeAhead) -> Result<(), ReadError> {
        self.probe.complete(std::iter::once(&mut capture))?;
        for raw in &stacks {
            let is_named = self.frames(raw, &capture, None).is_ok();
            self.probe.learn_code(&capture, raw, is_named);
        }
        Ok(())
    }

    /// A thread state whose kernel thread is not known, so that nothing proves its stack.
    fn unplaced(&self, python: &profiler_python::PyThreadState) -> ThreadDump {
        let interpreters = &self.probe.thread_table.interpreters;
        let its = interpreters.iter().find(|interpreter| interpreter.address == python.interpreter);
        ThreadDump {
            pthread_id: python.pthread_id,
            tid: None,
            name: None,
            state: ThreadState::Waiting(WaitReason::Unknown),
            waits_on: None,
            holds_gil: false,
            gc: false,
            is_main: false,
            frames: Vec::new(),
            truncated: false,
            details: Vec::new(),
            interpreter: its.map_or(InterpreterId::new(0), |interpreter| interpreter.id),
            lost: Some(LossReason::UnknownThread),
        }
    }

    fn add(&mut self, group: &GilGroup, instant: InstantCopy, dumps: &mut Vec<(usize, ThreadDump)>) {
        let holder = instant.holder;
        for (index, stack) in instant.stacks {
            let (resolved, truncated) = match &stack {
                Ok(raw) => (self.frames(raw, &instant.code, instant.objects.as_ref()), raw.truncated),
                Err(reason) => (Err(*reason), false),
            };
            let thread = &self.probe.thread_table.threads()[index];
            let holds_gil = holder == Some(thread.python.address);
            let (lost, (frames, details)) = match resolved {
                Ok(frames) => (None, frames),
                Err(reason) => (Some(reason), (Vec::new(), Vec::new())),
            };
            dumps.push((
                index,
                ThreadDump {
                    pthread_id: thread.python.pthread_id,
                    tid: Some(thread.tid),
                    name: None,
                    state: match self.is_stopped {
                        true => ThreadState::Waiting(WaitReason::Stopped),
                        false => thread.state(group.gil.as_ref()),
                    },
                    waits_on: self.waits_on(thread),
                    holds_gil,
                    gc: holds_gil && self.is_collecting(thread),
                    is_main: thread.tid.as_u32() == self.probe.target.pid().as_u32(),
                    interpreter: self.probe.thread_table.interpreters[thread.interpreter].id,
                    frames,
                    truncated,
                    lost,
                    details,
                },
            ));
        }
        let lacks = |objects: &ObjectCopy| objects.memory.missing() > 0;
        self.lacks_objects |= instant.objects.as_ref().is_some_and(lacks);
    }

    /// The frames with what was asked for of each, leaf first.
    fn frames(
        &mut self,
        raw: &RawStack,
        capture: &CodeEvidence,
        objects: Option<&ObjectCopy>,
    ) -> Result<(Vec<Frame>, Vec<FrameDetails>), LossReason> {
        let target = &self.probe.target;
        let source = CodeSource { memory: target.memory(), offsets: target.offsets() };
        let (short_files, known) = (&mut self.short_files, &mut self.frames);
        let mut describe = Describe {
            shorten: &mut |file| short_files.shorten(file),
            intern: &mut |frame| {
                known.push(frame.clone());
                known.len() - 1
            },
        };
        let ids = self.stack_resolver.each_root_first(source, capture, raw, &mut describe)?;
        let variables = variables_of(target, self.options.variables.zip(objects), raw);
        let mut variables = variables.into_iter().chain(std::iter::repeat(Variables::Lost(None)));
        let (mut frames, mut details) = (Vec::new(), Vec::new());
        for id in ids.into_iter().rev() {
            let variables = variables.next().unwrap_or_default();
            let Some(frame) = id.map(|id| self.frames[id].clone()) else { continue };
            let source = if self.options.source { self.sources.line(&frame) } else { None };
            frames.push(frame);
            if self.options.details() {
                let variables =
                    if self.options.variables.is_some() { variables } else { Variables::default() };
                details.push(FrameDetails { variables, source });
            }
        }
        Ok((frames, details))
    }

    /// Adds the tasks that were copied with the stacks.
    fn add_tasks(&mut self, objects: &ObjectCopy) {
        let Some(asyncio) = self.probe.objects().tasks else { return };
        match (&mut self.tasks, objects.doubt) {
            _ if objects.tasks.is_empty() => {}
            (Tasks::Lost(_), _) => {}
            (tasks, Some(doubt)) => *tasks = Tasks::Lost(doubt),
            (all, None) => {
                let mut reader = TaskReader::new(self.probe.target.offsets(), &asyncio);
                let (mut tasks, mut truncated) = match std::mem::take(all) {
                    Tasks::Read { tasks, truncated } => (tasks, truncated),
                    Tasks::None | Tasks::Lost(_) => (Vec::new(), false),
                };
                for list in &objects.tasks {
                    let shorten = &mut |file: &_| self.short_files.shorten(file);
                    tasks.extend(task_dumps(&mut reader, &objects.memory, list, shorten));
                    truncated |= list.is_truncated();
                }
                *all = Tasks::Read { tasks, truncated };
            }
        }
    }

    /// On what the thread waits, if it has waited for that all the time.
    fn waits_on(&self, thread: &Thread) -> Option<String> {
        if self.is_stopped {
            return None;
        }
        let waits_on = match (thread.activity.descriptor(), thread.activity.child()) {
            (Some(descriptor), _) => {
                format!("fd {descriptor}: {}", self.probe.target.process().opened(descriptor)?)
            }
            (None, Some(child)) => format!("pid {child}"),
            (None, None) => return None,
        };
        // A number may be open on something else by now.
        thread.slept_since_look().then_some(waits_on)
    }

    fn is_collecting(&self, thread: &Thread) -> bool {
        use profiler_memory::ReadMemory;
        let flag = self.probe.thread_table.interpreters[thread.interpreter].gc_collecting;
        flag.is_some_and(|at| self.probe.target.memory().scalar::<i32>(at).is_ok_and(|value| value != 0))
    }
}
