//! The in-kernel program as the sampler uses it: loaded once for all processes of a session, told of each of them,
//! read from time to time. How what it sends becomes stacks with names is the business of `sent`.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use profiler_account::RandomPeriod;
use profiler_bpf::{
    BpfError, Counters, KeptRecords, KernelSampler, Layout, NO_OFFSET, NativeCounts, OffCpu, PidNamespace,
    Record, RingLoss, StateEntry, ThreadEntry,
};
use profiler_memory::{Field, Scalar};
use profiler_model::{InterpreterId, Nanos, Pid, RemoteAddr, Tid, Timestamp};
use profiler_os::priority::LargerShare;
use profiler_os::{Process, clock, host};
use profiler_python::{CodeCount, CodeHead, FrameLayout, Offsets};
use rustc_hash::FxHashMap;

use super::off_cpu_reason;
use super::period_changer::PeriodChanger;
use crate::kernel_frames::KernelFrames;
use crate::kernel_names::KernelNames;
use crate::runtimes::StateAge;
use crate::sampled_process::SampledProcess;
use crate::thread_table::{Thread, ThreadTable};

/// The CPUs that are online are looked at so often: one that comes back has no clock of ours until then. A look costs
/// some ten microseconds.
const CPU_LOOK_GAP: Nanos = Nanos::from_nanos(50_000_000);

/// Frames of one thread lie one after the other, the callers first (3.11+): with one of the usual size this gets some
/// 15 more. A reading of a whole page takes hardly longer, but drives more of the target's own memory from the caches.
const FRAMES_BEFORE: u32 = 2048;

/// The number of the interpreter that is there from the start to the end.
const MAIN_INTERPRETER: InterpreterId = InterpreterId::new(0);

/// The in-kernel program, loaded.
#[derive(Debug)]
pub struct BpfProgram {
    sampler: KernelSampler,
    /// Its programs that watch threads off the CPU, if these are asked for.
    pub(crate) off_cpu: Option<OffCpu>,
    /// What the kernel's functions are called, if what threads do in it is asked for.
    names: Option<KernelNames>,
    /// The mean period of its ticks; 0 where it does not tick.
    asked: Nanos,
    /// Changes the period all the time.
    changer: Option<PeriodChanger>,
    next_cpu_look: Timestamp,
    /// The end of the recording, once that is known. Later samples are ignored.
    end: Timestamp,
    /// What was counted in the ledger already.
    counted: Counters,
    /// What it has counted of that by thread.
    ring_losses: FxHashMap<(Pid, Tid), RingLoss>,
}

