//! A simulated machine: threads that run, wait, come back unseen and end; a program that keeps of them what the one in the kernel
//! keeps (`off_cpu.h` and `interval_end.h`, function by function); a ring that can be full, and a reader that comes late. Whatever happens, the
//! times that are reported of a thread add up to its life, to the nanosecond.

use std::collections::{BTreeMap, VecDeque};

use profiler_bpf::{BlockReason, OffCpuCopy, Record};
use profiler_model::Pid;
use profiler_os::Process;
use proptest::prelude::*;

use super::*;

/// The watch begins here.
const START: u64 = 1_000;
/// Off-CPU intervals shorter than this are summed.
const LEAST: u64 = 100;
/// The scheduler's clock is behind that of the watch by this.
const BEHIND: u64 = 7;
/// How long each thread has run before.
const EXECUTED_BEFORE: u64 = 500;
/// The number of threads.
const THREADS: u32 = 3;
/// More records than a script makes.
const MUCH_ROOM: usize = 10_000;

const RUNNABLE: u32 = 1;
const DEEP: u32 = 2;
const FROM_START: u32 = 4;
const END: u32 = 8;
const SEVERAL: u32 = 16;
const STACK_LOST: u32 = 32;

const RECORD_STACK: u32 = 1;
const RECORD_INTERVAL: u32 = 3;
const RECORD_DEEP_STACK: u32 = 4;

/// What the scheduler calls a thread that waits.
const INTERRUPTIBLE: u32 = 1;

/// A thread and its last off-CPU interval, as the program keeps them (`struct interval`).
#[derive(Clone, Copy, Debug, Default)]
struct Interval {
    flags: u32,
    left: u64,
    woken: u64,
    back: u64,
    arrivals: u64,
    ran: u64,
    executed: u64,
    state: u32,
    unsent: u64,
}

impl Interval {
    fn bytes(&self, thread: u32) -> Vec<u8> {
        let mut bytes = vec![0u8; 128];
        for (at, value) in [(0, RECORD_INTERVAL), (4, 1), (8, thread), (12, self.flags), (96, self.state)] {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let wide = [
            (16, self.left),
            (24, self.woken),
            (32, self.back),
            (40, u64::MAX),
            (72, self.arrivals),
            (80, self.ran),
            (88, self.executed),
            (120, self.unsent),
        ];
        for (at, value) in wide {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }
}

/// A stack, sent by itself or as a sample.
fn stack_bytes(kind: u32, thread: u32, time: u64, ran: u64) -> Vec<u8> {
    let mut bytes = vec![0u8; 1024];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..16].copy_from_slice(&time.to_le_bytes());
    bytes[28..32].copy_from_slice(&thread.to_le_bytes());
    bytes[64..72].copy_from_slice(&ran.to_le_bytes());
    bytes
}

/// A thread as the scheduler knows it.
#[derive(Clone, Debug)]
struct SimThread {
    is_running: bool,
    on_cpu_since: u64,
    /// Before that.
    executed: u64,
    arrivals: u64,
    /// By the scheduler's clock.
    last_arrival: u64,
    /// What the program keeps of it, as long as it does.
    interval: Option<Interval>,
    ended: Option<u64>,
}

impl SimThread {
    fn executed_until(&self, now: u64) -> u64 {
        self.executed + if self.is_running { now - self.on_cpu_since } else { 0 }
    }

    fn stop_running(&mut self, now: u64) {
        self.executed = self.executed_until(now);
        self.is_running = false;
    }

    fn return_by_execution(&self, interval: &Interval, now: u64) -> u64 {
        let ran = self.executed_until(now) - interval.executed;
        if ran < now - interval.left { now - ran } else { interval.left }
    }

