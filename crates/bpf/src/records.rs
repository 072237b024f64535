//! What the program sends: stacks and names, as they lie in the ring. The same structures as in
//! `program/records.h`.

use std::mem::offset_of;
use std::num::NonZeroU64;

use profiler_model::{Nanos, Pid, RemoteAddr, Tid, Timestamp};

use crate::off_cpu::OffCpuRecord;
use crate::wire::{
    FILE_BYTES, FrameCopy, NAME_BYTES, NamesHead, OBJECT_BYTES, StackHead, UnregisteredRecord, kind,
    off_cpu_kind, outcome,
};

/// The bytes of a stack before its frames.
const STACK_BYTES: usize = size_of::<StackHead>();
/// The bytes of names before the line table.
const NAMES_BYTES: usize = size_of::<NamesHead>();
const FRAME_BYTES: usize = size_of::<FrameCopy>();

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// At the root.
    Whole,
    /// Before the root: there were too many frames.
    Truncated,
    /// The thread has no known thread state.
    UnknownThread,
    /// The thread was said to have no thread state.
    NoPython,
    /// The thread state is another thread's by now.
    ChangedThread,
    /// A page was not in memory, or a pointer is none.
    Unreadable,
}

/// One record of the ring.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// The stack of the thread that ran.
    Stack(StackRecord<'a>),
    /// The names of a code object that was met for the first time.
    Names(NamesRecord<'a>),
    /// A thread was off the CPU.
    OffCpu(OffCpuRecord<'a>),
    /// The stack of an off-CPU interval that is still to come: it is too deep to be kept until then.
    DeepStack(StackRecord<'a>),
    /// A thread left the CPU whose process was told, but not its thread state.
    Unregistered(Pid, Tid),
}

impl<'a> Record<'a> {
    /// The record in these bytes; `None` where they are none.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        match number(bytes, offset_of!(StackHead, kind))? as u32 {
            kind::STACK => StackRecord::parse(bytes).map(Record::Stack),
            off_cpu_kind::INTERVAL => OffCpuRecord::parse(bytes).map(Record::OffCpu),
            off_cpu_kind::DEEP_STACK => StackRecord::parse(bytes).map(Record::DeepStack),
            off_cpu_kind::UNREGISTERED => {
                let field = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
                let process = Pid::new(field(offset_of!(UnregisteredRecord, process))?);
                Some(Record::Unregistered(process, Tid::new(field(offset_of!(UnregisteredRecord, thread))?)))
            }
            kind::NAMES if bytes.len() >= NAMES_BYTES => Some(Record::Names(NamesRecord(bytes))),
            _ => None,
        }
    }
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

/// What the names of a code object are made of.
#[derive(Clone, Copy, Debug)]
pub struct NamesRecord<'a>(&'a [u8]);

impl<'a> NamesRecord<'a> {
    fn wide(&self, at: usize) -> u64 {
        number(self.0, at).unwrap_or(0)
    }

    /// The process.
    pub fn process(&self) -> Pid {
        Pid::new(self.wide(offset_of!(NamesHead, process)) as u32)
    }

    /// The code object.
    pub fn code(&self) -> RemoteAddr {
        RemoteAddr::new(self.wide(offset_of!(NamesHead, code)))
    }

    /// [`crate::head_hash`] of the code object.
    pub fn head_hash(&self) -> u64 {
        self.wide(offset_of!(NamesHead, head_hash))
    }

    /// Pieces of memory: the code object, its name, qualified name, file and line table.
    pub fn pieces(&self) -> impl Iterator<Item = (RemoteAddr, &'a [u8])> + use<'a> {
        let bytes = self.0;
        let line_table = bytes.len() - NAMES_BYTES;
        // Where each one's address and copied length stand, its copy, and the room for that.
        let places = [
            (
                offset_of!(NamesHead, code),
                offset_of!(NamesHead, object_copied),
                offset_of!(NamesHead, object_copy),
                OBJECT_BYTES,
            ),
            (
                offset_of!(NamesHead, name),
                offset_of!(NamesHead, name_copied),
                offset_of!(NamesHead, name_copy),
                NAME_BYTES,
            ),
            (
                offset_of!(NamesHead, qualname),
                offset_of!(NamesHead, qualname_copied),
                offset_of!(NamesHead, qualname_copy),
                NAME_BYTES,
            ),
            (
                offset_of!(NamesHead, filename),
                offset_of!(NamesHead, filename_copied),
                offset_of!(NamesHead, filename_copy),
                FILE_BYTES,
            ),
            (
                offset_of!(NamesHead, line_table),
                offset_of!(NamesHead, line_table_copied),
                NAMES_BYTES,
                line_table,
            ),
        ];
        let pieces = places.map(|(address, length, start, room)| {
            let copied = (number(bytes, length).unwrap_or(0) as u32 as usize).min(room);
            (RemoteAddr::new(number(bytes, address).unwrap_or(0)), &bytes[start..start + copied])
        });
        pieces.into_iter().filter(|(_, piece)| !piece.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_record_that_is_cut_short_has_what_is_there() {
        let whole = record(3);
        for length in STACK_BYTES..whole.len() {
            let stack = StackRecord::parse(&whole[..length]).unwrap();
            assert!(stack.frames().count() <= 1 && stack.kernel_frames().len() < 3, "{length}");
        }
    }
}
