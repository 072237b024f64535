//! The profile against a plain model of it: everything that was recorded is found again, once.
#![allow(clippy::unwrap_used, reason = "a test that panics has said what it has to say")]

use std::collections::{BTreeMap, BTreeSet};

use profiler_model::{
    Frame, FrameKind, LossReason, Nanos, Pid, Position, ThreadKey, ThreadState, Tid, Timestamp, WaitReason,
};
use profiler_profile::{
    Basis, Dictionary, Event, FrameId, Loss, ProcessInfo, Profile, Sample, SampleCause, SampleEvent, Scope,
    Sink, ThreadId, ThreadInfo, ThreadRole, Weights,
};
use proptest::prelude::*;

fn frame(function: &str, line: u32) -> Frame {
    let position = Position { line: Some(line), ..Position::default() };
    Frame { function: function.into(), file: "a.py".into(), position, ..Frame::default() }
}

fn thread(dictionary: &mut Dictionary, tid: u32) -> ThreadId {
    let pid = Pid::new(1);
    let process = dictionary.process(ProcessInfo { pid, ..ProcessInfo::default() });
    let key = ThreadKey { pid, tid: Tid::new(tid) };
    dictionary.thread(ThreadInfo { key, process, pthread_id: None, name: None, is_main: tid == 1 })
}

/// A sample as a test says it.
#[derive(Clone, Debug)]
struct Seen {
    thread: u32,
    /// (function, line), outermost first.
    stack: Vec<(u8, u8)>,
    is_running: bool,
    cpu: u32,
    wall: u32,
}

fn record(profile: &mut Profile, at: u64, seen: &Seen) {
    let sample = sample(profile, at, seen);
    profile.record(sample);
}

fn sample(profile: &mut Profile, at: u64, seen: &Seen) -> Sample {
    sample_of(profile.dictionary_mut(), at, seen)
}

fn sample_of(dictionary: &mut Dictionary, at: u64, seen: &Seen) -> Sample {
    let thread = thread(dictionary, seen.thread);
    let frames: Vec<FrameId> = seen
        .stack
        .iter()
        .map(|(function, line)| dictionary.frame(&frame(&format!("f{function}"), u32::from(*line))))
        .collect();
    let stack = dictionary.stack(frames);
    Sample {
        at: Timestamp::from_nanos(at),
        thread,
        stack,
        state: match seen.is_running {
            true => ThreadState::Running,
            false => ThreadState::Waiting(WaitReason::Lock),
        },
        holds_gil: seen.is_running,
        cpu: Nanos::from_nanos(u64::from(seen.cpu)),
        wall: Nanos::from_nanos(u64::from(seen.wall)),
    }
}

fn recorded(all: &[Seen], with_timeline: bool) -> Profile {
    let mut profile = if with_timeline { Profile::with_timeline() } else { Profile::new() };
    for (at, seen) in all.iter().enumerate() {
        record(&mut profile, at as u64, seen);
    }
    profile
}

type Key = (u32, Vec<(String, u32)>, bool);
type Sums = BTreeMap<Key, (u64, u64, u64)>;

fn add(sums: &mut Sums, key: Key, samples: u64, cpu: u64, wall: u64) {
    let sum = sums.entry(key).or_default();
    *sum = (sum.0 + samples, sum.1 + cpu, sum.2 + wall);
}

/// The sums, from what was seen.
fn expected(all: &[Seen]) -> Sums {
    let mut sums = Sums::new();
    for seen in all {
        let stack = seen.stack.iter().map(|(f, line)| (format!("f{f}"), u32::from(*line))).collect();
        add(&mut sums, (seen.thread, stack, seen.is_running), 1, seen.cpu.into(), seen.wall.into());
    }
    sums
}

fn stack_of(profile: &Profile, stack: Option<profiler_profile::StackId>) -> Vec<(String, u32)> {
    let frames = profile.root_first(stack).into_iter().map(|frame| profile.frame_of(frame));
    frames.map(|frame| (frame.function.to_string(), frame.position.line.unwrap())).collect()
}

