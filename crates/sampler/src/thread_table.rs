//! The threads of a target: each thread state with its kernel thread, and what was last seen of it.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use profiler_account::OffCpuClock;
use profiler_memory::{PageCopy, ReadError, ReadMemory, ReadRequest};
use profiler_model::{Nanos, NsTid, Pid, RemoteAddr, SchedStat, ThreadState, Tid, Timestamp};
use profiler_os::{Activity, ContextSwitchLog, Process, Switch, SwitchKind, ThreadClock, ThreadFiles};
use profiler_profile::{StackId, ThreadId};
use profiler_python::{
    Callers, GilAddresses, Interpreter, Offsets, RawStack, Runtime, STACK_PAGE_BYTES, interpreters,
    native_ids, thread_states,
};

use crate::gil::{self, GilSpan, GilState};
use crate::lazy_event::LazyEvent;
use crate::rota::{COST_OF_ASKING, COST_OF_WATCHING, LOOKS_BEFORE_REST, LookResult, Rota};
use crate::sleep_watch::SleepWatch;

/// How often a list that changes while it is read is read again.
const MAX_ATTEMPTS: usize = 3;

/// A thread that has waited for a CPU for longer than this since its last sample shares it with others.
const NEGLIGIBLE_QUEUE: Nanos = Nanos::from_nanos(100_000);

/// A thread that is met for the first time and has waited for more than this part of the time that it had a CPU
/// probably shares it still. To find out costs: the first perf event on a thread keeps the kernel busy for ten
/// milliseconds.
const SHARE_OF_WAITING: u64 = 8;

/// How often in a row a thread's CPU time is derived from its exact clock.
const MAX_COUNTED_BY_CLOCK: u32 = 16;

/// A timer for an instant was seen to take the CPU from a thread as much as 10 µs before it, by the time of the
/// kernel's record: whoever lost it no earlier than this before the instant lost it to the profiler.
const EARLY_WAKING: Nanos = Nanos::from_nanos(20_000);

/// How soon a list is read again in which a thread state has no kernel thread of its own yet. CPython puts the
/// state of a new thread into the list before the thread runs: it has the id of the thread that made it (up to
/// 3.11) or none, and gets its own without the list changing. So does the only thread of a forked child, which at
/// first has the id of the one in the parent.
const FIRST_RECHECK: Nanos = Nanos::from_nanos(1_000_000);

/// The gap doubles up to this: some states never have a thread of their own (those of sub-interpreters), and
/// looking for it must cost next to nothing.
const LONGEST_RECHECK: Nanos = Nanos::from_nanos(1_000_000_000);

/// A Python thread.
#[derive(Debug)]
pub struct Thread {
    /// Its thread state.
    pub python: profiler_python::PyThreadState,
    /// The interpreter, as an index into [`ThreadTable::interpreters`].
    pub interpreter: usize,
    /// Its kernel thread.
    pub tid: Tid,
    /// Whether the list of its interpreter had its thread state when that was read. A thread of C code that calls Python
    /// now and then (`PyGILState_Ensure`) has a new thread state in each call, mostly at the same address: between
    /// calls it stays, so that its clocks are read on and the next call is met.
    pub is_listed: bool,
    /// Its files in `/proc`.
    pub files: ThreadFiles,
    /// What the scheduler had counted at the last look.
    pub schedule: SchedStat,
    /// What it was doing at the last look.
    pub activity: Activity,
    /// Whether it slept at the last look and had run since the one before.
    pub has_fallen_asleep: bool,
    /// Whether it ran at the last look, or has run since the one before.
    has_run: bool,
    /// At how many looks in a row it was asleep and had not run.
    looks_asleep: u16,
    /// The instant at which it was looked at last, by its number.
    looked_at: u64,
    /// The instant for which its state was recorded last, by its number.
    pub resolved_at: u64,
    /// The instants at which it was not looked at and that are not recorded yet.
    pub unseen: UnseenInstants,
    /// Its id in the profile, once it has one.
    pub id: Option<ThreadId>,
    /// The stack that was proved last: still true while the thread sleeps and has not run since.
    pub known: Option<SleeperStack>,
    /// Whether it had to wait for a CPU when it was sampled last.
    waits_for_cpu: Cell<bool>,
    /// Its exact clock, once it had to wait for a CPU; `None` where there is none.
    clock: LazyEvent<ThreadClock>,
    /// What its exact clock said when the scheduler's counters were read last.
    counted_by_clock: Option<CountedByClock>,
    /// When it had a CPU, from the first time on that it had to wait for one; `None` where that is not told.
    turns: LazyEvent<ContextSwitchLog>,
    /// Tells whether it sleeps on, once it has slept for a while.
    watch: SleepWatch,
    /// CPU time up to its last sample.
    pub counted_cpu: Nanos,
    /// The instant up to which its wall time has been counted.
    pub counted_until: Timestamp,
    /// Its time off the CPU that is in no sample yet, where the in-kernel program samples what runs.
    pub waits: OffCpuClock,
}

/// Instants at which a thread was not looked at, by what its counters said of them later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnseenInstants {
    /// It slept, as it had not run since the look before.
    pub asleep: u64,
    /// It ran at some time: what it did at each of them is not known.
    pub unknown: u64,
}

/// What two clocks of a thread said at one instant.
#[derive(Clone, Copy, Debug)]
struct CountedByClock {
    /// Its exact clock.
    clock: Nanos,
    /// The scheduler's.
    cpu: Nanos,
    /// How often the scheduler's was derived from that since.
    times: u32,
}

/// A stack and how long it stays true.
#[derive(Clone, Copy, Debug)]
pub struct SleeperStack {
    /// The stack in the profile.
    pub stack: Option<StackId>,
    /// How often the thread had run when the stack was read.
    pub timeslices: u64,
}

