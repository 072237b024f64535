//! The in-kernel watch over threads off the CPU, asked directly: what it says of a thread must add up to all of its time,
//! also where switches of the thread never came to its notice. No interpreter is needed for that; what becomes of it in
//! a recording is for `off_cpu` and `modes`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use profiler_bpf::{
    AbsenceCopy, Cause, DescriptorCalls, KernelSampler, Layout, OffCpu, Record, SummedAbsences,
};
use profiler_model::{Nanos, Pid, Tid, Timestamp};
use profiler_os::{Schedule, ThreadFiles, clock};
use profiler_tests::can_load_programs;
use profiler_tests::suite::Test;
use profiler_tests::test;

/// The watch learns late that the thread came back: after so much CPU time of it.
const RAN_UNSEEN: Nanos = Nanos::from_nanos(20_000_000);

/// It was away for so long at least: more than the clocks of the scheduler and of the machine differ in all of the test.
const AWAY: Nanos = Nanos::from_nanos(5_000_000);

/// Of the CPU time by the scheduler's account the watch may miss so much: it sees switches a moment after that clock.
const SWITCHING: f64 = 0.1;

/// A thread that has not ended after this time does not.
const PATIENCE: Duration = Duration::from_secs(10);

/// To run until it may stop.
#[derive(Default)]
struct Order {
    is_running: AtomicBool,
    may_stop: AtomicBool,
}

/// A thread that does what it is told, and sleeps otherwise.
struct Subject {
    pid: Pid,
    tid: Tid,
    files: ThreadFiles,
    orders: Sender<Arc<Order>>,
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Subject {
    fn start() -> Result<Self> {
        let (orders, to_do) = channel::<Arc<Order>>();
        let (did, done) = channel();
        let (say_id, id) = channel();
        let thread = thread::spawn(move || {
            // Whoever started it waits for each of these.
            let _ = say_id.send(nix::unistd::gettid());
            while let Ok(order) = to_do.recv() {
                order.is_running.store(true, Ordering::Relaxed);
                while !order.may_stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                let _ = did.send(());
            }
        });
        let tid = Tid::new(id.recv()?.as_raw().try_into()?);
        let pid = Pid::new(std::process::id());
        let files = ThreadFiles::open(pid, tid)?;
        Ok(Subject { pid, tid, files, orders, done, thread })
    }

    /// Waits until it sleeps; returns what the scheduler has counted of it then.
    fn sleeping(&self) -> Result<Schedule> {
        loop {
            let before = self.files.schedule()?;
            let is_running = self.files.activity()?.thread_state().is_running();
            if !is_running && self.files.schedule()?.times_run == before.times_run {
                return Ok(before);
            }
            thread::yield_now();
        }
    }

    /// Has it run until `meanwhile` is over.
    fn runs_while(&self, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
        let order = Arc::new(Order::default());
        self.orders.send(order.clone())?;
        // Nothing in the kernel is left to be done for its return then.
        while !order.is_running.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        let result = meanwhile();
        order.may_stop.store(true, Ordering::Relaxed);
        self.done.recv()?;
        result
    }

    /// Has it come to its CPU and sleep again.
    fn comes_and_goes(&self) -> Result<()> {
        self.runs_while(|| Ok(()))?;
        self.sleeping()?;
        Ok(())
    }

    fn end(self) -> Result<()> {
        drop(self.orders);
        self.thread.join().ok().context("it panicked")
    }
}

/// What was told of a thread.
#[derive(Debug, Default)]
struct Told {
    absences: u64,
    away: Nanos,
    several: u64,
}

fn told(kernel: &mut KernelSampler, thread: Tid) -> Told {
    let mut told = Told::default();
    kernel.read(&mut |record| {
        if let Record::Absence(absence) = record
            && absence.thread() == thread
            && let Some(left) = absence.left()
        {
            told.absences += 1;
            told.away += absence.back().since(left);
            told.several += u64::from(absence.is_several());
        }
    });
    told
}

/// Has a thread come back so often before the watch learns that it had left, and leave then; returns what was told.
fn with_unseen_returns(returns: usize) -> Result<Told> {
    let (mut kernel, mut watch) =
        OffCpu::load(clock::cpus(), false, Nanos::ZERO, DescriptorCalls::default(), None)?;
    let subject = Subject::start()?;
    kernel.set_layout(subject.pid, &Layout::default())?;
    let counted = subject.sleeping()?;
    let start: Timestamp = clock::now();
    thread::sleep(AWAY.into());
    for _ in 1..returns {
        subject.comes_and_goes()?;
    }
    subject.runs_while(|| {
        while subject.files.schedule()?.cpu < counted.cpu + RAN_UNSEEN {}
        Ok(watch.watch(subject.pid, subject.tid, start, (counted.times_run, counted.cpu))?)
    })?;
    subject.sleeping()?;
    let seen = told(&mut kernel, subject.tid);
    let copy = watch.now(subject.tid).context("it is not watched")?;
    let left = copy.record().left().context("it sleeps")?;
    let accounted = seen.away + copy.record().ran();
    ensure!(accounted == left.since(start), "{accounted:?} of {:?}: {seen:?}", left.since(start));
    ensure!(
        seen.away.as_secs_f64() >= AWAY.as_secs_f64() * (1.0 - SWITCHING),
        "away for {AWAY:?} and longer: {seen:?}"
    );
    let executed = subject.files.schedule()?.cpu.saturating_sub(counted.cpu);
    let ran = copy.record().ran();
    ensure!(
        ran.as_secs_f64() >= executed.as_secs_f64() * (1.0 - SWITCHING),
        "ran for {ran:?} of {executed:?}"
    );
    subject.end()?;
    Ok(seen)
}

fn a_return_that_was_not_seen_costs_no_time() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let seen = with_unseen_returns(1)?;
    ensure!(seen.absences > 0, "nothing was told");
    Ok(())
}

