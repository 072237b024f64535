//! The text and the JSON of `dump`.

use insta::assert_snapshot;
use profiler_model::{
    Frame, InterpreterId, LossReason, Nanos, Pid, Position, RemoteAddr, ThreadState, Tid, Variable,
    WaitReason,
};
use profiler_output::{ViewOptions, write_dump_text, write_dumps_json};
use profiler_profile::{FrameDetails, ProcessDump, Stops, TaskDump, TaskState, Tasks, ThreadDump, Variables};
use serde_json::Value;

use crate::profiles::frame;

fn thread(tid: u32, name: &str, state: ThreadState, frames: Vec<Frame>) -> ThreadDump {
    ThreadDump {
        pthread_id: 0x7f80_1234_5678,
        tid: Some(Tid::new(tid)),
        name: Some(name.to_owned()),
        state,
        waits_on: None,
        holds_gil: false,
        gc: false,
        is_main: false,
        interpreter: InterpreterId::default(),
        frames,
        truncated: false,
        lost: None,
        details: Vec::new(),
    }
}

fn process(threads: Vec<ThreadDump>) -> ProcessDump {
    ProcessDump {
        pid: Pid::new(14215),
        command_line: "python3 prog.py two words".to_owned(),
        python_version: "3.11.7".to_owned(),
        executable: "/usr/bin/python3.11".to_owned(),
        ancestors: Vec::new(),
        other_pythons: Vec::new(),
        threads,
        tasks: Tasks::None,
        stops: Stops { count: 2, total: Nanos::from_nanos(50_000), longest: Nanos::from_nanos(30_000) },
    }
}

