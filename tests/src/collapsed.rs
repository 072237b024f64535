//! Reads collapsed stacks (`record -f raw`): one line a stack, `frame;frame;frame COUNT`, root first, each
//! frame as `name (file:line)`. The last line is no stack, but the ledger in the shape of one.

use anyhow::{Context, Result};

/// A frame as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The function; the whole text where the frame has no place.
    pub function: String,
    /// The file.
    pub file: Option<String>,
    /// The line.
    pub line: Option<u32>,
}

impl Frame {
    /// Reads `name (file:line)`, `name (file)` or `name`.
    pub fn parse(text: &str) -> Self {
        let bare = Frame { function: text.to_owned(), file: None, line: None };
        let Some((function, place)) = text.strip_suffix(')').and_then(|text| text.rsplit_once(" (")) else {
            return bare;
        };
        let (file, line) = match place.rsplit_once(':').map(|(file, line)| (file, line.parse())) {
            Some((file, Ok(line))) => (file, Some(line)),
            _ => (place, None),
        };
        Frame { function: function.to_owned(), file: Some(file.to_owned()), line }
    }

    /// The function's name without the class or function around it: `Walk.run` is `run`. Qualified names
    /// exist from 3.11 on.
    pub fn plain_name(&self) -> &str {
        self.function.rsplit('.').next().unwrap_or(&self.function)
    }

    /// Whether this is the mark of a thread or process at the root of a stack.
    fn is_root_mark(&self) -> bool {
        self.function.starts_with("thread ") || self.function.starts_with("process ")
    }
}

/// A stack with how often it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The processes that leading `process PID:"command"` frames name, outermost first.
    pub processes: Vec<u32>,
    /// The thread that a leading `thread (...): name` frame names.
    pub thread: Option<String>,
    /// The frames, root first.
    pub frames: Vec<Frame>,
    /// How often.
    pub count: u64,
}

impl Stack {
    fn parse(line: &str) -> Result<Self> {
        let (stack, count) = line.rsplit_once(' ').context("a line without a count")?;
        let mut frames = Vec::new();
        let (mut processes, mut thread) = (Vec::new(), None);
        for text in stack.split(';') {
            let frame = Frame::parse(text);
            let whole = Frame { function: text.to_owned(), file: None, line: None };
            if whole.is_root_mark() && frames.is_empty() {
                let process = text.strip_prefix("process ").and_then(|text| text.split_once(':'));
                processes.extend(process.and_then(|(pid, _)| pid.parse::<u32>().ok()));
                thread = text.split_once("): ").map(|(_, name)| name.to_owned()).or(thread);
            } else {
                frames.push(frame);
            }
        }
        let count = count.parse().with_context(|| format!("count in {line:?}"))?;
        Ok(Stack { processes, thread, frames, count })
    }

    /// Whether a function of this plain name is on the stack.
    pub fn contains(&self, function: &str) -> bool {
        self.frames.iter().any(|frame| frame.plain_name() == function)
    }

    /// The innermost frame.
    pub fn leaf(&self) -> Option<&Frame> {
        self.frames.last()
    }
}

/// All stacks of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collapsed {
    /// The stacks in the order of the file.
    pub stacks: Vec<Stack>,
    /// The text of the ledger, where there is one.
    pub ledger: Option<String>,
}

impl Collapsed {
    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self> {
        let mut collapsed = Collapsed::default();
        for line in text.lines() {
            match line.strip_prefix("<ledger: ").and_then(|line| line.strip_suffix("> 0")) {
                Some(ledger) => collapsed.ledger = Some(ledger.to_owned()),
                None => collapsed.stacks.push(Stack::parse(line)?),
            }
        }
        Ok(collapsed)
    }

    /// How many samples the stacks that satisfy `wanted` have in all.
    pub fn count(&self, wanted: impl Fn(&Stack) -> bool) -> u64 {
        self.stacks.iter().filter(|stack| wanted(stack)).map(|stack| stack.count).sum()
    }

    /// How many samples there are.
    pub fn total(&self) -> u64 {
        self.count(|_| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_with_thread_and_odd_names() {
        let line = "thread (0x1F): wor ker;<module> (a b.py:3);<genexpr> (x/y.py:12);<gc> 7";
        let collapsed = Collapsed::parse(line).unwrap();
        let stack = &collapsed.stacks[0];
        assert_eq!(stack.thread.as_deref(), Some("wor ker"));
        assert_eq!(stack.count, 7);
        assert_eq!(stack.frames.len(), 3);
        assert_eq!(stack.frames[0], Frame::parse("<module> (a b.py:3)"));
        assert_eq!((stack.frames[1].file.as_deref(), stack.frames[1].line), (Some("x/y.py"), Some(12)));
        assert_eq!(stack.frames[2].function, "<gc>");
    }

    #[test]
    fn a_stack_below_processes() {
        let line = "process 7:\"python a.py\";process 12:\"sh -c b: c\";thread (13): MainThread;f (a.py:1) 3";
        let stack = &Collapsed::parse(line).unwrap().stacks[0];
        assert_eq!(stack.processes, [7, 12]);
        assert_eq!((stack.thread.as_deref(), stack.frames.len()), (Some("MainThread"), 1));
    }

    #[test]
    fn the_ledger_is_no_stack() {
        let collapsed = Collapsed::parse("a (b.py:1) 2\n<ledger: 2 samples, none lost> 0\n").unwrap();
        assert_eq!((collapsed.stacks.len(), collapsed.total()), (1, 2));
        assert_eq!(collapsed.ledger.as_deref(), Some("2 samples, none lost"));
    }

    #[test]
    fn a_line_without_a_count_is_refused() {
        assert!(Collapsed::parse("a (b.py:1);c (d.py:2)").is_err());
    }
}
