//! Where the kernel lacks what the in-kernel programs want: each is refused with the reason, or another sampler is taken
//! and that is said. Which rights they take is for `in_kernel`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc::{SYS_bpf, SYS_perf_event_open};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Profiler, Scratch, can_load_programs, dumped_json, one_interpreter, place,
    profiler_path,
};

const LABYRINTH: &str = "labyrinth/labyrinth.py";

/// What is said where the kernel's types are not to be had.
const NO_TYPES: &str = "the kernel does not describe its types";

fn record(place: &[OsString], scratch: &Scratch, words: &str) -> Profiler {
    Profiler::within(place, "record").words(&format!("{words} -d 0.2 -f raw -o")).arg(scratch.file("out.txt"))
}

fn busy() -> Result<Fixture> {
    Fixture::start(one_interpreter(), LABYRINTH, &[])
}

fn without_the_kernels_types_waits_are_asked_for_and_cpu_time_is_sampled_as_ever() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let (scratch, fixture) = (Scratch::new()?, busy()?);
    let record = |words| record(&place::without_types(), &scratch, words).pid(&fixture);
    record("--sampler bpf").succeed()?;
    record("--mode wall").succeed()?.must_say(&["sampler: pause", NO_TYPES])?;
    record("--mode off-cpu").fail(&[NO_TYPES, "--mode wall, which with --sampler pause"])?;
    record("--mode wall --sampler bpf").fail(&[NO_TYPES])?;
    Ok(())
}

fn no_memory_need_be_locked() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let (scratch, fixture) = (Scratch::new()?, busy()?);
    record(&place::without_locked_memory(), &scratch, "--mode wall --sampler bpf").pid(&fixture).succeed()?;
    let profile = Collapsed::parse(&fs::read_to_string(scratch.file("out.txt"))?)?;
    // All of the time of its only thread, whatever that did.
    assert!(profile.count(|_| true) > 0, "{profile:?}");
    Ok(())
}

fn a_system_call_filter_is_told_from_a_missing_right() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let (scratch, fixture) = (Scratch::new()?, busy()?);
    // As container runtimes answer; and what makes programs think of an older kernel.
    let answers = [
        (SYS_bpf, Errno::EPERM, "refuses bpf"),
        (SYS_bpf, Errno::ENOSYS, "refuses bpf"),
        (SYS_perf_event_open, Errno::EACCES, "refuses perf_event_open"),
        (SYS_perf_event_open, Errno::ENOSYS, "refuses perf_event_open"),
    ];
    for (call, errno, said) in answers {
        let behind = place::without_calls(&[(call, errno)]);
        let refused = record(&behind, &scratch, "--sampler bpf").pid(&fixture).fail(&[said])?;
        refused.must_say(&["try: docker run --security-opt seccomp=unconfined"])?;
        let fallen_back = record(&behind, &scratch, "").pid(&fixture).succeed()?;
        fallen_back.must_say(&["sampler: pause"])?;
        fallen_back.must_say(&[said])?;
    }
    // An answer that no rule explains is told as it is.
    let odd = place::without_calls(&[(SYS_bpf, Errno::EINVAL)]);
    record(&odd, &scratch, "--sampler bpf").pid(&fixture).fail(&["Invalid argument (os error 22)"])?;
    record(&odd, &scratch, "").pid(&fixture).succeed()?.must_say(&["sampler: pause"])
}

fn the_capabilities_of_a_user_namespace_are_not_taken_for_real_ones() -> Result<()> {
    let (true, Some(rootless)) = (can_load_programs(), place::as_root_of_nobodys_namespace()) else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let binary = scratch.file("profiler");
    fs::copy(profiler_path(), &binary)?;
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777))?;
    let record = |words: &str| -> Result<Profiler> {
        let profiler = Profiler::binary_within(&rootless, &binary, "record");
        let profiler = profiler.words(words).words("-f raw -o").arg(scratch.file("out.txt"));
        Ok(profiler.command(&["/usr/bin/python3", "-c", "for _ in range(3000000): pass"]))
    };
    record("--sampler bpf")?.fail(&["this is a user namespace"])?;
    record("-r 1000")?.succeed()?.must_say(&["sampler: pause"])
}

fn no_thread_is_left_out_where_few_files_may_be_open() -> Result<()> {
    const THREADS: usize = 100;
    let source = format!(
        "import os, threading\n\
         for _ in range({THREADS}): threading.Thread(target=threading.Event().wait, daemon=True).start()\n\
         print('ready', os.getpid(), flush=True)\n\
         threading.Event().wait()"
    );
    let fixture = Fixture::inline(one_interpreter(), &source)?;
    let few = place::with_few_files("40", "40");
    let run = Profiler::within(&few, "dump").words("--json").pid(&fixture).succeed()?;
    let shown = dumped_json(&run.stdout)?.len();
    anyhow::ensure!(shown == THREADS + 1, "{shown} threads of {}", THREADS + 1);
    Ok(())
}

fn few_files_refuse_it_only_where_there_may_be_no_more() -> Result<()> {
    const NEVER_ENOUGH: &str = "20";
    if !can_load_programs() {
        return Ok(());
    }
    let (scratch, fixture) = (Scratch::new()?, busy()?);
    let hard = place::with_few_files(NEVER_ENOUGH, NEVER_ENOUGH);
    let refused = record(&hard, &scratch, "--sampler bpf").pid(&fixture).fail(&["Too many open files"])?;
    refused.must_say(&["try: ulimit"])?;
    record(&hard, &scratch, "").pid(&fixture).succeed()?.must_say(&["sampler: pause"])?;
    // What it asks for itself is not for the command.
    let soft = place::with_few_files(NEVER_ENOUGH, "1000");
    let source = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE))\n\
                  for _ in range(5000000): pass";
    let words = one_interpreter().inline_words(source);
    let run = record(&soft, &scratch, "-r 1000 --sampler bpf").command(&words).run()?;
    anyhow::ensure!(run.stdout.contains("(20, 1000)"), "{run:?}");
    run.must_say(&["runs on", "the process ended"])
}

/// What older kernels are given instead (before Linux 5.17) must not be what newer ones refuse: there it would be found too
/// late. `cargo xtask kernels` runs it on older ones.
fn the_program_for_older_kernels_is_one_that_the_verifier_takes() -> Result<()> {
    if !can_load_programs() {
        return Ok(());
    }
    let object = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/bpf/src/program/python.bpf.o");
    let mut loader = aya::EbpfLoader::new();
    for one_for_each_cpu in ["workspaces", "names", "clocks", "sent_codes"] {
        loader.map_max_entries(one_for_each_cpu, 1);
    }
    let mut loaded = loader.btf(None).load(&fs::read(object)?)?;
    for name in ["sample", "sample_by_calls"] {
        let program: &mut aya::programs::PerfEvent =
            loaded.program_mut(name).with_context(|| name.to_owned())?.try_into()?;
        program.load().with_context(|| name.to_owned())?;
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(without_the_kernels_types_waits_are_asked_for_and_cpu_time_is_sampled_as_ever),
        test!(no_memory_need_be_locked),
        test!(a_system_call_filter_is_told_from_a_missing_right),
        test!(the_capabilities_of_a_user_namespace_are_not_taken_for_real_ones),
        test!(no_thread_is_left_out_where_few_files_may_be_open),
        test!(few_files_refuse_it_only_where_there_may_be_no_more),
        test!(the_program_for_older_kernels_is_one_that_the_verifier_takes),
    ]
}
