//! Ticks of threads without Python: the program sends no record of them, but counts them by thread (`program/native.h`).

use std::collections::HashMap;

use aya::Pod;
use profiler_model::{Nanos, Pid, Tid, Timestamp};

use crate::wire::mirrors;

mirrors! {
    /// The counts of a thread, since it has this entry.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct NativeEntry = native_ticks {
        first: u64,
        last: u64,
        ticks: u64,
        weight: u64,
        late: u64,
        rested: u64,
    }
}

// SAFETY: numbers without gaps, for which every bit pattern is a value.
unsafe impl Pod for NativeEntry {}

/// Ticks that met a thread without Python, since they were last taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativeTicks {
    /// The process.
    pub process: Pid,
    /// The thread; 0 for threads of the process that have lost their ids at their end (only in a PID namespace).
    pub thread: Tid,
    /// How many.
    pub ticks: u64,
    /// The CPU time that they stand for, `rested` included.
    pub weight: Nanos,
    /// How many ticks were due before them and did not come, as interrupts were held off.
    pub late: u64,
    /// For how long the kernel did not let the clocks tick before them.
    pub rested: Nanos,
    /// The instant of the last one.
    pub last: Timestamp,
}

/// All ticks that met threads without Python, since they were last taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NativeCounts {
    /// By thread, in no order.
    pub threads: Vec<NativeTicks>,
    /// The ticks of threads for which the program had no room.
    pub unattributed_ticks: u64,
    /// The CPU time that those stand for.
    pub unattributed_weight: Nanos,
}

/// What all entries together have counted, whatever has become of the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NativeTotals {
    pub(crate) ticks: u64,
    pub(crate) weight: u64,
}

/// What has been taken of the counts in the program's map, which only ever grow.
#[derive(Debug, Default)]
pub(crate) struct NativeTally {
    /// The entries as they were last seen, by process and thread.
    seen: HashMap<u64, NativeEntry>,
    /// All that has been taken, of threads and as unattributed.
    taken: NativeTotals,
}

impl NativeTally {
    /// Whether all of that has been taken and all entries were removed: to go through an empty map takes some 0.1 ms.
    pub(crate) fn is_done(&self, totals: NativeTotals) -> bool {
        self.seen.is_empty() && self.taken == totals
    }

    /// Takes what is new in the entries, which were read after the totals. Also returns the keys of entries in which nothing is new:
    /// they should be removed, as their threads may have ended.
    ///
    /// The program adds to an entry first and to the totals then. So what is in the totals and was not taken of any entry was in
    /// one that is gone: the map had no room for it, or dropped it for that of another thread, or it was removed just as its
    /// thread ran again. As the entries may be younger than the totals, some of that can show only the next time.
    ///
    /// An entry may be read while the program adds to it. What is missing then is found the next time.
    pub(crate) fn take(
        &mut self,
        totals: NativeTotals,
        entries: &[(u64, NativeEntry)],
    ) -> (NativeCounts, Vec<u64>) {
        let mut counts = NativeCounts::default();
        let mut unchanged = Vec::new();
        let mut seen = HashMap::with_capacity(entries.len());
        for (ids, entry) in entries {
            // A map that changes meanwhile may list an entry twice.
            let before = seen.insert(*ids, *entry).or_else(|| self.seen.get(ids).copied());
            let ticks = ticks_since(*ids, entry, before);
            if ticks.ticks == 0 && ticks.weight == Nanos::ZERO {
                unchanged.push(*ids);
                continue;
            }
            self.taken.ticks += ticks.ticks;
            self.taken.weight += ticks.weight.as_nanos();
            counts.threads.push(ticks);
        }
        self.seen = seen;
        counts.unattributed_ticks = totals.ticks.saturating_sub(self.taken.ticks);
        let weight = totals.weight.saturating_sub(self.taken.weight);
        counts.unattributed_weight = Nanos::from_nanos(weight);
        self.taken.ticks += counts.unattributed_ticks;
        self.taken.weight += weight;
        (counts, unchanged)
    }
}