fn several_returns_that_were_not_seen_cost_no_time_and_are_told_as_such() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let seen = with_unseen_returns(4)?;
    ensure!(seen.several == 1, "{seen:?}");
    Ok(())
}

/// The watch over threads of this process that nobody reads the ring of, until it is full.
struct Unread {
    kernel: KernelSampler,
    watch: OffCpu,
    subject: Subject,
    start: Timestamp,
    /// How many absences of other threads found no room.
    lost_by_others: u64,
}

impl Unread {
    /// A thread leaves its CPU until so many absences of it have found no room, nor would any other record of one.
    fn fill(lost: u64) -> Result<Self> {
        let (mut kernel, mut watch) =
            OffCpu::load(clock::cpus(), false, Nanos::ZERO, DescriptorCalls::default(), None)?;
        let subject = Subject::start()?;
        kernel.set_layout(subject.pid, &Layout::default())?;
        let start = watched_asleep(&mut watch, &subject)?;
        let mut unread = Unread { kernel, watch, subject, start, lost_by_others: 0 };
        while unread.kernel.counters()?.ring_full == 0 {
            unread.subject.comes_and_goes()?;
        }
        while unread.has_room_for_smallest()? {}
        unread.lost_by_others = unread.kernel.counters()?.ring_full - unread.lost()?;
        while unread.lost()? < lost {
            unread.subject.comes_and_goes()?;
        }
        Ok(unread)
    }

    /// Whether a record without a stack finds room, which is that of a thread that was away when it was first watched. Each
    /// that does takes some of it.
    fn has_room_for_smallest(&mut self) -> Result<bool> {
        let other = Subject::start()?;
        let start = watched_asleep(&mut self.watch, &other)?;
        let mut found_room = false;
        other.runs_while(|| {
            found_room = self.back_from(start, other.tid)?.record().unsent() == Nanos::ZERO;
            Ok(())
        })?;
        self.watch.forget(other.tid);
        self.watch.forget_sums(|thread| thread == other.tid);
        other.end()?;
        Ok(found_room)
    }

    /// Sums of absences of the thread that found no room.
    fn sums_of_lost(&self) -> Result<Vec<SummedAbsences>> {
        let of_it = |sum: &SummedAbsences| sum.thread == self.subject.tid && sum.lost_in_state.is_some();
        Ok(self.watch.sums()?.into_iter().filter(of_it).collect())
    }

    /// How many they are.
    fn lost(&self) -> Result<u64> {
        Ok(self.sums_of_lost()?.iter().map(|sum| sum.absences).sum())
    }

    fn now(&self, thread: Tid) -> Result<Box<AbsenceCopy>> {
        self.watch.now(thread).context("it is not watched, or moves")
    }

    /// A thread that was told to run, once the watch has seen it come back from the absence that began at `left`: not every
    /// return is seen at once, and by then it may have been put aside again.
    fn back_from(&self, left: Timestamp, thread: Tid) -> Result<Box<AbsenceCopy>> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let copy = self.watch.now(thread).filter(|copy| copy.record().left() != Some(left));
            if let Some(copy) = copy {
                return Ok(copy);
            }
            ensure!(Instant::now() < limit, "it does not come to a CPU");
            thread::yield_now();
        }
    }

    /// For how long a thread was away in absences that were not sent and are over.
    fn unsent(&self, thread: Tid) -> Result<Nanos> {
        let sums = self.watch.sums()?.into_iter().filter(|sum| sum.thread == thread);
        let summed = sums.fold(Nanos::ZERO, |time, sum| time + sum.waited + sum.queued);
        Ok(summed + self.now(thread)?.record().unsent())
    }

    /// The same of one that has come back from the absence that began at `left`, with the rest that is kept of it: all of one
    /// moment, however often it is put aside.
    fn unsent_since(&self, left: Timestamp, thread: Tid) -> Result<(Nanos, Box<AbsenceCopy>)> {
        loop {
            let copy = self.back_from(left, thread)?;
            let unsent = self.unsent(thread);
            // It cannot have left or come back twice at the same time.
            if self.back_from(left, thread)?.record().back() == copy.record().back() {
                return Ok((unsent?, copy));
            }
        }
    }
}

