//! See `profiler_tests::fuzzing::debug_offsets`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| profiler_tests::fuzzing::debug_offsets(input));
