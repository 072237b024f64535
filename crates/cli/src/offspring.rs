//! The Pythons that a process without one has started: reported to the user, who may have meant them. Not the
//! sampling of process trees.

use std::collections::{HashMap, HashSet};
use std::fmt;

use profiler_model::{Nanos, Pid, Timestamp};
use profiler_os::{ChildFinder, Process, clock};
use profiler_output::escaped_text;
use profiler_target::Search;

/// How many generations are looked through: `make` that starts a shell that starts a wrapper has four.
const MAX_GENERATIONS: usize = 8;
/// How many processes are looked at. More children than that are no wrapper's.
const MAX_PROCESSES: usize = 256;
/// The memory of the descendants is searched at most this often ...
const SHORTEST_SEARCH_GAP: Nanos = Nanos::from_nanos(50_000_000);
/// ... and the searches take at most 1/20 of the time.
const SEARCH_SHARE: u64 = 20;

/// A process that runs a Python.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonChild {
    /// The process.
    pub pid: Pid,
    name: String,
}

impl fmt::Display for PythonChild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.name, self.pid)?;
        if is_python_name(&self.name) { Ok(()) } else { f.write_str(", which runs Python") }
    }
}

/// Looks for the first Python among the descendants of a process, nearest first.
#[derive(Debug, Default)]
pub struct Offspring {
    finder: ChildFinder,
    /// What is known of descendants with other names than a Python has.
    searches: HashMap<Pid, Search>,
    next_search: Timestamp,
}

impl Offspring {
    /// The first one by the name of its executable, or else by what its memory holds: a program that embeds Python
    /// has a name of its own. The memory is not searched each time.
    pub fn look(&mut self, pid: Pid) -> Option<PythonChild> {
        let begin = clock::now();
        if begin < self.next_search {
            return first_below(pid, &mut self.finder, &mut named_python);
        }
        let found = self.look_closely(pid);
        let end = clock::now();
        let gap = Nanos::from_nanos(end.since(begin).as_nanos() * SEARCH_SHARE);
        self.next_search = end + gap.max(SHORTEST_SEARCH_GAP);
        found
    }

    /// The same, with the memory searched in any case.
    pub fn look_closely(&mut self, pid: Pid) -> Option<PythonChild> {
        let searches = &mut self.searches;
        first_below(pid, &mut self.finder, &mut |child| {
            named_python(child).or_else(|| embedded_python(child, searches))
        })
    }
}

/// The first descendant of `pid` that `python` accepts, nearest first.
fn first_below(
    pid: Pid,
    finder: &mut ChildFinder,
    python: &mut dyn FnMut(Pid) -> Option<PythonChild>,
) -> Option<PythonChild> {
    let mut seen = HashSet::from([pid]);
    let mut generation = vec![pid];
    for _ in 0..MAX_GENERATIONS {
        let mut children: Vec<Pid> =
            finder.children_of(&generation).into_iter().map(|(_, child)| child).collect();
        // The tree changes while it is looked at, and a process number may come back.
        children.retain(|child| seen.len() < MAX_PROCESSES && seen.insert(*child));
        if let Some(found) = children.iter().find_map(|child| python(*child)) {
            return Some(found);
        }
        if children.is_empty() {
            return None;
        }
        generation = children;
    }
    None
}

fn is_python_name(name: &str) -> bool {
    name.starts_with("python")
}

fn named_python(pid: Pid) -> Option<PythonChild> {
    as_child(pid).filter(|child| is_python_name(&child.name))
}

fn embedded_python(pid: Pid, searches: &mut HashMap<Pid, Search>) -> Option<PythonChild> {
    let search = searches.entry(pid).or_insert_with(|| Search::new(pid));
    search.attach().ok().and_then(|_| as_child(pid))
}

fn as_child(pid: Pid) -> Option<PythonChild> {
    let executable = Process::new(pid).executable().ok()?;
    let name = executable.file_name()?.to_str()?;
    Some(PythonChild { pid, name: escaped_text(name).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn child_of_another_name_is_said_to_run_python() {
        let child = |name: &str| PythonChild { pid: Pid::new(7), name: name.to_owned() }.to_string();
        assert_eq!(child("python3.8"), "python3.8 (process 7)");
        assert_eq!(child("service"), "service (process 7), which runs Python");
    }
}
