//! From what the kernel says of absences from the CPU to an account of each thread's time. From the instant at which
//! a thread is first watched its whole life is accounted for: time on a CPU, and time off it by state.
//!
//! How a stack gets its names is the caller's business: `S` is whatever stands for one.

use std::collections::BTreeMap;

use profiler_bpf::{AbsenceRecord, BpfError, Cause, OffCpu, ShortAbsences, StackRecord};
use profiler_model::{Nanos, Pid, ThreadState, Tid, Timestamp, WaitReason};
use profiler_os::{Process, ThreadFiles, clock};
use profiler_python::GilAddresses;
use rustc_hash::FxHashMap;

use crate::off_cpu_reason;
use crate::roster::Thread;

/// How often a thread is looked at that leaves its CPU or comes back at that very moment.
const MAX_LOOKS: usize = 10;

/// Time that a thread spent off the CPU in one state with one stack.
#[derive(Clone, Debug)]
pub struct Absence<S> {
    /// The thread.
    pub thread: Tid,
    /// When it ended, or when it was looked at.
    pub at: Timestamp,
    /// What it waited for; for a CPU where it could have gone on.
    pub state: ThreadState,
    /// How long, exactly: the weight in wall time.
    pub duration: Nanos,
    /// Whether it held the GIL when it left.
    pub holds_gil: bool,
    /// How many absences these are: 0 for a further part of one that was told before.
    pub times: u64,
    /// Its stack.
    pub stack: S,
}

/// What a thread has done since it is watched. The sum of all is the time that has gone by.
#[derive(Clone, Debug, Default)]
pub struct ThreadTotals {
    /// Since when it is watched.
    pub since: Timestamp,
    /// Until when all is accounted for.
    pub until: Timestamp,
    /// On a CPU.
    pub ran: Nanos,
    /// Off it, by state.
    pub waited: BTreeMap<ThreadState, Nanos>,
    /// Off it, of which no more is known: there was no room to tell.
    pub lost: Nanos,
}

/// Whose absences they are: what it takes to say on what a thread waits.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The process.
    pub process: &'a Process,
    /// The GILs of its interpreters.
    pub gils: &'a [GilAddresses],
}

/// Where absences go.
pub struct Sink<'a, S> {
    /// Makes of a stack that the kernel took what stands for it.
    pub stack: &'a mut dyn FnMut(&StackRecord<'_>) -> S,
    /// Takes an absence, or a part of one.
    pub absence: &'a mut dyn FnMut(Absence<S>),
}

/// The account of every watched thread of a process.
#[derive(Debug)]
pub struct Absences<S> {
    threads: FxHashMap<Tid, Account<S>>,
    /// Sums of short absences that were told already.
    told: FxHashMap<(Tid, Cause), ShortAbsences>,
    /// Stands for the stack of an absence whose stack was not taken, and of many short ones.
    missing: S,
    summed: S,
}

/// What is known of a thread beside what the kernel keeps.
#[derive(Debug)]
struct Account<S> {
    totals: ThreadTotals,
    /// Time on a CPU that records told; `totals` has that since then as well.
    ran: Nanos,
    /// When the last absence began of which a part was told, and how far.
    told: Option<(Timestamp, Timestamp)>,
    /// The stack of an absence that may not be over.
    known: Option<Known<S>>,
    /// What it waited for when the watch began; `None` if it did not wait.
    first_state: Option<ThreadState>,
    /// Whether its end was told.
    has_ended: bool,
    /// How often the scheduler put it on a CPU stands here.
    files: ThreadFiles,
    /// And so often it had when the watch ended.
    last_arrivals: Option<u64>,
}

/// What was found when an absence began.
#[derive(Clone, Debug)]
struct Known<S> {
    began: Timestamp,
    stack: S,
    holds_gil: bool,
}

impl<S: Clone> Absences<S> {
    /// Of no thread yet.
    pub fn new(missing: S, summed: S) -> Self {
        Absences { threads: FxHashMap::default(), told: FxHashMap::default(), missing, summed }
    }

    /// What each thread has done so far.
    pub fn totals(&self) -> impl Iterator<Item = (Tid, &ThreadTotals)> {
        self.threads.iter().map(|(tid, account)| (*tid, &account.totals))
    }

