//! The Trace Event format (`-f chrometrace`), which ui.perfetto.dev and chrome://tracing open: what each
//! thread did when, as py-spy writes it.
//!
//! An array of events, one a line: a `B` where a frame begins and an `E` where it ends, in microseconds since
//! the recording began. A frame that stays from one sample to the next is one slice; where nothing of a
//! thread was shown, all of its slices end, and the gap stays empty. Names of processes and threads and the
//! ledger come first, as metadata. Thread ids are the kernel's, not `threading.get_ident()` as in py-spy's, so
//! that a trace of the kernel's scheduler fits beside them.

use std::io::{self, Write};

use profiler_model::{Nanos, Pid, ThreadKey};
use profiler_profile::{Profile, ThreadId};
use serde::Serialize;
use serde_json::{Value, json};

use crate::drawn_stack::DrawnStack;
use crate::ledger_json::LedgerView;
use crate::shared_frames::SharedFrames;
use crate::stretches::{Overlaps, Stretch, beginning, stretches};
use crate::{Format, OutputError, ViewOptions, escape, summary};

/// What viewers can filter slices by; the events of other programs in one trace have others.
const CATEGORY: &str = "profiler";

/// The Trace Event format.
#[derive(Clone, Copy, Debug)]
pub struct ChromeTrace;

impl Format for ChromeTrace {
    fn name(&self) -> &'static str {
        "chrometrace"
    }

    /// Its events have a place in time, and those of a sum have none.
    fn can_merge_processes(&self) -> bool {
        false
    }

    fn endings(&self) -> &'static [&'static str] {
        &["trace.json", "trace"]
    }

    fn needs_timeline(&self) -> bool {
        true
    }

    fn write_view(
        &self,
        profile: &Profile,
        options: &ViewOptions,
        out: &mut dyn Write,
    ) -> Result<(), OutputError> {
        let mut events = Events { out, is_first: true };
        write_metadata(profile, &mut events)?;
        let frames = SharedFrames::new(profile, options);
        let began = beginning(profile);
        for (thread, info) in profile.threads() {
            let mut slices = Slices { frames: &frames, key: info.key, open: Vec::new(), events: &mut events };
            slices.write(profile, thread, stretches(profile, thread, began, Overlaps::Cut))?;
        }
        Ok(events.finish()?)
    }
}

/// The names of processes and threads, and what was lost.
fn write_metadata(profile: &Profile, events: &mut Events<'_>) -> io::Result<()> {
    let ledger = serde_json::to_value(LedgerView::new(profile.ledger()))?;
    let first = profile.processes().next().map_or(Pid::new(0), |(_, process)| process.pid);
    events.write(&Metadata::new("ledger", first, 0, ledger))?;
    for (_, process) in profile.processes() {
        let name = json!({ "name": process.command_line });
        events.write(&Metadata::new("process_name", process.pid, 0, name))?;
        let labels = json!({ "labels": summary(profile.ledger()) });
        events.write(&Metadata::new("process_labels", process.pid, 0, labels))?;
    }
    for (_, thread) in profile.threads() {
        if let Some(name) = &thread.name {
            let name = json!({ "name": **name });
            events.write(&Metadata::new("thread_name", thread.key.pid, thread.key.tid.as_u32(), name))?;
        }
    }
    Ok(())
}

/// An event that names something.
#[derive(Serialize)]
struct Metadata {
    name: &'static str,
    ph: &'static str,
    pid: u32,
    tid: u32,
    args: Value,
}

impl Metadata {
    fn new(name: &'static str, pid: Pid, tid: u32, args: Value) -> Self {
        Metadata { name, ph: "M", pid: pid.as_u32(), tid, args }
    }
}

/// The begin or the end of a slice.
#[derive(Serialize)]
struct Edge<'a> {
    name: &'a str,
    cat: &'static str,
    ph: &'static str,
    pid: u32,
    tid: u32,
    ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Place<'a>>,
}

/// Where the code of a slice stands. A line that is not known or not asked for is 0, as in py-spy's.
#[derive(Serialize)]
struct Place<'a> {
    filename: &'a str,
    line: u32,
}

/// The slices of one thread.
struct Slices<'a, 'b> {
    frames: &'a SharedFrames,
    key: ThreadKey,
    /// The frames whose slices have begun, outermost first.
    open: Vec<usize>,
    events: &'a mut Events<'b>,
}

impl Slices<'_, '_> {
    fn write(
        &mut self,
        profile: &Profile,
        thread: ThreadId,
        stretches: impl Iterator<Item = Stretch>,
    ) -> io::Result<()> {
        let mut until = Nanos::ZERO;
        for Stretch { start, end, run } in stretches.filter(|stretch| stretch.start < stretch.end) {
            if start > until {
                self.end_all_but(0, until)?;
            }
            let stack = self.frames.root_first(profile, thread, DrawnStack::of_run(&run));
            let kept = self.open.iter().zip(&stack).take_while(|(open, frame)| open == frame).count();
            self.end_all_but(kept, start)?;
            for frame in stack.into_iter().skip(kept) {
                self.write_edge("B", frame, start)?;
                self.open.push(frame);
            }
            until = end;
        }
        self.end_all_but(0, until)
    }

    /// Ends the innermost slices until so many are left.
    fn end_all_but(&mut self, kept: usize, at: Nanos) -> io::Result<()> {
        for frame in self.open.split_off(kept).into_iter().rev() {
            self.write_edge("E", frame, at)?;
        }
        Ok(())
    }

    fn write_edge(&mut self, phase: &'static str, frame: usize, at: Nanos) -> io::Result<()> {
        let frame = &self.frames.all[frame];
        let place =
            || Place { filename: frame.file.as_deref().unwrap_or_default(), line: frame.line.unwrap_or(0) };
        self.events.write(&Edge {
            name: &frame.name,
            cat: CATEGORY,
            ph: phase,
            pid: self.key.pid.as_u32(),
            tid: self.key.tid.as_u32(),
            ts: at.as_nanos() / 1_000,
            args: (phase == "B").then(place),
        })
    }
}

/// The array that is being written.
struct Events<'a> {
    out: &'a mut dyn Write,
    is_first: bool,
}

impl Events<'_> {
    fn write(&mut self, event: &impl Serialize) -> io::Result<()> {
        let before = if std::mem::take(&mut self.is_first) { "[\n" } else { ",\n" };
        let text = serde_json::to_string(event)?;
        write!(self.out, "{before}{}", escape::json(&text))
    }

    fn finish(self) -> io::Result<()> {
        writeln!(self.out, "\n]")
    }
}