impl Thread {
    /// Looks at what the thread is doing.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn look(&mut self) -> std::io::Result<()> {
        let (was_running, timeslices) = (self.is_running(), self.schedule.timeslices);
        self.look_now()?;
        let has_run = was_running || self.schedule.timeslices != timeslices;
        self.has_fallen_asleep = !self.is_running() && has_run;
        self.has_run = self.is_running() || has_run;
        self.looks_asleep = if self.has_run { 0 } else { self.looks_asleep.saturating_add(1) };
        Ok(())
    }

    /// Looks at it for the instant of this number.
    fn look_at(&mut self, instant: u64) -> std::io::Result<LookResult> {
        let skipped = self.instants_since_look(instant).saturating_sub(1);
        let cost = if self.watch.sleeps_on() { COST_OF_WATCHING } else { COST_OF_ASKING };
        self.looked_at = instant;
        self.look().inspect_err(|_| self.unseen.unknown += skipped)?;
        match self.has_run {
            true => self.unseen.unknown += skipped,
            false => self.unseen.asleep += skipped,
        }
        Ok(LookResult { rests: self.rests(), cost })
    }

    /// How many instants there were after the last look, up to the one of this number.
    pub fn instants_since_look(&self, instant: u64) -> u64 {
        instant.saturating_sub(self.looked_at)
    }

    /// Whether it has slept for long enough to be looked at now and then.
    fn rests(&self) -> bool {
        self.looks_asleep >= LOOKS_BEFORE_REST
    }

    fn look_now(&mut self) -> std::io::Result<()> {
        if self.watch.sleeps_on() {
            return Ok(());
        }
        let mark = self.watch.mark();
        if self.is_preempted() {
            self.activity = Activity::Running;
            return Ok(());
        }
        if self.is_running() && self.files.activity()? == Activity::Running {
            // Its counters are read when it is sampled.
            return Ok(());
        }
        // The counters come before the activity: a thread that is then seen asleep has not run as long as
        // they stay.
        let schedule = self.files.schedule()?;
        let sleeps_on = !self.is_running() && schedule.timeslices == self.schedule.timeslices;
        // Where CPUs are short, it may be woken and still have none.
        if !sleeps_on || self.sees_queue() {
            self.activity = self.files.activity()?;
        }
        self.schedule = schedule;
        match self.activity {
            Activity::Running => self.watch.saw_awake(),
            Activity::Blocked { .. } | Activity::Stopped => self.watch.saw_asleep(mark, self.tid),
        }
        Ok(())
    }

    /// Notes that the thread has to wait for a CPU, so that it is worth to know when it does.
    pub fn shares_its_cpu(&self) {
        self.waits_for_cpu.set(true);
    }

    /// Takes what the scheduler has counted by now.
    fn count(&mut self, schedule: SchedStat) {
        // The wait for a CPU is counted when it is over.
        let waits_on = schedule.timeslices == self.schedule.timeslices && schedule.cpu == self.schedule.cpu;
        if !waits_on {
            let waited = schedule.queued.saturating_sub(self.schedule.queued);
            self.waits_for_cpu.set(waited > NEGLIGIBLE_QUEUE);
        }
        self.schedule = schedule;
    }

    /// Takes what the scheduler has counted for a thread that ran at the last look: a look does not ask for that.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn count_if_running(&mut self) -> std::io::Result<()> {
        if self.is_running() {
            let schedule = self.files.schedule()?;
            self.count(schedule);
        }
        Ok(())
    }

    /// Has the kernel write down from now on when the thread gets a CPU and when it loses it.
    pub fn watch_turns(&self) {
        self.turns.or_open(|| ContextSwitchLog::open(self.tid));
    }

    /// Has it not be written down any more: each time costs the thread a little.
    pub fn unwatch_turns(&mut self) {
        (self.turns, self.clock) = Default::default();
        self.counted_by_clock = None;
    }

    /// How often it got a CPU or lost it, since that is watched.
    pub fn switches(&self) -> u64 {
        self.turns.now().map_or(0, ContextSwitchLog::switches)
    }

    /// The last time that it got a CPU or lost it, as far as that is watched.
    pub fn last_switch(&self) -> Option<Switch> {
        self.turns.now()?.last()
    }

    /// Whether it is seen when it waits for a CPU: it has shared one before.
    fn sees_queue(&self) -> bool {
        self.turns.now().is_some()
    }

    /// Notes that it was looked at, at `now`.
    pub fn note_look(&mut self, now: Timestamp) {
        let sees_queue = self.sees_queue();
        self.waits.look(now, &self.schedule, sees_queue);
    }

    /// Whether it has lost its CPU and waits to go on, as far as that is watched.
    fn is_preempted(&self) -> bool {
        self.last_switch().is_some_and(|switch| switch.kind == SwitchKind::Preempted)
    }

    /// What its exact clock says, if the thread waits for a CPU: as long as the clock says the same, it has not
    /// run.
    pub fn clock_while_queued(&self) -> Option<Nanos> {
        match self.last_switch().map(|switch| switch.kind) {
            Some(SwitchKind::In) => return None,
            // It lost its CPU, or was woken and has none yet.
            Some(SwitchKind::Preempted | SwitchKind::Out) => return self.clock_now(),
            None => {}
        }
        if !self.waits_for_cpu.get() {
            // To read the clock of a thread that runs interrupts it.
            return None;
        }
        let now = self.clock_now()?;
        (self.clock_now() == Some(now)).then_some(now)
    }

    /// What its exact clock says, where it has one.
    pub fn clock_now(&self) -> Option<Nanos> {
        self.clock.or_open(|| ThreadClock::open(self.tid))?.read().ok()
    }

    /// Takes the CPU time that it has used by now. Exact if it has just been taken off its CPU: by a stop, or by this
    /// process. In the second case its `clock`, which was read for the proof, tells it as well as the scheduler's
    /// counters, which take the kernel longer; these are asked again and again, so that nothing adds up.
    pub fn count_cpu(&mut self, clock: Option<Nanos>) {
        if let (Some(now), Some(counted)) = (clock, &mut self.counted_by_clock)
            && counted.times < MAX_COUNTED_BY_CLOCK
        {
            counted.times += 1;
            self.schedule.cpu = counted.cpu + now.saturating_sub(counted.clock);
            return;
        }
        if let Ok(schedule) = self.files.schedule() {
            self.count(schedule);
            self.counted_by_clock = clock.map(|clock| CountedByClock { clock, cpu: schedule.cpu, times: 0 });
        }
    }

    /// Whether it was on a CPU at the instant `at`, as far as is known. One that never had to wait for a CPU was,
    /// if it runs.
    pub fn was_on_cpu(&self, at: Timestamp) -> bool {
        if !self.waits_for_cpu.get() && !self.turns.was_tried() {
            return true;
        }
        let turns = self.turns.or_open(|| ContextSwitchLog::open(self.tid));
        let before_waking = Timestamp::from_nanos(at.as_nanos().saturating_sub(EARLY_WAKING.as_nanos()));
        turns.and_then(|turns| turns.was_on_cpu(before_waking)).unwrap_or(true)
    }

    /// Has its first sample stand for all that it did since it was born at `born`.
    pub fn count_from_birth(&mut self, born: Timestamp) {
        (self.counted_cpu, self.counted_until) = (Nanos::ZERO, born);
    }

    /// Whether the thread has not run since the last look, at which it was asleep.
    pub fn slept_since_look(&self) -> bool {
        self.watch.sleeps_on()
            || !self.is_running()
                && self.files.schedule().is_ok_and(|now| now.timeslices == self.schedule.timeslices)
    }

    /// Whether it ran at the last look and does not now.
    pub fn has_fallen_asleep_since_look(&self) -> bool {
        self.is_running() && self.files.activity().is_ok_and(|now| now != Activity::Running)
    }

    /// Whether it was on a CPU, or ready for one, at the last look.
    pub fn is_running(&self) -> bool {
        self.activity == Activity::Running
    }

    /// The stack that is known already, if it must still be the same.
    pub fn unchanged_stack(&self) -> Option<SleeperStack> {
        self.known.filter(|known| !self.is_running() && known.timeslices == self.schedule.timeslices)
    }

    /// Its state at the last look; a futex inside the GIL's structure is the GIL's.
    pub fn state(&self, gil: Option<&GilAddresses>) -> ThreadState {
        match (self.activity.futex(), gil) {
            (Some(futex), Some(gil)) if (gil.start..gil.end).contains(&futex) => ThreadState::WaitingForGil,
            _ => self.activity.thread_state(),
        }
    }
}

