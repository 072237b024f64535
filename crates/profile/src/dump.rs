//! What `dump` shows: every thread of a process at one instant. Not a profile, because nothing is summed.

use std::fmt;

use profiler_model::{
    Frame, InterpreterId, LossReason, Nanos, OtherPython, Pid, RemoteAddr, ThreadState, Tid, Variable,
};

/// A process and its threads at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessDump {
    /// Its id.
    pub pid: Pid,
    /// The arguments it was started with, joined by spaces.
    pub command_line: String,
    /// The version of its Python, such as `3.11.7`.
    pub python_version: String,
    /// The path of its executable.
    pub executable: String,
    /// The processes that it descends from, the nearest first, as far as they were looked at with it.
    pub ancestors: Vec<Ancestor>,
    /// The Pythons that run in it beside this one, whose threads are not shown.
    pub other_pythons: Vec<OtherPython>,
    /// Its threads, in the order in which they are shown.
    pub threads: Vec<ThreadDump>,
    /// asyncio's tasks.
    pub tasks: Tasks,
    /// What the look cost it.
    pub stops: Stops,
}

/// A process from which another descends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ancestor {
    /// Its id.
    pub pid: Pid,
    /// The arguments it was started with, joined by spaces.
    pub command_line: String,
}

/// How threads of a process were stopped to look at it. In all looks that were needed, those that proved
/// nothing included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stops {
    /// How often one was.
    pub count: u64,
    /// How long all stops lasted together.
    pub total: Nanos,
    /// How long the longest one lasted.
    pub longest: Nanos,
}

impl Stops {
    /// Counts a stop that lasted so long.
    pub fn add(&mut self, lasted: Nanos) {
        self.count += 1;
        self.total += lasted;
        self.longest = self.longest.max(lasted);
    }
}

/// asyncio's tasks in a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tasks {
    /// They were not asked for, or the process does not use asyncio, or not one that tells.
    #[default]
    None,
    /// These.
    Read {
        /// The tasks, those of one thread next to each other.
        tasks: Vec<TaskDump>,
        /// Whether there are more than are read.
        truncated: bool,
    },
    /// They were changing while they were read.
    Lost(LossReason),
}

/// An asyncio task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskDump {
    /// Where it is: what `awaited_by` of others refers to.
    pub address: RemoteAddr,
    /// Its name; `None` where it could not be read.
    pub name: Option<String>,
    /// The kernel thread whose event loop it belongs to; `None` where that thread has ended.
    pub tid: Option<Tid>,
    /// What it was doing.
    pub state: TaskState,
    /// The frames of the coroutines that await each other, innermost first; of a task that runs, those that
    /// are not on its thread's stack, and the outermost that is.
    pub frames: Vec<Frame>,
    /// Whether there were more coroutines than are read.
    pub truncated: bool,
    /// The tasks that await it, themselves or through other futures.
    pub awaited_by: Vec<RemoteAddr>,
}

/// What a task was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// It had not started.
    Created,
    /// Its thread was running it.
    Running,
    /// It waited.
    Suspended,
    /// It had ended.
    Ended,
    /// It could not be read.
    Unknown,
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TaskState::Created => "not started",
            TaskState::Running => "running",
            TaskState::Suspended => "waiting",
            TaskState::Ended => "ended",
            TaskState::Unknown => "not read",
        })
    }
}

/// A thread at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadDump {
    /// What `threading.get_ident()` says in it.
    pub pthread_id: u64,
    /// Its kernel thread, or `None` where that could not be found.
    pub tid: Option<Tid>,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// What it was doing.
    pub state: ThreadState,
    /// On what it waits, where the kernel tells: a file descriptor and what it is open on, a child.
    pub waits_on: Option<String>,
    /// Whether it held the GIL.
    pub holds_gil: bool,
    /// Whether it was collecting garbage.
    pub gc: bool,
    /// Whether it is the process's first thread.
    pub is_main: bool,
    /// The interpreter that it runs in.
    pub interpreter: InterpreterId,
    /// Its frames, innermost first.
    pub frames: Vec<Frame>,
    /// Whether the stack was deeper than is read, so that frames are missing at its root.
    pub truncated: bool,
    /// Why its frames could not be shown, where they could not.
    pub lost: Option<LossReason>,
    /// What each frame has beyond its place, in the order of `frames`; empty where nothing was asked for.
    pub details: Vec<FrameDetails>,
}

/// What a frame has beyond its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameDetails {
    /// Its variables.
    pub variables: Variables,
    /// The line of source that it is at.
    pub source: Option<String>,
}

/// The variables of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Variables {
    /// They were not asked for.
    #[default]
    NotAskedFor,
    /// These, with their values.
    Read(Vec<Variable>),
    /// They cannot be shown: they are beyond what is read, damaged, or were changing meanwhile.
    Lost(Option<LossReason>),
}
