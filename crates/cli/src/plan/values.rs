//! Values of the command line, from text to what they mean.

use std::time::Duration;

use profiler_model::Pid;

use super::limits::{
    MAX_DELAY, MAX_DURATION, MAX_MIN_WAIT, MAX_PID, MAX_RATE_HZ, MIN_CPU_PERCENT, MIN_DELAY, MIN_RATE_HZ,
};
use super::usage_error::UsageError;

/// A process id, decimal or 0xhex.
///
/// # Errors
/// When no process can have it, or when it is the profiler's own.
pub fn parse_pid(text: &str) -> Result<Pid, UsageError> {
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match number {
        Ok(own) if own == std::process::id() => Err(UsageError::OwnPid(Pid::new(own))),
        Ok(number @ 1..=MAX_PID) => Ok(Pid::new(number)),
        _ => Err(UsageError::BadPid(text.to_owned())),
    }
}

/// A sample rate in Hz.
///
/// # Errors
/// When it is not a number in range.
pub fn parse_rate(text: &str) -> Result<f64, UsageError> {
    match text.parse::<f64>() {
        Ok(rate) if (MIN_RATE_HZ..=MAX_RATE_HZ).contains(&rate) => Ok(rate),
        _ => Err(UsageError::BadRate(text.to_owned())),
    }
}

/// A share of one core, from percent to a fraction: 1 is a whole core.
///
/// # Errors
/// When it is not a number in range.
pub fn parse_max_cpu(text: &str) -> Result<f64, UsageError> {
    match text.parse::<f64>() {
        Ok(percent) if (MIN_CPU_PERCENT..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err(UsageError::BadMaxCpu(text.to_owned())),
    }
}

/// How long to sample; `None` for `unlimited`.
///
/// # Errors
/// When it is not a number of seconds in range.
pub fn parse_duration(text: &str) -> Result<Option<Duration>, UsageError> {
    if text == "unlimited" {
        return Ok(None);
    }
    match parse_seconds(text) {
        Some(duration) if !duration.is_zero() && duration <= MAX_DURATION => Ok(Some(duration)),
        _ => Err(UsageError::BadDuration(text.to_owned())),
    }
}

/// The time between two pictures.
///
/// # Errors
/// When it is not a number of seconds in range.
pub fn parse_delay(text: &str) -> Result<Duration, UsageError> {
    parse_seconds(text)
        .filter(|delay| (MIN_DELAY..=MAX_DELAY).contains(delay))
        .ok_or_else(|| UsageError::BadDelay(text.to_owned()))
}

/// The shortest wait that is reported on its own.
///
/// # Errors
/// When it is not a number of seconds in range.
pub fn parse_min_wait(text: &str) -> Result<Duration, UsageError> {
    parse_seconds(text)
        .filter(|wait| *wait <= MAX_MIN_WAIT)
        .ok_or_else(|| UsageError::BadMinWait(text.to_owned()))
}

fn parse_seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_refused() {
        let bad_rates = ["0", "-5", "nan", "inf", "1e9", "0.0001", "fast", "", "1,5"];
        for text in bad_rates {
            assert_eq!(parse_rate(text), Err(UsageError::BadRate(text.into())));
        }
        for text in ["0", "0.01", "101", "nan", "much", ""] {
            assert_eq!(parse_max_cpu(text), Err(UsageError::BadMaxCpu(text.into())));
        }
        assert_eq!((parse_max_cpu("10"), parse_max_cpu("100")), (Ok(0.1), Ok(1.0)));
        for text in ["0", "-1", "nan", "inf", "1e300", "soon", "", "1e-12"] {
            assert_eq!(parse_duration(text), Err(UsageError::BadDuration(text.into())));
        }
        for text in ["0", "-1", "0x", "x10", "4294967296", "4194305", "1.5", ""] {
            assert_eq!(parse_pid(text), Err(UsageError::BadPid(text.into())));
        }
        let own = std::process::id();
        assert_eq!(parse_pid(&own.to_string()), Err(UsageError::OwnPid(Pid::new(own))));
    }
}
