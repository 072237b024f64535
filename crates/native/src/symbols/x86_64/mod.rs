//! What depends on the instructions of x86-64.

pub(super) mod stubs;
