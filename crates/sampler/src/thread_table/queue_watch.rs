//! When one thread waits for a CPU: what its exact clock and its context switches say, once that is worth its cost.

use std::cell::Cell;

use profiler_model::{Nanos, SchedStat, Tid, Timestamp};
use profiler_os::{ContextSwitchLog, Switch, SwitchKind, ThreadClock};

use crate::lazy_event::LazyEvent;

/// A thread that has waited for a CPU for longer than this since its last sample shares it with others.
const NEGLIGIBLE_QUEUE: Nanos = Nanos::from_nanos(100_000);

/// A thread that is met for the first time and has waited for more than this part of the time that it had a CPU
/// probably shares it still. To find out costs: the first perf event on a thread keeps the kernel busy for ten
/// milliseconds.
const SHARE_OF_WAITING: u64 = 8;

/// How often in a row a thread's CPU time is derived from its exact clock.
const MAX_COUNTED_BY_CLOCK: u32 = 16;

/// A timer for an instant was seen to take the CPU from a thread as much as 10 µs before it, by the time of the
/// kernel's record: a thread that lost it no earlier than this before the instant lost it to the profiler.
const EARLY_WAKING: Nanos = Nanos::from_nanos(20_000);

/// Watches when one thread waits for a CPU.
#[derive(Debug)]
pub struct QueueWatch {
    /// Whether the thread had to wait for a CPU when it was sampled last.
    waits_for_cpu: Cell<bool>,
    /// Its exact clock, once it had to wait for a CPU.
    clock: LazyEvent<ThreadClock>,
    /// What its exact clock said when the scheduler's counters were read last.
    counted_by_clock: Option<CountedByClock>,
    /// Its context switches, from the first time on that it had to wait for a CPU.
    switches: LazyEvent<ContextSwitchLog>,
}

/// What two clocks of a thread said at one instant.
#[derive(Clone, Copy, Debug)]
struct CountedByClock {
    /// Its exact clock.
    clock: Nanos,
    /// The scheduler's.
    cpu: Nanos,
    /// How often the scheduler's was derived from that since.
    times: u32,
}

impl QueueWatch {
    /// For a thread of which the scheduler has counted so much.
    pub fn new(schedule: &SchedStat) -> Self {
        QueueWatch {
            waits_for_cpu: Cell::new(has_waited_much(schedule)),
            clock: LazyEvent::default(),
            counted_by_clock: None,
            switches: LazyEvent::default(),
        }
    }

    /// Notes that the thread has to wait for a CPU, so that it is worth to know when it does.
    pub fn shares_its_cpu(&self) {
        self.waits_for_cpu.set(true);
    }

    /// Notes what the scheduler has counted between two looks.
    pub fn note_schedule(&self, before: &SchedStat, now: &SchedStat) {
        // The wait for a CPU is counted when it is over.
        let waits_on = now.timeslices == before.timeslices && now.cpu == before.cpu;
        if !waits_on {
            let waited = now.queued.saturating_sub(before.queued);
            self.waits_for_cpu.set(waited > NEGLIGIBLE_QUEUE);
        }
    }

    /// Has the kernel write down from now on when the thread gets a CPU and when it loses it.
    pub fn begin(&self, tid: Tid) {
        self.switches.or_open(|| ContextSwitchLog::open(tid));
    }

    /// Has it not be written down any more: each time costs the thread a little.
    pub fn end(&mut self) {
        (self.switches, self.clock) = Default::default();
        self.counted_by_clock = None;
    }

    /// How often the thread got a CPU or lost it, since that is watched.
    pub fn switches(&self) -> u64 {
        self.switches.now().map_or(0, ContextSwitchLog::switches)
    }

    /// The last time that it got a CPU or lost it, as far as that is watched.
    pub fn last_switch(&self) -> Option<Switch> {
        self.switches.now()?.last()
    }

    /// Whether the thread is seen when it waits for a CPU: it has shared one before.
    pub fn sees_queue(&self) -> bool {
        self.switches.now().is_some()
    }

    /// Whether it has lost its CPU and waits to go on, as far as that is watched.
    pub fn is_preempted(&self) -> bool {
        self.last_switch().is_some_and(|switch| switch.kind == SwitchKind::Preempted)
    }

    /// What its exact clock says, if the thread waits for a CPU: as long as the clock says the same, it has not
    /// run.
    pub fn clock_while_queued(&self, tid: Tid) -> Option<Nanos> {
        match self.last_switch().map(|switch| switch.kind) {
            Some(SwitchKind::In) => return None,
            // It lost its CPU, or was woken and has none yet.
            Some(SwitchKind::Preempted | SwitchKind::Out) => return self.clock_now(tid),
            None => {}
        }
        if !self.waits_for_cpu.get() {
            // To read the clock of a thread that runs interrupts it.
            return None;
        }
        let now = self.clock_now(tid)?;
        (self.clock_now(tid) == Some(now)).then_some(now)
    }

    /// What its exact clock says; `None` where it has none.
    pub fn clock_now(&self, tid: Tid) -> Option<Nanos> {
        self.clock.or_open(|| ThreadClock::open(tid))?.read().ok()
    }

    /// The CPU time by the scheduler's counters, derived from the exact clock, which says `now`: the counters take the kernel
    /// longer. `None` if they are to be read again, so that no error adds up.
    pub fn cpu_by_clock(&mut self, now: Nanos) -> Option<Nanos> {
        let counted =
            self.counted_by_clock.as_mut().filter(|counted| counted.times < MAX_COUNTED_BY_CLOCK)?;
        counted.times += 1;
        Some(counted.cpu + now.saturating_sub(counted.clock))
    }

    /// Notes what the scheduler's counters said when the exact clock, if there is one, was read.
    pub fn note_clock(&mut self, clock: Option<Nanos>, cpu: Nanos) {
        self.counted_by_clock = clock.map(|clock| CountedByClock { clock, cpu, times: 0 });
    }

    /// Whether the thread was on a CPU at the instant `at`, as far as is known. One that never had to wait for a CPU was,
    /// if it runs.
    pub fn was_on_cpu(&self, tid: Tid, at: Timestamp) -> bool {
        if !self.waits_for_cpu.get() && !self.switches.was_tried() {
            return true;
        }
        let switches = self.switches.or_open(|| ContextSwitchLog::open(tid));
        let before_waking = Timestamp::from_nanos(at.as_nanos().saturating_sub(EARLY_WAKING.as_nanos()));
        switches.and_then(|switches| switches.was_on_cpu(before_waking)).unwrap_or(true)
    }
}

/// Whether a thread had to wait for CPUs for a good part of its life.
fn has_waited_much(schedule: &SchedStat) -> bool {
    schedule.queued > NEGLIGIBLE_QUEUE
        && schedule.queued.as_nanos() > schedule.cpu.as_nanos() / SHARE_OF_WAITING
}
