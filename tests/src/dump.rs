//! Reads what `dump` prints, as text and as JSON.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::Frame;

/// A frame of a dump in JSON.
#[derive(Clone, Debug, Deserialize)]
pub struct DumpedFrame {
    /// The function.
    pub name: String,
    /// The file as the code names it.
    pub filename: String,
    /// The file without the folders above its package.
    pub short_filename: Option<String>,
    /// The line.
    pub line: u32,
}

/// A thread of a dump. Frames are leaf first, as they are printed.
#[derive(Clone, Debug)]
pub struct DumpedThread {
    /// The process; not in the text of a thread.
    pub pid: Option<u32>,
    /// The name.
    pub name: Option<String>,
    /// Whether it runs or wants to.
    pub active: bool,
    /// Whether it holds the GIL.
    pub owns_gil: bool,
    /// The frames, leaf first.
    pub frames: Vec<Frame>,
}

impl DumpedThread {
    /// The plain name of the innermost function.
    pub fn leaf(&self) -> &str {
        self.frames.first().map_or("", Frame::plain_name)
    }

    /// Function and line of every frame, root first: what the labyrinth's judge wants.
    pub fn root_first(&self) -> Vec<Frame> {
        self.frames.iter().rev().cloned().collect()
    }
}

#[derive(Deserialize)]
struct JsonThread {
    pid: u32,
    thread_name: Option<String>,
    active: bool,
    owns_gil: bool,
    frames: Vec<DumpedFrame>,
}

/// The threads of `dump --json`.
pub fn dumped_json(text: &str) -> Result<Vec<DumpedThread>> {
    let threads: Vec<JsonThread> = serde_json::from_str(text).context("dump --json")?;
    let thread = |thread: JsonThread| DumpedThread {
        pid: Some(thread.pid),
        name: thread.thread_name,
        active: thread.active,
        owns_gil: thread.owns_gil,
        frames: thread
            .frames
            .into_iter()
            .map(|frame| Frame { function: frame.name, file: Some(frame.filename), line: Some(frame.line) })
            .collect(),
    };
    Ok(threads.into_iter().map(thread).collect())
}

/// The threads of the text that `dump` prints: a head of two lines, then blocks of
/// `Thread ID (STATE): "NAME"` with indented frames, leaf first.
pub fn dumped_text(text: &str, pid: u32) -> Result<Vec<DumpedThread>> {
    let mut lines = text.lines();
    let head = lines.next().context("an empty dump")?;
    ensure!(head.starts_with(&format!("Process {pid}: ")), "first line {head:?}");
    let version = lines.next().context("a dump of one line")?;
    ensure!(version.starts_with("Python v3."), "second line {version:?}");
    let mut threads: Vec<DumpedThread> = Vec::new();
    for line in lines.filter(|line| !line.trim().is_empty()) {
        if let Some(rest) = line.strip_prefix("Thread ") {
            threads.push(thread_line(rest).with_context(|| line.to_owned())?);
        } else {
            let frame = line.strip_prefix("    ").with_context(|| format!("not indented: {line:?}"))?;
            threads.last_mut().context("a frame before any thread")?.frames.push(Frame::parse(frame));
        }
    }
    Ok(threads)
}

/// Reads `ID (STATE): "NAME"`; the state may carry more words after the first.
fn thread_line(rest: &str) -> Result<DumpedThread> {
    let (_, after) = rest.split_once(" (").context("no state")?;
    let (state, name) = after.split_once(')').context("no end of the state")?;
    let name = name.strip_prefix(": \"").and_then(|name| name.strip_suffix('"'));
    Ok(DumpedThread {
        pid: None,
        name: name.map(str::to_owned),
        active: state.starts_with("active"),
        owns_gil: state.contains("+gil"),
        frames: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_two_threads() {
        let text = "Process 7: python a.py\nPython v3.6.15 (/usr/bin/python)\n\n\
                    Thread 9 (active+gil): \"MainThread\"\n    f (a.py:2)\n    <module> (a.py:5)\n\
                    Thread 0x7F (idle)\n    wait (threading.py:300)\n";
        let threads = dumped_text(text, 7).unwrap();
        assert_eq!(threads.len(), 2);
        assert_eq!(threads[0].name.as_deref(), Some("MainThread"));
        assert!(threads[0].active && threads[0].owns_gil && !threads[1].active);
        assert_eq!(threads[0].leaf(), "f");
        assert_eq!(threads[1].name, None);
        assert!(dumped_text(text, 8).is_err());
    }
}
