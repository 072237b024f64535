//! The threads of a process that are sampled, and the rota by which they are looked at.

mod kernel_thread;
mod looks;
mod queue_watch;
#[cfg(test)]
mod tests;

use profiler_model::{Pid, Tid, Timestamp};
use rustc_hash::FxHashSet;

use crate::rota::{COST_OF_ASKING, LookResult, Rota};
pub use kernel_thread::{KernelThread, ThreadSlot};

/// A thread that a [`Roster`] can hold: a kernel thread, alone or with what runs on it.
pub trait OnKernelThread {
    /// The kernel thread.
    fn kernel(&self) -> &KernelThread;

    /// The same, to be changed.
    fn kernel_mut(&mut self) -> &mut KernelThread;
}

impl OnKernelThread for KernelThread {
    fn kernel(&self) -> &KernelThread {
        self
    }

    fn kernel_mut(&mut self) -> &mut KernelThread {
        self
    }
}

/// The threads of a process, known by their indices until there are others.
#[derive(Debug)]
pub struct Roster<T> {
    threads: Vec<T>,
    /// When each thread is looked at.
    rota: Rota,
    /// Unreported instants of threads that are not in the list any more.
    unseen_of_ended: u64,
    /// The number of threads that were met so far.
    met: u32,
}

impl<T> Default for Roster<T> {
    fn default() -> Self {
        Roster { threads: Vec::new(), rota: Rota::default(), unseen_of_ended: 0, met: 0 }
    }
}

impl<T: OnKernelThread> Roster<T> {
    /// The threads.
    pub fn threads(&self) -> &[T] {
        &self.threads
    }

    /// The same, to be changed.
    pub fn threads_mut(&mut self) -> &mut [T] {
        &mut self.threads
    }

    /// The number of the current instant, from 1; 0 before the first.
    pub fn instant(&self) -> u64 {
        self.rota.instant()
    }

    /// The threads that are looked at at each instant.
    pub fn active(&self) -> impl Iterator<Item = &T> {
        self.rota.active().iter().map(|index| &self.threads[*index])
    }

    /// Whether the threads that rest are too many to be looked at at each instant: they are looked at in turn.
    pub fn has_many_resting(&self) -> bool {
        self.rota.has_many_resting()
    }

    /// The threads that were looked at in this round, in ascending order.
    pub fn looked(&mut self) -> &[usize] {
        self.rota.looked()
    }

    /// A kernel thread that is met at the current instant, with a slot of its own; `None` if it has ended already. It is
    /// not in the list before it is added.
    pub fn meet(&mut self, pid: Pid, tid: Tid, now: Timestamp) -> Option<KernelThread> {
        self.met += 1;
        KernelThread::met(ThreadSlot(self.met), (pid, tid), (self.rota.instant(), now))
    }

    /// Adds threads that were met, or that were taken out at this instant. The indices of the others stay.
    pub fn add(&mut self, threads: impl IntoIterator<Item = T>) {
        let (first, instant) = (self.threads.len(), self.rota.instant());
        self.threads.extend(threads);
        let of_added: u64 = self.threads[first..].iter().map(|thread| unreported(thread, instant)).sum();
        self.unseen_of_ended = self.unseen_of_ended.saturating_sub(of_added);
        self.renumber();
    }

    /// Takes all threads out. Those that are not added again at this instant have ended.
    pub fn take_all(&mut self) -> Vec<T> {
        let instant = self.rota.instant();
        self.unseen_of_ended += self.threads.iter().map(|thread| unreported(thread, instant)).sum::<u64>();
        let threads = std::mem::take(&mut self.threads);
        self.renumber();
        threads
    }

    /// Removes threads that have ended, by index in ascending order.
    pub fn remove(&mut self, ended: &[usize]) {
        let instant = self.rota.instant();
        for index in ended.iter().rev() {
            let thread = self.threads.swap_remove(*index);
            self.unseen_of_ended += unreported(&thread, instant);
        }
        self.renumber();
    }

