//! What threads do while they are not on a CPU: has the kernel watch them, and reads what it says of each off-CPU interval.
//! The same structures as in `program/intervals.h`.
//!
//! Stacks of threads that run are `loader`'s; both come through the same ring.

use std::mem::offset_of;

use aya::Pod;
use aya::maps::{Array, HashMap, MapData, MapError};
use aya::programs::RawTracePoint;
use profiler_model::{Nanos, Pid, Tid, Timestamp};

use crate::descriptor_calls::DescriptorCalls;
use crate::error::BpfError;
use crate::ids::{Ids, PidNamespace};
use crate::loader::{KernelSampler, take};
use crate::off_cpu_record::{BlockReason, OffCpuRecord};
use crate::task_layout;
use crate::wire::{FrameCopy, OffCpuHead, OpenFile, StackHead, interval, mirrors, off_cpu_kind};

/// Each program, and the places of the scheduler that it runs at.
const PROGRAMS: [(&str, &[&str]); 2] =
    [("off_cpu_switch", &["sched_switch"]), ("off_cpu_wakeup", &["sched_waking", "sched_wakeup"])];

/// The same for what only runs outside of the first PID namespace.
const ENDS: (&str, &[&str]) = ("off_cpu_exit", &["sched_process_exit"]);

const HEAD_BYTES: usize = size_of::<OffCpuHead>();
const STACK_BYTES: usize = size_of::<StackHead>() + KEPT_FRAMES * size_of::<FrameCopy>();
/// Frames of a stack that is kept until the thread comes back (`KEPT_FRAMES`).
const KEPT_FRAMES: usize = 64;
/// Bytes of an entry of the map `intervals`.
const ENTRY_BYTES: usize = HEAD_BYTES + STACK_BYTES;

/// Where the key of a sum has the scheduler's state (`SUM_STATE_SHIFT`).
const SUM_STATE_SHIFT: u32 = 8;

/// A thread as the program keeps it. Larger than what one would put on the stack without need.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Entry([u8; ENTRY_BYTES]);

// SAFETY: bytes without gaps, for which every bit pattern is a value.
unsafe impl Pod for Entry {}

mirrors! {
    /// What the program sums short off-CPU intervals by.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    struct SumKey = sum_key {
        thread: u32,
        flags: u32,
        call: i64,
        argument: u64,
        file: OpenFile,
    }

    /// Off-CPU intervals in sum.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct SumEntry = sum {
        intervals: u64,
        waited: u64,
        queued: u64,
    }

    /// Up to when user space has reported the off-CPU interval that began at `left`, of a thread that is still off the CPU.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct ReportedEntry = reported {
        left: u64,
        until: u64,
    }
}

// SAFETY: numbers without gaps, for which every bit pattern is a value.
unsafe impl Pod for SumKey {}

// SAFETY: numbers without gaps, for which every bit pattern is a value.
unsafe impl Pod for SumEntry {}

// SAFETY: numbers without gaps, for which every bit pattern is a value.
unsafe impl Pod for ReportedEntry {}

/// The watch over threads that are off the CPU. The programs run as long as the [`KernelSampler`] that it was made
/// with is there.
pub struct OffCpu {
    intervals: HashMap<MapData, u32, Entry>,
    sums: HashMap<MapData, SumKey, SumEntry>,
    reported_until: HashMap<MapData, u32, ReportedEntry>,
    settings: Array<MapData, [u64; 3]>,
    least: Nanos,
}

impl OffCpu {
    /// Loads the program and has the scheduler run its parts for threads off the CPU. Off-CPU intervals shorter than `least`
    /// are summed by what was waited for, which in `calls` is what a descriptor is open on. With `kernel_frames` it also
    /// takes where in the kernel threads wait. Ids are those of `namespace`, as [`KernelSampler::load`] has them.
    ///
    /// # Errors
    /// When the kernel does not describe its types, or refuses the programs.
    pub fn load(
        cpus: u32,
        kernel_frames: bool,
        least: Nanos,
        calls: DescriptorCalls,
        namespace: Option<PidNamespace>,
    ) -> Result<(KernelSampler, Self), BpfError> {
        if !cfg!(target_arch = "x86_64") {
            // The saved registers are those of x86-64.
            return Err(BpfError::Missing("off-CPU programs for this kind of processor"));
        }
        let types = task_layout::types_of_kernel()?;
        let tasks = task_layout::of_types(&types)?;
        let ids = Ids::within(namespace, Some(&types));
        if matches!(ids, Ids::ByHelper(_)) {
            // It knows the current thread only.
            return Err(BpfError::Types("a thread has its ids otherwise than is known".to_owned()));
        }
        drop(types);
        let mut kernel = KernelSampler::load_with(cpus, kernel_frames, Some(tasks), calls, ids)?;
        let off_cpu = OffCpu::start(&mut kernel, least)?;
        Ok((kernel, off_cpu))
    }

