//! The children of processes by looking: what the kernel's files say at a moment. Children that come and go
//! between two looks are not seen; if the kernel reports events (`process_events`), those are better.
//!
//! The thread that samples looks, up to a hundred times a second. So the files are read here: the crate `procfs`
//! opens the folder of each process and of each thread first, and does not tell a kernel without lists from a thread that is
//! gone.

use std::collections::HashSet;
use std::fs;

use profiler_model::Pid;

use crate::Process;

/// The most children of one process that are taken note of: more than a machine has processes by default.
const MAX_CHILDREN: usize = 65_536;

/// Finds the children of processes.
#[derive(Debug, Default)]
pub struct ChildFinder {
    /// The number that the kernel gave to the newest process or thread at the last look.
    newest: Option<String>,
    /// Set where the kernel has no lists of children: then all processes are asked for their parents.
    without_lists: bool,
}

impl ChildFinder {
    /// Whether any process or thread was started on this machine since this was last asked.
    pub fn anything_new(&mut self) -> bool {
        let newest = fs::read_to_string("/proc/loadavg")
            .ok()
            .and_then(|text| text.split_ascii_whitespace().last().map(str::to_owned));
        let is_new = newest.is_none() || newest != self.newest;
        self.newest = newest;
        is_new
    }

    /// The children that these processes have now, each as (parent, child).
    pub fn children_of(&mut self, parents: &[Pid]) -> Vec<(Pid, Pid)> {
        if !self.without_lists {
            match children_by_lists(parents) {
                Some(children) => return children,
                None => self.without_lists = true,
            }
        }
        children_by_parents(parents)
    }
}

/// By `/proc/PID/task/TID/children`; `None` where there are no such files (`CONFIG_PROC_CHILDREN`).
fn children_by_lists(parents: &[Pid]) -> Option<Vec<(Pid, Pid)>> {
    let mut children = Vec::new();
    for parent in parents {
        let Ok(threads) = Process::new(*parent).threads() else { continue };
        for tid in threads {
            let path = format!("/proc/{parent}/task/{tid}/children");
            match fs::read_to_string(&path) {
                Ok(text) => children.extend(parse(&text).map(|child| (*parent, child))),
                // A kernel that has the files has them for every thread that is still there.
                Err(_) if fs::exists(format!("/proc/{parent}/task/{tid}/stat")).unwrap_or(false) => {
                    return None;
                }
                Err(_) => {}
            }
        }
    }
    Some(children)
}

fn parse(text: &str) -> impl Iterator<Item = Pid> {
    text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).map(Pid::new).take(MAX_CHILDREN)
}

/// By asking every process of the machine for its parent.
fn children_by_parents(parents: &[Pid]) -> Vec<(Pid, Pid)> {
    let wanted: HashSet<Pid> = parents.iter().copied().collect();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|number| {
            let child = Pid::new(number);
            let parent = Process::new(child).stat().ok()?.parent;
            wanted.contains(&parent).then_some((parent, child))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_is_found_by_both_ways() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let own = Pid::new(std::process::id());
        let pair = (own, Pid::new(child.id()));
        assert!(children_by_parents(&[own]).contains(&pair));
        assert!(ChildFinder::default().children_of(&[own]).contains(&pair));
        child.stdin.take().unwrap().write_all(b"").unwrap();
        child.wait().unwrap();
        assert!(!children_by_parents(&[own]).contains(&pair));
    }

    #[test]
    fn a_new_process_is_something_new() {
        let mut finder = ChildFinder::default();
        assert!(finder.anything_new());
        Command::new("true").status().unwrap();
        assert!(finder.anything_new());
    }
}
