//! Being on time: asking the scheduler not to keep the sampling thread waiting.
//!
//! A sampler that loses its CPU while a thread is stopped keeps that thread stopped until it gets the CPU
//! back: on a busy machine hundreds of milliseconds. It needs the CPU for some tens of microseconds only,
//! so it asks to have it at once. Measured with two other busy processes on two CPUs, 1 kHz: longest stop
//! 414 ms without, 0.2 ms with real-time priority.
//!
//! What takes long but stops nobody gets no such priority, which would take a CPU from the targets in one piece; it
//! gets a larger share instead, in turns.

use nix::errno::Errno;
use nix::unistd::gettid;
use profiler_model::Tid;

use crate::clock;

/// What the scheduler granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchedulingClass {
    /// Ahead of all ordinary work, at the lowest of the real-time priorities (`SCHED_FIFO` 1). Needs
    /// `CAP_SYS_NICE` or an `RLIMIT_RTPRIO`.
    RealTime,
    /// An ordinary thread that asks for short turns, and so gets them sooner (Linux 6.12+; without
    /// privileges).
    ShortSlices,
    /// Nothing.
    Ordinary,
}

/// The turn asked for where real-time priority is not permitted: the shortest that the kernel takes.
const SLICE_NANOS: u64 = 100_000;

/// Makes the calling thread prompt, as far as is permitted, and has it woken on time: by default the kernel
/// may let sleepers oversleep by 50 µs. Processes that it starts later are ordinary again.
pub fn want_promptness() -> SchedulingClass {
    clock::want_exact_wakeups();
    make_prompt(CALLER)
}

/// What the kernel takes for the calling thread.
const CALLER: Tid = Tid::new(0);

/// The id of the calling thread, for [`make_prompt`].
pub fn this_thread() -> Tid {
    Tid::new(gettid().as_raw().cast_unsigned())
}

/// Makes a thread of this process prompt, as far as is permitted: one that has work to do and waits for a CPU gets one.
pub fn make_prompt(thread: Tid) -> SchedulingClass {
    if set_real_time(thread) {
        SchedulingClass::RealTime
    } else if set_short_slices(thread) {
        SchedulingClass::ShortSlices
    } else {
        SchedulingClass::Ordinary
    }
}

/// Makes the calling thread an ordinary one again, for work that has time.
pub fn want_no_promptness() {
    set_policy(CALLER, libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK, 0);
}

/// Gives up the real-time priority of the calling thread for good; returns whether it had it.
pub fn leave_real_time() -> bool {
    let had = is_real_time();
    if had {
        want_no_promptness();
    }
    had
}

/// As long as it lives, the thread that made it has no real-time priority, for work that has time in between. To be dropped
/// by the thread that made it.
#[derive(Debug)]
pub struct OrdinaryMeanwhile(());

impl OrdinaryMeanwhile {
    /// From now on; `None` where the calling thread has no real-time priority.
    #[must_use]
    pub fn begin() -> Option<Self> {
        is_real_time().then(|| {
            want_no_promptness();
            OrdinaryMeanwhile(())
        })
    }
}

impl Drop for OrdinaryMeanwhile {
    fn drop(&mut self) {
        set_real_time(CALLER);
    }
}

/// As long as it lives, the thread that made it has real-time priority, for what must not wait for a CPU: another thread
/// is stopped. To be dropped by the thread that made it.
#[derive(Debug)]
pub struct RealTimeMeanwhile(());

impl RealTimeMeanwhile {
    /// From now on; `None` where the calling thread has it already, or may not have it.
    #[must_use]
    pub fn begin() -> Option<Self> {
        // Only then is there one to be dropped.
        (!is_real_time() && set_real_time(CALLER)).then(|| RealTimeMeanwhile(()))
    }
}

impl Drop for RealTimeMeanwhile {
    fn drop(&mut self) {
        want_no_promptness();
    }
}

/// The niceness of the largest share: beside a hundred ordinary threads on its CPU, a thread has nearly half of the time.
const NICEST_TO_ITSELF: i32 = -20;

/// As long as it lives, the thread that made it has a larger share of its CPU than the others that want it, by the
/// niceness of -20. The others go on in their turns. To be dropped by the thread that made it.
#[derive(Debug)]
pub struct LargerShare {
    nice_before: i32,
}

impl LargerShare {
    /// Takes it for the calling thread; none where that is not permitted (`CAP_SYS_NICE` or an `RLIMIT_NICE`), or where
    /// the thread has it already.
    #[must_use]
    pub fn take() -> Option<Self> {
        let nice_before = niceness()?;
        (nice_before > NICEST_TO_ITSELF && set_niceness(NICEST_TO_ITSELF))
            .then_some(LargerShare { nice_before })
    }

    /// Takes it for the calling thread in exchange for its real-time priority, if it has that: without a moment in which it
    /// waits like any other thread.
    #[must_use]
    pub fn instead_of_real_time() -> Option<Self> {
        let share = LargerShare::take();
        if is_real_time() {
            want_no_promptness();
        }
        share
    }
}

