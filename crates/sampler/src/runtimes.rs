//! The Pythons of a process that are sampled: one, or two that are loaded side by side. A kernel thread may have thread states in
//! both, for one calls the other; it is sampled in the one that it runs.

use profiler_bpf::MAX_RUNTIMES;
use profiler_memory::ReadError;
use profiler_model::{Nanos, RemoteAddr, Tid, Timestamp};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::event_writer::EventWriter;
use crate::probe::Probe;
use crate::sampled_process::SampledProcess;
use crate::thread_table::{Thread, ThreadTable};

/// The sampled runtimes of a process, by their numbers; there always is a first one.
#[derive(Debug)]
pub struct Runtimes {
    all: Vec<SampledProcess>,
    shared: SharedThreads,
}

/// The kernel threads that have thread states in several runtimes.
#[derive(Debug, Default)]
struct SharedThreads {
    threads: Vec<Tid>,
    /// The revisions of the thread tables that say so.
    revisions: Vec<u64>,
}

/// Why a kernel thread should be taken to run a runtime: the greatest claim wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    /// It holds a GIL of this runtime.
    holds_gil: bool,
    /// It runs Python in it, or has called something from there.
    has_frame: bool,
    /// When its thread state was found, and in which runtime: the younger one was called from the older one.
    age: StateAge,
}

/// How old the thread state is that a kernel thread has in a runtime; the youngest is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateAge {
    /// A thread state that no list has is of no call that goes on.
    is_listed: bool,
    found: Timestamp,
    runtime: usize,
}

impl StateAge {
    /// Of a thread of the runtime with this number.
    pub fn of(thread: &Thread, runtime: usize) -> Self {
        StateAge { is_listed: thread.is_listed, found: thread.met.0, runtime }
    }
}

impl Runtimes {
    /// The only runtime of a process.
    pub fn only(first: SampledProcess) -> Self {
        Runtimes { all: vec![first], shared: SharedThreads::default() }
    }

    /// The first one.
    pub fn first(&self) -> &SampledProcess {
        &self.all[0]
    }

    /// All of them.
    pub fn all(&self) -> &[SampledProcess] {
        &self.all
    }

    /// The same, to be changed.
    pub fn all_mut(&mut self) -> &mut [SampledProcess] {
        &mut self.all
    }

    /// The one with this number, if it is sampled.
    pub fn get_mut(&mut self, number: u8) -> Option<&mut SampledProcess> {
        self.all.get_mut(usize::from(number))
    }

    /// Whether there is room for another one.
    pub fn have_room(&self) -> bool {
        self.all.len() < MAX_RUNTIMES
    }

    /// Whether the runtime is sampled that lies at this address.
    pub fn have(&self, main_address: RemoteAddr) -> bool {
        self.all.iter().any(|process| process.target().runtime().main_address == main_address)
    }

    /// Adds another one.
    pub fn add(&mut self, process: SampledProcess) {
        self.all.push(process);
    }

    /// Removes the one with this number, which is not the first.
    pub fn remove(&mut self, number: usize) -> SampledProcess {
        let removed = self.all.remove(number);
        self.attribute_threads();
        removed
    }

    /// Gives all of them up.
    pub fn into_probes(self) -> impl Iterator<Item = Probe> {
        self.all.into_iter().map(|process| process.probe)
    }

    /// Whether none of them has a thread.
    pub fn are_without_threads(&self) -> bool {
        self.all.iter().all(|process| process.threads().is_empty())
    }

    /// Has all thread states of a kernel thread know how much of its CPU time is in events: whichever of them the next sample is
    /// of, it stands for what was used since.
    pub fn share_cpu_times(&mut self, events: &mut EventWriter<'_>) {
        if self.all.len() == 1 && !self.all[0].probe.thread_table.has_nested {
            return;
        }
        let mut reported = FxHashMap::<Tid, Nanos>::default();
        for process in &mut self.all {
            process.resolve_deferred(events);
            let SampledProcess { probe, reporter, .. } = process;
            for thread in probe.thread_table.threads() {
                let cpu = reporter.account(thread.slot).map_or(Nanos::ZERO, |account| account.reported_cpu());
                let most = reported.entry(thread.tid).or_default();
                *most = cpu.max(*most);
            }
        }
        for SampledProcess { probe, reporter, .. } in &mut self.all {
            for thread in probe.thread_table.threads() {
                if let (Some(account), Some(cpu)) = (reporter.account(thread.slot), reported.get(&thread.tid))
                {
                    account.raise_reported_cpu(*cpu);
                }
            }
        }
    }

