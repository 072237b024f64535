//! A scripted machine whose threads run, wait and sleep, and a sampler that observes them: late, seldom, with losses. What the
//! reporter makes of the observations must have all of each thread's time, each attempt once, and each stack where it was,
//! whether sinks and dictionaries are swapped meanwhile or not.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use profiler_account::Random;
use profiler_memory::{PageCopy, Snapshot};
use profiler_model::{ModuleNumber, Pid, ThreadKey, ThreadState, Tid, WaitReason};
use profiler_profile::{Dictionary, Ledger, ProcessInfo, Profile, Sink};
use profiler_python::{Callers, Module, Offsets, find, interpreters, thread_states};
use profiler_stack::KnownCodes;
use profiler_tests::snapshot::StoredProcess;

use super::*;

const PID: Pid = Pid::new(1);
const RATE_HZ: f64 = 100.0;

/// A stored process of which each part of the deepest stack may be the stack of a thread.
#[derive(Debug)]
struct Stored {
    memory: Snapshot,
    offsets: Offsets,
    deepest: RawStack,
    known: KnownCodes,
}

impl Stored {
    fn open() -> Self {
        let stored = StoredProcess::all().expect("the stored snapshots").into_iter().next().expect("one");
        let memory = stored.memory.with_whole_pages();
        let modules = stored.modules().expect("the stored modules");
        let modules: Vec<Module<'_>> = modules.iter().map(|module| module.as_module()).collect();
        let runtime = find(&modules, &memory).expect("the runtime");
        let interpreters = interpreters(&memory, &runtime).expect("the interpreters");
        let states = interpreters.iter().flat_map(|one| thread_states(&memory, &runtime.offsets, one));
        let stacks = states.flatten().map(|state| {
            let mut copy = vec![0; runtime.offsets.thread.size as usize];
            memory.read(state.address, &mut copy).expect("the thread state");
            let mut stack = RawStack::default();
            let (callers, pages) = (Callers::default(), &mut PageCopy::new());
            stack.walk(&memory, pages, &callers, &runtime.offsets, &copy).expect("the stack");
            stack
        });
        let deepest = stacks.max_by_key(|stack| stack.frames.len()).expect("a stack");
        Stored { memory, offsets: runtime.offsets, deepest, known: KnownCodes::default() }
    }

    /// The outermost frames of the stack, so many.
    fn stack(&self, depth: usize) -> RawStack {
        let mut stack = self.deepest.clone();
        let left_out = stack.frames.len() - depth;
        stack.frames.drain(..left_out);
        stack
    }
}

impl ProcessView for Stored {
    type Memory = Snapshot;

    fn code(&self) -> Option<CodeSource<'_, Snapshot>> {
        Some(CodeSource { memory: &self.memory, offsets: &self.offsets })
    }

    fn module_path(&self, _: ModuleNumber) -> Arc<str> {
        unreachable!("no native part is captured")
    }

    fn learn(&mut self, evidence: &CodeEvidence, stack: &RawStack, is_named: bool) {
        assert!(is_named, "the code objects of a stored process do not change");
        self.known.learn(&self.offsets, evidence, stack, true);
    }

    fn lives_after_loss(&mut self) -> bool {
        true
    }
}

#[derive(Debug)]
struct WholePaths;

impl ShortPaths for WholePaths {
    fn shorten(&mut self, file: &Arc<str>) -> Arc<str> {
        Arc::clone(file)
    }
}

/// A thread of the machine, as it is.
#[derive(Debug)]
struct SimThread {
    slot: ThreadSlot,
    runs: bool,
    has_cpu: bool,
    cpu: u64,
    timeslices: u64,
    /// How many frames it has; 0: it runs no Python.
    depth: usize,
    /// Instants at which it was not looked at.
    unseen: u64,
    /// Its time that has to be in events.
    owed: (u64, u64),
}

