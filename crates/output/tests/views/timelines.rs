//! What the formats say of time: that every sample lies where it was, and gaps are gaps.

use std::collections::{BTreeMap, BTreeSet};

use profiler_model::{LossReason, Nanos, ThreadState, Timestamp, WaitReason};
use profiler_output::{ChromeTrace, Collapsed, Format, Lines, OutputError, Speedscope, ViewOptions, Weight};
use profiler_profile::{
    Event, Loss, MetricValue, Profile, Sample, SampleCause, SampleEvent, Scope, ThreadId, ThreadRole,
};
use serde_json::Value;

use crate::profiles::{Scene, frame, scene, written};
use crate::schema;

const MILLISECOND: u64 = 1_000_000;
/// When the recordings below begin.
const BEGINNING: u64 = 1_000 * MILLISECOND;

/// One sample: when in milliseconds, for how long, how much of it on the CPU, and the stack's functions.
type Seen<'a> = (u64, u64, u64, &'a [&'a str]);

fn record(scene: &mut Scene, thread: ThreadId, samples: &[Seen<'_>]) {
    for (at, wall, cpu, functions) in samples {
        let frames: Vec<_> =
            functions.iter().map(|name| scene.profile.frame(&frame(name, "a.py", 1, 2))).collect();
        let stack = scene.profile.stack(frames);
        scene.profile.record(Sample {
            at: Timestamp::from_nanos(BEGINNING + at * MILLISECOND),
            thread,
            stack,
            state: ThreadState::Running,
            holds_gil: true,
            cpu: Nanos::from_nanos(cpu * MILLISECOND),
            wall: Nanos::from_nanos(wall * MILLISECOND),
        });
    }
}

/// A recording of 100 ms at 100 Hz, in which one thread was seen so.
fn recording(samples: &[Seen<'_>]) -> Profile {
    let mut scene = Scene::new();
    let process = scene.process(7, None, "python3 a.py");
    let thread = scene.thread(process, 7, Some("MainThread"));
    record(&mut scene, thread, samples);
    let mut profile = scene.profile;
    let (start, end) = (Timestamp::from_nanos(BEGINNING), BEGINNING + 100 * MILLISECOND);
    let gap = Nanos::from_nanos(10 * MILLISECOND);
    for value in [MetricValue::Sampled(start), MetricValue::Interval(gap)] {
        profile.add(&Event::metric(Timestamp::from_nanos(end), value));
    }
    profile
}

/// The thread calls `f`, sleeps from 30 to 60, and goes on in `f`, then in `g`.
const SLEEPER: [Seen<'_>; 5] = [
    (20, 10, 10, &["main", "f"]),
    (30, 10, 10, &["main", "f"]),
    (70, 10, 10, &["main", "f"]),
    (80, 10, 10, &["main", "g"]),
    (90, 10, 10, &["main", "g"]),
];

fn options(weight: Weight) -> ViewOptions {
    ViewOptions { weight, ..ViewOptions::default() }
}

/// (weight in milliseconds, innermost function; nothing in a gap) of the only profile of a speedscope file.
fn pieces(profile: &Profile, weight: Weight) -> Vec<(u64, String)> {
    let file: Value = serde_json::from_str(&written(&Speedscope, profile, &options(weight))).unwrap();
    schema::check(&file);
    let thread = &file["profiles"][0];
    let samples = thread["samples"].as_array().unwrap().iter();
    let weights = thread["weights"].as_array().unwrap().iter();
    samples
        .zip(weights)
        .map(|(sample, weight)| {
            let name = |index: &Value| {
                let frame = &file["shared"]["frames"][index.as_u64().unwrap() as usize];
                frame["name"].as_str().unwrap().to_owned()
            };
            // What is waited for stands on top.
            let leaf =
                sample.as_array().unwrap().iter().map(name).rfind(|name| !name.starts_with("<waiting"));
            ((weight.as_f64().unwrap() * 1e3).round() as u64, leaf.unwrap_or_default())
        })
        .collect()
}

fn expected(pieces: &[(u64, &str)]) -> Vec<(u64, String)> {
    pieces.iter().map(|(weight, name)| (*weight, (*name).to_owned())).collect()
}

#[test]
fn speedscope_shows_samples_where_they_were_and_leaves_gaps() {
    let all =
        expected(&[(10, ""), (10, "f"), (10, "f"), (30, ""), (10, "f"), (10, "g"), (10, "g"), (10, "")]);
    assert_eq!(pieces(&recording(&SLEEPER), Weight::Wall), all);
    // In CPU time, what is not longer than the time between two samples is no gap.
    let cpu = expected(&[(10, "f"), (10, "f"), (40, ""), (10, "f"), (10, "g"), (10, "g")]);
    assert_eq!(pieces(&recording(&SLEEPER), Weight::Cpu), cpu);
    let counts = pieces(&recording(&SLEEPER), Weight::Samples);
    assert!(counts.iter().all(|(_, leaf)| !leaf.is_empty()), "{counts:?}");
}

/// Adds a wait of `wall` milliseconds in `function`, in one piece up to the millisecond `at` or, with `since`, anywhere between
/// the two.
fn record_wait(profile: &mut Profile, function: &str, at: u64, wall: u64, since: Option<u64>) {
    let (thread, _) = profile.threads().next().unwrap();
    let frame = profile.frame(&frame(function, "a.py", 1, 2));
    let instant = |millis: u64| Timestamp::from_nanos(BEGINNING + millis * MILLISECOND);
    let sample = Sample {
        at: instant(at),
        thread,
        stack: profile.stack([frame]),
        state: ThreadState::Waiting(WaitReason::Sleep),
        holds_gil: false,
        cpu: Nanos::ZERO,
        wall: Nanos::from_nanos(wall * MILLISECOND),
    };
    let event = SampleEvent::new(sample, SampleCause::OffCpu);
    profile.add(&Event::Sample(SampleEvent { since: since.map(instant), ..event }));
}

#[test]
fn sums_of_waits_leave_known_waits_whole() {
    let mut profile = recording(&[]);
    // The sums are read while the second nap lasts, and so recorded before either nap.
    record_wait(&mut profile, "few", 70, 3, Some(0));
    record_wait(&mut profile, "many", 70, 15, Some(5));
    record_wait(&mut profile, "nap", 60, 40, None);
    record_wait(&mut profile, "nap", 100, 38, None);
    let all = [(3, "few"), (2, ""), (15, "many"), (40, "nap"), (2, ""), (38, "nap")];
    assert_eq!(pieces(&profile, Weight::Wall), expected(&all));
    let naps: Vec<_> = trace(&profile, Weight::Wall).slices.into_iter().filter(|s| s.name == "nap").collect();
    assert_eq!(naps.iter().map(|nap| nap.end - nap.start).collect::<Vec<_>>(), [40_000, 38_000], "{naps:?}");
}

#[test]
fn sum_is_split_over_free_times() {
    let mut profile = recording(&[]);
    record_wait(&mut profile, "many", 70, 15, Some(10));
    record_wait(&mut profile, "nap", 60, 40, None);
    record_wait(&mut profile, "nap", 100, 38, None);
    // More than there is room for is not shown: the clocks are not read at the same moment.
    let all = [(10, ""), (10, "many"), (40, "nap"), (2, "many"), (38, "nap")];
    assert_eq!(pieces(&profile, Weight::Wall), expected(&all));
    assert_eq!(profile.ledger().shown(), 3);
}

#[test]
fn running_sample_keeps_its_time_and_in_a_trace_reaches_back_to_the_wait_before_it() {
    // It stands for all that ran since the sample at 60. Which function ran before the wait is not known.
    let mut profile = recording(&[(60, 60, 60, &["f"]), (100, 20, 20, &["g"])]);
    record_wait(&mut profile, "nap", 95, 20, None);
    assert_eq!(pieces(&profile, Weight::Wall), expected(&[(60, "f"), (20, "nap"), (20, "g")]));
    let slices = trace(&profile, Weight::Wall).slices.into_iter();
    let lengths: Vec<_> = slices.map(|slice| (slice.end - slice.start, slice.name)).collect();
    let slice = |millis: u64, name: &str| (millis * 1_000, name.to_owned());
    let wait = "<waiting: sleep>";
    assert_eq!(lengths, [slice(60, "f"), slice(20, "nap"), slice(20, wait), slice(5, "g")]);
}

#[test]
fn half_a_cpu_is_spread_over_the_time_it_took() {
    let half: Vec<Seen<'_>> = (1..=10).map(|at| (at * 10, 10, 5, &["f"][..])).collect();
    let pieces = pieces(&recording(&half), Weight::Cpu);
    let busy: Vec<u64> = pieces.iter().filter(|(_, leaf)| leaf == "f").map(|(weight, _)| *weight).collect();
    assert_eq!((busy.len(), busy.iter().sum::<u64>()), (10, 50), "{pieces:?}");
    assert!(pieces.iter().all(|(weight, _)| *weight <= 20), "{pieces:?}");
}

#[test]
fn a_stack_without_frames_is_no_gap() {
    let profile = recording(&[(10, 10, 10, &[]), (20, 10, 10, &["f"])]);
    assert_eq!(pieces(&profile, Weight::Wall)[0], (10, "<no frames>".to_owned()));
    let names: BTreeSet<_> =
        trace(&profile, Weight::Wall).slices.into_iter().map(|slice| slice.name).collect();
    assert_eq!(names, BTreeSet::from(["<no frames>".to_owned(), "f".to_owned()]));
}

/// A slice of a trace, in microseconds.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Slice {
    start: u64,
    end: u64,
    depth: usize,
    name: String,
    place: String,
}

#[derive(Default)]
struct Trace {
    slices: Vec<Slice>,
    metadata: Vec<Value>,
}

/// Reads a trace as viewers do, by the rules of the format: every event has its fields, and the begins and
/// ends of each thread nest and never go back in time.
fn trace(profile: &Profile, weight: Weight) -> Trace {
    read_trace(&written(&ChromeTrace, profile, &options(weight)))
}

fn read_trace(text: &str) -> Trace {
    let events: Vec<Value> = serde_json::from_str(text).unwrap();
    let mut trace = Trace::default();
    let mut threads: BTreeMap<(u64, u64), (u64, Vec<Slice>)> = BTreeMap::new();
    for event in events {
        let number = |field: &str| event[field].as_u64().unwrap_or_else(|| panic!("{field} of {event}"));
        let thread = threads.entry((number("pid"), number("tid"))).or_default();
        let name = event["name"].as_str().unwrap().to_owned();
        if event["ph"] == "M" {
            assert!(event["args"].is_object(), "{event}");
            trace.metadata.push(event);
            continue;
        }
        assert!(event["cat"].is_string(), "{event}");
        let (now, open) = (number("ts"), &mut thread.1);
        assert!(now >= thread.0, "{event} goes back before {}", thread.0);
        thread.0 = now;
        match event["ph"].as_str().unwrap() {
            "B" => {
                let place = format!(
                    "{}:{}",
                    event["args"]["filename"].as_str().unwrap(),
                    event["args"]["line"].as_u64().unwrap()
                );
                open.push(Slice { start: now, end: 0, depth: open.len(), name, place });
            }
            "E" => {
                let slice = open.pop().unwrap_or_else(|| panic!("{event} ends nothing"));
                assert_eq!(slice.name, name, "the innermost slice ends first");
                trace.slices.push(Slice { end: now, ..slice });
            }
            other => panic!("phase {other}"),
        }
    }
    assert!(threads.values().all(|(_, open)| open.is_empty()), "every slice ends");
    trace.slices.sort();
    trace
}

#[test]
fn a_trace_has_a_slice_for_as_long_as_a_frame_stayed() {
    let slices = trace(&recording(&SLEEPER), Weight::Cpu).slices;
    let slices: Vec<_> =
        slices.iter().map(|slice| (slice.start, slice.end, slice.depth, slice.name.as_str())).collect();
    let expected = [
        (10_000, 30_000, 0, "main"),
        (10_000, 30_000, 1, "f"),
        (60_000, 70_000, 1, "f"),
        (60_000, 90_000, 0, "main"),
        (70_000, 90_000, 1, "g"),
    ];
    assert_eq!(slices, expected);
}

#[test]
fn a_trace_names_processes_and_threads_and_what_was_lost() {
    let trace = trace(&scene(), Weight::Wall);
    let named = |what: &str| -> Vec<&Value> {
        trace.metadata.iter().filter(|event| event["name"] == what).map(|event| &event["args"]).collect()
    };
    assert_eq!(named("process_name").len(), 2);
    assert_eq!(named("thread_name")[0]["name"], "MainThread");
    assert_eq!(named("ledger")[0]["lost"]["sampler late"], 2);
    assert!(named("process_labels").iter().all(|args| args["labels"].to_string().contains("lost 3")));
    let waits = trace.slices.iter().filter(|slice| slice.name == "Event.wait");
    assert_eq!(
        waits.map(|slice| (slice.end - slice.start, slice.place.as_str())).collect::<Vec<_>>(),
        [(400_000, "/app/lib/threading.py:629")]
    );
}

#[test]
fn a_trace_holds_any_name_and_nothing_that_commands_a_terminal() {
    let profile = recording(&[(10, 10, 10, &["a\n\u{1b}[2J\u{9b}2J\"", "", ";"])]);
    let text = written(&ChromeTrace, &profile, &options(Weight::Wall));
    assert!(text.chars().all(|char| char == '\n' || !char.is_control()), "{text}");
    let names: Vec<_> = read_trace(&text).slices.into_iter().map(|slice| slice.name).collect();
    assert_eq!(names, ["a\n\u{1b}[2J\u{9b}2J\"", "", ";"]);
}

#[test]
fn a_trace_shows_what_the_options_tell_apart() {
    let profile = scene();
    let options = ViewOptions { threads: true, line_numbers: Lines::None, ..ViewOptions::default() };
    let slices = read_trace(&written(&ChromeTrace, &profile, &options)).slices;
    let roots: BTreeSet<&str> =
        slices.iter().filter(|slice| slice.depth == 0).map(|slice| slice.name.as_str()).collect();
    assert!(roots.contains("thread (12): MainThread") && roots.contains("thread (15)"), "{roots:?}");
    assert!(slices.iter().all(|slice| slice.place.ends_with(":0")));
}

#[test]
fn a_trace_needs_to_know_when() {
    let refused = ChromeTrace.write(&Profile::new(), &ViewOptions::default(), &mut Vec::new());
    assert!(matches!(refused, Err(OutputError::NoTimeline)));
    assert!(ChromeTrace.needs_timeline());
    let empty = written(&ChromeTrace, &Profile::with_timeline(), &ViewOptions::default());
    assert!(read_trace(&empty).slices.is_empty());
}

/// One sample of each kind that views draw with marks, the first kind twice, in different states.
fn profile_with_marks() -> Profile {
    let mut profile = recording(&[]);
    let (thread, _) = profile.threads().next().unwrap();
    let frame = profile.frame(&frame("work", "a.py", 1, 2));
    let stack = profile.stack([frame]);
    let wall = Nanos::from_nanos(MILLISECOND);
    let [lock, sleep] = [WaitReason::Lock, WaitReason::Sleep].map(ThreadState::Waiting);
    let samples = [
        (SampleCause::OffCpu, lock, stack),
        (SampleCause::OffCpu, sleep, stack),
        (SampleCause::OffCpu, sleep, None),
        (SampleCause::ShortOffCpu, lock, None),
        (SampleCause::Unsampled, ThreadState::Running, None),
    ];
    for (millis, (cause, state, stack)) in (10..).step_by(10).zip(samples) {
        let at = Timestamp::from_nanos(BEGINNING + millis * MILLISECOND);
        let sample = Sample { at, thread, stack, state, holds_gil: false, cpu: Nanos::ZERO, wall };
        profile.add(&Event::Sample(SampleEvent::new(sample, cause)));
    }
    let at = Timestamp::from_nanos(BEGINNING + 90 * MILLISECOND);
    let role = Some(ThreadRole { state: lock, holds_gil: false });
    let loss = Loss::of(LossReason::BufferFull, Scope::Thread(thread), at, 1);
    profile.add(&Event::Loss(Loss { wall, cause: SampleCause::OffCpu, role, ..loss }));
    profile
}

/// The stacks of the first thread of a speedscope file, each as its names joined by `;`.
fn speedscope_stacks(profile: &Profile, options: &ViewOptions) -> BTreeSet<String> {
    let file: Value = serde_json::from_str(&written(&Speedscope, profile, options)).unwrap();
    let name = |frame: &Value| {
        let index = usize::try_from(frame.as_u64().unwrap()).unwrap();
        file["shared"]["frames"][index]["name"].as_str().unwrap().to_owned()
    };
    let samples = file["profiles"][0]["samples"].as_array().unwrap().iter();
    let stacks =
        samples.map(|sample| sample.as_array().unwrap().iter().map(name).collect::<Vec<_>>().join(";"));
    stacks.filter(|stack| !stack.is_empty()).collect()
}

#[test]
fn marks_stand_on_stacks_in_every_format() {
    let profile = profile_with_marks();
    let by_wall = ViewOptions { line_numbers: Lines::None, ..options(Weight::Wall) };
    let expected = [
        "<running, not sampled>",
        "<short waits>;<waiting: lock>",
        "<stack lost: buffer full>;<waiting: lock>",
        "<waiting: sleep>",
        "work (a.py);<waiting: lock>",
        "work (a.py);<waiting: sleep>",
    ];
    let collapsed = written(&Collapsed, &profile, &by_wall);
    let stacks = collapsed.lines().map(|line| line.rsplit_once(' ').unwrap().0);
    let stacks: BTreeSet<&str> = stacks.filter(|stack| !stack.starts_with("<ledger: ")).collect();
    assert_eq!(stacks, BTreeSet::from(expected));
    let expected: BTreeSet<String> = expected.iter().map(|stack| stack.replace(" (a.py)", "")).collect();
    for merge_processes in [false, true] {
        let options = ViewOptions { merge_processes, ..by_wall.clone() };
        let stacks = speedscope_stacks(&profile, &options);
        assert_eq!(stacks, expected, "{merge_processes}");
    }
    let slices = trace(&profile, Weight::Wall).slices.into_iter().map(|slice| slice.name);
    let marks: BTreeSet<String> = slices.filter(|name| name.starts_with('<')).collect();
    let drawn = [
        "<running, not sampled>",
        "<short waits>",
        "<stack lost: buffer full>",
        "<waiting: lock>",
        "<waiting: sleep>",
    ];
    assert_eq!(marks, drawn.map(str::to_owned).into());
}