impl Drop for LargerShare {
    fn drop(&mut self) {
        // To want less is always permitted.
        set_niceness(self.nice_before);
    }
}

/// The niceness of the calling thread: in Linux every thread has its own.
fn niceness() -> Option<i32> {
    Errno::clear();
    // SAFETY: the call takes plain numbers; 0 is the calling thread.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // -1 is a niceness as well.
    (nice != -1 || Errno::last_raw() == 0).then_some(nice)
}

fn set_niceness(nice: i32) -> bool {
    // SAFETY: the call takes plain numbers; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) == 0 }
}

/// As long as it lives, threads that the calling thread starts have real-time priority, if that is permitted. So has the
/// calling thread.
pub(crate) struct PromptChildren {
    policy: libc::c_int,
    parameter: libc::sched_param,
}

impl PromptChildren {
    /// From now on; none where it is not permitted.
    pub(crate) fn begin() -> Option<Self> {
        // SAFETY: sched_param is plain data for which all zeroes is a valid value.
        let mut parameter: libc::sched_param = unsafe { std::mem::zeroed() };
        // SAFETY: the call takes a plain number; 0 is the calling thread.
        let policy = unsafe { libc::sched_getscheduler(0) };
        // SAFETY: `parameter` is valid and outlives the call, which writes it.
        let known = policy >= 0 && unsafe { libc::sched_getparam(0, &raw mut parameter) } == 0;
        (known && set_policy(CALLER, libc::SCHED_FIFO, 1)).then_some(PromptChildren { policy, parameter })
    }
}

impl Drop for PromptChildren {
    fn drop(&mut self) {
        set_policy(CALLER, self.policy, self.parameter.sched_priority);
    }
}

fn set_policy(thread: Tid, policy: libc::c_int, priority: libc::c_int) -> bool {
    // SAFETY: sched_param is plain data for which all zeroes is a valid value.
    let mut parameter: libc::sched_param = unsafe { std::mem::zeroed() };
    parameter.sched_priority = priority;
    // SAFETY: `parameter` is valid and outlives the call, which only reads it; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(number(thread), policy, &parameter) == 0 }
}

fn number(thread: Tid) -> libc::pid_t {
    thread.as_u32().cast_signed()
}

/// Whether the calling thread has real-time priority.
fn is_real_time() -> bool {
    // SAFETY: the call takes a plain number; 0 is the calling thread.
    let policy = unsafe { libc::sched_getscheduler(0) };
    policy & !libc::SCHED_RESET_ON_FORK == libc::SCHED_FIFO
}

fn set_real_time(thread: Tid) -> bool {
    set_policy(thread, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, 1)
}

/// `struct sched_attr` of `sched_setattr(2)`, first version.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

fn set_short_slices(thread: Tid) -> bool {
    let attributes = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: libc::SCHED_FLAG_RESET_ON_FORK as u64,
        runtime: SLICE_NANOS,
        ..SchedAttr::default()
    };
    // SAFETY: `attributes` has the layout that the call reads, says its own size and outlives the call; 0
    // is the calling thread.
    unsafe { libc::syscall(libc::SYS_sched_setattr, number(thread), &attributes, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_thread_begins_with_the_priority_that_is_permitted() {
        let was_real_time = is_real_time();
        let (sender, receiver) = std::sync::mpsc::channel();
        let work = move || sender.send((is_real_time(), want_promptness())).unwrap();
        crate::quiet_thread::spawn_prompt("test", work).unwrap().join().unwrap();
        let (is_prompt, granted) = receiver.recv().unwrap();
        assert_eq!(is_prompt, granted == SchedulingClass::RealTime);
        assert_eq!(is_real_time(), was_real_time, "it was given back");
    }

    #[test]
    fn priority_for_a_while_ends_with_the_while() {
        let is_permitted = want_promptness() == SchedulingClass::RealTime;
        if let Some(ordinary) = OrdinaryMeanwhile::begin() {
            assert!(is_permitted && !is_real_time());
            drop(ordinary);
        }
        assert_eq!(is_real_time(), is_permitted);
        assert!(!is_permitted || RealTimeMeanwhile::begin().is_none(), "it has it already");
        assert_eq!(is_real_time(), is_permitted, "what it had before stays");
        want_no_promptness();
        let ahead = RealTimeMeanwhile::begin();
        assert_eq!((ahead.is_some(), is_real_time()), (is_permitted, is_permitted));
        drop(ahead);
        assert!(!is_real_time() && OrdinaryMeanwhile::begin().is_none());
    }

    #[test]
    fn a_larger_share_is_given_back() {
        let before = niceness().unwrap();
        let share = LargerShare::take();
        assert_eq!(niceness(), Some(if share.is_some() { NICEST_TO_ITSELF } else { before }));
        assert!(LargerShare::take().is_none(), "it has it already, or it is not permitted");
        drop(share);
        assert_eq!(niceness(), Some(before));
    }
}
