//! Where the kernel lacks what the in-kernel programs want: each is refused with the reason, or another sampler is taken and that
//! is reported. Which rights they take is for `in_kernel`. Recordings without `--sampler` test that choice.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc::{SYS_bpf, SYS_perf_event_open};
use profiler_tests::suite::{Sampler, Test};
use profiler_tests::{
    Collapsed, Fixture, Profiler, Scratch, dumped_json, one_interpreter, place, profiler_path, test,
};

const LABYRINTH: &str = "labyrinth/labyrinth.py";

/// The message where the kernel's types are missing.
const NO_TYPES: &str = "the kernel does not describe its types";

fn record(place: &[OsString], scratch: &Scratch, words: &str) -> Profiler {
    Profiler::within(place, "record")
        .words(&format!("{words} -r 1000 -d 0.2 -f raw -o"))
        .arg(scratch.file("out.txt"))
}

fn busy() -> Result<Fixture> {
    Fixture::start(one_interpreter(), LABYRINTH, &[])
}

fn without_kernel_types_cpu_time_is_still_sampled() -> Result<()> {
    let (scratch, fixture) = (Scratch::new()?, busy()?);
    let record = |words| record(&place::without_types(), &scratch, words).pid(&fixture);
    record("--sampler bpf").succeed()?;
    record("--mode wall").succeed()?.must_say(&["sampler: pause", NO_TYPES])?;
    record("--mode off-cpu").fail(&[NO_TYPES, "--mode wall, which with --sampler pause"])?;
    record("--mode wall --sampler bpf").fail(&[NO_TYPES])?;
    Ok(())
}

fn locked_memory_is_not_needed() -> Result<()> {
    let (scratch, fixture) = (Scratch::new()?, busy()?);
    record(&place::without_locked_memory(), &scratch, "--mode wall --sampler bpf").pid(&fixture).succeed()?;
    let profile = Collapsed::parse(&fs::read_to_string(scratch.file("out.txt"))?)?;
    ensure!(profile.total() > 0, "{profile:?}");
    Ok(())
}

fn system_call_filter_is_reported_as_such() -> Result<()> {
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
    // An answer that no rule explains is reported as it is.
    let odd = place::without_calls(&[(SYS_bpf, Errno::EINVAL)]);
    record(&odd, &scratch, "--sampler bpf").pid(&fixture).fail(&["Invalid argument (os error 22)"])?;
    record(&odd, &scratch, "").pid(&fixture).succeed()?.must_say(&["sampler: pause"])
}

fn capabilities_in_user_namespace_do_not_count() -> Result<()> {
    let Some(rootless) = place::as_root_of_nobodys_namespace() else { return Ok(()) };
    let scratch = Scratch::new()?;
    let binary = scratch.file("profiler");
    fs::copy(profiler_path(), &binary)?;
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777))?;
    let record = |words: &str| -> Result<Profiler> {
        let profiler = Profiler::binary_within(&rootless, &binary, "record");
        let profiler = profiler.words(words).words("-f raw -o").arg(scratch.file("out.txt"));
        Ok(profiler.command(&["/usr/bin/python3", "-c", "for _ in range(1000000): pass"]))
    };
    record("--sampler bpf")?.fail(&["this is a user namespace"])?;
    record("-r 1000")?.succeed()?.must_say(&["sampler: pause"])
}

fn dump_shows_all_threads_with_few_files() -> Result<()> {
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
    ensure!(shown == THREADS + 1, "{shown} threads of {}", THREADS + 1);
    Ok(())
}

fn file_limit_is_raised_as_far_as_possible() -> Result<()> {
    const NEVER_ENOUGH: &str = "20";
    let (scratch, fixture) = (Scratch::new()?, busy()?);
    let hard = place::with_few_files(NEVER_ENOUGH, NEVER_ENOUGH);
    let refused = record(&hard, &scratch, "--sampler bpf").pid(&fixture).fail(&["Too many open files"])?;
    refused.must_say(&["try: ulimit"])?;
    record(&hard, &scratch, "").pid(&fixture).succeed()?.must_say(&["sampler: pause"])?;
    // The limit that it raises for itself stays as it was for the command.
    let soft = place::with_few_files(NEVER_ENOUGH, "1000");
    let source = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE), flush=True)\n\
                  for _ in range(5000000): pass";
    let words = one_interpreter().inline_words(source);
    let run = record(&soft, &scratch, "--sampler bpf --keep-running").command(&words).succeed()?;
    ensure!(run.stdout.contains("(20, 1000)"), "{run:?}");
    run.must_say(&["runs on", "the process ended"])
}

/// The program for kernels before Linux 5.17 must be one that newer ones take, too: on the older ones alone a fault would be
/// found too late. `cargo xtask kernels` runs it there.
fn verifier_takes_the_program_for_older_kernels() -> Result<()> {
    let object = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/bpf/src/program/python.bpf.o");
    let mut loader = aya::EbpfLoader::new();
    for one_for_each_cpu in ["workspaces", "names", "clocks", "sent_codes", "periods"] {
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
        test!(without_kernel_types_cpu_time_is_still_sampled).needs_programs(),
        test!(locked_memory_is_not_needed).by(&[Sampler::Bpf]),
        test!(system_call_filter_is_reported_as_such).needs_programs(),
        test!(capabilities_in_user_namespace_do_not_count).needs_programs(),
        test!(dump_shows_all_threads_with_few_files),
        test!(file_limit_is_raised_as_far_as_possible).needs_programs(),
        test!(verifier_takes_the_program_for_older_kernels).needs_programs(),
    ]
}
