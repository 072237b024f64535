//! See `profiler_tests::fuzzing::find_elf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| profiler_tests::fuzzing::find_elf(input));
