//! Reads the in-kernel program from time to time, and keeps the program up to date about the processes that it samples.

use profiler_bpf::RingLoss;
use profiler_model::{LossReason, Nanos, Timestamp};
use profiler_os::{clock, readiness};
use profiler_profile::{Loss, Scope};
use profiler_target::Tree;

use super::due_instants::DueInstants;
use super::host::ProcessHost;
use super::linux_host::LinuxHost;
use super::process_set::ProcessSet;
use super::records::{skip_records, take_native_ticks, take_records};
use crate::bpf::{BpfProgram, RingLosses};
use crate::event_writer::EventWriter;

type Processes = ProcessSet<LinuxHost>;

/// Births anywhere on the machine wake the caller. This bounds how often.
const SHORTEST_WAIT_OF_TREES: Nanos = Nanos::from_nanos(1_000_000);
/// If births are not reported, they are looked for this often.
const LONGEST_WAIT_OF_TREES: Nanos = Nanos::from_nanos(10_000_000);

/// Reads the in-kernel program for the processes of an engine.
#[derive(Debug)]
pub struct KernelReader {
    /// The last tick up to which processes without Python were counted.
    last_tick: Timestamp,
}

impl KernelReader {
    /// For a program that has sent nothing before `now`.
    pub fn new(now: Timestamp) -> Self {
        KernelReader { last_tick: now }
    }

    /// Waits until the program has sent much, a process was born somewhere, one that is there may have got its Python, or
    /// `instant` has come: the program samples a process as soon as it knows it, and short-lived ones wait for nobody.
    pub fn wait_until(processes: &Processes, instant: Timestamp) {
        let instant = instant.min(processes.next_attempt());
        let LinuxHost { tree, program, .. } = processes.host();
        let births = tree.as_ref().and_then(Tree::descriptor);
        let latest = match (tree, births) {
            (None, _) => instant,
            (Some(_), Some(_)) => {
                clock::sleep_until(instant.min(clock::now() + SHORTEST_WAIT_OF_TREES));
                instant
            }
            (Some(_), None) => instant.min(clock::now() + LONGEST_WAIT_OF_TREES),
        };
        let sent = program.as_ref().map(BpfProgram::descriptor);
        let descriptors: Vec<_> = sent.into_iter().chain(births).collect();
        readiness::wait_until(&descriptors, latest);
    }

    /// Records what the program has sent, and brings up to date what it knows.
    pub fn read(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>, now: Timestamp) {
        self.take_records(processes, events);
        let due = DueInstants::ticks(self.last_tick, now, period(processes));
        self.last_tick = if due.count > 0 { due.last } else { self.last_tick };
        processes.look(events, due, now);
        if let (LinuxHost { program: Some(program), .. }, _) = processes.parts() {
            program.follow_cpus(now);
        }
    }

    /// Reads it until each process that is there has been looked at, or a reading ends after `latest`.
    pub fn read_until_all_are_met(
        &mut self,
        processes: &mut Processes,
        events: &mut EventWriter<'_>,
        latest: Timestamp,
    ) {
        self.read(processes, events, clock::now());
        while clock::now() < latest && processes.next_attempt() <= clock::now() {
            self.read(processes, events, clock::now());
        }
    }

    /// Reports all that is known up to now: what was sent, and how long what goes on has lasted.
    pub fn cut(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>, now: Timestamp) {
        self.read(processes, events, now);
        processes.resolve_pending(events);
        self.flush_off_cpu(processes, events, None);
    }

    /// Lets the program rest until it is read again, and records what it has sent up to now. A program that reports how long
    /// threads wait goes on: it has to know all of their time.
    pub fn rest(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>) {
        let (host, _) = processes.parts();
        if let Some(program) = host.program.as_mut().filter(|program| program.off_cpu.is_none()) {
            program.rest();
            self.take_records(processes, events);
        }
    }

    /// Forgets what the program has sent of a time for which nobody asked. Waits are reported exactly, whenever they were.
    pub fn skip(&mut self, processes: &mut Processes, now: Timestamp) {
        let (host, table) = processes.parts();
        let Some(program) = host.program.as_mut().filter(|program| program.off_cpu.is_none()) else { return };
        skip_records(program, table);
        self.last_tick = now;
        processes.count_from(now);
    }

    /// Ends what the program does, and records what is left of it; returns when it ended.
    pub fn end(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>) -> Timestamp {
        let (host, table) = processes.parts();
        let Some(program) = &mut host.program else { return clock::now() };
        table.pythons().for_each(|sampler| sampler.prepare_end_of_intervals(program));
        let end = program.stop();
        self.read(processes, events, clock::now());
        self.flush_off_cpu(processes, events, Some(end));
        end
    }

    /// Since when threads are watched as they leave their CPUs, if they are.
    pub fn watched_since(processes: &mut Processes) -> Option<Timestamp> {
        processes.pythons().filter_map(|sampler| sampler.watched_since()).min()
    }

    /// Records what threads off the CPU do, at the instant that was due at `due`.
    pub fn look_off_cpu(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>, due: Timestamp) {
        processes.pythons().for_each(|sampler| sampler.look_off_cpu(events, due));
    }

    /// Reports what the ring had no room for. The time of its samples is lost with them, unless each sample stands for all
    /// that its thread ran since the one before.
    pub fn report_ring_losses(
        &mut self,
        processes: &mut Processes,
        events: &mut EventWriter<'_>,
        now: Timestamp,
    ) {
        let (host, table) = processes.parts();
        let Some(program) = &mut host.program else { return };
        let has_exact_times = program.off_cpu.is_some();
        let RingLosses { threads, unattributed } = program.take_ring_losses();
        events.lose(LossReason::BufferFull, Scope::Session, now, unattributed);
        for RingLoss { process, thread, count, weight } in threads {
            let of_thread = table.python_of(process).map(|sampler| sampler.scope_of_thread(thread));
            let scope = of_thread.unwrap_or_else(|| table.scope_of(process));
            let cpu = if has_exact_times { Nanos::ZERO } else { weight };
            events.lose_with(Loss { cpu, ..Loss::of(LossReason::BufferFull, scope, now, count) });
        }
    }

    fn take_records(&mut self, processes: &mut Processes, events: &mut EventWriter<'_>) {
        let (host, table) = processes.parts();
        if let Some(program) = &mut host.program {
            take_records(program, table, (host.latest_look, &host.left), events);
            take_native_ticks(program, table, events, clock::now());
        }
    }

    fn flush_off_cpu(
        &mut self,
        processes: &mut Processes,
        events: &mut EventWriter<'_>,
        end: Option<Timestamp>,
    ) {
        let (host, table) = processes.parts();
        if let Some(program) = &mut host.program {
            table.pythons().for_each(|sampler| sampler.flush_all_off_cpu(program, events, end));
        }
    }
}

/// The mean period of the program's ticks; 0 if it does not tick.
fn period(processes: &Processes) -> Nanos {
    processes.host().tick_period().unwrap_or_default()
}
