//! A kernel thread of a target: its files in `/proc`, its counters, and what the last look found.

use std::io;

use profiler_model::{ClockReading, Nanos, Pid, SchedStat, ThreadState, Tid, Timestamp, WaitReason};
use profiler_os::{Activity, Switch, ThreadFiles};

use super::looks::Looks;
use super::queue_watch::QueueWatch;
use crate::rota::{COST_OF_ASKING, COST_OF_WATCHING, LookResult};
use crate::sleep_watch::SleepWatch;

/// Identifies a thread for as long as it is known, whatever its index is. A slot is never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadSlot(pub u32);

/// A kernel thread.
#[derive(Debug)]
pub struct KernelThread {
    /// Identifies it in events and accounts.
    pub slot: ThreadSlot,
    /// The thread's id.
    pub tid: Tid,
    /// Its files in `/proc`.
    pub files: ThreadFiles,
    /// The scheduler's counters at the last look.
    pub schedule: SchedStat,
    /// What the thread was doing at the last look.
    pub activity: Activity,
    /// When the thread was first seen, and the scheduler's counters then.
    pub met: (Timestamp, SchedStat),
    /// When the thread was looked at.
    pub looks: Looks,
    /// When the thread waits for a CPU.
    queue: QueueWatch,
    /// Whether the thread sleeps on, once it has slept for a while.
    sleep: SleepWatch,
}

impl KernelThread {
    /// A thread that is met at `now`, at the instant with the number `instant`; `None` if it has ended already.
    pub fn met(slot: ThreadSlot, (pid, tid): (Pid, Tid), (instant, now): (u64, Timestamp)) -> Option<Self> {
        let files = ThreadFiles::open(pid, tid).ok()?;
        // In this order, as in `look_now`; the first sample already shows which threads wait.
        let schedule = files.schedule().ok()?;
        let activity = files.activity().ok()?;
        Some(KernelThread {
            slot,
            tid,
            files,
            schedule,
            activity,
            met: (now, schedule),
            looks: Looks::from(instant, activity == Activity::Running),
            queue: QueueWatch::new(&schedule),
            sleep: SleepWatch::default(),
        })
    }

    /// Looks at what the thread is doing.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn look(&mut self) -> io::Result<()> {
        let (was_running, timeslices) = (self.is_running(), self.schedule.timeslices);
        self.look_now()?;
        let has_run = was_running || self.schedule.timeslices != timeslices;
        self.looks.note(self.is_running(), has_run);
        Ok(())
    }

    /// Looks at the thread for the instant with the number `instant`.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn look_at(&mut self, instant: u64) -> io::Result<LookResult> {
        let cost = if self.sleep.sleeps_on() { COST_OF_WATCHING } else { COST_OF_ASKING };
        let skipped = self.looks.begin(instant);
        self.look().inspect_err(|_| self.looks.count_unknown(skipped))?;
        self.looks.count_skipped(skipped);
        Ok(LookResult { rests: self.looks.rests(), cost })
    }

    fn look_now(&mut self) -> io::Result<()> {
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
        // they stay the same.
        let schedule = self.files.schedule()?;
        let sleeps_on = !self.is_running() && schedule.timeslices == self.schedule.timeslices;
        // Where CPUs are short, the thread may have been woken and still be without one.
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

    /// Takes the number of earlier instants at which the thread slept as it does now and was not looked at, and that are
    /// in no event yet.
    pub fn take_unseen_asleep(&mut self) -> u64 {
        self.looks.take_asleep()
    }

    /// Notes that the thread has to wait for a CPU, which makes it worth knowing when it does.
    pub fn shares_its_cpu(&self) {
        self.queue.shares_its_cpu();
    }

    /// Takes over the scheduler's counters.
    fn count(&mut self, schedule: SchedStat) {
        self.queue.note_schedule(&self.schedule, &schedule);
        self.schedule = schedule;
    }

    /// Reads the scheduler's counters if the thread was running at the last look: a look leaves them out then.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn count_if_running(&mut self) -> io::Result<()> {
        if self.is_running() {
            let schedule = self.files.schedule()?;
            self.count(schedule);
        }
        Ok(())
    }

    /// Has the kernel record from now on when the thread gets a CPU and when it loses it.
    pub fn watch_switches(&self) {
        self.queue.begin(self.tid);
    }

    /// Ends the record of the thread's context switches.
    pub fn unwatch_switches(&mut self) {
        self.queue.end();
    }

    /// The number of context switches since they are recorded.
    pub fn switches(&self) -> u64 {
        self.queue.switches()
    }

    /// The last context switch, if they are recorded.
    pub fn last_switch(&self) -> Option<Switch> {
        self.queue.last_switch()
    }

    /// Whether a look shows that the thread waits for a CPU: it does so for threads that had to wait for one before.
    pub fn sees_queue(&self) -> bool {
        self.queue.sees_queue()
    }

    /// The thread's exact clock, if the thread waits for a CPU: as long as the clock stays the same, the thread has not
    /// run.
    pub fn clock_while_queued(&self) -> Option<Nanos> {
        self.queue.clock_while_queued(self.tid)
    }

    /// The thread's exact clock; `None` if it has none.
    pub fn clock_now(&self) -> Option<Nanos> {
        self.queue.clock_now(self.tid)
    }

    /// Takes the CPU time that the thread has used by now. It is exact if the thread has just been taken off its CPU: by a
    /// stop, or by this process. In the second case its `clock`, which was read for the proof, gives the CPU time as well
    /// as the scheduler's counters.
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

    /// Whether the thread was on a CPU at `at`, as far as is known.
    pub fn was_on_cpu(&self, at: Timestamp) -> bool {
        self.queue.was_on_cpu(self.tid, at)
    }

    /// Whether the thread has not run since the last look, at which it was asleep.
    pub fn slept_since_look(&self) -> bool {
        self.sleep.sleeps_on()
            || !self.is_running()
                && self.files.schedule().is_ok_and(|now| now.timeslices == self.schedule.timeslices)
    }

    /// Whether the thread ran at the last look and does not now.
    pub fn has_fallen_asleep_since_look(&self) -> bool {
        self.is_running() && self.files.activity().is_ok_and(|now| now != Activity::Running)
    }

    /// Whether the thread was running or runnable at the last look.
    pub fn is_running(&self) -> bool {
        self.activity == Activity::Running
    }

    /// The thread's count of timeslices, if it was asleep at the last look.
    pub fn timeslices_asleep(&self) -> Option<u64> {
        (!self.is_running()).then_some(self.schedule.timeslices)
    }

    /// The state of the thread at the last look.
    pub fn state(&self) -> ThreadState {
        self.activity.thread_state()
    }

    /// The clocks of a thread that was looked at just now, and its state at `at`: `state`, unless it waited for a CPU then.
    pub fn read_clocks(&self, state: ThreadState, at: Timestamp) -> (ThreadState, ClockReading) {
        let had_cpu = self.is_running() && self.was_on_cpu(at);
        let state = match self.is_running() && !had_cpu {
            true => ThreadState::Waiting(WaitReason::Cpu),
            false => state,
        };
        (state, ClockReading::Scheduler { cpu: self.schedule.cpu, had_cpu })
    }
}
