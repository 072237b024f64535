//! Names of the frames of stored processes: memory that was recorded from real interpreters of each version.

mod case;
mod resolver;
mod stack_resolver;
