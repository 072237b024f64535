//! Under whom the profiler runs, and whom the target belongs to: an ordinary user on what is his own, root
//! by `sudo`, and the refusals, which say what would help.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use profiler_tests::labyrinth::{Place, judge};
use profiler_tests::place::{self, NOBODY, can_put_elsewhere};
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Profiler, Run, Scratch, Stack, dumped_json, dumped_text, every_interpreter,
    fixture_folder, missing, one_interpreter,
};

/// The system's interpreter: other users cannot reach those in somebody's home.
const SYSTEM_PYTHON: &str = "/usr/bin/python3";

/// CPU time in which there are far more samples than are asked for, however long a busy machine takes for it.
const ENOUGH_WORK: Duration = Duration::from_millis(300);

/// Works until its stdin closes, which a thread watches, and then for 0.3 s of its CPU time: however slowly a busy
/// machine lets the profiler start, there is work to be seen.
const WORK: &str = "\
import os, sys, threading, time
over = []
def watch():
    sys.stdin.read()
    over.append(time.process_time() + 0.3)
threading.Thread(target=watch, name='watcher').start()
def work():
    while not over or time.process_time() < over[0]:
        for _ in range(1000): pass
";

/// A program that says these things and works then.
fn worker(says: &str) -> String {
    format!("{WORK}{says}\nwork()\n")
}

/// The same as a fixture.
fn ready_worker() -> String {
    worker("print('ready', os.getpid(), flush=True)")
}

/// Runs a profiler that has started a worker until it has sampled it.
fn record_worker(record: Profiler) -> Result<Run> {
    let mut running = record.with_stdin().spawn()?;
    running.wait_until_sampling()?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    Ok(run)
}

fn profile_of(scratch: &Scratch) -> Result<Collapsed> {
    Collapsed::parse(&fs::read_to_string(scratch.file("out.txt")).context("no data was written")?)
}

/// Every stack of the worker's main thread is one that it can have.
fn must_show_work(profile: &Collapsed) -> Result<()> {
    let mut seen = 0;
    for stack in &profile.stacks {
        let names: Vec<&str> = stack.frames.iter().map(|frame| frame.plain_name()).collect();
        if names.contains(&"work") {
            ensure!(names == ["<module>", "work"], "{names:?}");
            seen += stack.count;
        }
    }
    ensure!(seen >= 20, "only {seen} samples of the work");
    Ok(())
}

fn an_ordinary_user_looks_into_his_own_process() {
    if !can_put_elsewhere() {
        return;
    }
    every_interpreter(|interpreter| {
        let Some(words) = place::inline_as_nobody(interpreter, &ready_worker()) else { return Ok(()) };
        let scratch = Scratch::new()?;
        let fixture = Fixture::command(&words)?;
        let text = Profiler::as_nobody("dump", &scratch)?.pid(&fixture).succeed()?.stdout;
        let threads = dumped_text(&text, fixture.pid())?;
        ensure!(threads.len() == 2, "{text}");
        ensure!(threads.iter().any(|thread| thread.active && thread.leaf() == "work"), "{text}");
        let run = Profiler::as_nobody("record", &scratch)?.words("-f raw -r 200 -o");
        let running = run.arg(scratch.file("out.txt")).pid(&fixture).spawn()?;
        running.end_after_cpu_time(fixture.pid(), ENOUGH_WORK)?;
        must_show_work(&profile_of(&scratch)?)
    });
}

fn an_ordinary_users_launched_command_is_recorded_whole_and_without_real_time_priority() {
    if !can_put_elsewhere() {
        return;
    }
    let scratch = Scratch::new().unwrap();
    let maze = scratch.file("labyrinth.py");
    fs::copy(fixture_folder().join("labyrinth/labyrinth.py"), &maze).unwrap();
    let run = Profiler::as_nobody("record", &scratch).unwrap().words("-f raw -r 500 -o");
    let words = [SYSTEM_PYTHON.as_ref(), maze.as_os_str(), "--seconds".as_ref(), "1".as_ref()];
    let mut running = run.arg(scratch.file("out.txt")).command(&words).with_stdin().spawn().unwrap();
    running.wait_until_sampling().unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", running.pid())).unwrap();
    // Behind the name: 3 is the state, 41 the scheduling policy; 0 is the ordinary one.
    let policy = stat.rsplit(')').next().unwrap().split_whitespace().nth(41 - 3).unwrap();
    assert_eq!(policy, "0", "{stat}");
    let run = running.wait().unwrap();
    assert_eq!(run.code(), Some(0), "{run:?}");
    let mut in_the_maze = 0;
    // What comes before the walk, from the very start of the interpreter, is not the maze's.
    let is_of_the_maze =
        |stack: &&Stack| stack.frames.iter().any(|frame| frame.file.as_deref() == Some("maze.py"));
    for stack in profile_of(&scratch).unwrap().stacks.iter().filter(is_of_the_maze) {
        if let Place::Maze { .. } = judge(&stack.frames).unwrap() {
            in_the_maze += stack.count;
        }
    }
    assert!(in_the_maze >= 50, "only {in_the_maze} samples of the maze");
}

