//! A Python thread: its thread state, its kernel thread, and what was last seen of it.

use profiler_model::{Nanos, Pid, SchedStat, ThreadState, Tid, Timestamp};
use profiler_os::{Activity, Switch, ThreadFiles};
use profiler_python::{GilAddresses, PyThreadState};

use super::queue_watch::QueueWatch;
use crate::rota::{COST_OF_ASKING, COST_OF_WATCHING, LOOKS_BEFORE_REST, LookResult};
use crate::sleep_watch::SleepWatch;

/// A thread for as long as it is known, whatever its index is: no other one ever has the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadSlot(pub u32);

/// A Python thread.
#[derive(Debug)]
pub struct Thread {
    /// What it is known by.
    pub slot: ThreadSlot,
    /// Its thread state.
    pub python: PyThreadState,
    /// The interpreter, as an index into [`ThreadTable::interpreters`](super::ThreadTable::interpreters).
    pub interpreter: usize,
    /// Its kernel thread.
    pub tid: Tid,
    /// Whether the list of its interpreter had its thread state when that was read. A thread of C code that calls Python
    /// now and then (`PyGILState_Ensure`) has a new thread state in each call, mostly at the same address: between
    /// calls it stays, so that its clocks are read on and the next call is met.
    pub is_listed: bool,
    /// Its files in `/proc`.
    pub files: ThreadFiles,
    /// What the scheduler had counted at the last look.
    pub schedule: SchedStat,
    /// What it was doing at the last look.
    pub activity: Activity,
    /// When it was first seen, and what the scheduler had counted then.
    pub met: (Timestamp, SchedStat),
    /// When it was looked at.
    pub looks: Looks,
    /// When it waits for a CPU.
    queue: QueueWatch,
    /// Whether it sleeps on, once it has slept for a while.
    sleep: SleepWatch,
}

/// When a thread was looked at, and what came of that.
#[derive(Debug, Default)]
pub struct Looks {
    /// Whether it slept at the last look and had run since the one before.
    pub has_fallen_asleep: bool,
    /// Whether it ran at the last look, or has run since the one before.
    has_run: bool,
    /// At how many looks in a row it was asleep and had not run.
    asleep: u16,
    /// The instant at which it was looked at last, by its number.
    last: u64,
    /// The instant for which its state was reported last, by its number.
    pub reported: u64,
    /// The instants at which it was not looked at and that are not reported yet.
    pub unseen: UnseenInstants,
}

/// Instants at which a thread was not looked at, by what its counters said of them later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnseenInstants {
    /// It slept, as it had not run since the look before.
    pub asleep: u64,
    /// It ran at some time: what it did at each of them is not known.
    pub unknown: u64,
}

impl Looks {
    /// Of a thread that is met at the instant of this number.
    fn from(instant: u64, runs: bool) -> Self {
        let asleep = if runs { 0 } else { LOOKS_BEFORE_REST };
        Looks { has_run: runs, asleep, last: instant, ..Looks::default() }
    }

    /// How many instants there were after the last look, up to the one of this number.
    pub fn instants_since(&self, instant: u64) -> u64 {
        instant.saturating_sub(self.last)
    }

    /// How many instants are in no event yet, up to the one of this number.
    pub fn unreported(&self, instant: u64) -> u64 {
        self.unseen.asleep + self.unseen.unknown + self.instants_since(instant)
    }

    /// The instant at which it was looked at last, by its number.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Whether it was looked at, at the instant of this number, and that is in no event yet.
    pub fn is_unreported(&self, instant: u64) -> bool {
        self.last == instant && self.reported != instant
    }

    /// Whether it has slept for long enough to be looked at now and then.
    pub fn rests(&self) -> bool {
        self.asleep >= LOOKS_BEFORE_REST
    }
}

impl Thread {
    /// A thread that is met at `now`, at the instant of this number; `None` if it is gone already.
    pub fn met(
        slot: ThreadSlot,
        (pid, tid): (Pid, Tid),
        (python, interpreter): (PyThreadState, usize),
        (instant, now): (u64, Timestamp),
    ) -> Option<Self> {
        let files = ThreadFiles::open(pid, tid).ok()?;
        // In this order, as in `look_now`; the first sample already shows who waits.
        let schedule = files.schedule().ok()?;
        let activity = files.activity().ok()?;
        Some(Thread {
            slot,
            python,
            interpreter,
            tid,
            is_listed: true,
            files,
            schedule,
            activity,
            met: (now, schedule),
            looks: Looks::from(instant, activity == Activity::Running),
            queue: QueueWatch::new(&schedule),
            sleep: SleepWatch::default(),
        })
    }

    /// The same thread with another thread state.
    pub fn with_state(self, python: PyThreadState, interpreter: usize, is_listed: bool) -> Self {
        Thread { python, interpreter, is_listed, ..self }
    }

