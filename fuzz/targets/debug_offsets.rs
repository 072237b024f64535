//! The interpreter's description of itself: what is accepted stays within what a structure can measure.
#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler_python::{CodeHead, MAX_CODE_HEAD_BYTES, parse_debug_offsets};

/// More than this no structure that is copied measures (`PyThreadState`).
const MAX_COPIED_BYTES: u32 = 64 << 10;

fuzz_target!(|input: &[u8]| {
    let Ok(offsets) = parse_debug_offsets(input) else { return };
    for size in [offsets.thread.size, offsets.frame.size, offsets.code.size, offsets.gil.size] {
        assert!(size <= MAX_COPIED_BYTES, "{offsets:?}");
    }
    assert!(CodeHead::range(&offsets).len() <= MAX_CODE_HEAD_BYTES);
});
