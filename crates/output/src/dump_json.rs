//! The JSON of `dump`: py-spy's array of threads with its field names, and beside them what py-spy does not
//! tell. Threads and frames come in the order of the text.

use std::io::{self, Write};

use profiler_model::{Frame, FrameKind, Pid, Variable};
use profiler_profile::{Ancestor, FrameDetails, ProcessDump, TaskDump, Tasks, ThreadDump, Variables};
use serde::Serialize;

use crate::label::{file_shown, frame_name};
use crate::{ViewOptions, escape};

/// Writes what the threads of one or more processes were doing as one JSON array.
pub fn write_dumps_json(dumps: &[ProcessDump], options: &ViewOptions, out: &mut dyn Write) -> io::Result<()> {
    let threads: Vec<ThreadView> = dumps
        .iter()
        .flat_map(|dump| dump.threads.iter().map(|thread| ThreadView::new(dump, thread, options)))
        .collect();
    let text = serde_json::to_string_pretty(&threads).map_err(io::Error::from)?;
    writeln!(out, "{}", escape::json(&text))
}

#[derive(Serialize)]
struct ThreadView<'a> {
    pid: u32,
    thread_id: u64,
    thread_name: Option<&'a str>,
    os_thread_id: Option<u32>,
    active: bool,
    owns_gil: bool,
    frames: Vec<FrameView<'a>>,
    process_info: ProcessView<'a>,
    // From here on not py-spy's.
    state: String,
    waits_on: Option<&'a str>,
    collecting_garbage: bool,
    is_main: bool,
    interpreter: u32,
    truncated: bool,
    lost: Option<String>,
    #[serde(flatten)]
    tasks: TasksView<'a>,
}

/// The asyncio tasks of a thread.
#[derive(Default, Serialize)]
struct TasksView<'a> {
    /// Not there without asyncio.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<TaskView<'a>>,
    /// Why they could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    tasks_lost: Option<String>,
}

#[derive(Serialize)]
struct TaskView<'a> {
    name: Option<&'a str>,
    id: u64,
    state: String,
    thread_ended: bool,
    /// The ids of the tasks that await this one.
    awaited_by: Vec<u64>,
    frames: Vec<FrameView<'a>>,
    truncated: bool,
}

impl<'a> TaskView<'a> {
    fn new(task: &'a TaskDump, options: &ViewOptions) -> Self {
        TaskView {
            name: task.name.as_deref(),
            id: task.address.as_u64(),
            state: task.state.to_string(),
            thread_ended: task.tid.is_none(),
            awaited_by: task.awaited_by.iter().map(|address| address.as_u64()).collect(),
            frames: task.frames.iter().map(|frame| FrameView::new(frame, None, false, options)).collect(),
            truncated: task.truncated,
        }
    }
}

impl<'a> TasksView<'a> {
    /// The tasks of `thread`. The first thread also has the tasks of threads that have ended.
    fn of_thread(dump: &'a ProcessDump, thread: &ThreadDump, options: &ViewOptions) -> Self {
        let is_first = dump.threads.first().is_some_and(|first| std::ptr::eq(first, thread));
        match &dump.tasks {
            Tasks::Read { tasks, .. } => {
                let its = tasks.iter().filter(|task| match task.tid {
                    Some(tid) => thread.tid == Some(tid),
                    None => is_first,
                });
                let tasks = its.map(|task| TaskView::new(task, options)).collect();
                TasksView { tasks, tasks_lost: None }
            }
            Tasks::Lost(reason) if is_first => {
                TasksView { tasks: Vec::new(), tasks_lost: Some(reason.to_string()) }
            }
            Tasks::Lost(_) | Tasks::None => TasksView::default(),
        }
    }
}

impl<'a> ThreadView<'a> {
    fn new(dump: &'a ProcessDump, thread: &'a ThreadDump, options: &ViewOptions) -> Self {
        let outermost = thread.frames.len().checked_sub(1).filter(|_| !thread.truncated);
        let frames = thread.frames.iter().enumerate();
        ThreadView {
            pid: dump.pid.as_u32(),
            thread_id: thread.pthread_id,
            thread_name: thread.name.as_deref(),
            os_thread_id: thread.tid.map(|tid| tid.as_u32()),
            active: thread.state.is_running(),
            owns_gil: thread.holds_gil,
            frames: frames
                .map(|(depth, frame)| {
                    FrameView::new(frame, thread.details.get(depth), Some(depth) == outermost, options)
                })
                .collect(),
            process_info: ProcessView::new(dump),
            state: thread.state.to_string(),
            waits_on: thread.waits_on.as_deref(),
            collecting_garbage: thread.gc,
            is_main: thread.is_main,
            interpreter: thread.interpreter.as_u32(),
            truncated: thread.truncated,
            lost: thread.lost.map(|reason| reason.to_string()),
            tasks: TasksView::of_thread(dump, thread, options),
        }
    }
}

