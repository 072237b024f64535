//! What the program sends: stacks and names, as they lie in the ring. The same structures as in
//! `program/records.h`.

use std::num::NonZeroU64;

use profiler_model::{Nanos, Pid, RemoteAddr, Tid, Timestamp};

use crate::off_cpu::AbsenceRecord;

pub(crate) const STACK_HEAD_BYTES: usize = 96;
pub(crate) const THREAD_BYTES: usize = 384;
pub(crate) const FRAME_RECORD_BYTES: usize = 40;
/// What a stack is called that was taken by the scheduler (`RECORD_DEEP_STACK`).
const DEEP_STACK: u32 = 4;
const OBJECT_BYTES: usize = 192;
const NAME_BYTES: usize = 256;
const FILE_BYTES: usize = 384;
const NAMES_HEAD_BYTES: usize = 80;
const LINE_TABLE_AT: usize = NAMES_HEAD_BYTES + OBJECT_BYTES + 2 * NAME_BYTES + FILE_BYTES;

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
    Absence(AbsenceRecord<'a>),
    /// The stack of an absence that is still to come: it is too deep to be kept until then.
    DeepStack(StackRecord<'a>),
    /// A thread left the CPU whose process was told, but not its thread state.
    Stranger(Pid, Tid),
}

impl<'a> Record<'a> {
    /// The record in these bytes; `None` where they are none.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        match number(bytes, 0)? as u32 {
            1 => StackRecord::parse(bytes).map(Record::Stack),
            3 => AbsenceRecord::parse(bytes).map(Record::Absence),
            kind if kind == DEEP_STACK => StackRecord::parse(bytes).map(Record::DeepStack),
            5 => {
                let process = Pid::new((number(bytes, 0)? >> 32) as u32);
                Some(Record::Stranger(process, Tid::new(number(bytes, 8)? as u32)))
            }
            2 if bytes.len() >= LINE_TABLE_AT => Some(Record::Names(NamesRecord(bytes))),
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
        (bytes.len() >= STACK_HEAD_BYTES + THREAD_BYTES).then_some(StackRecord(bytes))
    }

    fn wide(&self, at: usize) -> u64 {
        number(self.0, at).unwrap_or(0)
    }

    fn narrow(&self, at: usize) -> u32 {
        self.wide(at) as u32
    }

    /// How the walk ended.
    pub fn outcome(&self) -> Outcome {
        match self.narrow(4) {
            0 => Outcome::Whole,
            1 => Outcome::Truncated,
            2 => Outcome::UnknownThread,
            5 => Outcome::NoPython,
            3 => Outcome::ChangedThread,
            _ => Outcome::Unreadable,
        }
    }

    /// The instant.
    pub fn time(&self) -> Timestamp {
        Timestamp::from_nanos(self.wide(8))
    }

    /// For how much CPU time the stack stands.
    pub fn weight(&self) -> Nanos {
        Nanos::from_nanos(self.wide(16))
    }

    /// The process.
    pub fn process(&self) -> Pid {
        Pid::new(self.narrow(24))
    }

    /// The thread.
    pub fn thread(&self) -> Tid {
        Tid::new(self.narrow(28))
    }

    /// The thread state.
    pub fn thread_state(&self) -> RemoteAddr {
        RemoteAddr::new(self.wide(32))
    }

    /// How long the program took.
    pub fn took(&self) -> Nanos {
        Nanos::from_nanos(self.narrow(40).into())
    }

    /// For how long the kernel had not let the clock of this CPU tick before: that is not in the weight.
    pub fn rested(&self) -> Nanos {
        Nanos::from_nanos(self.narrow(52).into())
    }

    /// Whether the thread held its GIL.
    pub fn holds_gil(&self) -> bool {
        self.narrow(48) as u16 == 1
    }

    /// The thread state's bytes.
    pub fn thread_copy(&self) -> &'a [u8] {
        &self.0[STACK_HEAD_BYTES..STACK_HEAD_BYTES + THREAD_BYTES]
    }

    /// Where the outermost frame says that its caller is.
    pub fn end(&self) -> RemoteAddr {
        RemoteAddr::new(self.wide(56))
    }

    /// How long the thread has been on a CPU in all since it is watched; `None` where that is not known.
    pub fn ran(&self) -> Option<Nanos> {
        Some(self.wide(64)).filter(|ran| *ran != 0).map(Nanos::from_nanos)
    }

    /// How many ticks of this CPU's clock were due and did not come before this one.
    pub fn missed(&self) -> u64 {
        self.narrow(72).into()
    }

    /// By how much this tick came after its time.
    pub fn behind(&self) -> Nanos {
        Nanos::from_nanos(self.narrow(76).into())
    }

    /// The period of this CPU's clock, which changes every few ticks.
    pub fn period(&self) -> Nanos {
        Nanos::from_nanos(self.narrow(88).into())
    }

    /// Stands for a time in which no code object was replaced by another: those that are met under one proof have the same
    /// hash each time. `None` where nothing proves that.
    pub fn proof(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.wide(80))
    }

    /// What stands behind the head: the frames that were walked, and those of the kernel.
    fn parts(&self) -> (&'a [u8], &'a [u8]) {
        let frames = self.0.get(STACK_HEAD_BYTES + THREAD_BYTES..).unwrap_or_default();
        let walked = self.narrow(44) as usize * FRAME_RECORD_BYTES;
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
        (self.narrow(48) >> 16) as i16
    }

    /// Whether the stack was taken as the thread left its CPU, by the scheduler, which then stands on top of it.
    pub fn is_of_leaving(&self) -> bool {
        self.narrow(0) == DEEP_STACK
    }

    /// The frames that were walked, leaf first, shims included.
    pub fn frames(&self) -> impl Iterator<Item = FrameRecord> + use<'a> {
        self.parts().0.as_chunks::<FRAME_RECORD_BYTES>().0.iter().map(|frame| {
            let wide = |at| number(frame, at).unwrap_or(0);
            FrameRecord {
                address: RemoteAddr::new(wide(0)),
                code: RemoteAddr::new(wide(8)),
                head_hash: NonZeroU64::new(wide(16)),
                instruction: wide(24),
                bytecode_copy: wide(32) as u32,
                owner: frame[36],
                is_entry: frame[37],
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
        Pid::new((self.wide(0) >> 32) as u32)
    }

    /// The code object.
    pub fn code(&self) -> RemoteAddr {
        RemoteAddr::new(self.wide(8))
    }

    /// [`crate::head_hash`] of the code object.
    pub fn head_hash(&self) -> u64 {
        self.wide(16)
    }

    /// Pieces of memory: the code object, its name, qualified name, file and line table.
    pub fn pieces(&self) -> impl Iterator<Item = (RemoteAddr, &'a [u8])> + use<'a> {
        let bytes = self.0;
        let line_table = bytes.len() - LINE_TABLE_AT;
        // Where each one's address and copied length stand, and the room for its copy.
        let places = [
            (8, 56, OBJECT_BYTES),
            (24, 60, NAME_BYTES),
            (32, 64, NAME_BYTES),
            (40, 68, FILE_BYTES),
            (48, 72, line_table),
        ];
        let mut start = NAMES_HEAD_BYTES;
        let pieces = places.map(|(address, length, room)| {
            let copied = (number(bytes, length).unwrap_or(0) as u32 as usize).min(room);
            let piece = &bytes[start..start + copied];
            start += room;
            (RemoteAddr::new(number(bytes, address).unwrap_or(0)), piece)
        });
        pieces.into_iter().filter(|(_, piece)| !piece.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record with one frame, at 0x1000, and the kernel's frames 7, 8 and 9.
    fn record(kernel_frames: i16) -> Vec<u8> {
        let mut bytes = vec![0u8; STACK_HEAD_BYTES + THREAD_BYTES];
        bytes[0] = 1;
        bytes[44] = 1;
        bytes[48] = 1;
        bytes[50..52].copy_from_slice(&kernel_frames.to_le_bytes());
        let mut frame = [0u8; FRAME_RECORD_BYTES];
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
        for length in STACK_HEAD_BYTES + THREAD_BYTES..whole.len() {
            let stack = StackRecord::parse(&whole[..length]).unwrap();
            assert!(stack.frames().count() <= 1 && stack.kernel_frames().len() < 3, "{length}");
        }
    }
}