/// The threads of a process.
#[derive(Debug, Default)]
pub struct ThreadTable {
    /// All Python threads.
    pub threads: Vec<Thread>,
    /// Thread states that run Python and whose kernel thread could not be found.
    pub unplaced: Vec<profiler_python::PyThreadState>,
    /// When each thread is looked at.
    rota: Rota,
    /// Instants at which threads were not looked at that have ended since.
    unseen_of_ended: u64,
    /// All interpreters.
    pub interpreters: Vec<Interpreter>,
    /// Their GILs, each once, with the states at the last look.
    gils: Vec<(GilAddresses, GilState)>,
    /// Thread states that held a GIL last when the lists were read, and of which nothing else is known.
    strangers: Vec<RemoteAddr>,
    /// Where each thread state stands in `threads`.
    by_address: HashMap<RemoteAddr, usize>,
    /// The heads of the lists when they were read: the interpreters', then each interpreter's threads'.
    heads: Vec<RemoteAddr>,
    /// Whether some kernel thread has several thread states: it runs in a sub-interpreter now and then.
    pub has_nested: bool,
    /// When the lists are read again although they start where they did, and the gap that this came after.
    recheck: Option<(Timestamp, Nanos)>,
}

impl ThreadTable {
    /// The index of the thread with the thread state at `address`.
    pub fn find(&self, address: RemoteAddr) -> Option<usize> {
        self.by_address.get(&address).copied()
    }

    /// Forgets threads that have ended, by index in ascending order.
    pub fn remove(&mut self, ended: &[usize]) {
        let before = self.unseen_instants();
        for index in ended.iter().rev() {
            self.threads.swap_remove(*index);
        }
        self.index_threads();
        self.unseen_of_ended += before.saturating_sub(self.unseen_instants());
    }

    /// How many instants there were at which some thread was not looked at and that are not recorded yet, of all threads.
    fn unseen_instants(&self) -> u64 {
        let now = self.rota.instant();
        let of_thread =
            |thread: &Thread| thread.unseen.asleep + thread.unseen.unknown + thread.instants_since_look(now);
        self.threads.iter().map(of_thread).sum()
    }

    /// The same of threads that have ended since this was last asked.
    pub fn take_unseen_of_ended(&mut self) -> u64 {
        std::mem::take(&mut self.unseen_of_ended)
    }

    /// When each thread is looked at.
    pub fn rota(&self) -> &Rota {
        &self.rota
    }

    /// Begins an instant: looks at the threads that are awake, and at those that rest where these are few. Returns which of
    /// them have ended, in ascending order.
    pub fn look_at_active(&mut self) -> Vec<usize> {
        self.rota.begin();
        let (threads, rota) = (&mut self.threads, &mut self.rota);
        let (instant, mut ended) = (rota.instant(), Vec::new());
        let mut look = |index: usize| look_at(threads, index, instant, &mut ended);
        rota.look_at_active(&mut look);
        if !rota.has_many_resting() {
            rota.look_at_resting(u32::MAX, &mut look);
        }
        ended.sort_unstable();
        ended
    }

    /// Begins the second round of an instant: looks at threads that rest, in turn, for so much of `COST_OF_ASKING`. Returns
    /// which of them have ended, in ascending order.
    pub fn look_at_resting(&mut self, most: u32) -> Vec<usize> {
        self.rota.begin_round();
        let (threads, rota) = (&mut self.threads, &mut self.rota);
        let (instant, mut ended) = (rota.instant(), Vec::new());
        rota.look_at_resting(most, &mut |index| look_at(threads, index, instant, &mut ended));
        ended.sort_unstable();
        ended
    }

