//! What the in-kernel program has to know of one process: its layout, its threads with their thread states. Brought up to
//! date when the lists of thread states change, or a sample says that they have.

use std::collections::HashSet;

use profiler_account::ticks;
use profiler_bpf::{BpfError, NativeTicks, ThreadEntry};
use profiler_memory::ReadError;
use profiler_model::{LossReason, Nanos, Pid, Tid, Timestamp};
use profiler_profile::{Loss, Skip};
use rustc_hash::FxHashMap;

use super::program::{BpfProgram, entries};
use crate::event_writer::EventWriter;
use crate::runtimes::Runtimes;
use crate::sampled_process::SampledProcess;

/// Whether the lists of threads still start where they did is looked at so often: a thread that starts in
/// between and uses its CPU at once is noticed by its first sample.
const LOOK_GAP: Nanos = Nanos::from_nanos(20_000_000);

/// What the program knows of a process, and what it has met that it does not know.
#[derive(Debug, Default)]
pub struct Registration {
    /// The kernel threads with thread states.
    registered: FxHashMap<Tid, ThreadEntry>,
    /// Threads for which the program had no room.
    without_room: HashSet<Tid>,
    /// The CPU time up to which the process itself was registered, or its samples counted as lost, where there is no room for
    /// it.
    unregistered_since: Option<Nanos>,
    /// Threads that had no thread state when they were met, and are registered as such.
    natives: HashSet<Tid>,
    /// Samples of threads that are not registered, or have no thread state.
    unknown: FxHashMap<Tid, UnknownSamples>,
    /// Whether names are sent with every sample.
    always_sends_names: bool,
    /// Whether a sample said that the lists are out of date.
    is_outdated: bool,
    /// Whether the lists could not be read at the last look, although Python is there.
    are_lists_unreadable: bool,
    next_look: Timestamp,
}

/// Samples of a thread that have no stack.
#[derive(Clone, Copy, Debug, Default)]
struct UnknownSamples {
    count: u64,
    cpu: Nanos,
    last: Timestamp,
}

impl UnknownSamples {
    fn add(&mut self, count: u64, cpu: Nanos, at: Timestamp) {
        self.count += count;
        self.cpu += cpu;
        self.last = self.last.max(at);
    }
}

impl Registration {
    /// Has the program sample the process from now on.
    ///
    /// # Errors
    /// When none of its runtimes can be read.
    pub fn begin(
        &mut self,
        runtimes: &mut Runtimes,
        program: &mut BpfProgram,
        now: Timestamp,
    ) -> Result<(), ReadError> {
        self.add_runtimes(runtimes, program);
        self.is_outdated = false;
        let refreshed: Vec<_> = runtimes.all_mut().iter_mut().map(|process| refresh(process, now)).collect();
        self.take_threads(runtimes, program, &refreshed);
        refreshed.into_iter().reduce(Result::or).unwrap_or(Ok(()))
    }

    /// Has the program know the runtimes that there are now; their threads are looked at next.
    pub fn add_runtimes(&mut self, runtimes: &Runtimes, program: &mut BpfProgram) {
        self.is_outdated = true;
        if self.has_room() && self.register_process(runtimes, program).is_err() {
            self.unregistered_since = runtimes.first().target().process().cpu_time();
        }
    }

    /// Whether the program has room for the process.
    pub fn has_room(&self) -> bool {
        self.unregistered_since.is_none()
    }

    /// Whether the lists could not be read at the last look, although Python is there.
    pub fn are_lists_unreadable(&self) -> bool {
        self.are_lists_unreadable
    }

    /// Has the lists be read at the next look.
    pub fn distrust(&mut self) {
        self.is_outdated = true;
    }

    /// Has the program send names with every sample; returns whether it did not before.
    pub fn want_all_names(&mut self) -> bool {
        !std::mem::replace(&mut self.always_sends_names, true)
    }

    /// Has the program forget the process.
    pub fn end(&mut self, program: &mut BpfProgram, pid: Pid) {
        program.forget_process(pid);
        let registered = self.registered.drain().map(|(tid, _)| tid);
        registered.chain(self.natives.drain()).for_each(|tid| program.forget_thread(tid));
    }

    /// Whether a sample has said that the lists are out of date, or of a thread that is not known at all.
    fn needs_update(&self) -> bool {
        self.is_outdated || self.unknown.keys().any(|tid| !self.natives.contains(tid))
    }

    /// Whether it is time for [`Registration::look`].
    pub fn is_look_due(&self, now: Timestamp) -> bool {
        self.needs_update() || now >= self.next_look
    }

