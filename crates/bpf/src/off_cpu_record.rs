//! What the program sends of a thread that was off the CPU (`struct interval` of `program/intervals.h`).

use std::mem::offset_of;

use profiler_model::{Nanos, Pid, Tid, Timestamp};

use crate::stack_record::{StackRecord, number};
use crate::wire::{OffCpuHead, OpenFile, interval};

const HEAD_BYTES: usize = size_of::<OffCpuHead>();

/// Why a thread was off the CPU, in the kernel's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockReason {
    /// It could have gone on, but another thread was put in its place.
    Preempted,
    /// It waited in a system call, or in none: for a page, or under a stop signal.
    Waited {
        /// The system call.
        call: Option<u64>,
        /// Its first argument; 0 where many short waits for the same kind of file are one.
        argument: u64,
        /// If that is a descriptor, what it was open on; `None` where it is none, or that is not known.
        file: Option<OpenFile>,
    },
}

impl BlockReason {
    pub(crate) fn new(runnable: bool, call: i64, argument: u64, file: OpenFile) -> Self {
        match runnable {
            true => BlockReason::Preempted,
            // The kernel has -1 where there is none.
            false => BlockReason::Waited { call: u64::try_from(call).ok(), argument, file: file.known() },
        }
    }
}

/// An off-CPU interval of a thread.
#[derive(Clone, Copy, Debug)]
pub struct OffCpuRecord<'a>(pub(crate) &'a [u8]);

impl<'a> OffCpuRecord<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= HEAD_BYTES).then_some(OffCpuRecord(bytes))
    }

    fn wide(&self, at: usize) -> u64 {
        number(self.0, at).unwrap_or(0)
    }

    pub(crate) fn narrow(&self, at: usize) -> u32 {
        self.wide(at) as u32
    }

    fn has(&self, flag: u32) -> bool {
        self.narrow(offset_of!(OffCpuHead, flags)) & flag != 0
    }

    /// The process.
    pub fn process(&self) -> Pid {
        Pid::new(self.narrow(offset_of!(OffCpuHead, process)))
    }

    /// The thread.
    pub fn thread(&self) -> Tid {
        Tid::new(self.narrow(offset_of!(OffCpuHead, thread)))
    }

    /// Whether this only says that the thread has ended.
    pub fn is_end(&self) -> bool {
        self.has(interval::END)
    }

    /// Whether the thread was away when it was first watched: its stack is not known here.
    pub fn is_from_start(&self) -> bool {
        self.has(interval::FROM_START)
    }

    /// Whether it came back in between and left again, unseen: how long it was away in all is known, and nothing else.
    pub fn is_several(&self) -> bool {
        self.has(interval::SEVERAL)
    }

    /// Whether the stack came before as a record of its own, taken at [`OffCpuRecord::left`].
    pub fn is_deep(&self) -> bool {
        self.has(interval::DEEP)
    }

    /// Whether the stack was to come before as a record of its own, and found the ring full.
    pub fn is_stack_lost(&self) -> bool {
        self.has(interval::STACK_LOST)
    }

    /// How long it was away in all, since it is watched, in off-CPU intervals of which nothing else is known: neither the ring nor
    /// the sums had room for them.
    pub fn unsent(&self) -> Nanos {
        Nanos::from_nanos(self.wide(offset_of!(OffCpuHead, unsent)))
    }

    /// When it left the CPU; `None` while it is on one.
    pub fn left(&self) -> Option<Timestamp> {
        Some(self.wide(offset_of!(OffCpuHead, left))).filter(|left| *left != 0).map(Timestamp::from_nanos)
    }

    /// When it could go on, and only lacked a CPU.
    pub fn woken(&self) -> Option<Timestamp> {
        Some(self.wide(offset_of!(OffCpuHead, woken))).filter(|woken| *woken != 0).map(Timestamp::from_nanos)
    }

    /// When it came back.
    pub fn back(&self) -> Timestamp {
        Timestamp::from_nanos(self.wide(offset_of!(OffCpuHead, back)))
    }

    /// How long it was on a CPU since it is watched, until it came back.
    pub fn ran(&self) -> Nanos {
        Nanos::from_nanos(self.wide(offset_of!(OffCpuHead, ran)))
    }

    /// Why it was away.
    pub fn cause(&self) -> BlockReason {
        let [first, ..] = self.arguments();
        BlockReason::new(
            self.has(interval::RUNNABLE),
            self.wide(offset_of!(OffCpuHead, call)) as i64,
            first,
            self.file(),
        )
    }

    fn file(&self) -> OpenFile {
        let at = offset_of!(OffCpuHead, file);
        OpenFile {
            name: self.wide(at + offset_of!(OpenFile, name)).to_le_bytes(),
            file_system: self.narrow(at + offset_of!(OpenFile, file_system)),
            mode: self.narrow(at + offset_of!(OpenFile, mode)),
        }
    }

    /// The first three arguments of the system call that it left in.
    pub fn arguments(&self) -> [u64; 3] {
        [0, 8, 16].map(|place| self.wide(offset_of!(OffCpuHead, arguments) + place))
    }

    /// How often the scheduler had put it on a CPU when it left.
    pub fn arrivals(&self) -> u64 {
        self.wide(offset_of!(OffCpuHead, arrivals))
    }

    /// What the scheduler calls its state (`TASK_INTERRUPTIBLE` is 1).
    pub fn scheduler_state(&self) -> u32 {
        self.narrow(offset_of!(OffCpuHead, state))
    }

    /// Its stack when it left; `None` where it is not in this record.
    pub fn stack(&self) -> Option<StackRecord<'a>> {
        StackRecord::parse(&self.0[HEAD_BYTES..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_says_when_and_why() {
        let mut bytes = [0u8; HEAD_BYTES];
        let fields = [(16, 1000u64), (24, 4000), (32, 5000), (40, 202), (48, 0x7f00), (96, 1 | 77 << 32)];
        for (at, value) in fields {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes[8] = 42;
        let interval = OffCpuRecord::parse(&bytes).unwrap();
        assert_eq!((interval.thread(), interval.is_end(), interval.is_deep()), (Tid::new(42), false, false));
        let times = (interval.left(), interval.woken(), interval.back());
        let at = Timestamp::from_nanos;
        assert_eq!(times, (Some(at(1000)), Some(at(4000)), at(5000)));
        let waited = |file| BlockReason::Waited { call: Some(202), argument: 0x7f00, file };
        assert_eq!(interval.cause(), waited(None));
        assert!(interval.stack().is_none());
        assert_eq!(interval.scheduler_state(), 1);
        bytes[104..112].copy_from_slice(b"[timerfd");
        bytes[112..116].copy_from_slice(&0x0904_1934u32.to_le_bytes());
        bytes[116..120].copy_from_slice(&0o600u32.to_le_bytes());
        let file = OpenFile { name: *b"[timerfd", file_system: 0x0904_1934, mode: 0o600 };
        assert_eq!(OffCpuRecord(&bytes).cause(), waited(Some(file)));
        bytes[12] = interval::RUNNABLE as u8;
        assert_eq!(OffCpuRecord(&bytes).cause(), BlockReason::Preempted);
        assert!(OffCpuRecord::parse(&bytes[1..]).is_none());
    }

    #[test]
    fn no_system_call_is_none() {
        let file = OpenFile { name: [0; 8], file_system: 0, mode: 0 };
        assert_eq!(
            BlockReason::new(false, -1, 7, file),
            BlockReason::Waited { call: None, argument: 7, file: None }
        );
    }
}