    /// Whether this thread is watched.
    pub fn has(&self, thread: Tid) -> bool {
        self.threads.get(&thread).is_some_and(|account| !account.has_ended)
    }

    /// Has the kernel watch a thread, of which it was told already; without room for it nothing is known of it.
    pub fn watch(&mut self, off_cpu: &mut OffCpu, thread: &Thread, owner: Owner<'_>) {
        let pid = owner.process.pid();
        let Ok(files) = ThreadFiles::open(pid, thread.tid) else { return };
        let Some(now) = start_watch(off_cpu, pid, thread) else { return };
        // It has not moved between the two if the kernel still has it as it was told.
        let activity = thread.files.activity().ok();
        let first_state = activity
            .map(|activity| off_cpu_reason::of_call(activity, owner))
            .filter(|state| !state.is_running() && is_at_start(off_cpu, thread.tid));
        let account = Account {
            totals: ThreadTotals { since: now, until: now, ..ThreadTotals::default() },
            ran: Nanos::ZERO,
            told: None,
            known: Some(Known { began: now, stack: self.missing.clone(), holds_gil: false }),
            first_state,
            has_ended: false,
            files,
            last_arrivals: None,
        };
        self.threads.insert(thread.tid, account);
    }

    /// Takes the stack of a thread that was asleep already when the watch began, and still is. It is not the
    /// kernel's to take, as it only sees a thread that leaves.
    pub fn take_first_stack(&mut self, off_cpu: &OffCpu, thread: Tid, stack: S) {
        let Some(account) = self.threads.get_mut(&thread) else { return };
        if account.first_state.is_some() && is_at_start(off_cpu, thread) {
            account.known = Some(Known { began: account.totals.since, stack, holds_gil: false });
        }
    }

    /// Takes the stack of an absence whose record is still to come.
    pub fn take_deep(&mut self, record: &StackRecord<'_>, stack: S) {
        if let Some(account) = self.threads.get_mut(&record.thread()) {
            account.known = Some(Known { began: record.time(), stack, holds_gil: record.holds_gil() });
        }
    }

    /// Takes an absence that is over.
    pub fn take(&mut self, record: &AbsenceRecord<'_>, owner: Owner<'_>, sink: &mut Sink<'_, S>) {
        let Some(account) = self.threads.get_mut(&record.thread()) else { return };
        account.ran += record.ran();
        account.totals.ran = account.ran;
        account.totals.until = record.back();
        account.totals.lost += record.lost().1.saturating_sub(account.told_of_others(record));
        account.has_ended = record.is_end();
        if !account.has_ended {
            account.take(record, record.back(), &self.missing, owner, sink);
        }
        // What was looked at meanwhile may be a later absence, whose record is still to come.
        account.told = account.told.filter(|(began, _)| record.left().is_some_and(|left| *began > left));
    }

    /// Ends the watch; returns when.
    ///
    /// # Errors
    /// When the kernel cannot be told.
    pub fn end(&mut self, off_cpu: &mut OffCpu) -> Result<Timestamp, BpfError> {
        self.note_arrivals();
        off_cpu.stop()?;
        Ok(clock::now())
    }

    /// Notes how often each thread was put on a CPU: the watch is about to end.
    pub fn note_arrivals(&mut self) {
        for account in self.threads.values_mut() {
            account.last_arrivals = account.files.schedule().ok().map(|schedule| schedule.times_run);
        }
    }

    /// Whether threads were asleep when they were first watched.
    pub fn has_sleepers(&self) -> bool {
        self.threads.values().any(|account| account.first_state.is_some())
    }

    /// Has the kernel watch none of them any longer.
    pub fn forget_all(&mut self, off_cpu: &mut OffCpu) {
        self.threads.keys().for_each(|thread| off_cpu.forget(*thread));
        off_cpu.forget_sums(|thread| self.threads.contains_key(&thread));
        self.threads.clear();
        self.told.clear();
    }

