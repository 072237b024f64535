//! `dump` shows what a thread waits on: which file descriptor, which child.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::{Case, On, Test};
use profiler_tests::{Fixture, Profiler, test, wait_until_still};
use serde::Deserialize;

/// Three threads that wait: in a read of a pipe, for a socket, for a child. It announces the child and the socket.
const PROGRAM: &str = "\
import os, socket, subprocess, sys, threading
one, other = socket.socketpair()
child = subprocess.Popen(['sleep', '100'], stdout=subprocess.DEVNULL)
def reads(): os.read(os.pipe()[0], 1)
def receives(): one.recv(1)
def waits(): child.wait()
for function in (reads, receives, waits):
    threading.Thread(target=function, name=function.__name__, daemon=True).start()
print('ready', os.getpid(), child.pid, one.fileno(), flush=True)
sys.stdin.readline()
child.kill()
";

#[derive(Deserialize)]
struct Thread {
    thread_name: Option<String>,
    state: String,
    waits_on: Option<String>,
}

fn descriptors_and_children_are_named(case: &Case) -> Result<()> {
    let mut fixture = Fixture::inline(case.interpreter, PROGRAM)?;
    wait_until_still(fixture.pid())?;
    let json = Profiler::new("dump").words("--json").pid(&fixture).succeed();
    let text = Profiler::new("dump").pid(&fixture).succeed();
    let (child, socket) = (fixture.children()[0], fixture.children()[1]);
    let link = std::fs::read_link(Path::new("/proc").join(format!("{}/fd/{socket}", fixture.pid())));
    // The child ends with it.
    fixture.close_stdin();
    let threads: Vec<Thread> = serde_json::from_str(&json?.stdout)?;
    let of = |name: &str| -> Result<(&str, &str)> {
        let found = threads.iter().find(|thread| thread.thread_name.as_deref() == Some(name));
        let thread = found.with_context(|| format!("no thread {name}"))?;
        Ok((&thread.state, thread.waits_on.as_deref().unwrap_or_default()))
    };
    let on_socket = format!("fd {socket}: {}", link?.display());
    ensure!(of("receives")? == ("waiting: socket", &on_socket), "{:?}", of("receives")?);
    let (state, on) = of("reads")?;
    ensure!(state == "waiting: file" && on.starts_with("fd ") && on.contains(": pipe:["), "{state} {on}");
    let child = format!("pid {child}");
    ensure!(of("waits")? == ("waiting: child process", &child), "{:?}", of("waits")?);
    let expected = format!("(idle, waiting: socket, {on_socket})");
    let text = text?.stdout;
    ensure!(text.contains(&expected), "no {expected} in\n{text}");
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(descriptors_and_children_are_named).on(On::Layouts)]
}
