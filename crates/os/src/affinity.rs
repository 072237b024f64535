//! On which CPU the calling thread runs.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The calling thread.
const OWN: Pid = Pid::from_raw(0);

/// Keeps the calling thread on one of the CPUs that it may use, as long as that is asked for; it may use all of them again
/// when this is dropped.
#[derive(Debug)]
pub struct Affinity {
    allowed: CpuSet,
    at: Option<u32>,
    is_elsewhere: bool,
}

impl Affinity {
    /// Of the calling thread, which runs anywhere that it may. `None` where it cannot choose: it may use only one CPU, or
    /// the operating system does not tell.
    pub fn of_this_thread() -> Option<Self> {
        let allowed = sched_getaffinity(OWN).ok()?;
        let count = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).count();
        (count > 1).then_some(Affinity { allowed, at: None, is_elsewhere: false })
    }

    /// Runs on this CPU alone from now on, or with `None` anywhere. Stays where it is if it may not. Returns whether it
    /// may have changed its CPU for that.
    pub fn run_on(&mut self, cpu: Option<u32>) -> bool {
        if cpu == self.at && !self.is_elsewhere {
            return false;
        }
        let set = match cpu {
            None => Some(self.allowed),
            Some(cpu) => self.only(cpu),
        };
        let has_moved = set.is_some_and(|set| sched_setaffinity(OWN, &set).is_ok());
        if has_moved {
            (self.at, self.is_elsewhere) = (cpu, false);
        }
        has_moved
    }

    /// Leaves the CPU that was asked for, until [`Affinity::run_back`].
    pub fn run_elsewhere(&mut self) {
        if let Some(cpu) = self.at {
            let mut others = self.allowed;
            // There are several, and this is one of them.
            let moved = others.unset(cpu as usize).and_then(|()| sched_setaffinity(OWN, &others));
            self.is_elsewhere |= moved.is_ok();
        }
    }

    /// Runs on the CPU again that was asked for last. Returns whether it had left that.
    pub fn run_back(&mut self) -> bool {
        if !std::mem::take(&mut self.is_elsewhere) {
            return false;
        }
        let cpu = self.at.take();
        self.run_on(cpu)
    }

    fn only(&self, cpu: u32) -> Option<CpuSet> {
        let cpu = cpu as usize;
        let mut set = CpuSet::new();
        let may = self.allowed.is_set(cpu).unwrap_or(false);
        (may && set.set(cpu).is_ok()).then_some(set)
    }
}

impl Drop for Affinity {
    fn drop(&mut self) {
        self.run_on(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_on_the_cpu_that_was_asked_for_and_may_go_anywhere_later() {
        let before = sched_getaffinity(OWN).unwrap();
        let Some(mut affinity) = Affinity::of_this_thread() else { return };
        for cpu in (0..CpuSet::count()).filter(|cpu| before.is_set(*cpu).unwrap()) {
            affinity.run_on(Some(cpu as u32));
            assert_eq!(nix::sched::sched_getcpu(), Ok(cpu));
        }
        affinity.run_on(Some(u32::MAX));
        drop(affinity);
        assert_eq!(sched_getaffinity(OWN), Ok(before));
    }
}
