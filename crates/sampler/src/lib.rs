//! See DESIGN; being written.
#![forbid(unsafe_code)]