/// The sums, from the tallies.
fn tallied(profile: &Profile) -> Sums {
    let mut sums = Sums::new();
    for tally in profile.tallies() {
        let tid = profile.thread_of(tally.thread).key.tid.as_u32();
        let key = (tid, stack_of(profile, tally.stack), tally.state.is_running());
        assert!(!sums.contains_key(&key), "two tallies of one key");
        let weights = tally.weights;
        add(&mut sums, key, weights.samples, weights.cpu.as_nanos(), weights.wall.as_nanos());
    }
    sums
}

/// The sums, from the timeline.
fn timed(profile: &Profile) -> Sums {
    let mut sums = Sums::new();
    for (thread, info) in profile.threads() {
        for run in profile.timeline(thread).unwrap() {
            assert_eq!(run.thread, thread);
            let key = (info.key.tid.as_u32(), stack_of(profile, run.stack), run.state.is_running());
            let weights = run.weights;
            add(&mut sums, key, weights.samples, weights.cpu.as_nanos(), weights.wall.as_nanos());
        }
    }
    sums
}

fn seen() -> impl Strategy<Value = Seen> {
    let stack = prop::collection::vec((0..4_u8, 0..3_u8), 0..6);
    (1..4_u32, stack, any::<bool>(), any::<u32>(), any::<u32>())
        .prop_map(|(thread, stack, is_running, cpu, wall)| Seen { thread, stack, is_running, cpu, wall })
}

fn all_seen() -> impl Strategy<Value = Vec<Seen>> {
    prop::collection::vec(seen(), 0..60)
}

proptest! {
    #[test]
    fn everything_recorded_is_found_again(all in all_seen()) {
        let profile = recorded(&all, true);
        prop_assert_eq!(tallied(&profile), expected(&all));
        prop_assert_eq!(timed(&profile), expected(&all));
        prop_assert_eq!(profile.ledger().shown(), all.len() as u64);
    }

    #[test]
    fn a_timeline_changes_no_sum(all in all_seen()) {
        let (without, with) = (recorded(&all, false), recorded(&all, true));
        prop_assert_eq!(without.tallies(), with.tallies());
    }

    #[test]
    fn a_timeline_is_in_order_and_repeats_nothing(all in all_seen()) {
        let profile = recorded(&all, true);
        for (thread, _) in profile.threads() {
            let runs: Vec<_> = profile.timeline(thread).unwrap().collect();
            for pair in runs.windows(2) {
                prop_assert!(pair[0].last < pair[1].first);
                let key = |run: &profiler_profile::Run| (run.stack, run.state, run.holds_gil);
                let gap = pair[1].start() > pair[0].last;
                prop_assert!(gap || key(&pair[0]) != key(&pair[1]));
            }
        }
    }

    #[test]
    fn frames_and_stacks_are_kept_once(all in all_seen()) {
        let profile = recorded(&all, false);
        let frames: Vec<&Frame> = profile.frames().map(|(_, frame)| frame).collect();
        for (index, frame) in frames.iter().enumerate() {
            prop_assert!(!frames[..index].contains(frame));
        }
        let stacks: BTreeSet<_> = profile.stacks().map(|(_, parent, frame)| (parent, frame)).collect();
        prop_assert_eq!(stacks.len(), profile.stacks().len());
        for (stack, parent, _) in profile.stacks() {
            prop_assert!(parent.is_none_or(|parent| parent < stack));
        }
    }

    #[test]
    fn merging_is_recording_both(first in all_seen(), second in all_seen()) {
        // The second profile met the frames in another order, so that its handles differ.
        let mut merged = recorded(&first, true);
        merged.merge(&recorded(&second, true));
        let both: Vec<Seen> = first.into_iter().chain(second).collect();
        prop_assert_eq!(tallied(&merged), expected(&both));
        prop_assert_eq!(timed(&merged), expected(&both));
        prop_assert_eq!(merged.ledger().shown(), both.len() as u64);
        for (thread, _) in merged.threads() {
            let starts: Vec<_> = merged.timeline(thread).unwrap().map(|run| run.first).collect();
            prop_assert!(starts.is_sorted());
        }
    }

    #[test]
    fn hot_functions_count_each_sample_once(all in all_seen()) {
        let profile = recorded(&all, false);
        for hot in profile.functions() {
            let name = &*hot.place.name;
            let is_it = |(function, _): &(u8, u8)| format!("f{function}") == name;
            let on_stack = all.iter().filter(|seen| seen.stack.iter().any(is_it));
            let own = all.iter().filter(|seen| seen.stack.last().is_some_and(is_it));
            prop_assert_eq!(hot.total, weights(on_stack));
            prop_assert_eq!(hot.own, weights(own));
        }
        for hot in profile.lines() {
            let (name, line) = (&*hot.place.function.name, hot.place.line);
            let is_it = |(f, l): &(u8, u8)| format!("f{f}") == name && Some(u32::from(*l)) == line;
            prop_assert_eq!(hot.total, weights(all.iter().filter(|seen| seen.stack.iter().any(is_it))));
            prop_assert_eq!(hot.own, weights(all.iter().filter(|seen| seen.stack.last().is_some_and(is_it))));
        }
    }
}

