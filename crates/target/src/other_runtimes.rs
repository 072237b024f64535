//! Pythons of a process beside the one that was found first: a program may load another libpython and run it.

use profiler_model::{Nanos, OtherPython, Timestamp};
use profiler_os::Mapping;
use profiler_python::find_others;

use crate::Target;
use crate::attach::MappedModules;

/// The second look comes so long after the first; the gap doubles with each.
const FIRST_GAP: Nanos = Nanos::from_nanos(200_000_000);

/// The longest gap between two looks. One costs a fraction of a millisecond, unless there is another Python.
const LONGEST_GAP: Nanos = Nanos::from_nanos(10_000_000_000);

/// A Python that runs in a process beside the one that was found first.
#[derive(Debug)]
pub struct OtherRuntime {
    /// The process with this Python.
    pub target: Target,
    /// What the Python is called.
    pub python: OtherPython,
}

/// Looks for the other Pythons of a process, ever more rarely: one may be loaded at any time.
#[derive(Debug)]
pub struct OtherRuntimes {
    next: Timestamp,
    gap: Nanos,
}

impl Default for OtherRuntimes {
    fn default() -> Self {
        OtherRuntimes { next: Timestamp::default(), gap: FIRST_GAP }
    }
}

impl OtherRuntimes {
    /// Those that run in the process of `target` beside its own, if a look is due at `now`; otherwise none.
    pub fn look(&mut self, target: &Target, now: Timestamp) -> Vec<OtherRuntime> {
        if now < self.next {
            return Vec::new();
        }
        self.next = now + self.gap;
        self.gap = (self.gap + self.gap).min(LONGEST_GAP);
        other_runtimes(target)
    }
}

/// What the Pythons are called that run in the process of `target` beside its own, in the order of [`OtherRuntimes::look`].
pub fn other_pythons(target: &Target) -> Vec<OtherPython> {
    other_runtimes(target).into_iter().map(|other| other.python).collect()
}

/// The Pythons that run in the process of `target` beside its own.
fn other_runtimes(target: &Target) -> Vec<OtherRuntime> {
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
    let with_names = others.into_iter().map(|(runtime, path)| OtherRuntime {
        python: OtherPython {
            pid: target.pid(),
            version: runtime.offsets.version.to_string(),
            path: path.to_owned(),
        },
        target: target.with_runtime(runtime),
    });
    with_names.collect()
}

fn is_libpython(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.starts_with("libpython"))
}
