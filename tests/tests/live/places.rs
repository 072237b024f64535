//! Every place where a Python can be: containers seen from outside and from inside, kernels that refuse system
//! calls, and what stands before a Python on the command line.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc::{SYS_process_vm_readv, SYS_ptrace};
use profiler_tests::labyrinth::{Place, judge};
use profiler_tests::place::{self, can_put_elsewhere, within};
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Frame, Interpreter, Profiler, Scratch, WORK, dumped_json, interpreters, missing,
    profiler_path,
};
use serde_json::Value;

const LABYRINTH: &str = "labyrinth/labyrinth.py";

/// CPU time of a target in which there are far more samples than are needed.
const ENOUGH_WORK: Duration = Duration::from_millis(200);

/// Two threads: one that sleeps, and one that works until its stdin closes, which says `ready` from where it works.
const WORKER: &str = "\
import os, select, threading
def work():
    print('ready', os.getpid(), flush=True)
    while not select.select([0], [], [], 0)[0]:
        for _ in range(10000): pass
threading.Thread(target=threading.Event().wait, name='sleeper', daemon=True).start()
work()
";

fn profile_of(scratch: &Scratch) -> Result<Collapsed> {
    Collapsed::parse(&fs::read_to_string(scratch.file("out.txt")).context("no data was written")?)
}

fn options(record: Profiler, case: &Case) -> Profiler {
    record.words(&case.sampler_words()).words("-f raw -r 500 -o")
}

fn record(case: &Case, scratch: &Scratch) -> Profiler {
    options(Profiler::new("record"), case).arg(scratch.file("out.txt"))
}

fn must_show_work(profile: &Collapsed) -> Result<()> {
    ensure!(profile.count(|stack| stack.contains("work")) > 0, "no work seen in {profile:?}");
    Ok(())
}

/// Nothing of the labyrinth is torn, and most of it was seen inside the maze.
fn must_be_the_maze(profile: &Collapsed) -> Result<()> {
    let mut in_the_maze = 0;
    for stack in &profile.stacks {
        if let Place::Maze { .. } = judge(&stack.frames)? {
            in_the_maze += stack.count;
        }
    }
    ensure!(in_the_maze * 2 > profile.total(), "{in_the_maze} of {} samples", profile.total());
    Ok(())
}

/// Both threads of the worker are there with the ids by which this namespace knows them, and it works.
fn must_be_the_worker(json: &str, threads: &[u32]) -> Result<()> {
    let ids: Vec<Value> = serde_json::from_str(json)?;
    for id in ids.iter().map(|thread| thread["os_thread_id"].as_u64()) {
        ensure!(threads.iter().any(|thread| Some(u64::from(*thread)) == id), "{id:?} is not of {threads:?}");
    }
    let dumped = dumped_json(json)?;
    let named = |name: &str| dumped.iter().find(|thread| thread.name.as_deref() == Some(name));
    let main = named("MainThread").context("no MainThread")?;
    ensure!(named("sleeper").is_some(), "no sleeper in {json}");
    let names: Vec<&str> = main.frames.iter().rev().map(Frame::plain_name).collect();
    ensure!(main.active && names == ["<module>", "work"], "{json}");
    Ok(())
}

fn threads_of(pid: u32) -> Result<Vec<u32>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().parse()?)).collect()
}

/// The ids by which the namespaces know the process, the innermost last.
fn ids_of(pid: u32) -> Result<Vec<String>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).context("no NSpid")?;
    Ok(ids.split_whitespace().map(str::to_owned).collect())
}

/// A worker in a container, as seen from outside: its fixture and its process id.
fn contained_worker(case: &Case) -> Result<(Fixture, u32)> {
    let words = within(place::in_own_namespaces(), case.interpreter.inline_words(WORKER));
    let fixture = Fixture::command(&words)?;
    let pid = fixture.only_child()?;
    ensure!(ids_of(pid)? == [pid.to_string(), "1".to_owned()], "{:?}", ids_of(pid)?);
    Ok((fixture, pid))
}