/// What events say of the threads: by thread, outcome, stack and state.
type Sums = BTreeMap<(u32, &'static str, Vec<String>, String), (u64, u64, u64)>;

/// How many frames each thread had at each instant at which it was captured.
type Depths = Rc<RefCell<HashMap<(u32, u64), usize>>>;

/// Checks events against what was the case, and sums them up.
#[derive(Debug, Default)]
struct Checker {
    depths: Depths,
    sums: Sums,
    ledger: Ledger,
    /// One profile for each window.
    windows: Vec<Profile>,
}

impl Checker {
    fn add(&mut self, dictionary: &Dictionary, event: &Event) {
        self.ledger.add(event);
        let thread_of = |scope: &Scope| match scope {
            Scope::Thread(thread) => dictionary.thread_of(*thread).key.tid.as_u32(),
            Scope::Process(_) | Scope::Session => 0,
        };
        let (thread, outcome, stack, state, times) = match event {
            Event::Sample(event) => {
                let sample = event.sample;
                let tid = dictionary.thread_of(sample.thread).key.tid.as_u32();
                let frames = dictionary.root_first(sample.stack);
                let depth = self.depths.borrow().get(&(tid, sample.at.as_nanos())).copied();
                assert_eq!(Some(frames.len()), depth, "a stack that the thread did not have");
                let names = frames.iter().map(|id| dictionary.frame_of(*id).function.to_string()).collect();
                let times = (event.count, sample.cpu, sample.wall);
                (tid, "shown", names, format!("{:?}", sample.state), times)
            }
            Event::Skip(skip) => {
                let times = (skip.count, skip.cpu, skip.wall);
                (thread_of(&skip.scope), "skipped", Vec::new(), String::new(), times)
            }
            Event::Loss(loss) => {
                let times = (loss.count, loss.cpu, loss.wall);
                (thread_of(&loss.scope), "lost", Vec::new(), format!("{:?}", loss.reason), times)
            }
            Event::Held(_) | Event::Look(_) | Event::Metric(_) | Event::Mark(_) => return,
        };
        let (count, cpu, wall) = times;
        let sum = self.sums.entry((thread, outcome, stack, state)).or_default();
        *sum = (sum.0 + count, sum.1 + cpu.as_nanos(), sum.2 + wall.as_nanos());
    }

    /// The CPU and the wall time in all events.
    fn times(&self) -> (u64, u64) {
        self.sums.values().fold((0, 0), |sum, (_, cpu, wall)| (sum.0 + cpu, sum.1 + wall))
    }
}

impl Sink for Checker {
    fn take(&mut self, dictionary: &Dictionary, events: &[Event]) {
        events.iter().for_each(|event| self.add(dictionary, event));
        self.windows.last_mut().expect("a window").take(dictionary, events);
    }

    fn epoch_ended(&mut self, dictionary: &Dictionary) {
        self.windows.last_mut().expect("a window").epoch_ended(dictionary);
    }
}

/// When sinks and dictionaries are swapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Swaps {
    Never,
    /// The sink after each so many steps, the dictionary after each third of these.
    Every(usize),
}

/// The machine, its sampler and the reporter.
struct Simulation {
    random: Random,
    now: u64,
    threads: Vec<SimThread>,
    born: u32,
    attempts: u64,
    stored: Stored,
    reporter: Reporter,
    depths: Depths,
    /// The time of threads that have ended.
    of_ended: (u64, u64),
}

impl Simulation {
    fn new(seed: u64, process: ProcessId, depths: Depths) -> Self {
        Simulation {
            random: Random::new(seed),
            now: 1_000_000,
            threads: Vec::new(),
            born: 0,
            attempts: 0,
            stored: Stored::open(),
            reporter: Reporter::new(process, Box::new(WholePaths), RATE_HZ),
            depths,
            of_ended: (0, 0),
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.random.uniform() * end as f64) as u64 % end
    }

    fn one_in(&mut self, chance: u64) -> bool {
        self.below(chance) == 0
    }

    fn at(&self) -> Timestamp {
        Timestamp::from_nanos(self.now)
    }

    /// Lets time pass, in which threads run that have a CPU.
    fn pass(&mut self) {
        let step = 1 + self.below(5_000_000);
        self.now += step;
        for thread in &mut self.threads {
            let ran = if thread.runs && thread.has_cpu { step } else { 0 };
            thread.cpu += ran;
            thread.owed = (thread.owed.0 + ran, thread.owed.1 + step);
        }
    }

