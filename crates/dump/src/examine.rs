//! What kind of Python a process has, for people: its build, how it was found, its threads and their GIL.
//!
//! Nothing is stopped, and nothing of it is proved as samples are: threads come and go while it is read.

use profiler_memory::ReadError;
use profiler_model::{InterpreterId, OtherPython, ThreadState, Tid};
use profiler_os::clock;
use profiler_python::{Evidence, whereabouts};
use profiler_sampler::once::{GilGroup, ThreadTable, names};
use profiler_target::{MappedModules, Target, other_pythons};

/// What was seen of a Python.
#[derive(Clone, Debug)]
pub struct Examination {
    /// Where its runtime is; `None` where its modules have changed since it was found.
    pub location: Option<Location>,
    /// Whether it is a build that can do without a GIL.
    pub free_threaded: bool,
    /// Its GILs.
    pub gils: Gils,
    /// Its interpreters.
    pub interpreters: Vec<InterpreterId>,
    /// Its Python threads.
    pub threads: Vec<ExaminedThread>,
    /// The Pythons that run in the same process.
    pub other_pythons: Vec<OtherPython>,
}

/// Where a runtime is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The module, as the target sees its path.
    pub path: String,
    /// Whether that is the executable, or a library.
    pub in_executable: bool,
    /// Whether the module's symbols were removed, where its file can be read.
    pub is_stripped: Option<bool>,
    /// By what the runtime was found.
    pub evidence: Evidence,
}

/// What is known of a runtime's GILs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gils {
    /// So many, of which every one can be read.
    Known(usize),
    /// There is none: a free-threaded build.
    None,
    /// There is one, but nothing says where (3.6 without symbols).
    NotFound,
}

/// A Python thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExaminedThread {
    /// Its kernel thread.
    pub tid: Tid,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// Its interpreter.
    pub interpreter: InterpreterId,
    /// What it was doing.
    pub state: ThreadState,
    /// Whether it held its interpreter's GIL.
    pub holds_gil: bool,
}

/// Looks at the Python of a target.
///
/// # Errors
/// When its lists cannot be read: it has ended, or is just changing them.
pub fn examine(target: &Target) -> Result<Examination, ReadError> {
    let mut thread_table = ThreadTable::default();
    thread_table.refresh(target.process(), target.memory(), target.runtime(), clock::now())?;
    let gils: Vec<_> = thread_table.interpreters.iter().filter_map(|interpreter| interpreter.gil).collect();
    let distinct = gils.iter().enumerate().filter(|(index, gil)| !gils[..*index].contains(gil)).count();
    let free_threaded = target.offsets().free_threaded;
    Ok(Examination {
        location: location(target),
        free_threaded,
        gils: match distinct {
            0 if free_threaded => Gils::None,
            0 => Gils::NotFound,
            count => Gils::Known(count),
        },
        interpreters: thread_table.interpreters.iter().map(|interpreter| interpreter.id).collect(),
        threads: threads(target, &thread_table),
        other_pythons: other_pythons(target),
    })
}

fn location(target: &Target) -> Option<Location> {
    let mappings = target.process().mappings().ok()?;
    let files = MappedModules::open(target.process(), target.executable(), &mappings);
    files.open_at(target.runtime().main_address);
    let found = whereabouts(target.runtime(), &files.modules(), target.memory())?;
    Some(Location {
        path: found.path.to_owned(),
        in_executable: found.in_executable,
        is_stripped: found.is_stripped,
        evidence: found.evidence,
    })
}

/// All threads, the oldest first.
fn threads(target: &Target, thread_table: &ThreadTable) -> Vec<ExaminedThread> {
    let names = names(target, thread_table);
    let mut threads = Vec::new();
    for group in GilGroup::all(thread_table) {
        let holder = group.gil.as_ref().and_then(|gil| thread_table.gil_state(gil)?.holder());
        for index in group.threads {
            let thread = &thread_table.threads()[index];
            if !thread.is_listed {
                continue;
            }
            // A thread that is gone by now is none.
            let Ok(activity) = thread.files.activity() else { continue };
            let waits_for_gil = activity
                .futex()
                .is_some_and(|futex| group.gil.as_ref().is_some_and(|gil| gil.contains(futex)));
            let examined = ExaminedThread {
                tid: thread.tid,
                name: names.get(&thread.python.pthread_id).cloned(),
                interpreter: thread_table.interpreters[thread.interpreter].id,
                state: if waits_for_gil { ThreadState::WaitingForGil } else { activity.thread_state() },
                holds_gil: holder == Some(thread.python.address),
            };
            threads.push((index, examined));
        }
    }
    threads.sort_by_key(|(index, _)| std::cmp::Reverse(*index));
    threads.into_iter().map(|(_, thread)| thread).collect()
}
