//! The project's own tasks: `cargo xtask help`. One module a task; this file only chooses.
#![forbid(unsafe_code)]

mod bench;
mod bpf;
mod docs;
mod environments;
mod fuzz;
mod images;
mod kernels;
mod layers;
mod mirror;
mod modules;
mod offsets;
mod prepare;
mod production;
mod rings;
mod run;
mod servers;
mod sizes;
mod snapshots;
mod soak;
mod source;
mod test;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
The project's own tasks: cargo xtask TASK

  test [OPTIONS] [WORDS]    prepare, build and run all tests, or those whose names contain one of WORDS
      --tier N              only tier 1 (deterministic), 2 (live) or 3 (statistical); may be repeated
      --no-skip             what is missing on this machine is a failure (also with CI=true)
      --from-nothing        make anew what is in the cache
  prepare [--no-skip] [--from-nothing]
                            set up what the tests need: packages, interpreters, virtual environments (in a cache,
                            PROFILER_TESTS_CACHE or the user's)
  soak [--minutes N] [tests] [production] [fuzz] [kernels] [WORDS]
                            what takes too long for every run of the tests, for N minutes (20) in all
  check-layers              the crates depend on each other only as the design allows, the pure ones do no I/O,
                            and no file or struct is too large
  check-docs                links and headings exist, the tables of losses and dependencies are complete, licences
                            are permitted, and no dependency needs a newer Rust than the workspace
  check-offsets [--no-skip] what we know of CPython's structures is what the headers of the interpreters
                            on this machine say
  bench [--help]            what we and our peers cost and give, as ratios
  bpf [--check]             build the in-kernel program with clang; --check: it is the one that is checked in
  images                    record the pictures of the README again: docs/images (needs Chromium)
  kernels [SERIES]          the in-kernel sampler on other kernels (5.10 6.1 ...), in emulated machines: minutes
  fuzz [--seconds N] [--store] [TARGETS]
                            memory, files and tables that lie, for N seconds in all (60); --store: what was
                            learnt becomes the corpus that the tests replay
  rings                     store what the in-kernel program sends of the labyrinth, for the tests of crate
                            sampler (needs root)
  snapshots [surveys|accounts]
                            store snapshots of processes of every CPython on this machine, for the tests of
                            the crate python
  help                      this text
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    let (task, rest) = match arguments.split_first() {
        Some((task, rest)) => (task.as_str(), rest),
        None => ("help", arguments),
    };
    match task {
        "test" => test::run(rest),
        "soak" => soak::run(rest),
        production::TRIALS => production::run_trials(rest),
        "prepare" => prepare::run(rest),
        "check-layers" => layers::run(),
        "check-docs" => docs::run(),
        "check-offsets" => offsets::run(rest),
        "fuzz" => fuzz::run(rest),
        "snapshots" => snapshots::run(rest),
        "bench" => bench::run(rest),
        "rings" => rings::run(),
        "bpf" => bpf::run(rest),
        "images" => images::run(),
        "kernels" => kernels::run(rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        unknown => bail!("no task {unknown:?}; `cargo xtask help` lists them"),
    }
}
