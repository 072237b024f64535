//! See `profiler_tests::fuzzing::core_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| profiler_tests::fuzzing::core_file(input));
