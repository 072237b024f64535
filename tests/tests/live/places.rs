//! Every place a Python can hide: containers seen from outside and from inside, kernels that refuse system
//! calls, and what stands before a Python on the command line.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc::{SYS_process_vm_readv, SYS_ptrace};
use profiler_tests::labyrinth::{Place, judge};
use profiler_tests::place::{self, can_put_elsewhere, within};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Frame, Interpreter, Profiler, Scratch, WORK, dumped_json, every_interpreter,
    interpreters, missing, one_interpreter, profiler_path,
};
use serde_json::Value;

const LABYRINTH: &str = "labyrinth/labyrinth.py";

/// Two threads: one that sleeps, and one that works until its stdin closes and says so from within.
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

fn a_target_in_a_container_is_seen_from_outside() {
    if !can_put_elsewhere() {
        return;
    }
    every_interpreter(|interpreter| {
        let scratch = Scratch::new()?;
        let words = within(place::in_own_namespaces(), interpreter.inline_words(WORKER));
        let fixture = Fixture::command(&words)?;
        let pid = fixture.only_child()?;
        ensure!(ids_of(pid)? == [pid.to_string(), "1".to_owned()], "{:?}", ids_of(pid)?);
        let option = format!("--pid {pid}");
        let json = Profiler::new("dump").words("--json").words(&option).succeed()?.stdout;
        must_be_the_worker(&json, &threads_of(pid)?)?;
        let run = Profiler::new("record").words("-f raw -r 300 -d 0.4").words(&option).arg("-o");
        run.arg(scratch.file("out.txt")).succeed()?;
        must_show_work(&profile_of(&scratch)?)
    });
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

fn libraries_and_sources_are_those_of_the_targets_own_root() {
    if !can_put_elsewhere() {
        return;
    }
    let interpreter = one_interpreter();
    let path = PathBuf::from(&interpreter.words()[0]);
    let prefix = path.parent().and_then(Path::parent).unwrap();
    let is_shared = fs::read_dir(prefix.join("lib"))
        .unwrap()
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libpython") && entry.path().is_file());
    if !is_shared {
        return missing("an interpreter with a libpython of its own");
    }
    let script = "unshare --mount sh -ec";
    let mut words: Vec<OsString> = script.split(' ').map(Into::into).collect();
    words.extend([MOVE_AWAY.into(), "sh".into(), prefix.into()]);
    words.extend([path.file_name().unwrap().into(), WORKER.into()]);
    let fixture = Fixture::command(&words).unwrap();
    let maps = fs::read_to_string(format!("/proc/{}/maps", fixture.pid())).unwrap();
    assert!(maps.contains(" /mnt/lib/libpython"), "{maps}");
    assert!(!Path::new("/mnt/lib").exists() && !Path::new("/media/pack").exists());
    // The package is told by its `__init__.py`, which only the target's root has.
    let text = Profiler::new("dump").pid(&fixture).succeed().unwrap().stdout;
    assert!(text.contains("    work (pack/inner.py:"), "{text}");
}

fn the_profiler_records_inside_a_container() {
    if !can_put_elsewhere() {
        return;
    }
    every_interpreter(|interpreter| {
        let mut command = interpreter.inline_words(WORK);
        let run = match interpreter.root() {
            None => Profiler::within(&place::in_own_namespaces(), "record"),
            Some(root) => {
                // Behind `chroot` and the folder.
                command.drain(..2);
                Profiler::binary_within(&in_root(root), Path::new("/mnt/profiler"), "record")
            }
        };
        let run = run.words("-f raw -r 500 -o -").command(&command).succeed()?;
        must_show_work(&Collapsed::parse(&run.stdout)?)
    });
}

/// Brings the profiler into a root folder without leaving anything there, and goes in.
const ENTER_ROOT: &str = "\
mount -t tmpfs tmpfs \"$1\"/mnt
cp \"$2\" \"$1\"/mnt/profiler
mount -t proc proc \"$1\"/proc
root=$1
shift 2
exec chroot \"$root\" \"$@\"
";

fn in_root(root: &Path) -> Vec<OsString> {
    let script = ["sh".into(), "-ec".into(), ENTER_ROOT.into(), "sh".into()];
    let folders = [root.into(), profiler_path().into()];
    within(place::in_own_namespaces(), [&script[..], &folders].concat())
}

fn the_profiler_attaches_inside_a_container() {
    if !can_put_elsewhere() {
        return;
    }
    let words = within(place::in_own_namespaces(), one_interpreter().inline_words(WORKER));
    let fixture = Fixture::command(&words).unwrap();
    let pid = fixture.only_child().unwrap();
    let inside = format!("nsenter --target {pid} --pid --mount");
    let inside: Vec<OsString> = inside.split(' ').map(Into::into).collect();
    let json = Profiler::within(&inside, "dump").words("--json --pid 1").succeed().unwrap().stdout;
    let mut ids = Vec::new();
    for thread in threads_of(pid).unwrap() {
        ids.push(ids_of(thread).unwrap().last().unwrap().parse().unwrap());
    }
    must_be_the_worker(&json, &ids).unwrap();
    let run = Profiler::within(&inside, "record").words("-f raw -r 300 -d 0.4 --pid 1 -o -").succeed();
    must_show_work(&Collapsed::parse(&run.unwrap().stdout).unwrap()).unwrap();
}

fn a_proc_that_shows_other_processes_is_noticed_before_anything_is_started() {
    if !can_put_elsewhere() {
        return;
    }
    let scratch = Scratch::new().unwrap();
    let foreign = place::in_own_namespace_with_foreign_proc();
    let without = "unshare --mount sh -c".split(' ').map(Into::into);
    let without: Vec<OsString> =
        without.chain(["umount -l /proc; exec \"$@\"".into(), "sh".into()]).collect();
    for (place, hint) in [(foreign, "pid namespace"), (without, "not mounted")] {
        let run = Profiler::within(&place, "dump").words("--pid 3").fail(&[hint]).unwrap();
        run.must_say(&["mount -t proc proc /proc"]).unwrap();
        let run = Profiler::within(&place, "record").words("-f raw -o").arg(scratch.file("out.txt"));
        let run = run.command(&["sh", "-c", "echo started"]).fail(&[hint]).unwrap();
        assert_eq!(run.stdout, "", "the command was started");
        assert!(!scratch.file("out.txt").exists());
    }
}

fn a_kernel_without_the_call_that_reads_memory() {
    let place = place::without_calls(&[(SYS_process_vm_readv, Errno::ENOSYS)]);
    every_interpreter(|interpreter| {
        let scratch = Scratch::new()?;
        let fixture = Fixture::start(interpreter, LABYRINTH, &["--threads", "2"])?;
        let json = Profiler::within(&place, "dump").words("--json").pid(&fixture).succeed()?.stdout;
        for thread in dumped_json(&json)?.iter().filter(|thread| !thread.frames.is_empty()) {
            judge(&thread.root_first())?;
        }
        let run = Profiler::within(&place, "record").words("-f raw -r 300 -d 0.4 -o");
        run.arg(scratch.file("out.txt")).pid(&fixture).succeed()?;
        must_be_the_maze(&profile_of(&scratch)?)
    });
}

fn a_container_that_forbids_to_read_and_to_trace() {
    let refused = [(SYS_process_vm_readv, Errno::EPERM), (SYS_ptrace, Errno::EPERM)];
    let place = place::without_calls(&refused);
    let scratch = Scratch::new().unwrap();
    let source = "import os, sys\ndef sleep():\n    print('ready', os.getpid(), flush=True)\n    \
                  sys.stdin.readline()\nsleep()";
    let fixture = Fixture::inline(one_interpreter(), source).unwrap();
    profiler_tests::wait_until_still(fixture.pid()).unwrap();
    let hints = ["--nonblocking", "SYS_PTRACE", "seccomp"];
    let dump = Profiler::within(&place, "dump").pid(&fixture).fail(&[]).unwrap();
    // Left to itself it takes the sampler that neither traces nor reads, where the machine allows that.
    let record = Profiler::within(&place, "record").words("--sampler pause -f raw -o");
    let record = record.arg(scratch.file("out.txt"));
    let record = record.command(&["sh", "-c", "echo started"]).fail(&[]).unwrap();
    for hint in hints {
        dump.must_say(&[hint]).unwrap();
        record.must_say(&[hint]).unwrap();
    }
    assert_eq!(record.stdout, "", "the command was started");
    assert!(!scratch.file("out.txt").exists());
    // What needs no stop works: the memory is read as a file.
    let run = Profiler::within(&place, "dump").words("--json --nonblocking").pid(&fixture).succeed();
    let threads = dumped_json(&run.unwrap().stdout).unwrap();
    assert!(threads.len() == 1 && threads[0].leaf() == "sleep", "{threads:?}");
}

/// Makes an executable file.
fn script(path: &Path, text: &str) -> Result<OsString> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(path.into())
}

