//! End-to-end tests of the binary `profiler` on the fixtures.
#![forbid(unsafe_code)]
