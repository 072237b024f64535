//! Stops a thread and copies what unwinding it needs.

use profiler_memory::ReadError;
use profiler_model::{LossReason, Nanos};
use profiler_os::priority::RealTimeMeanwhile;
use profiler_os::{Tracer, clock};
use profiler_target::TargetProcess;

use super::unwinder::ThreadCopy;
use crate::pause::refusal;
use crate::roster::KernelThread;
use crate::stop_bound::{LONGEST_STOP, StopBound};

/// What a stop of a thread came to.
#[derive(Debug)]
pub struct Stopped {
    /// Whether its registers and its stack were copied.
    pub copied: Result<(), LossReason>,
    /// How long the thread stood still.
    pub held: Option<Nanos>,
}

/// Stops a thread that runs, copies its registers and the top of its stack into `copy`, which has room for that, and lets it run on.
///
/// # Errors
/// When nothing of the process can be read any more.
pub fn capture(
    process: &TargetProcess,
    thread: &KernelThread,
    copy: &mut ThreadCopy,
    tracer: &mut Tracer,
) -> Result<Stopped, ReadError> {
    let _ahead = RealTimeMeanwhile::begin();
    let stopped = match tracer.stop(thread.tid) {
        Ok(stopped) => stopped,
        Err(error) => return Ok(Stopped { copied: Err(refusal(error)), held: None }),
    };
    if stopped.had_to_be_waited_for() {
        thread.shares_its_cpu();
    }
    let bound = StopBound::new(clock::now(), Some(LONGEST_STOP));
    let read = stopped.registers().map(|registers| {
        copy.registers = registers;
        copy.stack.copy_from(&bound.memory(process.memory()), registers.stack_pointer())
    });
    let held = Some(stopped.release(&thread.files, &thread.schedule));
    let copied = match read {
        Ok(read) => read.map(|()| if bound.has_cut() { Err(LossReason::StopTooLong) } else { Ok(()) })?,
        Err(error) => Err(refusal(error)),
    };
    Ok(Stopped { copied, held })
}
