//! Stops a thread and copies what unwinding it needs.

use profiler_memory::ReadError;
use profiler_model::{LossReason, Nanos};
use profiler_os::priority::RealTimeMeanwhile;
use profiler_os::{StopError, Tracer, clock};
use profiler_target::TargetProcess;

use super::stack_copy::StackCopy;
use super::unwinder::ThreadCopy;
use crate::pause::refusal;
use crate::roster::KernelThread;
use crate::stop_bound::{LONGEST_STOP, StopBound};

/// What a stop of a thread came to.
#[derive(Debug)]
pub struct Stopped {
    /// What was copied.
    pub copy: Result<ThreadCopy, LossReason>,
    /// How long the thread stood still.
    pub held: Option<Nanos>,
}

/// Stops a thread that runs, copies its registers and at most `length` bytes of its stack, and lets it run on.
///
/// # Errors
/// When nothing of the process can be read any more.
pub fn capture(
    process: &TargetProcess,
    thread: &KernelThread,
    length: usize,
    tracer: &mut Tracer,
) -> Result<Stopped, ReadError> {
    let _ahead = RealTimeMeanwhile::begin();
    let stopped = match tracer.stop(thread.tid) {
        Ok(stopped) => stopped,
        Err(error) => return Ok(Stopped { copy: Err(refusal(error)), held: None }),
    };
    if stopped.had_to_be_waited_for() {
        thread.shares_its_cpu();
    }
    let bound = StopBound::new(clock::now(), Some(LONGEST_STOP));
    let copy = match stopped.registers() {
        Ok(registers) => StackCopy::read(&bound.memory(process.memory()), registers.stack_pointer(), length)
            .map(|stack| Ok(ThreadCopy { registers, stack })),
        Err(StopError::Ended) => Ok(Err(LossReason::ThreadEnded)),
        Err(error) => Ok(Err(refusal(error))),
    };
    let held = Some(stopped.release(&thread.files, &thread.schedule));
    let copy = copy?;
    let copy = if bound.has_cut() { Err(LossReason::StopTooLong) } else { copy };
    Ok(Stopped { copy, held })
}
