//! Which user runs the profiler, and which user the target belongs to: an ordinary user on processes of their own, root
//! by `sudo`, and the refusals, which say what would help. Ordinary users have the sampler `pause`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use profiler_tests::labyrinth::{Place, judge};
use profiler_tests::place::{self, NOBODY, can_put_elsewhere};
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::test;
use profiler_tests::{
    Collapsed, Fixture, Profiler, Run, Scratch, Stack, dumped_json, dumped_text, fixture_folder, missing,
};

/// The system's interpreter: other users cannot reach those in somebody's home.
const SYSTEM_PYTHON: &str = "/usr/bin/python3";

/// CPU time in which there are far more samples than are needed, however long a busy machine takes for it.
const ENOUGH_WORK: Duration = Duration::from_millis(300);

/// Works until its stdin closes, which a thread watches, and then for 0.3 s of its CPU time, so that there is work to be
/// seen however slowly the profiler starts.
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

/// A program that runs this statement and works then.
fn worker(statement: &str) -> String {
    format!("{WORK}{statement}\nwork()\n")
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

fn options(record: Profiler, case: &Case, scratch: &Scratch) -> Profiler {
    record.words(&case.sampler_words()).words("-f raw -r 500 -o").arg(scratch.file("out.txt"))
}

/// A copy of the binary that every user can run.
fn copied_binary(scratch: &Scratch) -> Result<std::path::PathBuf> {
    let binary = scratch.file("profiler");
    fs::copy(profiler_tests::profiler_path(), &binary)?;
    Ok(binary)
}

/// The words that run a program on the system's interpreter.
fn system_words(source: &str) -> Vec<OsString> {
    [SYSTEM_PYTHON, "-c", source].map(Into::into).to_vec()
}

/// An ordinary user dumps and records a process of their own.
fn must_see_own_process(case: &Case, words: &[OsString]) -> Result<()> {
    let scratch = Scratch::new()?;
    let fixture = Fixture::command(words)?;
    let text = Profiler::as_nobody("dump", &scratch)?.pid(&fixture).succeed()?.stdout;
    let threads = dumped_text(&text, fixture.pid())?;
    ensure!(threads.len() == 2, "{text}");
    ensure!(threads.iter().any(|thread| thread.active && thread.leaf() == "work"), "{text}");
    let running = options(Profiler::as_nobody("record", &scratch)?, case, &scratch).pid(&fixture).spawn()?;
    running.end_after_cpu_time(fixture.pid(), ENOUGH_WORK)?;
    must_show_work(&profile_of(&scratch)?)
}

fn ordinary_user_sees_system_python(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    must_see_own_process(case, &place::within(place::as_nobody(), system_words(&ready_worker())))
}

/// Of the prepared interpreters those in root folders are within reach of everybody.
fn ordinary_user_sees_python_in_root_folder(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    match place::inline_as_nobody(case.interpreter, &ready_worker()) {
        Some(words) => must_see_own_process(case, &words),
        None => {
            missing(&format!("{} within reach of every user", case.interpreter.id));
            Ok(())
        }
    }
}

/// The policy by which the kernel schedules the process; 0 is the ordinary one.
fn scheduling_policy(pid: u32) -> Result<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(") ").context("no name")?.1;
    // The 41st field of all; these begin with the third.
    Ok(after_name.split_whitespace().nth(41 - 3).context("no policy")?.parse()?)
}

/// Rounds of the labyrinth in which there are far more samples than are needed.
const ROUNDS: &str = "4000";

fn ordinary_user_records_command_without_real_time(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let maze = scratch.file("labyrinth.py");
    fs::copy(fixture_folder().join("labyrinth/labyrinth.py"), &maze)?;
    let record = options(Profiler::as_nobody("record", &scratch)?, case, &scratch);
    let words = [SYSTEM_PYTHON.as_ref(), maze.as_os_str(), "--rounds".as_ref(), ROUNDS.as_ref()];
    let mut running = record.command(&words).spawn()?;
    running.wait_until_sampling()?;
    let policy = scheduling_policy(running.pid())?;
    ensure!(policy == 0, "policy {policy}");
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    // What comes before the walk, from the very start of the interpreter, is not the maze's.
    let is_of_the_maze =
        |stack: &&Stack| stack.frames.iter().any(|frame| frame.file.as_deref() == Some("maze.py"));
    let mut in_the_maze = 0;
    for stack in profile_of(&scratch)?.stacks.iter().filter(is_of_the_maze) {
        if let Place::Maze { .. } = judge(&stack.frames)? {
            in_the_maze += stack.count;
        }
    }
    ensure!(in_the_maze >= 50, "only {in_the_maze} samples of the maze");
    Ok(())
}

