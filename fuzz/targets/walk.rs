//! See `profiler_tests::fuzzing::walk`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| profiler_tests::fuzzing::walk(input));
