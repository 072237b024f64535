//! See `profiler_tests::fuzzing::line_table`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| profiler_tests::fuzzing::line_table(input));
