//! Records of the in-kernel program on their way to the samplers of the processes that they are of.

use profiler_account::{Tick, ticks};
use profiler_bpf::{NativeCounts, NativeTicks, Record, StackRecord};
use profiler_model::{LossReason, Nanos, Pid, Timestamp};
use profiler_os::clock;
use profiler_profile::{Loss, Scope, Skip};
use rustc_hash::FxHashSet;

use super::host::SamplersByPid;
use super::linux_sampler::LinuxSampler;
use super::pending::NativeTime;
use crate::bpf::BpfProgram;
use crate::event_writer::EventWriter;
use crate::process_sampler::ProcessSampler;

/// Records what the program has sent. After `latest` what it has sampled is lost. Nothing is wanted of processes that were `left`.
pub fn take_records(
    program: &mut BpfProgram,
    samplers: &mut dyn SamplersByPid<LinuxSampler>,
    (latest, left): (Timestamp, &FxHashSet<Pid>),
    events: &mut EventWriter<'_>,
) {
    let period = program.period();
    let mut with_all_names = Vec::new();
    program.read(&mut |record| {
        let pid = process_of(&record);
        match (record, samplers.sampler_of(pid).and_then(LinuxSampler::python)) {
            (Record::Stack(stack), Some(sampler)) => take_stack(sampler, &stack, period, latest, events),
            (Record::Names(names), Some(sampler)) => {
                with_all_names.extend(sampler.take_names(&names).then_some(pid));
            }
            // The program took it before it knew that the process is not sampled any more.
            (Record::Stack(_), None) if left.contains(&pid) => {}
            (Record::Stack(stack), None) => {
                events.lose(LossReason::ProcessEnded, Scope::Session, stack.time(), 1);
            }
            (Record::OffCpu(interval), Some(sampler)) => sampler.take_interval(events, &interval),
            (Record::DeepStack(stack), Some(sampler)) => sampler.take_deep_stack(events, &stack),
            (Record::Unregistered(..), Some(sampler)) => sampler.meet_unwatched(),
            // What a process did before it was looked at first, or after it was given up.
            (
                Record::Names(_) | Record::OffCpu(_) | Record::DeepStack(_) | Record::Unregistered(..),
                None,
            ) => {}
        }
    });
    want_all_names(program, samplers, with_all_names);
}

/// Counts the ticks that met threads without Python.
pub fn take_native_ticks(
    program: &mut BpfProgram,
    samplers: &mut dyn SamplersByPid<LinuxSampler>,
    events: &mut EventWriter<'_>,
    now: Timestamp,
) {
    let period = program.period();
    let NativeCounts { threads, unattributed_ticks, unattributed_weight } = program.take_native_ticks();
    let loss = Loss::of(LossReason::BufferFull, Scope::Session, now, unattributed_ticks);
    events.lose_with(Loss { cpu: unattributed_weight, wall: unattributed_weight, ..loss });
    for native in threads {
        let Some(sampler) = samplers.sampler_of(native.process).and_then(LinuxSampler::python) else {
            let NativeTicks { process, ticks, weight: cpu, last, .. } = native;
            if !samplers.count_native(process, NativeTime { ticks, cpu, last }) {
                let skip = Skip::of(Scope::Session, last, ticks);
                events.skip_with(Skip { cpu, wall: cpu, ..skip });
            }
            continue;
        };
        events.lose(LossReason::Late, sampler.scope(), native.last, native.late);
        events.lose(LossReason::RateLimited, sampler.scope(), native.last, ticks(native.rested, period));
        sampler.take_native(&native);
    }
}

/// Forgets what the program has sent. Names, and what proves them, are needed all the same.
pub fn skip_records(program: &mut BpfProgram, samplers: &mut dyn SamplersByPid<LinuxSampler>) {
    let mut with_all_names = Vec::new();
    program.skip(&mut |record| {
        let pid = process_of(&record);
        match (record, samplers.sampler_of(pid).and_then(LinuxSampler::python)) {
            (Record::Names(names), Some(sampler)) => {
                with_all_names.extend(sampler.take_names(&names).then_some(pid));
            }
            (Record::Stack(stack), Some(sampler)) => sampler.note_proofs(&stack),
            _ => {}
        }
    });
    want_all_names(program, samplers, with_all_names);
}

fn process_of(record: &Record<'_>) -> Pid {
    match record {
        Record::Stack(stack) | Record::DeepStack(stack) => stack.process(),
        Record::Names(names) => names.process(),
        Record::OffCpu(interval) => interval.process(),
        Record::Unregistered(process, _) => *process,
    }
}

fn take_stack(
    sampler: &mut ProcessSampler,
    stack: &StackRecord<'_>,
    period: Nanos,
    latest: Timestamp,
    events: &mut EventWriter<'_>,
) {
    let Tick { weight, late } = Tick::after(stack.weight(), stack.missed(), stack.behind(), stack.period());
    let (scope, at) = (sampler.scope(), stack.time());
    events.lose(LossReason::Late, scope, at, late);
    events.lose(LossReason::RateLimited, scope, at, ticks(stack.rested(), period));
    match clock::now() > latest {
        true => events.lose(LossReason::Late, scope, at, 1),
        false => sampler.take_stack(events, stack, weight + stack.rested()),
    }
}

/// Has the program send names with every sample of these processes.
fn want_all_names(program: &mut BpfProgram, samplers: &mut dyn SamplersByPid<LinuxSampler>, pids: Vec<Pid>) {
    for pid in pids {
        if let Some(sampler) = samplers.sampler_of(pid).and_then(LinuxSampler::python) {
            // Refused, it goes on as it did.
            let _ = sampler.register_again(program);
        }
    }
}
