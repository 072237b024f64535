//! The trials of a production host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use profiler_tests::hostile::{CHURN, must_be_free, must_make_progress};
use profiler_tests::{Fixture, Profiler, one_interpreter, state_of};

use super::Place;
use super::report::Rounds;
use super::under_load::{must_be_whole, must_have_recorded, recording, under_load};
use crate::run;
use crate::servers::{Kind, Server};

/// A trial.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// What the table calls it.
    pub name: &'static str,
    /// Repeats it until the rounds are over; an error where something did not hold.
    pub run: fn(&Place, &mut Rounds) -> Result<()>,
}

/// All of them.
pub const ALL: [Trial; 9] = [
    Trial { name: "servers under load", run: servers_under_load },
    Trial { name: "recycled workers", run: recycled_workers },
    Trial { name: "births", run: births },
    Trial { name: "attaches", run: attaches },
    Trial { name: "lying targets", run: lying_targets },
    Trial { name: "full disk", run: full_disk },
    Trial { name: "kills of the profiler", run: kills },
    Trial { name: "frozen profiler", run: frozen },
    Trial { name: "throttled profiler", run: throttled },
];

const SAMPLERS: [&str; 3] = ["pause", "bpf", "peek"];

/// How long a recording may take beyond its time.
const LONGEST_OVERTIME: Duration = Duration::from_secs(20);

fn servers_under_load(place: &Place, rounds: &mut Rounds) -> Result<()> {
    while let Some(round) = rounds.next() {
        let (kind, sampler) = (Kind::ALL[round % 3], SAMPLERS[round / 3 % 2]);
        let server = Server::start(kind, &place.environment, &[])?;
        let options = format!("--sampler {sampler} -s -r 250 -d 2");
        let run = under_load(&server, 3, rounds, || recording(place, server.pid(), &options).run())
            .with_context(|| format!("{}, {sampler}", kind.name()))?;
        must_have_recorded(&run, rounds)?;
    }
    Ok(())
}

/// Workers that are replaced after some hundred requests.
fn recycled_workers(place: &Place, rounds: &mut Rounds) -> Result<()> {
    let recycled = ["--max-requests", "200", "--max-requests-jitter", "100"];
    let server = Server::start(Kind::Sync, &place.environment, &recycled)?;
    while let Some(round) = rounds.next() {
        let sampler = SAMPLERS[round % 2];
        let options = format!("--sampler {sampler} -s -r 250 -d 2");
        let run = under_load(&server, 3, rounds, || recording(place, server.pid(), &options).run())
            .with_context(|| sampler.to_owned())?;
        must_have_recorded(&run, rounds)?;
        rounds.count("workers", run.ledger()?.processes.get("sampled").copied().unwrap_or(0));
    }
    Ok(())
}

/// Children of a millisecond.
fn births(_: &Place, rounds: &mut Rounds) -> Result<()> {
    while let Some(round) = rounds.next() {
        let mut fixture = Fixture::start(one_interpreter(), CHURN, &["processes"])?;
        must_make_progress(&mut fixture, &format!("-s -r 200 --sampler {}", SAMPLERS[round % 2]))?;
        rounds.count("children", fixture.ask("")?.parse()?);
    }
    Ok(())
}

/// Short recordings and dumps, one after the other.
fn attaches(place: &Place, rounds: &mut Rounds) -> Result<()> {
    let server = Server::start(Kind::Gthread, &place.environment, &[])?;
    let worker = *server.processes().last().context("no worker")?;
    while rounds.next().is_some() {
        let attached = under_load(&server, 4, rounds, || {
            let (end, mut attached) = (Instant::now() + Duration::from_secs(4), 0);
            while Instant::now() < end {
                Profiler::new("dump").words(&format!("--pid {worker}")).succeed()?;
                let sampler = SAMPLERS[attached % 2];
                let options = format!("--sampler {sampler} -i -r 100 -d 0.1");
                let run = recording(place, worker, &options).run()?;
                ensure!(run.code() == Some(0), "{sampler}: {:?}: {}", run.status, run.stderr);
                attached += 1;
            }
            Ok(2 * attached as u64)
        })?;
        rounds.count("attaches", attached);
    }
    Ok(())
}

