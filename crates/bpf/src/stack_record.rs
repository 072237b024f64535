//! Stacks as the program sends them (`struct stack_record` of `program/records.h`).

use std::mem::offset_of;
use std::num::NonZeroU64;

use profiler_model::{Nanos, Pid, RemoteAddr, Tid, Timestamp};

use crate::wire::{FrameCopy, StackHead, off_cpu_kind, outcome};

/// The bytes of a stack before its frames.
const STACK_BYTES: usize = size_of::<StackHead>();
const FRAME_BYTES: usize = size_of::<FrameCopy>();

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// At the root.
    Whole,
    /// Before the root: there were too many frames.
    Truncated,
    /// The thread is not registered, though its process is.
    UnknownThread,
    /// The thread is registered without a thread state, or its process without a layout. Only of threads that are watched off the
    /// CPU: ticks of such threads are counted instead ([`crate::KernelSampler::take_native_ticks`]).
    NoPython,
    /// The thread state is another thread's by now.
    ChangedThread,
    /// A page was not in memory, or a pointer is none.
    Unreadable,
}

pub(crate) fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The stack of the thread that ran at an instant.
#[derive(Clone, Copy, Debug)]
pub struct StackRecord<'a>(&'a [u8]);

/// What a frame said. What a version does not have is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRecord {
    /// Where it lay.
    pub address: RemoteAddr,
    /// Its code object; null for a shim.
    pub code: RemoteAddr,
    /// [`crate::head_hash`] of the code object; `None` where it is what came before from the same CPU, of this code object
    /// and under the same [`StackRecord::proof`].
    pub head_hash: Option<NonZeroU64>,
    /// The eight bytes at its instruction.
    pub instruction: u64,
    /// Which copy of its bytecode it runs.
    pub bytecode_copy: u32,
    /// Its owner.
    pub owner: u8,
    /// Its mark that C called it.
    pub is_entry: u8,
}

