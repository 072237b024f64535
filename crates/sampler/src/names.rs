//! Names of threads, as the target's `threading` module has them.

use std::collections::{HashMap, HashSet};

use profiler_model::{Nanos, Timestamp};
use profiler_python::thread_names_of;
use profiler_target::Target;

use crate::event_writer::EventWriter;
use crate::probe::Probe;
use crate::reporter::Reporter;
use crate::thread_table::{Thread, ThreadTable};

/// Names are looked up at most so often: a thread gets its name in `threading` a moment after it starts,
/// and may be renamed, but walking Python's dictionaries for every sample would cost more than the samples.
const LOOKUP_GAP: Nanos = Nanos::from_nanos(500_000_000);

/// The first look after a change comes too early for a thread that has only just started: the next one comes
/// so soon that a thread of some tenths of a second still gets its name.
const SECOND_LOOK: Nanos = Nanos::from_nanos(20_000_000);

/// Looks after a thread has come into the dictionary: at once, soon, and when all is quiet.
const LOOKS: u32 = 3;

/// Of more threads than this, those that have a name are not looked at again: it may be another one by then, but to read
/// thousands takes a tenth of a second.
const MANY: usize = 256;

/// Looks names up from time to time.
#[derive(Debug, Default)]
pub struct ThreadNames {
    /// Whether threads keep the names that they have from another Python of the process.
    pub only_nameless: bool,
    next: Timestamp,
    /// Looks left after the last thread came into the dictionary.
    looks: u32,
}

impl ThreadNames {
    /// A thread has come into the dictionary.
    pub fn expect_another(&mut self) {
        self.looks = LOOKS;
    }

    /// Names the threads that are in the dictionary, if it is time to.
    pub fn update(
        &mut self,
        probe: &Probe,
        reporter: &Reporter,
        events: &mut EventWriter<'_>,
        now: Timestamp,
    ) {
        if self.looks == 0 || now < self.next {
            return;
        }
        let is_first = self.looks == LOOKS;
        self.looks -= 1;
        self.next = now + if is_first { SECOND_LOOK } else { LOOKUP_GAP };
        let only_nameless = self.only_nameless || !is_first && probe.thread_table.threads().len() > MANY;
        name_threads(probe, reporter, events, only_nameless);
    }

    /// Names those that came into the dictionary after the last look: there will be no other.
    pub fn complete(&self, probe: &Probe, reporter: &Reporter, events: &mut EventWriter<'_>) {
        let threads = probe.thread_table.threads().iter();
        let mut sampled = threads.filter_map(|thread| reporter.id_of(thread.slot));
        if sampled.any(|id| events.dictionary.thread_of(id).name.is_none()) {
            name_threads(probe, reporter, events, true);
        }
    }
}

fn name_threads(probe: &Probe, reporter: &Reporter, events: &mut EventWriter<'_>, only_nameless: bool) {
    let threads = || probe.thread_table.threads().iter();
    let is_wanted = |thread: &&Thread| {
        let has_name = |id| events.dictionary.thread_of(id).name.is_some();
        reporter.id_of(thread.slot).is_some_and(|id| !only_nameless || !has_name(id))
    };
    let wanted: HashSet<u64> = threads().filter(is_wanted).map(|thread| thread.python.pthread_id).collect();
    if wanted.is_empty() {
        return;
    }
    let names = names_of(&probe.target, &probe.thread_table, &|thread| wanted.contains(&thread));
    for thread in threads() {
        if let (Some(id), Some(name)) = (reporter.id_of(thread.slot), names.get(&thread.python.pthread_id)) {
            events.dictionary.name_thread(id, name.as_str());
        }
    }
}

/// The names of all threads, by `pthread_self()`. A dictionary that changes while it is read may lack some;
/// they come with the next look.
pub fn names(target: &Target, thread_table: &ThreadTable) -> HashMap<u64, String> {
    names_of(target, thread_table, &|_| true)
}

fn names_of(
    target: &Target,
    thread_table: &ThreadTable,
    wanted: &dyn Fn(u64) -> bool,
) -> HashMap<u64, String> {
    let mut all = HashMap::new();
    for interpreter in &thread_table.interpreters {
        let names = thread_names_of(target.memory(), target.offsets(), interpreter.address, wanted);
        all.extend(names.into_iter().flatten());
    }
    all
}
