//! The `peek` sampler: nothing is stopped, and what cannot be proved is lost.

mod capture;

pub use capture::capture;
