//! From a process id to a target: at once for a process that runs already, with patience for a command
//! that was just launched.

use std::thread;
use std::time::{Duration, Instant};

use profiler_account::LaunchTime;
use profiler_model::{Nanos, Pid};
use profiler_os::launch::CommandEnd;
use profiler_os::signals::Signals;
use profiler_os::{ProcView, Process, clock, permission, proc_view};
use profiler_python::NotPython;
use profiler_sampler::SamplerKind;
use profiler_target::{AttachError, Search, Target, may_become_python};

use crate::command::RunningCommand;
use crate::failure::{CONTAINER_ADVICE, Failure, SOURCES_OF_PAGES, own_command_line};
use crate::messages::say;
use crate::offspring::{Offspring, PythonChild};

/// The first wait for Python to come up. An interpreter takes some ten milliseconds to start, and its
/// start-up belongs to what is profiled.
const FIRST_WAIT: Duration = Duration::from_millis(1);
/// The longest wait: a script may do other work for hours before it starts Python.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// After this time the user is told what is being waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Which processes can be sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepts {
    /// Those with a Python.
    Pythons,
    /// Those without, too.
    All,
}

/// Attaches to a process that runs already.
///
/// # Errors
/// When it cannot be profiled, with what to try.
pub fn attach(pid: Pid) -> Result<Target, Failure> {
    expect_own_proc()?;
    Target::attach(pid).map_err(|error| explain(pid, &error))
}

/// Makes sure that `/proc` shows the processes that we know by the same ids: in a PID namespace of its own
/// that kept the `/proc` of another one, we would look into processes that nobody asked for.
///
/// # Errors
/// When it does not, with what to try.
pub fn expect_own_proc() -> Result<(), Failure> {
    match proc_view() {
        ProcView::Own => Ok(()),
        ProcView::OtherNamespace => Err(Failure::new(
            "/proc shows the processes of another PID namespace than the one that the profiler runs in",
        )
        .with_advice("mount -t proc proc /proc")
        .with_advice("unshare --pid --fork --mount-proc ..., where unshare made the namespace")),
        ProcView::Missing => Err(Failure::new("/proc is not mounted, and nothing can be learnt without it")
            .with_advice("mount -t proc proc /proc")),
    }
}

/// Makes sure that the sampler's way of looking is allowed here at all, whatever it looks at.
///
/// # Errors
/// When it is not, with what to try.
pub fn expect_tracing(sampler: SamplerKind) -> Result<(), Failure> {
    if sampler == SamplerKind::Pause && permission::is_tracing_filtered() {
        return Err(Failure::new(
            "a system call filter (seccomp) forbids ptrace here, so nothing can be stopped",
        )
        .with_advice("--nonblocking, which stops nothing")
        .with_advice(CONTAINER_ADVICE));
    }
    Ok(())
}

/// Makes sure that a process can be sampled over time: that it is not standing still, and that nobody else
/// has it in hand when it is to be paused.
///
/// # Errors
/// When it cannot, with what to try.
pub fn expect_free(pid: Pid, sampler: SamplerKind) -> Result<(), Failure> {
    let process = Process::new(pid);
    if let (Some(tracer), SamplerKind::Pause) = (process.tracer(), sampler) {
        let what = format!("process {pid} is traced by process {tracer} already, and only one may");
        return Err(Failure::new(what)
            .with_advice(format!("end the debugger or profiler that is process {tracer}, or let it detach"))
            .with_advice("--nonblocking, which does not stop the process"));
    }
    match process.state() {
        Some(b'T') => {
            Err(Failure::new(format!("process {pid} is stopped by a signal, so there is nothing to sample"))
                .with_advice(format!("kill -CONT {pid}, which lets it run on"))
                .with_advice(format!("profiler dump --pid {pid}, which shows where it stands")))
        }
        _ => Ok(()),
    }
}

/// Whether a command that was just launched may still become a Python that can be profiled.
fn may_come_up(error: &AttachError, waited: Duration) -> bool {
    match error {
        AttachError::NoSuchProcess(_)
        | AttachError::ProcessEnded(_)
        | AttachError::NotInitialised(_)
        | AttachError::NotPython { what: NotPython::NoModule, .. } => true,
        // While the loader is at work, half of a Python may be there.
        AttachError::Unreadable { .. } => waited < PATIENCE,
        AttachError::NotPermitted(_)
        | AttachError::NoAnswer(_)
        | AttachError::NotPython { .. }
        | AttachError::UnknownVersion { .. } => false,
    }
}

fn explain(pid: Pid, error: &AttachError) -> Failure {
    let failure = Failure::new(error.to_string());
    match error {
        AttachError::NotPermitted(_) => {
            Failure::not_permitted(pid, &permission::diagnose(pid), &own_command_line())
        }
        AttachError::NoSuchProcess(_) | AttachError::ProcessEnded(_) => {
            failure.with_advice("pgrep -a python, which lists what runs")
        }
        AttachError::NotPython { what: NotPython::NoModule, .. } => without_python(pid, error),
        AttachError::UnknownVersion { .. } => {
            failure.with_advice("a newer version of the profiler, which may know it")
        }
        AttachError::NotInitialised(_) => not_initialised(pid, failure),
        AttachError::NoAnswer(_) => failure.with_advice(SOURCES_OF_PAGES),
        AttachError::NotPython { .. } | AttachError::Unreadable { .. } => failure,
    }
}