/// What an entry has counted since it was as `before`; all of it if that was another entry of the same thread.
fn ticks_since(ids: u64, entry: &NativeEntry, before: Option<NativeEntry>) -> NativeTicks {
    let before = before.filter(|before| before.first == entry.first).unwrap_or_default();
    NativeTicks {
        process: Pid::new((ids >> 32) as u32),
        thread: Tid::new(ids as u32),
        ticks: entry.ticks.saturating_sub(before.ticks),
        weight: Nanos::from_nanos(entry.weight.saturating_sub(before.weight)),
        late: entry.late.saturating_sub(before.late),
        rested: Nanos::from_nanos(entry.rested.saturating_sub(before.rested)),
        last: Timestamp::from_nanos(entry.last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: u64 = 7 << 32 | 8;
    const OTHER: u64 = 7 << 32 | 9;

    fn entry(first: u64, ticks: u64) -> NativeEntry {
        NativeEntry { first, last: first + ticks, ticks, weight: 10 * ticks, late: ticks / 2, rested: 0 }
    }

    fn totals(ticks: u64) -> NativeTotals {
        NativeTotals { ticks, weight: 10 * ticks }
    }

    /// What is taken of each thread, and what is unattributed, in ticks; and the entries to remove.
    fn take(
        tally: &mut NativeTally,
        total: u64,
        entries: &[(u64, NativeEntry)],
    ) -> (Vec<(u32, u64)>, u64, Vec<u64>) {
        let (counts, unchanged) = tally.take(totals(total), entries);
        for thread in &counts.threads {
            assert_eq!((thread.process, thread.weight.as_nanos()), (Pid::new(7), 10 * thread.ticks));
        }
        assert_eq!(counts.unattributed_weight.as_nanos(), 10 * counts.unattributed_ticks);
        let threads = counts.threads.iter().map(|thread| (thread.thread.as_u32(), thread.ticks)).collect();
        (threads, counts.unattributed_ticks, unchanged)
    }

    #[test]
    fn each_tick_is_taken_once() {
        let mut tally = NativeTally::default();
        assert_eq!(take(&mut tally, 3, &[(IDS, entry(100, 3))]), (vec![(8, 3)], 0, vec![]));
        let both = [(IDS, entry(100, 5)), (OTHER, entry(150, 1))];
        assert_eq!(take(&mut tally, 6, &both), (vec![(8, 2), (9, 1)], 0, vec![]));
        assert_eq!(take(&mut tally, 6, &both), (vec![], 0, vec![IDS, OTHER]));
    }

    #[test]
    fn nothing_is_left_once_all_entries_were_removed() {
        let mut tally = NativeTally::default();
        assert!(tally.is_done(totals(0)) && !tally.is_done(totals(3)));
        let entries = [(IDS, entry(100, 3))];
        take(&mut tally, 3, &entries);
        assert_eq!(take(&mut tally, 3, &entries).2, [IDS]);
        assert!(!tally.is_done(totals(3)), "it may not have been removed");
        assert!(take(&mut tally, 3, &[]).2.is_empty() && tally.is_done(totals(3)));
        assert!(!tally.is_done(totals(4)));
    }

    #[test]
    fn an_entry_that_is_listed_twice_counts_once() {
        let mut tally = NativeTally::default();
        let twice = [(IDS, entry(100, 3)), (IDS, entry(100, 4))];
        assert_eq!(take(&mut tally, 3, &twice), (vec![(8, 3), (8, 1)], 0, vec![]));
        assert_eq!(take(&mut tally, 5, &[(IDS, entry(100, 5))]), (vec![(8, 1)], 0, vec![]));
    }

    #[test]
    fn ticks_of_dropped_entries_are_unattributed() {
        let mut tally = NativeTally::default();
        take(&mut tally, 3, &[(IDS, entry(100, 3))]);
        // It ticked twice more, was dropped, and has a new entry with more ticks than the old one had when it was seen.
        assert_eq!(take(&mut tally, 9, &[(IDS, entry(200, 4))]), (vec![(8, 4)], 2, vec![]));
        assert_eq!(take(&mut tally, 11, &[]), (vec![], 2, vec![]), "for these there was no room at all");
    }

    #[test]
    fn entries_younger_than_the_totals_hide_nothing_for_long() {
        let mut tally = NativeTally::default();
        // Of five ticks two were dropped; two others came after the totals were read.
        assert_eq!(take(&mut tally, 3, &[(IDS, entry(100, 3))]), (vec![(8, 3)], 0, vec![]));
        assert_eq!(take(&mut tally, 5, &[(IDS, entry(100, 3))]), (vec![], 2, vec![IDS]));
    }

    #[test]
    fn a_removed_entry_that_comes_back_counts_from_zero() {
        let mut tally = NativeTally::default();
        take(&mut tally, 3, &[(IDS, entry(100, 3))]);
        assert_eq!(take(&mut tally, 3, &[(IDS, entry(100, 3))]).2, [IDS]);
        assert_eq!(take(&mut tally, 4, &[(IDS, entry(300, 1))]), (vec![(8, 1)], 0, vec![]));
    }
}
