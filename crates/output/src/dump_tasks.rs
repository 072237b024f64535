//! asyncio's tasks in the text of `dump`: a tree in which each task stands below the one that awaits it.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use profiler_model::{RemoteAddr, Tid};
use profiler_profile::{TaskDump, TaskState, Tasks};

use crate::label::{file_shown, frame_name, line_shown};
use crate::{ViewOptions, escape};

/// How deep the tree is drawn. A task below that stands at the margin again.
const MAX_DEPTH: usize = 32;

/// Writes the tasks of a process, thread by thread.
pub(crate) fn write_tasks(tasks: &Tasks, options: &ViewOptions, out: &mut dyn Write) -> io::Result<()> {
    let (tasks, truncated) = match tasks {
        Tasks::None => return Ok(()),
        Tasks::Lost(reason) => return writeln!(out, "Tasks: <lost> ({reason})"),
        Tasks::Read { tasks, truncated } => (tasks, *truncated),
    };
    for of_thread in tasks.chunk_by(|one, next| one.tid == next.tid) {
        writeln!(out, "{}", title(of_thread[0].tid))?;
        Tree::new(of_thread, options).write(out)?;
    }
    if truncated {
        writeln!(out, "    <truncated> (there are more tasks than are read)")?;
    }
    Ok(())
}

fn title(tid: Option<Tid>) -> String {
    match tid {
        Some(tid) => format!("Tasks of thread {tid}:"),
        None => "Tasks of threads that have ended:".to_owned(),
    }
}

struct Tree<'a> {
    tasks: &'a [TaskDump],
    /// The tasks that each one awaits, by index.
    awaits: Vec<Vec<usize>>,
    is_awaited: Vec<bool>,
    options: &'a ViewOptions,
}

impl<'a> Tree<'a> {
    fn new(tasks: &'a [TaskDump], options: &'a ViewOptions) -> Self {
        let indices: HashMap<RemoteAddr, usize> =
            tasks.iter().enumerate().map(|(index, task)| (task.address, index)).collect();
        let mut awaits = vec![Vec::new(); tasks.len()];
        let mut is_awaited = vec![false; tasks.len()];
        for (index, task) in tasks.iter().enumerate() {
            for awaiting in task.awaited_by.iter().filter_map(|address| indices.get(address)) {
                awaits[*awaiting].push(index);
                is_awaited[index] = true;
            }
        }
        Tree { tasks, awaits, is_awaited, options }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut written = HashSet::new();
        let roots = (0..self.tasks.len()).filter(|index| !self.is_awaited[*index]);
        // Tasks that await each other in a circle have no root.
        for root in roots.chain(0..self.tasks.len()) {
            if !written.contains(&root) {
                self.write_below(root, &mut written, out)?;
            }
        }
        Ok(())
    }

    /// A task and those that it awaits, and so on.
    fn write_below(&self, root: usize, written: &mut HashSet<usize>, out: &mut dyn Write) -> io::Result<()> {
        let mut next = vec![(root, 0)];
        while let Some((index, depth)) = next.pop() {
            let first = written.insert(index);
            self.write_task(index, depth, first, out)?;
            if first && depth < MAX_DEPTH {
                next.extend(self.awaits[index].iter().rev().map(|awaited| (*awaited, depth + 1)));
            }
        }
        Ok(())
    }

    fn write_task(&self, index: usize, depth: usize, first: bool, out: &mut dyn Write) -> io::Result<()> {
        let task = &self.tasks[index];
        let indent = " ".repeat(4 * (depth + 1));
        let word = if depth > 0 { "awaits task" } else { "Task" };
        let name = match &task.name {
            Some(name) => format!("\"{}\"", escape::plain(name)),
            None => task.address.to_string(),
        };
        if !first {
            return writeln!(out, "{indent}{word} {name} (see above)");
        }
        let state = match task.state {
            TaskState::Running => "running, on the stack of the thread".to_owned(),
            state => state.to_string(),
        };
        writeln!(out, "{indent}{word} {name} ({state})")?;
        for frame in &task.frames {
            let (name, file) = (frame_name(frame), file_shown(frame, self.options.full_filenames));
            let line = line_shown(frame, self.options.line_numbers).map(|line| format!(":{line}"));
            let place = format!("{}{}", escape::plain(file), line.unwrap_or_default());
            writeln!(out, "{indent}    {} ({place})", escape::plain(&name))?;
        }
        if task.truncated {
            writeln!(out, "{indent}    <truncated> (more coroutines than are read)")?;
        }
        Ok(())
    }
}
