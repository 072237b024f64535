//! The in-kernel watch over threads off the CPU, asked directly: what it reports of a thread must add up to all of its time, also
//! where it saw nothing of switches of the thread. No interpreter is needed for that; what becomes of it in a recording is for
//! `off_cpu` and `modes`.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use profiler_bpf::{
    BlockReason, DescriptorCalls, KernelSampler, Layout, OffCpu, OffCpuCopy, OffCpuSum, Record,
};
use profiler_model::{Nanos, Pid, SchedStat, Tid, Timestamp};
use profiler_os::{ThreadFiles, clock};
use profiler_tests::suite::{Sampler, Test};
use profiler_tests::test;

/// The watch learns late that the thread came back: after so much CPU time of it.
const RAN_UNSEEN: Nanos = Nanos::from_nanos(20_000_000);

/// It was away for so long at least: more than the clocks of the scheduler and of the machine differ in all of the test.
const AWAY: Nanos = Nanos::from_nanos(5_000_000);

/// The part of the CPU time by the scheduler's account that the watch may miss: it sees switches a moment after that clock.
const SWITCHING: f64 = 0.1;

/// What has not happened after this time does not.
const PATIENCE: Duration = Duration::from_secs(10);

/// The number of off-CPU intervals of the subject that find room.
const SENT: usize = 50;

/// To run until it may stop.
#[derive(Default)]
struct Order {
    is_running: AtomicBool,
    may_stop: AtomicBool,
}