    /// Tells what the kernel has not told by itself: sums of short absences, and the parts of those that last, up to
    /// now or to the `end` of the watch.
    pub fn settle(
        &mut self,
        off_cpu: &mut OffCpu,
        end: Option<Timestamp>,
        owner: Owner<'_>,
        sink: &mut Sink<'_, S>,
    ) {
        // Should the map be out of reach, the sums are told another time.
        for sum in off_cpu.sums().unwrap_or_default() {
            self.add_sum(sum, owner, sink);
        }
        let alive = self.threads.iter().filter(|(_, account)| !account.has_ended);
        let threads: Vec<Tid> = alive.map(|(tid, _)| *tid).collect();
        for thread in threads {
            self.look(off_cpu, thread, end, owner, sink);
        }
        self.forget_ended(off_cpu);
    }

    fn look(
        &mut self,
        off_cpu: &OffCpu,
        thread: Tid,
        end: Option<Timestamp>,
        owner: Owner<'_>,
        sink: &mut Sink<'_, S>,
    ) {
        let Some(account) = self.threads.get_mut(&thread) else { return };
        for _ in 0..MAX_LOOKS {
            // What is read later and began before was the case at this instant.
            let now = end.unwrap_or_else(clock::now);
            let Some(copy) = off_cpu.now(thread) else { continue };
            let record = copy.record();
            let since = record.left().unwrap_or(record.back());
            if since > now {
                continue;
            }
            // Of a thread that has not moved yet the first look said whether it ran.
            let ran_from_start = record.is_from_start() && account.first_state.is_none();
            let is_away = record.left().is_some() && !ran_from_start;
            if is_away && account.has_come_back(&record) {
                match end {
                    Some(end) => return account.lose_rest(&record, end),
                    None => continue,
                }
            }
            // One that is short may still be summed.
            let is_told = is_away && (end.is_some() || now.since(since) >= off_cpu.least());
            if is_told {
                account.take(&record, now, &self.missing, owner, sink);
            }
            let ran = if is_away { Nanos::ZERO } else { now.since(since) };
            account.totals.ran = account.ran + record.ran() + ran;
            account.totals.until = if is_away && !is_told { since } else { now };
            return;
        }
    }

    /// Adds short absences that have not been told yet.
    fn add_sum(&mut self, sum: ShortAbsences, owner: Owner<'_>, sink: &mut Sink<'_, S>) {
        let Some(account) = self.threads.get_mut(&sum.thread) else { return };
        let before = self.told.insert((sum.thread, sum.cause), sum);
        let (times, waited, queued) =
            before.map_or((0, Nanos::ZERO, Nanos::ZERO), |old| (old.absences, old.waited, old.queued));
        let mut times = sum.absences - times;
        if times == 0 {
            return;
        }
        let parts = [
            (off_cpu_reason::state(sum.cause, 0, owner), sum.waited.saturating_sub(waited)),
            (ThreadState::Waiting(WaitReason::Cpu), sum.queued.saturating_sub(queued)),
        ];
        for (state, duration) in parts.into_iter().filter(|(_, duration)| *duration != Nanos::ZERO) {
            account.add(state, duration);
            let (thread, stack) = (sum.thread, self.summed.clone());
            let at = clock::now();
            (sink.absence)(Absence { thread, at, state, duration, holds_gil: false, times, stack });
            times = 0;
        }
    }

    /// Forgets threads that have ended; all that they did was told.
    fn forget_ended(&mut self, off_cpu: &mut OffCpu) {
        let ended = |thread: &Tid| self.threads.get(thread).is_some_and(|account| account.has_ended);
        if self.threads.keys().any(&ended) {
            off_cpu.forget_sums(|thread| ended(&thread));
            self.told.retain(|(thread, _), _| !ended(thread));
            self.threads.retain(|_, account| !account.has_ended);
        }
    }
}

/// Has the kernel watch a thread; returns since when.
fn start_watch(off_cpu: &mut OffCpu, pid: Pid, thread: &Thread) -> Option<Timestamp> {
    for _ in 0..MAX_LOOKS {
        let arrivals = || thread.files.schedule().map(|schedule| schedule.times_run).ok();
        let before = arrivals()?;
        let now = clock::now();
        off_cpu.watch(pid, thread.tid, now, before).ok()?;
        // Otherwise it was put on a CPU while it was told of.
        if arrivals()? == before || !is_at_start(off_cpu, thread.tid) {
            return Some(now);
        }
    }
    off_cpu.forget(thread.tid);
    None
}

