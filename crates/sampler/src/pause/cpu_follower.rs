//! Sampling from the CPU of the thread that is sampled, where one thread runs.
//!
//! A sampler with real-time priority that is woken there takes the CPU from that thread at the very instant, and gives it
//! back when it sleeps: the thread stands still without being stopped, its exact clock proves it, and neither another
//! CPU has to be interrupted nor the thread's own put to sleep and woken, which costs more than all reading.
//!
//! Only its own timer wakes it at an instant that has nothing to do with what the thread does. When it comes there from
//! another CPU, the thread learns that it has to give way by an interrupt from there, which takes microseconds to arrive,
//! or on its way out of the kernel if it has been there meanwhile: it would be found at system calls more often than it
//! is at them. So what is found on arrival is not sampled.
//!
//! To know which CPU that is costs the thread a little each time it gets one or loses it. So threads that do so all the
//! time are left alone, and stopped instead.

use profiler_account::Random;
use profiler_model::{Nanos, Timestamp};
use profiler_os::{Affinity, clock};

/// Which threads run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runners {
    /// None, or it is not known where.
    None,
    /// One.
    One {
        /// The CPU that it had last.
        cpu: u32,
        /// How often it got one or lost it, since that is watched.
        switches: u64,
    },
    /// Several.
    Many,
}

/// A thread that gets a CPU or loses it more often than this in a second, but for the sampler, is left alone: each time
/// takes a microsecond or two longer while it is watched.
const MOST_SWITCHES_A_SECOND: f64 = 2_000.0;

/// They are counted over so long.
const WINDOW: Nanos = Nanos::from_nanos(200_000_000);

/// For each instant the sampler takes the CPU and gives it back.
const OWN_SWITCHES: u64 = 2;

/// What was found on arrival is left alone for at least so long, and at most [`LONGEST_REST`].
const SHORTEST_REST: Nanos = Nanos::from_nanos(10_000);

/// Programs do the same over and over: where one is after a certain time follows from where it was. So the time is a random
/// one, and long enough for all that takes as long as that interrupt.
const LONGEST_REST: Nanos = Nanos::from_nanos(110_000);

/// Keeps the sampling thread where the only thread runs that is to be sampled.
#[derive(Debug)]
pub struct CpuFollower {
    affinity: Affinity,
    /// Whether it has come to its CPU and not slept there yet.
    has_arrived: bool,
    random: Random,
    /// Where the thread was at the last instant.
    seen: Option<u32>,
    window: Option<Window>,
}

/// How often the thread was switched, from an instant on.
#[derive(Clone, Copy, Debug)]
struct Window {
    since: Timestamp,
    switches: u64,
    instants: u64,
}

impl CpuFollower {
    /// For the calling thread, which has real-time priority. `None` where it cannot choose its CPU.
    pub fn of_this_thread() -> Option<Self> {
        let (affinity, random) = (Affinity::of_this_thread()?, Random::new(clock::now().as_nanos()));
        Some(CpuFollower { affinity, has_arrived: false, random, seen: None, window: None })
    }

    /// Follows what ran at the instant `now`: to another CPU only once it was seen there twice in a row, as moving costs as
    /// much as some samples. Returns whether the thread is to be followed any longer.
    pub fn follow(&mut self, runners: Runners, now: Timestamp) -> bool {
        match runners {
            // It may go on where it was.
            Runners::None => true,
            Runners::One { cpu, switches } => {
                if self.seen.replace(cpu) == Some(cpu) {
                    self.has_arrived |= self.affinity.run_on(Some(cpu));
                }
                let window = self.window.get_or_insert(Window { since: now, switches, instants: 0 });
                window.instants += 1;
                let is_calm = window.is_calm(switches, now);
                if switches < window.switches || now.since(window.since) >= WINDOW {
                    self.window = None;
                }
                is_calm
            }
            Runners::Many => {
                self.seen = None;
                self.affinity.run_on(None);
                true
            }
        }
    }

    /// Leaves that CPU for work that need not be done there, until [`CpuFollower::come_back`].
    pub fn leave_cpu(&mut self) {
        self.affinity.run_elsewhere();
    }

    /// Takes that CPU again. Where it has just arrived there, returns when the next sample may be taken at the earliest, until
    /// which the caller is to sleep.
    pub fn come_back(&mut self) -> Option<Timestamp> {
        self.has_arrived |= self.affinity.run_back();
        std::mem::take(&mut self.has_arrived).then(|| clock::now() + self.rest())
    }

    fn rest(&mut self) -> Nanos {
        let random = LONGEST_REST.saturating_sub(SHORTEST_REST).as_secs_f64() * self.random.uniform();
        SHORTEST_REST + Nanos::from_nanos((random * 1e9) as u64)
    }
}

impl Window {
    /// Whether the thread, which has been switched so often by `now`, is switched seldom enough; true as long as it is
    /// too early to say.
    fn is_calm(&self, switches: u64, now: Timestamp) -> bool {
        let elapsed = now.since(self.since);
        let own = OWN_SWITCHES * self.instants;
        let others = switches.saturating_sub(self.switches).saturating_sub(own);
        elapsed < WINDOW || others as f64 <= MOST_SWITCHES_A_SECOND * elapsed.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_switched_by_others_all_the_time_is_told_from_one_that_is_sampled() {
        let window = Window { since: Timestamp::from_nanos(0), switches: 100, instants: 1_000 };
        let second = Timestamp::from_nanos(1_000_000_000);
        assert!(window.is_calm(100 + 2_000 + 1_999, second), "a thousand instants, and two thousand others");
        assert!(!window.is_calm(100 + 2_000 + 2_001, second));
        assert!(window.is_calm(1_000_000, Timestamp::from_nanos(1_000_000)), "too early");
        assert!(window.is_calm(3, second), "another thread");
    }
}