impl BpfProgram {
    /// Loads the program, which does nothing yet. With `names` it also takes what threads do in the kernel.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn load(names: Option<KernelNames>) -> Result<Self, BpfError> {
        let _share = share_for_loading();
        let sampler = KernelSampler::load(clock::cpus(), names.is_some(), pid_namespace()?)?;
        Ok(BpfProgram::of(sampler, None, names))
    }

    /// Loads it with the programs that watch threads off the CPU, which the scheduler runs from now on; off-CPU intervals
    /// shorter than `least` are summed.
    ///
    /// # Errors
    /// When the kernel does not take one of them.
    pub fn load_with_off_cpu(names: Option<KernelNames>, least: Nanos) -> Result<Self, BpfError> {
        let _share = share_for_loading();
        let calls = off_cpu_reason::descriptor_calls();
        let (sampler, off_cpu) =
            OffCpu::load(clock::cpus(), names.is_some(), least, calls, pid_namespace()?)?;
        Ok(BpfProgram::of(sampler, Some(off_cpu), names))
    }

    fn of(sampler: KernelSampler, off_cpu: Option<OffCpu>, names: Option<KernelNames>) -> Self {
        let next_cpu_look = Timestamp::default();
        let counted = Counters::default();
        let (asked, changer) = (Nanos::ZERO, None);
        let ring_losses = FxHashMap::default();
        let end = Timestamp::MAX;
        BpfProgram { sampler, off_cpu, names, asked, changer, next_cpu_look, end, counted, ring_losses }
    }

    /// Has it run on every CPU, after each `asked` on average, at random so that nothing is in step with it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start(&mut self, asked: Nanos) -> Result<(), BpfError> {
        self.asked = asked;
        self.next_cpu_look = clock::now() + CPU_LOOK_GAP;
        self.sampler.tick(asked)?;
        let events = self.sampler.clock_events();
        self.changer = Some(PeriodChanger::start(events, RandomPeriod::of(asked, clock::cpus() as usize)));
        Ok(())
    }

    /// Changes the mean period of its ticks.
    pub fn set_period(&mut self, asked: Nanos) {
        self.asked = asked;
        let events = self.sampler.clock_events();
        // The one before ends first: both would change the same clocks.
        self.changer = None;
        self.changer = Some(PeriodChanger::start(events, RandomPeriod::of(asked, clock::cpus() as usize)));
    }

    /// Has its clocks end at `deadline`: returns what stops them then, from any thread.
    pub fn end_at(&mut self, deadline: Timestamp) -> impl FnOnce() + Send + use<> {
        if self.off_cpu.is_none() {
            self.end = deadline;
            // Should it fail, ticks after the end count.
            let _ = self.sampler.end_native_ticks(deadline);
        }
        let events = self.sampler.clock_events();
        move || events.lock().unwrap_or_else(PoisonError::into_inner).end_all()
    }

    /// Lets it rest for good; returns since when it takes note of nothing. Its clocks take their time to stop, on a virtual
    /// machine milliseconds, and tick on meanwhile.
    pub fn stop(&mut self) -> Timestamp {
        if let Some(off_cpu) = &mut self.off_cpu {
            // Should it fail, what happens meanwhile is later than the end, and not believed.
            let _ = off_cpu.stop();
        }
        self.end = self.end.min(clock::now());
        let _ = self.sampler.end_native_ticks(self.end);
        self.sampler.stop_ticking();
        self.changer = None;
        self.end
    }

    /// Lets its clocks rest until it is told to follow the CPUs again.
    pub fn rest(&mut self) {
        self.sampler.stop_ticking();
        self.next_cpu_look = Timestamp::default();
    }

    /// The frames of the kernel of a process, none of which was met yet.
    pub fn frames<Id: Copy>(&self) -> KernelFrames<Id> {
        self.names.clone().map_or_else(KernelFrames::default, KernelFrames::new)
    }

    /// The mean period of its ticks; 0 where it does not tick.
    pub fn period(&self) -> Nanos {
        self.asked
    }

    /// Takes note of CPUs that have come or gone, and goes on after a rest.
    pub fn follow_cpus(&mut self, now: Timestamp) {
        if self.asked != Nanos::ZERO && now >= self.next_cpu_look {
            self.next_cpu_look = now + CPU_LOOK_GAP;
            // A CPU that goes this very moment is found gone the next time.
            let _ = self.sampler.tick(self.asked);
        }
    }

    /// Whether it can tell the threads of this process from others: without the kernel's types it cannot where the process
    /// is in a PID namespace within ours.
    pub fn knows(&self, process: Process) -> bool {
        self.sampler.sees_nested() || process.shares_namespace("pid") != Some(false)
    }

    /// Has the runtime of a process with this number be sampled; its threads are registered separately.
    ///
    /// # Errors
    /// When there are too many processes, or it cannot tell this one's threads ([`BpfProgram::knows`]).
    pub fn register_runtime(
        &mut self,
        (pid, runtime): (Pid, u8),
        offsets: &Offsets,
        always_send_names: bool,
    ) -> Result<(), BpfError> {
        if !self.knows(Process::new(pid)) {
            return Err(BpfError::Namespace(format!("process {pid} is in another one")));
        }
        self.sampler.set_layout(pid, runtime, &layout(offsets, always_send_names))
    }

    /// Has the threads of a process without Python counted, if there is room that no Python will need.
    pub fn register_without_python(&mut self, pid: Pid) {
        if self.knows(Process::new(pid)) && self.sampler.has_spare_places() {
            // Without room its threads are not counted.
            let _ = self.sampler.set_process(pid);
        }
    }

    /// Tells which thread states the kernel thread `tid` has.
    ///
    /// # Errors
    /// When there are too many threads.
    pub fn register_thread(&mut self, tid: Tid, entry: &ThreadEntry) -> Result<(), BpfError> {
        self.sampler.set_thread(tid, entry)
    }

    /// Forgets a thread.
    pub fn forget_thread(&mut self, tid: Tid) {
        self.sampler.forget_thread(tid);
    }

    /// Forgets a process.
    pub fn forget_process(&mut self, pid: Pid) {
        self.sampler.forget_process(pid);
    }

    /// Has the names of a code object sent again.
    pub fn ask_for_names(&mut self, pid: Pid, code: RemoteAddr) {
        self.sampler.ask_for_names(pid, code);
    }

    /// Hands on what was sent since the last time, in the order in which it was sent, but no sample from after the end.
    pub fn read(&mut self, take: &mut dyn FnMut(Record<'_>)) {
        let end = self.end;
        self.sampler.read(&mut |record| match record {
            Record::Stack(stack) if stack.time() > end => {}
            record => take(record),
        });
    }

    /// The same of what nobody asked for: what was lost of that does not count.
    pub fn skip(&mut self, take: &mut dyn FnMut(Record<'_>)) {
        self.sampler.read(take);
        // What cannot be read is counted later.
        let _ = self.take_ring_losses();
        let _ = self.take_native_ticks();
    }

    /// The ticks that met threads without Python since this was last asked.
    pub fn take_native_ticks(&mut self) -> NativeCounts {
        // What cannot be read is counted later.
        self.sampler.take_native_ticks().unwrap_or_default()
    }

    /// Keeps a copy of the records that are read from now on, of at most `most` bytes in all, in the returned place, to replay
    /// them in a test.
    pub fn keep_records(&mut self, most: usize) -> Arc<Mutex<KeptRecords>> {
        self.sampler.keep_records(most)
    }

    /// Can be read when much was sent.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.sampler.descriptor()
    }

    /// What the ring had no room for since this was last asked.
    pub fn take_ring_losses(&mut self) -> RingLosses {
        let Ok(now) = self.sampler.counters() else { return RingLosses::default() };
        let before = std::mem::replace(&mut self.counted, now);
        let mut new = RingLosses { unattributed: now.ring_full - before.ring_full, threads: Vec::new() };
        if new.unattributed == 0 {
            return new;
        }
        for loss in self.sampler.losses() {
            let counted = self.ring_losses.insert((loss.process, loss.thread), loss);
            let since = difference(loss, counted);
            // Of a thread that is counted at this very moment the sum may not know yet.
            let known = since.count.min(new.unattributed);
            new.unattributed -= known;
            new.threads.extend((known > 0).then_some(RingLoss { count: known, ..since }));
        }
        new
    }
}

