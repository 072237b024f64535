//! The profile that the views are drawn of: two processes, four threads, odd names, losses.

use std::collections::HashMap;

use profiler_model::{
    Frame, FrameKind, LossReason, Nanos, Pid, Position, ThreadKey, ThreadState, Tid, Timestamp, WaitReason,
};
use profiler_output::{Format, ViewOptions};
use profiler_profile::{
    Event, MetricValue, ProcessId, ProcessInfo, Profile, Sample, Scope, Skip, ThreadId, ThreadInfo,
};

/// A frame of `function` in a file of /app, at `line`, whose function starts at `first_line`.
pub fn frame(function: &str, file: &str, first_line: u32, line: u32) -> Frame {
    Frame {
        function: function.into(),
        file: format!("/app/{file}").into(),
        short_file: file.into(),
        first_line: Some(first_line),
        position: Position { line: Some(line), ..Position::default() },
        ..Frame::default()
    }
}

/// A profile that is being made, with its clock.
pub struct Scene {
    pub profile: Profile,
    now: u64,
}

impl Scene {
    pub fn new() -> Self {
        Scene { profile: Profile::with_timeline(), now: 1_000_000_000 }
    }

    pub fn process(&mut self, pid: u32, parent: Option<ProcessId>, command_line: &str) -> ProcessId {
        self.profile.process(ProcessInfo {
            pid: Pid::new(pid),
            parent,
            command_line: command_line.to_owned(),
            python_version: Some("3.11.7".to_owned()),
            executable: "/usr/bin/python3".to_owned(),
            ..ProcessInfo::default()
        })
    }

    pub fn thread(&mut self, process: ProcessId, tid: u32, name: Option<&str>) -> ThreadId {
        let pid = self.profile.process_of(process).pid;
        self.profile.thread(ThreadInfo {
            key: ThreadKey { pid, tid: Tid::new(tid) },
            process,
            pthread_id: Some(0x7f00_0000_0000 + u64::from(tid)),
            name: name.map(Into::into),
            is_main: pid.as_u32() == tid,
        })
    }

    /// So many samples of one stack, each 10 ms of wall time of which `cpu_ms` were spent on the CPU.
    pub fn sample(&mut self, times: usize, thread: ThreadId, root_first: &[Frame], cpu_ms: u64) {
        let frames: Vec<_> = root_first.iter().map(|frame| self.profile.frame(frame)).collect();
        let stack = self.profile.stack(frames);
        let is_running = cpu_ms > 0;
        for _ in 0..times {
            self.now += 10_000_000;
            self.profile.record(Sample {
                at: Timestamp::from_nanos(self.now),
                thread,
                stack,
                state: match is_running {
                    true => ThreadState::Running,
                    false => ThreadState::Waiting(WaitReason::Lock),
                },
                holds_gil: is_running,
                cpu: Nanos::from_nanos(cpu_ms * 1_000_000),
                wall: Nanos::from_nanos(10_000_000),
            });
        }
    }
}

/// The profile.
pub fn scene() -> Profile {
    let mut scene = Scene::new();
    let app = scene.process(12, None, "python3 app.py --name \"a;b\"\nline two");
    let child = scene.process(14, Some(app), "python3 -c child");
    let main = scene.thread(app, 12, Some("MainThread"));
    let worker = scene.thread(app, 13, Some("wor;ker\u{1b}[2J 2"));
    let nameless = scene.thread(app, 15, None);
    let child_main = scene.thread(child, 14, Some("MainThread"));

    let module = frame("<module>", "app.py", 1, 40);
    let early = frame("Job.run", "job.py", 10, 12);
    let late = frame("Job.run", "job.py", 10, 15);
    let library = Frame { function: "dgemm".into(), module: Some("libblas.so.3".into()), ..Frame::default() };
    let library = Frame { kind: FrameKind::Native, ..library };
    let collector = Frame { kind: FrameKind::Marker, function: "<gc>".into(), ..Frame::default() };
    let wait = frame("Event.wait", "lib/threading.py", 604, 629);

    scene.sample(3, main, std::slice::from_ref(&module), 10);
    scene.sample(20, main, &[module.clone(), early.clone()], 10);
    scene.sample(5, main, &[module.clone(), early, library], 8);
    scene.sample(10, main, &[module.clone(), late.clone(), late.clone(), collector], 10);
    // The same line by another expression: one frame to whoever is shown lines.
    let mut column = late.clone();
    column.position.column = Some(8);
    scene.sample(2, main, &[module.clone(), column], 10);
    scene.sample(40, worker, &[frame("<module>", "näme <&>.py", 1, 2), wait], 0);
    scene.sample(1, nameless, &[], 1);
    scene.sample(6, child_main, &[module, late], 9);

    let mut profile = scene.profile;
    let at = Timestamp::from_nanos(2_500_000_000);
    for event in [
        Event::metric(at, MetricValue::Sampled(Timestamp::from_nanos(1_000_000_000))),
        Event::metric(at, MetricValue::Interval(Nanos::from_nanos(10_000_000))),
        Event::Skip(Skip::of(Scope::Session, at, 1)),
        Event::loss(LossReason::Late, at, 2),
        Event::loss(LossReason::ThreadEnded, at, 1),
    ] {
        profile.add(&event);
    }
    profile
}

/// What a format writes of a profile.
pub fn written(format: &dyn Format, profile: &Profile, options: &ViewOptions) -> String {
    let mut text = Vec::new();
    format.write(profile, options, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// The weight of each stack of a collapsed text, the ledger's line aside.
pub fn weights(collapsed: &str) -> HashMap<&str, u64> {
    let lines = collapsed.lines().map(|line| line.rsplit_once(' ').expect("a stack and a weight"));
    let weights: HashMap<&str, u64> = lines
        .clone()
        .filter(|(stack, _)| !stack.starts_with("<ledger: "))
        .map(|(stack, weight)| (stack, weight.parse().expect("a number")))
        .collect();
    assert_eq!(weights.len() + 1, lines.count(), "every stack has one line");
    weights
}
