//! `profiler dump`: one look at every thread of a process, or of a tree of processes, printed.

use std::io::{self, IsTerminal};

use anyhow::Context;
use profiler_dump::DumpOptions;
use profiler_model::Pid;
use profiler_os::Process;
use profiler_output::{write_dump_text, write_dumps_json};
use profiler_profile::{Ancestor, ProcessDump};
use profiler_python::NotPython;
use profiler_target::{AttachError, Target, family};

use crate::attach::{attach, expect_free, expect_tracing};
use crate::destination::write_to_stdout;
use crate::failure::Failure;
use crate::messages::say;
use crate::plan::DumpPlan;

/// Looks and prints; returns the exit status.
///
/// # Errors
/// When the process cannot be looked into, no stack of it could be proved, or stdout cannot be written.
pub fn run(plan: &DumpPlan) -> anyhow::Result<u8> {
    expect_tracing(plan.sampler)?;
    let dumps = if plan.subprocesses { look_at_family(plan)? } else { vec![look_at(plan.pid, plan)?] };
    write_to_stdout(|out| {
        if plan.json {
            return Ok(write_dumps_json(&dumps, &plan.view, out)?);
        }
        for (index, dump) in dumps.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            write_dump_text(dump, &plan.view, out)?;
        }
        Ok(())
    })?;
    dumps.iter().for_each(tell_more);
    dumps.iter().try_for_each(|dump| expect_stacks(dump, plan))?;
    Ok(0)
}

/// Says what the layouts, which are py-spy's, have no place for.
fn tell_more(dump: &ProcessDump) {
    let pid = dump.pid;
    if dump.threads.is_empty() {
        say(format_args!("process {pid} has no thread that runs Python at the moment"));
    }
    for other in &dump.other_pythons {
        let (version, path) = (&other.version, &other.path);
        say(format_args!("process {pid} also runs CPython {version} ({path}), whose threads are not shown"));
    }
}

fn options(plan: &DumpPlan) -> DumpOptions {
    DumpOptions {
        kind: plan.sampler,
        variables: plan.variables,
        source: plan.source.unwrap_or_else(|| !plan.json && io::stdout().is_terminal()),
        tasks: plan.tasks.unwrap_or_else(|| plan.json || io::stdout().is_terminal()),
    }
}

fn look_at(pid: Pid, plan: &DumpPlan) -> anyhow::Result<ProcessDump> {
    let target = attach(pid)?;
    profiler_dump::dump(target, options(plan))
        .with_context(|| format!("process {pid} could not be looked into"))
}

/// Looks at the process and its descendants, as far as they have a Python: others spoil nothing, and neither
/// does one that ends just now. What cannot be looked into although it is there is reported.
fn look_at_family(plan: &DumpPlan) -> anyhow::Result<Vec<ProcessDump>> {
    let (mut dumps, mut refused) = (Vec::new(), Vec::new());
    let family = family(plan.pid);
    for (pid, _) in &family {
        let pid = *pid;
        match Target::attach(pid) {
            Ok(target) => dumps.extend(
                profiler_dump::dump(target, options(plan))
                    .ok()
                    .map(|dump| ProcessDump { ancestors: ancestors(pid, &family), ..dump }),
            ),
            Err(error) => refused.push((pid, error)),
        }
    }
    // Where nothing can be shown, the first refusal is the failure.
    let failure = match refused.first() {
        Some((pid, _)) if dumps.is_empty() => attach(*pid).err(),
        _ => None,
    };
    for (pid, error) in refused.iter().skip(usize::from(failure.is_some())) {
        report_left_out(*pid, error);
    }
    match failure {
        Some(failure) => Err(failure.into()),
        None => Ok(dumps),
    }
}

/// Reports that a process is left out, unless there is nothing in it to be shown: no Python that runs, or no more.
fn report_left_out(pid: Pid, error: &AttachError) {
    match error {
        AttachError::NotPermitted(_) => {
            say(format_args!("not permitted to look into process {pid}, which is left out"));
        }
        AttachError::NoSuchProcess(_)
        | AttachError::ProcessEnded(_)
        | AttachError::NotInitialised(_)
        | AttachError::NotPython { what: NotPython::NoModule, .. } => {}
        AttachError::NotPython { .. }
        | AttachError::NoAnswer(_)
        | AttachError::UnknownVersion { .. }
        | AttachError::Unreadable { .. } => say(format_args!("left out: {error}")),
    }
}

/// The ancestors of a process in its family, the nearest first.
fn ancestors(pid: Pid, family: &[(Pid, Option<Pid>)]) -> Vec<Ancestor> {
    let parent = |of: Pid| family.iter().find(|(pid, _)| *pid == of).and_then(|(_, parent)| *parent);
    let line = std::iter::successors(parent(pid), |pid| parent(*pid));
    line.map(|pid| Ancestor { pid, command_line: Process::new(pid).command_line().unwrap_or_default() })
        .collect()
}

/// A dump without a single stack is a failure, however well it is printed.
fn expect_stacks(dump: &ProcessDump, plan: &DumpPlan) -> Result<(), Failure> {
    let Some(reason) = dump.threads.iter().find_map(|thread| thread.lost) else { return Ok(()) };
    if dump.threads.iter().any(|thread| thread.lost.is_none()) {
        return Ok(());
    }
    expect_free(dump.pid, plan.sampler)?;
    Err(Failure::new(format!("no stack of process {} could be proved: {reason}", dump.pid)))
}