/// `profiler record` as `sudo` starts it for the user nobody.
fn under_sudo(case: &Case, scratch: &Scratch) -> Profiler {
    let record = Profiler::new("record")
        .env("SUDO_UID", NOBODY.to_string())
        .env("SUDO_GID", NOBODY.to_string())
        .env("SUDO_USER", "nobody")
        .env("HOME", "/root")
        .env("USER", "root");
    options(record, case, scratch)
}

/// What was written belongs to the user nobody.
fn must_be_nobodys(scratch: &Scratch) -> Result<()> {
    let file = fs::metadata(scratch.file("out.txt"))?;
    ensure!((file.uid(), file.gid()) == (NOBODY, NOBODY), "owned by {}:{}", file.uid(), file.gid());
    Ok(())
}

fn sudo_launches_command_as_invoking_user(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let source = worker(
        "print(*os.getresuid(), *os.getresgid(), *os.getgroups(), os.environ['USER'], os.environ['HOME'])",
    );
    let run = record_worker(under_sudo(case, &scratch).command(&system_words(&source)))?;
    let entry = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(NOBODY))?.context("nobody")?;
    let ids = vec![NOBODY.to_string(); 7].join(" ");
    let expected = format!("{ids} {} {}", entry.name, entry.dir.display());
    ensure!(run.stdout.trim() == expected, "{} instead of {expected}", run.stdout);
    must_show_work(&profile_of(&scratch)?)?;
    must_be_nobodys(&scratch)
}

fn sudo_gives_recording_to_invoking_user(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let fixture = Fixture::inline(case.interpreter, &ready_worker())?;
    let running = under_sudo(case, &scratch).pid(&fixture).spawn()?;
    running.end_after_cpu_time(fixture.pid(), ENOUGH_WORK)?;
    must_show_work(&profile_of(&scratch)?)?;
    must_be_nobodys(&scratch)
}

fn command_that_gains_rights_is_refused(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    // What `sudo` is: a program that runs as its owner for every user.
    let gaining = scratch.file("gaining");
    fs::copy("/usr/bin/env", &gaining)?;
    fs::set_permissions(&gaining, fs::Permissions::from_mode(0o4755))?;
    let id = place::within(place::as_nobody(), vec![gaining.clone().into(), "id".into(), "-u".into()]);
    let answer = Command::new(&id[0]).args(&id[1..]).output()?;
    if answer.stdout.trim_ascii() != b"0" {
        missing("programs that gain rights: the folder for temporary files is mounted nosuid");
        return Ok(());
    }
    // It ends by itself: the profiler may not even send it a signal any more.
    let words = [vec![gaining.into()], system_words("import time; time.sleep(0.3)")].concat();
    let record = options(Profiler::as_nobody("record", &scratch)?, case, &scratch);
    record.command(&words).fail(&["sudo"])?.must_say(&["belongs to root"])?;
    ensure!(!scratch.file("out.txt").exists(), "an output file was left behind");
    Ok(())
}

/// `dump` and `record` are refused with a message that says all of `hints`, and nothing is written.
fn must_be_refused(case: &Case, place: &[OsString], fixture: &Fixture, hints: &[&str]) -> Result<()> {
    let scratch = Scratch::new()?;
    let binary = copied_binary(&scratch)?;
    let must_say_all = |run: Run| hints.iter().try_for_each(|hint| run.must_say(&[hint]));
    must_say_all(Profiler::binary_within(place, &binary, "dump").pid(fixture).fail(&[])?)?;
    let record = options(Profiler::binary_within(place, &binary, "record"), case, &scratch);
    must_say_all(record.pid(fixture).fail(&[])?)?;
    ensure!(!scratch.file("out.txt").exists(), "an output file was left behind");
    Ok(())
}

