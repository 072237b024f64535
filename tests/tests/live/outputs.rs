//! Where results are written: a full disk costs no data, links of other users are not followed, nothing that the user did not
//! name is replaced; and the sum of equal processes.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{lchown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::place::{NOBODY, can_put_elsewhere};
use profiler_tests::suite::{Case, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::test;
use profiler_tests::tree::wait_for_work;
use profiler_tests::{Fixture, Profiler, Running, Scratch, Terminal, USUAL_SIZE, profiler_path};
use serde_json::Value;

const LABYRINTH: &str = "labyrinth/labyrinth.py";

/// What becomes of a result does not depend on the sampler.
const PAUSE: &[Sampler] = &[Sampler::Pause];

/// In a mount namespace of its own, in which this folder is on a disk of 16 KiB: less than any flame graph takes.
fn with_small_disk(folder: &Path) -> Vec<OsString> {
    let mount = "mount -t tmpfs -o size=16k,mode=1777 small \"$0\" && exec \"$@\"";
    let words = ["unshare", "--mount", "sh", "-c", mount];
    words.into_iter().map(OsString::from).chain([folder.into()]).collect()
}

/// A recording of the labyrinth into a file on a small disk.
fn record_to_small_disk(case: &Case, fixture: &Fixture, disk: &Path, temporary: &Path) -> Result<Running> {
    let record = Profiler::within(&with_small_disk(disk), "record").env("TMPDIR", temporary);
    let record = record.words(&case.sampler_words()).words("-r 200 -d 0.2 -f flamegraph -o");
    record.arg(disk.join("flame.svg")).pid(fixture).spawn()
}

fn must_be_whole(svg: &str) -> Result<()> {
    ensure!(svg.contains("<svg") && svg.trim_end().ends_with("</svg>"), "{} bytes of SVG", svg.len());
    Ok(())
}

fn full_disk_leaves_result_in_temporary_folder(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let (disk, temporary) = (Scratch::new()?, Scratch::new()?);
    let fixture = Fixture::start(case.interpreter, LABYRINTH, &[])?;
    let taken = temporary.file("flame.svg");
    fs::write(&taken, "mine")?;
    let run = record_to_small_disk(case, &fixture, disk.path(), temporary.path())?.wait()?;
    ensure!(run.code() == Some(1), "{run:?}");
    run.must_say(&["No space left on device"])?;
    let written = temporary.file("flame-2.svg");
    run.must_say(&[&format!("written to {} instead", written.display())])?;
    must_be_whole(&fs::read_to_string(&written)?)?;
    ensure!(fs::read_to_string(&taken)? == "mine", "a file of the user's was replaced");
    Ok(())
}

/// What a recording keeps in memory, by what it says of it: the number of its descriptor.
fn kept_in_memory(running: &mut Running) -> Result<String> {
    let messages = running.wait_for_message("to give it up")?;
    let start = format!("cp /proc/{}/fd/", running.pid());
    let (_, after) = messages.split_once(&start).with_context(|| messages.clone())?;
    let number = after.split_whitespace().next().context("no descriptor")?;
    Ok(fs::read_to_string(format!("/proc/{}/fd/{number}", running.pid()))?)
}

/// Makes room on the small disk of a process.
fn enlarge(disk: &Path, pid: u32) -> Result<()> {
    let mut enlarge = Command::new("nsenter");
    enlarge.args(["--mount", "--target", &pid.to_string(), "mount", "-o", "remount,size=10m"]);
    ensure!(enlarge.arg(disk).status()?.success(), "the disk stays small");
    Ok(())
}

fn full_disks_keep_result_in_memory_until_there_is_room(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let disk = Scratch::new()?;
    let fixture = Fixture::start(case.interpreter, LABYRINTH, &[])?;
    let mut running = record_to_small_disk(case, &fixture, disk.path(), disk.path())?;
    must_be_whole(&kept_in_memory(&mut running)?)?;
    running.signal(Signal::SIGUSR1)?;
    running.wait_for_message("still kept in memory")?;
    enlarge(disk.path(), running.pid())?;
    running.signal(Signal::SIGUSR1)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    run.must_say(&[&format!("wrote {}", disk.file("flame.svg").display())])
}

fn enter_writes_result_once_there_is_room(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let disk = Scratch::new()?;
    let fixture = Fixture::start(case.interpreter, LABYRINTH, &[])?;
    let mut words: Vec<OsString> = vec!["env".into(), format!("TMPDIR={}", disk.path().display()).into()];
    words.extend(with_small_disk(disk.path()));
    words.push(profiler_path().into());
    let record = format!("record {} -r 200 -d 0.2 --pid {} -o", case.sampler_words(), fixture.pid());
    words.extend(record.split_whitespace().map(OsString::from));
    words.push(disk.file("flame.svg").into());
    let mut terminal = Terminal::start(&words, USUAL_SIZE)?;
    terminal.wait_for_text("then press Enter")?;
    terminal.press_for("\r", "still kept in memory")?;
    enlarge(disk.path(), terminal.pid())?;
    terminal.press("\r")?;
    ensure!(terminal.wait()?.code() == Some(0), "{}", terminal.screen());
    Ok(())
}

fn result_in_memory_can_be_given_up(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let disk = Scratch::new()?;
    let fixture = Fixture::start(case.interpreter, LABYRINTH, &[])?;
    let mut running = record_to_small_disk(case, &fixture, disk.path(), disk.path())?;
    running.wait_for_message("to give it up")?;
    running.signal(Signal::SIGTERM)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(1), "{run:?}");
    run.must_say(&["No space left on device"])
}