    /// Looks at the threads that held a GIL last, as far as that was not done at this instant: whatever rests, a thread that
    /// takes the GIL is noticed. Returns which of them have ended.
    pub fn look_at_holders(&mut self) -> Vec<usize> {
        let mut ended = Vec::new();
        for index in
            self.last_holders().into_iter().filter_map(|holder| self.find(holder)).collect::<Vec<_>>()
        {
            let (threads, rota) = (&mut self.threads, &mut self.rota);
            let instant = rota.instant();
            if threads[index].looked_at != instant && threads[index].rests() {
                rota.look_out_of_turn(index, &mut |index| look_at(threads, index, instant, &mut ended));
            }
        }
        ended.sort_unstable();
        ended
    }

    /// The threads that were looked at in this round, in ascending order.
    pub fn looked(&mut self) -> Vec<usize> {
        self.rota.looked().to_vec()
    }

    /// Forgets where the lists started, so that they are read anew at the next look.
    pub fn distrust(&mut self) {
        self.heads.clear();
    }

    /// Whether it is time to look again for the kernel threads of thread states that had none of their own.
    pub fn is_recheck_due(&self, now: Timestamp) -> bool {
        self.recheck.is_some_and(|(due, _)| now >= due)
    }

    /// Plans the next look for kernel threads, should any be missing.
    fn plan_recheck(&mut self, complete: bool, same_lists: bool, now: Timestamp) {
        let gap = match self.recheck {
            Some((_, gap)) if same_lists => (gap + gap).min(LONGEST_RECHECK),
            _ => FIRST_RECHECK,
        };
        self.recheck = (!complete).then(|| (now + gap, gap));
    }

    /// The thread states that are left alone for the moment because their kernel thread runs in another
    /// interpreter: of those that share a thread, all but the one among `holders` of a GIL, or, where none
    /// holds one, all but the youngest.
    pub fn suspended(&self, holders: &[RemoteAddr]) -> Vec<usize> {
        let is_active = |index: usize| holders.contains(&self.threads[index].python.address);
        let mut by_thread: HashMap<Tid, Vec<usize>> = HashMap::new();
        for (index, thread) in self.threads.iter().enumerate() {
            by_thread.entry(thread.tid).or_default().push(index);
        }
        let mut suspended = Vec::new();
        for states in by_thread.into_values().filter(|states| states.len() > 1) {
            let active = states.iter().copied().find(|index| is_active(*index)).or(states.first().copied());
            suspended.extend(states.into_iter().filter(|index| Some(*index) != active));
        }
        suspended
    }