/// What the ring had no room for.
#[derive(Debug, Default)]
pub struct RingLosses {
    /// By thread.
    pub threads: Vec<RingLoss>,
    /// Of threads that are not known any more.
    pub unattributed: u64,
}

/// What was lost since a thread's losses were `counted`. One that was forgotten meanwhile counts from 0 again.
fn difference(now: RingLoss, counted: Option<RingLoss>) -> RingLoss {
    match counted.filter(|counted| counted.count <= now.count) {
        Some(counted) => RingLoss {
            count: now.count - counted.count,
            weight: now.weight.saturating_sub(counted.weight),
            ..now
        },
        None => now,
    }
}

/// The kernel proves the program before it takes it: some 0.3 s of CPU. Beside a hundred busy threads on each CPU an ordinary
/// thread has these after more than ten seconds, in which nothing is sampled.
fn share_for_loading() -> Option<LargerShare> {
    LargerShare::take()
}

/// The PID namespace whose ids the program is to go by: ours.
fn pid_namespace() -> Result<Option<PidNamespace>, BpfError> {
    let own = host::pid_namespace().map_err(|error| BpfError::Namespace(error.to_string()))?;
    Ok(own.map(|file| PidNamespace { device: file.device, inode: file.inode }))
}

/// What the program has to know of each thread of a process that has these `runtimes`.
pub fn entries(runtimes: &[SampledProcess]) -> FxHashMap<Tid, ThreadEntry> {
    let mut threads: FxHashMap<Tid, Vec<StatesOfRuntime>> = FxHashMap::default();
    for (runtime, process) in runtimes.iter().enumerate() {
        let table = &process.probe.thread_table;
        for thread in table.threads() {
            let (age, entry) = (StateAge::of(thread, runtime), state_entry(table, thread, runtime));
            let of_thread = threads.entry(thread.tid).or_default();
            match of_thread.last_mut().filter(|last| last.runtime == runtime) {
                Some(last) => last.add(age, entry),
                None => of_thread.push(StatesOfRuntime { runtime, youngest: age, states: vec![entry] }),
            }
        }
    }
    threads.into_iter().map(|(tid, runtimes)| (tid, entry(runtimes))).collect()
}

