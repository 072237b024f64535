//! Real Python servers under load, for the benchmark and the soak: gunicorn and uvicorn, in an environment of the cache,
//! and `wrk`, which sends them requests over the loopback device.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use profiler_tests::cpu_nanos;
use serde::Deserialize;

use crate::prepare::{self, Options};
use crate::{environments, run};

/// What they serve, and what makes `wrk` report.
const FOLDER: &str = "fixtures/requests";

/// Connections at a time: as many as keep two workers busy.
const CONNECTIONS: u32 = 8;

/// How long a server may take to answer for the first time, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often is looked for what is waited for.
const GLANCE: Duration = Duration::from_millis(10);

/// A server with its way of working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// gunicorn: two processes, each of which serves one connection at a time.
    Sync,
    /// gunicorn: two processes of four threads each.
    Gthread,
    /// uvicorn: one process with an event loop in C.
    Uvloop,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Sync, Kind::Gthread, Kind::Uvloop];

    /// What the tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Sync => "gunicorn, 2 sync workers",
            Kind::Gthread => "gunicorn, 2 gthread workers of 4 threads",
            Kind::Uvloop => "uvicorn with uvloop",
        }
    }

    fn command(self, environment: &Path, port: u16) -> Command {
        let program = if self == Kind::Uvloop { "uvicorn" } else { "gunicorn" };
        let words = match self {
            Kind::Sync => format!("--workers 2 --log-level error --bind 127.0.0.1:{port} app:wsgi"),
            Kind::Gthread => {
                format!("--workers 2 --threads 4 --log-level error --bind 127.0.0.1:{port} app:wsgi")
            }
            Kind::Uvloop => {
                format!(
                    "--loop uvloop --http httptools --log-level error --no-access-log --port {port} app:asgi"
                )
            }
        };
        let mut command = Command::new(environment.join("bin").join(program));
        command.args(words.split(' ')).current_dir(run::workspace().join(FOLDER));
        command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

/// Sets up what servers need; returns the folder of their environment.
pub fn prepare() -> Result<PathBuf> {
    prepare::packages(&["wrk"])?;
    environments::servers(&Options { no_skip: true, from_nothing: false })
}

/// A server that runs until this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts one, with more words of its command line; returns once it answers.
    pub fn start(kind: Kind, environment: &Path, more: &[&str]) -> Result<Self> {
        // Free until somebody else takes it in the next moment.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = kind.command(environment, port).args(more).spawn().context(kind.name())?;
        let server = Server { child, port };
        let limit = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(Instant::now() < limit, "{} does not answer", kind.name());
            thread::sleep(GLANCE);
        }
        Ok(server)
    }

    /// Its first process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its processes: the first one and its children.
    pub fn processes(&self) -> Vec<u32> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        std::iter::once(pid).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
    }

    /// CPU time of its processes so far, in seconds. A worker that has ended takes its own along.
    pub fn cpu(&self) -> f64 {
        let nanos: u64 = self.processes().into_iter().filter_map(|pid| cpu_nanos(pid).ok()).sum();
        nanos as f64 / 1e9
    }

    /// Sends it requests for so many seconds, as fast as it answers.
    pub fn load(&self, seconds: u32) -> Result<Load> {
        let before = self.cpu();
        let report = run::output(&mut self.wrk(seconds))?;
        let cpu = self.cpu() - before;
        let line = report.lines().rfind(|line| line.starts_with('{')).context("wrk reports nothing")?;
        let load: Load = serde_json::from_str(line).with_context(|| line.to_owned())?;
        ensure!(load.requests > 0, "no request was answered: {line}");
        Ok(Load { cpu, ..load })
    }

    /// The command that sends the requests.
    pub fn wrk(&self, seconds: u32) -> Command {
        let mut command = Command::new("wrk");
        let report = run::workspace().join(FOLDER).join("report.lua");
        command.args(["--threads", "1", "--connections", &CONNECTIONS.to_string()]);
        command.arg("--duration").arg(format!("{seconds}s")).arg("--script").arg(report);
        command.arg(format!("http://127.0.0.1:{}/", self.port));
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Not waited for yet, so the number is still its own.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let limit = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > limit {
                let _ = self.child.kill();
            }
            thread::sleep(GLANCE);
        }
    }
}

/// What `wrk` counted. Latencies are in microseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Load {
    /// Requests that were answered.
    pub requests: u64,
    /// For how long they were sent.
    pub seconds: f64,
    /// The latency of the request in the middle.
    pub median: f64,
    /// The latency that 99 of 100 stayed below.
    pub p99: f64,
    /// The longest latency.
    pub worst: f64,
    /// Requests that were refused, broken off or answered with an error.
    pub failed: u64,
    /// CPU time that the server used, in seconds.
    #[serde(default)]
    pub cpu: f64,
}

impl Load {
    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// CPU time of the server for each request, in seconds.
    pub fn cpu_per_request(&self) -> f64 {
        self.cpu / self.requests as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_of_wrk_gives_rates_per_second_and_per_request() {
        let line =
            r#"{"requests":500,"seconds":2.0,"median":1500.0,"p99":9000.0,"worst":31000.0,"failed":0}"#;
        let load = Load { cpu: 1.0, ..serde_json::from_str(line).unwrap() };
        assert_eq!((load.rate(), load.cpu_per_request()), (250.0, 0.002));
    }
}