    /// Has threads fall asleep, wake, lose their CPU and call functions.
    fn switch(&mut self) {
        let most = self.stored.deepest.frames.len() as u64;
        for index in 0..self.threads.len() {
            let (switches, depth) = (self.one_in(3), self.below(most + 1) as usize);
            let (runs, has_cpu) = (self.one_in(2), self.one_in(2));
            let thread = &mut self.threads[index];
            if switches {
                thread.timeslices += u64::from(runs && !thread.runs);
                (thread.runs, thread.has_cpu) = (runs, runs && has_cpu);
            }
            if thread.runs && thread.has_cpu {
                thread.depth = depth;
            }
        }
    }

    fn give_birth(&mut self) {
        self.born += 1;
        let slot = ThreadSlot(self.born);
        let schedule = SchedStat { cpu: Nanos::from_nanos(77), ..SchedStat::default() };
        let key = ThreadKey { pid: PID, tid: Tid::new(self.born) };
        self.reporter.meet(slot, (self.at(), schedule), |process| ThreadInfo {
            key,
            process,
            pthread_id: None,
            name: None,
            is_main: false,
        });
        let (runs, has_cpu, depth) = (true, true, 1);
        let (cpu, timeslices, unseen) = (77, 1, 0);
        self.threads.push(SimThread { slot, runs, has_cpu, cpu, timeslices, depth, unseen, owed: (0, 0) });
    }

    /// The end of a thread: what it did since its last event is lost.
    fn end_thread(&mut self, index: usize, events: &mut EventWriter<'_>) {
        let thread = self.threads.swap_remove(index);
        let clocks = ClockReading::Scheduler { cpu: Nanos::from_nanos(thread.cpu), had_cpu: true };
        let (at, reason, count) = (self.at(), LossReason::ThreadEnded, 1 + thread.unseen);
        self.attempts += 1;
        let missed = Missed { thread: thread.slot, reason, at, count, clocks: Some(clocks) };
        self.reporter.take(Observation::Missed(missed), &mut self.stored, events);
        self.reporter.retain(|slot| slot != thread.slot);
        self.of_ended = (self.of_ended.0 + thread.owed.0, self.of_ended.1 + thread.owed.1);
    }

    /// Nobody asked for samples of the time for which the profiler was suspended.
    fn suspend(&mut self, events: &mut EventWriter<'_>) {
        let asked: Vec<_> = self.threads.iter().map(|thread| thread.owed).collect();
        self.observe(events, true);
        self.reporter.resolve_deferred(&mut self.stored, events);
        self.pass();
        for (index, (cpu, wall)) in asked.into_iter().enumerate() {
            let thread = &mut self.threads[index];
            thread.owed = (cpu, wall);
            let schedule = SchedStat { cpu: Nanos::from_nanos(thread.cpu), ..SchedStat::default() };
            let at = Timestamp::from_nanos(self.now);
            self.reporter.account(thread.slot).expect("it is known").restart(at, Some(&schedule));
        }
    }

    /// An instant: every thread is observed in some way. `all`: each is captured, and its clocks are read while it has a CPU.
    fn observe(&mut self, events: &mut EventWriter<'_>, all: bool) {
        let mut captures = Vec::new();
        for index in 0..self.threads.len() {
            self.attempts += 1;
            let kind = if all { 9 } else { self.below(10) };
            let knows = {
                let thread = &self.threads[index];
                let asleep_after = (!thread.runs).then_some(thread.timeslices);
                self.reporter.knows_stack(thread.slot, asleep_after)
            };
            match kind {
                0 => self.threads[index].unseen += 1,
                1 => self.skip(index, events),
                2 => self.miss(index, events),
                _ if knows && !all => self.report_asleep(index, events),
                _ => captures.push(self.capture(index, all)),
            }
        }
        self.report_captures(captures, events);
    }