/// The ways in which people start a Python other than by its name, each with the words that it takes before
/// `-c SOURCE`. In each of them the process that is started becomes the Python.
fn wrappers(scratch: &Scratch) -> Result<Vec<(&'static str, Vec<OsString>)>> {
    let python = one_interpreter().words().remove(0);
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

fn wrappers_that_become_python_are_recorded_and_attached_to() {
    let scratch = Scratch::new().unwrap();
    for (name, words) in wrappers(&scratch).unwrap() {
        let command = |source: &str| [&words[..], &["-c".into(), source.into()]].concat();
        let run = Profiler::new("record").words("-f raw -r 500 -o").arg(scratch.file("out.txt"));
        run.command(&command(WORK)).succeed().context(name).unwrap();
        must_show_work(&profile_of(&scratch).unwrap()).context(name).unwrap();
        let fixture = Fixture::command(&command(WORKER)).context(name).unwrap();
        let text = Profiler::new("dump").pid(&fixture).succeed().context(name).unwrap().stdout;
        assert!(text.contains("work ("), "{name}: {text}");
    }
}

/// Commands that start a Python as another process and wait for it, as `uv run` and the like do.
fn parents() -> Vec<(&'static str, Vec<OsString>)> {
    let python = one_interpreter().words().remove(0);
    vec![
        ("a shell", vec!["sh".into(), "-c".into(), "\"$0\" \"$@\"; exit $?".into(), python.clone()]),
        ("timeout", vec!["timeout".into(), "60".into(), python]),
    ]
}

fn a_wrapper_that_waits_for_its_python_says_what_to_do() {
    let scratch = Scratch::new().unwrap();
    for (name, words) in parents() {
        let command = |source: &str| [&words[..], &["-c".into(), source.into()]].concat();
        let record = || Profiler::new("record").words("-f raw -r 500 -o").arg(scratch.file("out.txt"));
        let run = record().command(&command(WORK)).fail(&["--subprocesses"]).context(name).unwrap();
        run.must_say(&["has started python"]).context(name).unwrap();
        assert!(!scratch.file("out.txt").exists(), "{name}");
        record().words("-s").command(&command(WORK)).succeed().context(name).unwrap();
        must_show_work(&profile_of(&scratch).unwrap()).context(name).unwrap();
        fs::remove_file(scratch.file("out.txt")).unwrap();
        let fixture = Fixture::command(&command(WORKER)).context(name).unwrap();
        let child = format!("--pid {}", fixture.only_child().unwrap());
        let run = Profiler::new("dump").pid(&fixture).fail(&[&child]).context(name).unwrap();
        run.must_say(&["--subprocesses"]).context(name).unwrap();
        Profiler::new("dump").words(&child).succeed().context(name).unwrap();
    }
}

fn one_process_that_is_each_interpreter_in_turn() {
    let here: Vec<&Interpreter> = interpreters().iter().filter(|one| one.root().is_none()).collect();
    let scratch = Scratch::new().unwrap();
    let source = scratch.file("turn.py");
    // Each takes its work's name from its version and becomes the next one.
    let text = "import os, sys, time\n\
                name, end = 'work_%d' % sys.version_info[1], time.process_time() + 0.2\n\
                work = 'def %s():\\n    while time.process_time() < end: pass\\n%s()' % (name, name)\n\
                exec(compile(work, 'x', 'exec'))\n\
                if len(sys.argv) > 1:\n    os.execv(sys.argv[1], [sys.argv[1], __file__] + sys.argv[2:])\n";
    fs::write(&source, text).unwrap();
    let paths: Vec<OsString> = here.iter().map(|one| one.words().remove(0)).collect();
    let words = [&paths[..1], &[source.into()], &paths[1..]].concat();
    let run = Profiler::new("record").words("-f raw -r 500 -o").arg(scratch.file("out.txt"));
    run.command(&words).succeed().unwrap();
    let profile = profile_of(&scratch).unwrap();
    for one in here {
        let name = format!("work_{}", one.minor);
        assert!(profile.count(|stack| stack.contains(&name)) > 0, "{name} was not seen in {profile:?}");
    }
}

fn a_pyenv_shim_is_recorded() {
    let interpreter = one_interpreter();
    let python = PathBuf::from(&interpreter.words()[0]);
    // `ROOT/versions/VERSION/bin/python`
    let folders: Vec<&Path> = python.ancestors().skip(1).take(4).collect();
    let shim = folders.get(3).map(|root| root.join("shims/python")).filter(|shim| shim.exists());
    let Some(shim) = shim else { return missing("a shim of pyenv") };
    let scratch = Scratch::new().unwrap();
    let run = Profiler::new("record").env("PYENV_VERSION", folders[1].file_name().unwrap());
    let run = run.words("-f raw -r 500 -o").arg(scratch.file("out.txt"));
    run.command(&[shim.as_os_str(), "-c".as_ref(), WORK.as_ref()]).succeed().unwrap();
    must_show_work(&profile_of(&scratch).unwrap()).unwrap();
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(a_target_in_a_container_is_seen_from_outside),
        test!(libraries_and_sources_are_those_of_the_targets_own_root),
        test!(the_profiler_records_inside_a_container),
        test!(the_profiler_attaches_inside_a_container),
        test!(a_proc_that_shows_other_processes_is_noticed_before_anything_is_started),
        test!(a_kernel_without_the_call_that_reads_memory),
        test!(a_container_that_forbids_to_read_and_to_trace),
        test!(wrappers_that_become_python_are_recorded_and_attached_to),
        test!(a_wrapper_that_waits_for_its_python_says_what_to_do),
        test!(one_process_that_is_each_interpreter_in_turn),
        test!(a_pyenv_shim_is_recorded),
    ]
}