    /// Looks at what the thread is doing.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn look(&mut self) -> std::io::Result<()> {
        let (was_running, timeslices) = (self.is_running(), self.schedule.timeslices);
        self.look_now()?;
        let has_run = was_running || self.schedule.timeslices != timeslices;
        let runs = self.is_running();
        let looks = &mut self.looks;
        looks.has_fallen_asleep = !runs && has_run;
        looks.has_run = runs || has_run;
        looks.asleep = if looks.has_run { 0 } else { looks.asleep.saturating_add(1) };
        Ok(())
    }

    /// Looks at it for the instant of this number.
    pub fn look_at(&mut self, instant: u64) -> std::io::Result<LookResult> {
        let skipped = self.looks.instants_since(instant).saturating_sub(1);
        let cost = if self.sleep.sleeps_on() { COST_OF_WATCHING } else { COST_OF_ASKING };
        self.looks.last = instant;
        self.look().inspect_err(|_| self.looks.unseen.unknown += skipped)?;
        match self.looks.has_run {
            true => self.looks.unseen.unknown += skipped,
            false => self.looks.unseen.asleep += skipped,
        }
        Ok(LookResult { rests: self.looks.rests(), cost })
    }

    fn look_now(&mut self) -> std::io::Result<()> {
        if self.sleep.sleeps_on() {
            return Ok(());
        }
        let mark = self.sleep.mark();
        if self.queue.is_preempted() {
            self.activity = Activity::Running;
            return Ok(());
        }
        if self.is_running() && self.files.activity()? == Activity::Running {
            // Its counters are read when it is sampled.
            return Ok(());
        }
        // The counters come before the activity: a thread that is then seen asleep has not run as long as
        // they stay.
        let schedule = self.files.schedule()?;
        let sleeps_on = !self.is_running() && schedule.timeslices == self.schedule.timeslices;
        // Where CPUs are short, it may be woken and still have none.
        if !sleeps_on || self.queue.sees_queue() {
            self.activity = self.files.activity()?;
        }
        self.schedule = schedule;
        match self.activity {
            Activity::Running => self.sleep.saw_awake(),
            Activity::Blocked { .. } | Activity::Stopped => self.sleep.saw_asleep(mark, self.tid),
        }
        Ok(())
    }

    /// At how many earlier instants it slept as it does now and was not looked at, since this was last asked.
    pub fn take_unseen_asleep(&mut self) -> u64 {
        std::mem::take(&mut self.looks.unseen.asleep)
    }

    /// Notes that the thread has to wait for a CPU, so that it is worth to know when it does.
    pub fn shares_its_cpu(&self) {
        self.queue.shares_its_cpu();
    }

    /// Takes what the scheduler has counted by now.
    fn count(&mut self, schedule: SchedStat) {
        self.queue.note_schedule(&self.schedule, &schedule);
        self.schedule = schedule;
    }

    /// Takes what the scheduler has counted for a thread that ran at the last look: a look does not ask for that.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn count_if_running(&mut self) -> std::io::Result<()> {
        if self.is_running() {
            let schedule = self.files.schedule()?;
            self.count(schedule);
        }
        Ok(())
    }

    /// Has the kernel write down from now on when the thread gets a CPU and when it loses it.
    pub fn watch_switches(&self) {
        self.queue.begin(self.tid);
    }

    /// Has it not be written down any more.
    pub fn unwatch_switches(&mut self) {
        self.queue.end();
    }

    /// How often it got a CPU or lost it, since that is watched.
    pub fn switches(&self) -> u64 {
        self.queue.switches()
    }

    /// The last time that it got a CPU or lost it, as far as that is watched.
    pub fn last_switch(&self) -> Option<Switch> {
        self.queue.last_switch()
    }

    /// Whether it is seen when it waits for a CPU: it has shared one before.
    pub fn sees_queue(&self) -> bool {
        self.queue.sees_queue()
    }

    /// What its exact clock says, if the thread waits for a CPU: as long as the clock says the same, it has not run.
    pub fn clock_while_queued(&self) -> Option<Nanos> {
        self.queue.clock_while_queued(self.tid)
    }

    /// What its exact clock says; `None` where it has none.
    pub fn clock_now(&self) -> Option<Nanos> {
        self.queue.clock_now(self.tid)
    }

    /// Takes the CPU time that it has used by now. Exact if it has just been taken off its CPU: by a stop, or by this
    /// process. In the second case its `clock`, which was read for the proof, says it as well as the scheduler's
    /// counters.
    pub fn count_cpu(&mut self, clock: Option<Nanos>) {
        if let Some(cpu) = clock.and_then(|now| self.queue.cpu_by_clock(now)) {
            self.schedule.cpu = cpu;
            return;
        }
        if let Ok(schedule) = self.files.schedule() {
            self.count(schedule);
            self.queue.note_clock(clock, schedule.cpu);
        }
    }

    /// Whether it was on a CPU at the instant `at`, as far as is known.
    pub fn was_on_cpu(&self, at: Timestamp) -> bool {
        self.queue.was_on_cpu(self.tid, at)
    }

    /// Whether the thread has not run since the last look, at which it was asleep.
    pub fn slept_since_look(&self) -> bool {
        self.sleep.sleeps_on()
            || !self.is_running()
                && self.files.schedule().is_ok_and(|now| now.timeslices == self.schedule.timeslices)
    }

    /// Whether it ran at the last look and does not now.
    pub fn has_fallen_asleep_since_look(&self) -> bool {
        self.is_running() && self.files.activity().is_ok_and(|now| now != Activity::Running)
    }

    /// Whether it was on a CPU, or ready for one, at the last look.
    pub fn is_running(&self) -> bool {
        self.activity == Activity::Running
    }

    /// How often it had run when it was seen asleep at the last look; `None` if it was not.
    pub fn timeslices_asleep(&self) -> Option<u64> {
        (!self.is_running()).then_some(self.schedule.timeslices)
    }

    /// Its state at the last look; a futex inside the GIL's structure is the GIL's.
    pub fn state(&self, gil: Option<&GilAddresses>) -> ThreadState {
        match (self.activity.futex(), gil) {
            (Some(futex), Some(gil)) if (gil.start..gil.end).contains(&futex) => ThreadState::WaitingForGil,
            _ => self.activity.thread_state(),
        }
    }
}
