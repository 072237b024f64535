//! Core files that lie: the input is the whole file, and its memory is read wherever it says that there is some.
#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler_memory::{CoreFile, CoreMemory, ReadMemory, compare_with_core};

fuzz_target!(|input: &[u8]| {
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
});
