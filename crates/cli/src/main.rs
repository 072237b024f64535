//! The binary `profiler`: what was typed (`flags`) becomes what is meant (`plan`), which is then run
//! (`record`, `top`, `dump`, `doctor`). Errors are printed here, once.
#![forbid(unsafe_code)]

mod attach;
mod command;
mod core_file;
mod destination;
mod doctor;
mod dump;
mod failure;
mod flags;
mod kernel_clocks;
mod launch;
mod manual;
mod messages;
mod next_step;
mod offspring;
mod plan;
mod progress;
mod record;
mod rescue;
mod sampling;
mod source;
mod top;
mod tree_cost;
mod watchdog;
mod window;

use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser;

use crate::flags::Flags;
use crate::messages::{report, say};
use crate::plan::Plan;

/// The exit status of our own errors.
const FAILED: u8 = 1;
/// The exit status when nothing was tried because of how it was asked for.
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    profiler_os::heap::give_back_early();
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => {
            // Asking for help is no error; a stdout that is closed is no reason to fail either.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(MISUSED));
        }
    };
    let done = match plan::plan(flags, SystemTime::now()) {
        Ok(Plan::Record(plan)) => record::run(&plan),
        Ok(Plan::Top(plan)) => top::run(&plan),
        Ok(Plan::Dump(plan)) => dump::run(&plan),
        Ok(Plan::Doctor(plan)) => doctor::run(&plan),
        Ok(Plan::Core(plan)) => core_file::run(&plan),
        Ok(Plan::Completions(shell)) => manual::completions(shell),
        Ok(Plan::Man) => manual::manual(),
        Err(error) => {
            say(format_args!("error: {error}\n\nFor more information, try 'profiler --help'."));
            return ExitCode::from(MISUSED);
        }
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            report(&error);
            ExitCode::from(FAILED)
        }
    }
}
