//! Names of threads, as the target's `threading` module has them.

use std::collections::HashMap;

use profiler_model::{Nanos, Timestamp};
use profiler_profile::Profile;
use profiler_python::thread_names;

use crate::Target;
use crate::roster::Roster;

/// Names are looked up at most so often: a thread gets its name in `threading` a moment after it starts,
/// and may be renamed, but walking Python's dictionaries for every sample would cost more than the samples.
const LOOKUP_GAP: Nanos = Nanos::from_nanos(500_000_000);

/// The first look after a change comes too early for a thread that has only just started: the next one comes
/// so soon that a thread of some tenths of a second still gets its name.
const SECOND_LOOK: Nanos = Nanos::from_nanos(20_000_000);

/// Looks after a change in the number of threads: at once, soon, and when all is quiet.
const LOOKS: u32 = 3;

/// Looks names up from time to time.
#[derive(Debug, Default)]
pub struct ThreadNames {
    next: Timestamp,
    /// How many threads there were: a change is a reason to look.
    threads: usize,
    /// Looks left at an unchanged number of threads.
    looks: u32,
}

impl ThreadNames {
    /// Names the threads of the roster that are in the profile, if it is time to.
    pub fn update(&mut self, target: &Target, roster: &Roster, profile: &mut Profile, now: Timestamp) {
        let sampled = roster.threads.iter().filter(|thread| thread.id.is_some()).count();
        if sampled != self.threads {
            self.threads = sampled;
            self.looks = LOOKS;
        }
        if self.looks == 0 || now < self.next {
            return;
        }
        self.looks -= 1;
        self.next = now + if self.looks + 1 == LOOKS { SECOND_LOOK } else { LOOKUP_GAP };
        name_threads(target, roster, profile);
    }

    /// Names those that came into the profile after the last look: there will be no other.
    pub fn complete(&self, target: &Target, roster: &Roster, profile: &mut Profile) {
        let mut sampled = roster.threads.iter().filter_map(|thread| thread.id);
        if sampled.any(|id| profile.thread_of(id).name.is_none()) {
            name_threads(target, roster, profile);
        }
    }
}

fn name_threads(target: &Target, roster: &Roster, profile: &mut Profile) {
    let names = names(target, roster);
    for thread in &roster.threads {
        if let (Some(id), Some(name)) = (thread.id, names.get(&thread.python.pthread_id)) {
            profile.name_thread(id, name.as_str());
        }
    }
}

/// The names of all threads, by `pthread_self()`. A dictionary that changes while it is read may lack some;
/// they come with the next look.
pub fn names(target: &Target, roster: &Roster) -> HashMap<u64, String> {
    let mut all = HashMap::new();
    for interpreter in &roster.interpreters {
        if let Ok(names) = thread_names(target.memory(), target.offsets(), interpreter.address) {
            all.extend(names);
        }
    }
    all
}
