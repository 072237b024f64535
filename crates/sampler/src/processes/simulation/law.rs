//! The law: how many attempts a process has, by what it ran and when it was looked at. This is told by the machine itself, which
//! knows all of it, and not by the accounts.

/// An instant that was due. Its number is its place in the order in which the session came to them.
#[derive(Clone, Copy, Debug)]
pub struct DueInstant {
    pub at: u64,
    pub is_looked_at: bool,
}

/// How a program of a process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseStart {
    /// It was found, or born of a process of which nobody knew whether it was a Python: it is a Python only since it may have
    /// become one.
    Found,
    /// It was born of a process that was known to be a Python.
    Inherited,
    /// By an `exec` that was reported.
    Executed,
    /// It was added by itself: all its instants count, whether it has a Python or not.
    Single,
}

/// A program that a process ran, with what was seen of it. Looks are numbered by the instants that they were for.
#[derive(Clone, Debug)]
pub struct Phase {
    start: PhaseStart,
    since: u64,
    /// When it ended, if that is known.
    pub end: Option<u64>,
    /// The first look after its end was reported.
    pub first_look_after: Option<usize>,
    /// The look at which its sampler found that it had ended.
    found_ended: Option<usize>,
    first_attach: Option<usize>,
    /// The last look before that which found no Python, and when that was.
    last_without: Option<(usize, u64)>,
    /// The last look that found its Python gone, as long as there is no new one.
    lost_python: Option<usize>,
    silent: Option<usize>,
    /// Looks for instants that were due before its birth.
    early_looks: u64,
}

impl Phase {
    pub fn new(start: PhaseStart, since: u64) -> Self {
        Phase {
            start,
            since,
            end: None,
            first_look_after: None,
            found_ended: None,
            first_attach: None,
            last_without: None,
            lost_python: None,
            silent: None,
            early_looks: 0,
        }
    }

    pub fn attached(&mut self, look: usize) {
        self.first_attach.get_or_insert(look);
        self.lost_python = None;
    }

    pub fn had_none(&mut self, look: usize, now: u64) {
        if self.first_attach.is_none() {
            self.last_without = Some((look, now));
        }
    }

    pub fn looked(&mut self, due: u64) {
        self.early_looks += u64::from(due <= self.since);
    }

    pub fn lost_python(&mut self, look: usize) {
        self.lost_python = Some(look);
    }

    pub fn silent_at(&mut self, look: usize) {
        self.silent.get_or_insert(look);
    }

    pub fn found_ended(&mut self, look: usize) {
        self.found_ended = Some(look);
    }

    pub fn is_single(&self) -> bool {
        self.start == PhaseStart::Single
    }

    /// Whether a Python of it is known that forks of it have as well.
    pub fn has_known_python(&self) -> bool {
        let is_untouched_fork = self.start == PhaseStart::Inherited && self.first_attach.is_none();
        self.is_sampled() || is_untouched_fork
    }

    /// Whether it is being sampled.
    pub fn is_sampled(&self) -> bool {
        self.first_attach.is_some() && self.lost_python.is_none() && self.silent.is_none()
    }

    /// How many attempts there are, of the instants that were due: one for each that was due while it was known to be a Python, or
    /// may have been one.
    pub fn attempts(&self, instants: &[DueInstant]) -> u64 {
        let is_in_life = |at: u64| self.since < at && self.end.is_none_or(|end| at <= end);
        let counts = |(number, instant): &(usize, &DueInstant)| {
            let is_before_end = self.found_ended.is_none_or(|end| *number < end);
            is_in_life(instant.at) && is_before_end && self.is_python_at(*number, **instant)
        };
        instants.iter().enumerate().filter(counts).count() as u64 + self.early_looks
    }

    fn is_python_at(&self, number: usize, instant: DueInstant) -> bool {
        if self.is_single() {
            return true;
        }
        let is_silent = self.silent.is_some_and(|silent| number >= silent);
        let Some(first) = self.first_attach else {
            return is_silent || self.start == PhaseStart::Inherited;
        };
        let is_after_failure = self.last_without.is_none_or(|(none, now)| number > none && instant.at > now);
        // It is looked at although it had no Python then, if the sampler is that late.
        let is_looked_at = instant.is_looked_at
            && number >= first
            && self.first_look_after.is_none_or(|after| number < after);
        let may_have_been = is_after_failure || is_looked_at;
        let is_gone = self.lost_python.is_some_and(|lost| number > lost);
        (is_silent || !is_gone) && (may_have_been || self.start != PhaseStart::Found)
    }
}
