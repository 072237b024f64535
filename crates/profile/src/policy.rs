//! Which stacks are captured, and which of them a view shows.

use profiler_model::{ThreadState, WaitReason};

use crate::event::{Event, Loss, SampleEvent, Scope, Sink, Skip, ThreadRole};
use crate::{Dictionary, Sample};

/// Which stacks are captured: what it costs, and which views can be drawn of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CapturePolicy {
    /// Those of threads that run, or could if they had a CPU.
    #[default]
    Running,
    /// These, and that of the thread that holds the GIL, whatever it does.
    RunningAndGilHolder,
    /// All.
    All,
}

/// Which samples a view shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewFilter {
    /// Whether those of threads that sleep are shown.
    pub idle: bool,
    /// Whether only those of threads that hold the GIL are shown.
    pub gil_only: bool,
}

impl ViewFilter {
    /// Shows all.
    pub const ALL: ViewFilter = ViewFilter { idle: true, gil_only: false };

    /// What has to be captured for the view.
    pub fn policy(self) -> CapturePolicy {
        match self {
            ViewFilter { gil_only: true, .. } => CapturePolicy::RunningAndGilHolder,
            ViewFilter { idle: true, .. } => CapturePolicy::All,
            ViewFilter { idle: false, .. } => CapturePolicy::Running,
        }
    }

    /// Whether what a thread did in this role is shown.
    pub fn shows(self, role: ThreadRole) -> bool {
        let runs = role.state.is_running() || role.state == ThreadState::Waiting(WaitReason::Cpu);
        (runs || self.idle) && (role.holds_gil || !self.gil_only)
    }

    /// The event as the view sees it: what it does not show was skipped.
    fn apply(self, event: &Event) -> Event {
        match event {
            Event::Sample(SampleEvent { sample, count, .. }) if !self.shows(role_of(sample)) => {
                let &Sample { at, thread, cpu, wall, .. } = sample;
                Event::Skip(Skip { at, scope: Scope::Thread(thread), count: *count, cpu, wall })
            }
            Event::Loss(Loss { at, scope, count, cpu, wall, role: Some(role), .. }) if !self.shows(*role) => {
                Event::Skip(Skip { at: *at, scope: *scope, count: *count, cpu: *cpu, wall: *wall })
            }
            event => event.clone(),
        }
    }
}

fn role_of(sample: &Sample) -> ThreadRole {
    ThreadRole { state: sample.state, holds_gil: sample.holds_gil }
}

/// A sink that sees what a filter shows.
#[derive(Clone, Debug)]
pub struct Filtered<S> {
    /// What is shown.
    pub filter: ViewFilter,
    /// Who sees it.
    pub sink: S,
}

impl<S: Sink> Sink for Filtered<S> {
    fn take(&mut self, dictionary: &Dictionary, events: &[Event]) {
        if self.filter == ViewFilter::ALL {
            return self.sink.take(dictionary, events);
        }
        let seen: Vec<Event> = events.iter().map(|event| self.filter.apply(event)).collect();
        self.sink.take(dictionary, &seen);
    }

    fn epoch_ended(&mut self, dictionary: &Dictionary) {
        self.sink.epoch_ended(dictionary);
    }

    fn wants_looks(&self) -> bool {
        self.sink.wants_looks()
    }
}

#[cfg(test)]
mod tests {
    use profiler_model::{LossReason, Nanos, Timestamp};

    use super::*;
    use crate::{Profile, SampleCause, ThreadId};

    fn sample(state: ThreadState, holds_gil: bool) -> Event {
        let (at, thread) = (Timestamp::default(), ThreadId::new(0));
        let (cpu, wall) = (Nanos::from_nanos(3), Nanos::from_nanos(5));
        let sample = Sample { at, thread, stack: None, state, holds_gil, cpu, wall };
        Event::Sample(SampleEvent::new(sample, SampleCause::Instant))
    }

    #[test]
    fn hidden_samples_are_skipped_with_their_time() {
        let asleep = ThreadState::Waiting(WaitReason::Sleep);
        let gil = ViewFilter { idle: false, gil_only: true };
        assert_eq!(gil.apply(&sample(ThreadState::Running, true)), sample(ThreadState::Running, true));
        for (state, holds_gil) in [(ThreadState::Running, false), (asleep, true), (asleep, false)] {
            let Event::Skip(skip) = gil.apply(&sample(state, holds_gil)) else { panic!("{state:?}") };
            let times = (skip.count, skip.cpu, skip.wall);
            assert_eq!(times, (1, Nanos::from_nanos(3), Nanos::from_nanos(5)));
        }
        let queued = sample(ThreadState::Waiting(WaitReason::Cpu), false);
        assert_eq!(ViewFilter { idle: false, gil_only: false }.apply(&queued), queued, "it could run");
    }

    #[test]
    fn filter_keeps_the_number_of_attempts() {
        let role = Some(ThreadRole { state: ThreadState::Running, holds_gil: false });
        let loss = Loss::of(LossReason::Moved, Scope::Session, Timestamp::default(), 2);
        let events = [
            sample(ThreadState::Running, true),
            sample(ThreadState::Running, false),
            Event::Loss(Loss { role, ..loss }),
            Event::Loss(loss),
        ];
        let mut dictionary = Dictionary::default();
        dictionary.process(crate::ProcessInfo::default());
        let filter = ViewFilter { idle: true, gil_only: true };
        let mut filtered = Filtered { filter, sink: Profile::new() };
        let shown: Vec<Event> = events.iter().map(|event| filter.apply(event)).collect();
        shown.iter().for_each(|event| filtered.sink.add(event));
        let ledger = filtered.sink.ledger();
        assert_eq!((ledger.attempts(), ledger.shown(), ledger.not_asked_for(), ledger.lost()), (6, 1, 3, 2));
    }
}