#[derive(Serialize)]
struct FrameView<'a> {
    name: String,
    filename: &'a str,
    module: Option<&'a str>,
    short_filename: Option<&'a str>,
    line: u32,
    /// Null where they were not asked for or could not be read.
    locals: Option<Vec<VariableView<'a>>>,
    is_entry: bool,
    is_shim_entry: bool,
    // From here on not py-spy's.
    kind: &'static str,
    first_line: Option<u32>,
    end_line: Option<u32>,
    column: Option<u32>,
    end_column: Option<u32>,
    /// Why `locals` is null although they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    locals_lost: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
}

#[derive(Serialize)]
struct VariableView<'a> {
    name: &'a str,
    addr: u64,
    arg: bool,
    repr: Option<&'a str>,
}

impl<'a> VariableView<'a> {
    fn new(variable: &'a Variable) -> Self {
        VariableView {
            name: &variable.name,
            addr: variable.address.as_u64(),
            arg: variable.is_argument,
            repr: variable.value.as_deref(),
        }
    }
}

impl<'a> FrameView<'a> {
    /// py-spy calls those frames shim entries that C code called and that have no Python caller.
    fn new(
        frame: &'a Frame,
        details: Option<&'a FrameDetails>,
        is_outermost: bool,
        options: &ViewOptions,
    ) -> Self {
        let (locals, locals_lost) = match details.map(|details| &details.variables) {
            Some(Variables::Read(read)) => (Some(read.iter().map(VariableView::new).collect()), None),
            Some(Variables::Lost(reason)) => {
                (None, Some(reason.map_or("not read".to_owned(), |reason| reason.to_string())))
            }
            Some(Variables::NotAskedFor) | None => (None, None),
        };
        FrameView {
            name: frame_name(frame),
            filename: file_shown(frame, true),
            module: frame.module.as_deref(),
            short_filename: (!options.full_filenames).then(|| file_shown(frame, false)),
            line: frame.position.line.unwrap_or(0),
            locals,
            is_entry: frame.is_entry,
            is_shim_entry: frame.is_entry && is_outermost,
            kind: kind(frame.kind),
            first_line: frame.first_line,
            end_line: frame.position.end_line,
            column: frame.position.column,
            end_column: frame.position.end_column,
            locals_lost,
            source: details.and_then(|details| details.source.as_deref()),
        }
    }
}

#[derive(Serialize)]
struct ProcessView<'a> {
    pid: u32,
    command_line: &'a str,
    parent: Option<Box<ParentView<'a>>>,
    // From here on not py-spy's.
    python_version: &'a str,
    executable: &'a str,
    stops: StopsView,
}

/// The process that started it, as py-spy nests it.
#[derive(Serialize)]
struct ParentView<'a> {
    pid: u32,
    command_line: &'a str,
    parent: Option<Box<ParentView<'a>>>,
}

impl<'a> ParentView<'a> {
    /// The nearest of the ancestors, and in it the others.
    fn of(ancestors: &'a [Ancestor]) -> Option<Box<Self>> {
        ancestors.iter().rev().fold(None, |parent, ancestor| {
            let pid = Pid::as_u32(ancestor.pid);
            Some(Box::new(ParentView { pid, command_line: &ancestor.command_line, parent }))
        })
    }
}

/// What the look cost the process.
#[derive(Serialize)]
struct StopsView {
    count: u64,
    total_ns: u64,
    longest_ns: u64,
}

impl<'a> ProcessView<'a> {
    fn new(dump: &'a ProcessDump) -> Self {
        ProcessView {
            pid: Pid::as_u32(dump.pid),
            command_line: &dump.command_line,
            parent: ParentView::of(&dump.ancestors),
            python_version: &dump.python_version,
            executable: &dump.executable,
            stops: StopsView {
                count: dump.stops.count,
                total_ns: dump.stops.total.as_nanos(),
                longest_ns: dump.stops.longest.as_nanos(),
            },
        }
    }
}

fn kind(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::Python => "python",
        FrameKind::Native => "native",
        FrameKind::Inlined => "inlined",
        FrameKind::Kernel => "kernel",
        FrameKind::Marker => "marker",
    }
}
