//! A Python whose list of threads leads nowhere or back into itself, and processes that are just ending: the error says so, and
//! not that threads are idle or that there is no Python. What the lists of other versions look like is in the unit tests.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Test};
use profiler_tests::test;
use profiler_tests::{Fixture, Profiler};

/// Sets the pointer of its thread state to the next one, which stands behind the one to the previous in all versions, and
/// works. It ends without its interpreter, which would follow the list.
const DAMAGED: &str = "\
import ctypes, os, select, sys
get = ctypes.pythonapi.PyThreadState_Get
get.restype = ctypes.c_void_p
state = get()
ctypes.c_void_p.from_address(state + 8).value = {'loop': state, 'nowhere': 16}[sys.argv[1]]
def work():
    while not select.select([0], [], [], 0)[0]:
        for _ in range(1000): pass
print('ready', os.getpid(), flush=True)
work()
os._exit(0)
";

fn damaged(case: &Case, how: &str) -> Result<Fixture> {
    let mut words = case.interpreter.inline_words(DAMAGED);
    words.push(how.into());
    Fixture::start_words(&words)
}

fn must_say_that_lists_are_unreadable(case: &Case, how: &str) -> Result<()> {
    let fixture = damaged(case, how)?;
    let record = Profiler::new("record").words(&case.sampler_words()).words("-r 200 -f raw -o -");
    let mut running = record.pid(&fixture).spawn()?;
    running.wait_until_sampling()?;
    fixture.work_for(Duration::from_millis(100))?;
    running.signal(Signal::SIGINT)?;
    let run = running.wait()?;
    ensure!(run.code() == Some(1), "{how}: {run:?}");
    run.must_say(&["lists of interpreters and threads of the process cannot be read"])?;
    let ledger = run.ledger()?;
    ensure!(ledger.lost_for("lists of threads could not be read") > 0, "{how}: {}", run.stderr);
    ensure!(ledger.shown == 0 && !run.stderr.contains("idle"), "{how}: {}", run.stderr);
    Ok(())
}

fn unreadable_list_of_threads_is_said_to_be(case: &Case) -> Result<()> {
    must_say_that_lists_are_unreadable(case, "loop")?;
    must_say_that_lists_are_unreadable(case, "nowhere")
}

fn looks_at_unreadable_lists_fail(case: &Case) -> Result<()> {
    for (how, hint) in [("loop", "is broken there"), ("nowhere", "cannot be read")] {
        let fixture = damaged(case, how)?;
        Profiler::new("dump").pid(&fixture).fail(&[hint])?;
        let doctor = Profiler::new("doctor").pid(&fixture).run()?;
        ensure!(doctor.code() == Some(1), "{how}: {doctor:?}");
        let is_said = doctor.stdout.contains("lists of interpreters and threads of process");
        ensure!(is_said, "{how}: {}", doctor.stdout);
    }
    Ok(())
}

/// Takes so much memory that the kernel needs a while to free it: all that time the process is there and has none.
const LARGE: &str = "\
import os, sys
memory = bytearray(200 << 20)
print('ready', os.getpid(), flush=True)
sys.stdin.readline()
";

/// Looks at a process that is being killed: whatever they meet, none finds a process that is no Python.
fn ending_process_is_not_called_no_python(case: &Case) -> Result<()> {
    const LOOKS: usize = 6;
    let fixture = Fixture::inline(case.interpreter, LARGE)?;
    let dump = || Profiler::new("dump").words("--nonblocking").pid(&fixture).spawn();
    let mut looks = vec![dump()?];
    kill(Pid::from_raw(i32::try_from(fixture.pid())?), Signal::SIGKILL)?;
    for _ in 1..LOOKS {
        looks.push(dump()?);
    }
    for look in looks {
        let run = look.wait()?;
        ensure!(matches!(run.code(), Some(0 | 1)), "{run:?}");
        ensure!(!run.stderr.contains("not a Python process"), "{}", run.stderr);
    }
    Profiler::new("dump").pid(&fixture).fail(&["ended"]).map(drop)
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(unreadable_list_of_threads_is_said_to_be).on(On::Layouts).by(PAUSE_AND_BPF),
        test!(looks_at_unreadable_lists_fail).on(On::Layouts),
        test!(ending_process_is_not_called_no_python),
    ]
}