    fn unseen_return(&self, interval: &mut Interval, behind: u64, now: u64) -> u64 {
        let arrivals = self.arrivals - interval.arrivals;
        if arrivals == 0 && interval.flags & FROM_START != 0 {
            return interval.left;
        }
        if arrivals > 1 {
            interval.flags |= SEVERAL;
        }
        if arrivals == 1 && behind != 0 {
            return self.last_arrival.wrapping_add(behind).clamp(interval.left, now);
        }
        self.return_by_execution(interval, now)
    }
}

/// What short and lost intervals are summed by: the thread, whether it was runnable, and the state if it was lost.
type SumKey = (u32, bool, Option<u32>);

/// The machine with the program.
struct Machine {
    now: u64,
    threads: BTreeMap<u32, SimThread>,
    ring: VecDeque<Vec<u8>>,
    room: usize,
    behind: u64,
    /// Intervals, time waited, time queued.
    sums: BTreeMap<SumKey, (u64, u64, u64)>,
    has_room_for_sums: bool,
    reported_until: BTreeMap<u32, (u64, u64)>,
}

impl Machine {
    fn new() -> Self {
        let threads = (1..=THREADS).map(|id| {
            let (arrivals, executed) = (u64::from(id) + 5, EXECUTED_BEFORE);
            let interval = Interval {
                flags: FROM_START,
                left: START,
                back: START,
                arrivals,
                executed,
                ..Interval::default()
            };
            let thread = SimThread {
                // The first is asleep when the watch begins.
                is_running: id > 1,
                on_cpu_since: START,
                executed,
                arrivals,
                last_arrival: START - 300 - BEHIND,
                interval: Some(interval),
                ended: None,
            };
            (id, thread)
        });
        Machine {
            now: START,
            threads: threads.collect(),
            ring: VecDeque::new(),
            room: MUCH_ROOM,
            behind: 0,
            sums: BTreeMap::new(),
            has_room_for_sums: true,
            reported_until: BTreeMap::new(),
        }
    }

    fn send(&mut self, bytes: Vec<u8>) -> bool {
        let has_room = self.ring.len() < self.room;
        if has_room {
            self.ring.push_back(bytes);
        }
        has_room
    }

    fn add_to_sums(&mut self, key: SumKey, waited: u64, queued: u64) -> bool {
        if !self.has_room_for_sums && !self.sums.contains_key(&key) {
            return false;
        }
        let sum = self.sums.entry(key).or_default();
        *sum = (sum.0 + 1, sum.1 + waited, sum.2 + queued);
        true
    }

    fn untold_since(&mut self, id: u32, left: u64, back: u64) -> u64 {
        match self.reported_until.get(&id) {
            Some((told, until)) if *told == left => {
                let until = *until;
                self.reported_until.remove(&id);
                until.min(back)
            }
            _ => left,
        }
    }

    fn keep_lost(&mut self, id: u32, interval: &mut Interval, woken: u64, back: u64) {
        let left = std::mem::take(&mut interval.left);
        let from = self.untold_since(id, left, back);
        let woken = woken.max(from);
        let is_vague = interval.flags & (FROM_START | SEVERAL) != 0;
        let key = (id, interval.flags & RUNNABLE != 0, Some(interval.state));
        if is_vague || !self.add_to_sums(key, woken - from, back - woken) {
            interval.unsent += back - from;
        }
    }

    fn end_interval(&mut self, id: u32, interval: &mut Interval, back: u64) {
        let left = interval.left;
        let woken = if interval.woken != 0 && interval.woken < back { interval.woken } else { back };
        interval.back = back;
        let is_short = back - left < LEAST && interval.flags & (FROM_START | SEVERAL) == 0;
        let key = (id, interval.flags & RUNNABLE != 0, None);
        if (!is_short || !self.add_to_sums(key, woken - left, back - woken)) && !self.send(interval.bytes(id))
        {
            self.keep_lost(id, interval, woken, back);
        }
        interval.left = 0;
    }

    fn account_for_run(&mut self, id: u32, interval: &mut Interval) {
        let (now, thread) = (self.now, self.threads[&id].clone());
        if interval.left == 0 {
            if thread.arrivals == interval.arrivals + 1 {
                self.behind = interval.back.wrapping_sub(thread.last_arrival);
            }
            interval.ran += now - interval.back;
            return;
        }
        let back = thread.unseen_return(interval, self.behind, now);
        interval.ran += now - back;
        if back != interval.left {
            self.end_interval(id, interval, back);
        }
    }

