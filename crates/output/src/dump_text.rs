//! The text of `dump`, laid out as py-spy lays it out, so that what reads that reads this.
//!
//! What py-spy does not know follows its word for the state (`idle, waiting: lock`), or stands as a frame in
//! angle brackets where frames are missing.

use std::io::{self, Write};

use profiler_model::{InterpreterId, ThreadState, WaitReason};
use profiler_profile::{ProcessDump, ThreadDump};

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
    Ok(())
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
    for frame in &thread.frames {
        let (name, file) = (frame_name(frame), file_shown(frame, options.full_filenames));
        write!(out, "    {} ({}", escape::plain(&name), escape::plain(file))?;
        match line_shown(frame, options.line_numbers) {
            Some(line) => writeln!(out, ":{line})")?,
            None => writeln!(out, ")")?,
        }
    }
    if thread.truncated {
        writeln!(out, "    <truncated> (the stack is deeper than is read)")?;
    }
    Ok(())
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
