//! The symbolizer on real ELF files, intact and damaged.

mod damaged;
mod files;
mod languages;
mod lookups;
mod support;
