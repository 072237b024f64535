//! How far off-CPU intervals were reported before they were over. The record of the whole interval adds only the rest. It may
//! be read long after, when parts of later intervals have been reported already: when the profiler itself is held up between
//! reading and looking, or the kernel sends as fast as is read.

use profiler_model::Timestamp;

/// The off-CPU intervals of a thread of which parts were reported, and whose record was not read yet: the oldest first.
#[derive(Clone, Debug, Default)]
pub struct ReportedIntervals(Vec<(Timestamp, Timestamp)>);

impl ReportedIntervals {
    /// Notes that the off-CPU interval that began at `left` is reported up to `until`.
    pub fn note(&mut self, left: Timestamp, until: Timestamp) {
        self.0.retain(|(began, _)| *began != left);
        self.0.push((left, until));
    }

    /// Up to when the off-CPU interval that began at `left` was reported, if any of it was.
    pub fn of(&self, left: Timestamp) -> Option<Timestamp> {
        self.0.iter().find(|(began, _)| *began == left).map(|(_, until)| *until)
    }

    /// Forgets the off-CPU interval that began at `left`, whose record was read, and those before: records come in their
    /// order, so that one that did not come was lost.
    pub fn forget_until(&mut self, left: Timestamp) {
        self.0.retain(|(began, _)| *began > left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    #[test]
    fn a_part_is_known_until_the_record_of_its_interval_was_read() {
        let mut told = ReportedIntervals::default();
        assert_eq!(told.of(at(10)), None);
        told.note(at(10), at(15));
        told.note(at(10), at(18));
        told.note(at(20), at(25));
        assert_eq!(
            (told.of(at(10)), told.of(at(20))),
            (Some(at(18)), Some(at(25))),
            "a later one hides none"
        );
        told.forget_until(at(10));
        assert_eq!((told.of(at(10)), told.of(at(20))), (None, Some(at(25))));
    }

    #[test]
    fn a_record_that_did_not_come_before_a_later_one_was_lost() {
        let mut told = ReportedIntervals::default();
        told.note(at(10), at(15));
        told.note(at(20), at(25));
        told.forget_until(at(30));
        assert_eq!((told.of(at(10)), told.of(at(20))), (None, None));
    }
}