    /// The program sees the thread leave its CPU, or end.
    fn leave(&mut self, id: u32, is_runnable: bool, is_deep: bool, is_dead: bool) {
        let now = self.now;
        let thread = self.threads[&id].clone();
        if let Some(mut interval) = thread.interval {
            self.account_for_run(id, &mut interval);
            (interval.back, interval.woken, interval.left) = (now, 0, now);
            if is_dead {
                interval.flags = END;
                let is_sent = self.send(interval.bytes(id));
                self.reported_until.remove(&id);
                self.keep(id, (!is_sent).then_some(interval));
            } else {
                interval.flags = if is_runnable { RUNNABLE } else { 0 };
                interval.woken = if is_runnable { now } else { 0 };
                interval.state = INTERRUPTIBLE;
                interval.arrivals = thread.arrivals;
                interval.executed = thread.executed_until(now);
                if is_deep {
                    let is_sent = self.send(stack_bytes(RECORD_DEEP_STACK, id, now, 0));
                    interval.flags |= if is_sent { DEEP } else { STACK_LOST };
                }
                self.keep(id, Some(interval));
            }
        }
        let thread = self.threads.get_mut(&id).unwrap();
        thread.stop_running(now);
        thread.ended = is_dead.then_some(now);
    }

    fn keep(&mut self, id: u32, interval: Option<Interval>) {
        self.threads.get_mut(&id).unwrap().interval = interval;
    }

    /// The thread comes back; the program may not see it.
    fn come_back(&mut self, id: u32, is_seen: bool) {
        let now = self.now;
        let thread = self.threads[&id].clone();
        if let (true, Some(mut interval)) = (is_seen, thread.interval)
            && interval.left != 0
        {
            let mut back = now;
            if thread.arrivals != interval.arrivals {
                interval.flags |= SEVERAL;
                back = thread.return_by_execution(&interval, now);
            }
            self.end_interval(id, &mut interval, back);
            self.keep(id, Some(interval));
        }
        let thread = self.threads.get_mut(&id).unwrap();
        thread.arrivals += 1;
        (thread.last_arrival, thread.on_cpu_since, thread.is_running) = (now - BEHIND, now, true);
    }

    fn wake(&mut self, id: u32) {
        let now = self.now;
        if let Some(interval) = &mut self.threads.get_mut(&id).unwrap().interval
            && interval.left != 0
            && interval.woken == 0
        {
            interval.woken = now;
        }
    }

    /// A sample of a thread that runs.
    fn tick(&mut self, id: u32) {
        let (now, thread) = (self.now, self.threads[&id].clone());
        let Some(mut interval) = thread.interval else { return };
        let ran = match interval.left {
            0 => interval.ran + (now - interval.back),
            _ => interval.ran + (now - thread.unseen_return(&mut interval, self.behind, now)),
        };
        self.keep(id, Some(interval));
        self.send(stack_bytes(RECORD_STACK, id, now, ran));
    }

    /// Whether the thread has run since the watch began, which the program finds out when it leaves. Should it not see that,
    /// it takes the thread to have been away: the only case in which times do not add up.
    fn has_run_from_start(&self, id: u32) -> bool {
        let thread = &self.threads[&id];
        let is_unmoved =
            |interval: Interval| interval.flags & FROM_START != 0 && interval.arrivals == thread.arrivals;
        thread.is_running && thread.interval.is_some_and(is_unmoved)
    }
}

impl SwitchWatch for Machine {
    fn time(&self) -> Timestamp {
        Timestamp::from_nanos(self.now)
    }

    fn arrivals(&self, thread: Tid, _files: &ThreadFiles) -> Option<u64> {
        self.threads.get(&thread.as_u32()).map(|thread| thread.arrivals)
    }

    fn least(&self) -> Nanos {
        Nanos::from_nanos(LEAST)
    }

    fn now(&self, thread: Tid) -> Option<Box<OffCpuCopy>> {
        let id = thread.as_u32();
        Some(OffCpuCopy::of_head(&self.threads[&id].interval?.bytes(id)))
    }

    fn report_until(&mut self, thread: Tid, left: Timestamp, until: Timestamp) -> bool {
        let id = thread.as_u32();
        self.reported_until.insert(id, (left.as_nanos(), until.as_nanos()));
        let now = self.threads[&id].interval.map(|interval| interval.left);
        now == Some(left.as_nanos()) || self.reported_until.remove(&id).is_none()
    }