    fn clocks(&self, index: usize, had_cpu: bool) -> ClockReading {
        let thread = &self.threads[index];
        let had_cpu = had_cpu || thread.runs && thread.has_cpu;
        ClockReading::Scheduler { cpu: Nanos::from_nanos(thread.cpu), had_cpu }
    }

    fn skip(&mut self, index: usize, events: &mut EventWriter<'_>) {
        let (at, thread) = (self.at(), self.threads[index].slot);
        let count = 1 + std::mem::take(&mut self.threads[index].unseen);
        let unwanted = Observation::Unwanted { thread, at, count, clocks: None };
        self.reporter.take(unwanted, &mut self.stored, events);
    }

    fn miss(&mut self, index: usize, events: &mut EventWriter<'_>) {
        let clocks = self.one_in(2).then(|| self.clocks(index, false));
        let (at, thread, reason) = (self.at(), self.threads[index].slot, LossReason::Late);
        let count = 1 + std::mem::take(&mut self.threads[index].unseen);
        let missed = Missed { thread, reason, at, count, clocks };
        self.reporter.take(Observation::Missed(missed), &mut self.stored, events);
    }

    fn report_asleep(&mut self, index: usize, events: &mut EventWriter<'_>) {
        let (at, clocks) = (self.at(), self.clocks(index, false));
        let thread = &mut self.threads[index];
        self.depths.borrow_mut().insert((thread.slot.0, self.now), thread.depth);
        let (slot, count) = (thread.slot, 1 + std::mem::take(&mut thread.unseen));
        let state = ThreadState::Waiting(WaitReason::Sleep);
        let asleep = Asleep { thread: slot, at, count, state, holds_gil: false, clocks };
        self.reporter.take(Observation::Asleep(asleep), &mut self.stored, events);
    }

    fn capture(&mut self, index: usize, all: bool) -> Capture<ThreadSlot> {
        let (at, clocks, is_lost) = (self.at(), self.clocks(index, all), self.one_in(8) && !all);
        let thread = &mut self.threads[index];
        self.depths.borrow_mut().insert((thread.slot.0, self.now), thread.depth);
        let state = if thread.runs { ThreadState::Running } else { ThreadState::Waiting(WaitReason::Sleep) };
        Capture {
            thread: thread.slot,
            at,
            count: 1 + std::mem::take(&mut thread.unseen),
            state,
            holds_gil: false,
            asleep_after: (!thread.runs).then_some(thread.timeslices),
            may_have_no_state: is_lost && thread.depth == 0,
            clocks,
            python: Some(match (is_lost, thread.depth) {
                (true, 0) => Err(LossReason::ThreadEnded),
                (true, _) => Err(LossReason::Moved),
                (false, depth) => Ok(self.stored.stack(depth)),
            }),
            native: None,
            kernel: None,
        }
    }

    fn report_captures(&mut self, captures: Vec<Capture<ThreadSlot>>, events: &mut EventWriter<'_>) {
        let at = self.at();
        let Stored { memory, offsets, known, .. } = &mut self.stored;
        let stacks = captures.iter().filter_map(|capture| capture.python.as_ref()?.as_ref().ok());
        let code = CodeEvidence::of_stacks(memory, offsets, stacks, known).expect("the heads");
        let queued = match captures.as_slice() {
            [only] if self.threads.iter().any(|one| one.slot == only.thread && one.runs && !one.has_cpu) => {
                Some((only.thread, Nanos::ZERO))
            }
            _ => None,
        };
        let instant = InstantCaptures { at, captures, code, stops: Some(Vec::new()), queued, may_wait: true };
        self.reporter.take(Observation::Instant(instant), &mut self.stored, events);
        self.count_again();
    }

    /// A thread that waits for a CPU stands where it was at instants that have passed since.
    fn count_again(&mut self) {
        if self.one_in(2)
            && let Some((thread, _)) = self.reporter.only_queued()
            && let Some(index) = self.threads.iter().position(|one| one.slot == thread)
        {
            self.attempts += 1;
            self.depths.borrow_mut().insert((thread.0, self.now), self.threads[index].depth);
            let at = self.at();
            self.reporter.count_again(at);
        }
    }

