//! The name of a file that the user has not named.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use profiler_output::Format;

use super::Subject;

/// `python3-2026-11-21T06:02:01Z.svg` in the current folder.
pub fn default_name(subject: &Subject, format: &'static dyn Format, now: SystemTime) -> PathBuf {
    let mut name = match subject {
        Subject::Process(pid) => pid.to_string().into(),
        Subject::Command { program, .. } => {
            Path::new(program).file_name().map_or_else(|| "command".into(), OsString::from)
        }
    };
    name.push(format!("-{}.{}", rfc_3339(now), format.endings()[0]));
    PathBuf::from(name)
}

/// The second of an instant in universal time, as RFC 3339 writes it.
fn rfc_3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let (year, month, day) = date_of(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date this many days after 1970-01-01.
fn date_of(mut days: u64) -> (u64, u64, u64) {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    (year, month as u64 + 1, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [(0, (1970, 1, 1)), (58, (1970, 2, 28)), (59, (1970, 3, 1)), (789, (1972, 2, 29))];
        for (days, date) in cases {
            assert_eq!(date_of(days), date);
        }
        assert_eq!((date_of(11_016), date_of(11_017)), ((2000, 2, 29), (2000, 3, 1)));
        assert_eq!(date_of(20_453), (2025, 12, 31));
    }
}