    /// Looks at the GILs, and whether the lists still start where they started when they were read: new threads
    /// come in front. Both in one read. A GIL that was held by a thread which is not known means that they changed
    /// meanwhile.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn look(&mut self, memory: &impl ReadMemory, runtime: &Runtime) -> Result<bool, ReadError> {
        if self.heads.is_empty() {
            return Ok(false);
        }
        let same_heads = self.read_heads(memory, runtime)? == self.heads;
        let is_known = |holder: &RemoteAddr| {
            holder.is_null() || self.by_address.contains_key(holder) || self.strangers.contains(holder)
        };
        Ok(same_heads && self.last_holders().iter().all(is_known))
    }

    /// The state of `gil` at the last look.
    pub fn gil_state(&self, gil: &GilAddresses) -> Option<GilState> {
        self.gils.iter().find(|(addresses, _)| addresses == gil).map(|(_, state)| *state)
    }

    /// The heads of the lists; reads the states of the GILs as well.
    fn read_heads(
        &mut self,
        memory: &impl ReadMemory,
        runtime: &Runtime,
    ) -> Result<Vec<RemoteAddr>, ReadError> {
        let places: Vec<RemoteAddr> = std::iter::once(runtime.interpreters_head)
            .chain(self.interpreters.iter().map(|interpreter| interpreter.threads_head))
            .collect();
        let mut heads = vec![[0u8; 8]; places.len()];
        let mut requests: Vec<_> = places
            .iter()
            .zip(&mut heads)
            .map(|(at, into)| ReadRequest::new(*at, into.as_mut_slice()))
            .collect();
        let mut spans: Vec<_> = self.gils.iter().map(|(gil, _)| GilSpan::of(gil)).collect();
        requests.extend(spans.iter_mut().flatten().map(GilSpan::request));
        let filled = memory.read_batch(&mut requests)?;
        if let Some(unread) = requests.get(filled) {
            return Err(ReadError::Unmapped(unread.at));
        }
        for ((gil, state), span) in self.gils.iter_mut().zip(&spans) {
            *state = match span {
                Some(span) => span.state(gil),
                None => gil::read(memory, gil)?,
            };
        }
        Ok(heads.into_iter().map(|bytes| RemoteAddr::new(u64::from_le_bytes(bytes))).collect())
    }

    /// Reads the lists anew. Threads that were known stay as they are; new ones count from `now`.
    ///
    /// # Errors
    /// When the runtime cannot be read.
    pub fn refresh(
        &mut self,
        process: &Process,
        memory: &impl ReadMemory,
        runtime: &Runtime,
        now: Timestamp,
    ) -> Result<(), ReadError> {
        let heads_before = self.heads.clone();
        let unseen_before = self.unseen_instants();
        let found = self.read_lists_again(memory, runtime)?;
        let states = found.len();
        let found = without_unstarted(found, memory, &runtime.offsets);
        let ids = ThreadIds::of(process, memory, &found, &self.last_holders());
        self.take_lists(process.pid(), &ids, found, now);
        self.unplaced.retain(|python| runs_python(memory, &runtime.offsets, python));
        let listed = self.threads.len();
        self.add_last_holders(process, memory, runtime, now);
        let all_listed = self.threads.iter().all(|thread| thread.is_listed);
        self.index_threads();
        self.unseen_of_ended += unseen_before.saturating_sub(self.unseen_instants());
        let complete = listed == states && all_listed && !self.has_nested;
        self.plan_recheck(complete, self.heads == heads_before, now);
        Ok(())
    }

    /// Makes of the thread states `found` the threads. What was known of them stays, and threads that have no thread
    /// state for the moment stay as well.
    fn take_lists(
        &mut self,
        pid: Pid,
        ids: &ThreadIds,
        found: Vec<(usize, profiler_python::PyThreadState)>,
        now: Timestamp,
    ) {
        let mut known = KnownThreads::of(self.threads.drain(..));
        self.unplaced.clear();
        let mut placed = Vec::new();
        for (interpreter, python) in found {
            match ids.kernel_thread(&python) {
                Place::Thread(tid) => {
                    let same = known.take_same(&python, tid);
                    placed.push((interpreter, python, tid, same));
                }
                Place::Gone => {}
                Place::Unknown => self.unplaced.push(python),
            }
        }
        let listed = placed.iter().filter(|(.., same)| same.is_some()).map(|(_, _, tid, _)| *tid).collect();
        known.forget_threads(&listed);
        for (interpreter, python, tid, same) in placed {
            let thread = match same {
                Some(thread) => Some(Thread { interpreter, is_listed: true, ..thread }),
                None => match known.take_of(tid) {
                    Some(thread) => {
                        Some(Thread { python, interpreter, is_listed: true, known: None, ..thread })
                    }
                    None => self.new_thread(pid, tid, python, interpreter, now),
                },
            };
            self.threads.extend(thread);
        }
        for thread in known.rest().filter(|thread| ids.has(thread.tid)) {
            if let Some(interpreter) = self.interpreter_at(thread.python.interpreter) {
                self.threads.push(Thread { interpreter, is_listed: false, ..thread });
            }
        }
    }

    fn interpreter_at(&self, address: RemoteAddr) -> Option<usize> {
        self.interpreters.iter().position(|one| one.address == address)
    }

    /// Adds threads whose thread states are in no list but held a GIL last: threads of C code between two calls of Python
    /// that are too short to be met often. The memory was freed and may be anything by now, but what is read there
    /// later is checked each time.
    fn add_last_holders(
        &mut self,
        process: &Process,
        memory: &impl ReadMemory,
        runtime: &Runtime,
        now: Timestamp,
    ) {
        let known: HashSet<RemoteAddr> = self.threads.iter().map(|thread| thread.python.address).collect();
        self.strangers = self.last_holders();
        self.strangers.retain(|holder| !holder.is_null() && !known.contains(holder));
        let read = self.strangers.iter().filter_map(|at| thread_state_at(memory, &runtime.offsets, *at));
        let found: Vec<_> =
            read.filter_map(|state| Some((self.interpreter_at(state.interpreter)?, state))).collect();
        if found.is_empty() {
            return;
        }
        let ids = ThreadIds::of(process, memory, &found, &[]);
        for (interpreter, python) in found {
            let Some(tid) = ids.told(&python) else { continue };
            if self.threads.iter().all(|thread| thread.tid != tid) {
                let thread = self.new_thread(process.pid(), tid, python, interpreter, now);
                self.threads.extend(thread.map(|thread| Thread { is_listed: false, ..thread }));
            }
        }
    }

    /// The same as [`Self::read_lists`], of which another try is made where the lists change. If none succeeds, all that is
    /// known stays as it was, and the lists are read anew at the next look.
    fn read_lists_again(
        &mut self,
        memory: &impl ReadMemory,
        runtime: &Runtime,
    ) -> Result<Vec<(usize, profiler_python::PyThreadState)>, ReadError> {
        let (interpreters, gils) = (self.interpreters.clone(), self.gils.clone());
        let mut attempt = 1;
        loop {
            match self.read_lists(memory, runtime) {
                Ok(found) => return Ok(found),
                Err(ReadError::Unmapped(_) | ReadError::BrokenList(_)) if attempt < MAX_ATTEMPTS => {
                    attempt += 1;
                }
                Err(error) => {
                    (self.interpreters, self.gils) = (interpreters, gils);
                    self.distrust();
                    return Err(error);
                }
            }
        }
    }

    /// All thread states, each with the index of its interpreter.
    fn read_lists(
        &mut self,
        memory: &impl ReadMemory,
        runtime: &Runtime,
    ) -> Result<Vec<(usize, profiler_python::PyThreadState)>, ReadError> {
        let interpreters = interpreters(memory, runtime)?;
        let mut found = Vec::new();
        // The heads are noted first: what comes in front of a list while it is read makes it out of date.
        self.interpreters.clone_from(&interpreters);
        let gils: HashSet<GilAddresses> = interpreters.iter().filter_map(|one| one.gil).collect();
        self.gils = gils.into_iter().map(|gil| (gil, GilState::default())).collect();
        self.heads = self.read_heads(memory, runtime)?;
        for (index, interpreter) in interpreters.iter().enumerate() {
            let states = thread_states(memory, &runtime.offsets, interpreter)?;
            found.extend(states.into_iter().map(|state| (index, state)));
        }
        Ok(found)
    }

    /// The thread states that hold the GILs, or held them last, at the last look.
    fn last_holders(&self) -> Vec<RemoteAddr> {
        self.gils.iter().map(|(_, state)| state.last_holder).collect()
    }

    fn index_threads(&mut self) {
        self.by_address = self.threads.iter().enumerate().map(|(i, t)| (t.python.address, i)).collect();
        let distinct: HashSet<Tid> = self.threads.iter().map(|thread| thread.tid).collect();
        self.has_nested = distinct.len() < self.threads.len();
        let instant = self.rota.instant();
        let in_rota = |thread: &Thread| {
            let is_unresolved = thread.looked_at == instant && thread.resolved_at != instant;
            (thread.rests().then_some(thread.looked_at), is_unresolved)
        };
        self.rota.renumber(self.threads.iter().map(in_rota));
    }

    /// A thread that is met at the current instant.
    fn new_thread(
        &self,
        pid: Pid,
        tid: Tid,
        python: profiler_python::PyThreadState,
        interpreter: usize,
        now: Timestamp,
    ) -> Option<Thread> {
        let looked_at = self.rota.instant();
        let thread = new_thread(pid, tid, python, interpreter, now)?;
        Some(Thread { looked_at, ..thread })
    }
}

/// Looks at a thread for the instant of this number; notes whether it has ended.
fn look_at(threads: &mut [Thread], index: usize, instant: u64, ended: &mut Vec<usize>) -> LookResult {
    threads[index].look_at(instant).unwrap_or_else(|_| {
        ended.push(index);
        LookResult { rests: false, cost: COST_OF_ASKING }
    })
}