fn link_of_another_user_is_not_followed(case: &Case) -> Result<()> {
    if !can_put_elsewhere() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let (link, victim) = (scratch.file("out.txt"), scratch.file("victim"));
    fs::write(&victim, "old")?;
    symlink(&victim, &link)?;
    let fixture = Fixture::start(case.interpreter, LABYRINTH, &[])?;
    let record = || {
        let record = Profiler::new("record").words(&case.sampler_words());
        record.words("-r 200 -d 0.2 -f raw -o").arg(&link).pid(&fixture)
    };
    lchown(&link, Some(NOBODY), Some(NOBODY))?;
    record().fail(&["symbolic link of another user"])?;
    ensure!(fs::read_to_string(&victim)? == "old", "the link was followed");
    lchown(&link, Some(0), Some(0))?;
    record().succeed()?;
    ensure!(fs::symlink_metadata(&link)?.is_symlink(), "our own link was replaced");
    ensure!(fs::read_to_string(&victim)?.contains("<ledger: "), "our own link was not followed");
    Ok(())
}

/// Two recordings of a process that begin in the same second are called the same.
fn unnamed_files_replace_nothing(case: &Case) -> Result<()> {
    let scratch = Scratch::new()?;
    let fixture = Fixture::start(case.interpreter, LABYRINTH, &[])?;
    let place: Vec<OsString> = vec!["env".into(), "-C".into(), scratch.path().into()];
    let record = || {
        let record = Profiler::within(&place, "record").words(&case.sampler_words());
        record.words("-r 200 -d 0.2 -f raw").pid(&fixture)
    };
    let running = [record().spawn()?, record().spawn()?];
    for running in running {
        let run = running.wait()?;
        ensure!(run.code() == Some(0), "{run:?}");
    }
    let files = fs::read_dir(scratch.path())?.collect::<Result<Vec<_>, _>>()?;
    ensure!(files.len() == 2, "{files:?}");
    files.iter().try_for_each(|file| {
        ensure!(fs::read_to_string(file.path())?.contains("<ledger: "), "{file:?}");
        Ok(())
    })
}

/// CPU time of each process in which there are far more samples than are needed.
const ENOUGH_WORK: Duration = Duration::from_millis(100);

/// What `record -s --merge-processes` writes of a master with workers that work.
fn merged(case: &Case, fixture: &Fixture, options: &str) -> Result<String> {
    let record =
        Profiler::new("record").words(&case.sampler_words()).words("-r 200 -s --merge-processes -o -");
    let mut running = record.words(options).pid(fixture).spawn()?;
    running.wait_until_sampling()?;
    wait_for_work(fixture.children(), ENOUGH_WORK)?;
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(0), "{run:?}");
    Ok(run.stdout)
}

fn equal_workers_are_added_up(case: &Case) -> Result<()> {
    let fixture = Fixture::start(case.interpreter, "tree/tree.py", &["prefork", "3"])?;
    let text = merged(case, &fixture, "-t -F -f raw")?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("<ledger: ")).collect();
    for line in &lines {
        ensure!(line.starts_with("process:\"") && line.contains(";thread: MainThread;"), "{line}");
    }
    // Each stack of the workers once, whichever of the three it is of.
    let is_of_worker = |line: &&&str| line.contains("prefork_worker") && !line.contains("work_of_fork");
    ensure!(lines.iter().filter(is_of_worker).count() > 0, "no worker:\n{text}");
    let pids = fixture.children().iter().map(u32::to_string);
    for pid in pids {
        ensure!(!text.contains(&format!("process {pid}")) && !text.contains(&format!("({pid})")), "{text}");
    }
    let file: Value = serde_json::from_str(&merged(case, &fixture, "-f speedscope")?)?;
    let profiles = file["profiles"].as_array().context("profiles")?;
    let names: Vec<&str> = profiles.iter().filter_map(|profile| profile["name"].as_str()).collect();
    ensure!(names.len() <= 3 && names.iter().all(|name| name.starts_with("Process \"")), "{names:?}");
    fixture.finish().map(drop)
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(full_disk_leaves_result_in_temporary_folder).by(PAUSE),
        test!(full_disks_keep_result_in_memory_until_there_is_room).by(PAUSE),
        test!(enter_writes_result_once_there_is_room).by(PAUSE),
        test!(result_in_memory_can_be_given_up).by(PAUSE),
        test!(link_of_another_user_is_not_followed).by(PAUSE),
        test!(unnamed_files_replace_nothing).by(&[Sampler::Bpf, Sampler::Peek]),
        test!(equal_workers_are_added_up).by(PAUSE_AND_BPF),
    ]
}
