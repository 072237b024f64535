//! What a tick of a CPU's clock stands for. The in-kernel program says what the clock has counted since the tick
//! before; how much of that the thread that the tick met can have used is told apart here.

use profiler_model::Nanos;

/// A sample stands for at most so many ticks of its CPU's clock, besides those that the kernel left out to limit their
/// number: for some that came late, but not for all the time for which a virtual machine did not get its CPU, in which
/// nobody ran.
const MAX_TICKS_OF_A_SAMPLE: u64 = 4;

/// A tick is as punctual as this, or as the part below of its period: an interrupt to a CPU that runs takes some ten
/// microseconds at most, nearly always.
const PUNCTUAL: u64 = 100_000;

/// Of a short period a tick that is late by chance would be punctual by chance too often.
const PUNCTUAL_PART: u64 = 8;

/// What a tick stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// The CPU time.
    pub weight: Nanos,
    /// How many ticks should have come before it meanwhile.
    pub late: u64,
}

impl Tick {
    /// Of what the clock has counted since the tick before, with so many that were due meanwhile and did not come, and
    /// of how late this one is itself: the clock is periodic, so one that is late puts off none.
    ///
    /// Where a CPU was idle its ticks may not come: some virtual machines deliver none (one of them half of those that
    /// were due). Nobody was missed there, and who runs afterwards has not run all the time. Such a gap ends with a
    /// tick at its time. A tick that could not come, because interrupts were held off or the machine did not get its
    /// CPU, comes as soon as it can, between two due times.
    pub fn after(counted: Nanos, missed: u64, behind: Nanos, period: Nanos) -> Self {
        let punctual = PUNCTUAL.min(period.as_nanos() / PUNCTUAL_PART);
        if missed > 0 && behind.as_nanos() <= punctual {
            let idle = Nanos::from_nanos(missed.saturating_mul(period.as_nanos()));
            return Tick { weight: counted.saturating_sub(idle), late: 0 };
        }
        let weight = counted.min(Nanos::from_nanos(period.as_nanos() * MAX_TICKS_OF_A_SAMPLE));
        Tick { weight, late: missed.min(MAX_TICKS_OF_A_SAMPLE - 1) }
    }
}

/// How many ticks there should be in this time.
pub fn ticks(time: Nanos, period: Nanos) -> u64 {
    (time + Nanos::from_nanos(period.as_nanos() / 2)).as_nanos() / period.as_nanos().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Nanos = Nanos::from_nanos(9_687_500);

    fn after(counted: u64, missed: u64, behind: u64) -> (u64, u64) {
        let tick = Tick::after(Nanos::from_nanos(counted), missed, Nanos::from_nanos(behind), PERIOD);
        (tick.weight.as_nanos(), tick.late)
    }

    #[test]
    fn a_tick_stands_for_what_was_counted_since_the_one_before() {
        assert_eq!(after(9_687_500, 0, 0), (9_687_500, 0));
        assert_eq!(after(9_700_000, 0, 12_500), (9_700_000, 0));
        assert_eq!(after(9_000_000, 0, 0), (9_000_000, 0));
    }

    #[test]
    fn a_late_tick_puts_off_none() {
        assert_eq!(after(18_000_000, 0, 8_312_500), (18_000_000, 0));
        assert_eq!(after(1_375_000, 0, 0), (1_375_000, 0));
    }

    #[test]
    fn what_an_idle_cpu_did_not_tick_is_nobodys_time() {
        assert_eq!(after(19_375_955, 1, 955), (9_688_455, 0));
        assert_eq!(after(968_750_951, 99, 951), (9_688_451, 0));
        assert_eq!(after(968_749_000, 99, 0), (9_686_500, 0));
        assert_eq!(after(9_000_000, 1, 0), (0, 0), "a clock that does not know its time");
    }

    #[test]
    fn ticks_that_were_held_off_are_late_and_their_time_is_kept() {
        assert_eq!(after(23_000_000, 1, 3_625_000), (23_000_000, 1));
        assert_eq!(after(33_000_000, 2, 3_937_500), (33_000_000, 2));
    }

    #[test]
    fn nobody_ran_for_very_long() {
        assert_eq!(after(333_000_000, 33, 3_625_000), (4 * 9_687_500, 3));
        assert_eq!(after(333_000_000, u64::MAX, 0), (0, 0));
    }
}