/// Whether a watched thread has neither left its CPU nor come back since the watch began.
fn is_at_start(off_cpu: &OffCpu, thread: Tid) -> bool {
    off_cpu.now(thread).is_some_and(|copy| copy.record().is_from_start() && copy.record().left().is_some())
}

impl<S: Clone> Account<S> {
    /// Takes an absence, as far as it has not been told, up to `until`.
    fn take(
        &mut self,
        record: &AbsenceRecord<'_>,
        until: Timestamp,
        missing: &S,
        owner: Owner<'_>,
        sink: &mut Sink<'_, S>,
    ) {
        let Some(left) = record.left() else { return };
        let told = self.told.filter(|(began, _)| *began == left).map(|(_, until)| until);
        let later = self.known.take_if(|known| known.began > left);
        let known = self.known.take().filter(|known| known.began == left);
        let known = known.unwrap_or_else(|| match record.stack() {
            Some(stack) => Known { began: left, stack: (sink.stack)(&stack), holds_gil: stack.holds_gil() },
            None => Known { began: left, stack: missing.clone(), holds_gil: false },
        });
        // It could go on from here.
        let ready = record.woken().unwrap_or(until).clamp(left, until);
        let cpu = ThreadState::Waiting(WaitReason::Cpu);
        let waited = self.state_of(record, owner);
        // Who takes the GIL marks it as taken before it writes its name: for a moment the last holder seems to hold it.
        let holds_gil = known.holds_gil && waited != ThreadState::WaitingForGil;
        let parts = [(left, ready, waited), (ready, until, cpu)];
        let mut times = u64::from(told.is_none());
        for (from, at, state) in parts {
            let duration = at.since(told.map_or(from, |told| from.max(told)));
            if duration != Nanos::ZERO {
                self.add(state, duration);
                let (thread, stack) = (record.thread(), known.stack.clone());
                (sink.absence)(Absence { thread, at, state, duration, holds_gil, times, stack });
                times = 0;
            }
        }
        if self.told.is_none_or(|(began, _)| began <= left) {
            self.told = Some((left, until));
        }
        self.known = later.or(Some(known));
    }

    /// When it came back from this absence was not told before the end.
    fn lose_rest(&mut self, record: &AbsenceRecord<'_>, end: Timestamp) {
        let left = record.left().unwrap_or(end);
        let from = self.told.filter(|(began, _)| *began == left).map_or(left, |(_, until)| until);
        self.totals.ran = self.ran + record.ran();
        self.totals.lost += end.since(from);
        self.totals.until = end;
    }

    /// Whether a thread that is taken to be away is on a CPU again: not every return is told at once.
    fn has_come_back(&self, record: &AbsenceRecord<'_>) -> bool {
        let arrivals = || self.files.schedule().ok().map(|schedule| schedule.times_run);
        self.last_arrivals.or_else(arrivals).is_some_and(|arrivals| arrivals > record.arrivals())
    }

    /// How much was told of an absence that no record ended, if this one is not its.
    fn told_of_others(&self, record: &AbsenceRecord<'_>) -> Nanos {
        let told = self.told.filter(|(began, _)| record.left().is_some_and(|left| *began < left));
        told.map_or(Nanos::ZERO, |(began, until)| until.since(began))
    }

    fn state_of(&self, record: &AbsenceRecord<'_>, owner: Owner<'_>) -> ThreadState {
        match (record.is_from_start(), self.first_state, record.woken()) {
            (false, _, _) => off_cpu_reason::state(record.cause(), record.scheduler_state(), owner),
            (true, Some(state), _) => state,
            (true, None, Some(_)) => ThreadState::Waiting(WaitReason::Unknown),
            (true, None, None) => ThreadState::Waiting(WaitReason::Cpu),
        }
    }

    fn add(&mut self, state: ThreadState, duration: Nanos) {
        let sum = self.totals.waited.entry(state).or_default();
        *sum += duration;
    }
}