    /// Looks whether there are other threads, and counts what was lost of those that were not known. Returns for each runtime
    /// whether its lists could be read.
    pub fn look(
        &mut self,
        runtimes: &mut Runtimes,
        program: &mut BpfProgram,
        events: &mut EventWriter<'_>,
        now: Timestamp,
    ) -> Vec<Result<(), ReadError>> {
        self.next_look = now + LOOK_GAP;
        self.register_process_again(runtimes, program, events, now);
        let looked = self.look_at_lists(runtimes, program, now);
        let is_unreadable = |(process, looked): (&SampledProcess, &Result<(), ReadError>)| {
            let is_readable = matches!(looked, Ok(()) | Err(ReadError::ProcessEnded | ReadError::NoAnswer));
            !is_readable && process.target().has_live_runtime()
        };
        self.are_lists_unreadable = runtimes.all().iter().zip(&looked).any(is_unreadable);
        self.is_outdated |= self.are_lists_unreadable;
        self.count_unregistered(runtimes, events);
        looked
    }

    /// Brings thread tables and program up to date, if they are not.
    fn look_at_lists(
        &mut self,
        runtimes: &mut Runtimes,
        program: &mut BpfProgram,
        now: Timestamp,
    ) -> Vec<Result<(), ReadError>> {
        let needs_update = self.needs_update();
        let look = |process: &mut SampledProcess| {
            let (target, table) = (&process.probe.target, &mut process.probe.thread_table);
            Ok(table.look(target.memory(), target.runtime())? && !table.is_recheck_due(now))
        };
        let looked: Vec<Result<bool, ReadError>> = runtimes.all_mut().iter_mut().map(look).collect();
        if looked.iter().all(|looked| looked.is_err() || !needs_update && *looked == Ok(true)) {
            return looked.into_iter().map(|looked| looked.map(|_| ())).collect();
        }
        self.is_outdated = false;
        let refreshed = runtimes.all_mut().iter_mut().zip(looked);
        let refreshed = refreshed.map(|(process, looked)| looked.and_then(|_| refresh(process, now)));
        let refreshed: Vec<_> = refreshed.collect();
        self.take_threads(runtimes, program, &refreshed);
        refreshed
    }

    /// Has the program know the layouts of the process.
    ///
    /// # Errors
    /// When there is no room, or it cannot tell the threads of this process.
    pub fn register_process(&self, runtimes: &Runtimes, program: &mut BpfProgram) -> Result<(), BpfError> {
        for (number, process) in (0..).zip(runtimes.all()) {
            let target = process.target();
            let runtime = (target.pid(), number);
            program.register_runtime(runtime, target.offsets(), self.always_sends_names)?;
        }
        Ok(())
    }

    /// Has the program know the process, as soon as it has room; what it did until then is lost.
    fn register_process_again(
        &mut self,
        runtimes: &Runtimes,
        program: &mut BpfProgram,
        events: &mut EventWriter<'_>,
        at: Timestamp,
    ) {
        let Some(since) = self.unregistered_since else { return };
        let process = runtimes.first();
        let target = process.target();
        let now = target.process().cpu_time().unwrap_or(since);
        let missed = match program.period() {
            Nanos::ZERO => 0,
            period => ticks(now.saturating_sub(since), period),
        };
        self.unregistered_since = match self.register_process(runtimes, program) {
            Ok(()) => None,
            // Less than a tick is not lost yet.
            Err(_) if missed == 0 => Some(since),
            Err(_) => Some(now),
        };
        if self.unregistered_since != Some(since) {
            // For a process whose threads it cannot tell from others it never has room.
            let reason = match program.knows(*target.process()) {
                true => LossReason::BufferFull,
                false => LossReason::UnknownThread,
            };
            events.lose(reason, process.reporter.scope(), at, missed);
        }
    }

    /// Brings the program up to date with the thread tables, if any of them was `refreshed`.
    fn take_threads(
        &mut self,
        runtimes: &mut Runtimes,
        program: &mut BpfProgram,
        refreshed: &[Result<(), ReadError>],
    ) {
        if refreshed.iter().all(Result::is_err) {
            return;
        }
        let there = entries(runtimes.all());
        runtimes.all_mut().iter_mut().for_each(SampledProcess::meet_threads);
        self.without_room.clear();
        let gone = self.registered.keys().filter(|tid| !there.contains_key(tid));
        gone.for_each(|tid| program.forget_thread(*tid));
        for (tid, entry) in &there {
            // Without room it is registered at the next look; until then its samples are those of an unknown thread.
            if (self.natives.remove(tid) || self.registered.get(tid) != Some(entry))
                && program.register_thread(*tid, entry).is_err()
            {
                self.without_room.insert(*tid);
            }
        }
        for tid in self.unknown.keys().filter(|tid| !there.contains_key(tid)) {
            // The program need not report again that it met one.
            if self.natives.insert(*tid) {
                let _ = program.register_thread(*tid, &ThreadEntry::default());
            }
        }
        self.registered = there;
        self.registered.retain(|tid, _| !self.without_room.contains(tid));
    }

