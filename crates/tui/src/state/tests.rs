//! The state without any terminal: what is fed comes out as sums, rows and ledgers.

use profiler_model::{
    Frame, FrameKind, LossReason, Nanos, Pid, Position, ThreadKey, ThreadState, Tid, Timestamp, WaitReason,
};
use profiler_profile::{
    Dictionary, Event, MetricValue, ProcessInfo, Sample, SampleCause, SampleEvent, Sink, ThreadInfo,
};

use super::*;
use crate::Feed;

/// A tenth of a second: the gap between two instants of the tests.
const TICK: u64 = 100_000_000;

/// The sampling side as the tests play it.
pub struct Source {
    dictionary: Dictionary,
    events: Vec<Event>,
    feed: Feed,
    now: u64,
    reported: u64,
}

impl Source {
    pub fn new() -> Self {
        let mut dictionary = Dictionary::default();
        dictionary.process(ProcessInfo {
            pid: Pid::new(4711),
            command_line: "python3 app.py".into(),
            python_version: Some("3.13.0".into()),
            ..ProcessInfo::default()
        });
        Source { dictionary, events: Vec::new(), feed: Feed::default(), now: 0, reported: 0 }
    }

    /// One instant: for each thread its number, its stack as `function:line` words, its state.
    pub fn instant(&mut self, threads: &[(u32, &str, ThreadState)]) -> &mut Self {
        self.now += TICK;
        for (tid, stack, state) in threads {
            let frames: Vec<_> = stack.split(' ').map(|word| self.dictionary.frame(&frame(word))).collect();
            let stack = self.dictionary.stack(frames);
            let thread = self.thread(*tid);
            let is_running = state.is_running();
            let holds_gil = is_running || *state == ThreadState::Waiting(WaitReason::Cpu);
            let sample = Sample {
                at: Timestamp::from_nanos(self.now),
                thread,
                stack,
                state: *state,
                holds_gil,
                cpu: Nanos::from_nanos(if is_running { TICK / 2 } else { TICK / 10 }),
                wall: Nanos::from_nanos(TICK),
            };
            self.events.push(Event::Sample(SampleEvent::new(sample, SampleCause::Instant)));
        }
        self
    }

    fn thread(&mut self, tid: u32) -> ThreadId {
        let (process, _) = self.dictionary.processes().next().unwrap();
        let key = ThreadKey { pid: Pid::new(4711), tid: Tid::new(tid) };
        let name = Some(format!("worker-{tid}").into());
        self.dictionary.thread(ThreadInfo { key, process, pthread_id: None, name, is_main: tid == 4711 })
    }

    /// The process has become another program; or, with another id, another process is there.
    pub fn exec(&mut self, pid: u32, command_line: &str) {
        self.dictionary.process(ProcessInfo {
            pid: Pid::new(pid),
            command_line: command_line.into(),
            python_version: Some("3.13.0".into()),
            ..ProcessInfo::default()
        });
    }

    pub fn lose(&mut self, reason: LossReason) {
        let at = Timestamp::from_nanos(self.now);
        self.events.push(Event::loss(reason, at, 1));
    }

    pub fn name_thread(&mut self, tid: u32, name: &str) {
        let thread = self.thread(tid);
        self.dictionary.name_thread(thread, name);
    }

    /// What is new, handed over so many ticks after the start.
    pub fn update(&mut self) -> Update {
        let at = Timestamp::from_nanos(self.now);
        let since = std::mem::replace(&mut self.reported, self.now);
        let used = |part: u64| Nanos::from_nanos(self.now / part - since / part);
        for value in [
            MetricValue::Sampled(Timestamp::from_nanos(0)),
            MetricValue::Interval(Nanos::from_nanos(TICK)),
            MetricValue::TargetCpu(used(2)),
            MetricValue::OwnCpu(used(100)),
        ] {
            self.events.push(Event::metric(at, value));
        }
        self.feed.take(&self.dictionary, &std::mem::take(&mut self.events));
        Update { memory: Some(30_000_000), ..self.feed.update(at) }
    }
}