/// The thread states without those of threads that have not started yet: up to 3.11 these have the ids of the thread that
/// created them, whose stack would be looked for in the wrong thread state. A list has the youngest first.
fn without_unstarted(
    mut found: Vec<(usize, profiler_python::PyThreadState)>,
    memory: &impl ReadMemory,
    offsets: &Offsets,
) -> Vec<(usize, profiler_python::PyThreadState)> {
    let mut owners = HashSet::new();
    found.reverse();
    found.retain(|(interpreter, state)| {
        owners.insert((*interpreter, state.pthread_id)) || state.has_frame(memory, offsets) == Ok(true)
    });
    found.reverse();
    found
}

fn new_thread(
    pid: Pid,
    tid: Tid,
    python: profiler_python::PyThreadState,
    interpreter: usize,
    now: Timestamp,
) -> Option<Thread> {
    let files = ThreadFiles::open(pid, tid).ok()?;
    // In this order, as in `Thread::look`; the first sample already shows who waits.
    let schedule = files.schedule().ok()?;
    let activity = files.activity().ok()?;
    Some(Thread {
        python,
        interpreter,
        tid,
        is_listed: true,
        files,
        schedule,
        activity,
        has_fallen_asleep: false,
        has_run: activity == Activity::Running,
        looks_asleep: if activity == Activity::Running { 0 } else { LOOKS_BEFORE_REST },
        looked_at: 0,
        resolved_at: 0,
        unseen: UnseenInstants::default(),
        id: None,
        known: None,
        waits_for_cpu: Cell::new(has_waited_much(&schedule)),
        clock: LazyEvent::default(),
        counted_by_clock: None,
        turns: LazyEvent::default(),
        watch: SleepWatch::default(),
        counted_cpu: schedule.cpu,
        counted_until: now,
        waits: OffCpuClock::from(now, &schedule),
    })
}

/// Whether a thread had to wait for CPUs for a good part of its life.
fn has_waited_much(schedule: &SchedStat) -> bool {
    schedule.queued > NEGLIGIBLE_QUEUE
        && schedule.queued.as_nanos() > schedule.cpu.as_nanos() / SHARE_OF_WAITING
}

/// The thread state at an address, whatever is there by now.
fn thread_state_at(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    at: RemoteAddr,
) -> Option<profiler_python::PyThreadState> {
    let mut copy = vec![0; offsets.thread.size as usize];
    memory.read(at, &mut copy).ok()?;
    profiler_python::PyThreadState::from_copy(at, &copy, offsets)
}

/// Whether there are frames on the stack of a thread state, as far as that can be seen while it runs.
fn runs_python(memory: &impl ReadMemory, offsets: &Offsets, python: &profiler_python::PyThreadState) -> bool {
    let mut copy = vec![0; offsets.thread.size as usize];
    let mut stack = RawStack::with_room_for(1);
    memory.read(python.address, &mut copy).is_ok()
        && profiler_python::PyThreadState::from_copy(python.address, &copy, offsets).as_ref() == Some(python)
        && stack
            .walk(
                memory,
                &mut PageCopy::with_page_bytes(STACK_PAGE_BYTES),
                &Callers::default(),
                offsets,
                &copy,
            )
            .is_ok()
        && !stack.frames.is_empty()
}

/// The threads that a thread table had before its lists were read anew.
struct KnownThreads(HashMap<RemoteAddr, Thread>);

impl KnownThreads {
    fn of(threads: impl Iterator<Item = Thread>) -> Self {
        KnownThreads(threads.map(|thread| (thread.python.address, thread)).collect())
    }

    /// The thread that has this thread state and runs on this kernel thread.
    fn take_same(&mut self, python: &profiler_python::PyThreadState, tid: Tid) -> Option<Thread> {
        self.0.remove(&python.address).filter(|thread| thread.python == *python && thread.tid == tid)
    }

    /// A thread on this kernel thread whose thread state is gone: it got another one.
    fn take_of(&mut self, tid: Tid) -> Option<Thread> {
        let address = self.0.values().find(|thread| thread.tid == tid)?.python.address;
        self.0.remove(&address)
    }

    /// Forgets all on these kernel threads: what is gone is a second thread state of them.
    fn forget_threads(&mut self, tids: &HashSet<Tid>) {
        self.0.retain(|_, thread| !tids.contains(&thread.tid));
    }

    /// Those that are left, one for each kernel thread.
    fn rest(self) -> impl Iterator<Item = Thread> {
        let by_tid: HashMap<Tid, Thread> = self.0.into_values().map(|thread| (thread.tid, thread)).collect();
        by_tid.into_values()
    }
}

/// What is known of the kernel thread of a thread state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It is this one.
    Thread(Tid),
    /// It is no thread of the process: it has ended, or was not forked with the others.
    Gone,
    /// Nothing says which one it is.
    Unknown,
}

/// Which kernel thread each thread state has.
struct ThreadIds {
    /// The target's own thread ids, each with the id here.
    here: HashMap<NsTid, Tid>,
    /// By `pthread_self()`, for versions that do not keep the id, and where the one that is kept is that of no thread: it
    /// is the parent's in a child that C code has forked, without CPython's handlers.
    by_pthread: HashMap<u64, NsTid>,
    /// The thread state that runs on the only kernel thread of the process, where nothing else says so.
    on_only_thread: Option<(RemoteAddr, Tid)>,
    /// Whether each kernel thread has a thread state.
    are_all_taken: bool,
}

impl ThreadIds {
    fn of(
        process: &Process,
        memory: &impl ReadMemory,
        found: &[(usize, profiler_python::PyThreadState)],
        last_holders: &[RemoteAddr],
    ) -> Self {
        let same = process.shares_pid_namespace();
        let here: HashMap<NsTid, Tid> = process
            .threads()
            .unwrap_or_default()
            .into_iter()
            .filter_map(|tid| {
                let inner = if same { Ok(NsTid::new(tid.as_u32())) } else { process.inner_thread_id(tid) };
                Some((inner.ok()?, tid))
            })
            .collect();
        ThreadIds::among(here, memory, found, last_holders)
    }