/// A thread that runs on order, and sleeps otherwise.
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
            // The thread that started it waits for each of these.
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
    fn sleeping(&self) -> Result<SchedStat> {
        sleeping(&self.files)
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

/// Waits until a thread sleeps; returns what the scheduler has counted of it then.
fn sleeping(files: &ThreadFiles) -> Result<SchedStat> {
    loop {
        let before = files.schedule()?;
        let is_running = files.activity()?.thread_state().is_running();
        if !is_running && files.schedule()?.timeslices == before.timeslices {
            return Ok(before);
        }
        thread::yield_now();
    }
}

/// One of two threads that hand a byte to and fro, so that each is away thousands of times a second.
struct Player {
    tid: Tid,
    files: ThreadFiles,
    ball: UnixStream,
    thread: JoinHandle<()>,
}

impl Player {
    fn start(ball: UnixStream) -> Result<Self> {
        let (say_id, id) = channel();
        let mut hands = ball.try_clone()?;
        let thread = thread::spawn(move || {
            let _ = say_id.send(nix::unistd::gettid());
            let mut byte = [0];
            // The other end is shut down at the end of the game.
            while hands.read_exact(&mut byte).and_then(|()| hands.write_all(&byte)).is_ok() {}
        });
        let tid = Tid::new(id.recv()?.as_raw().try_into()?);
        let files = ThreadFiles::open(Pid::new(std::process::id()), tid)?;
        Ok(Player { tid, files, ball, thread })
    }

    fn end(self) -> Result<()> {
        self.ball.shutdown(Shutdown::Both)?;
        self.thread.join().ok().context("it panicked")
    }
}

/// What was received of a thread.
#[derive(Debug, Default)]
struct Received {
    intervals: u64,
    away: Nanos,
    several: u64,
}

fn received(kernel: &mut KernelSampler, thread: Tid) -> Received {
    let mut received = Received::default();
    kernel.read(&mut |record| {
        if let Record::OffCpu(interval) = record
            && interval.thread() == thread
            && let Some(left) = interval.left()
        {
            received.intervals += 1;
            received.away += interval.back().since(left);
            received.several += u64::from(interval.is_several());
        }
    });
    received
}

/// A thread comes back this many times before the watch learns that it had left, and leaves then; returns what was received.
fn with_unseen_returns(returns: usize) -> Result<Received> {
    let (mut kernel, mut watch) =
        OffCpu::load(clock::cpus(), false, Nanos::ZERO, DescriptorCalls::default(), None)?;
    let subject = Subject::start()?;
    kernel.set_layout(subject.pid, 0, &Layout::default())?;
    let counted = subject.sleeping()?;
    let start: Timestamp = clock::now();
    thread::sleep(AWAY.into());
    for _ in 1..returns {
        subject.comes_and_goes()?;
    }
    subject.runs_while(|| {
        while subject.files.schedule()?.cpu < counted.cpu + RAN_UNSEEN {}
        Ok(watch.watch(subject.pid, subject.tid, start, (counted.timeslices, counted.cpu))?)
    })?;
    subject.sleeping()?;
    let seen = received(&mut kernel, subject.tid);
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

fn unseen_return_costs_no_time() -> Result<()> {
    let seen = with_unseen_returns(1)?;
    ensure!(seen.intervals > 0, "nothing was received");
    Ok(())
}

fn several_unseen_returns_are_marked_and_cost_no_time() -> Result<()> {
    let seen = with_unseen_returns(4)?;
    ensure!(seen.several == 1, "{seen:?}");
    Ok(())
}

/// The watch over threads of this process, whose ring is not read until it is full.
struct Unread {
    kernel: KernelSampler,
    watch: OffCpu,
    subject: Subject,
    start: Timestamp,
    /// How many off-CPU intervals of other threads found no room.
    lost_by_others: u64,
}

impl Unread {
    /// Threads leave their CPUs until the ring has no room for any record of an off-CPU interval, and then the subject does until `lost`
    /// off-CPU intervals of it have found no room.
    fn fill(lost: u64) -> Result<Self> {
        let (mut kernel, mut watch) =
            OffCpu::load(clock::cpus(), false, Nanos::ZERO, DescriptorCalls::default(), None)?;
        let subject = Subject::start()?;
        kernel.set_layout(subject.pid, 0, &Layout::default())?;
        let start = watched_asleep(&mut watch, &subject)?;
        let mut unread = Unread { kernel, watch, subject, start, lost_by_others: 0 };
        for _ in 0..SENT {
            unread.subject.comes_and_goes()?;
        }
        unread.fill_by_others()?;
        while unread.has_room_for_smallest()? {}
        unread.lost_by_others = unread.kernel.counters()?.ring_full - unread.lost()?;
        while unread.lost()? < lost {
            unread.subject.comes_and_goes()?;
        }
        Ok(unread)
    }

    /// Two other threads leave their CPUs until an off-CPU interval finds no room. (By the subject alone it takes ten times as long: it
    /// does so on orders, between which it must have come to rest.)
    fn fill_by_others(&mut self) -> Result<()> {
        let (one, other) = UnixStream::pair()?;
        let mut first = one.try_clone()?;
        let players = [Player::start(one)?, Player::start(other)?];
        for player in &players {
            let counted = sleeping(&player.files)?;
            let counted = (counted.timeslices, counted.cpu);
            self.watch.watch(self.subject.pid, player.tid, clock::now(), counted)?;
        }
        first.write_all(b".")?;
        let limit = Instant::now() + PATIENCE;
        while self.kernel.counters()?.ring_full == 0 {
            ensure!(Instant::now() < limit, "the ring is not filled");
            thread::sleep(Duration::from_millis(1));
        }
        // Nothing that they do from now on is of account.
        for player in &players {
            self.watch.forget(player.tid);
        }
        for player in players {
            let tid = player.tid;
            player.end()?;
            self.watch.forget_sums(|thread| thread == tid);
        }
        Ok(())
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

    /// Sums of off-CPU intervals of the thread that found no room.
    fn sums_of_lost(&self) -> Result<Vec<OffCpuSum>> {
        let of_it = |sum: &OffCpuSum| sum.thread == self.subject.tid && sum.lost_in_state.is_some();
        Ok(self.watch.sums()?.into_iter().filter(of_it).collect())
    }

    /// How many they are.
    fn lost(&self) -> Result<u64> {
        Ok(self.sums_of_lost()?.iter().map(|sum| sum.intervals).sum())
    }

    fn now(&self, thread: Tid) -> Result<Box<OffCpuCopy>> {
        self.watch.now(thread).context("it is not watched, or moves")
    }

    /// A thread that runs on order, once the watch has seen it come back from the off-CPU interval that began at `left`: not every return
    /// is seen at once, and by then it may have lost its CPU again.
    fn back_from(&self, left: Timestamp, thread: Tid) -> Result<Box<OffCpuCopy>> {
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

    /// For how long a thread was away in off-CPU intervals that were not sent and are over.
    fn unsent(&self, thread: Tid) -> Result<Nanos> {
        let sums = self.watch.sums()?.into_iter().filter(|sum| sum.thread == thread);
        let summed = sums.fold(Nanos::ZERO, |time, sum| time + sum.waited + sum.queued);
        Ok(summed + self.now(thread)?.record().unsent())
    }

    /// The same of one that has come back from the off-CPU interval that began at `left`, with the rest that is kept of it: all of one
    /// moment, however often it loses its CPU.
    fn unsent_since(&self, left: Timestamp, thread: Tid) -> Result<(Nanos, Box<OffCpuCopy>)> {
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

/// Watches a thread that sleeps; returns since when.
fn watched_asleep(watch: &mut OffCpu, subject: &Subject) -> Result<Timestamp> {
    let counted = subject.sleeping()?;
    let start = clock::now();
    watch.watch(subject.pid, subject.tid, start, (counted.timeslices, counted.cpu))?;
    Ok(start)
}

fn intervals_without_room_keep_time_and_reason() -> Result<()> {
    let mut unread = Unread::fill(50)?;
    let thread = unread.subject.tid;
    let (lost, seen) = (unread.unsent(thread)?, received(&mut unread.kernel, thread));
    let copy = unread.now(thread)?;
    let left = copy.record().left().context("it sleeps")?;
    let accounted = seen.away + lost + copy.record().ran();
    ensure!(accounted == left.since(unread.start), "{accounted:?} of {:?}", left.since(unread.start));
    let lost = unread.sums_of_lost()?;
    let counted = unread.kernel.counters()?.ring_full - unread.lost_by_others;
    ensure!(counted >= 50 && unread.lost()? == counted, "{counted} found no room: {lost:?}");
    let futex = Some(u64::try_from(nix::libc::SYS_futex)?);
    let waits = |cause| matches!(cause, BlockReason::Waited { call, .. } if call == futex);
    ensure!(lost.iter().any(|sum| waits(sum.cause)), "{lost:?}");
    unread.subject.end()
}

fn reported_part_of_interval_is_not_summed_again() -> Result<()> {
    let mut unread = Unread::fill(1)?;
    let thread = unread.subject.tid;
    let before = unread.unsent(thread)?;
    let copy = unread.now(thread)?;
    let (left, ran) = (copy.record().left().context("it sleeps")?, copy.record().ran());
    let until = clock::now();
    ensure!(unread.watch.report_until(thread, left, until), "it cannot be told");
    ensure!(!unread.watch.report_until(thread, unread.start, until), "it has moved on since");
    ensure!(unread.watch.report_until(thread, left, until), "it cannot be told again");
    unread.subject.runs_while(|| {
        let (unsent, copy) = unread.unsent_since(left, thread)?;
        let (back, ran) = (copy.record().back(), copy.record().ran().saturating_sub(ran));
        let rest = unsent.saturating_sub(before);
        ensure!(rest + ran == back.since(until), "{rest:?} and {ran:?} of {:?}", back.since(until));
        Ok(())
    })?;
    unread.subject.end()
}

fn interval_without_reason_keeps_its_time() -> Result<()> {
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

fn end_of_thread_without_room_is_kept() -> Result<()> {
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
        ensure!(Instant::now() < limit, "its end is not kept");
        thread::yield_now();
    }
}

fn too_many_processes_are_refused_until_one_leaves() -> Result<()> {
    /// `MAX_PROCESSES` of the program.
    const MOST: u32 = 1024;
    let mut kernel = KernelSampler::load(clock::cpus(), false, None)?;
    // Numbers that no process has.
    let pid = |number: u32| Pid::new(1 << 24 | number);
    for number in 0..MOST {
        kernel.set_layout(pid(number), 0, &Layout::default())?;
    }
    ensure!(kernel.set_layout(pid(MOST), 0, &Layout::default()).is_err(), "there is room for more");
    kernel.set_layout(pid(0), 0, &Layout::default()).context("it is known already")?;
    kernel.forget_process(pid(0));
    kernel.set_layout(pid(MOST), 0, &Layout::default()).context("there is room again")
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    const BPF: &[Sampler] = &[Sampler::Bpf];
    vec![
        test!(unseen_return_costs_no_time).by(BPF),
        test!(several_unseen_returns_are_marked_and_cost_no_time).by(BPF),
        test!(intervals_without_room_keep_time_and_reason).by(BPF),
        test!(reported_part_of_interval_is_not_summed_again).by(BPF),
        test!(interval_without_reason_keeps_its_time).by(BPF),
        test!(end_of_thread_without_room_is_kept).by(BPF),
        test!(too_many_processes_are_refused_until_one_leaves).by(BPF),
    ]
}
