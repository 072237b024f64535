//! A process whose memory lies: the first byte chooses a stored process, the others change its memory; then
//! everything is read of it. See `profiler_tests::damage` for the limits.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use profiler_tests::damage::{Damage, Limited};
use profiler_tests::snapshot::{LoadedModule, StoredProcess};
use profiler_tests::survey::survey;

static STORED: LazyLock<Vec<(StoredProcess, Vec<LoadedModule>, Damage)>> = LazyLock::new(|| {
    let all = StoredProcess::all().expect("the stored snapshots").into_iter();
    all.map(|process| {
        let modules = process.modules().expect("the stored modules");
        let damage = Damage::of(&process.memory);
        (process, modules, damage)
    })
    .collect()
});

fuzz_target!(|input: &[u8]| {
    let Some((choice, changes)) = input.split_first() else { return };
    let (process, modules, damage) = &STORED[usize::from(*choice) % STORED.len()];
    let modules: Vec<_> = modules.iter().map(LoadedModule::as_module).collect();
    let _ = survey(&modules, &Limited::new(damage.by(changes)), &process.alive());
});