fn frame(word: &str) -> Frame {
    let (function, line) = word.rsplit_once(':').unwrap();
    let position = Position { line: line.parse().ok(), ..Position::default() };
    let (file, first_line) = ("/srv/app/app.py".into(), Some(1));
    if line == "kernel" {
        return Frame { kind: FrameKind::Kernel, function: function.into(), ..Frame::default() };
    }
    Frame {
        function: function.into(),
        file,
        short_file: "app.py".into(),
        first_line,
        position,
        ..Frame::default()
    }
}

pub fn settings() -> Settings {
    Settings {
        interval: Nanos::from_nanos(10 * TICK),
        include_idle: false,
        gil_only: false,
        line_numbers: true,
        full_filenames: false,
        file: "out.svg".into(),
    }
}

const RUNS: ThreadState = ThreadState::Running;
const SLEEPS: ThreadState = ThreadState::Waiting(WaitReason::Sleep);

/// Two intervals (the first one is short): three instants of `f` under `main`, then ten of `g`.
fn two_intervals() -> (Source, State) {
    let (mut source, mut state) = (Source::new(), State::new(settings()));
    for _ in 0..3 {
        source.instant(&[(1, "main:1 f:10", RUNS), (2, "main:1 wait:20", SLEEPS)]);
    }
    state.fold(source.update());
    for _ in 0..10 {
        source.instant(&[(1, "main:1 g:30", RUNS), (2, "main:1 wait:20", SLEEPS)]);
    }
    state.fold(source.update());
    (source, state)
}

fn rows(state: &State) -> Vec<String> {
    match state.rows() {
        Rows::Places(rows) => rows.iter().map(|row| state.places()[*row as usize].name.to_string()).collect(),
        Rows::Calls(rows) => {
            rows.iter().map(|row| state.function(state.function_of(row.node)).name.to_string()).collect()
        }
        Rows::Threads(rows) => {
            rows.iter().map(|row| state.profile().thread_of(*row).key.tid.to_string()).collect()
        }
        Rows::None => Vec::new(),
    }
}

fn place(state: &State, name: &str) -> u32 {
    state.places().iter().position(|place| &*place.name == name).unwrap() as u32
}

#[test]
fn costs_are_those_of_the_last_interval_and_of_all_the_time() {
    let (_, state) = two_intervals();
    let cost = |name, span| state.cost(place(&state, name), span);
    assert_eq!(cost("f", Span::Interval).total.samples, 0);
    assert_eq!(cost("f", Span::Start).own.samples, 3);
    assert_eq!(cost("g", Span::Interval).own.samples, 10);
    assert_eq!((cost("main", Span::Start).own.samples, cost("main", Span::Start).total.samples), (0, 13));
    assert_eq!(cost("main", Span::Start).total.cpu, Nanos::from_nanos(13 * TICK / 2));
    assert_eq!(cost("main", Span::Start).total.wall, Nanos::from_nanos(13 * TICK));
    let share = state.share(cost("g", Span::Start).own, Span::Start);
    assert!((share - 10.0 / 13.0).abs() < 1e-9, "{share}");
    // `wait` does not run, so it is no row; nor has it used CPU time.
    assert_eq!(rows(&state), ["g", "main", "f"]);
}

#[test]
fn a_recursive_function_counts_once() {
    let (mut source, mut state) = (Source::new(), State::new(settings()));
    for _ in 0..3 {
        source.instant(&[(1, "f:1 f:2 f:1 f:3", RUNS)]);
    }
    state.fold(source.update());
    assert_eq!(state.cost(0, Span::Start).total.samples, 3);
    assert_eq!(state.cost(0, Span::Start).own.samples, 3);
    state.act(Action::Show(Tab::Lines));
    let total: Vec<u64> = (0..3).map(|line| state.cost(line, Span::Start).total.samples).collect();
    assert_eq!(total, [3, 3, 3], "line 1 stands twice on each stack");
}

