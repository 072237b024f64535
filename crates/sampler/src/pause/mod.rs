//! The `pause` sampler: one thread is stopped for some microseconds, or preempted from its own CPU.

mod capture;
mod cpu_follower;
mod quota;

pub use capture::{capture, capture_alone, refusal};
pub use cpu_follower::{CpuFollower, Runners};
pub use quota::QuotaGuard;
