//! NumPy's instants and durations: a number of units, which each object names itself. The calendar is the
//! Gregorian one before its time, too, as with NumPy.

use profiler_memory::{ReadError, ReadMemory};
use profiler_model::RemoteAddr;

/// The number that stands for no time at all.
const NOT_A_TIME: i64 = i64::MIN;

/// NumPy's units: `NPY_DATETIMEUNIT`, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Years,
    Months,
    /// So many days.
    Days(i128),
    Hours,
    Minutes,
    /// Parts of a second: so many decimal places.
    Parts(u32),
    /// No unit.
    Generic,
}

impl Unit {
    /// The unit and its abbreviation.
    fn of_number(number: i32) -> Option<(Self, &'static str)> {
        Some(match number {
            0 => (Unit::Years, "Y"),
            1 => (Unit::Months, "M"),
            2 => (Unit::Days(7), "W"),
            4 => (Unit::Days(1), "D"),
            5 => (Unit::Hours, "h"),
            6 => (Unit::Minutes, "m"),
            7 => (Unit::Parts(0), "s"),
            8 => (Unit::Parts(3), "ms"),
            9 => (Unit::Parts(6), "us"),
            10 => (Unit::Parts(9), "ns"),
            11 => (Unit::Parts(12), "ps"),
            12 => (Unit::Parts(15), "fs"),
            13 => (Unit::Parts(18), "as"),
            14 => (Unit::Generic, "generic"),
            _ => return None,
        })
    }
}

/// What an object has: a number, and what it counts.
struct Content {
    value: i64,
    unit: Unit,
    abbreviation: &'static str,
    /// How many units are counted as one.
    multiple: i32,
}

impl Content {
    fn read(memory: &impl ReadMemory, at: RemoteAddr) -> Result<Self, ReadError> {
        let unit_at = at.offset(8);
        let (unit, abbreviation) =
            Unit::of_number(memory.scalar(unit_at)?).ok_or(ReadError::Unmapped(unit_at))?;
        let (value, multiple) = (memory.scalar(at)?, memory.scalar(at.offset(12))?);
        Ok(Content { value, unit, abbreviation, multiple })
    }

    /// `,'10s'`, or nothing where NumPy writes none.
    fn unit_text(&self, is_told_by_value: bool) -> String {
        match (self.unit, self.multiple) {
            (Unit::Generic, _) => String::new(),
            (_, 1) if is_told_by_value => String::new(),
            (_, 1) => format!(",'{}'", self.abbreviation),
            (_, multiple) => format!(",'{multiple}{}'", self.abbreviation),
        }
    }
}

/// What `datetime64` has in its parentheses, of the object whose content is at `at`.
pub(crate) fn instant(memory: &impl ReadMemory, at: RemoteAddr) -> Result<String, ReadError> {
    let content = Content::read(memory, at)?;
    let count = i128::from(content.value) * i128::from(content.multiple);
    let text = if content.value == NOT_A_TIME { "NaT".to_owned() } else { written(count, content.unit) };
    // A time without minutes would be read as one with them.
    let is_told_by_value = content.unit != Unit::Hours;
    Ok(format!("'{text}'{}", content.unit_text(is_told_by_value)))
}

/// What `timedelta64` has in its parentheses.
pub(crate) fn duration(memory: &impl ReadMemory, at: RemoteAddr) -> Result<String, ReadError> {
    let content = Content::read(memory, at)?;
    let text = match content.value {
        NOT_A_TIME => "'NaT'".to_owned(),
        value => value.to_string(),
    };
    Ok(text + &content.unit_text(false))
}

/// `count` units after the beginning of 1970.
fn written(count: i128, unit: Unit) -> String {
    match unit {
        Unit::Years => format!("{:04}", 1970 + count),
        Unit::Months => format!("{:04}-{:02}", 1970 + count.div_euclid(12), 1 + count.rem_euclid(12)),
        Unit::Days(days) => date(count * days),
        Unit::Hours => format!("{}T{:02}", date(count.div_euclid(24)), count.rem_euclid(24)),
        Unit::Minutes => minutes(count),
        Unit::Parts(places) => {
            let one = 10i128.pow(places);
            let (seconds, part) = (count.div_euclid(one), count.rem_euclid(one));
            let text = format!("{}:{:02}", minutes(seconds.div_euclid(60)), seconds.rem_euclid(60));
            if places == 0 { text } else { format!("{text}.{part:0width$}", width = places as usize) }
        }
        Unit::Generic => count.to_string(),
    }
}

fn minutes(count: i128) -> String {
    let (days, of_day) = (count.div_euclid(1440), count.rem_euclid(1440));
    format!("{}T{:02}:{:02}", date(days), of_day / 60, of_day % 60)
}

/// The date so many days after the first of 1970.
fn date(days: i128) -> String {
    /// Days of four hundred years, after which the calendar repeats itself.
    const CYCLE: i128 = 146_097;
    /// From the first of March of the year 0 to the beginning of 1970.
    const OFFSET: i128 = 719_468;
    let (cycle, day) = ((days + OFFSET).div_euclid(CYCLE), (days + OFFSET).rem_euclid(CYCLE));
    // Years begin with March, so that the leap day is their last.
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day_of_month:02}", cycle * 400 + year + next_year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_of_every_unit() {
        let cases: [(i128, Unit, &str); 12] = [
            (50, Unit::Years, "2020"),
            (-2070, Unit::Years, "-100"),
            (604, Unit::Months, "2020-05"),
            (18_321, Unit::Days(1), "2020-02-29"),
            (2617, Unit::Days(7), "2020-02-27"),
            (-1, Unit::Days(1), "1969-12-31"),
            (-1, Unit::Hours, "1969-12-31T23"),
            (61, Unit::Minutes, "1970-01-01T01:01"),
            (i128::from(i64::MAX), Unit::Parts(0), "292277026596-12-04T15:30:07"),
            (-1, Unit::Parts(3), "1969-12-31T23:59:59.999"),
            (1, Unit::Parts(18), "1970-01-01T00:00:00.000000000000000001"),
            (7, Unit::Generic, "7"),
        ];
        for (count, unit, text) in cases {
            assert_eq!(written(count, unit), text);
        }
    }
}
