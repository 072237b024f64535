//! Whether a thread waits for a CPU, from its exact clock and its context switches. Both have a cost, so they are opened only for
//! threads that share their CPU.

use std::cell::Cell;

use profiler_model::{Nanos, SchedStat, Tid, Timestamp};
use profiler_os::{ContextSwitchLog, Switch, SwitchKind, ThreadClock};

use crate::lazy_event::LazyEvent;

/// A thread that has waited for a CPU for longer than this since its last sample shares it with others.
const NEGLIGIBLE_QUEUE: Nanos = Nanos::from_nanos(100_000);

/// A thread that is met probably shares its CPU if it has waited for a CPU for more than this fraction of its CPU time. To
/// find out is expensive: the first perf event on a thread keeps the kernel busy for ten milliseconds.
const SHARE_OF_WAITING: u64 = 8;

/// The number of times in a row that a thread's CPU time is derived from its exact clock.
const MAX_COUNTED_BY_CLOCK: u32 = 16;

/// By the kernel's record, a timer for an instant can take the CPU from a thread 10 µs before the instant. A thread that loses
/// its CPU less than this time before the instant loses it to the profiler.
const EARLY_WAKING: Nanos = Nanos::from_nanos(20_000);

/// Watches when one thread waits for a CPU.
#[derive(Debug)]
pub struct QueueWatch {
    /// Whether the thread had to wait for a CPU when it was sampled last.
    waits_for_cpu: Cell<bool>,
    /// The thread's exact clock, opened when it first had to wait for a CPU.
    clock: LazyEvent<ThreadClock>,
    /// The exact clock when the scheduler's counters were read last.
    counted_by_clock: Option<CountedByClock>,
    /// The thread's context switches, recorded from the first time that it had to wait for a CPU.
    switches: LazyEvent<ContextSwitchLog>,
}

/// Two clocks of a thread at one instant.
#[derive(Clone, Copy, Debug)]
struct CountedByClock {
    /// The exact clock.
    clock: Nanos,
    /// The scheduler's CPU time.
    cpu: Nanos,
    /// The number of times that the CPU time was derived from these two since then.
    times: u32,
}

impl QueueWatch {
    /// A watch for a thread with these counters of the scheduler.
    pub fn new(schedule: &SchedStat) -> Self {
        QueueWatch {
            waits_for_cpu: Cell::new(has_waited_much(schedule)),
            clock: LazyEvent::default(),
            counted_by_clock: None,
            switches: LazyEvent::default(),
        }
    }

    /// Notes that the thread has to wait for a CPU, which makes it worth knowing when it does.
    pub fn shares_its_cpu(&self) {
        self.waits_for_cpu.set(true);
    }

    /// Compares the scheduler's counters of two looks: did the thread wait for a CPU between them?
    pub fn note_schedule(&self, before: &SchedStat, now: &SchedStat) {
        // The scheduler counts the wait for a CPU when it is over.
        let waits_on = now.timeslices == before.timeslices && now.cpu == before.cpu;
        if !waits_on {
            let waited = now.queued.saturating_sub(before.queued);
            self.waits_for_cpu.set(waited > NEGLIGIBLE_QUEUE);
        }
    }

    /// Has the kernel record from now on when the thread gets a CPU and when it loses it.
    pub fn begin(&self, tid: Tid) {
        self.switches.or_open(|| ContextSwitchLog::open(tid));
    }

    /// Ends the record: each context switch costs the thread a little more with it.
    pub fn end(&mut self) {
        (self.switches, self.clock) = Default::default();
        self.counted_by_clock = None;
    }

    /// The number of context switches since they are recorded.
    pub fn switches(&self) -> u64 {
        self.switches.now().map_or(0, ContextSwitchLog::switches)
    }

    /// The last context switch, if they are recorded.
    pub fn last_switch(&self) -> Option<Switch> {
        self.switches.now()?.last()
    }

    /// Whether a wait of the thread for a CPU is recorded: it is for a thread that has shared its CPU before.
    pub fn sees_queue(&self) -> bool {
        self.switches.now().is_some()
    }

    /// Whether the thread was preempted and waits for a CPU, as far as its context switches are recorded.
    pub fn is_preempted(&self) -> bool {
        self.last_switch().is_some_and(|switch| switch.kind == SwitchKind::Preempted)
    }

    /// The thread's exact clock, if the thread waits for a CPU: as long as the clock stays the same, the thread has not run.
    pub fn clock_while_queued(&self, tid: Tid) -> Option<Nanos> {
        match self.last_switch().map(|switch| switch.kind) {
            Some(SwitchKind::In) => return None,
            // The thread was preempted, or it was woken and has no CPU yet.
            Some(SwitchKind::Preempted | SwitchKind::Out) => return self.clock_now(tid),
            None => {}
        }
        if !self.waits_for_cpu.get() {
            // Reading the clock of a running thread interrupts it.
            return None;
        }
        let now = self.clock_now(tid)?;
        (self.clock_now(tid) == Some(now)).then_some(now)
    }

    /// The thread's exact clock; `None` if it has none.
    pub fn clock_now(&self, tid: Tid) -> Option<Nanos> {
        self.clock.or_open(|| ThreadClock::open(tid))?.read().ok()
    }

    /// The CPU time by the scheduler's counters, derived from the exact clock `now`: the kernel takes longer to give the
    /// counters. `None` if it is time to read the counters again, so that no error accumulates.
    pub fn cpu_by_clock(&mut self, now: Nanos) -> Option<Nanos> {
        let counted =
            self.counted_by_clock.as_mut().filter(|counted| counted.times < MAX_COUNTED_BY_CLOCK)?;
        counted.times += 1;
        Some(counted.cpu + now.saturating_sub(counted.clock))
    }

    /// Notes the scheduler's CPU time at the time of the exact clock `clock`, if the thread has one.
    pub fn note_clock(&mut self, clock: Option<Nanos>, cpu: Nanos) {
        self.counted_by_clock = clock.map(|clock| CountedByClock { clock, cpu, times: 0 });
    }

    /// Whether the thread, which is running or runnable, was on a CPU at `at`, as far as is known. A thread that never had to
    /// wait for a CPU was.
    pub fn was_on_cpu(&self, tid: Tid, at: Timestamp) -> bool {
        if !self.waits_for_cpu.get() && !self.switches.was_tried() {
            return true;
        }
        let switches = self.switches.or_open(|| ContextSwitchLog::open(tid));
        let before_waking = Timestamp::from_nanos(at.as_nanos().saturating_sub(EARLY_WAKING.as_nanos()));
        switches.and_then(|switches| switches.was_on_cpu(before_waking)).unwrap_or(true)
    }
}

/// Whether a thread has waited for a CPU for a good part of its life.
fn has_waited_much(schedule: &SchedStat) -> bool {
    schedule.queued > NEGLIGIBLE_QUEUE
        && schedule.queued.as_nanos() > schedule.cpu.as_nanos() / SHARE_OF_WAITING
}
