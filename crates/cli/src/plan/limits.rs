//! The values that the command line accepts.

use std::time::Duration;

/// The highest sample rate. A sample takes some ten microseconds of the target's time at best: at this rate there is
/// nothing left to measure.
pub const MAX_RATE_HZ: f64 = 100_000.0;
/// The lowest sample rate: one sample in a quarter of an hour. Below that, a mistake is likelier than an intention.
pub const MIN_RATE_HZ: f64 = 0.001;
/// The lowest limit of CPU time. Below that, too few samples are taken to be of use.
pub const MIN_CPU_PERCENT: f64 = 0.1;
/// The longest recording: a hundred years, which keeps sums of instants in range.
pub const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// The shortest time between two pictures: nobody reads more.
pub const MIN_DELAY: Duration = Duration::from_millis(100);
/// The longest time between two pictures.
pub const MAX_DELAY: Duration = Duration::from_secs(3_600);
/// The longest wait that may be reported only as a part of a sum.
pub const MAX_MIN_WAIT: Duration = Duration::from_secs(3_600);
/// The largest process id that Linux gives (`PID_MAX_LIMIT`).
pub const MAX_PID: u32 = 1 << 22;
