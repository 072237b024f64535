//! From what the kernel says of off-CPU intervals from the CPU to an account of each thread's time. From the instant at which
//! a thread is first watched its whole life is accounted for: time on a CPU, and time off it by state.
//!
//! How a stack gets its names is the caller's business: `S` is whatever stands for one.

mod account;

use profiler_account::KnownStack;
use profiler_bpf::{BlockReason, OffCpu, OffCpuRecord, OffCpuSum, StackRecord};
use profiler_model::{Nanos, SchedStat, ThreadState, Tid, Timestamp, WaitReason};
use profiler_os::{ThreadFiles, clock};
use rustc_hash::{FxHashMap, FxHashSet};

use account::Account;

use super::off_cpu_reason::{self, Owner};
use super::switch_watch::SwitchWatch;
use crate::thread_table::Thread;

/// How often a thread is looked at that leaves its CPU or comes back at that very moment.
const MAX_LOOKS: usize = 10;

/// Time that a thread spent in one state with one stack: off the CPU, or on one and in no sample.
#[derive(Clone, Debug)]
pub struct OffCpuInterval<S> {
    /// The thread.
    pub thread: Tid,
    /// When it ended, or when it was looked at.
    pub at: Timestamp,
    /// What it waited for; for a CPU where it could have gone on. Running, where it was on one.
    pub state: ThreadState,
    /// How long, exactly: the weight in wall time.
    pub duration: Nanos,
    /// Of a sum of times: its parts lie anywhere between this instant and `at`. Otherwise it is in one piece.
    pub since: Option<Timestamp>,
    /// Whether it held the GIL when it left.
    pub holds_gil: bool,
    /// Its stack.
    pub stack: S,
}

/// Where off-CPU intervals go.
pub struct IntervalSink<'a, S> {
    /// Makes of a stack that the kernel took what stands for it.
    pub stack: &'a mut dyn FnMut(&StackRecord<'_>) -> S,
    /// Takes an off-CPU interval, or a part of one.
    pub interval: &'a mut dyn FnMut(OffCpuInterval<S>),
}

/// The account of every watched thread of a process.
#[derive(Debug)]
pub struct OffCpuTracker<S> {
    threads: FxHashMap<Tid, Account<S>>,
    /// Sums of off-CPU intervals that were reported already.
    reported: FxHashMap<(Tid, BlockReason, Option<u32>), OffCpuSum>,
    /// When they were read last.
    sums_read: Timestamp,
    instead: Instead<S>,
}

/// What stands for a stack that is not there.
#[derive(Clone, Debug)]
pub struct Instead<S> {
    /// It was not taken.
    pub missing: S,
    /// The kernel's ring had no room for it.
    pub unsent: S,
    /// Of many short off-CPU intervals.
    pub summed: S,
}

impl<S: Clone> OffCpuTracker<S> {
    /// Of no thread yet.
    pub fn new(instead: Instead<S>) -> Self {
        OffCpuTracker {
            threads: FxHashMap::default(),
            reported: FxHashMap::default(),
            sums_read: Timestamp::default(),
            instead,
        }
    }

    /// Since when the first of its threads is watched.
    pub fn since(&self) -> Option<Timestamp> {
        self.threads.values().map(|account| account.since).min()
    }

    /// The stacks of off-CPU intervals that may not be over, to be changed.
    pub fn stacks_mut(&mut self) -> impl Iterator<Item = &mut S> {
        self.threads.values_mut().flat_map(|account| account.known.stacks_mut())
    }

    /// Whether anything is still to be reported of this thread.
    pub fn awaits(&self, thread: Tid) -> bool {
        self.threads.contains_key(&thread)
    }

    /// Whether this thread is watched.
    pub fn has(&self, thread: Tid) -> bool {
        self.threads.get(&thread).is_some_and(|account| !account.has_ended)
    }