fn container_is_dumped_from_outside(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let (_fixture, pid) = contained_worker(case)?;
    let json = Profiler::new("dump").words(&format!("--json --pid {pid}")).succeed()?.stdout;
    must_be_the_worker(&json, &threads_of(pid)?)
}

fn container_is_recorded_from_outside(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let (_fixture, pid) = contained_worker(case)?;
    let running = record(case, &scratch).words(&format!("--pid {pid}")).spawn()?;
    running.end_after_cpu_time(pid, ENOUGH_WORK)?;
    must_show_work(&profile_of(&scratch)?)
}

/// In a mount namespace, the interpreter's folder stands at `/mnt` and nowhere else, and so does a package.
const MOVE_AWAY: &str = "\
mount --bind \"$1\" /mnt
mount -t tmpfs tmpfs \"$1\"
mount -t tmpfs tmpfs /media && mkdir /media/pack
: > /media/pack/__init__.py
printf '%s' \"$3\" > /media/pack/inner.py
export PYTHONHOME=/mnt LD_LIBRARY_PATH=/mnt/lib PYTHONPATH=/media
exec /mnt/bin/\"$2\" -c 'import pack.inner'
";

fn files_are_those_of_the_targets_root(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let path = PathBuf::from(&case.interpreter.words()[0]);
    let prefix = path.parent().and_then(Path::parent).context("a prefix")?;
    let is_library = |entry: fs::DirEntry| {
        entry.file_name().to_string_lossy().starts_with("libpython") && entry.path().is_file()
    };
    if !fs::read_dir(prefix.join("lib"))?.flatten().any(is_library) {
        missing("an interpreter with a libpython of its own");
        return Ok(());
    }
    let mut words: Vec<OsString> = "unshare --mount sh -ec".split(' ').map(Into::into).collect();
    words.extend([MOVE_AWAY.into(), "sh".into(), prefix.into()]);
    words.extend([path.file_name().context("a name")?.into(), WORKER.into()]);
    let fixture = Fixture::command(&words)?;
    let maps = fs::read_to_string(format!("/proc/{}/maps", fixture.pid()))?;
    ensure!(maps.contains(" /mnt/lib/libpython"), "{maps}");
    ensure!(!Path::new("/mnt/lib").exists() && !Path::new("/media/pack").exists(), "not hidden");
    // A package is known by its `__init__.py`, which only the root of the target has.
    let text = Profiler::new("dump").pid(&fixture).succeed()?.stdout;
    ensure!(text.contains("    work (pack/inner.py:"), "{text}");
    Ok(())
}

fn profiler_launches_inside_a_container(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let mut command = case.interpreter.inline_words(WORK);
    let record = match case.interpreter.root() {
        None => Profiler::within(&place::in_own_namespaces(), "record"),
        Some(root) => {
            // Behind `chroot` and the folder.
            command.drain(..2);
            Profiler::binary_within(&in_root(root), Path::new("/mnt/profiler"), "record")
        }
    };
    let run = options(record, case).arg("-").command(&command).succeed()?;
    must_show_work(&Collapsed::parse(&run.stdout)?)
}

/// Brings the profiler into a root folder without leaving anything there, and goes in.
const ENTER_ROOT: &str = "\
mount -t tmpfs tmpfs \"$1\"/mnt
cp \"$2\" \"$1\"/mnt/profiler
mount -t proc proc \"$1\"/proc
mount -t sysfs sysfs \"$1\"/sys
root=$1
shift 2
exec chroot \"$root\" \"$@\"
";

fn in_root(root: &Path) -> Vec<OsString> {
    let script = ["sh".into(), "-ec".into(), ENTER_ROOT.into(), "sh".into()];
    let folders = [root.into(), profiler_path().into()];
    within(place::in_own_namespaces(), [&script[..], &folders].concat())
}