/// `profiler record` as `sudo` starts it for the user nobody.
fn under_sudo(scratch: &Scratch) -> Profiler {
    Profiler::new("record")
        .env("SUDO_UID", NOBODY.to_string())
        .env("SUDO_GID", NOBODY.to_string())
        .env("SUDO_USER", "nobody")
        .env("HOME", "/root")
        .env("USER", "root")
        .words("-f raw -r 500 -o")
        .arg(scratch.file("out.txt"))
}

/// The user and group that own what was written.
fn owner(scratch: &Scratch) -> Result<(u32, u32)> {
    let file = fs::metadata(scratch.file("out.txt"))?;
    Ok((file.uid(), file.gid()))
}

fn under_sudo_a_launched_command_and_what_is_written_belong_to_the_invoking_user() {
    if !can_put_elsewhere() {
        return;
    }
    let scratch = Scratch::new().unwrap();
    let source = worker(
        "print(*os.getresuid(), *os.getresgid(), *os.getgroups(), os.environ['USER'], os.environ['HOME'])",
    );
    let run = record_worker(under_sudo(&scratch).command(&[SYSTEM_PYTHON, "-c", &source])).unwrap();
    let entry = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(NOBODY)).unwrap().unwrap();
    let ids = vec![NOBODY.to_string(); 7].join(" ");
    assert_eq!(run.stdout.trim(), format!("{ids} {} {}", entry.name, entry.dir.display()));
    must_show_work(&profile_of(&scratch).unwrap()).unwrap();
    assert_eq!(owner(&scratch).unwrap(), (NOBODY, NOBODY));
}

fn under_sudo_any_process_can_be_recorded_and_the_result_belongs_to_the_invoking_user() {
    if !can_put_elsewhere() {
        return;
    }
    let scratch = Scratch::new().unwrap();
    let fixture = Fixture::inline(one_interpreter(), &ready_worker()).unwrap();
    let running = under_sudo(&scratch).pid(&fixture).spawn().unwrap();
    running.end_after_cpu_time(fixture.pid(), ENOUGH_WORK).unwrap();
    must_show_work(&profile_of(&scratch).unwrap()).unwrap();
    assert_eq!(owner(&scratch).unwrap(), (NOBODY, NOBODY));
}

fn a_command_that_gains_rights_is_refused_with_advice() {
    if !can_put_elsewhere() {
        return;
    }
    let scratch = Scratch::new().unwrap();
    // What `sudo` is: a program that runs as its owner, whoever starts it.
    let gaining = scratch.file("gaining");
    fs::copy("/usr/bin/env", &gaining).unwrap();
    fs::set_permissions(&gaining, fs::Permissions::from_mode(0o4755)).unwrap();
    let id = place::within(place::as_nobody(), vec![gaining.clone().into(), "id".into(), "-u".into()]);
    let answer = Command::new(&id[0]).args(&id[1..]).output().unwrap();
    if answer.stdout.trim_ascii() != b"0" {
        return missing("programs that gain rights: the folder for temporary files is mounted nosuid");
    }
    let run =
        Profiler::as_nobody("record", &scratch).unwrap().words("-f raw -o").arg(scratch.file("out.txt"));
    // It ends by itself: the profiler may not even send it a signal any more.
    let words =
        [gaining.as_os_str(), SYSTEM_PYTHON.as_ref(), "-c".as_ref(), "import time; time.sleep(0.5)".as_ref()];
    let run = run.command(&words).fail(&["sudo"]).unwrap();
    run.must_say(&["belongs to root"]).unwrap();
    assert!(!scratch.file("out.txt").exists());
}

/// Both subcommands are refused with a message that says all of `hints`, and nothing is written.
fn must_be_refused(place: &[std::ffi::OsString], fixture: &Fixture, hints: &[&str]) -> Result<()> {
    let scratch = Scratch::new()?;
    let binary = scratch.file("profiler");
    fs::copy(profiler_tests::profiler_path(), &binary)?;
    let must_say_all = |run: Run| hints.iter().try_for_each(|hint| run.must_say(&[hint]));
    must_say_all(Profiler::binary_within(place, &binary, "dump").pid(fixture).fail(&[])?)?;
    let record = Profiler::binary_within(place, &binary, "record").words("-f raw -d 1 -o");
    must_say_all(record.arg(scratch.file("out.txt")).pid(fixture).fail(&[])?)?;
    ensure!(!scratch.file("out.txt").exists(), "an output file was left behind");
    Ok(())
}