/// Whether a process has started a Python, which is what was meant if it has none itself.
pub fn has_python_child(pid: Pid) -> bool {
    Offspring::default().look_closely(pid).is_some()
}

/// A process without Python may have started one, which is what was meant then.
fn without_python(pid: Pid, error: &AttachError) -> Failure {
    let failure = Failure::new(format!("{error}, and this command shows Python only"));
    match Offspring::default().look_closely(pid) {
        Some(child) => failure.or_child(&child),
        None => failure.with_advice(format!("pgrep -aP {pid}, which lists its children")),
    }
}

/// A process may have loaded Python only for its children, as a web server does that runs it in its workers.
fn not_initialised(pid: Pid, failure: Failure) -> Failure {
    match Offspring::default().look_closely(pid) {
        Some(child) => failure.or_child(&child),
        None => failure.with_advice("again in a moment: the interpreter is just starting or ending"),
    }
}

impl Failure {
    /// The same with how to profile the child that was meant.
    fn or_child(self, child: &PythonChild) -> Self {
        self.with_advice(format!("--pid {}: it has started {child}", child.pid))
            .with_advice("--subprocesses, which includes child processes")
    }
}

/// What came of waiting for a command's Python.
#[derive(Debug)]
pub enum Awaited {
    /// It came up.
    Python(Box<Target>, LaunchTime),
    /// The command is a program without Python.
    Native(LaunchTime),
    /// The command ended first.
    Ended(CommandEnd),
    /// The user does not want to wait any longer.
    Interrupted,
    /// The time to record is over. The command may have started a Python as another process.
    TimeOver(Duration, Option<PythonChild>),
    /// What came up cannot be profiled.
    Failed(Failure),
}

/// Waits for Python to come up in a launched command: the command may be a shell script or another program
/// that at last replaces itself by Python. `limit`: how long is to be recorded, if that is limited; Python itself has
/// [`PATIENCE`] to come up.
///
/// # Errors
/// When the kernel does not tell what became of the command.
pub fn await_python(
    command: &mut RunningCommand,
    accepts: Accepts,
    limit: Option<Duration>,
    signals: &Signals,
) -> anyhow::Result<Awaited> {
    let began = Instant::now();
    let mut told = false;
    let mut wait = FIRST_WAIT;
    let pid = command.launched().pid();
    let mut search = Search::new(pid);
    let started = command.started();
    let mut beginning = LaunchTime { started, without_python: started, cpu_without_python: Nanos::ZERO };
    let mut children = Children::default();
    loop {
        // Before the look: it may be up just after it.
        let (now, cpu) = (clock::now(), Process::new(pid).cpu_time());
        match search.attach() {
            Ok(target) => return Ok(Awaited::Python(Box::new(target), beginning)),
            Err(AttachError::NotPython { what: NotPython::NoModule, .. })
                if accepts == Accepts::All && !may_become_python(&Process::new(pid)) =>
            {
                return Ok(Awaited::Native(beginning));
            }
            Err(error) if may_come_up(&error, began.elapsed()) => {
                beginning.without_python = now;
                beginning.cpu_without_python = cpu.unwrap_or(beginning.cpu_without_python);
            }
            Err(error) => return Ok(Awaited::Failed(explain(pid, &error))),
        }
        children.look(pid);
        if let Some(end) = command.end()? {
            children.tell(command);
            return Ok(Awaited::Ended(end));
        }
        if let Some(received) = signals.take() {
            command.pass_on(received);
            if received.signal.asks_for_end() {
                return Ok(Awaited::Interrupted);
            }
        }
        if !told && began.elapsed() >= PATIENCE {
            told = true;
            say(format_args!("Waiting for Python to come up in {}.", command.title()));
        }
        if let Some(limit) = limit.filter(|limit| children.is_over(pid, *limit, began.elapsed())) {
            return Ok(Awaited::TimeOver(limit, children.python));
        }
        if told {
            children.tell(command);
        }
        let rest = limit.map(|limit| limit.saturating_sub(began.elapsed())).filter(|rest| !rest.is_zero());
        thread::sleep(rest.map_or(wait, |rest| rest.min(wait)));
        wait = (wait * 3 / 2).min(LONGEST_WAIT);
    }
}

/// The Python that a command has started instead of becoming one, as shells do with all commands but the last.
/// It is not taken for what was meant at once: scripts start one for this or that before they become another.
#[derive(Default)]
struct Children {
    offspring: Offspring,
    python: Option<PythonChild>,
    told: bool,
}

impl Children {
    fn look(&mut self, command: Pid) {
        if self.python.is_none() {
            self.python = self.offspring.look(command);
        }
    }

    /// Whether the command will become no Python within the time to record: that has passed, and a child is the
    /// Python, or nothing has come up for so long that the interpreter cannot be just starting.
    fn is_over(&mut self, command: Pid, limit: Duration, waited: Duration) -> bool {
        if waited < limit {
            return false;
        }
        if self.python.is_none() {
            self.python = self.offspring.look_closely(command);
        }
        self.python.is_some() || waited >= PATIENCE
    }

    /// Tells of it, once.
    fn tell(&mut self, command: &RunningCommand) {
        if let (Some(child), false) = (&self.python, self.told) {
            self.told = true;
            let title = command.title();
            say(format_args!("{title} has started {child}; child processes need --subprocesses"));
        }
    }
}