    fn sums(&self) -> Option<Vec<OffCpuSum>> {
        let of_entry = |(key, sum): (&SumKey, &(u64, u64, u64))| OffCpuSum {
            thread: Tid::new(key.0),
            cause: match key.1 {
                true => BlockReason::Preempted,
                false => BlockReason::Waited { call: None, argument: 0, file: None },
            },
            lost_in_state: key.2,
            intervals: sum.0,
            waited: Nanos::from_nanos(sum.1),
            queued: Nanos::from_nanos(sum.2),
        };
        Some(self.sums.iter().map(of_entry).collect())
    }

    fn forget(&mut self, thread: Tid) {
        self.keep(thread.as_u32(), None);
        self.reported_until.remove(&thread.as_u32());
    }

    fn forget_sums(&mut self, has_ended: &dyn Fn(Tid) -> bool) {
        self.sums.retain(|key, _| !has_ended(Tid::new(key.0)));
    }
}

/// Time of a thread on a CPU and off it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Times {
    on_cpu: u64,
    off_cpu: u64,
}

/// The reader of the ring, with the times that it has reported.
struct Reader {
    process: Process,
    tracker: OffCpuTracker<()>,
    reported: BTreeMap<u32, Times>,
    has_read: bool,
}

impl Reader {
    fn new() -> Self {
        let own = std::process::id();
        let mut tracker = OffCpuTracker::new(Instead { missing: (), unsent: (), summed: () });
        for id in 1..=THREADS {
            let files = ThreadFiles::open(Pid::new(own), Tid::new(own)).unwrap();
            let since = Timestamp::from_nanos(START);
            let mut account = Account::new(since, files);
            account.first_state = (id == 1).then_some(ThreadState::Waiting(WaitReason::Lock));
            account.known.keep(KnownStack { began: since, stack: (), holds_gil: false });
            tracker.threads.insert(Tid::new(id), account);
        }
        let process = Process::new(Pid::new(own));
        Reader { process, tracker, reported: BTreeMap::new(), has_read: false }
    }

    fn report(&mut self, tell: impl FnOnce(&mut OffCpuTracker<()>, Owner<'_>, &mut IntervalSink<'_, ()>)) {
        let reported = &mut self.reported;
        let mut keep = |part: OffCpuInterval<()>| {
            let times: &mut Times = reported.entry(part.thread.as_u32()).or_default();
            match part.state.is_running() {
                true => times.on_cpu += part.duration.as_nanos(),
                false => times.off_cpu += part.duration.as_nanos(),
            }
        };
        let owner = Owner { process: &self.process, gils: &[] };
        tell(&mut self.tracker, owner, &mut IntervalSink { stack: &mut |_| (), interval: &mut keep });
    }

    fn read(&mut self, machine: &mut Machine) {
        self.has_read = true;
        for bytes in std::mem::take(&mut machine.ring) {
            match Record::parse(&bytes) {
                Some(Record::OffCpu(record)) => {
                    self.report(|tracker, owner, sink| tracker.take(&record, owner, sink));
                }
                Some(Record::DeepStack(record)) => self.tracker.take_deep(&record, ()),
                Some(Record::Stack(record)) => {
                    let Some(time) = self.tracker.time_of_sample(&record) else { continue };
                    self.tracker.count_sample(record.thread(), time, record.time());
                    self.reported.entry(record.thread().as_u32()).or_default().on_cpu += time.as_nanos();
                }
                _ => panic!("the simulation sends no such record"),
            }
        }
    }

    /// Asks for what is not sent by itself. Between two of these the ring is read, as in a session.
    fn flush(&mut self, machine: &mut Machine, end: Option<Timestamp>) {
        if !std::mem::take(&mut self.has_read) {
            self.read(machine);
        }
        self.report(|tracker, owner, sink| tracker.flush(machine, end, owner, sink));
    }
}

/// What happens, after some time, to one of the threads or to all.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Leaves { is_runnable: bool, is_deep: bool },
    Ends,
    ComesBack { is_seen: bool },
    LeavesUnseen,
    IsWoken,
    IsSampled,
    RingIsRead,
    IsFlushed,
    RingHasRoom(usize),
    SumsHaveRoom(bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    let leaves = |(is_runnable, is_deep)| Happening::Leaves { is_runnable, is_deep };
    prop_oneof![
        8 => (any::<bool>(), prop::bool::weighted(0.3)).prop_map(leaves),
        8 => prop::bool::weighted(0.8).prop_map(|is_seen| Happening::ComesBack { is_seen }),
        1 => Just(Happening::Ends),
        2 => Just(Happening::LeavesUnseen),
        3 => Just(Happening::IsWoken),
        6 => Just(Happening::IsSampled),
        3 => Just(Happening::RingIsRead),
        3 => Just(Happening::IsFlushed),
        1 => prop_oneof![0..4_usize, Just(MUCH_ROOM)].prop_map(Happening::RingHasRoom),
        1 => any::<bool>().prop_map(Happening::SumsHaveRoom),
    ]
}