fn every_refusal_names_its_rule_and_what_helps() {
    if !can_put_elsewhere() {
        return;
    }
    let roots = Fixture::inline(one_interpreter(), &ready_worker()).unwrap();
    must_be_refused(&place::as_nobody(), &roots, &["belongs to root", "sudo"]).unwrap();
    for how in [1, 2, 4] {
        let place = place::as_nobody_with_hidden_processes(how);
        must_be_refused(&place, &roots, &["hidepid", "sudo"]).with_context(|| format!("{how}")).unwrap();
    }
    let incapable = place::without_capability("sys_ptrace");
    must_be_refused(&incapable, &roots, &["capabilities", "SYS_PTRACE"]).unwrap();

    let nobodys = |source: &str| {
        let words = [SYSTEM_PYTHON, "-c", source].map(Into::into).to_vec();
        Fixture::command(&place::within(place::as_nobody(), words)).unwrap()
    };
    must_be_refused(&incapable, &nobodys(&ready_worker()), &["belongs to nobody", "SYS_PTRACE"]).unwrap();
    let closed = format!("import ctypes\nctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\n{}", ready_worker());
    let closed = nobodys(&closed);
    must_be_refused(&place::as_nobody(), &closed, &["does not let itself be looked into", "sudo"]).unwrap();
    // What root may all the same.
    let json = Profiler::new("dump").words("--json").pid(&closed).succeed().unwrap().stdout;
    assert!(dumped_json(&json).unwrap().iter().any(|thread| thread.leaf() == "work"), "{json}");
}

fn hidden_processes_do_not_hide_ones_own() {
    if !can_put_elsewhere() {
        return;
    }
    let scratch = Scratch::new().unwrap();
    let binary = scratch.file("profiler");
    fs::copy(profiler_tests::profiler_path(), &binary).unwrap();
    let place = place::as_nobody_with_hidden_processes(2);
    let run = Profiler::binary_within(&place, &binary, "record").words("-f raw -r 500 -o");
    let run = run.arg(scratch.file("out.txt")).command(&[SYSTEM_PYTHON, "-c", &worker("")]);
    record_worker(run).unwrap();
    must_show_work(&profile_of(&scratch).unwrap()).unwrap();
}

fn a_rootless_container_from_outside_and_from_inside() {
    if !can_put_elsewhere() {
        return;
    }
    let Some(fake_root) = place::as_root_of_nobodys_namespace() else { return };
    let scratch = Scratch::new().unwrap();
    let binary = scratch.file("profiler");
    fs::copy(profiler_tests::profiler_path(), &binary).unwrap();
    // `unshare` makes all namespaces at once.
    let inside: Vec<_> =
        ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"].map(Into::into).to_vec();
    let container = place::within(fake_root.clone(), inside);
    let words = |source: &str| [SYSTEM_PYTHON, "-c", source].map(Into::into).to_vec();
    let fixture = Fixture::command(&place::within(container.clone(), words(&ready_worker()))).unwrap();
    let option = format!("--json --pid {}", fixture.only_child().unwrap());
    // By root, and by the user who made it.
    for profiler in [Profiler::new("dump"), Profiler::as_nobody("dump", &scratch).unwrap()] {
        let json = profiler.words(&option).succeed().unwrap().stdout;
        assert!(dumped_json(&json).unwrap().iter().any(|thread| thread.leaf() == "work"), "{json}");
    }
    let run = Profiler::binary_within(&container, &binary, "record").words("-f raw -r 500 -o -");
    let run = record_worker(run.command(&words(&worker("")))).unwrap();
    must_show_work(&Collapsed::parse(&run.stdout).unwrap()).unwrap();
    // The capabilities of its root count for nothing outside.
    let outside = Fixture::command(&place::within(place::as_nobody(), words(&ready_worker()))).unwrap();
    must_be_refused(&fake_root, &outside, &["user namespace", "outside of all containers"]).unwrap();
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(an_ordinary_user_looks_into_his_own_process),
        test!(an_ordinary_users_launched_command_is_recorded_whole_and_without_real_time_priority),
        test!(under_sudo_a_launched_command_and_what_is_written_belong_to_the_invoking_user),
        test!(under_sudo_any_process_can_be_recorded_and_the_result_belongs_to_the_invoking_user),
        test!(a_command_that_gains_rights_is_refused_with_advice),
        test!(every_refusal_names_its_rule_and_what_helps),
        test!(hidden_processes_do_not_hide_ones_own),
        test!(a_rootless_container_from_outside_and_from_inside),
    ]
}
