//! `cargo xtask bench`: peers and us in turn on the same fixtures, as ratios. `docs/benchmarks/method.md` says how
//! the figures are measured; `docs/benchmarks/results` has the latest tables.

mod cases;
mod document;
mod judged;
mod measured;
mod options;
mod pairs;
mod peers;
mod spread;
mod table;
mod tools;

use std::fs;

use anyhow::{Context, Result};

use options::Options;

pub use table::Table;

/// Runs the cases that were asked for.
pub fn run(arguments: &[String]) -> Result<()> {
    if let Some((measured::STAND_BY, command)) =
        arguments.split_first().map(|(word, rest)| (word.as_str(), rest))
    {
        return measured::stand_by(command);
    }
    let Some(options) = Options::parse(arguments)? else {
        print!("{}", options::HELP);
        return Ok(());
    };
    peers::enter_namespace()?;
    crate::run::build_profiler()?;
    report("circumstances", &[circumstances(&options)?], &options)?;
    for case in &options.cases {
        eprintln!("bench: {}, load {}", case.name(), load());
        report(case.name(), &case.run(&options).with_context(|| case.name())?, &options)?;
    }
    Ok(())
}

/// Prints the tables of a case and writes them, so that those of later cases can fail without harm.
fn report(name: &str, tables: &[Table], options: &Options) -> Result<()> {
    tables.iter().for_each(|table| print!("{}", table.text()));
    match &options.markdown {
        Some(path) => document::update(path, name, tables),
        None => Ok(()),
    }
}

/// What the figures were got with.
fn circumstances(options: &Options) -> Result<Table> {
    let mut table = Table::new("Circumstances", &["what", ""]);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    table.row(["cores", &cores.to_string()]);
    table.row(["Linux", kernel.trim().split('-').next().unwrap_or_default()]);
    table.row(["load before", &load()]);
    table.row(["ours", &peers::version(&profiler_tests::profiler_path())?]);
    table.row(["py-spy", &peers::version(&peers::py_spy()?)?]);
    table.row(["window, repetitions", &format!("{:?}, {}", options.window(), options.repeat())]);
    Ok(table)
}

/// The load of the machine, over one and five minutes.
fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