/// The thread states of a kernel thread in one runtime, the youngest first.
struct StatesOfRuntime {
    runtime: usize,
    youngest: StateAge,
    states: Vec<StateEntry>,
}

impl StatesOfRuntime {
    fn add(&mut self, age: StateAge, state: StateEntry) {
        self.youngest = self.youngest.max(age);
        self.states.push(state);
    }
}

/// The entry of a thread with these thread states.
fn entry(mut runtimes: Vec<StatesOfRuntime>) -> ThreadEntry {
    runtimes.sort_by_key(|of_runtime| std::cmp::Reverse(of_runtime.youngest));
    ThreadEntry::new(runtimes.into_iter().flat_map(|of_runtime| of_runtime.states))
}

fn state_entry(thread_table: &ThreadTable, thread: &Thread, runtime: usize) -> StateEntry {
    let interpreter = thread_table.interpreters.get(thread.interpreter);
    let gil = interpreter.and_then(|interpreter| interpreter.gil);
    // Others come and go with their counts, in less time than the program goes by.
    let main = interpreter.filter(|interpreter| interpreter.id == MAIN_INTERPRETER);
    let address = |place: Option<RemoteAddr>| place.map_or(0, RemoteAddr::as_u64);
    StateEntry {
        state: thread.python.address.as_u64(),
        interpreter: thread.python.interpreter.as_u64(),
        thread_id: thread.python.pthread_id,
        gil_last_holder: address(gil.map(|gil| gil.last_holder)),
        gil_locked: address(gil.map(|gil| gil.locked)),
        code_count: address(main.and_then(|main| main.code_count)),
        first_state: address(interpreter.map(|interpreter| interpreter.threads_head)),
        runtime: runtime as u64,
    }
}

/// What the program has to know of a CPython.
fn layout(offsets: &Offsets, always_send_names: bool) -> Layout {
    let Offsets { thread, frame, code, .. } = offsets;
    let head = CodeHead::range(offsets);
    Layout {
        thread_size: thread.size,
        thread_interpreter: thread.interpreter.offset(),
        thread_id: thread.thread_id.offset(),
        thread_frame: thread.frame.offset(),
        cframe_current_frame: optional(thread.cframe_current_frame),
        thread_base_frame: optional(thread.base_frame),
        frame_size: frame.size,
        frame_previous: frame.previous.offset(),
        frame_code: frame.code.offset(),
        frame_instruction: frame.instruction,
        frame_owner: optional(frame.owner),
        frame_is_entry: optional(frame.is_entry),
        frame_bytecode_copy: optional(frame.bytecode_copy),
        shim_owners: frame.shim_owners.iter().fold(0, |owners, owner| owners | 1 << (owner & 31)),
        head_start: head.start,
        head_length: head.end - head.start,
        code_name: code.name.offset(),
        code_qualname: optional(code.qualname),
        code_filename: code.filename.offset(),
        code_line_table: code.line_table.offset(),
        bytes_length: offsets.bytes.length.offset(),
        always_send_names: always_send_names.into(),
        code_mask: !((1u64 << frame.code_tag_bits) - 1),
        frames_before: match frame.layout {
            FrameLayout::Interpreter => FRAMES_BEFORE,
            FrameLayout::Objects => 0,
        },
        code_count_size: offsets.interpreter.code_count.map_or(0, CodeCount::size),
        epoch_index: 0,
        thread_next: thread.next.offset(),
    }
}

fn optional<T: Scalar>(field: Option<Field<T>>) -> u32 {
    field.map_or(NO_OFFSET, Field::offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_counted_from_the_last_look() {
        let loss = |count, weight| RingLoss {
            process: Pid::new(1),
            thread: Tid::new(2),
            count,
            weight: Nanos::from_nanos(weight),
        };
        assert_eq!(difference(loss(5, 50), None), loss(5, 50));
        assert_eq!(difference(loss(7, 90), Some(loss(5, 50))), loss(2, 40));
        assert_eq!(difference(loss(2, 20), Some(loss(5, 50))), loss(2, 20), "it was forgotten meanwhile");
    }
}