fn script() -> impl Strategy<Value = Vec<(u64, u32, Happening)>> {
    prop::collection::vec((0..250_u64, 1..=THREADS, happening()), 0..80)
}

fn happen(machine: &mut Machine, reader: &mut Reader, id: u32, happening: Happening) {
    let thread = &machine.threads[&id];
    let (runs, is_alive) = (thread.is_running, thread.ended.is_none());
    match happening {
        Happening::Leaves { is_runnable, is_deep } if runs => machine.leave(id, is_runnable, is_deep, false),
        Happening::Ends if runs => machine.leave(id, false, false, true),
        Happening::ComesBack { is_seen } if !runs && is_alive => machine.come_back(id, is_seen),
        Happening::LeavesUnseen if runs && !machine.has_run_from_start(id) => {
            let now = machine.now;
            machine.threads.get_mut(&id).unwrap().stop_running(now);
        }
        Happening::IsWoken if !runs && is_alive => machine.wake(id),
        Happening::IsSampled if runs => machine.tick(id),
        Happening::RingIsRead => reader.read(machine),
        Happening::IsFlushed => reader.flush(machine, None),
        Happening::RingHasRoom(room) => machine.room = room,
        Happening::SumsHaveRoom(has_room) => machine.has_room_for_sums = has_room,
        _ => {}
    }
}

/// Plays the script to the end of the watch; returns what was reported of each thread, and what is true.
fn play(script: &[(u64, u32, Happening)]) -> Vec<(Times, Times)> {
    let (mut machine, mut reader) = (Machine::new(), Reader::new());
    for (pause, id, happening) in script {
        machine.now += pause;
        happen(&mut machine, &mut reader, *id, *happening);
    }
    machine.now += 50;
    let end = machine.time();
    reader.tracker.note_arrivals(&machine);
    reader.read(&mut machine);
    reader.flush(&mut machine, Some(end));
    let lives = machine.threads.iter().map(|(id, thread)| {
        let lived = thread.ended.unwrap_or(end.as_nanos()) - START;
        let on_cpu = thread.executed_until(machine.now) - EXECUTED_BEFORE;
        let reported = reader.reported.get(id).copied().unwrap_or_default();
        (reported, Times { on_cpu, off_cpu: lived - on_cpu })
    });
    lives.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn reported_times_add_up_to_each_life(script in script()) {
        for (reported, lived) in play(&script) {
            prop_assert_eq!(reported.on_cpu + reported.off_cpu, lived.on_cpu + lived.off_cpu);
        }
    }

    #[test]
    fn times_are_exact_if_every_switch_is_seen(script in script()) {
        let seen: Vec<_> = script
            .into_iter()
            .filter(|(.., happening)| !matches!(happening, Happening::LeavesUnseen))
            .map(|(pause, id, happening)| match happening {
                Happening::ComesBack { .. } => (pause, id, Happening::ComesBack { is_seen: true }),
                other => (pause, id, other),
            })
            .collect();
        for (reported, lived) in play(&seen) {
            prop_assert_eq!(reported, lived);
        }
    }
}

#[test]
fn record_that_goes_missing_is_noticed() {
    let (mut machine, mut reader) = (Machine::new(), Reader::new());
    machine.now += 10;
    machine.leave(2, false, false, false);
    machine.now += 2 * LEAST;
    machine.come_back(2, true);
    machine.ring.clear();
    let end = machine.time();
    reader.tracker.note_arrivals(&machine);
    reader.read(&mut machine);
    reader.flush(&mut machine, Some(end));
    let expected = Times { on_cpu: 10, off_cpu: 0 };
    assert_eq!(reader.reported.get(&2), Some(&expected), "the program has counted on the record");
}