fn weights<'a>(all: impl Iterator<Item = &'a Seen>) -> Weights {
    let mut sum = Weights::default();
    for seen in all {
        let (cpu, wall) = (Nanos::from_nanos(seen.cpu.into()), Nanos::from_nanos(seen.wall.into()));
        sum += Weights { samples: 1, cpu, wall };
    }
    sum
}

#[test]
fn frames_that_differ_in_anything_are_two() {
    let mut profile = Profile::new();
    let plain = frame("f", 3);
    let variants = [
        plain.clone(),
        Frame { kind: FrameKind::Native, ..plain.clone() },
        Frame { is_entry: true, ..plain.clone() },
        Frame { first_line: Some(1), ..plain.clone() },
        Frame { position: Position { column: Some(0), ..plain.position }, ..plain.clone() },
    ];
    let ids: BTreeSet<FrameId> = variants.iter().map(|frame| profile.frame(frame)).collect();
    assert_eq!(ids.len(), variants.len());
    for (variant, id) in variants.iter().zip(&ids) {
        assert_eq!(profile.frame(variant), *id);
        assert_eq!(profile.frame_of(*id), variant);
    }
}

#[test]
fn a_run_is_a_stretch_of_time_without_a_gap() {
    let seen = Seen { thread: 1, stack: vec![(0, 1)], is_running: true, cpu: 1, wall: 10 };
    let mut profile = Profile::with_timeline();
    // Nobody looked from 120 to 150; the sample at 175 stands for a longer time, as after a loss.
    for (at, wall) in [(110, 10), (120, 10), (160, 10), (175, 15)] {
        record(&mut profile, at, &Seen { wall, ..seen.clone() });
    }
    let (thread, _) = profile.threads().next().unwrap();
    let stretches: Vec<_> =
        profile.timeline(thread).unwrap().map(|run| (run.start().as_nanos(), run.last.as_nanos())).collect();
    assert_eq!(stretches, [(100, 120), (150, 175)]);
}