    fn start(kernel: &mut KernelSampler, least: Nanos) -> Result<Self, BpfError> {
        let mut settings: Array<MapData, [u64; 3]> =
            Array::try_from(take(&mut kernel.ebpf, "off_cpu_settings")?)?;
        settings.set(0, [least.as_nanos(), 0, 0], 0)?;
        let ends = (kernel.ids() != Ids::OfKernel).then_some(ENDS);
        for (name, places) in PROGRAMS.into_iter().chain(ends) {
            let program = kernel.ebpf.program_mut(name).ok_or(BpfError::Missing(name))?;
            let program: &mut RawTracePoint = program.try_into()?;
            program.load()?;
            for place in places {
                program.attach(place)?;
            }
        }
        Ok(OffCpu {
            intervals: HashMap::try_from(take(&mut kernel.ebpf, "intervals")?)?,
            sums: HashMap::try_from(take(&mut kernel.ebpf, "sums")?)?,
            reported_until: HashMap::try_from(take(&mut kernel.ebpf, "reported_until")?)?,
            settings,
            least,
        })
    }

    /// Off-CPU intervals shorter than this are summed.
    pub fn least(&self) -> Nanos {
        self.least
    }

    /// Takes note of nothing from now on. What is known of each thread can still be read. The programs leave the
    /// scheduler with the [`KernelSampler`].
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn stop(&mut self) -> Result<(), BpfError> {
        Ok(self.settings.set(0, [self.least.as_nanos(), 0, 1], 0)?)
    }

    /// Watches a thread from `now` on, at which the scheduler had put it on a CPU `arrivals` times, where it had been
    /// for as long as `executed`. Whether it is away
    /// is not known to the program before its first switch: it is taken to be, and found to have run all the time if
    /// it leaves its CPU first.
    ///
    /// # Errors
    /// When there are too many threads.
    pub fn watch(
        &mut self,
        process: Pid,
        thread: Tid,
        now: Timestamp,
        (arrivals, executed): (u64, Nanos),
    ) -> Result<(), BpfError> {
        let mut entry = Box::new(Entry([0; ENTRY_BYTES]));
        let mut put = |at: usize, bytes: &[u8]| entry.0[at..at + bytes.len()].copy_from_slice(bytes);
        put(offset_of!(OffCpuHead, kind), &off_cpu_kind::INTERVAL.to_le_bytes());
        put(offset_of!(OffCpuHead, process), &process.as_u32().to_le_bytes());
        put(offset_of!(OffCpuHead, thread), &thread.as_u32().to_le_bytes());
        put(offset_of!(OffCpuHead, flags), &interval::FROM_START.to_le_bytes());
        put(offset_of!(OffCpuHead, left), &now.as_nanos().to_le_bytes());
        put(offset_of!(OffCpuHead, back), &now.as_nanos().to_le_bytes());
        put(offset_of!(OffCpuHead, call), &(-1i64).to_le_bytes());
        put(offset_of!(OffCpuHead, arrivals), &arrivals.to_le_bytes());
        put(offset_of!(OffCpuHead, executed), &executed.as_nanos().to_le_bytes());
        Ok(self.intervals.insert(thread.as_u32(), *entry, 0)?)
    }

    /// Watches a thread no longer.
    pub fn forget(&mut self, thread: Tid) {
        // Its end may have removed it, and none of its off-CPU intervals need have been reported before it was over.
        let _ = self.intervals.remove(&thread.as_u32());
        let _ = self.reported_until.remove(&thread.as_u32());
    }

    /// Has the caller report an off-CPU interval, which began at `left` and is not over, up to `until`: should its end find no room
    /// in the ring, only the rest of it is added to the sums. Returns whether the caller is to report it: not if the thread
    /// has moved on meanwhile.
    pub fn report_until(&mut self, thread: Tid, left: Timestamp, until: Timestamp) -> bool {
        let entry = ReportedEntry { left: left.as_nanos(), until: until.as_nanos() };
        let key = thread.as_u32();
        if self.reported_until.insert(key, entry, 0).is_err() {
            return false;
        }
        // One copy is enough for this: that it is woken meanwhile makes no difference.
        let now = self.intervals.get(&key, 0).ok().and_then(|entry| OffCpuRecord(&entry.0).left());
        let is_still_away = now == Some(left);
        // If the program has removed it already, it counts on what it says.
        is_still_away || self.reported_until.remove(&key).is_err()
    }

