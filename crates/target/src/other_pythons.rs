//! Pythons of a process beside the one that is sampled: a program may load another libpython and run it. They are named,
//! as their threads are in no sample.

use profiler_model::{Nanos, OtherPython, Timestamp};
use profiler_os::Mapping;
use profiler_python::find_others;

use crate::Target;
use crate::attach::MappedModules;

/// The first look comes so long after the one at the beginning; the gap doubles with each.
const FIRST_GAP: Nanos = Nanos::from_nanos(200_000_000);

/// The longest gap between two looks. One costs a fraction of a millisecond, unless there is another Python.
const LONGEST_GAP: Nanos = Nanos::from_nanos(10_000_000_000);

/// The other Pythons of a process, looked for ever more rarely: one may be loaded at any time.
#[derive(Debug)]
pub struct OtherPythons {
    found: Vec<OtherPython>,
    next: Timestamp,
    gap: Nanos,
}

impl Default for OtherPythons {
    fn default() -> Self {
        OtherPythons { found: Vec::new(), next: Timestamp::default(), gap: FIRST_GAP }
    }
}

impl OtherPythons {
    /// Those of `target` as far as they are known at `now`.
    pub fn look(&mut self, target: &Target, now: Timestamp) -> &[OtherPython] {
        if now >= self.next {
            self.next = now + self.gap;
            self.gap = (self.gap + self.gap).min(LONGEST_GAP);
            for other in other_pythons(target) {
                if !self.found.contains(&other) {
                    self.found.push(other);
                }
            }
        }
        &self.found
    }
}

/// The Pythons that run in the process of `target` beside its own.
pub fn other_pythons(target: &Target) -> Vec<OtherPython> {
    let Ok(mappings) = target.process().mappings() else { return Vec::new() };
    let is_own = |mapping: &&Mapping| {
        let at = target.runtime().main_address;
        mapping.start <= at && at < mapping.end && is_libpython(&mapping.path)
    };
    // Each copy of a file has a mapping of its beginning.
    let copies =
        mappings.iter().filter(|mapping| mapping.file_offset == 0 && is_libpython(&mapping.path)).count();
    if copies <= mappings.iter().filter(is_own).count() {
        return Vec::new();
    }
    let files = MappedModules::open(target.process(), target.executable(), &mappings);
    let others = find_others(target.runtime(), &files.modules(), target.memory());
    let named = others.into_iter().map(|(runtime, path)| OtherPython {
        pid: target.pid(),
        version: runtime.offsets.version.to_string(),
        path: path.to_owned(),
    });
    named.collect()
}

fn is_libpython(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.starts_with("libpython"))
}
