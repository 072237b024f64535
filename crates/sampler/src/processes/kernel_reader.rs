//! Reads the in-kernel program from time to time, and keeps the program up to date about the processes that it samples.

use profiler_bpf::RingLoss;
use profiler_model::{LossReason, Nanos, Timestamp};
use profiler_os::{clock, readiness};
use profiler_profile::{Loss, Scope};
use profiler_target::Tree;

use super::due_instants::DueInstants;
use super::host::{ProcessHost, SamplersByPid};
use super::linux_host::LinuxHost;
use super::process_set::ProcessSet;
use super::records::{skip_records, take_native_ticks, take_records};
use crate::bpf::{BpfProgram, RingLosses};
use crate::event_writer::EventWriter;

/// Births anywhere on the machine wake the caller. This bounds how often.
const SHORTEST_WAIT_OF_TREES: Nanos = Nanos::from_nanos(1_000_000);
/// If births are not reported, they are looked for this often.
const LONGEST_WAIT_OF_TREES: Nanos = Nanos::from_nanos(10_000_000);

/// Reads the in-kernel program for the processes of a session.
#[derive(Debug)]
pub struct KernelReader<'a> {
    /// The processes.
    pub processes: &'a mut ProcessSet<LinuxHost>,
    /// The last tick up to which processes without Python were counted.
    last_tick: Timestamp,
}

impl<'a> KernelReader<'a> {
    /// For processes whose program has sent nothing before `now`.
    pub fn new(processes: &'a mut ProcessSet<LinuxHost>, now: Timestamp) -> Self {
        KernelReader { processes, last_tick: now }
    }

    /// The mean period of the program's ticks; 0 if it does not tick.
    pub fn period(&self) -> Nanos {
        self.processes.host().tick_period().unwrap_or_default()
    }

    /// Waits until the program has sent much, a process was born somewhere, one that is there may have got its Python, or
    /// `instant` has come: the program samples a process as soon as it knows it, and short-lived ones wait for nobody.
    pub fn wait_until(&self, instant: Timestamp) {
        let instant = instant.min(self.processes.next_attempt());
        let LinuxHost { tree, program, .. } = self.processes.host();
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
    pub fn read(&mut self, events: &mut EventWriter<'_>, now: Timestamp) {
        self.take_records(events);
        let due = DueInstants::ticks(self.last_tick, now, self.period());
        self.last_tick = if due.count > 0 { due.last } else { self.last_tick };
        self.processes.look(events, due, now);
        if let (LinuxHost { program: Some(program), .. }, _) = self.processes.parts() {
            program.follow_cpus(now);
        }
    }

    /// Reads it until each process that is there has been looked at, or a reading ends after `latest`.
    pub fn read_until_all_are_met(&mut self, events: &mut EventWriter<'_>, latest: Timestamp) {
        self.read(events, clock::now());
        while clock::now() < latest && self.processes.next_attempt() <= clock::now() {
            self.read(events, clock::now());
        }
    }

    /// Reports all that is known up to now: what was sent, and how long what goes on has lasted.
    pub fn cut(&mut self, events: &mut EventWriter<'_>, now: Timestamp) {
        self.read(events, now);
        self.processes.resolve_pending(events);
        self.flush_off_cpu(events, None);
    }

    /// Lets the program rest until it is read again, and records what it has sent up to now. A program that reports how long
    /// threads wait goes on: it has to know all of their time.
    pub fn rest(&mut self, events: &mut EventWriter<'_>) {
        let (host, _) = self.processes.parts();
        if let Some(program) = host.program.as_mut().filter(|program| program.off_cpu.is_none()) {
            program.rest();
            self.take_records(events);
        }
    }

    /// Forgets what the program has sent of a time for which nobody asked. Waits are reported exactly, whenever they were.
    pub fn skip(&mut self, now: Timestamp) {
        let (host, table) = self.processes.parts();
        let Some(program) = host.program.as_mut().filter(|program| program.off_cpu.is_none()) else { return };
        skip_records(program, table);
        self.last_tick = now;
        self.processes.count_from(now);
    }

    /// Ends what the program does, and records what is left of it; returns when it ended.
    pub fn end(&mut self, events: &mut EventWriter<'_>) -> Timestamp {
        let (host, table) = self.processes.parts();
        let Some(program) = &mut host.program else { return clock::now() };
        table.samplers().for_each(|sampler| sampler.prepare_end_of_intervals(program));
        let end = program.stop();
        self.read(events, clock::now());
        self.flush_off_cpu(events, Some(end));
        end
    }

    /// Since when threads are watched as they leave their CPUs, if they are.
    pub fn watched_since(&mut self) -> Option<Timestamp> {
        self.processes.samplers().filter_map(|sampler| sampler.watched_since()).min()
    }

    /// Records what threads off the CPU do, at the instant that was due at `due`.
    pub fn look_off_cpu(&mut self, events: &mut EventWriter<'_>, due: Timestamp) {
        self.processes.samplers().for_each(|sampler| sampler.look_off_cpu(events, due));
    }

    /// Reports what the ring had no room for. The time of its samples is lost with them, unless each sample stands for all
    /// that its thread ran since the one before.
    pub fn report_ring_losses(&mut self, events: &mut EventWriter<'_>, now: Timestamp) {
        let (host, table) = self.processes.parts();
        let Some(program) = &mut host.program else { return };
        let has_exact_times = program.off_cpu.is_some();
        let RingLosses { threads, unattributed } = program.take_ring_losses();
        events.lose(LossReason::BufferFull, Scope::Session, now, unattributed);
        for RingLoss { process, thread, count, weight } in threads {
            let of_thread = table.sampler_of(process).map(|sampler| sampler.scope_of_thread(thread));
            let scope = of_thread.unwrap_or_else(|| table.scope_of(process));
            let cpu = if has_exact_times { Nanos::ZERO } else { weight };
            events.lose_with(Loss { cpu, ..Loss::of(LossReason::BufferFull, scope, now, count) });
        }
    }

    fn take_records(&mut self, events: &mut EventWriter<'_>) {
        let (host, table) = self.processes.parts();
        if let Some(program) = &mut host.program {
            take_records(program, table, host.latest_look, events);
            take_native_ticks(program, table, events, clock::now());
        }
    }

    fn flush_off_cpu(&mut self, events: &mut EventWriter<'_>, end: Option<Timestamp>) {
        let (host, table) = self.processes.parts();
        if let Some(program) = &mut host.program {
            table.samplers().for_each(|sampler| sampler.flush_all_off_cpu(program, events, end));
        }
    }
}