#[test]
fn selections_sum_anew_what_is_shown() {
    let (_, mut state) = two_intervals();
    state.act(Action::SwitchIdle);
    assert_eq!(state.measure(), Measure::Wall);
    let (wait, main) = (place(&state, "wait"), place(&state, "main"));
    assert_eq!(state.cost(wait, Span::Start).own.samples, 13);
    assert_eq!(state.cost(wait, Span::Interval).own.samples, 10);
    assert_eq!(state.cost(main, Span::Start).total.samples, 26);
    state.act(Action::SwitchGil);
    assert_eq!(rows(&state), ["g", "main", "f"]);
    state.act(Action::SwitchGil);
    state.act(Action::NextThread);
    state.act(Action::NextThread);
    assert_eq!(rows(&state), ["wait", "main"]);
    state.act(Action::NextThread);
    assert_eq!((state.selection().thread, rows(&state).len()), (None, 4));
}

#[test]
fn every_column_sorts_both_ways() {
    let (_, mut state) = two_intervals();
    for tab in [Tab::Functions, Tab::Lines, Tab::Threads, Tab::Calls] {
        state.act(Action::Show(tab));
        for column in tab.columns() {
            if state.sort().column != *column {
                state.act(Action::SortBy(*column));
            }
            assert_eq!(state.sort().column, *column);
            let before = (state.sort().descending, rows(&state));
            state.act(Action::SortBy(*column));
            assert_ne!(state.sort().descending, before.0);
            assert_eq!(rows(&state).len(), before.1.len(), "{column:?}");
        }
    }
    state.act(Action::Show(Tab::Functions));
    state.act(Action::SortBy(Column::Name));
    if state.sort().descending {
        state.act(Action::Reverse);
    }
    assert_eq!(rows(&state), ["f", "g", "main"]);
    state.act(Action::SortBy(Column::OwnStart));
    assert_eq!((rows(&state), state.span()), (vec!["g".into(), "f".into(), "main".into()], Span::Start));
}

#[test]
fn the_filter_keeps_what_contains_it_and_the_paths_to_it() {
    let (_, mut state) = two_intervals();
    state.act(Action::AskFilter);
    state.act(Action::Type('G'));
    assert_eq!((state.filter(), rows(&state)), ("g", vec!["g".to_owned()]));
    state.act(Action::Enter);
    state.act(Action::Show(Tab::Calls));
    assert_eq!(rows(&state), ["main", "g"]);
    let Some(Effect::Save(saved)) = ({
        state.act(Action::AskFile);
        state.act(Action::Enter)
    }) else {
        panic!("nothing to save")
    };
    assert_eq!((saved.file.as_str(), saved.profile.ledger().shown()), ("out.svg", 10));
    assert_eq!(saved.profile.ledger().attempts(), state.ledger().attempts());
    state.act(Action::Back);
    state.act(Action::Show(Tab::Functions));
    assert_eq!(rows(&state).len(), 3);
}

#[test]
fn the_call_tree_opens_along_the_hottest_path_and_by_hand() {
    let (_, mut state) = two_intervals();
    state.act(Action::SwitchSpan);
    state.act(Action::Show(Tab::Calls));
    assert_eq!(rows(&state), ["main", "g", "f"]);
    state.act(Action::Left);
    assert_eq!(rows(&state), ["main"]);
    state.act(Action::Right);
    assert_eq!(rows(&state), ["main", "g", "f"]);
    state.act(Action::Last);
    state.act(Action::Left);
    assert_eq!(state.cursor(), 0, "a closed node leads to its caller");
    state.act(Action::Point(0));
    assert_eq!(rows(&state), ["main"]);
}

#[test]
fn the_flame_view_walks_and_zooms() {
    let (_, mut state) = two_intervals();
    state.act(Action::SwitchSpan);
    state.act(Action::Show(Tab::Flame));
    let name = |state: &State| {
        state.flame_cursor().map(|node| state.function(state.function_of(node)).name.to_string())
    };
    state.act(Action::Move(1));
    assert_eq!(name(&state).as_deref(), Some("main"));
    state.act(Action::Move(1));
    assert_eq!(name(&state).as_deref(), Some("g"));
    state.act(Action::Left);
    assert_eq!(name(&state).as_deref(), Some("f"));
    state.act(Action::Enter);
    assert_eq!(state.zoom(), state.flame_cursor());
    state.act(Action::Move(-1));
    assert_eq!(name(&state).as_deref(), Some("f"), "above the zoomed box nothing is shown");
    state.act(Action::Back);
    assert_eq!(state.zoom(), None);
}