/// Has a thread watched that sleeps; returns since when.
fn watched_asleep(watch: &mut OffCpu, subject: &Subject) -> Result<Timestamp> {
    let counted = subject.sleeping()?;
    let start = clock::now();
    watch.watch(subject.pid, subject.tid, start, (counted.times_run, counted.cpu))?;
    Ok(start)
}

fn absences_that_find_no_room_cost_no_time_and_keep_their_reason() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let mut unread = Unread::fill(50)?;
    let thread = unread.subject.tid;
    let (lost, seen) = (unread.unsent(thread)?, told(&mut unread.kernel, thread));
    let copy = unread.now(thread)?;
    let left = copy.record().left().context("it sleeps")?;
    let accounted = seen.away + lost + copy.record().ran();
    ensure!(accounted == left.since(unread.start), "{accounted:?} of {:?}", left.since(unread.start));
    let lost = unread.sums_of_lost()?;
    let counted = unread.kernel.counters()?.ring_full - unread.lost_by_others;
    ensure!(counted >= 50 && unread.lost()? == counted, "{counted} found no room: {lost:?}");
    let futex = Some(u64::try_from(nix::libc::SYS_futex)?);
    let waits = |cause| matches!(cause, Cause::Waited { call, .. } if call == futex);
    ensure!(lost.iter().any(|sum| waits(sum.cause)), "{lost:?}");
    unread.subject.end()
}

fn what_was_told_of_an_absence_is_not_told_again_by_its_sum() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let mut unread = Unread::fill(1)?;
    let thread = unread.subject.tid;
    let before = unread.unsent(thread)?;
    let copy = unread.now(thread)?;
    let (left, ran) = (copy.record().left().context("it sleeps")?, copy.record().ran());
    let until = clock::now();
    ensure!(unread.watch.tell_until(thread, left, until), "it is to be told");
    ensure!(!unread.watch.tell_until(thread, unread.start, until), "it has moved on since");
    ensure!(unread.watch.tell_until(thread, left, until), "it is to be told again");
    unread.subject.runs_while(|| {
        let (unsent, copy) = unread.unsent_since(left, thread)?;
        let (back, ran) = (copy.record().back(), copy.record().ran().saturating_sub(ran));
        let rest = unsent.saturating_sub(before);
        ensure!(rest + ran == back.since(until), "{rest:?} and {ran:?} of {:?}", back.since(until));
        Ok(())
    })?;
    unread.subject.end()
}

fn where_an_absence_is_known_by_its_time_alone_that_is_kept() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let mut unread = Unread::fill(1)?;
    let second = Subject::start()?;
    let start = watched_asleep(&mut unread.watch, &second)?;
    second.runs_while(|| {
        // It was away when it was first watched: what it waits for only the caller may know.
        let (away, copy) = unread.unsent_since(start, second.tid)?;
        let (ran, back) = (copy.record().ran(), copy.record().back());
        ensure!(copy.record().unsent() > Nanos::ZERO, "it is known what it waited for");
        ensure!(away + ran == back.since(start), "{away:?} and {ran:?} of {:?}", back.since(start));
        Ok(())
    })?;
    second.end()?;
    unread.subject.end()
}

fn the_end_of_a_thread_that_finds_no_room_is_kept() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let Unread { kernel: _kernel, watch, subject, .. } = Unread::fill(1)?;
    let thread = subject.tid;
    subject.end()?;
    // It is waited for before its last switch.
    let limit = Instant::now() + PATIENCE;
    loop {
        let copy = watch.now(thread).filter(|copy| copy.record().is_end());
        if let Some(copy) = copy {
            ensure!(copy.record().ran() > Nanos::ZERO, "it ran");
            return Ok(());
        }
        ensure!(Instant::now() < limit, "its end is not told");
        thread::yield_now();
    }
}

fn a_process_too_many_is_refused_until_another_one_leaves() -> Result<()> {
    /// `MAX_PROCESSES` of the program.
    const MOST: u32 = 1024;
    if !can_load_programs() {
        return Ok(());
    }
    let mut kernel = KernelSampler::load(clock::cpus(), false, None)?;
    // Numbers that no process has.
    let pid = |number: u32| Pid::new(1 << 24 | number);
    for number in 0..MOST {
        kernel.set_layout(pid(number), &Layout::default())?;
    }
    ensure!(kernel.set_layout(pid(MOST), &Layout::default()).is_err(), "there is room for more");
    kernel.set_layout(pid(0), &Layout::default()).context("it is known already")?;
    kernel.forget_layout(pid(0));
    kernel.set_layout(pid(MOST), &Layout::default()).context("there is room again")
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(a_return_that_was_not_seen_costs_no_time),
        test!(several_returns_that_were_not_seen_cost_no_time_and_are_told_as_such),
        test!(absences_that_find_no_room_cost_no_time_and_keep_their_reason),
        test!(what_was_told_of_an_absence_is_not_told_again_by_its_sum),
        test!(where_an_absence_is_known_by_its_time_alone_that_is_kept),
        test!(the_end_of_a_thread_that_finds_no_room_is_kept),
        test!(a_process_too_many_is_refused_until_another_one_leaves),
    ]
}