    /// Decides in which runtime each kernel thread is sampled that has thread states in several: in the others these are
    /// suspended until the next call. It holds for the moment at which the GILs are read here.
    pub fn attribute_threads(&mut self) {
        self.all.iter_mut().for_each(|process| process.probe.elsewhere.clear());
        if self.all.len() == 1 {
            return;
        }
        self.shared.update(self.all.iter().map(|process| &process.probe.thread_table));
        if self.shared.threads.is_empty() {
            return;
        }
        // What cannot be read has no holder: what has become of it is found out when its lists are looked at.
        let holders = |process: &SampledProcess| process.probe.holders().unwrap_or_default();
        let holders: Vec<_> = self.all.iter().map(holders).collect();
        for tid in &self.shared.threads {
            let claims = self.all.iter().enumerate().zip(&holders);
            let claims =
                claims.filter_map(|((number, process), holders)| claim(process, number, *tid, holders));
            let Some(owner) = claims.max() else { continue };
            for (number, process) in self.all.iter_mut().enumerate() {
                if number != owner.age.runtime {
                    process.probe.elsewhere.insert(*tid);
                }
            }
        }
    }
}

/// The claim of the runtime with this number to a kernel thread, if it has a thread state there.
fn claim(process: &SampledProcess, number: usize, tid: Tid, holders: &[RemoteAddr]) -> Option<Claim> {
    let states = || process.threads().iter().filter(|thread| thread.tid == tid);
    let age = states().map(|thread| StateAge::of(thread, number)).max()?;
    let (memory, offsets) = (process.target().memory(), process.target().offsets());
    let has_frame = |thread: &Thread| Ok::<_, ReadError>(true) == thread.python.has_frame(memory, offsets);
    Some(Claim {
        holds_gil: states().any(|thread| holders.contains(&thread.python.address)),
        has_frame: states().any(has_frame),
        age,
    })
}

impl SharedThreads {
    /// Brings them up to date for these thread tables, one of each runtime.
    fn update<'a>(&mut self, tables: impl Iterator<Item = &'a ThreadTable> + Clone) {
        let revisions = tables.clone().map(ThreadTable::revision);
        if revisions.clone().eq(self.revisions.iter().copied()) {
            return;
        }
        self.revisions = revisions.collect();
        self.threads.clear();
        let mut known = FxHashSet::default();
        for table in tables {
            let of_runtime: FxHashSet<Tid> = table.threads().iter().map(|thread| thread.tid).collect();
            self.threads.extend(known.intersection(&of_runtime));
            known.extend(of_runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(is_listed: bool, found: u64, runtime: usize) -> StateAge {
        StateAge { is_listed, found: Timestamp::from_nanos(found), runtime }
    }

    fn owner(claims: &[Claim]) -> usize {
        claims.iter().max().unwrap().age.runtime
    }

    #[test]
    fn thread_runs_the_runtime_whose_gil_it_holds() {
        let first = Claim { holds_gil: true, has_frame: true, age: age(true, 1, 0) };
        let second = Claim { holds_gil: false, has_frame: true, age: age(true, 2, 1) };
        assert_eq!(owner(&[first, second]), 0);
        assert_eq!(owner(&[first, Claim { holds_gil: true, ..second }]), 1, "called with the other's GIL");
    }

    #[test]
    fn without_gil_a_thread_runs_the_younger_state_with_frames() {
        let claim = |has_frame, age| Claim { holds_gil: false, has_frame, age };
        let first = claim(true, age(true, 1, 0));
        assert_eq!(owner(&[first, claim(true, age(true, 2, 1))]), 1);
        assert_eq!(owner(&[first, claim(true, age(true, 1, 1))]), 1, "both were found at once");
        assert_eq!(owner(&[claim(true, age(true, 3, 0)), claim(true, age(true, 2, 1))]), 0);
        assert_eq!(owner(&[first, claim(false, age(true, 2, 1))]), 0, "the call is over");
        assert_eq!(owner(&[first, claim(true, age(false, 2, 1))]), 0, "its state is gone");
    }
}
