//! The report for programs: the facts of the text, by name.

use std::io::{self, Write};

use profiler_dump::{Examination, Gils};
use profiler_os::host::{Answer, CAPABILITIES, CapabilitySet, Host};
use profiler_output::escaped_json;
use profiler_python::Evidence;
use serde_json::{Value, json};

use super::report::{ProcessReport, PythonReport, Report, is_sampled};
use crate::failure::Failure;

/// Prints the report.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let failures = |failures: &[Failure]| -> Vec<Value> {
        failures.iter().map(|one| json!({ "what": one.what(), "try": one.advice() })).collect()
    };
    let pause = report.can_stop() && report.can_read();
    let value = json!({
        "works": report.obstacles.is_empty(),
        "host": host(&report.host),
        "rehearsal": report.self_test.as_ref().ok().map(|self_test| json!({
            "process_vm_readv": self_test.reads_by_call,
            "read": self_test.reads,
            "ptrace": self_test.stops.is_ok(),
        })),
        "samplers": {
            "record": if report.in_kernel.is_ok() { Some("bpf") } else { pause.then_some("pause") },
            "bpf": report.in_kernel.is_ok(),
            "pause": pause,
            "nonblocking": report.can_read().then_some("peek"),
            "kernel_frames": report.in_kernel.is_ok(),
            "kernel_names": report.kernel_names.is_ok(),
        },
        "process": report.process.as_ref().map(process),
        "obstacles": failures(&report.obstacles),
        "hints": failures(&report.hints),
    });
    let text = serde_json::to_string_pretty(&value)?;
    writeln!(out, "{}", escaped_json(&text))
}

fn host(host: &Host) -> Value {
    json!({
        "kernel": host.kernel,
        "architecture": std::env::consts::ARCH,
        "uid": host.user.uid,
        "user": host.user.name,
        "first_user_namespace": host.in_first_user_namespace,
        "container": host.container,
        "seccomp": host.has_filter,
        "capabilities": { "effective": names(host.effective), "bounding": names(host.bounding) },
        "ptrace_scope": host.ptrace_scope,
        "proc": host.proc_mount.as_ref().map(|mount| json!({
            "hidepid": mount.hidepid,
            "subset_pid": mount.only_processes,
        })),
        "perf_event_open": answer(host.perf_event_open),
        "perf_event_paranoid": host.perf_event_paranoid,
        "bpf": answer(host.bpf),
        "unprivileged_bpf_disabled": host.unprivileged_bpf_disabled,
        "btf": host.has_btf,
        "lockdown": host.lockdown,
    })
}

fn names(set: CapabilitySet) -> Vec<&'static str> {
    CAPABILITIES.iter().filter(|(_, number)| set.has(*number)).map(|(name, _)| *name).collect()
}

fn answer(answer: Answer) -> &'static str {
    match answer {
        Answer::Allowed => "allowed",
        Answer::Refused => "refused",
        Answer::Missing => "missing",
    }
}

fn process(process: &ProcessReport) -> Value {
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    json!({
        "pid": process.pid.as_u32(),
        "command_line": process.command_line,
        "executable": path(&process.executable),
        "uid": process.user.as_ref().map(|user| user.uid),
        "user": process.user.as_ref().and_then(|user| user.name.as_deref()),
        "state": char::from(process.state).to_string(),
        "tracer": process.tracer.map(|tracer| tracer.as_u32()),
        "inner_pid": process.inner_pid.map(|inner| inner.as_u32()),
        "same_namespace": {
            "pid": process.shares.pid,
            "mount": process.shares.mount,
            "user": process.shares.user,
        },
        "root": path(&process.root),
        "kernel_threads": process.kernel_threads,
        "python": process.python.as_ref().map(python),
    })
}

fn python(python: &PythonReport) -> Value {
    match &python.examination {
        Err(error) => json!({ "version": python.version, "error": error }),
        Ok(seen) => examination(&python.version, seen),
    }
}

fn examination(version: &str, seen: &Examination) -> Value {
    let location = seen.location.as_ref();
    let threads: Vec<Value> = seen
        .threads
        .iter()
        .map(|thread| {
            json!({
                "thread_id": thread.tid.as_u32(),
                "name": thread.name,
                "interpreter": thread.interpreter.as_u32(),
                "state": thread.state.to_string(),
                "holds_gil": thread.holds_gil,
            })
        })
        .collect();
    let others = seen.other_pythons.iter().enumerate().map(|(place, other)| {
        json!({ "version": other.version, "module": other.path, "sampled": is_sampled(place) })
    });
    let others: Vec<Value> = others.collect();
    json!({
        "version": version,
        "module": location.map(|location| location.path.as_str()),
        "shared": location.map(|location| !location.in_executable),
        "stripped": location.and_then(|location| location.is_stripped),
        "found_by": location.map(|location| evidence(location.evidence)),
        "free_threaded": seen.free_threaded,
        "gils": match seen.gils { Gils::Known(count) => Some(count), Gils::None => Some(0), Gils::NotFound => None },
        "interpreters": seen.interpreters.len(),
        "other_pythons": others,
        "threads": threads,
    })
}

fn evidence(evidence: Evidence) -> String {
    match evidence {
        Evidence::Symbol(name) => format!("symbol {name}"),
        Evidence::Section => "section .PyRuntime".to_owned(),
        Evidence::Cookie => "cookie".to_owned(),
        Evidence::Search => "search".to_owned(),
    }
}