fn profiler_attaches_inside_a_container(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let (_fixture, pid) = contained_worker(case)?;
    let inside = format!("nsenter --target {pid} --pid --mount");
    let inside: Vec<OsString> = inside.split(' ').map(Into::into).collect();
    let json = Profiler::within(&inside, "dump").words("--json --pid 1").succeed()?.stdout;
    let own_id = |thread: u32| Ok(ids_of(thread)?.last().context("no id")?.parse()?);
    let ids: Vec<u32> = threads_of(pid)?.into_iter().map(own_id).collect::<Result<_>>()?;
    must_be_the_worker(&json, &ids)?;
    let record = options(Profiler::within(&inside, "record"), case).words("- -d 0.3 --pid 1");
    must_show_work(&Collapsed::parse(&record.succeed()?.stdout)?)
}

fn foreign_proc_is_noticed_before_start(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let foreign = place::in_own_namespace_with_foreign_proc();
    let without = "unshare --mount sh -c".split(' ').map(Into::into);
    let without: Vec<OsString> =
        without.chain(["umount -l /proc; exec \"$@\"".into(), "sh".into()]).collect();
    for (place, hint) in [(foreign, "pid namespace"), (without, "not mounted")] {
        let run = Profiler::within(&place, "dump").words("--pid 3").fail(&[hint])?;
        run.must_say(&["mount -t proc proc /proc"])?;
        let record = options(Profiler::within(&place, "record"), case).arg(scratch.file("out.txt"));
        let run = record.command(&["sh", "-c", "echo started"]).fail(&[hint])?;
        ensure!(run.stdout.is_empty(), "the command was started");
        ensure!(!scratch.file("out.txt").exists(), "an output file was left behind");
    }
    Ok(())
}

fn memory_is_read_without_its_system_call(case: &Case) -> Result<()> {
    let place = place::without_calls(&[(SYS_process_vm_readv, Errno::ENOSYS)]);
    let scratch = Scratch::new()?;
    let fixture = Fixture::start(case.interpreter, LABYRINTH, &["--threads", "2"])?;
    let json = Profiler::within(&place, "dump").words("--json").pid(&fixture).succeed()?.stdout;
    for thread in dumped_json(&json)?.iter().filter(|thread| !thread.frames.is_empty()) {
        judge(&thread.root_first())?;
    }
    let record = options(Profiler::within(&place, "record"), case).arg(scratch.file("out.txt"));
    record.pid(&fixture).spawn()?.end_after_cpu_time(fixture.pid(), ENOUGH_WORK)?;
    must_be_the_maze(&profile_of(&scratch)?)
}

/// Waits in a function that says `ready`.
const SLEEPER: &str = "\
import os, sys
def sleep():
    print('ready', os.getpid(), flush=True)
    sys.stdin.readline()
sleep()
";

fn forbidden_reading_and_tracing_are_named(case: &Case) -> Result<()> {
    let refused = [(SYS_process_vm_readv, Errno::EPERM), (SYS_ptrace, Errno::EPERM)];
    let place = place::without_calls(&refused);
    let scratch = Scratch::new()?;
    let fixture = Fixture::inline(case.interpreter, SLEEPER)?;
    profiler_tests::wait_until_still(fixture.pid())?;
    let dump = Profiler::within(&place, "dump").pid(&fixture).fail(&[])?;
    // Left to itself it takes the sampler that neither traces nor reads, where the machine allows that.
    let record = options(Profiler::within(&place, "record"), case).arg(scratch.file("out.txt"));
    let record = record.command(&["sh", "-c", "echo started"]).fail(&[])?;
    for hint in ["--nonblocking", "SYS_PTRACE", "seccomp"] {
        dump.must_say(&[hint])?;
        record.must_say(&[hint])?;
    }
    ensure!(record.stdout.is_empty(), "the command was started");
    ensure!(!scratch.file("out.txt").exists(), "an output file was left behind");
    // What needs no stop works: the memory is read as a file.
    let run = Profiler::within(&place, "dump").words("--json --nonblocking").pid(&fixture).succeed()?;
    let threads = dumped_json(&run.stdout)?;
    ensure!(threads.len() == 1 && threads[0].leaf() == "sleep", "{threads:?}");
    Ok(())
}

