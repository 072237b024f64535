//! How frames, threads and processes are called in the views: in the words of py-spy, so that what reads its
//! output reads ours.

use profiler_model::{Frame, FrameKind};
use profiler_profile::{ProcessId, Profile, ThreadId, ThreadInfo};

use crate::{Lines, ViewOptions};

/// What a sample without any frame is called.
pub(crate) const NO_FRAMES: &str = "<no frames>";

/// What stands behind functions of the kernel, as the tools of perf and flame graphs write it.
pub(crate) const KERNEL_MARK: &str = "_[k]";

/// `name (file:line)`, as far as these are known and asked for. Not escaped. The mark of the kernel comes last, where
/// others look for it: `name (module)_[k]`.
pub(crate) fn frame_label(frame: &Frame, options: &ViewOptions) -> String {
    let label = placed_name(frame, options);
    if frame.kind == FrameKind::Kernel { label + KERNEL_MARK } else { label }
}

fn placed_name(frame: &Frame, options: &ViewOptions) -> String {
    let name = frame_name(frame);
    let place = file_shown(frame, options.full_filenames);
    match (place, line_shown(frame, options.line_numbers)) {
        ("", _) => name,
        (place, Some(line)) => format!("{name} ({place}:{line})"),
        (place, None) => format!("{name} ({place})"),
    }
}

/// The function's name, or where there is none its address.
pub(crate) fn frame_name(frame: &Frame) -> String {
    match frame.address {
        Some(address) if frame.function.is_empty() => address.to_string(),
        _ => frame.function.to_string(),
    }
}

/// The file that stands beside the name: code without a source file has its library.
pub(crate) fn file_shown(frame: &Frame, full: bool) -> &str {
    let module = frame.module.as_deref().unwrap_or_default();
    let files = if full { [&*frame.file, module] } else { [&*frame.short_file, &*frame.file] };
    files.into_iter().chain([module]).find(|file| !file.is_empty()).unwrap_or_default()
}

/// The line that stands beside the file.
pub(crate) fn line_shown(frame: &Frame, lines: Lines) -> Option<u32> {
    match lines {
        Lines::Line => frame.position.line,
        Lines::FirstLine => frame.first_line,
        Lines::None => None,
    }
}

/// The frames that a thread's stacks stand on, outermost first: none unless asked for.
pub(crate) fn root_labels(profile: &Profile, thread: ThreadId, options: &ViewOptions) -> Vec<String> {
    let info = profile.thread_of(thread);
    let mut labels = Vec::new();
    if options.processes {
        let mut next = Some(info.process);
        while let Some(process) = next {
            labels.push(process_label(profile, process, options));
            next = profile.process_of(process).parent;
        }
        labels.reverse();
    }
    if options.threads {
        labels.push(thread_label(info, options));
    }
    labels
}

/// `process 12:"python3 app.py"`, or for all processes of that command line `process:"python3 app.py"`.
fn process_label(profile: &Profile, process: ProcessId, options: &ViewOptions) -> String {
    let info = profile.process_of(process);
    match options.merge_processes {
        true => format!("process:\"{}\"", info.command_line),
        false => format!("process {}:\"{}\"", info.pid, info.command_line),
    }
}

/// `thread (12): MainThread`, or for the threads of that name in all merged processes `thread: MainThread`.
fn thread_label(info: &ThreadInfo, options: &ViewOptions) -> String {
    let id = if options.merge_processes { String::new() } else { format!(" ({})", info.key.tid) };
    match &info.name {
        Some(name) => format!("thread{id}: {name}"),
        None => format!("thread{id}"),
    }
}