    /// Has the kernel watch threads that are registered already; without room for one nothing is known of it.
    pub fn watch<'a>(
        &mut self,
        off_cpu: &mut OffCpu,
        threads: impl Iterator<Item = &'a Thread>,
        owner: Owner<'_>,
    ) {
        let pid = owner.process.pid();
        let opened = threads.filter_map(|thread| Some((thread, ThreadFiles::open(pid, thread.tid).ok()?)));
        let before = opened.map(|(thread, files)| {
            let counted = files.schedule().ok();
            (thread, files, counted)
        });
        let before: Vec<_> = before.collect();
        // All of them from the same instant, as far as they do not move in between.
        let start = clock::now();
        let watched = before.into_iter().map(|(thread, files, counted)| {
            let since = counted.and_then(|counted| start_watch(off_cpu, owner, thread, (start, counted)));
            (thread, files, since)
        });
        for (thread, files, since) in watched.collect::<Vec<_>>() {
            if let Some(since) = since {
                self.threads.insert(thread.tid, self.account(off_cpu, (thread, files), since, owner));
            }
        }
    }

    fn account(
        &self,
        off_cpu: &OffCpu,
        (thread, files): (&Thread, ThreadFiles),
        since: Timestamp,
        owner: Owner<'_>,
    ) -> Account<S> {
        // It has not moved between the two if the kernel still has it as it was registered.
        let activity = thread.files.activity().ok();
        let first_state = activity
            .map(|activity| off_cpu_reason::of_sleeper(activity, owner))
            .filter(|state| !state.is_running() && is_at_start(off_cpu, thread.tid));
        let mut account = Account::new(since, files);
        (account.first_state, account.lacks_first_stack) = (first_state, first_state.is_some());
        let stack = self.instead.missing.clone();
        account.known.keep(KnownStack { began: since, stack, holds_gil: false });
        account
    }

    /// Takes the stack of a thread that was asleep already when the watch began, and still is. It is not the
    /// kernel's to take, as it only sees a thread that leaves.
    pub fn take_first_stack(&mut self, off_cpu: &OffCpu, thread: Tid, stack: S) {
        let Some(account) = self.threads.get_mut(&thread) else { return };
        if account.first_state.is_some() && is_at_start(off_cpu, thread) {
            account.known.keep(KnownStack { began: account.since, stack, holds_gil: false });
        }
    }

    /// Takes the stack of an off-CPU interval whose record is still to come.
    pub fn take_deep(&mut self, record: &StackRecord<'_>, stack: S) {
        if let Some(account) = self.threads.get_mut(&record.thread()) {
            // The records of earlier off-CPU intervals were sent before.
            account.known.forget_until(record.time());
            account.known.keep(KnownStack { began: record.time(), stack, holds_gil: record.holds_gil() });
        }
    }

    /// For how much time a sample of a watched thread that runs stands: all that it was on a CPU since its last one,
    /// however the ticks fall. `None` where the thread is not watched.
    pub fn time_of_sample(&self, record: &StackRecord<'_>) -> Option<Nanos> {
        let account = self.threads.get(&record.thread())?;
        if record.time() < account.since {
            // It was met while it was not watched yet.
            return Some(Nanos::ZERO);
        }
        Some(record.ran()?.saturating_sub(account.sampled))
    }

    /// Takes note of a sample at the instant `at`, which stands for so much.
    pub fn count_sample(&mut self, thread: Tid, time: Nanos, at: Timestamp) {
        if let Some(account) = self.threads.get_mut(&thread) {
            account.sampled += time;
            account.sampled_until = account.sampled_until.max(at);
        }
    }

    /// Takes an off-CPU interval that is over.
    pub fn take(&mut self, record: &OffCpuRecord<'_>, owner: Owner<'_>, sink: &mut IntervalSink<'_, S>) {
        let Some(account) = self.threads.get_mut(&record.thread()) else { return };
        match record.is_end() {
            true => account.end(record, &self.instead, sink),
            false => account.take(record, record.back(), &self.instead, owner, sink),
        }
        // What was looked at meanwhile may be a later off-CPU interval, whose record is still to come.
        if let Some(left) = record.left() {
            account.reported.forget_until(left);
            account.known.forget_until(left);
        }
    }

    /// Notes how often each thread was put on a CPU: the watch is about to end.
    pub fn note_arrivals(&mut self, off_cpu: &impl SwitchWatch) {
        for (thread, account) in &mut self.threads {
            account.last_arrivals = off_cpu.arrivals(*thread, &account.files);
        }
    }

    /// The threads that were asleep when they were first watched and whose stacks were not asked for yet.
    pub fn take_sleepers(&mut self) -> FxHashSet<Tid> {
        let lacking = self.threads.iter_mut().filter(|(_, account)| account.lacks_first_stack);
        lacking
            .map(|(tid, account)| {
                account.lacks_first_stack = false;
                *tid
            })
            .collect()
    }

    /// Has the kernel watch none of them any longer.
    pub fn forget_all(&mut self, off_cpu: &mut impl SwitchWatch) {
        self.threads.keys().for_each(|thread| off_cpu.forget(*thread));
        off_cpu.forget_sums(&|thread| self.threads.contains_key(&thread));
        self.threads.clear();
        self.reported.clear();
    }

    /// Reports what the kernel has not reported by itself: sums of off-CPU intervals, and the parts of those that last, up to now or to
    /// the `end` of the watch.
    pub fn flush(
        &mut self,
        off_cpu: &mut impl SwitchWatch,
        end: Option<Timestamp>,
        owner: Owner<'_>,
        sink: &mut IntervalSink<'_, S>,
    ) {
        let began = off_cpu.time();
        // Should the map be out of reach, the sums are reported another time.
        if let Some(sums) = off_cpu.sums() {
            let until = end.unwrap_or_else(|| off_cpu.time());
            sums.into_iter().for_each(|sum| self.add_sum(sum, until, owner, sink));
            self.sums_read = began;
        }
        // All that those have sent was read since they were found to have ended.
        self.forget_ended(off_cpu);
        let alive = self.threads.iter().filter(|(_, account)| !account.has_ended);
        let threads: Vec<Tid> = alive.map(|(tid, _)| *tid).collect();
        for thread in threads {
            self.look(off_cpu, thread, end, owner, sink);
        }
    }

    fn look(
        &mut self,
        off_cpu: &mut impl SwitchWatch,
        thread: Tid,
        end: Option<Timestamp>,
        owner: Owner<'_>,
        sink: &mut IntervalSink<'_, S>,
    ) {
        let Some(account) = self.threads.get_mut(&thread) else { return };
        for _ in 0..MAX_LOOKS {
            // What is read later and began before was the case at this instant.
            let now = end.unwrap_or_else(|| off_cpu.time());
            let Some(copy) = off_cpu.now(thread) else { continue };
            let record = copy.record();
            if record.is_end() {
                // There was no room to send that.
                off_cpu.forget(thread);
                return account.end(&record, &self.instead, sink);
            }
            account.report_unsent(&record, now, &self.instead, sink);
            let since = record.left().unwrap_or(record.back());
            if since > now {
                // It moved while the watch ended: what it did until then is reported, but for what it ran.
                if let Some(end) = end {
                    return account.report_unsampled(&record, record.ran(), end, &self.instead, sink);
                }
                continue;
            }
            // Of a thread that has not moved yet the first look said whether it ran.
            let ran_from_start = record.is_from_start() && account.first_state.is_none();
            let is_away = record.left().is_some() && !ran_from_start;
            if is_away && end.is_none() && account.awaits_stack(&record) {
                // The whole wait is reported once its stack was read.
                return;
            }
            if is_away && account.has_come_back(&record, off_cpu) {
                match end {
                    Some(end) => {
                        account.report_unsampled(&record, record.ran(), since, &self.instead, sink);
                        return account.lose_rest(&record, end, &self.instead, sink);
                    }
                    None => continue,
                }
            }
            // One that is short may still be summed.
            let is_reported = is_away
                && (end.is_some()
                    || now.since(since) >= off_cpu.least() && off_cpu.report_until(thread, since, now));
            if is_reported {
                account.take(&record, now, &self.instead, owner, sink);
                account.reported.note(since, now);
            }
            if let Some(end) = end {
                let runs = if is_away { Nanos::ZERO } else { end.since(since) };
                account.report_unsampled(&record, record.ran() + runs, end, &self.instead, sink);
            }
            return;
        }
    }

    /// Adds the part of a sum of short off-CPU intervals that has not been reported yet. They ended before `until`, and none overlaps an
    /// off-CPU interval that is reported by itself.
    fn add_sum(
        &mut self,
        sum: OffCpuSum,
        until: Timestamp,
        owner: Owner<'_>,
        sink: &mut IntervalSink<'_, S>,
    ) {
        let Some(account) = self.threads.get(&sum.thread) else { return };
        let since = Some(account.since.max(self.sums_read).min(until));
        let before = self.reported.insert((sum.thread, sum.cause, sum.lost_in_state), sum);
        let (waited, queued) = before.map_or((Nanos::ZERO, Nanos::ZERO), |old| (old.waited, old.queued));
        let scheduler = sum.lost_in_state.unwrap_or_default();
        let instead = if sum.lost_in_state.is_some() { &self.instead.unsent } else { &self.instead.summed };
        let parts = [
            (off_cpu_reason::state(sum.cause, scheduler, owner.gils), sum.waited.saturating_sub(waited)),
            (ThreadState::Waiting(WaitReason::Cpu), sum.queued.saturating_sub(queued)),
        ];
        for (state, duration) in parts.into_iter().filter(|(_, duration)| *duration != Nanos::ZERO) {
            let (thread, stack) = (sum.thread, instead.clone());
            let at = until;
            (sink.interval)(OffCpuInterval { thread, at, state, duration, since, holds_gil: false, stack });
        }
    }

    /// Forgets threads that have ended; all that they did was reported.
    fn forget_ended(&mut self, off_cpu: &mut impl SwitchWatch) {
        let ended = |thread: &Tid| self.threads.get(thread).is_some_and(|account| account.has_ended);
        if self.threads.keys().any(&ended) {
            off_cpu.forget_sums(&|thread| ended(&thread));
            self.reported.retain(|(thread, ..), _| !ended(thread));
            self.threads.retain(|_, account| !account.has_ended);
        }
    }
}