#[test]
fn sum_of_times_is_a_run_of_its_own() {
    let seen = Seen { thread: 1, stack: vec![(0, 1)], is_running: true, cpu: 1, wall: 10 };
    let mut profile = Profile::with_timeline();
    record(&mut profile, 110, &seen);
    let mut sample = sample(&mut profile, 110, &seen);
    sample.at = Timestamp::from_nanos(200);
    let event = SampleEvent::new(sample, SampleCause::OffCpu);
    profile.add(&Event::Sample(SampleEvent { since: Some(Timestamp::from_nanos(115)), ..event }));
    sample.at = Timestamp::from_nanos(210);
    let role = Some(ThreadRole { state: sample.state, holds_gil: false });
    let loss = Loss::of(LossReason::Moved, Scope::Thread(sample.thread), sample.at, 1);
    profile.add(&Event::Loss(Loss { wall: sample.wall, cause: SampleCause::OffCpu, role, ..loss }));
    let (thread, _) = profile.threads().next().unwrap();
    let runs: Vec<_> = profile.timeline(thread).unwrap().collect();
    let times = runs.iter().map(|run| (run.is_sum, run.start().as_nanos(), run.last.as_nanos()));
    assert_eq!(times.collect::<Vec<_>>(), [(false, 100, 110), (true, 115, 200), (false, 200, 210)]);
    let wall: u64 = profile.tallies().iter().map(|tally| tally.weights.wall.as_nanos()).sum();
    assert_eq!(wall, 30);
    let ledger = profile.ledger();
    assert_eq!((ledger.shown(), ledger.lost_for(LossReason::Moved), ledger.attempts()), (2, 1, 3));
}

#[test]
fn a_thread_is_one_whatever_it_is_called() {
    let mut profile = Profile::new();
    let id = thread(profile.dictionary_mut(), 7);
    profile.name_thread(id, "first");
    assert_eq!(thread(profile.dictionary_mut(), 7), id);
    assert_eq!(profile.thread_of(id).name.as_deref(), Some("first"), "no name does not erase one");
    let named = ThreadInfo { name: Some("second".into()), ..profile.thread_of(id).clone() };
    assert_eq!(profile.thread(named), id);
    assert_eq!(profile.thread_of(id).name.as_deref(), Some("second"));
    assert_ne!(thread(profile.dictionary_mut(), 8), id);
}

#[test]
fn a_process_that_replaced_itself_is_another() {
    let mut profile = Profile::new();
    let mut info =
        ProcessInfo { pid: Pid::new(5), command_line: "sh -c python3".into(), ..Default::default() };
    let shell = profile.process(info.clone());
    info.command_line = "python3".into();
    let python = profile.process(info.clone());
    assert_ne!(shell, python);
    assert_eq!(profile.process(info), python);
}

#[test]
fn merged_processes_keep_who_started_them() {
    let mut other = Profile::new();
    let parent = other.process(ProcessInfo { pid: Pid::new(5), ..Default::default() });
    other.process(ProcessInfo { pid: Pid::new(6), parent: Some(parent), ..Default::default() });
    let mut profile = Profile::new();
    profile.process(ProcessInfo { pid: Pid::new(4), ..Default::default() });
    profile.merge(&other);
    let pids: Vec<_> = profile
        .processes()
        .map(|(_, process)| {
            (process.pid.as_u32(), process.parent.map(|parent| profile.process_of(parent).pid))
        })
        .collect();
    assert_eq!(pids, [(4, None), (5, None), (6, Some(Pid::new(5)))]);
}

#[test]
fn the_ledger_is_merged_with_the_samples() {
    let seen = Seen { thread: 1, stack: vec![(0, 1)], is_running: true, cpu: 1, wall: 1 };
    let mut profile = recorded(std::slice::from_ref(&seen), false);
    let mut other = recorded(&[seen], false);
    other.add(&Event::loss(LossReason::Moved, Timestamp::default(), 1));
    profile.merge(&other);
    assert_eq!((profile.ledger().attempts(), profile.ledger().shown(), profile.ledger().lost()), (3, 2, 1));
}

/// `record` must fit into 30 MB after a minute at 1 kHz of a program with thousands of functions; this is the
/// part of it that grows.
#[test]
fn what_grows_stays_small() {
    assert_eq!(size_of::<Option<profiler_profile::StackId>>(), 4);
    assert!(size_of::<profiler_profile::Tally>() <= 40, "{}", size_of::<profiler_profile::Tally>());
    assert!(size_of::<Frame>() <= 160, "{}", size_of::<Frame>());
}

