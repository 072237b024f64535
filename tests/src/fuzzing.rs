//! The fuzz targets as plain functions: `cargo xtask fuzz` builds them with instrumentation and a fuzzer around each;
//! the stored corpora are replayed by a test of tier 1 without either.
//!
//! A target panics when what it checks does not hold. What is learnt in long runs is kept, as small as it gets, in
//! `fuzz/corpora/TARGET/` (`cargo xtask fuzz --store`).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use profiler_memory::{CoreFile, CoreMemory, ReadMemory, Snapshot, compare_with_core};
use profiler_python::{CodeHead, LineTable, LineTableFormat, MAX_CODE_HEAD_BYTES, find, parse_debug_offsets};

use crate::damage::{Damage, Limited};
use crate::snapshot::{LoadedModule, StoredProcess};
use crate::survey::survey;

/// A target, called with each input.
pub type FuzzTarget = fn(&[u8]);

/// All targets with their names.
pub const TARGETS: [(&str, FuzzTarget); 5] = [
    ("walk", walk),
    ("line_table", line_table),
    ("debug_offsets", debug_offsets),
    ("find_elf", find_elf),
    ("core_file", core_file),
];

/// More than this no structure that is copied measures (`PyThreadState`).
const MAX_COPIED_BYTES: u32 = 64 << 10;

/// The stored processes, as the targets need them.
struct Stored {
    process: StoredProcess,
    modules: Vec<LoadedModule>,
    damage: Damage,
    whole: Snapshot,
}

static STORED: LazyLock<Vec<Stored>> = LazyLock::new(|| {
    let all = StoredProcess::all().expect("the stored snapshots").into_iter();
    let stored = all.map(|process| Stored {
        modules: process.modules().expect("the stored modules"),
        damage: Damage::of(&process.memory),
        whole: process.memory.with_whole_pages(),
        process,
    });
    stored.collect()
});

/// The folder of the stored corpus of a target.
pub fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpora").join(target)
}

/// Calls a target with every input of its stored corpus.
///
/// # Errors
/// When there is no corpus, or the target panics.
pub fn replay(name: &str, target: FuzzTarget) -> Result<()> {
    let folder = corpus(name);
    let files = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> = files.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
    ensure!(!paths.is_empty(), "no inputs in {}", folder.display());
    paths.sort();
    for path in paths {
        let input = fs::read(&path)?;
        let survived = std::panic::catch_unwind(|| target(&input)).is_ok();
        ensure!(survived, "{name} panicked on {}", path.display());
    }
    Ok(())
}

/// A process whose memory lies: the first byte chooses a stored process, the others change its memory; then everything is
/// read of it. See [`crate::damage`] for the limits.
pub fn walk(input: &[u8]) {
    let Some((choice, changes)) = input.split_first() else { return };
    let Stored { process, modules, damage, .. } = chosen(*choice);
    let modules: Vec<_> = modules.iter().map(LoadedModule::as_module).collect();
    let _ = survey(&modules, &Limited::new(damage.by(changes)), &process.alive());
}

fn chosen(choice: u8) -> &'static Stored {
    &STORED[usize::from(choice) % STORED.len()]
}

/// Line tables of all three formats: every entry, and positions that must agree with the entries.
pub fn line_table(input: &[u8]) {
    let Some((head, bytes)) = input.split_first_chunk::<5>() else { return };
    let format = match head[0] % 3 {
        0 => LineTableFormat::Lnotab,
        1 => LineTableFormat::LineRanges,
        _ => LineTableFormat::Locations,
    };
    let first_line = i32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    let table = LineTable::new(format, first_line, bytes);
    let mut end = 0;
    for entry in table.entries() {
        assert!(entry.start == end && entry.end >= entry.start, "{entry:?} after {end}");
        if entry.end > entry.start {
            assert_eq!(table.position(Some(entry.start)), entry.position);
        }
        end = entry.end;
    }
    table.position(None);
    table.position(Some(u32::MAX));
}

/// The interpreter's description of itself: what is accepted stays within what a structure can measure.
pub fn debug_offsets(input: &[u8]) {
    let Ok(offsets) = parse_debug_offsets(input) else { return };
    for size in [offsets.thread.size, offsets.frame.size, offsets.code.size, offsets.gil.size] {
        assert!(size <= MAX_COPIED_BYTES, "{offsets:?}");
    }
    assert!(CodeHead::range(&offsets).len() <= MAX_CODE_HEAD_BYTES);
}

/// Finding the runtime with damaged files: the first byte chooses a stored process, whose memory is as it was; the others
/// are the file of its module.
pub fn find_elf(input: &[u8]) {
    let Some((choice, file)) = input.split_first() else { return };
    let Stored { whole, modules, .. } = chosen(*choice);
    let Some(module) = modules.last() else { return };
    let _ = find(&[module.with_file(file)], &Limited::new(whole));
}

/// Core files that lie: the input is the whole file, and its memory is read wherever it says that there is some.
pub fn core_file(input: &[u8]) {
    let Ok(file) = CoreFile::parse(input) else { return };
    let _ = file.executable();
    let mappings = file.files.clone();
    let mut memory = CoreMemory::new(file, input.to_vec());
    // A core is an ELF file as well: it stands for its own mapped file.
    let index = memory.add_file(&mappings, input.to_vec());
    for mapping in &mappings {
        let _ = compare_with_core(memory.in_core(mapping.start), input);
        let _ = memory.is_executable(mapping, Some(index));
        let _ = memory.bytes(mapping.start, 64, 64);
    }
    for segment in memory.file.segments.clone() {
        let last = segment.start.offset(segment.memory_size.wrapping_sub(8));
        for at in [segment.start, last] {
            let _ = memory.bytes(at, 64, 64);
        }
    }
}