/// Has the kernel watch a thread, if it can be from an instant after which the scheduler had counted so much of it;
/// returns since when.
fn start_watch(
    off_cpu: &mut OffCpu,
    owner: Owner<'_>,
    thread: &Thread,
    (mut start, mut counted): (Timestamp, SchedStat),
) -> Option<Timestamp> {
    for _ in 0..MAX_LOOKS {
        let before = (counted.timeslices, counted.cpu);
        off_cpu.watch(owner.process.pid(), thread.tid, start, before).ok()?;
        let after = thread.files.schedule().ok()?;
        // Otherwise it was put on a CPU before it was registered.
        if after.timeslices == counted.timeslices || !is_at_start(off_cpu, thread.tid) {
            return Some(start);
        }
        (counted, start) = (after, clock::now());
    }
    off_cpu.forget(thread.tid);
    None
}

/// Whether a watched thread has neither left its CPU nor come back since the watch began.
fn is_at_start(off_cpu: &OffCpu, thread: Tid) -> bool {
    off_cpu.now(thread).is_some_and(|copy| copy.record().is_from_start() && copy.record().left().is_some())
}

impl<S: Clone> Instead<S> {
    /// Why the stack of this off-CPU interval is not there.
    fn of(&self, record: &OffCpuRecord<'_>) -> S {
        if record.is_stack_lost() { self.unsent.clone() } else { self.missing.clone() }
    }
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use profiler_bpf::Record;

