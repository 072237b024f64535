//! `profiler dump`: one look at every thread of a process, printed.

use std::io::{self, IsTerminal};

use anyhow::Context;
use profiler_output::{write_dump_text, write_dumps_json};
use profiler_profile::ProcessDump;
use profiler_sampler::DumpOptions;

use crate::attach::{attach, expect_free, expect_tracing};
use crate::destination::write_to_stdout;
use crate::failure::Failure;
use crate::plan::DumpPlan;

/// Looks and prints; returns the exit status.
///
/// # Errors
/// When the process cannot be looked into, no stack of it could be proved, or stdout cannot be written.
pub fn run(plan: &DumpPlan) -> anyhow::Result<u8> {
    expect_tracing(plan.sampler)?;
    let target = attach(plan.pid)?;
    let options = DumpOptions {
        kind: plan.sampler,
        variables: plan.variables,
        source: plan.source.unwrap_or_else(|| !plan.json && io::stdout().is_terminal()),
    };
    let dump = profiler_sampler::dump(target, options)
        .with_context(|| format!("process {} could not be looked into", plan.pid))?;
    write_to_stdout(|out| {
        if plan.json {
            write_dumps_json(std::slice::from_ref(&dump), &plan.view, out)?;
        } else {
            write_dump_text(&dump, &plan.view, out)?;
        }
        Ok(())
    })?;
    expect_stacks(&dump, plan)?;
    Ok(0)
}

/// A dump without a single stack is a failure, however well it is printed.
fn expect_stacks(dump: &ProcessDump, plan: &DumpPlan) -> Result<(), Failure> {
    let Some(reason) = dump.threads.iter().find_map(|thread| thread.lost) else { return Ok(()) };
    if dump.threads.iter().any(|thread| thread.lost.is_none()) {
        return Ok(());
    }
    expect_free(plan.pid, plan.sampler)?;
    Err(Failure::new(format!("no stack of process {} could be proved: {reason}", plan.pid)))
}
