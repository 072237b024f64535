//! Programs without Python: their stacks are those that they had, they have names, and what cannot be recorded is refused in time.

use std::time::Duration;

use anyhow::{Result, ensure};
use profiler_tests::native_labyrinth::{BUILDS, judge, program, start};
use profiler_tests::suite::{Case, Sampler, Test};
use profiler_tests::{Collapsed, Profiler, Scratch, test};

/// The samples of each build that are judged, at least.
const SAMPLES: u64 = 300;

/// The CPU time in which there are as many.
const WORK: Duration = Duration::from_millis(1_500);

/// The samples for each of which at most one may be lost, once sampling has begun.
const LOST: u64 = 50;

/// No stack that never existed is shown, however the program is built.
fn native_labyrinth_is_never_torn(_: &Case) -> Result<()> {
    for build in BUILDS {
        let scratch = Scratch::new()?;
        let (fixture, file) = (start(*build, 2, &scratch)?, scratch.file("out.txt"));
        let record = Profiler::new("record").words("--sampler pause -r 400 -f raw -F -o").arg(&file);
        let run = record.pid(&fixture).spawn()?.end_after_cpu_time(fixture.pid(), WORK)?;

        let profile = Collapsed::parse(&std::fs::read_to_string(&file)?)?;
        for stack in &profile.stacks {
            judge(stack).map_err(|torn| anyhow::anyhow!("{}: {torn}", build.name))?;
        }
        // It is late at first: the unwind information of the modules is compiled.
        let lost = run.ledger()?.lost.iter().filter(|(reason, _)| *reason != "sampler late");
        let lost: u64 = lost.map(|(_, count)| count).sum();

        ensure!(profile.total() >= SAMPLES, "{}: {}", build.name, run.stderr);
        ensure!(lost * LOST <= profile.total(), "{}: {}", build.name, run.stderr);
        let in_handler = profile.count(|stack| stack.contains("work_from_on_alarm"));
        ensure!(in_handler > 0, "{}: no signal handler was seen", build.name);
        let deep = profile.count(|stack| {
            stack.frames.iter().filter(|frame| frame.function.contains("_from_")).count() >= 6
        });
        ensure!(deep > 0, "{}: no deep stack was seen", build.name);
    }
    Ok(())
}

/// A launched program is recorded from its start, without further options: that `pause` is chosen is a part of the test.
fn launched_program_is_recorded_with_lines(_: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let (program, file) = (program(BUILDS[2], &scratch)?, scratch.file("out.txt"));
    let record = Profiler::new("record").words("-r 400 -d 1 -f raw -o").arg(&file);
    let run = record.command(&[program.as_os_str(), "0".as_ref()]).succeed()?;
    run.must_say(&["pause"])?;
    let profile = Collapsed::parse(&std::fs::read_to_string(&file)?)?;
    let has_line = |name: &str| {
        let is_it = |frame: &profiler_tests::Frame| {
            frame.function == name && frame.file.as_deref() == Some("labyrinth.c") && frame.line.is_some()
        };
        profile.count(|stack| stack.frames.iter().any(is_it))
    };
    ensure!(has_line("n0_from_walk") > 10 && has_line("walk") > 10, "{profile:?}");
    Ok(())
}

fn in_kernel_sampler_is_refused_for_native_code(_: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let (fixture, file) = (start(BUILDS[0], 0, &scratch)?, scratch.file("out.svg"));
    // The last one leaves the choice open, and there is none.
    for words in ["--sampler bpf", "--mode wall --sampler bpf", "--kernel"] {
        let record = Profiler::new("record").words(words).words("-d 1 -o").arg(&file);
        record.pid(&fixture).fail(&["--sampler pause"])?.must_say(&["native code"])?;
        ensure!(!file.exists(), "a picture of nothing");
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(in_kernel_sampler_is_refused_for_native_code).by(&[Sampler::Bpf]),
        test!(launched_program_is_recorded_with_lines).by(&[Sampler::Pause]),
        test!(native_labyrinth_is_never_torn).by(&[Sampler::Pause]),
    ]
}