/// Hands what was seen to sinks through dictionaries: another sink after every `window` samples, another dictionary after
/// every `epoch`.
fn windows(all: &[Seen], window: usize, epoch: usize) -> Vec<Profile> {
    let (mut dictionary, mut sinks) = (Dictionary::default(), vec![Profile::with_timeline()]);
    for (at, seen) in all.iter().enumerate() {
        let last = sinks.len() - 1;
        if at > 0 && at % epoch == 0 {
            sinks[last].epoch_ended(&dictionary);
            dictionary = dictionary.successor();
        }
        if at > 0 && at % window == 0 {
            sinks.push(Profile::with_timeline());
        }
        // The ids of one epoch are not those of another.
        dictionary.frame(&frame("something else", at as u32));
        let sample = sample_of(&mut dictionary, at as u64, seen);
        let event = Event::Sample(SampleEvent::new(sample, SampleCause::Instant));
        sinks.last_mut().unwrap().take(&dictionary, &[event, Event::loss(LossReason::Late, sample.at, 2)]);
    }
    sinks
}

proptest! {
    #[test]
    fn swapping_sinks_and_dictionaries_changes_no_sum(
        all in all_seen(), window in 1..20_usize, epoch in 1..20_usize,
    ) {
        let mut merged = Profile::with_timeline();
        windows(&all, window, epoch).iter().for_each(|profile| merged.merge(profile));
        prop_assert_eq!(tallied(&merged), expected(&all));
        prop_assert_eq!(timed(&merged), expected(&all));
        prop_assert_eq!(merged.ledger().shown(), all.len() as u64);
        prop_assert_eq!(merged.ledger().lost_for(LossReason::Late), 2 * all.len() as u64);
    }
}

#[test]
fn names_that_come_later_reach_the_sink() {
    let (mut dictionary, mut profile) = (Dictionary::default(), Profile::new());
    let seen = Seen { thread: 7, stack: vec![(0, 1)], is_running: true, cpu: 1, wall: 1 };
    let sample = sample_of(&mut dictionary, 0, &seen);
    let event = [Event::Sample(SampleEvent::new(sample, SampleCause::Instant))];
    profile.take(&dictionary, &event);
    dictionary.name_thread(sample.thread, "worker");
    let version = Some("3.13.0".to_owned());
    dictionary.process(ProcessInfo { pid: Pid::new(1), python_version: version, ..ProcessInfo::default() });
    profile.take(&dictionary, &event);
    let (thread, info) = profile.threads().next().unwrap();
    assert_eq!(info.name.as_deref(), Some("worker"));
    assert_eq!(profile.process_of(info.process).python_version.as_deref(), Some("3.13.0"));
    assert_eq!((profile.threads().len(), profile.tallies()[0].thread), (1, thread));
}

#[test]
fn lost_intervals_keep_their_time_and_their_reason() {
    let mut profile = Profile::new();
    let thread = thread(profile.dictionary_mut(), 1);
    let (at, wall) = (Timestamp::from_nanos(9), Nanos::from_nanos(5));
    let state = ThreadState::Waiting(WaitReason::Lock);
    let role = Some(ThreadRole { state, holds_gil: false });
    let loss = Loss::of(LossReason::BufferFull, Scope::Thread(thread), at, 0);
    let loss = Loss { wall, cause: SampleCause::OffCpu, role, ..loss };
    profile.add(&Event::Loss(loss));
    let tally = profile.tallies()[0];
    assert_eq!((tally.weights.wall, tally.state), (wall, state));
    assert_eq!((tally.stack, tally.basis), (None, Basis::LostOffCpu(LossReason::BufferFull)));
    assert_eq!((profile.frames().len(), profile.stacks().len()), (0, 0));
    assert_eq!(profile.ledger().attempts(), 0, "the attempt is counted where it was lost");
}

