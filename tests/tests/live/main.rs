//! Tier 2: tests on live processes that judge what is seen, not how much of it in what time. They run two at a time.
#![allow(missing_docs)]

mod another_python;
mod asyncio;
mod bad_input;
mod c_hosts;
mod core;
mod damaged_lists;
mod doctor;
mod dump;
mod embedding;
mod endings;
mod engine;
mod formats;
mod hostile;
mod hostile_files;
mod in_kernel;
mod in_the_way;
mod julia;
mod kernel_clocks;
mod kernel_frames;
mod kernel_programs;
mod kernel_proofs;
mod kernel_refusals;
mod kernel_watch;
mod labyrinth;
mod launch;
mod locals;
mod long_scripts;
mod modes;
mod native;
mod native_ticks;
mod numpy_values;
mod objects;
mod off_cpu;
mod outputs;
mod own_cost;
mod own_namespace;
mod places;
mod reused_numbers;
mod roots;
mod rough;
mod short_code;
mod silence;
mod stuck_search;
mod survival;
mod threads_processes;
mod top;
mod tree;
mod unique_names;
mod users;
mod waiting;
mod waits_on;
mod windows;

use std::process::ExitCode;

use profiler_tests::suite::Tier;

fn main() -> ExitCode {
    profiler_tests::suite::run(
        Tier::Live,
        profiler_tests::suites![
            another_python,
            asyncio,
            bad_input,
            c_hosts,
            core,
            doctor,
            damaged_lists,
            dump,
            embedding,
            endings,
            engine,
            formats,
            hostile,
            hostile_files,
            in_kernel,
            in_the_way,
            julia,
            kernel_clocks,
            kernel_frames,
            kernel_proofs,
            kernel_refusals,
            kernel_watch,
            labyrinth,
            launch,
            locals,
            long_scripts,
            modes,
            native,
            native_ticks,
            numpy_values,
            objects,
            off_cpu,
            outputs,
            own_cost,
            own_namespace,
            places,
            reused_numbers,
            roots,
            rough,
            short_code,
            silence,
            stuck_search,
            survival,
            threads_processes,
            top,
            tree,
            unique_names,
            users,
            waiting,
            waits_on,
            windows
        ],
    )
}