    use profiler_os::Process;

    use super::*;

    /// What the kernel says of an off-CPU interval of this thread: when it began, when the thread came back, and its flags.
    fn interval(left: u64, back: u64, flags: u32) -> Vec<u8> {
        let mut bytes = vec![0u8; 128];
        let head = [3, std::process::id(), std::process::id(), flags];
        for (at, value) in head.into_iter().enumerate() {
            bytes[at * 4..at * 4 + 4].copy_from_slice(&value.to_le_bytes());
        }
        for (at, value) in [(16, left), (32, back), (40, u64::MAX)] {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// The stack of an off-CPU interval that began at `left`, sent by itself.
    fn deep_stack(left: u64) -> Vec<u8> {
        let mut bytes = vec![0u8; 1024];
        bytes[0] = 4;
        bytes[8..16].copy_from_slice(&left.to_le_bytes());
        bytes[28..32].copy_from_slice(&std::process::id().to_le_bytes());
        bytes
    }

    fn record(bytes: &[u8]) -> OffCpuRecord<'_> {
        let Some(Record::OffCpu(record)) = Record::parse(bytes) else { panic!("no interval") };
        record
    }

    const DEEP: u32 = 2;

    /// The life of one thread, which is this one, as the kernel's records and looks at it report it.
    struct Life {
        process: Process,
        thread: Tid,
        intervals: OffCpuTracker<&'static str>,
        /// When each reported part ended, how long it was, and its stack.
        reported: Vec<(u64, u64, &'static str)>,
    }

    impl Life {
        fn new() -> Self {
            let process = Process::new(profiler_model::Pid::new(std::process::id()));
            let thread = Tid::new(std::process::id());
            let mut intervals =
                OffCpuTracker::new(Instead { missing: "missing", unsent: "unsent", summed: "summed" });
            let files = ThreadFiles::open(process.pid(), thread).unwrap();
            intervals.threads.insert(thread, Account::new(Timestamp::default(), files));
            Life { process, thread, intervals, reported: Vec::new() }
        }

        fn read_stack(&mut self, left: u64, stack: &'static str) {
            let bytes = deep_stack(left);
            let Some(Record::DeepStack(record)) = Record::parse(&bytes) else { panic!("no stack") };
            self.intervals.take_deep(&record, stack);
        }

        fn read_record(&mut self, left: u64, back: u64, flags: u32) {
            let bytes = interval(left, back, flags);
            self.report(|intervals, owner, sink| intervals.take(&record(&bytes), owner, sink));
        }

        /// The thread is looked at while it is away.
        fn look(&mut self, left: u64, now: u64, flags: u32) {
            let (bytes, now, thread) = (interval(left, 0, flags), Timestamp::from_nanos(now), self.thread);
            self.report(|intervals, owner, sink| {
                let account = intervals.threads.get_mut(&thread).unwrap();
                account.take(&record(&bytes), now, &intervals.instead, owner, sink);
                account.reported.note(Timestamp::from_nanos(left), now);
            });
        }

        fn report(
            &mut self,
            tell: impl FnOnce(&mut OffCpuTracker<&'static str>, Owner<'_>, &mut IntervalSink<'_, &'static str>),
        ) {
            let reported = &mut self.reported;
            let mut keep = |part: OffCpuInterval<&'static str>| {
                reported.push((part.at.as_nanos(), part.duration.as_nanos(), part.stack));
            };
            let owner = Owner { process: &self.process, gils: &[] };
            let mut sink = IntervalSink { stack: &mut |_| "of the record", interval: &mut keep };
            tell(&mut self.intervals, owner, &mut sink);
        }
    }

    #[test]
    fn late_record_keeps_the_stack_of_its_own_interval() {
        let mut life = Life::new();
        life.read_stack(100, "first");
        life.look(100, 150, DEEP);
        // The first off-CPU interval is over, but its record is unread when the thread is looked at in the next one.
        life.look(300, 350, 0);
        life.read_record(100, 200, DEEP);
        life.read_record(300, 400, 0);
        let expected = [(150, 50, "first"), (350, 50, "missing"), (200, 50, "first"), (400, 50, "missing")];
        assert_eq!(life.reported, expected);
    }

    #[test]
    fn stacks_of_past_intervals_are_forgotten() {
        let mut life = Life::new();
        // Short off-CPU intervals below deep stacks send no records of their own.
        (1..1_000).for_each(|left| life.read_stack(left, "short"));
        life.read_record(2_000, 2_100, 0);
        let account = &life.intervals.threads[&life.thread];
        assert!((1..3_000).all(|left| account.known.of(Timestamp::from_nanos(left)).is_none()));
        assert_eq!(life.reported, [(2_100, 100, "missing")]);
    }

    #[test]
    fn interval_whose_deep_stack_is_unread_is_not_lost() {
        let mut life = Life::new();
        let bytes = interval(100, 0, DEEP);
        let awaits = |life: &Life| life.intervals.threads[&life.thread].awaits_stack(&record(&bytes));
        assert!(awaits(&life));
        life.read_stack(100, "first");
        assert!(!awaits(&life));
        life.read_record(100, 200, DEEP);
        assert_eq!(life.reported, [(200, 100, "first")]);
    }

    #[test]
    fn sum_of_short_intervals_belongs_to_the_time_since_the_last_sum() {
        let mut life = Life::new();
        life.intervals.sums_read = Timestamp::from_nanos(500);
        let sum = OffCpuSum {
            thread: life.thread,
            cause: BlockReason::Preempted,
            lost_in_state: None,
            intervals: 3,
            waited: Nanos::ZERO,
            queued: Nanos::from_nanos(40),
        };
        let mut found = Vec::new();
        let mut keep = |part: OffCpuInterval<&'static str>| found.push((part.since, part.at, part.duration));
        let mut sink = IntervalSink { stack: &mut |_| "of the record", interval: &mut keep };
        let until = Timestamp::from_nanos(900);
        life.intervals.add_sum(sum, until, Owner { process: &life.process, gils: &[] }, &mut sink);
        assert_eq!(found, [(Some(Timestamp::from_nanos(500)), until, Nanos::from_nanos(40))]);
    }

    #[test]
    fn what_samples_tell_of_a_thread_that_came_back_unseen_is_not_lost_as_well() {
        let pid = profiler_model::Pid::new(std::process::id());
        let files = ThreadFiles::open(pid, Tid::new(std::process::id())).unwrap();
        let nanos = Nanos::from_nanos;
        let mut account = Account::<()>::new(Timestamp::default(), files);
        account.sampled = nanos(400 + 75);
        let left = Timestamp::default() + nanos(420);
        // It left after it had run for 400, and again after 475, or never came back.
        assert_eq!(account.unreported(left, left + nanos(80), nanos(400)), nanos(5));
        assert_eq!(account.unreported(left, left + nanos(80), nanos(475)), nanos(80));
        assert_eq!(account.unreported(left, left + nanos(60), nanos(400)), Nanos::ZERO);
    }
}