fn refusals_name_the_missing_right(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let roots = Fixture::inline(case.interpreter, &ready_worker())?;
    must_be_refused(case, &place::as_nobody(), &roots, &["belongs to root", "sudo"])?;
    let incapable = place::without_capability("sys_ptrace");
    must_be_refused(case, &incapable, &roots, &["capabilities", "SYS_PTRACE"])?;
    let nobodys = Fixture::command(&place::within(place::as_nobody(), system_words(&ready_worker())))?;
    must_be_refused(case, &incapable, &nobodys, &["belongs to nobody", "SYS_PTRACE"])
}

fn refusals_name_hidden_processes(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let roots = Fixture::inline(case.interpreter, &ready_worker())?;
    for how in [1, 2, 4] {
        let place = place::as_nobody_with_hidden_processes(how);
        must_be_refused(case, &place, &roots, &["hidepid", "sudo"]).with_context(|| format!("{how}"))?;
    }
    Ok(())
}

fn undumpable_process_is_for_root_only(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let source = format!("import ctypes\nctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\n{}", ready_worker());
    let closed = Fixture::command(&place::within(place::as_nobody(), system_words(&source)))?;
    let hints = ["does not let itself be looked into", "sudo"];
    must_be_refused(case, &place::as_nobody(), &closed, &hints)?;
    let json = Profiler::new("dump").words("--json").pid(&closed).succeed()?.stdout;
    ensure!(dumped_json(&json)?.iter().any(|thread| thread.leaf() == "work"), "{json}");
    Ok(())
}

fn hidden_processes_leave_own_ones_visible(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let place = place::as_nobody_with_hidden_processes(2);
    let record = Profiler::binary_within(&place, &copied_binary(&scratch)?, "record");
    record_worker(options(record, case, &scratch).command(&system_words(&worker(""))))?;
    must_show_work(&profile_of(&scratch)?)
}

fn rootless_container_is_seen_from_both_sides(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let Some(fake_root) = place::as_root_of_nobodys_namespace() else { return Ok(()) };
    let scratch = Scratch::new()?;
    let binary = copied_binary(&scratch)?;
    // `unshare` makes all namespaces at once.
    let inside = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"].map(Into::into).to_vec();
    let container = place::within(fake_root.clone(), inside);
    let fixture = Fixture::command(&place::within(container.clone(), system_words(&ready_worker())))?;
    let option = format!("--json --pid {}", fixture.only_child()?);
    // By root, and by the user that made it.
    for profiler in [Profiler::new("dump"), Profiler::as_nobody("dump", &scratch)?] {
        let json = profiler.words(&option).succeed()?.stdout;
        ensure!(dumped_json(&json)?.iter().any(|thread| thread.leaf() == "work"), "{json}");
    }
    let record = Profiler::binary_within(&container, &binary, "record");
    let record = record.words(&case.sampler_words()).words("-f raw -r 500 -o -");
    let run = record_worker(record.command(&system_words(&worker(""))))?;
    must_show_work(&Collapsed::parse(&run.stdout)?)?;
    // The capabilities of its root count for nothing outside.
    let outside = Fixture::command(&place::within(place::as_nobody(), system_words(&ready_worker())))?;
    must_be_refused(case, &fake_root, &outside, &["user namespace", "outside of all containers"])
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    const PAUSE: &[Sampler] = &[Sampler::Pause];
    vec![
        test!(ordinary_user_sees_system_python).by(PAUSE),
        test!(ordinary_user_sees_python_in_root_folder).on(On::Minors(&[14, 15])).by(PAUSE),
        test!(ordinary_user_records_command_without_real_time).by(PAUSE),
        test!(sudo_launches_command_as_invoking_user).by(PAUSE_AND_BPF),
        test!(sudo_gives_recording_to_invoking_user).by(PAUSE_AND_BPF),
        test!(command_that_gains_rights_is_refused).by(PAUSE),
        test!(refusals_name_the_missing_right).by(PAUSE),
        test!(refusals_name_hidden_processes).by(PAUSE),
        test!(undumpable_process_is_for_root_only).by(PAUSE),
        test!(hidden_processes_leave_own_ones_visible).by(PAUSE),
        test!(rootless_container_is_seen_from_both_sides).by(PAUSE),
    ]
}