    /// With the process's threads `here`.
    fn among(
        here: HashMap<NsTid, Tid>,
        memory: &impl ReadMemory,
        found: &[(usize, profiler_python::PyThreadState)],
        last_holders: &[RemoteAddr],
    ) -> Self {
        let mut ids =
            ThreadIds { here, by_pthread: HashMap::new(), on_only_thread: None, are_all_taken: false };
        let kept =
            |state: &profiler_python::PyThreadState| state.native_id.filter(|id| ids.here.contains_key(id));
        let states = || found.iter().map(|(_, state)| state);
        let unknown: Vec<u64> =
            states().filter(|state| kept(state).is_none()).map(|state| state.pthread_id).collect();
        let taken: HashSet<NsTid> = states().filter_map(kept).collect();
        let free: HashSet<NsTid> = ids.here.keys().copied().filter(|id| !taken.contains(id)).collect();
        if !unknown.is_empty() && !free.is_empty() {
            let told = native_ids(memory, &unknown, &free);
            ids.by_pthread =
                unknown.iter().zip(told).filter_map(|(pthread, id)| Some((*pthread, id?))).collect();
        }
        ids.on_only_thread = ids.state_of_only_thread(found, last_holders);
        let taken: HashSet<Tid> = states().filter_map(|state| ids.told(state)).collect();
        ids.are_all_taken = taken.len() == ids.here.len();
        ids
    }

    /// Where the process has one kernel thread and no thread state is known to be its: the one that held the GIL last, or
    /// the only one. So it is in a child of the system call itself, of which the C library knows nothing.
    fn state_of_only_thread(
        &self,
        found: &[(usize, profiler_python::PyThreadState)],
        last_holders: &[RemoteAddr],
    ) -> Option<(RemoteAddr, Tid)> {
        let mut tids = self.here.values();
        let (Some(only), None) = (tids.next(), tids.next()) else { return None };
        if found.iter().any(|(_, state)| self.told(state).is_some()) {
            return None;
        }
        let is_holder = |state: &profiler_python::PyThreadState| last_holders.contains(&state.address);
        let mut states = found.iter().map(|(_, state)| state);
        let state = match found.len() {
            1 => states.next(),
            _ => states.find(|state| is_holder(state)),
        };
        state.map(|state| (state.address, *only))
    }

    /// The thread whose id the thread state or the C library tells, if the process has it.
    fn told(&self, python: &profiler_python::PyThreadState) -> Option<Tid> {
        let kept = python.native_id.and_then(|id| self.here.get(&id));
        let by_pthread = || self.here.get(self.by_pthread.get(&python.pthread_id)?);
        kept.or_else(by_pthread).copied()
    }

    fn kernel_thread(&self, python: &profiler_python::PyThreadState) -> Place {
        if let Some(tid) = self.told(python) {
            return Place::Thread(tid);
        }
        match self.on_only_thread {
            Some((address, tid)) if address == python.address => Place::Thread(tid),
            Some(_) => Place::Gone,
            // Then there is no kernel thread left that it could be.
            None if self.are_all_taken => Place::Gone,
            None => Place::Unknown,
        }
    }

    /// Whether the process has this kernel thread.
    fn has(&self, tid: Tid) -> bool {
        self.here.values().any(|here| *here == tid)
    }
}

#[cfg(test)]
mod tests {
    use profiler_memory::Snapshot;
    use profiler_model::InterpreterId;
    use profiler_python::{Version, offsets_for};

    use super::*;

    const INTERPRETER: RemoteAddr = RemoteAddr::new(0x1000);
    /// Where the C library's descriptors have the kernel's id.
    const ID_AT: usize = 720;

    fn state(address: u64, pthread_id: u64, native_id: Option<u32>) -> profiler_python::PyThreadState {
        profiler_python::PyThreadState {
            address: RemoteAddr::new(address),
            interpreter: INTERPRETER,
            pthread_id,
            native_id: native_id.map(NsTid::new),
        }
    }

    /// Memory with a descriptor for each `pthread_self()`, which says that it is that thread.
    fn descriptors(threads: &[(u64, u32)]) -> Snapshot {
        let mut memory = Snapshot::new();
        for (pthread, tid) in threads {
            let mut descriptor = vec![0u8; 1024];
            descriptor[ID_AT..ID_AT + 4].copy_from_slice(&tid.to_le_bytes());
            memory.insert(RemoteAddr::new(*pthread), &descriptor);
        }
        memory
    }

    fn places(
        alive: &[u32],
        memory: &Snapshot,
        states: &[profiler_python::PyThreadState],
        last_holder: u64,
    ) -> Vec<Place> {
        let here = alive.iter().map(|id| (NsTid::new(*id), Tid::new(*id))).collect();
        let found: Vec<_> = states.iter().map(|state| (0, *state)).collect();
        let ids = ThreadIds::among(here, memory, &found, &[RemoteAddr::new(last_holder)]);
        states.iter().map(|state| ids.kernel_thread(state)).collect()
    }

    #[test]
    fn thread_id_of_the_parent_gives_way_to_the_c_librarys() {
        let memory = descriptors(&[(0x10_000, 200), (0x20_000, 0)]);
        let states = [state(1, 0x20_000, Some(101)), state(2, 0x10_000, Some(100))];
        let thread = Place::Thread(Tid::new(200));
        assert_eq!(places(&[200], &memory, &states, 0), [Place::Gone, thread], "forked by C code");
        let states = [state(2, 0x10_000, Some(200))];
        assert_eq!(places(&[200], &memory, &states, 0), [thread], "known to CPython");
    }

    #[test]
    fn only_kernel_thread_runs_the_last_holder_of_the_gil() {
        let memory = descriptors(&[(0x10_000, 100), (0x20_000, 101)]);
        let states = [state(1, 0x20_000, Some(101)), state(2, 0x10_000, Some(100))];
        let thread = Place::Thread(Tid::new(200));
        assert_eq!(places(&[200], &memory, &states, 2), [Place::Gone, thread]);
        assert_eq!(places(&[200], &memory, &states[1..], 7), [thread], "there is no other one");
        assert_eq!(places(&[200, 201], &memory, &states, 2), [Place::Unknown, Place::Unknown]);
    }

