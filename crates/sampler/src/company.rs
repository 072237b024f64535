//! Sampling from the CPU of the thread that is sampled, where one thread runs.
//!
//! A sampler with real-time priority that is woken there takes the CPU from that thread at the very instant, and gives it
//! back when it sleeps: the thread stands still without being stopped, its exact clock proves it, and neither another
//! CPU has to be interrupted nor the thread's own put to sleep and woken, which costs more than all reading.

use profiler_os::Affinity;

use crate::process_sampler::Runners;

/// Keeps the sampling thread where the only thread runs that is to be sampled.
#[derive(Debug)]
pub struct Company {
    affinity: Affinity,
    /// Where the thread was at the last instant.
    seen: Option<u32>,
}

impl Company {
    /// For the calling thread, which has real-time priority. `None` where it cannot choose its CPU.
    pub fn of_this_thread() -> Option<Self> {
        Some(Company { affinity: Affinity::of_this_thread()?, seen: None })
    }

    /// Follows what runs: to another CPU only once it was seen there twice in a row, as moving costs as much as some samples.
    pub fn follow(&mut self, runners: Runners) {
        match runners {
            // It may go on where it was.
            Runners::None => {}
            Runners::One(cpu) => {
                if self.seen.replace(cpu) == Some(cpu) {
                    self.affinity.run_on(Some(cpu));
                }
            }
            Runners::Many => {
                self.seen = None;
                self.affinity.run_on(None);
            }
        }
    }

    /// Leaves that CPU for work that need not be done there, until [`Company::come_back`].
    pub fn step_aside(&mut self) {
        self.affinity.run_elsewhere();
    }

    /// Takes that CPU again. To come back for the next sample only saves a waking.
    pub fn come_back(&mut self) {
        self.affinity.run_back();
    }
}
