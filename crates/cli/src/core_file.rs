//! `profiler dump --core`: what every thread of a process was doing when its core file was made.

use std::io::{self, IsTerminal};
use std::path::Path;

use profiler_dump::{CoreFailure, CoreOptions, CoreTarget, FileTrouble, MissingFile, dump_core};
use profiler_memory::CoreError;
use profiler_output::{write_dump_text, write_dumps_json};
use profiler_profile::{ProcessDump, Tasks};
use profiler_python::NotPython;

use crate::destination::write_to_stdout;
use crate::failure::Failure;
use crate::messages::say;
use crate::plan::CorePlan;

/// Looks and prints; returns the exit status.
///
/// # Errors
/// When it is no core file of a Python, no stack of it could be read, or stdout cannot be written.
pub fn run(plan: &CorePlan) -> anyhow::Result<u8> {
    let target = CoreTarget::open(&plan.file, plan.sysroot.as_deref())
        .map_err(|failure| explain(&plan.file, &failure))?;
    let options = CoreOptions {
        variables: plan.variables,
        source: plan.source.unwrap_or_else(|| !plan.json && io::stdout().is_terminal()),
        tasks: plan.tasks.unwrap_or_else(|| plan.json || io::stdout().is_terminal()),
    };
    let (dump, end_of_list) = dump_core(&target, options);
    write_to_stdout(|out| {
        if plan.json {
            write_dumps_json(std::slice::from_ref(&dump), &plan.view, out)?;
        } else {
            write_dump_text(&dump, &plan.view, out)?;
        }
        Ok(())
    })?;
    if let Some((length, whole)) = target.cut() {
        say(format_args!("The core file is cut short: {length} bytes of {whole} are there."));
    }
    if let Some(error) = end_of_list {
        say(format_args!("There may have been more threads: {error}."));
    }
    for file in target.missing() {
        say(format_args!("{file}."));
    }
    if plan.source == Some(true) && !shows_source(&dump) {
        say(format_args!(
            "No source is shown: no file was found that is older than the core file and has the functions. \
             --sysroot FOLDER says where the files are."
        ));
    }
    if plan.tasks == Some(true) && matches!(dump.tasks, Tasks::None) {
        say(format_args!("{}.", target.why_no_tasks()));
    }
    match dump.threads.iter().any(|thread| thread.lost.is_none()) {
        true => Ok(0),
        false => {
            let failure = Failure::new(format!("no stack could be read in core file {:?}", plan.file));
            Err(advise_on_files(failure, target.missing()).into())
        }
    }
}

fn shows_source(dump: &ProcessDump) -> bool {
    dump.threads.iter().flat_map(|thread| &thread.details).any(|details| details.source.is_some())
}

fn explain(core: &Path, failure: &CoreFailure) -> Failure {
    let mut explained = Failure::new(format!("core file {core:?}: {failure}"));
    match failure {
        CoreFailure::Core(CoreError::Compressed(program)) => {
            explained.with_advice(format!("{program} -d on it, or coredumpctl dump -o FILE"))
        }
        CoreFailure::Core(CoreError::CutShort) | CoreFailure::NoFiles { cut: Some(_) } => {
            explained.with_advice("ulimit -c unlimited and a disk with room, before the process runs again")
        }
        CoreFailure::NotFound { missing, error, .. } => {
            for file in missing {
                explained = explained.with_detail(file.to_string());
            }
            if matches!(error, profiler_python::FindError::NotPython(NotPython::NoModule))
                && missing.is_empty()
            {
                return explained.with_advice("gdb -c, which shows native code");
            }
            advise_on_files(explained, missing)
        }
        CoreFailure::Open(_) => explained.with_advice("coredumpctl list, which tells where cores were kept"),
        CoreFailure::Core(_) => {
            explained.with_advice("profiler dump --pid, if it is the process itself that is to be shown")
        }
        CoreFailure::NoFiles { cut: None } => explained,
    }
}

fn advise_on_files(failure: Failure, missing: &[MissingFile]) -> Failure {
    match missing.iter().any(|file| file.trouble != FileTrouble::Unchecked) {
        true => failure.with_advice(
            "--sysroot FOLDER, where the files of that time are (of the container or the other machine)",
        ),
        false => failure,
    }
}