    /// Takes the number of unreported instants of threads that have ended.
    pub fn take_unseen_of_ended(&mut self) -> u64 {
        std::mem::take(&mut self.unseen_of_ended)
    }

    /// Begins an instant: looks at the threads that are active, and at those that rest if these are few. Returns the
    /// threads that have ended, in ascending order.
    pub fn look_at_active(&mut self) -> Vec<usize> {
        self.rota.begin();
        let (threads, rota) = (&mut self.threads, &mut self.rota);
        let (instant, mut ended) = (rota.instant(), Vec::new());
        let mut look = |index: usize| look_at(&mut threads[index], index, instant, &mut ended);
        rota.look_at_active(&mut look);
        if !rota.has_many_resting() {
            rota.look_at_resting(u32::MAX, &mut look);
        }
        ended.sort_unstable();
        ended
    }

    /// Begins the second round of an instant: looks at threads that rest, in turn, until the cost is `most` (see
    /// [`COST_OF_ASKING`]). Returns the threads that have ended, in ascending order.
    pub fn look_at_resting(&mut self, most: u32) -> Vec<usize> {
        self.rota.begin_round();
        let (threads, rota) = (&mut self.threads, &mut self.rota);
        let (instant, mut ended) = (rota.instant(), Vec::new());
        rota.look_at_resting(most, &mut |index| look_at(&mut threads[index], index, instant, &mut ended));
        ended.sort_unstable();
        ended
    }

    /// Looks at those of the threads `wanted` that rest and were not looked at at this instant. Returns the threads that
    /// have ended, in ascending order.
    pub fn look_out_of_turn(&mut self, wanted: impl Iterator<Item = usize>) -> Vec<usize> {
        let (threads, rota) = (&mut self.threads, &mut self.rota);
        let (instant, mut ended) = (rota.instant(), Vec::new());
        for index in wanted {
            let thread = &mut threads[index];
            let looks = &thread.kernel().looks;
            if looks.last() != instant && looks.rests() {
                rota.look_out_of_turn(index, &mut |index| look_at(thread, index, instant, &mut ended));
            }
        }
        ended.sort_unstable();
        ended
    }

    /// Has the rota use the indices that the threads have now.
    fn renumber(&mut self) {
        let instant = self.rota.instant();
        let in_rota = |thread: &T| {
            let looks = &thread.kernel().looks;
            (looks.rests().then_some(looks.last()), looks.is_unreported(instant))
        };
        self.rota.renumber(self.threads.iter().map(in_rota));
    }
}

impl Roster<KernelThread> {
    /// Brings the list up to date with `tids`, the kernel threads that the process `pid` has at `now`: meets the new ones,
    /// and removes those that have ended. Returns whether the list has changed; indices mean other threads then.
    pub fn update(&mut self, pid: Pid, tids: &[Tid], now: Timestamp) -> bool {
        let there: FxHashSet<Tid> = tids.iter().copied().collect();
        let threads = self.threads.iter().enumerate();
        let ended: Vec<usize> =
            threads.filter(|(_, thread)| !there.contains(&thread.tid)).map(|(index, _)| index).collect();
        let mut known: FxHashSet<Tid> = self.threads.iter().map(|thread| thread.tid).collect();
        let new = tids.iter().filter(|tid| known.insert(**tid));
        let new: Vec<KernelThread> = new.filter_map(|tid| self.meet(pid, *tid, now)).collect();
        if ended.is_empty() && new.is_empty() {
            return false;
        }
        self.remove(&ended);
        self.add(new);
        true
    }
}

/// The number of instants of a thread that are in no event yet.
fn unreported(thread: &impl OnKernelThread, instant: u64) -> u64 {
    thread.kernel().looks.unreported(instant)
}

/// Looks at the thread with this index for the instant with this number; notes whether it has ended.
fn look_at(
    thread: &mut impl OnKernelThread,
    index: usize,
    instant: u64,
    ended: &mut Vec<usize>,
) -> LookResult {
    thread.kernel_mut().look_at(instant).unwrap_or_else(|_| {
        ended.push(index);
        LookResult { rests: false, cost: COST_OF_ASKING }
    })
}
