//! What the accounts of threads off the CPU ask of the kernel's side of the watch, and of the clock. Behind a trait, so that a
//! simulated kernel can be asked as well.

use profiler_bpf::{OffCpu, OffCpuCopy, OffCpuSum};
use profiler_model::{Nanos, Tid, Timestamp};
use profiler_os::{ThreadFiles, clock};

/// The kernel's side of the watch over switches of threads.
pub trait SwitchWatch {
    /// What time it is.
    fn time(&self) -> Timestamp;

    /// How often the scheduler has put a thread, whose files these are, on a CPU; `None` if it is gone.
    fn arrivals(&self, thread: Tid, files: &ThreadFiles) -> Option<u64>;

    /// See [`OffCpu::least`].
    fn least(&self) -> Nanos;

    /// See [`OffCpu::now`].
    fn now(&self, thread: Tid) -> Option<Box<OffCpuCopy>>;

    /// See [`OffCpu::report_until`].
    fn report_until(&mut self, thread: Tid, left: Timestamp, until: Timestamp) -> bool;

    /// See [`OffCpu::sums`]; `None` if they cannot be read.
    fn sums(&self) -> Option<Vec<OffCpuSum>>;

    /// See [`OffCpu::forget`].
    fn forget(&mut self, thread: Tid);

    /// See [`OffCpu::forget_sums`].
    fn forget_sums(&mut self, has_ended: &dyn Fn(Tid) -> bool);
}

impl SwitchWatch for OffCpu {
    fn time(&self) -> Timestamp {
        clock::now()
    }

    fn arrivals(&self, _thread: Tid, files: &ThreadFiles) -> Option<u64> {
        files.schedule().ok().map(|schedule| schedule.timeslices)
    }

    fn least(&self) -> Nanos {
        OffCpu::least(self)
    }

    fn now(&self, thread: Tid) -> Option<Box<OffCpuCopy>> {
        OffCpu::now(self, thread)
    }

    fn report_until(&mut self, thread: Tid, left: Timestamp, until: Timestamp) -> bool {
        OffCpu::report_until(self, thread, left, until)
    }

    fn sums(&self) -> Option<Vec<OffCpuSum>> {
        OffCpu::sums(self).ok()
    }

    fn forget(&mut self, thread: Tid) {
        OffCpu::forget(self, thread);
    }

    fn forget_sums(&mut self, has_ended: &dyn Fn(Tid) -> bool) {
        OffCpu::forget_sums(self, has_ended);
    }
}
