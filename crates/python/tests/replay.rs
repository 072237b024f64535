//! The stored snapshots of real processes, read again: every stack, name, line and column is what it was, and
//! that was what the processes said themselves (`cargo xtask snapshots`). No process, no privilege.

use std::collections::BTreeSet;

use profiler_tests::snapshot::StoredProcess;
use profiler_tests::survey::{SurveyedFrame, SurveyedThread, survey};

fn stored() -> Vec<StoredProcess> {
    StoredProcess::all().expect("the stored snapshots")
}

fn threads(process: &StoredProcess) -> impl Iterator<Item = &SurveyedThread> {
    process.about.survey.interpreters.iter().flat_map(|interpreter| &interpreter.threads)
}

fn frames(process: &StoredProcess) -> impl Iterator<Item = &SurveyedFrame> {
    threads(process).flat_map(|thread| thread.frames.as_ref().expect("a whole stack"))
}

/// 3.6 to 3.15, from the version as text.
fn minor(process: &StoredProcess) -> u32 {
    let minor = process.about.survey.version.split('.').nth(1);
    minor.and_then(|minor| minor.parse().ok()).expect("a version")
}

#[test]
fn every_version_is_there() {
    let minors: BTreeSet<u32> = stored().iter().map(minor).collect();
    assert_eq!(minors, (6..=15).collect());
}

#[test]
fn snapshots_give_what_the_processes_gave() {
    for process in stored() {
        let modules = process.modules().unwrap();
        let modules: Vec<_> = modules.iter().map(|module| module.as_module()).collect();
        let memory = process.memory.with_whole_pages();
        let seen = survey(&modules, &memory, &process.alive()).unwrap();
        assert_eq!(seen.version, process.about.survey.version, "{}", process.id);
        assert_eq!(seen.interpreters, process.about.survey.interpreters, "{}", process.id);
        assert_eq!(seen.runtime, process.about.survey.runtime, "{}", process.id);
    }
}

#[test]
fn entry_marks_are_where_c_calls_python() {
    for process in stored() {
        let minor = minor(&process);
        for frame in frames(&process) {
            let name = frame.function.rsplit('.').next().unwrap();
            // What Python calls runs in the evaluation loop of its caller since 3.11.
            let expected = match name {
                _ if minor <= 10 || name.starts_with("from_c_") || name == "<module>" => true,
                _ if name.starts_with("plain_") => false,
                // Resumed by a loop: a call into C until 3.11, an instruction since.
                "generator" => minor == 11,
                _ => continue,
            };
            assert_eq!(frame.is_entry, expected, "{}: {frame:?}", process.id);
        }
    }
}

#[test]
fn the_stacks_have_what_they_should_show() {
    for process in stored() {
        let minor = minor(&process);
        let functions: BTreeSet<&str> = frames(&process).map(|frame| &*frame.function).collect();
        let init = if minor >= 11 { "Outer.Inner.__init__" } else { "__init__" };
        let closure = if minor >= 11 { "thread_closure.<locals>.plain_inner" } else { "plain_inner" };
        for wanted in [init, closure, "generator", "from_c_key", "from_c_map", "grüße", "функ", "𠀀𠀁"]
        {
            assert!(functions.contains(wanted), "{}: no {wanted} in {functions:?}", process.id);
        }
        assert_eq!(functions.contains("<listcomp>"), minor <= 10);
        let files: BTreeSet<&str> = frames(&process).map(|frame| &*frame.file).collect();
        for wanted in ["/café/grün.py", "/дир/模.py", "/🐍/𠀀.py"] {
            assert!(files.contains(wanted), "{}: no {wanted} in {files:?}", process.id);
        }
        // The cleanup below a specialised `__init__` is in the memory and not in the stack.
        assert!(!files.contains("__init__"), "{}", process.id);
        assert!(frames(&process).any(|frame| frame.position[2].is_some()) == (minor >= 11));
        assert_eq!(threads(&process).filter(|thread| thread.holds_gil).count(), 1, "{}", process.id);
        let deepest = threads(&process).map(|thread| thread.frames.as_ref().unwrap().len()).max();
        assert!(deepest >= Some(60), "{}: {deepest:?}", process.id);
    }
}