    #[test]
    fn thread_between_two_calls_stays_and_is_met_again() {
        let pid = Pid::new(std::process::id());
        let tid = own_tid();
        let at = Timestamp::from_nanos;
        let mut thread_table = ThreadTable::default();
        thread_table.interpreters.push(Interpreter {
            address: INTERPRETER,
            id: InterpreterId::new(0),
            gil: None,
            gc_collecting: None,
            code_count: None,
            threads_head: RemoteAddr::new(0),
        });
        let here = || HashMap::from([(NsTid::new(tid.as_u32()), tid)]);
        let take = |thread_table: &mut ThreadTable, states: &[profiler_python::PyThreadState], now: u64| {
            let found: Vec<_> = states.iter().map(|state| (0, *state)).collect();
            let ids = ThreadIds::among(here(), &Snapshot::new(), &found, &[]);
            thread_table.take_lists(pid, &ids, found, at(now));
        };
        let known = |thread_table: &ThreadTable| {
            let threads = thread_table.threads.iter();
            threads
                .map(|one| (one.is_listed, one.python.address.as_u64(), one.counted_until))
                .collect::<Vec<_>>()
        };
        take(&mut thread_table, &[state(1, 0x10_000, Some(tid.as_u32()))], 5);
        assert_eq!(known(&thread_table), [(true, 1, at(5))]);
        take(&mut thread_table, &[], 6);
        assert_eq!(known(&thread_table), [(false, 1, at(5))], "between two calls");
        take(&mut thread_table, &[state(2, 0x10_000, Some(tid.as_u32()))], 7);
        assert_eq!(known(&thread_table), [(true, 2, at(5))], "its time is counted on");
        let ids = ThreadIds::among(HashMap::new(), &Snapshot::new(), &[], &[]);
        thread_table.take_lists(pid, &ids, Vec::new(), at(8));
        assert_eq!(known(&thread_table), [], "its kernel thread has ended");
    }

    /// The kernel thread that runs this.
    fn own_tid() -> Tid {
        let link = std::fs::read_link("/proc/thread-self").unwrap();
        Tid::new(link.file_name().unwrap().to_str().unwrap().parse().unwrap())
    }

    const CFRAME: u64 = 0x5000;

    /// A thread state with the ids of thread 7, as it was when the list was read.
    fn state_at(address: u64) -> (usize, profiler_python::PyThreadState) {
        let python = profiler_python::PyThreadState {
            address: RemoteAddr::new(address),
            interpreter: RemoteAddr::new(0x100),
            pthread_id: 7,
            native_id: None,
        };
        (0, python)
    }

    /// Puts a thread state into memory, with a frame or without one.
    fn put_state(memory: &mut Snapshot, offsets: &Offsets, address: u64, pthread_id: u64, frame: u64) {
        let mut bytes = vec![0u8; offsets.thread.size as usize];
        let mut put = |at: u32, value: u64| {
            bytes[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
        };
        put(offsets.thread.interpreter.offset(), 0x100);
        put(offsets.thread.thread_id.offset(), pthread_id);
        let cframe = offsets.thread.cframe_current_frame.map(|current| (current.offset(), CFRAME + address));
        put(offsets.thread.frame.offset(), cframe.map_or(frame, |(_, cframe)| cframe));
        memory.insert(RemoteAddr::new(address), &bytes);
        if let Some((current_frame, cframe)) = cframe {
            let mut bytes = vec![0u8; current_frame as usize];
            bytes.extend(frame.to_le_bytes());
            memory.insert(RemoteAddr::new(cframe), &bytes);
        }
    }

    #[test]
    fn unstarted_thread_does_not_hide_its_creator() {
        for minor in [8, 11] {
            let mut offsets = offsets_for(Version { major: 3, minor, micro: 0, release: 0xF0 }).unwrap();
            // Up to 3.10 there is no such field; where there is one, it is compared as well.
            offsets.thread.native_thread_id = None;
            let mut memory = Snapshot::new();
            put_state(&mut memory, &offsets, 0x1000, 7, 0x9000);
            let kept = |memory: &Snapshot| {
                let found = vec![state_at(0x2000), state_at(0x1000)];
                let kept = without_unstarted(found, memory, &offsets);
                kept.iter().map(|(_, state)| state.address.as_u64()).collect::<Vec<_>>()
            };
            put_state(&mut memory, &offsets, 0x2000, 7, 0);
            assert_eq!(kept(&memory), [0x1000], "3.{minor}: not started");
            let mut memory = Snapshot::new();
            put_state(&mut memory, &offsets, 0x1000, 7, 0x9000);
            put_state(&mut memory, &offsets, 0x2000, 8, 0x9500);
            assert_eq!(kept(&memory), [0x1000], "3.{minor}: started since the list was read");
            let mut memory = Snapshot::new();
            put_state(&mut memory, &offsets, 0x1000, 7, 0x9000);
            put_state(&mut memory, &offsets, 0x2000, 7, 0x9500);
            assert_eq!(kept(&memory), [0x2000, 0x1000], "3.{minor}: one thread runs in both");
        }
    }

    #[test]
    fn missing_kernel_threads_are_looked_for_ever_more_rarely() {
        let at = Timestamp::from_nanos;
        let mut thread_table = ThreadTable::default();
        thread_table.plan_recheck(true, false, at(0));
        assert!(!thread_table.is_recheck_due(at(u64::MAX)));
        thread_table.plan_recheck(false, false, at(0));
        assert!(!thread_table.is_recheck_due(at(999_999)) && thread_table.is_recheck_due(at(1_000_000)));
        for _ in 0..20 {
            thread_table.plan_recheck(false, true, at(0));
        }
        assert!(
            !thread_table.is_recheck_due(at(999_999_999)) && thread_table.is_recheck_due(at(1_000_000_000))
        );
        thread_table.plan_recheck(false, false, at(0));
        assert!(thread_table.is_recheck_due(at(1_000_000)), "other lists, another thread to wait for");
    }
}
