//! From clocks and scheduler events to weights, waits and losses: when samples are due, what a tick stands for, how much of
//! its time a thread waited, and what was missed while nothing could be sampled.
//!
//! Pure: clocks are read elsewhere, and their values come in as arguments.
#![forbid(unsafe_code)]

mod known_stacks;
mod launch_time;
mod off_cpu_clock;
mod random;
mod random_period;
mod reported_intervals;
mod schedule;
mod thread_account;
mod ticks;
mod unattached_time;

pub use known_stacks::{KnownStack, KnownStacks};
pub use launch_time::LaunchTime;
pub use off_cpu_clock::OffCpuClock;
pub use random::Random;
pub use random_period::{PeriodSequence, RandomPeriod};
pub use reported_intervals::ReportedIntervals;
pub use schedule::Schedule;
pub use thread_account::{EventWeight, ThreadAccount, longest_kept_back};
pub use ticks::{Tick, ticks};
pub use unattached_time::UnattachedTime;