/// The hostile fixtures: whatever they do, the profiler ends in time and leaves them free.
fn lying_targets(place: &Place, rounds: &mut Rounds) -> Result<()> {
    const TARGETS: [(&str, &[&str]); 6] = [
        ("hostile/names.py", &[]),
        ("hostile/recursion.py", &["loop"]),
        ("hostile/churn.py", &["threads"]),
        ("hostile/churn.py", &["pages"]),
        ("hostile/many_threads.py", &["2000"]),
        ("hostile/pipe.py", &[]),
    ];
    while let Some(round) = rounds.next() {
        let (program, arguments) = TARGETS[round % TARGETS.len()];
        let fixture = Fixture::start(one_interpreter(), program, arguments)?;
        let pid = fixture.pid();
        let mut looks = vec![Profiler::new("dump").words(&format!("--pid {pid}"))];
        looks.push(Profiler::new("doctor").words(&format!("--pid {pid}")));
        let options = |sampler| format!("--sampler {sampler} -s -i -r 200 -d 0.5");
        looks.extend(SAMPLERS.map(|sampler| recording(place, pid, &options(sampler))));
        for look in looks {
            let begun = Instant::now();
            let run = look.run()?;
            let ended_well = matches!(run.code(), Some(0 | 1)) && !run.stderr.contains("panicked");
            ensure!(ended_well, "{program}: {run:?}");
            ensure!(begun.elapsed() < LONGEST_OVERTIME, "{program}: took {:?}", begun.elapsed());
            must_be_free(pid).with_context(|| program.to_owned())?;
            rounds.most("ms for the longest look", begun.elapsed().as_secs_f64() * 1e3);
        }
        rounds.count("targets", 1);
    }
    Ok(())
}

/// A disk that is full before a recording begins, or becomes full while it goes on.
fn full_disk(_: &Place, rounds: &mut Rounds) -> Result<()> {
    const FORMATS: [&str; 3] = ["raw", "speedscope", "flamegraph"];
    let fixture = Fixture::start(one_interpreter(), "labyrinth/labyrinth.py", &[])?;
    while let Some(round) = rounds.next() {
        let disk = SmallDisk::mount()?;
        let is_full_before = round % 2 == 0;
        if is_full_before {
            disk.fill()?;
        }
        let options = format!("-f {} --sampler pause -r 500 -d 1", FORMATS[round % 3]);
        let record = Profiler::new("record").words(&options).arg("-o").arg(disk.0.join("out"));
        let mut running = record.pid(&fixture).spawn()?;
        if !is_full_before {
            running.wait_until_sampling()?;
            disk.fill()?;
        }
        let run = running.wait()?;
        ensure!(run.code() == Some(1), "{options}: status {:?}: {}", run.status, run.stderr);
        ensure!(run.stderr.contains("No space left"), "{options}: no reason in {}", run.stderr);
        let left = fs::read_dir(&disk.0)?.flatten().map(|entry| entry.file_name());
        let left: Vec<_> = left.filter(|name| name != FILLING).collect();
        ensure!(left.is_empty(), "{options}: {left:?} is left behind");
        must_be_free(fixture.pid())?;
        rounds.count("refusals with their reason", 1);
    }
    Ok(())
}

/// The file that fills a small disk.
const FILLING: &str = "filling";

/// A file system of 64 KB that is unmounted when this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("profiler-trial-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "profiler-trial"]).arg(&folder);
        ensure!(run::succeeds(&mut mount), "{}: tmpfs cannot be mounted", folder.display());
        Ok(SmallDisk(folder))
    }

    /// Writes until nothing fits any more.
    fn fill(&self) -> Result<()> {
        let filled = fs::write(self.0.join(FILLING), vec![0; 1 << 20]);
        ensure!(filled.is_err(), "the small disk takes a megabyte");
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run::succeeds(Command::new("umount").arg(&self.0));
        let _ = fs::remove_dir(&self.0);
    }
}

/// `kill -9` at any moment, from the start on.
fn kills(place: &Place, rounds: &mut Rounds) -> Result<()> {
    let server = Server::start(Kind::Gthread, &place.environment, &[])?;
    let mut moment = 0;
    while rounds.next().is_some() {
        let killed = under_load(&server, 4, rounds, || {
            let (end, mut killed) = (Instant::now() + Duration::from_secs(4), 0);
            while Instant::now() < end {
                // Steps of 37 ms through 600 ms come to each millisecond in turn.
                moment = (moment + 37) % 600;
                let options = format!("--sampler {} -s -r 1000", SAMPLERS[killed % 3]);
                let running = recording(place, server.pid(), &options).spawn()?;
                thread::sleep(Duration::from_millis(moment));
                running.kill()?;
                must_be_whole(&server).with_context(|| format!("{options}, after {moment} ms"))?;
                killed += 1;
            }
            Ok(killed as u64)
        })?;
        rounds.count("kills", killed);
    }
    Ok(())
}

