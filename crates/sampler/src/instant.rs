//! What every sampler delivers: stacks of some threads at one instant, proved or lost.

use profiler_memory::ReadError;
use profiler_model::{LossReason, Nanos, RemoteAddr};
use profiler_python::RawStack;

use crate::Target;
use crate::capture::StackReader;
use crate::codes::Capture;
use crate::objects::ObjectCopy;
use crate::roster::Roster;

/// What was captured of some threads at one instant, and what it took.
#[derive(Debug, Default)]
pub struct Instant {
    /// The stacks, each with its thread's index in the roster.
    pub stacks: Vec<(usize, Result<RawStack, LossReason>)>,
    /// What identifies the code objects of these stacks.
    pub capture: Capture,
    /// The thread state that held the GIL at the instant.
    pub holder: Option<RemoteAddr>,
    /// The objects that the stacks lead to, where they are wanted.
    pub objects: Option<ObjectCopy>,
    /// How long each stop lasted.
    pub stops: Vec<Nanos>,
}

impl Instant {
    /// An instant at which nothing was got of the threads `wanted`.
    pub fn lost(wanted: &[usize], reason: LossReason) -> Self {
        Instant { stacks: wanted.iter().map(|index| (*index, Err(reason))).collect(), ..Instant::default() }
    }

    /// The stacks that were read.
    pub fn read(&self) -> impl Iterator<Item = &RawStack> {
        self.stacks.iter().filter_map(|(_, stack)| stack.as_ref().ok())
    }

    /// Marks the stack of the thread `index` as lost, if it is there.
    pub fn lose(&mut self, index: usize, reason: LossReason) {
        for (thread, stack) in &mut self.stacks {
            if *thread == index && stack.is_ok() {
                *stack = Err(reason);
            }
        }
    }
}

/// Copies the wanted stacks and what has to be looked at now of their code objects, with a reader that has begun
/// a new instant.
pub fn read_stacks(
    target: &Target,
    roster: &Roster,
    wanted: &[usize],
    reader: &mut StackReader,
) -> Result<Instant, ReadError> {
    let (memory, offsets) = (target.memory(), target.offsets());
    let stacks: Vec<_> = wanted
        .iter()
        .map(|index| (*index, reader.stack(memory, offsets, &roster.threads[*index].python)))
        .collect();
    let capture = Capture::of_stacks(
        memory,
        offsets,
        stacks.iter().filter_map(|(_, stack)| stack.as_ref().ok()),
        &mut reader.codes,
    )?;
    Ok(Instant { stacks, capture, ..Instant::default() })
}