    /// What a watched thread is doing, as the program knows it; `None` where it is not watched, or its state changed
    /// while it was read.
    pub fn now(&self, thread: Tid) -> Option<Box<OffCpuCopy>> {
        let first = Box::new(OffCpuCopy(self.intervals.get(&thread.as_u32(), 0).ok()?));
        let again = self.intervals.get(&thread.as_u32(), 0).ok()?;
        (again.0[..HEAD_BYTES] == first.0.0[..HEAD_BYTES]).then_some(first)
    }

    /// The sums of off-CPU intervals since each thread is watched: of short ones, and of those that found no room in the ring.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn sums(&self) -> Result<Vec<OffCpuSum>, BpfError> {
        let entries: Result<Vec<_>, MapError> = self.sums.iter().collect();
        Ok(entries?.into_iter().map(|(key, sum)| OffCpuSum::new(&key, &sum)).collect())
    }

    /// Forgets the sums of threads that have ended.
    pub fn forget_sums(&mut self, has_ended: impl Fn(Tid) -> bool) {
        let keys: Vec<SumKey> = self.sums.keys().filter_map(Result::ok).collect();
        for key in keys.iter().filter(|key| has_ended(Tid::new(key.thread))) {
            // Nobody else removes it.
            let _ = self.sums.remove(key);
        }
    }
}

impl std::fmt::Debug for OffCpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OffCpu").finish_non_exhaustive()
    }
}

/// An off-CPU interval as it stands in the program's map at this moment.
pub struct OffCpuCopy(Entry);

impl OffCpuCopy {
    /// A copy of these first bytes, which may lack the stack: of a kernel that is simulated.
    pub fn of_head(head: &[u8]) -> Box<Self> {
        let mut entry = Entry([0; ENTRY_BYTES]);
        let length = head.len().min(ENTRY_BYTES);
        entry.0[..length].copy_from_slice(&head[..length]);
        Box::new(OffCpuCopy(entry))
    }

    /// The same as when it is sent, or would have been if there had been room.
    pub fn record(&self) -> OffCpuRecord<'_> {
        let stack = OffCpuRecord(&self.0.0).narrow(offset_of!(OffCpuHead, stack_bytes));
        OffCpuRecord(&self.0.0[..HEAD_BYTES + (stack as usize).min(STACK_BYTES)])
    }
}

/// Off-CPU intervals of a thread for one cause that were not sent, in sum since it is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffCpuSum {
    /// The thread.
    pub thread: Tid,
    /// The cause.
    pub cause: BlockReason,
    /// What the scheduler called its state, of those that found no room in the ring; `None` of those that were short.
    pub lost_in_state: Option<u32>,
    /// How many.
    pub intervals: u64,
    /// How long until it was woken, ...
    pub waited: Nanos,
    /// ... and from then until it was on a CPU.
    pub queued: Nanos,
}

impl OffCpuSum {
    fn new(key: &SumKey, sum: &SumEntry) -> Self {
        let is_lost = key.flags & interval::STACK_LOST != 0;
        OffCpuSum {
            thread: Tid::new(key.thread),
            cause: BlockReason::new(key.flags & interval::RUNNABLE != 0, key.call, key.argument, key.file),
            lost_in_state: is_lost.then_some(key.flags >> SUM_STATE_SHIFT),
            intervals: sum.intervals,
            waited: Nanos::from_nanos(sum.waited),
            queued: Nanos::from_nanos(sum.queued),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_says_whether_it_is_of_short_intervals_or_of_lost_ones() {
        let file = OpenFile { name: [0; 8], file_system: 0, mode: 0 };
        let sum = SumEntry { intervals: 3, waited: 40, queued: 5 };
        let of = |flags| OffCpuSum::new(&SumKey { thread: 7, flags, call: 202, argument: 1, file }, &sum);
        let short = of(0);
        assert_eq!((short.thread, short.lost_in_state, short.intervals), (Tid::new(7), None, 3));
        let lost = of(interval::STACK_LOST | 2 << SUM_STATE_SHIFT);
        assert_eq!((lost.lost_in_state, lost.cause), (Some(2), short.cause));
        assert_eq!(of(interval::STACK_LOST | interval::RUNNABLE).cause, BlockReason::Preempted);
    }
}