/// A profiler that is stopped by a signal now and then, as by a debugger or a freezer. A thread that is stopped for a sample
/// at that moment has to wait until the profiler goes on, or ends.
fn frozen(place: &Place, rounds: &mut Rounds) -> Result<()> {
    const FROZEN: Duration = Duration::from_millis(50);
    const THAWED: Duration = Duration::from_millis(23);
    let server = Server::start(Kind::Gthread, &place.environment, &[])?;
    while let Some(round) = rounds.next() {
        let options = format!("--sampler {} -s -r 1000", SAMPLERS[round % 2]);
        let counted = under_load(&server, 5, rounds, || {
            let mut running = recording(place, server.pid(), &options).spawn()?;
            running.wait_until_sampling()?;
            let (mut frozen, mut held) = (0, 0);
            while frozen < 20 {
                running.signal(Signal::SIGSTOP)?;
                thread::sleep(FROZEN);
                held += u64::from(any_is_held(&server));
                running.signal(Signal::SIGCONT)?;
                thread::sleep(THAWED);
                frozen += 1;
            }
            running.signal(Signal::SIGINT)?;
            let run = running.wait()?;
            Ok((frozen, held, run))
        })?;
        let (frozen, held, run) = counted;
        must_have_recorded(&run, rounds)?;
        rounds.count("times frozen", frozen);
        rounds.count("times with a thread held until it went on", held);
    }
    Ok(())
}

/// Whether any thread of the server stands still for a tracer.
fn any_is_held(server: &Server) -> bool {
    server.processes().into_iter().any(|pid| {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let ids = threads.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
        ids.into_iter().any(|tid| state_of(pid, tid).is_ok_and(|state| state == 't'))
    })
}

/// A profiler in a group of processes that may use a twentieth of a CPU.
fn throttled(place: &Place, rounds: &mut Rounds) -> Result<()> {
    let Some(group) = SlowGroup::make() else {
        rounds.skip("no cgroup with a CPU limit can be made here".to_owned());
        return Ok(());
    };
    let server = Server::start(Kind::Gthread, &place.environment, &[])?;
    let enter = ["sh", "-c", "echo $$ > \"$0\" && exec \"$@\""].map(Into::into);
    let mut words = enter.to_vec();
    words.push(group.0.join("cgroup.procs").into());
    while let Some(round) = rounds.next() {
        let sampler = SAMPLERS[round % 3];
        let options = format!("-f raw --sampler {sampler} -s -r 250 -d 2 --pid {} -o", server.pid());
        let begun = Instant::now();
        let run = under_load(&server, 5, rounds, || {
            let output = place.scratch.file("out.txt");
            Profiler::within(&words, "record").words(&options).arg(output).run()
        })?;
        // By peek there may be no sample that is proved.
        ensure!(matches!(run.code(), Some(0 | 1)), "{options}: {run:?}");
        ensure!(begun.elapsed() < LONGEST_OVERTIME, "{options}: took {:?}", begun.elapsed());
        if run.code() == Some(0) {
            must_have_recorded(&run, rounds)?;
        }
    }
    Ok(())
}

/// A control group with a limit to its CPU time, removed when this is dropped.
struct SlowGroup(PathBuf);

impl SlowGroup {
    fn make() -> Option<Self> {
        let limits: [(&str, &[(&str, &str)]); 2] = [
            ("/sys/fs/cgroup", &[("cpu.max", "5000 100000")]),
            ("/sys/fs/cgroup/cpu", &[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "5000")]),
        ];
        limits.into_iter().find_map(|(parent, limit)| {
            let group = SlowGroup(Path::new(parent).join(format!("profiler-trial-{}", std::process::id())));
            fs::create_dir(&group.0).ok()?;
            let set = |(file, value): &(&str, &str)| fs::write(group.0.join(file), value).is_ok();
            limit.iter().all(set).then_some(group)
        })
    }
}

impl Drop for SlowGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