#[test]
fn a_selection_has_the_wanted_samples_under_the_same_handles_and_accounts_for_the_rest() {
    let seen = |thread, is_running| Seen { thread, stack: vec![(0, 1)], is_running, cpu: 1, wall: 10 };
    let all = [seen(1, true), seen(2, false), seen(1, true), seen(2, true)];
    let profile = recorded(&all, true);
    let running = profile.select(|tally| tally.state.is_running());
    assert_eq!(running.tallies().iter().map(|tally| tally.weights.samples).collect::<Vec<_>>(), [2, 1]);
    assert_eq!((running.ledger().shown(), running.ledger().not_asked_for()), (3, 1));
    assert_eq!(running.ledger().attempts(), profile.ledger().attempts());
    assert_eq!(running.threads().len(), 2);
    let second = profile.threads().nth(1).unwrap().0;
    let runs: Vec<_> = running.timeline(second).unwrap().collect();
    assert_eq!(runs.len(), 1);
    assert!(runs[0].state.is_running() && runs[0].weights.samples == 1);
    assert_eq!((profile.timeline_len(), running.timeline_len()), (3, 2));
}

#[test]
fn what_a_function_does_in_the_kernel_is_its_own_doing() {
    let costs = |with_kernel: bool| {
        let mut profile = Profile::new();
        let thread = thread(profile.dictionary_mut(), 1);
        let read = Frame { kind: FrameKind::Kernel, function: "vfs_read".into(), ..Frame::default() };
        let frames = [frame("main", 1), frame("load", 2)].into_iter().chain(with_kernel.then_some(read));
        let ids: Vec<FrameId> = frames.map(|frame| profile.frame(&frame)).collect();
        let stack = profile.stack(ids);
        let (state, cpu) = (ThreadState::Running, Nanos::from_nanos(7));
        profile.record(Sample {
            at: Timestamp::from_nanos(9),
            thread,
            stack,
            state,
            holds_gil: true,
            cpu,
            wall: cpu,
        });
        let functions = profile.functions().into_iter();
        let costly = functions.filter(|function| function.total != Weights::default());
        costly.map(|hot| (hot.place.name.to_string(), hot.own, hot.total)).collect::<Vec<_>>()
    };
    assert_eq!(costs(true), costs(false));
    assert_eq!(costs(true).len(), 2);
}

#[test]
fn waits_for_different_reasons_stay_apart() {
    let mut profile = Profile::with_timeline();
    let seen = Seen { thread: 1, stack: vec![(0, 1)], is_running: true, cpu: 0, wall: 10 };
    let running = sample(&mut profile, 10, &seen);
    let tables = (profile.frames().len(), profile.stacks().len());
    let reasons = [WaitReason::Lock, WaitReason::Sleep, WaitReason::Lock];
    for reason in reasons {
        let wait = Sample { state: ThreadState::Waiting(reason), ..running };
        for cause in [SampleCause::OffCpu, SampleCause::ShortOffCpu] {
            profile.add(&Event::Sample(SampleEvent::new(wait, cause)));
        }
    }
    let sums =
        profile.tallies().iter().map(|tally| (tally.basis, tally.state, tally.stack, tally.weights.samples));
    let [lock, sleep] = [WaitReason::Lock, WaitReason::Sleep].map(ThreadState::Waiting);
    let expected = [
        (Basis::OffCpu, lock, running.stack, 2),
        (Basis::ShortOffCpu, lock, None, 2),
        (Basis::OffCpu, sleep, running.stack, 1),
        (Basis::ShortOffCpu, sleep, None, 1),
    ];
    assert_eq!(sums.collect::<Vec<_>>(), expected);
    assert_eq!((profile.frames().len(), profile.stacks().len()), tables, "no row for a state");
}