#[test]
fn a_pause_is_no_part_of_anything_but_the_ledger() {
    let (mut source, mut state) = two_intervals();
    state.act(Action::SwitchPause);
    for _ in 0..50 {
        source.instant(&[(1, "main:1 h:40", RUNS)]);
    }
    state.fold(source.update());
    assert!(
        !state.places().iter().any(|place| &*place.name == "h" && state.profile().ledger().shown() != 26)
    );
    assert_eq!((state.ledger().shown(), state.ledger().not_asked_for()), (26, 50));
    state.act(Action::SwitchPause);
    for _ in 0..10 {
        source.instant(&[(1, "main:1 k:50", RUNS)]);
    }
    state.fold(source.update());
    assert_eq!(state.cost(place(&state, "k"), Span::Interval).own.samples, 10);
    assert_eq!(state.cost(place(&state, "h"), Span::Start).total.samples, 0);
    assert!((state.history().last().unwrap().rate - 10.0).abs() < 1e-9);
    assert_eq!(
        state.ledger().shown(),
        state.profile().tallies().iter().map(|tally| tally.weights.samples).sum()
    );
}

#[test]
fn a_frozen_view_stands_still_and_steps_interval_by_interval() {
    let (mut source, mut state) = two_intervals();
    state.act(Action::SwitchFreeze);
    for name in ["a:1", "b:1"] {
        for _ in 0..10 {
            source.instant(&[(1, name, RUNS)]);
        }
        state.fold(source.update());
    }
    assert_eq!((state.ledger().shown(), rows(&state).len()), (26, 3));
    state.act(Action::Step);
    assert_eq!(state.cost(place(&state, "a"), Span::Interval).own.samples, 10);
    assert!(!rows(&state).contains(&"b".to_owned()));
    state.act(Action::SwitchFreeze);
    assert!(rows(&state).contains(&"b".to_owned()));
    assert_eq!(state.ledger().shown(), 46);
}

#[test]
fn a_reset_forgets_samples_and_losses_and_nothing_else() {
    let (mut source, mut state) = two_intervals();
    source.lose(LossReason::Moved);
    state.fold(source.update());
    assert_eq!(state.ledger().lost(), 1);
    state.act(Action::Reset);
    assert_eq!((state.ledger().shown(), state.ledger().lost(), rows(&state).len()), (0, 0, 0));
    for _ in 0..10 {
        source.instant(&[(1, "main:1 g:30", RUNS)]);
    }
    source.lose(LossReason::Late);
    state.fold(source.update());
    assert_eq!((state.ledger().shown(), state.ledger().lost()), (10, 1));
    assert_eq!(rows(&state), ["g", "main"]);
    assert!(state.profile().keeps_timeline());
}

#[test]
fn threads_tell_what_they_do() {
    let (_, mut state) = two_intervals();
    state.act(Action::Show(Tab::Threads));
    assert_eq!(rows(&state), ["1", "2"]);
    let (Rows::Threads(threads), meter) = (state.rows().clone(), *state.history().last().unwrap()) else {
        panic!("no threads")
    };
    let (busy, idle) = (state.thread_row(threads[0]), state.thread_row(threads[1]));
    assert!((busy.recent.cpu_share() - 0.5).abs() < 1e-9 && (busy.recent.gil_share() - 1.0).abs() < 1e-9);
    assert_eq!((idle.recent.running, idle.recent.samples, idle.recent.held), (0, 10, 0));
    assert_eq!(state.current_function(threads[1]), Some(place(&state, "wait")));
    assert!(
        (meter.gil - 1.0).abs() < 1e-9 && (meter.cpu - 0.5).abs() < 1e-9 && (meter.rate - 10.0).abs() < 1e-9
    );
    state.act(Action::Move(1));
    state.act(Action::Enter);
    assert_eq!(state.selection().thread, Some(threads[1]));
}

#[test]
fn the_end_is_told_and_the_picture_stays() {
    let (mut source, mut state) = two_intervals();
    source.instant(&[(1, "main:1 g:30", RUNS)]);
    state.fold(Update { end: Some("it is over".into()), ..source.update() });
    assert_eq!(state.end(), Some("it is over"));
    let shown = state.cost(place(&state, "g"), Span::Interval).own.samples;
    assert_eq!(shown, 11, "what came last is shown with the interval before it");
}

