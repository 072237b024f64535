//! What stands at the root of a stack: a generator that C code resumes, or the frame of a compiled function, which no
//! shim stands below. A generator that is resumed below Python functions is never the root.

use std::time::Duration;

use anyhow::{Result, ensure};
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::{Collapsed, Fixture, Profiler, Run, Scratch, test};

/// CPU time of a target in which there are far more samples than a test needs.
const ENOUGH_WORK: Duration = Duration::from_millis(400);

/// The fewest samples that show a function whose thread works all the time.
const LEAST: u64 = 10;

/// A thread that is nothing but a generator which C code iterates, and one where that happens below Python functions.
/// The shorter the steps of a generator, the more often a sample meets the moment in which it is entered or left.
const GENERATORS: &str = "\
import _thread, os
def endless():
    while True:
        sum(range(20))
        yield 1
def quick():
    while True: yield 1
def outer():
    sum(quick())
_thread.start_new_thread(sum, (endless(),))
print('ready', os.getpid(), flush=True)
outer()
";

/// Links a frame below its outermost one as programs do that compile Python functions (Nuitka): it lies in a frame
/// object, says that it is a generator's and stands at its beginning, and nothing is below it.
const COMPILED: &str = "\
import ctypes, gc, os, sys
gc.disable()
minor = sys.version_info[1]
previous, instruction = (48, 56) if minor == 11 else (8, 56)
owner = {11: 69, 12: 70, 13: 70, 14: 74}[minor]
def word(at):
    return ctypes.c_uint64.from_address(at)
def place_of(frame):
    return word(id(frame) + 24).value
def frame_like(frame):
    made = ctypes.create_string_buffer(256)
    at = ctypes.addressof(made) + 64
    ctypes.memmove(at, place_of(frame), 80)
    word(at - 40).value = at
    word(at + previous).value = 0
    ctypes.c_uint8.from_address(at + owner).value = 1
    begin = word(place_of(frame) + instruction).value - frame.f_lasti
    word(at + instruction).value = begin + (2 if minor > 12 else 0)
    if minor > 13:
        word(at + 64).value = at + 80
    return made
def compiled():
    return frame_like(sys._getframe())
def work():
    while True: pass
made = compiled()
last = place_of(sys._getframe())
while word(last + previous).value:
    last = word(last + previous).value
word(last + previous).value = ctypes.addressof(made) + 64
print('ready', os.getpid(), flush=True)
work()
";

/// What is recorded of a program.
fn recorded(case: &Case, source: &str) -> Result<(Collapsed, Run)> {
    let scratch = Scratch::new()?;
    let fixture = Fixture::inline(case.interpreter, source)?;
    let file = scratch.file("out.txt");
    let record = Profiler::new("record").words(&case.sampler_words()).words("-f raw -r 1000 -o").arg(&file);
    let run = record.pid(&fixture).spawn()?.end_after_cpu_time(fixture.pid(), ENOUGH_WORK)?;
    Ok((Collapsed::parse(&std::fs::read_to_string(&file)?)?, run))
}

fn generator_is_the_root_only_where_c_resumes_it(case: &Case) -> Result<()> {
    let (profile, run) = recorded(case, GENERATORS)?;
    for stack in &profile.stacks {
        let names: Vec<&str> = stack.frames.iter().map(|frame| frame.plain_name()).collect();
        let below = ["<module>", "outer", "quick"];
        ensure!(names == ["endless"] || below.starts_with(&names), "{names:?}: {}", run.stderr);
    }
    // `peek` cannot prove a stack that changes all the time: what is shown of it is judged above.
    let shown: &[&str] = if case.sampler() == Sampler::Peek { &["endless"] } else { &["endless", "quick"] };
    for function in shown {
        let met = profile.count(|stack| stack.contains(function));
        ensure!(met >= LEAST, "{met} samples of {function}: {}", run.stderr);
    }
    Ok(())
}

fn compiled_function_is_the_root(case: &Case) -> Result<()> {
    let (profile, run) = recorded(case, COMPILED)?;
    for stack in &profile.stacks {
        let names: Vec<&str> = stack.frames.iter().map(|frame| frame.plain_name()).collect();
        ensure!(["compiled", "<module>", "work"].starts_with(&names) && names.len() > 1, "{names:?}");
    }
    let met = profile.count(|stack| stack.contains("work"));
    ensure!(met >= LEAST, "{met} samples: {}", run.stderr);
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    const ALL: &[Sampler] = &[Sampler::Pause, Sampler::Bpf, Sampler::Peek];
    vec![
        test!(generator_is_the_root_only_where_c_resumes_it).on(On::Layouts).by(ALL),
        test!(compiled_function_is_the_root).on(On::Minors(&[11, 12, 13, 14])).by(PAUSE_AND_BPF),
    ]
}