impl<'a> StackRecord<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= STACK_BYTES).then_some(StackRecord(bytes))
    }

    fn wide(&self, at: usize) -> u64 {
        number(self.0, at).unwrap_or(0)
    }

    fn narrow(&self, at: usize) -> u32 {
        self.wide(at) as u32
    }

    /// How the walk ended.
    pub fn outcome(&self) -> Outcome {
        match self.narrow(offset_of!(StackHead, outcome)) {
            outcome::WHOLE => Outcome::Whole,
            outcome::TRUNCATED => Outcome::Truncated,
            outcome::UNKNOWN_THREAD => Outcome::UnknownThread,
            outcome::NO_PYTHON => Outcome::NoPython,
            outcome::CHANGED_THREAD => Outcome::ChangedThread,
            _ => Outcome::Unreadable,
        }
    }

    /// The instant.
    pub fn time(&self) -> Timestamp {
        Timestamp::from_nanos(self.wide(offset_of!(StackHead, time)))
    }

    /// For how much CPU time the stack stands.
    pub fn weight(&self) -> Nanos {
        Nanos::from_nanos(self.wide(offset_of!(StackHead, weight)))
    }

    /// The process.
    pub fn process(&self) -> Pid {
        Pid::new(self.narrow(offset_of!(StackHead, process)))
    }

    /// The thread.
    pub fn thread(&self) -> Tid {
        Tid::new(self.narrow(offset_of!(StackHead, thread)))
    }

    /// The runtime that the stack is of, by its number in the process; 0 if no thread state was found.
    pub fn runtime(&self) -> u8 {
        self.narrow(offset_of!(StackHead, runtime)) as u8
    }

    /// The thread state.
    pub fn thread_state(&self) -> RemoteAddr {
        RemoteAddr::new(self.wide(offset_of!(StackHead, thread_state)))
    }

    /// How long the program took.
    pub fn took(&self) -> Nanos {
        Nanos::from_nanos(self.narrow(offset_of!(StackHead, took)).into())
    }

    /// For how long the kernel had not let the clock of this CPU tick before: that is not in the weight.
    pub fn rested(&self) -> Nanos {
        Nanos::from_nanos(self.narrow(offset_of!(StackHead, rested)).into())
    }

    /// Whether the thread held its GIL.
    pub fn holds_gil(&self) -> bool {
        self.narrow(offset_of!(StackHead, holds_gil)) as u16 == 1
    }

    /// The thread state's bytes.
    pub fn thread_copy(&self) -> &'a [u8] {
        &self.0[offset_of!(StackHead, thread_copy)..STACK_BYTES]
    }

    /// Where the outermost frame says that its caller is.
    pub fn end(&self) -> RemoteAddr {
        RemoteAddr::new(self.wide(offset_of!(StackHead, end)))
    }

    /// How long the thread has been on a CPU in all since it is watched; `None` where that is not known.
    pub fn ran(&self) -> Option<Nanos> {
        Some(self.wide(offset_of!(StackHead, ran))).filter(|ran| *ran != 0).map(Nanos::from_nanos)
    }

    /// How many ticks of this CPU's clock were due and did not come before this one.
    pub fn missed(&self) -> u64 {
        self.narrow(offset_of!(StackHead, missed)).into()
    }

    /// By how much this tick came after its time.
    pub fn behind(&self) -> Nanos {
        Nanos::from_nanos(self.narrow(offset_of!(StackHead, behind)).into())
    }

    /// The period of this CPU's clock, which changes every few ticks.
    pub fn period(&self) -> Nanos {
        Nanos::from_nanos(self.narrow(offset_of!(StackHead, period)).into())
    }

    /// Stands for a time in which no code object was replaced by another: those that are met under one proof have the same
    /// hash each time. `None` where nothing proves that.
    pub fn proof(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.wide(offset_of!(StackHead, proof)))
    }

    /// What stands behind the head: the frames that were walked, and those of the kernel.
    fn parts(&self) -> (&'a [u8], &'a [u8]) {
        let frames = self.0.get(STACK_BYTES..).unwrap_or_default();
        let walked = self.narrow(offset_of!(StackHead, frame_count)) as usize * FRAME_BYTES;
        frames.split_at(walked.min(frames.len()))
    }

    /// The program counters of what the thread did in the kernel, leaf first: the first is where it stood, the others
    /// are where it will return to. None where it was not in the kernel or that was not asked for.
    pub fn kernel_frames(&self) -> impl DoubleEndedIterator<Item = u64> + ExactSizeIterator + use<'a> {
        let count = usize::try_from(self.kernel_frame_count()).unwrap_or(0);
        let (_, frames) = self.parts();
        let frames = frames.as_chunks::<8>().0;
        frames[..count.min(frames.len())].iter().map(|address| u64::from_le_bytes(*address))
    }

    /// Whether the kernel did not tell what the thread did in it, though that was asked for.
    pub fn lacks_kernel_frames(&self) -> bool {
        self.kernel_frame_count() < 0
    }

    fn kernel_frame_count(&self) -> i16 {
        self.narrow(offset_of!(StackHead, kernel_frame_count)) as i16
    }

    /// Whether the stack was taken as the thread left its CPU, by the scheduler, which then stands on top of it.
    pub fn is_of_leaving(&self) -> bool {
        self.narrow(offset_of!(StackHead, kind)) == off_cpu_kind::DEEP_STACK
    }

    /// The frames that were walked, leaf first, shims included.
    pub fn frames(&self) -> impl Iterator<Item = FrameRecord> + use<'a> {
        self.parts().0.as_chunks::<FRAME_BYTES>().0.iter().map(|frame| {
            let wide = |at| number(frame, at).unwrap_or(0);
            FrameRecord {
                address: RemoteAddr::new(wide(offset_of!(FrameCopy, address))),
                code: RemoteAddr::new(wide(offset_of!(FrameCopy, code))),
                head_hash: NonZeroU64::new(wide(offset_of!(FrameCopy, head_hash))),
                instruction: wide(offset_of!(FrameCopy, instruction)),
                bytecode_copy: wide(offset_of!(FrameCopy, bytecode_copy)) as u32,
                owner: frame[offset_of!(FrameCopy, owner)],
                is_entry: frame[offset_of!(FrameCopy, is_entry)],
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::kind;

    /// A record with one frame, at 0x1000, and the kernel's frames 7, 8 and 9.
    fn record(kernel_frames: i16) -> Vec<u8> {
        let mut bytes = vec![0u8; STACK_BYTES];
        bytes[offset_of!(StackHead, kind)] = kind::STACK as u8;
        bytes[offset_of!(StackHead, frame_count)] = 1;
        bytes[offset_of!(StackHead, holds_gil)] = 1;
        let at = offset_of!(StackHead, kernel_frame_count);
        bytes[at..at + 2].copy_from_slice(&kernel_frames.to_le_bytes());
        let mut frame = [0u8; FRAME_BYTES];
        frame[..8].copy_from_slice(&0x1000u64.to_le_bytes());
        bytes.extend(frame);
        bytes.extend([7u64, 8, 9].into_iter().flat_map(u64::to_le_bytes));
        bytes
    }

    #[test]
    fn frames_of_the_kernel_stand_behind_those_that_were_walked() {
        for (told, found) in [(0, &[][..]), (2, &[7, 8]), (3, &[7, 8, 9]), (100, &[7, 8, 9]), (-1, &[])] {
            let bytes = record(told);
            let stack = StackRecord::parse(&bytes).unwrap();
            assert_eq!(stack.frames().map(|frame| frame.address.as_u64()).collect::<Vec<_>>(), [0x1000]);
            assert_eq!(stack.kernel_frames().collect::<Vec<_>>(), found, "{told}");
            assert_eq!(stack.lacks_kernel_frames(), told < 0);
            assert!(stack.holds_gil() && !stack.is_of_leaving());
        }
    }

    #[test]
    fn a_stack_says_of_which_runtime_it_is() {
        let mut bytes = record(0);
        assert_eq!(StackRecord::parse(&bytes).unwrap().runtime(), 0);
        bytes[offset_of!(StackHead, runtime)] = 1;
        assert_eq!(StackRecord::parse(&bytes).unwrap().runtime(), 1);
    }

    #[test]
    fn a_record_that_is_cut_short_has_what_is_there() {
        let whole = record(3);
        for length in STACK_BYTES..whole.len() {
            let stack = StackRecord::parse(&whole[..length]).unwrap();
            assert!(stack.frames().count() <= 1 && stack.kernel_frames().len() < 3, "{length}");
        }
    }
}