/// Makes an executable file.
fn script(path: &Path, text: &str) -> Result<OsString> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(path.into())
}

/// The ways in which people start a Python other than by its name, each with the words that it takes before
/// `-c SOURCE`. In each of them the process that is started becomes the Python.
fn wrappers(case: &Case, scratch: &Scratch) -> Result<Vec<(&'static str, Vec<OsString>)>> {
    let python = case.interpreter.words().remove(0);
    let shown = python.to_string_lossy();
    let venv = scratch.file("venv");
    let made = Command::new(&python).args(["-m", "venv", "--without-pip"]).arg(&venv).status()?;
    ensure!(made.success(), "no virtual environment");
    let in_venv = venv.join("bin/python");
    let by_shell = script(
        &scratch.file("starter"),
        &format!("#!/bin/sh\n# As pyenv's are.\nset -e\nversion=$(true)\nexec {shown} \"$@\"\n"),
    )?;
    let console = script(
        &scratch.file("console"),
        &format!("#!{}\nimport sys\nexec(sys.argv[2])\n", in_venv.display()),
    )?;
    let by_env =
        script(&scratch.file("by-env"), &format!("#!/usr/bin/env {shown}\nimport sys\nexec(sys.argv[2])\n"))?;
    let runner = script(
        &scratch.file("runner"),
        &format!("#!{shown}\nimport os, sys\nos.execv({shown:?}, sys.argv)\n"),
    )?;
    let words = |words: &[&str]| words.iter().map(Into::into).collect::<Vec<OsString>>();
    Ok(vec![
        ("env", words(&["env", "A=1", &shown])),
        ("nice", words(&["nice", &shown])),
        ("a shell that execs", words(&["sh", "-c", "exec \"$0\" \"$@\"", &shown])),
        ("a shell script", vec![by_shell]),
        ("a virtual environment", vec![in_venv.into()]),
        ("a console script", vec![console]),
        ("a script by env", vec![by_env]),
        ("a runner in Python", vec![runner]),
    ])
}

fn wrappers_that_become_python_are_recorded(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    for (name, words) in wrappers(case, &scratch)? {
        let command = [&words[..], &["-c".into(), WORK.into()]].concat();
        record(case, &scratch).command(&command).succeed().context(name)?;
        must_show_work(&profile_of(&scratch)?).context(name)?;
    }
    Ok(())
}

fn wrappers_that_become_python_are_attached_to(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    for (name, words) in wrappers(case, &scratch)? {
        let fixture =
            Fixture::command(&[&words[..], &["-c".into(), WORKER.into()]].concat()).context(name)?;
        let text = Profiler::new("dump").pid(&fixture).succeed().context(name)?.stdout;
        ensure!(text.contains("work ("), "{name}: {text}");
    }
    Ok(())
}

/// Commands that start a Python as another process and wait for it, as `uv run` and the like do.
fn parents(case: &Case) -> Vec<(&'static str, Vec<OsString>)> {
    let python = case.interpreter.words().remove(0);
    vec![
        ("a shell", vec!["sh".into(), "-c".into(), "\"$0\" \"$@\"; exit $?".into(), python.clone()]),
        ("timeout", vec!["timeout".into(), "60".into(), python]),
    ]
}

fn waiting_wrapper_is_refused_with_advice(case: &Case) -> Result<()> {
    for (name, words) in parents(case) {
        let scratch = Scratch::new()?;
        let command = [&words[..], &["-c".into(), WORK.into()]].concat();
        let run = record(case, &scratch).command(&command).fail(&["--subprocesses"]).context(name)?;
        run.must_say(&["has started python"]).context(name)?;
        ensure!(!scratch.file("out.txt").exists(), "{name}: an output file was left behind");
        record(case, &scratch).words("-s").command(&command).succeed().context(name)?;
        must_show_work(&profile_of(&scratch)?).context(name)?;
    }
    Ok(())
}