    /// Whether a sample is of a thread that the program does not know, or that runs no Python at the moment: `lost` is why it
    /// has no stack, `time` for how much CPU time it stands,
    /// `process` has the runtime that it names. It is counted when the lists have been read.
    pub fn is_unregistered(
        &mut self,
        process: &SampledProcess,
        (thread, at, time): (Tid, Timestamp, Nanos),
        lost: Option<&LossReason>,
    ) -> bool {
        self.is_outdated |= lost == Some(&LossReason::ThreadEnded);
        let is_unregistered = match lost {
            Some(LossReason::UnknownThread) => true,
            // It may be in a call of Python with another thread state than before, or in none: the lists say.
            Some(LossReason::ThreadEnded) => is_unlisted(process, thread),
            _ => false,
        };
        if is_unregistered {
            self.unknown.entry(thread).or_default().add(1, time, at);
        }
        is_unregistered
    }

    /// Takes ticks that met a thread which is registered without a thread state.
    pub fn take_native(&mut self, native: &NativeTicks) {
        self.unknown.entry(native.thread).or_default().add(native.ticks, native.weight, native.last);
    }

    /// Counts samples of threads that the program did not know: they are lost if the thread has a thread state, or there are
    /// some of which nobody knows the thread, or the lists cannot be read; otherwise it runs no Python.
    pub fn count_unregistered(&mut self, runtimes: &Runtimes, events: &mut EventWriter<'_>) {
        let scope = runtimes.first().reporter.scope();
        let are_placed = runtimes.all().iter().all(|process| process.probe.thread_table.unplaced.is_empty());
        for (tid, samples) in self.unknown.drain() {
            let has_state = self.registered.contains_key(&tid) || self.without_room.contains(&tid);
            let is_python = has_state && !is_between_calls(runtimes, tid) || !are_placed;
            let UnknownSamples { count, cpu, last: at } = samples;
            let lose = |reason| Loss { cpu, wall: cpu, ..Loss::of(reason, scope, at, count) };
            match is_python {
                true => events.lose_with(lose(LossReason::UnknownThread)),
                false if self.are_lists_unreadable => events.lose_with(lose(LossReason::ListsUnreadable)),
                false => {
                    let skip = Skip::of(scope, at, count);
                    events.skip_with(Skip { cpu, wall: cpu, ..skip });
                }
            }
        }
    }

    /// Has names be sent again that are missing.
    pub fn resend_missing(&mut self, runtimes: &mut Runtimes, program: &mut BpfProgram) {
        let pid = runtimes.first().target().pid();
        let resolvers = runtimes.all_mut().iter_mut().map(|process| &mut process.reporter.resolver);
        let missing: Vec<_> = resolvers.flat_map(|resolver| resolver.take_missing()).collect();
        if missing.is_empty() {
            return;
        }
        missing.into_iter().for_each(|code| program.ask_for_names(pid, code));
        // Registered anew, it does not take anything for sent. Without room for the process nothing is sampled.
        if self.has_room() {
            let _ = self.register_process(runtimes, program);
        }
    }
}

/// Reads the lists of the threads of a runtime.
fn refresh(process: &mut SampledProcess, now: Timestamp) -> Result<(), ReadError> {
    let (target, table) = (&process.probe.target, &mut process.probe.thread_table);
    table.refresh(target.process(), target.memory(), target.runtime(), now)
}

/// Whether a thread is between two calls of Python in each of the runtimes that it has called.
fn is_between_calls(runtimes: &Runtimes, thread: Tid) -> bool {
    let has_called = |process: &&SampledProcess| process.threads().iter().any(|known| known.tid == thread);
    let mut called = runtimes.all().iter().filter(has_called).peekable();
    called.peek().is_some() && called.all(|process| is_unlisted(process, thread))
}

/// Whether a thread is between two calls of Python, as far as is known.
fn is_unlisted(process: &SampledProcess, thread: Tid) -> bool {
    process.threads().iter().any(|known| known.tid == thread && !known.is_listed)
}
