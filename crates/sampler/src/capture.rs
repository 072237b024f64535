//! What every sampler delivers: stacks of some threads at one instant, proved or lost.

use profiler_memory::ReadError;
use profiler_model::{LossReason, Nanos, RemoteAddr};
use profiler_python::{MAX_FRAMES, RawStack};
use profiler_stack::CodeEvidence;
use profiler_target::Target;

use crate::objects::{ObjectCopy, ThreadStack};
use crate::stack_reader::StackReader;
use crate::stop_bound::StopBound;
use crate::thread_table::ThreadTable;

/// The most threads that are captured at one instant, and so during one stop: what is left is captured at
/// another one. More stacks than that take longer than a millisecond, and a process may have ten thousand
/// threads, each of which is new at the first look.
pub const MAX_THREADS_AT_ONCE: usize = 256;

/// After so many frames no further thread is captured at the same instant: four of the deepest stacks.
const MAX_FRAMES_AT_ONCE: usize = 4 * MAX_FRAMES;

/// What was captured of some threads at one instant, and what it took.
#[derive(Debug, Default)]
pub struct InstantCopy {
    /// The stacks.
    pub stacks: Vec<ThreadStack>,
    /// What identifies the code objects of these stacks.
    pub code: CodeEvidence,
    /// The thread state that held the GIL at the instant.
    pub holder: Option<RemoteAddr>,
    /// The objects that the stacks lead to, where they are wanted.
    pub objects: Option<ObjectCopy>,
    /// How long each stop lasted.
    pub stops: Vec<Nanos>,
    /// The thread that needed no stop because it waited for a CPU.
    pub queued: Option<Runnable>,
}

/// A thread that waits for a CPU.
#[derive(Clone, Copy, Debug)]
pub struct Runnable {
    /// The thread, as an index into the thread table.
    pub thread: usize,
    /// What its exact clock said all the time.
    pub clock: Nanos,
}

impl InstantCopy {
    /// An instant at which nothing was got of the threads `wanted`.
    pub fn lost(wanted: &[usize], reason: LossReason) -> Self {
        InstantCopy {
            stacks: wanted.iter().map(|index| (*index, Err(reason))).collect(),
            ..InstantCopy::default()
        }
    }

    /// The stacks that were read.
    pub fn read(&self) -> impl Iterator<Item = &RawStack> {
        self.stacks.iter().filter_map(|(_, stack)| stack.as_ref().ok())
    }

    /// Marks all stacks as lost that were read, and those that could not be: there was no time to copy all that they need.
    fn lose_cut(&mut self) {
        for (_, stack) in &mut self.stacks {
            if matches!(stack, Ok(_) | Err(LossReason::Unreadable)) {
                *stack = Err(LossReason::StopTooLong);
            }
        }
    }

    /// The threads whose stacks were lost for want of time.
    pub fn cut(&self) -> impl Iterator<Item = usize> {
        let is_cut = |(_, stack): &&(usize, Result<_, _>)| matches!(stack, Err(LossReason::StopTooLong));
        self.stacks.iter().filter(is_cut).map(|(index, _)| *index)
    }

    /// Marks the stacks as lost whose thread has no proof.
    pub fn lose_unproved(&mut self, proof: impl Fn(usize) -> Result<(), LossReason>) {
        for (thread, stack) in &mut self.stacks {
            if stack.is_ok()
                && let Err(reason) = proof(*thread)
            {
                *stack = Err(reason);
            }
        }
    }
}

/// Copies the first of the wanted stacks, as many as one instant may take, and what has to be looked at now of
/// their code objects, with a reader that has begun a new instant. What cannot be copied within `bound` is lost.
pub fn read_stacks(
    target: &Target,
    thread_table: &ThreadTable,
    wanted: &[usize],
    reader: &mut StackReader,
    bound: &StopBound,
) -> Result<InstantCopy, ReadError> {
    let (memory, offsets) = (&bound.memory(target.memory()), target.offsets());
    let (mut stacks, mut frames) = (Vec::new(), 0);
    for index in wanted.iter().take(MAX_THREADS_AT_ONCE) {
        if frames >= MAX_FRAMES_AT_ONCE || (!stacks.is_empty() && !bound.has_time_for_more()) {
            break;
        }
        let stack = reader.stack(memory, offsets, &thread_table.threads()[*index].python);
        frames += stack.as_ref().map_or(0, |stack: &RawStack| stack.frames.len());
        stacks.push((*index, stack));
    }
    let code = CodeEvidence::of_stacks(
        memory,
        offsets,
        stacks.iter().filter_map(|(_, stack)| stack.as_ref().ok()),
        &mut reader.codes,
    )?;
    let mut instant = InstantCopy { stacks, code, ..InstantCopy::default() };
    if bound.has_cut() {
        instant.lose_cut();
    }
    Ok(instant)
}
