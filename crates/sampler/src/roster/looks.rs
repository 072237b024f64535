//! When a thread was looked at, what the looks found, and which instants between them are not reported yet.

use crate::rota::LOOKS_BEFORE_REST;

/// The looks at a thread. Instants have numbers, see [`Rota::instant`](crate::rota::Rota::instant).
#[derive(Debug, Default)]
pub struct Looks {
    /// Whether the thread slept at the last look and had run since the one before.
    pub has_fallen_asleep: bool,
    /// Whether the thread ran at the last look, or had run since the one before.
    has_run: bool,
    /// The number of looks in a row at which the thread slept and had not run.
    asleep: u16,
    /// The instant of the last look.
    last: u64,
    /// The last instant for which the state of the thread was reported.
    reported: u64,
    /// The instants without a look that are not reported yet.
    unseen: UnseenInstants,
}

/// Numbers of instants at which a thread was not looked at, by what its counters said later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct UnseenInstants {
    /// The thread slept: it had not run since the look before.
    asleep: u64,
    /// The thread ran at some time: what it did at each of these instants is not known.
    unknown: u64,
}

impl Looks {
    /// For a thread that is met at `instant`; `runs` says whether it is running then.
    pub fn from(instant: u64, runs: bool) -> Self {
        let asleep = if runs { 0 } else { LOOKS_BEFORE_REST };
        Looks { has_run: runs, asleep, last: instant, ..Looks::default() }
    }

    /// Begins the look of `instant`. Returns the number of instants without a look before it.
    pub fn begin(&mut self, instant: u64) -> u64 {
        let skipped = self.instants_since(instant).saturating_sub(1);
        self.last = instant;
        skipped
    }

    /// Takes the result of a look: whether the thread is running, and whether it has run since the look before.
    pub fn note(&mut self, runs: bool, has_run: bool) {
        self.has_fallen_asleep = !runs && has_run;
        self.has_run = runs || has_run;
        self.asleep = if self.has_run { 0 } else { self.asleep.saturating_add(1) };
    }

    /// Counts `skipped` instants without a look, by what the look after them found.
    pub fn count_skipped(&mut self, skipped: u64) {
        match self.has_run {
            true => self.count_unknown(skipped),
            false => self.count_asleep(skipped),
        }
    }

    /// Counts instants without a look at which the thread slept.
    pub fn count_asleep(&mut self, instants: u64) {
        self.unseen.asleep += instants;
    }

    /// Counts instants without a look at which it is not known what the thread did.
    pub fn count_unknown(&mut self, instants: u64) {
        self.unseen.unknown += instants;
    }

    /// The number of instants after the last look, up to and including `instant`.
    pub fn instants_since(&self, instant: u64) -> u64 {
        instant.saturating_sub(self.last)
    }

    /// The number of instants that are in no event yet, up to and including `instant`.
    pub fn unreported(&self, instant: u64) -> u64 {
        self.unseen.asleep + self.unseen.unknown + self.instants_since(instant)
    }

    /// Takes the number of unreported instants at which the thread slept and was not looked at.
    pub fn take_asleep(&mut self) -> u64 {
        std::mem::take(&mut self.unseen.asleep)
    }

    /// Takes the number of unreported instants without a look at which it is not known what the thread did.
    pub fn take_unknown(&mut self) -> u64 {
        std::mem::take(&mut self.unseen.unknown)
    }

    /// The instant of the last look.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Notes that the state of the thread at `instant` is reported.
    pub fn set_reported(&mut self, instant: u64) {
        self.reported = instant;
    }

    /// Whether the thread was looked at at `instant` and its state then is not reported yet.
    pub fn is_unreported(&self, instant: u64) -> bool {
        self.last == instant && self.reported != instant
    }

    /// Whether the thread has slept long enough to be looked at only in its turn.
    pub fn rests(&self) -> bool {
        self.asleep >= LOOKS_BEFORE_REST
    }
}
