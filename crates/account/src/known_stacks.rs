//! Stacks of off-CPU intervals whose records have not been read yet: taken when the thread was looked at, or sent before the record
//! because they are deep. The record of one off-CPU interval may be read after a later off-CPU interval was looked at, so that a thread can
//! have several of them.

use profiler_model::Timestamp;

/// What was found when an off-CPU interval began.
#[derive(Clone, Debug)]
pub struct KnownStack<S> {
    /// When it began.
    pub began: Timestamp,
    /// Its stack.
    pub stack: S,
    /// Whether the thread held the GIL when it left its CPU.
    pub holds_gil: bool,
}

/// The stacks of one thread.
#[derive(Clone, Debug)]
pub struct KnownStacks<S>(Vec<KnownStack<S>>);

impl<S> Default for KnownStacks<S> {
    fn default() -> Self {
        KnownStacks(Vec::new())
    }
}

impl<S: Clone> KnownStacks<S> {
    /// Keeps the stack of an off-CPU interval, in place of an earlier one of the same off-CPU interval.
    pub fn keep(&mut self, known: KnownStack<S>) {
        self.0.retain(|kept| kept.began != known.began);
        self.0.push(known);
    }

    /// All stacks, to be changed.
    pub fn stacks_mut(&mut self) -> impl Iterator<Item = &mut S> {
        self.0.iter_mut().map(|known| &mut known.stack)
    }

    /// The stack of the off-CPU interval that began at `left`.
    pub fn of(&self, left: Timestamp) -> Option<KnownStack<S>> {
        self.0.iter().find(|known| known.began == left).cloned()
    }

    /// Forgets the off-CPU interval that began at `left` and those before it: the kernel sends records in their order.
    pub fn forget_until(&mut self, left: Timestamp) {
        self.0.retain(|known| known.began > left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(began: u64, stack: &str) -> KnownStack<&str> {
        KnownStack { began: Timestamp::from_nanos(began), stack, holds_gil: false }
    }

    fn stack_at(kept: &KnownStacks<&'static str>, began: u64) -> Option<&'static str> {
        kept.of(Timestamp::from_nanos(began)).map(|known| known.stack)
    }

    #[test]
    fn later_interval_does_not_hide_unread_earlier_one() {
        let mut kept = KnownStacks::default();
        kept.keep(known(10, "first look"));
        kept.keep(known(10, "second look"));
        kept.keep(known(20, "later"));
        assert_eq!((stack_at(&kept, 10), stack_at(&kept, 20)), (Some("second look"), Some("later")));
        kept.forget_until(Timestamp::from_nanos(10));
        assert_eq!((stack_at(&kept, 10), stack_at(&kept, 20)), (None, Some("later")));
    }
}
