//! The ids of one dictionary in another.

use std::sync::Arc;

use profiler_model::Frame;

use crate::dictionary::Epoch;
use crate::event::{Event, Held, Loss, Mark, Metric, SampleEvent, Scope, Skip};
use crate::{Dictionary, FrameId, ProcessId, Sample, StackId, Tally, ThreadId, ThreadInfo};

/// What the ids of another dictionary are in this one, by index. It is brought up to date as that one grows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mapping {
    epoch: Epoch,
    revision: u64,
    frames: Vec<FrameId>,
    stacks: Vec<StackId>,
    processes: Vec<ProcessId>,
    threads: Vec<ThreadId>,
}

impl Mapping {
    /// The ids of all of `other` in `own`, which gets its frames as `describe` gives them, root first: as they are if it gives none.
    pub(crate) fn described(
        own: &mut Dictionary,
        other: &Dictionary,
        describe: &mut dyn FnMut(&Frame) -> Vec<Frame>,
    ) -> Self {
        let mut mapping = Mapping { epoch: other.epoch(), ..Mapping::default() };
        let mut described: Vec<Vec<FrameId>> = Vec::with_capacity(other.frames().len());
        for (_, frame) in other.frames() {
            let mut frames = describe(frame);
            if frames.is_empty() {
                frames.push(frame.clone());
            }
            let ids: Vec<FrameId> = frames.iter().map(|frame| own.frame(frame)).collect();
            mapping.frames.extend(ids.last());
            described.push(ids);
        }
        for (_, parent, frame) in other.stacks() {
            let parent = parent.map(|parent| mapping.stacks[parent.index()]);
            let stack = own.stack_on(parent, described[frame.index()].iter().copied());
            mapping.stacks.extend(stack);
        }
        mapping.extend(own, other);
        mapping
    }

    /// Adds to `own` what `other` has had added or changed since the last time.
    pub(crate) fn extend(&mut self, own: &mut Dictionary, other: &Dictionary) {
        if self.epoch != other.epoch() {
            *self = Mapping { epoch: other.epoch(), ..Mapping::default() };
        }
        if self.revision != other.revision() {
            self.revision = other.revision();
            self.update_known(own, other);
        }
        self.extend_frames(own, other);
        self.extend_stacks(own, other);
        for (_, process) in other.processes().skip(self.processes.len()) {
            let mut process = process.clone();
            process.parent = process.parent.map(|parent| self.processes[parent.index()]);
            self.processes.push(own.process(process));
        }
        for (_, thread) in other.threads().skip(self.threads.len()) {
            let process = self.processes[thread.process.index()];
            self.threads.push(own.thread(ThreadInfo { process, ..thread.clone() }));
        }
    }

    /// Rows of `other` differ from each other, and so do those that they are here. If there are as many here as were mapped, each is
    /// one of these, and the next one is not there yet: it need not be looked for.
    fn extend_frames(&mut self, own: &mut Dictionary, other: &Dictionary) {
        for (_, frame) in other.frames().skip(self.frames.len()) {
            let is_new = own.frames().len() == self.frames.len();
            self.frames.push(if is_new { own.append_frame(frame) } else { own.frame(frame) });
        }
    }

    fn extend_stacks(&mut self, own: &mut Dictionary, other: &Dictionary) {
        for (_, parent, frame) in other.stacks().skip(self.stacks.len()) {
            let parent = parent.map(|parent| self.stacks[parent.index()]);
            let frame = self.frames[frame.index()];
            let is_new = own.stacks().len() == self.stacks.len();
            self.stacks.push(if is_new { own.append_stack(parent, frame) } else { own.push(parent, frame) });
        }
    }

    /// Brings rows up to date that were there already.
    fn update_known(&self, own: &mut Dictionary, other: &Dictionary) {
        for ((_, process), id) in other.processes().zip(&self.processes) {
            own.complete_process(*id, process);
        }
        for ((_, thread), id) in other.threads().zip(&self.threads) {
            if let Some(name) = &thread.name {
                own.name_thread(*id, Arc::clone(name));
            }
        }
    }

    /// A stack in the ids of this dictionary.
    pub(crate) fn stack(&self, stack: StackId) -> StackId {
        self.stacks[stack.index()]
    }

    /// A thread in the ids of this dictionary.
    pub(crate) fn thread(&self, thread: ThreadId) -> ThreadId {
        self.threads[thread.index()]
    }

    /// A tally in the ids of this dictionary.
    pub(crate) fn tally(&self, tally: &Tally) -> Tally {
        Tally {
            thread: self.thread(tally.thread),
            stack: tally.stack.map(|stack| self.stack(stack)),
            ..*tally
        }
    }

    fn sample(&self, sample: &Sample) -> Sample {
        Sample {
            thread: self.thread(sample.thread),
            stack: sample.stack.map(|stack| self.stack(stack)),
            ..*sample
        }
    }

    fn scope(&self, scope: Scope) -> Scope {
        match scope {
            Scope::Session => Scope::Session,
            Scope::Process(process) => Scope::Process(self.processes[process.index()]),
            Scope::Thread(thread) => Scope::Thread(self.thread(thread)),
        }
    }

    /// An event in the ids of this dictionary.
    pub(crate) fn event(&self, event: &Event) -> Event {
        let scope = |scope| self.scope(scope);
        match event {
            Event::Sample(event) => {
                Event::Sample(SampleEvent { sample: self.sample(&event.sample), ..*event })
            }
            Event::Look(look) => Event::Look(self.sample(look)),
            Event::Skip(event) => Event::Skip(Skip { scope: scope(event.scope), ..*event }),
            Event::Loss(event) => Event::Loss(Loss { scope: scope(event.scope), ..*event }),
            Event::Held(event) => Event::Held(Held { scope: scope(event.scope), ..*event }),
            Event::Metric(event) => Event::Metric(Metric { scope: scope(event.scope), ..*event }),
            Event::Mark(event) => Event::Mark(Mark { scope: scope(event.scope), ..event.clone() }),
        }
    }
}
