//! Finding the runtime with damaged files: the input is the file of a stored process's module, whose memory
//! is as it was.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use profiler_memory::Snapshot;
use profiler_python::find;
use profiler_tests::damage::Limited;
use profiler_tests::snapshot::{LoadedModule, StoredProcess};

static STORED: LazyLock<Vec<(Snapshot, Vec<LoadedModule>)>> = LazyLock::new(|| {
    let all = StoredProcess::all().expect("the stored snapshots").into_iter();
    all.map(|process| (process.memory.with_whole_pages(), process.modules().expect("the modules"))).collect()
});

fuzz_target!(|input: &[u8]| {
    let Some((choice, file)) = input.split_first() else { return };
    let (memory, modules) = &STORED[usize::from(*choice) % STORED.len()];
    let Some(module) = modules.last() else { return };
    let _ = find(&[module.with_file(file)], &Limited::new(memory));
});
