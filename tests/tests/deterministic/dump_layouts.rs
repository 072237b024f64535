//! The text of `dump --locals` and `dump --async`, drawn of what is read of stored memory of every interpreter: real values
//! and names in py-spy's layout, and none that commands the terminal. The layouts themselves, character by character, are
//! tests of the crate `output`.

use anyhow::{Result, ensure};
use profiler_model::{Frame, InterpreterId, Pid, RemoteAddr, ThreadState, Tid, WaitReason};
use profiler_output::{ViewOptions, write_dump_text};
use profiler_profile::{FrameDetails, ProcessDump, Stops, TaskDump, TaskState, Tasks, ThreadDump, Variables};
use profiler_tests::account::StoredAccount;
use profiler_tests::account::asyncio::{AsyncioTree, SeenTask};
use profiler_tests::account::locals::{Locals, SHORT};
use profiler_tests::snapshot::StoredId;
use profiler_tests::suite::Test;

const PID: u32 = 14215;

fn frame(function: &str) -> Frame {
    Frame { function: function.into(), short_file: "program.py".into(), ..Frame::default() }
}

fn process(frames: Vec<Frame>, details: Vec<FrameDetails>, tasks: Tasks) -> ProcessDump {
    let main = ThreadDump {
        pthread_id: 1,
        tid: Some(Tid::new(PID)),
        name: Some("MainThread".to_owned()),
        state: ThreadState::Waiting(WaitReason::Unknown),
        waits_on: None,
        holds_gil: false,
        gc: false,
        is_main: true,
        interpreter: InterpreterId::default(),
        frames,
        truncated: false,
        lost: None,
        details,
    };
    ProcessDump {
        pid: Pid::new(PID),
        command_line: "python3 program.py".to_owned(),
        python_version: "3".to_owned(),
        executable: "/usr/bin/python3".to_owned(),
        ancestors: Vec::new(),
        other_pythons: Vec::new(),
        threads: vec![main],
        tasks,
        stops: Stops::default(),
    }
}

fn drawn(dump: &ProcessDump) -> Result<String> {
    let mut text = Vec::new();
    write_dump_text(dump, &ViewOptions::default(), &mut text)?;
    let text = String::from_utf8(text)?;
    ensure!(text.chars().all(|char| char == '\n' || !char.is_control()), "{text:?}");
    Ok(text)
}

fn ensure_parts(text: &str, parts: &[&str]) -> Result<()> {
    let missing: Vec<_> = parts.iter().filter(|part| !text.contains(**part)).collect();
    ensure!(missing.is_empty(), "no {missing:?} in\n{text}");
    Ok(())
}

fn variables_are_laid_out_as_py_spy_does(id: &StoredId) -> Result<()> {
    let stored = StoredAccount::<Locals>::open(id)?;
    let (mut frames, mut details) = (Vec::new(), Vec::new());
    for (function, variables) in stored.account.frames(&stored.memory.with_whole_pages(), SHORT)? {
        frames.push(frame(&function));
        details.push(FrameDetails { variables: Variables::Read(variables), source: None });
    }
    let text = drawn(&process(frames, details, Tasks::None))?;
    ensure_parts(
        &text,
        &[
            ")\n        Arguments:\n            first: 1\n            second: 3\n",
            "\n        Locals:\n            after: 1\n    loses (program.py",
            r"escape: '\x1b[31mred\x1b[0m'",
        ],
    )
}

fn dumped(task: SeenTask) -> TaskDump {
    TaskDump {
        address: RemoteAddr::new(task.id),
        name: task.name,
        tid: Some(Tid::new(PID)),
        state: if task.waits { TaskState::Suspended } else { TaskState::Unknown },
        frames: task.functions.iter().rev().map(|function| frame(function)).collect(),
        truncated: false,
        awaited_by: task.awaited_by.into_iter().map(RemoteAddr::new).collect(),
    }
}

fn the_tree_of_tasks_is_drawn(id: &StoredId) -> Result<()> {
    let stored = StoredAccount::<AsyncioTree>::open(id)?;
    let threads = stored.account.seen(&stored.memory.with_whole_pages())?.into_iter();
    let main = threads.filter(|(name, _)| name == "MainThread");
    let tasks = main.flat_map(|(_, tasks)| tasks).map(dumped).collect();
    let text = drawn(&process(Vec::new(), Vec::new(), Tasks::Read { tasks, truncated: false }))?;
    ensure_parts(
        &text,
        &[
            &format!("\nTasks of thread {PID}:\n"),
            "\n        awaits task \"first\" (waiting)\n            play (program.py",
            "\n            awaits task \"first/\u{e9}in\" (waiting)\n                sleep (program.py",
            "\n    Task \"line\\nbreak\\u{1b}[2J\" (waiting)\n",
        ],
    )
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    let locals = StoredAccount::<Locals>::ids();
    let mut tests =
        Test::of_each("variables_are_laid_out_as_py_spy_does", locals, variables_are_laid_out_as_py_spy_does);
    let trees = StoredAccount::<AsyncioTree>::ids();
    tests.extend(Test::of_each("the_tree_of_tasks_is_drawn", trees, the_tree_of_tasks_is_drawn));
    tests
}