fn waiting_wrapper_names_its_python_in_dump(case: &Case) -> Result<()> {
    for (name, words) in parents(case) {
        let fixture =
            Fixture::command(&[&words[..], &["-c".into(), WORKER.into()]].concat()).context(name)?;
        let child = format!("--pid {}", fixture.only_child()?);
        let run = Profiler::new("dump").pid(&fixture).fail(&[&child]).context(name)?;
        run.must_say(&["--subprocesses"]).context(name)?;
        Profiler::new("dump").words(&child).succeed().context(name)?;
    }
    Ok(())
}

/// Each interpreter takes the name of its work from its version, and becomes the next one.
const TURN: &str = "\
import os, sys, time
name, end = 'work_%d' % sys.version_info[1], time.process_time() + 0.2
work = 'def %s():\\n    while time.process_time() < end: pass\\n%s()' % (name, name)
exec(compile(work, 'x', 'exec'))
if len(sys.argv) > 1:
    os.execv(sys.argv[1], [sys.argv[1], __file__] + sys.argv[2:])
";

fn one_process_becomes_each_interpreter(case: &Case) -> Result<()> {
    let here: Vec<&Interpreter> = interpreters().iter().filter(|one| one.root().is_none()).collect();
    let scratch = Scratch::new()?;
    let source = scratch.file("turn.py");
    fs::write(&source, TURN)?;
    let paths: Vec<OsString> = here.iter().map(|one| one.words().remove(0)).collect();
    let words = [&paths[..1], &[source.into()], &paths[1..]].concat();
    record(case, &scratch).command(&words).succeed()?;
    let profile = profile_of(&scratch)?;
    for one in here {
        let name = format!("work_{}", one.minor);
        ensure!(profile.count(|stack| stack.contains(&name)) > 0, "{name} was not seen in {profile:?}");
    }
    Ok(())
}

fn pyenv_shim_is_recorded(case: &Case) -> Result<()> {
    let python = PathBuf::from(&case.interpreter.words()[0]);
    // `ROOT/versions/VERSION/bin/python`
    let folders: Vec<&Path> = python.ancestors().skip(1).take(4).collect();
    let shim = folders.get(3).map(|root| root.join("shims/python")).filter(|shim| shim.exists());
    let Some(shim) = shim else {
        missing("a shim of pyenv");
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let version = folders[1].file_name().context("a version")?;
    let command = [shim.as_os_str(), "-c".as_ref(), WORK.as_ref()];
    record(case, &scratch).env("PYENV_VERSION", version).command(&command).succeed()?;
    must_show_work(&profile_of(&scratch)?)
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    const PAUSE: &[Sampler] = &[Sampler::Pause];
    vec![
        test!(container_is_dumped_from_outside).on(On::Every),
        test!(container_is_recorded_from_outside).on(On::Layouts).by(PAUSE_AND_BPF),
        test!(files_are_those_of_the_targets_root),
        test!(profiler_launches_inside_a_container).on(On::Every).by(PAUSE),
        test!(profiler_launches_inside_a_container).on(On::Layouts).by(&[Sampler::Bpf]),
        test!(profiler_attaches_inside_a_container).by(PAUSE_AND_BPF),
        test!(foreign_proc_is_noticed_before_start).by(PAUSE),
        test!(memory_is_read_without_its_system_call).on(On::Layouts).by(PAUSE_AND_BPF),
        test!(forbidden_reading_and_tracing_are_named).by(PAUSE),
        test!(wrappers_that_become_python_are_recorded).by(PAUSE_AND_BPF),
        test!(wrappers_that_become_python_are_attached_to),
        test!(waiting_wrapper_is_refused_with_advice).by(PAUSE_AND_BPF),
        test!(waiting_wrapper_names_its_python_in_dump),
        test!(one_process_becomes_each_interpreter).by(PAUSE_AND_BPF),
        test!(pyenv_shim_is_recorded).by(PAUSE),
    ]
}
