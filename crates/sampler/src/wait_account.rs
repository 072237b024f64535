//! The time of a thread off the CPU that stands in no sample yet, by the scheduler's own account: what went by, less
//! what it ran and less what it was ready to run without a CPU. So however seldom a thread is met waiting, its waits
//! add up to the time that it waited.

use profiler_model::{Nanos, Timestamp};
use profiler_os::Schedule;

/// What of a thread's time off the CPU was accounted for already.
#[derive(Clone, Copy, Debug)]
pub struct WaitAccount {
    from: Timestamp,
    /// What it had run and queued by then.
    ran: Nanos,
    queued: Nanos,
    /// What of its sleep and of its time in the queue since then was taken.
    sleep_taken: Nanos,
    queue_taken: Nanos,
    /// When it was looked at last, and the time between that look and the one before.
    looked: Timestamp,
    gap: Nanos,
}

impl WaitAccount {
    /// Nothing is accounted for that comes after `now`, when the scheduler had counted `schedule`.
    pub fn from(now: Timestamp, schedule: &Schedule) -> Self {
        WaitAccount {
            from: now,
            ran: schedule.cpu,
            queued: schedule.queued,
            sleep_taken: Nanos::ZERO,
            queue_taken: Nanos::ZERO,
            looked: now,
            gap: Nanos::ZERO,
        }
    }

    /// The time for which it slept, up to `now`: it is asleep, so that `schedule` is exact. That may have been asked for
    /// a moment after `now`, by one that lost its CPU in between; the next time makes good for it.
    pub fn take_sleep(&mut self, now: Timestamp, schedule: &Schedule) -> Nanos {
        let ran = schedule.cpu.saturating_sub(self.ran);
        let queued = schedule.queued.saturating_sub(self.queued);
        let slept = now.since(self.from).saturating_sub(ran).saturating_sub(queued);
        let new = slept.saturating_sub(self.sleep_taken);
        self.sleep_taken += new;
        new
    }

    /// The time for which it was ready to run without a CPU; the scheduler counts such a time when it is over.
    pub fn take_queue(&mut self, schedule: &Schedule) -> Nanos {
        let queued = schedule.queued.saturating_sub(self.queued);
        let new = queued.saturating_sub(self.queue_taken);
        self.queue_taken += new;
        new
    }

    /// Notes that it is looked at.
    pub fn look(&mut self, now: Timestamp) {
        self.gap = now.since(self.looked);
        self.looked = now;
    }

    /// The time between the last two looks.
    pub fn gap(&self) -> Nanos {
        self.gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(cpu: u64, queued: u64) -> Schedule {
        Schedule { cpu: Nanos::from_nanos(cpu), queued: Nanos::from_nanos(queued), times_run: 0 }
    }

    #[test]
    fn waits_add_up_to_what_went_by_less_what_it_ran_and_queued() {
        let at = Timestamp::from_nanos;
        let mut account = WaitAccount::from(at(100), &schedule(1_000, 50));
        assert_eq!(account.take_sleep(at(200), &schedule(1_000, 50)), Nanos::from_nanos(100));
        // Met running at the looks in between.
        assert_eq!(account.take_sleep(at(700), &schedule(1_300, 90)), Nanos::from_nanos(160));
        assert_eq!(account.take_queue(&schedule(1_300, 90)), Nanos::from_nanos(40));
        assert_eq!(account.take_queue(&schedule(1_300, 90)), Nanos::ZERO);
        // What it ran between two looks at clocks is no sleep, at this time or the next.
        assert_eq!(account.take_sleep(at(710), &schedule(1_350, 90)), Nanos::ZERO);
        assert_eq!(account.take_sleep(at(810), &schedule(1_350, 90)), Nanos::from_nanos(60));
        account.look(at(710));
        assert_eq!(account.gap(), Nanos::from_nanos(610));
        account.look(at(720));
        assert_eq!(account.gap(), Nanos::from_nanos(10));
    }
}
