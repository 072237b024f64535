//! The text of `dump`, laid out as py-spy lays it out, so that what reads that reads this.
//!
//! What py-spy does not know follows its word for the state (`idle, waiting: lock`), or stands as a frame in
//! angle brackets where frames are missing.

use std::io::{self, Write};

use profiler_model::{Frame, InterpreterId, ThreadState, WaitReason};
use profiler_profile::{FrameDetails, ProcessDump, ThreadDump, Variables};
use unicode_width::UnicodeWidthStr;

use crate::dump_tasks::write_tasks;
use crate::label::{file_shown, frame_name, line_shown};
use crate::{ViewOptions, escape};

/// Writes what a process's threads were doing.
pub fn write_dump_text(dump: &ProcessDump, options: &ViewOptions, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "Process {}: {}", dump.pid, escape::plain(&dump.command_line))?;
    let version = escape::plain(&dump.python_version);
    writeln!(out, "Python v{version} ({})", escape::plain(&dump.executable))?;
    writeln!(out)?;
    for thread in &dump.threads {
        write_thread(thread, options, out)?;
    }
    write_tasks(&dump.tasks, options, out)
}

fn write_thread(thread: &ThreadDump, options: &ViewOptions, out: &mut dyn Write) -> io::Result<()> {
    let state = state(thread);
    match thread.tid {
        Some(tid) => write!(out, "Thread {tid} ({state})")?,
        None => write!(out, "Thread {:#X} ({state})", thread.pthread_id)?,
    }
    match &thread.name {
        Some(name) => writeln!(out, ": \"{}\"", escape::plain(name))?,
        None => writeln!(out)?,
    }
    if let Some(reason) = thread.lost {
        return writeln!(out, "    <lost> ({reason})");
    }
    for (index, frame) in thread.frames.iter().enumerate() {
        let (name, file) = (frame_name(frame), file_shown(frame, options.full_filenames));
        write!(out, "    {} ({}", escape::plain(&name), escape::plain(file))?;
        match line_shown(frame, options.line_numbers) {
            Some(line) => writeln!(out, ":{line})")?,
            None => writeln!(out, ")")?,
        }
        if let Some(details) = thread.details.get(index) {
            write_details(details, frame, out)?;
        }
    }
    if thread.truncated {
        writeln!(out, "    <truncated> (the stack is deeper than is read)")?;
    }
    Ok(())
}

/// The line of source and the variables of a frame, these as py-spy lists them.
fn write_details(details: &FrameDetails, frame: &Frame, out: &mut dyn Write) -> io::Result<()> {
    if let Some(line) = &details.source {
        write_source(line, frame, out)?;
    }
    let variables = match &details.variables {
        Variables::NotAskedFor => return Ok(()),
        Variables::Lost(None) => return writeln!(out, "        <variables not read>"),
        Variables::Lost(Some(reason)) => return writeln!(out, "        <variables not read: {reason}>"),
        Variables::Read(variables) => variables,
    };
    let mut title = "";
    for variable in variables {
        let its_title = if variable.is_argument { "Arguments:" } else { "Locals:" };
        if title != its_title {
            title = its_title;
            writeln!(out, "        {title}")?;
        }
        let value = variable.value.as_deref().unwrap_or("<not read>");
        writeln!(out, "            {}: {}", escape::plain(&variable.name), escape::plain(value))?;
    }
    Ok(())
}

/// The line without its indentation, and below it marks under the expression that runs, if that is only a
/// part of the line.
fn write_source(line: &str, frame: &Frame, out: &mut dyn Write) -> io::Result<()> {
    let text = line.trim_end();
    let indent = text.len() - text.trim_start().len();
    let position = &frame.position;
    let start = position.column.map_or(indent, |column| column as usize).clamp(indent, text.len());
    let end = match (position.end_line == position.line, position.end_column) {
        (true, Some(end)) => (end as usize).clamp(start, text.len()),
        _ => text.len(),
    };
    let (Some(before), Some(marked), Some(after)) =
        (text.get(indent..start), text.get(start..end), text.get(end..))
    else {
        return Ok(());
    };
    let [before, marked, after] = [before, marked, after].map(escape::plain);
    writeln!(out, "        {before}{marked}{after}")?;
    if position.column.is_none() || marked.is_empty() || before.is_empty() && after.is_empty() {
        return Ok(());
    }
    writeln!(out, "        {}{}", " ".repeat(before.width()), "^".repeat(marked.width()))
}

/// py-spy's word for what a thread does, and what that leaves out.
fn state(thread: &ThreadDump) -> String {
    let is_running = thread.state.is_running();
    let mut words = vec![match (is_running, thread.holds_gil) {
        (true, true) => "active+gil".to_owned(),
        (true, false) => "active".to_owned(),
        (false, _) => "idle".to_owned(),
    }];
    // A thread that merely waits is what everyone takes an idle one for.
    if !is_running && thread.state != ThreadState::Waiting(WaitReason::Unknown) {
        words.push(thread.state.to_string());
    }
    if let Some(on) = &thread.waits_on {
        // A parenthesis would end the state for who reads this.
        words.push(escape::plain(on).replace(')', "\\u{29}"));
    }
    if !is_running && thread.holds_gil {
        words.push("holds the GIL".to_owned());
    }
    if thread.gc {
        words.push("collecting garbage".to_owned());
    }
    if thread.interpreter != InterpreterId::default() {
        words.push(format!("interpreter {}", thread.interpreter));
    }
    words.join(", ")
}