fn text(dump: &ProcessDump) -> String {
    let mut text = Vec::new();
    write_dump_text(dump, &ViewOptions::default(), &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn json(dump: ProcessDump) -> (String, Value) {
    let mut text = Vec::new();
    write_dumps_json(&[dump], &ViewOptions::default(), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let value = serde_json::from_str(&text).unwrap();
    (text, value)
}

/// A thread that runs and one of which no more is known than that it waits.
fn plain_process() -> ProcessDump {
    let string = Frame { file: "<string>".into(), short_file: "<string>".into(), ..frame("f", "", 1, 2) };
    let frames = vec![frame("C.run", "prog.py", 3, 5), string, frame("<module>", "prog.py", 1, 13)];
    let main = ThreadDump {
        holds_gil: true,
        is_main: true,
        ..thread(14215, "MainThread", ThreadState::Running, frames)
    };
    let mut waits = frame("waits", "prog.py", 6, 7);
    waits.is_entry = true;
    let frames = vec![frame("Condition.wait", "threading.py", 295, 327), waits];
    let waiting = thread(14280, "wei\"rd;näme", ThreadState::Waiting(WaitReason::Unknown), frames);
    process(vec![main, waiting])
}

#[test]
fn the_text_is_what_py_spy_prints_of_such_threads() {
    // As py-spy 0.4.3 printed it, the folder of the executable aside.
    let expected = "\
Process 14215: python3 prog.py two words
Python v3.11.7 (/usr/bin/python3.11)

Thread 14215 (active+gil): \"MainThread\"
    C.run (prog.py:5)
    f (<string>:2)
    <module> (prog.py:13)
Thread 14280 (idle): \"wei\"rd;näme\"
    Condition.wait (threading.py:327)
    waits (prog.py:7)
";
    assert_eq!(text(&plain_process()), expected);
}

#[test]
fn the_json_has_all_fields_that_py_spy_writes() {
    let (_, json) = json(plain_process());
    // The fields of py-spy 0.4.3 in its order.
    let thread_fields =
        ["pid", "thread_id", "thread_name", "os_thread_id", "active", "owns_gil", "frames", "process_info"];
    let frame_fields =
        ["name", "filename", "module", "short_filename", "line", "locals", "is_entry", "is_shim_entry"];
    for thread in json.as_array().unwrap() {
        assert!(thread_fields.iter().all(|field| thread.get(field).is_some()), "{thread}");
        for frame in thread["frames"].as_array().unwrap() {
            assert!(frame_fields.iter().all(|field| frame.get(field).is_some()), "{frame}");
        }
    }
    let waits = &json[1]["frames"][1];
    assert_eq!(waits["filename"], "/app/prog.py");
    assert_eq!(waits["short_filename"], "prog.py");
    assert_eq!(
        (&waits["line"], &waits["is_entry"], &waits["is_shim_entry"]),
        (&7.into(), &true.into(), &true.into())
    );
    assert_eq!(json[1]["os_thread_id"], 14280);
    assert_eq!(json[0]["owns_gil"], true);
}

/// Everything that py-spy does not tell, and names that would break the terminal.
fn odd_process() -> ProcessDump {
    let waiting = |reason| ThreadState::Waiting(reason);
    let deep = ThreadDump {
        truncated: true,
        waits_on: Some("fd 7: /tmp/(a)\u{1b}b".to_owned()),
        ..thread(2, "deep", waiting(WaitReason::Socket), vec![frame("f", "f.py", 1, 2)])
    };
    let lost = ThreadDump {
        lost: Some(LossReason::Moved),
        name: None,
        tid: None,
        ..thread(3, "", ThreadState::Running, Vec::new())
    };
    let collecting = ThreadDump {
        gc: true,
        holds_gil: true,
        interpreter: InterpreterId::new(2),
        ..thread(4, "gc", waiting(WaitReason::Disk), Vec::new())
    };
    let odd = Frame { function: "a\nThread 9 (idle)\u{9b}2J".into(), ..frame("", "x\u{1b}[31m.py", 1, 2) };
    let hostile = thread(5, "\u{1b}]0;title\u{7}", ThreadState::WaitingForGil, vec![odd]);
    process(vec![deep, lost, collecting, hostile])
}

#[test]
fn the_text_says_more_than_py_spy_where_more_is_known() {
    let text = text(&odd_process());
    assert!(!text.chars().any(|char| char.is_control() && char != '\n'), "{text:?}");
    assert_snapshot!(text);
}

#[test]
fn the_json_says_more_than_py_spy_and_commands_no_terminal() {
    let (text, json) = json(odd_process());
    assert!(!text.chars().any(|char| char.is_control() && char != '\n'), "{text:?}");
    assert_eq!(json[3]["frames"][0]["name"], "a\nThread 9 (idle)\u{9b}2J");
    assert_eq!(json[1]["lost"], "thread ran while it was read");
    assert_eq!(json[1]["os_thread_id"], Value::Null);
    assert_eq!(json[0]["state"], "waiting: socket");
    assert_eq!(json[0]["truncated"], true);
    // What is cut off is not the outermost frame.
    assert_eq!(json[0]["frames"][0]["is_shim_entry"], false);
}

#[test]
fn lines_and_files_are_those_asked_for() {
    let options = ViewOptions { full_filenames: true, ..ViewOptions::default() };
    let mut text = Vec::new();
    write_dump_text(&plain_process(), &options, &mut text).unwrap();
    assert!(String::from_utf8(text).unwrap().contains("    C.run (/app/prog.py:5)\n"));
}

fn variable(name: &str, is_argument: bool, value: Option<&str>) -> Variable {
    Variable {
        name: name.into(),
        address: RemoteAddr::new(0x7f10),
        is_argument,
        value: value.map(str::to_owned),
    }
}

/// Frames with variables and source, as wide and as hostile as can be.
fn detailed_process() -> ProcessDump {
    let at = |columns: (u32, u32), end_line| Position {
        line: Some(5),
        end_line: Some(end_line),
        column: Some(columns.0),
        end_column: Some(columns.1),
    };
    let place = |position| Frame { position, ..frame("f", "f.py", 3, 5) };
    // The wide characters take three bytes and two columns each; the tab is written as an escape.
    let lines = [
        ("    x = 日本(\ty) + 1\n", at((8, 18), 5)),
        ("    call(\n", at((4, 5), 6)),
        ("    whole()\n", at((4, 11), 5)),
        ("short", at((90, 99), 5)),
    ];
    let mut frames: Vec<Frame> = lines.iter().map(|(_, position)| place(*position)).collect();
    let mut details: Vec<FrameDetails> = lines
        .iter()
        .map(|(line, _)| FrameDetails { source: Some((*line).to_owned()), ..FrameDetails::default() })
        .collect();
    details[0].variables = Variables::Read(vec![
        variable("first", true, Some("'a\u{1b}[2Jb'")),
        variable("na\nme", false, None),
    ]);
    for lost in [Some(LossReason::GilMoved), None] {
        frames.push(frame("g", "g.py", 1, 2));
        details.push(FrameDetails { variables: Variables::Lost(lost), source: None });
    }
    process(vec![ThreadDump { details, ..thread(14215, "MainThread", ThreadState::Running, frames) }])
}

#[test]
fn variables_and_source_as_text() {
    let text = text(&detailed_process());
    assert!(!text.chars().any(|char| char.is_control() && char != '\n'), "{text:?}");
    assert_snapshot!(text);
}

#[test]
fn variables_and_source_as_json() {
    let (text, json) = json(detailed_process());
    assert!(!text.chars().any(|char| char.is_control() && char != '\n'), "{text:?}");
    let frames = &json[0]["frames"];
    let first = serde_json::json!({"name": "first", "addr": 0x7f10, "arg": true, "repr": "'a\u{1b}[2Jb'"});
    assert_eq!(frames[0]["locals"][0], first);
    assert_eq!(frames[0]["locals"][1]["repr"], Value::Null);
    assert_eq!(frames[0]["source"], "    x = 日本(\ty) + 1\n");
    assert_eq!(
        (&frames[4]["locals"], &frames[4]["locals_lost"]),
        (&Value::Null, &"GIL changed hands while it was read".into())
    );
    assert_eq!(frames[5]["locals_lost"], "not read");
}

/// Tasks that await each other in a tree, in a circle and from two sides, one of them unreadable.
fn process_with_tasks() -> ProcessDump {
    let task = |number: u64, name: &str, awaited_by: &[u64]| TaskDump {
        address: RemoteAddr::new(number),
        name: Some(name.to_owned()),
        tid: Some(Tid::new(14215)),
        state: TaskState::Suspended,
        frames: vec![frame(name, "f.py", 1, 2)],
        truncated: false,
        awaited_by: awaited_by.iter().copied().map(RemoteAddr::new).collect(),
    };
    let unread =
        TaskDump { name: None, state: TaskState::Unknown, frames: Vec::new(), ..task(0x70, "", &[]) };
    let running = TaskDump { state: TaskState::Running, truncated: true, ..task(0x10, "root", &[0x999]) };
    let tasks = vec![
        running,
        task(0x20, "left", &[0x10]),
        task(0x30, "right", &[0x10]),
        task(0x40, "both\u{1b}[2J", &[0x20, 0x30]),
        task(0x50, "egg", &[0x60]),
        task(0x60, "hen", &[0x50]),
        unread,
        TaskDump { tid: None, state: TaskState::Created, ..task(0x80, "left over", &[]) },
    ];
    let main = thread(14215, "MainThread", ThreadState::Running, vec![frame("f", "f.py", 1, 2)]);
    ProcessDump { tasks: Tasks::Read { tasks, truncated: true }, ..process(vec![main]) }
}

#[test]
fn tasks_as_text() {
    let text = text(&process_with_tasks());
    assert!(!text.chars().any(|char| char.is_control() && char != '\n'), "{text:?}");
    assert_snapshot!(text);
}

#[test]
fn tasks_as_json() {
    let (text, json) = json(process_with_tasks());
    assert!(!text.chars().any(|char| char.is_control() && char != '\n'), "{text:?}");
    let tasks = json[0]["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 8);
    assert_eq!(tasks[3]["name"], "both\u{1b}[2J");
    assert_eq!(tasks[3]["awaited_by"], serde_json::json!([0x20, 0x30]));
    assert_eq!((&tasks[0]["state"], &tasks[7]["thread_ended"]), (&"running".into(), &true.into()));
    let lost = ProcessDump { tasks: Tasks::Lost(LossReason::Moved), ..plain_process() };
    assert_eq!(self::json(lost).1[0]["tasks_lost"], "thread ran while it was read");
}

#[test]
fn a_long_chain_of_tasks_is_drawn_within_bounds() {
    let ProcessDump { tasks: Tasks::Read { tasks, .. }, .. } = process_with_tasks() else { panic!() };
    let chain = (1..5000u64).map(|number| TaskDump {
        address: RemoteAddr::new(number),
        awaited_by: vec![RemoteAddr::new(number - 1)],
        ..tasks[1].clone()
    });
    let tasks = Tasks::Read { tasks: chain.collect(), truncated: false };
    let text = text(&ProcessDump { tasks, ..process(Vec::new()) });
    assert_eq!(text.matches("(waiting)").count(), 4999);
    assert!(text.lines().all(|line| line.len() < 250));
}
