//! The Pythons that a process without one has started: told to the user, who may have meant them. Not the
//! sampling of process trees.

use std::collections::HashSet;
use std::fmt;

use profiler_model::Pid;
use profiler_os::{ChildFinder, Process};
use profiler_output::escaped_text;

/// How many generations are looked through: `make` that starts a shell that starts a wrapper has four.
const MAX_GENERATIONS: usize = 8;
/// How many processes are looked at. More children than that are no wrapper's.
const MAX_PROCESSES: usize = 256;

/// A process that runs a Python, by the name of its executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonChild {
    /// The process.
    pub pid: Pid,
    name: String,
}

impl fmt::Display for PythonChild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.name, self.pid)
    }
}

/// The first Python among the descendants of `pid`, nearest first.
pub fn first_python_below(pid: Pid, finder: &mut ChildFinder) -> Option<PythonChild> {
    let mut seen = HashSet::from([pid]);
    let mut generation = vec![pid];
    for _ in 0..MAX_GENERATIONS {
        let mut children: Vec<Pid> =
            finder.children_of(&generation).into_iter().map(|(_, child)| child).collect();
        // The tree changes while it is looked at, and a process number may come back.
        children.retain(|child| seen.len() < MAX_PROCESSES && seen.insert(*child));
        if let Some(found) = children.iter().find_map(|child| as_python(*child)) {
            return Some(found);
        }
        if children.is_empty() {
            return None;
        }
        generation = children;
    }
    None
}

fn as_python(pid: Pid) -> Option<PythonChild> {
    let executable = Process::new(pid).executable().ok()?;
    let name = executable.file_name()?.to_str()?;
    name.starts_with("python").then(|| PythonChild { pid, name: escaped_text(name).into_owned() })
}