    fn step(&mut self, events: &mut EventWriter<'_>) {
        self.pass();
        match self.below(20) {
            0 => self.give_birth(),
            1 if self.threads.len() > 1 => {
                let index = self.below(self.threads.len() as u64) as usize;
                self.end_thread(index, events);
            }
            2 => self.suspend(events),
            3..=8 => self.switch(),
            9 => {
                if self.reporter.is_resolving_due(self.at()) {
                    self.reporter.resolve_deferred(&mut self.stored, events);
                }
            }
            _ => self.observe(events, false),
        }
    }
}

/// What came of a script.
struct Outcome {
    checker: Checker,
    attempts: u64,
    /// The CPU and the wall time of all threads.
    truth: (u64, u64),
}

fn run(seed: u64, steps: usize, swaps: Swaps) -> Outcome {
    let mut dictionary = Dictionary::default();
    let process = dictionary.process(ProcessInfo { pid: PID, ..ProcessInfo::default() });
    let mut checker = Checker { windows: vec![Profile::new()], ..Checker::default() };
    let mut simulation = Simulation::new(seed, process, Rc::clone(&checker.depths));
    let mut events = EventWriter::new(&mut dictionary, &mut checker);
    simulation.give_birth();
    for step in 1..=steps {
        simulation.step(&mut events);
        if let Swaps::Every(gap) = swaps
            && step % gap == 0
        {
            simulation.reporter.resolve_deferred(&mut simulation.stored, &mut events);
            events.flush();
            let buffer = events.into_buffer();

            checker.windows.push(Profile::new());
            events = EventWriter::with_buffer(&mut dictionary, &mut checker, buffer);
            if step % (3 * gap) == 0 {
                events.renew_dictionary(|renaming| simulation.reporter.rename(renaming));
            }
        }
    }
    simulation.pass();
    simulation.observe(&mut events, true);
    simulation.reporter.resolve_deferred(&mut simulation.stored, &mut events);
    events.flush();
    let owed = simulation.threads.iter().map(|thread| thread.owed);
    let truth = owed.fold(simulation.of_ended, |sum, time| (sum.0 + time.0, sum.1 + time.1));
    Outcome { checker, attempts: simulation.attempts, truth }
}

#[test]
fn events_have_each_attempt_and_all_time_once() {
    for seed in 0..60 {
        let Outcome { checker, attempts, truth } = run(seed, 400, Swaps::Never);
        let ledger = &checker.ledger;
        assert_eq!(ledger.attempts(), attempts, "{seed}");
        assert_eq!(ledger.attempts(), ledger.shown() + ledger.not_asked_for() + ledger.lost());
        assert_eq!(checker.times(), truth, "{seed}");
        assert!(ledger.shown() > 100 && ledger.not_asked_for() > 10 && ledger.lost() > 10, "{ledger:?}");
    }
}

#[test]
fn swapped_sinks_and_dictionaries_change_nothing() {
    for (seed, gap) in (0..60).zip([1, 2, 3, 7, 10].into_iter().cycle()) {
        let whole = run(seed, 400, Swaps::Never);
        let swapped = run(seed, 400, Swaps::Every(gap));
        let differ = |(key, sum): &(&_, &_)| swapped.checker.sums.get(*key) != Some(*sum);
        assert_eq!(whole.checker.sums.iter().find(differ), None, "{seed}");
        assert_eq!(swapped.checker.sums.len(), whole.checker.sums.len(), "{seed}");
        let mut ledger = Ledger::default();
        swapped.checker.windows.iter().for_each(|window| ledger.merge(window.ledger()));
        assert_eq!(ledger, whole.checker.ledger, "{seed}");
        let weights = |windows: &[Profile]| {
            let tallies = windows.iter().flat_map(|window| window.tallies().to_vec());
            tallies.fold((0, Nanos::ZERO, Nanos::ZERO), |sum, tally| {
                let weights = tally.weights;
                (sum.0 + weights.samples, sum.1 + weights.cpu, sum.2 + weights.wall)
            })
        };
        assert_eq!(weights(&swapped.checker.windows), weights(&whole.checker.windows), "{seed}");
    }
}
