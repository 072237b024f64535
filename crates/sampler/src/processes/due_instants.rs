//! The instants that one look is for: the instant of a schedule, or the ticks that have passed since the look before.

use profiler_model::{Nanos, Timestamp};

/// Evenly spaced instants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueInstants {
    /// The last one.
    pub last: Timestamp,
    /// How many.
    pub count: u64,
    /// The gap between two of them.
    gap: Nanos,
}

impl DueInstants {
    /// The instant of a schedule.
    pub fn one(at: Timestamp) -> Self {
        DueInstants { last: at, count: 1, gap: Nanos::ZERO }
    }

    /// The ticks of a clock with this period from `before`, the last one that was looked at, to `now`. A clock with period 0 does
    /// not tick.
    pub fn ticks(before: Timestamp, now: Timestamp, period: Nanos) -> Self {
        match now.since(before).as_nanos().checked_div(period.as_nanos()) {
            None => DueInstants { last: now, count: 0, gap: period },
            Some(count) => {
                let last = before + Nanos::from_nanos(count * period.as_nanos());
                DueInstants { last, count, gap: period }
            }
        }
    }

    /// Whether it is the instant of a schedule.
    pub fn is_scheduled(&self) -> bool {
        self.gap == Nanos::ZERO && self.count > 0
    }

    /// How many of them are later than `since`.
    pub fn later_than(&self, since: Timestamp) -> u64 {
        let after = self.last.since(since).as_nanos();
        match self.gap {
            _ if after == 0 => 0,
            Nanos::ZERO => self.count,
            gap => after.div_ceil(gap.as_nanos()).min(self.count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    #[test]
    fn ticks_before_a_birth_are_not_counted() {
        let due = DueInstants::ticks(at(100), at(149), Nanos::from_nanos(10));
        assert_eq!((due.last, due.count), (at(140), 4));
        let later: Vec<u64> =
            [90, 100, 110, 119, 120, 139, 140, 145].map(|since| due.later_than(at(since))).into();
        assert_eq!(later, [4, 4, 3, 3, 2, 1, 0, 0]);
    }

    #[test]
    fn one_instant_counts_for_what_was_there_before() {
        let due = DueInstants::one(at(100));
        assert_eq!([99, 100, 101].map(|since| due.later_than(at(since))), [1, 0, 0]);
    }

    #[test]
    fn clock_that_does_not_tick_has_no_instants() {
        let due = DueInstants::ticks(at(100), at(149), Nanos::ZERO);
        assert_eq!((due.last, due.count, due.later_than(at(0))), (at(149), 0, 0));
    }
}
