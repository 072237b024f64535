//! Programs of any name that run Python: one that has it linked in and is stripped, and ones that start it as a child.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::{Collapsed, Fixture, Profiler, Scratch, dumped_json, fixture_folder, missing, test};

/// Announces itself, its parent first if the parent is the fixture, and works until it is ended.
const WORK: &str = "\
import os
def work():
    while True: pass
print('ready', *PIDS, flush=True)
work()
";

/// CPU time of a target in which there are far more samples than a test needs.
const ENOUGH_WORK: Duration = Duration::from_millis(200);

/// How much of a command is recorded that never becomes a Python itself.
const RECORDED: &str = "-d 0.2";

/// The versions that do not describe themselves, in the last of which a section leads to the runtime.
const OLD: On = On::Minors(&[6, 7, 8, 9, 10, 12]);
/// One of these.
const ONE_OLD: On = On::Minors(&[8]);

/// Where the interpreter has its standard library, its headers and what a program is linked with to embed it.
const QUESTION: &str = "\
import os, sys, sysconfig
get = sysconfig.get_config_var
print(sys.base_prefix)
print(get('INCLUDEPY'))
print(os.path.join(get('LIBPL'), get('LIBRARY')))
print(get('LIBS'), get('SYSLIBS'), '-lm')
";

/// The words that run `fixtures/embedding/embedding.c` with these arguments, built without symbols; `None` where the
/// interpreter has no static library.
fn service_words(case: &Case, scratch: &Scratch, arguments: &[&str]) -> Result<Option<Vec<OsString>>> {
    let words = case.interpreter.inline_words(QUESTION);
    let answer = String::from_utf8(Command::new(&words[0]).args(&words[1..]).output()?.stdout)?;
    let lines: Vec<&str> = answer.lines().collect();
    let [home, headers, library, libraries] = lines[..] else { anyhow::bail!("answer {answer:?}") };
    if !Path::new(library).exists() {
        missing(&format!("{library}, to be linked into a program"));
        return Ok(None);
    }
    let program = scratch.file("service");
    let mut compiler = Command::new("gcc");
    compiler.arg("-s").arg("-o").arg(&program).arg(format!("-I{headers}"));
    compiler.arg(fixture_folder().join("embedding/embedding.c")).arg(library);
    let built = compiler.args(libraries.split_whitespace()).output()?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let mut words = vec!["env".into(), format!("PYTHONHOME={home}").into(), program.into()];
    words.extend(arguments.iter().map(OsString::from));
    Ok(Some(words))
}

fn service(case: &Case, scratch: &Scratch) -> Result<Option<Fixture>> {
    let code = WORK.replace("*PIDS", "os.getpid()");
    let words = service_words(case, scratch, &[&code])?;
    words.map(|words| Fixture::start_words(&words)).transpose()
}

/// The words of a parent that has Python only for its child.
fn parent_words(case: &Case, scratch: &Scratch) -> Result<Option<Vec<OsString>>> {
    let code = WORK.replace("*PIDS", "os.getppid(), os.getpid()");
    service_words(case, scratch, &["--fork", &code])
}

fn stripped_program_of_another_name_is_dumped(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let Some(fixture) = service(case, &scratch)? else { return Ok(()) };
    let dumped = dumped_json(&Profiler::new("dump").words("--json").pid(&fixture).succeed()?.stdout)?;
    ensure!(dumped.len() == 1 && dumped[0].leaf() == "work", "{dumped:?}");
    Ok(())
}

fn stripped_program_of_another_name_is_recorded(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let Some(fixture) = service(case, &scratch)? else { return Ok(()) };
    let file = scratch.file("out.txt");
    let record = Profiler::new("record").words(&case.sampler_words()).words("-f raw -r 500 -o").arg(&file);
    let run = record.pid(&fixture).spawn()?.end_after_cpu_time(fixture.pid(), ENOUGH_WORK)?;
    let profile = Collapsed::parse(&std::fs::read_to_string(&file)?)?;
    ensure!(profile.count(|stack| stack.contains("work")) > 10, "{}", run.stderr);
    Ok(())
}

fn command_whose_child_is_python_ends_in_its_time(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let Some(words) = parent_words(case, &scratch)? else { return Ok(()) };
    let out = scratch.file("out.txt");
    let record = Profiler::new("record").words(&case.sampler_words()).words(RECORDED).arg("-o").arg(&out);
    let run = record.command(&words).fail(&["no Python came up in"])?;
    for part in ["it has started service (process ", "which runs Python", "--subprocesses"] {
        ensure!(run.stderr.contains(part), "no {part:?} in\n{}", run.stderr);
    }
    ensure!(!out.exists(), "a picture of nothing");
    Ok(())
}

fn parent_with_python_for_its_children_is_advised(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let Some(words) = parent_words(case, &scratch)? else { return Ok(()) };
    let fixture = Fixture::start_words(&words)?;
    let child = fixture.children()[0];
    let run = Profiler::new("dump").pid(&fixture).fail(&["no running interpreter"])?;
    for part in [&format!("--pid {child}: it has started service"), "--subprocesses"] {
        ensure!(run.stderr.contains(part), "no {part:?} in\n{}", run.stderr);
    }
    let dumped = dumped_json(&Profiler::new("dump").words("-s --json").pid(&fixture).succeed()?.stdout)?;
    let pids: Vec<_> = dumped.iter().map(|thread| thread.pid).collect();
    ensure!(pids == [Some(child)], "dumped were {pids:?}");
    Ok(())
}

/// Waits until its child runs the program that ends with the given name, announces itself and rests.
const PARENT_OF_ANOTHER: &str = "\
import os, sys, time
child = open('/proc/self/task/%d/children' % os.getpid()).read().strip()
while not os.readlink('/proc/%s/exe' % child).endswith(sys.argv[1]): time.sleep(0.001)
print('ready', os.getpid(), child, flush=True)
sys.stdin.read()
";

fn child_with_python_2_is_named(case: &Case) -> Result<()> {
    const NAME: &str = "python2.7";
    let scratch = Scratch::new()?;
    // An executable of that name is taken for one.
    std::fs::copy("/bin/cat", scratch.file(NAME))?;
    let mut words = vec!["sh".into(), "-c".into(), "exec 3<&0; \"$0\" <&3 & exec \"$@\"".into()];
    words.push(scratch.file(NAME).into());
    words.extend(case.interpreter.inline_words(PARENT_OF_ANOTHER));
    words.push(NAME.into());
    let fixture = Fixture::start_words(&words)?;
    let child = fixture.children().first().context("no child")?;
    let run = Profiler::new("dump").words("-s").pid(&fixture).succeed()?;
    for part in [&format!("left out: process {child} ("), "it runs Python 2; CPython 3.6 to 3.15"] {
        ensure!(run.stderr.contains(part), "no {part:?} in\n{}", run.stderr);
    }
    ensure!(run.stdout.contains(&format!("Process {}:", fixture.pid())), "{}", run.stdout);
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(stripped_program_of_another_name_is_dumped).on(OLD),
        test!(stripped_program_of_another_name_is_recorded).on(ONE_OLD).by(&[
            Sampler::Pause,
            Sampler::Bpf,
            Sampler::Peek,
        ]),
        test!(command_whose_child_is_python_ends_in_its_time).on(ONE_OLD).by(PAUSE_AND_BPF),
        test!(parent_with_python_for_its_children_is_advised).on(ONE_OLD),
        test!(child_with_python_2_is_named),
    ]
}