#[test]
fn handles_are_the_same_on_both_sides() {
    let (mut source, mut state) = two_intervals();
    source.name_thread(2, "renamed");
    source.instant(&[(3, "main:1 late:60", RUNS)]);
    state.fold(source.update());
    let (own, theirs) = (state.profile(), &source.dictionary);
    assert!(own.frames().map(|(_, frame)| frame).eq(theirs.frames().map(|(_, frame)| frame)));
    assert!(own.stacks().eq(theirs.stacks()));
    assert!(own.threads().map(|(_, thread)| thread).eq(theirs.threads().map(|(_, thread)| thread)));
    assert_eq!(own.ledger().shown(), 27);
}

#[test]
fn functions_of_the_kernel_are_called_and_cost_the_program_nothing() {
    let costs = |stacks: [&str; 2]| {
        let (mut source, mut state) = (Source::new(), State::new(settings()));
        for _ in 0..2 {
            for stack in stacks.iter().cycle().take(10) {
                source.instant(&[(1, stack, RUNS)]);
            }
            state.fold(source.update());
        }
        state.act(Action::SwitchSpan);
        state.act(Action::Show(Tab::Calls));
        let calls = rows(&state);
        let thread = state.profile().threads().next().unwrap().0;
        let current = state.current_function(thread).map(|place| state.function(place).name.to_string());
        state.act(Action::Show(Tab::Functions));
        let own = rows(&state).into_iter().map(|name| {
            let cost = state.cost(place(&state, &name), Span::Start);
            (name, cost.own, cost.total)
        });
        (calls, current, own.collect::<Vec<_>>())
    };
    let (calls, current, functions) = costs(["main:1 read:2 vfs_read:kernel", "main:1 read:2"]);
    assert_eq!(calls, ["main", "read", "vfs_read_[k]"]);
    let (_, current_without, functions_without) = costs(["main:1 read:2", "main:1 read:2"]);
    assert_eq!((functions, &current), (functions_without, &current_without));
    assert_eq!(current.as_deref(), Some("read"));
}

fn ends(source: &mut Source) -> Update {
    Update { end: Some("the process has ended".into()), ..source.update() }
}

#[test]
fn an_end_just_after_an_interval_leaves_its_picture() {
    let (mut source, mut state) = two_intervals();
    let (before, shown) = (rows(&state), state.interval_length());
    state.fold(ends(&mut source));
    assert_eq!((rows(&state), state.interval_length()), (before, shown));
    assert_eq!(state.cost(place(&state, "g"), Span::Interval).own.samples, 10);
    assert_eq!(state.history().len(), 2);
}

#[test]
fn what_was_seen_last_is_shown_with_the_interval_before_it() {
    let (mut source, mut state) = two_intervals();
    let shown = state.interval_length();
    for _ in 0..5 {
        source.instant(&[(1, "main:1 h:40", SLEEPS), (2, "main:1 wait:20", SLEEPS)]);
    }
    source.instant(&[(1, "main:1 h:40", RUNS), (2, "main:1 wait:20", SLEEPS)]);
    state.fold(ends(&mut source));
    let own = |name| state.cost(place(&state, name), Span::Interval).own.samples;
    assert_eq!((own("g"), own("h")), (10, 1));
    assert_eq!(state.interval_length(), shown + Nanos::from_nanos(6 * TICK));
    let meter = *state.history().last().unwrap();
    assert!((meter.gil - 11.0 / 16.0).abs() < 1e-9 && (meter.rate - 10.0).abs() < 1e-9, "{meter:?}");
    state.act(Action::Show(Tab::Threads));
    let Rows::Threads(threads) = state.rows().clone() else { panic!("no threads") };
    let busy = state.thread_row(threads[0]).recent;
    assert_eq!((busy.samples, busy.running), (16, 11));
    // Sorted out anew, it is the same.
    state.act(Action::SwitchIdle);
    state.act(Action::SwitchIdle);
    assert_eq!(state.cost(place(&state, "g"), Span::Interval).own.samples, 10);
}
