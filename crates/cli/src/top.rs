//! `profiler top`: samples here, while another thread shows what comes in; the sampling thread has to stay the
//! same, as the kernel lets go of what another one holds.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::FileExt;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use profiler_model::{Nanos, Pid, Timestamp};
use profiler_os::launch::{CommandEnd, InvokingUser, Streams};
use profiler_os::signals::{Signals, UserSignal};
use profiler_os::{Process, clock};
use profiler_output::{ViewOptions, write_ledger};
use profiler_profile::{Dictionary, Event, Ledger, Sink};
use profiler_sampler::{Directive, End, Observer};
use profiler_tui::{Feed, Update};

use crate::FAILED;
use crate::attach::{Accepts, expect_free, expect_own_proc, expect_tracing};
use crate::command::RunningCommand;
use crate::failure::Failure;
use crate::kernel_clocks::await_clocks;
use crate::launch::{launch, source_of, status_of};
use crate::messages::{counted, report, say};
use crate::plan::{Subject, TopPlan};
use crate::record::take_end_signal;
use crate::sampling::{Sampling, Wanted};
use crate::source::Source;
use crate::tree_cost;
use crate::watchdog::Watchdog;
use crate::window::Window;

/// The view is handed what is new this often: what it shows changes less often still.
const UPDATE_GAP: Nanos = Nanos::from_nanos(100_000_000);
/// The memory of the target is looked at this often.
const MEMORY_GAP: Nanos = Nanos::from_nanos(500_000_000);
/// When sampling is over, requests and signals are looked for this often.
const GLANCE: Duration = Duration::from_millis(20);
/// How much of what a command wrote is shown at the end. More is in nobody's terminal anyway.
const MAX_SHOWN_OUTPUT: u64 = 1 << 20;

/// Shows live as planned; returns the exit status.
///
/// # Errors
/// When nothing could be shown.
pub fn run(plan: &TopPlan) -> anyhow::Result<u8> {
    expect_terminal(&plan.subject)?;
    let wanted =
        Wanted { kernel_frames: plan.kernel_frames, of: plan.subject.process(), ..Wanted::default() };
    let sampling = Sampling::choose(plan.choice, wanted, plan.sampler)?;
    expect_tracing(sampling.options.kind)?;
    if plan.choice.is_none() {
        // Before the view has the terminal: it is there again afterwards.
        say(format_args!("{sampling}"));
    }
    let signals = Signals::install().context("cannot handle signals")?;
    let _watchdog = Watchdog::start(|_| {
        report(&Failure::no_answer().into());
        FAILED
    });
    match &plan.subject {
        Subject::Process(pid) => {
            let source = Source::of(*pid, plan.subprocesses, Accepts::Pythons)?;
            expect_free(*pid, sampling.options.kind)?;
            await_clocks(&signals)?;
            // Before the view has the terminal, as above.
            tree_cost::tell(&sampling.options, plan.subprocesses, *pid);
            Watched::of(plan, source, sampling, &signals, None)?.tell();
            Ok(0)
        }
        Subject::Command { .. } => {
            expect_own_proc()?;
            await_clocks(&signals)?;
            watch_command(plan, sampling, &signals)
        }
    }
}

/// Makes sure that there is somebody to look and to press keys.
fn expect_terminal(subject: &Subject) -> Result<(), Failure> {
    let missing = if !io::stdin().is_terminal() {
        "stdin is no terminal, so there are no keys to be read"
    } else if !io::stdout().is_terminal() {
        "stdout is no terminal, so there is nothing to draw on"
    } else if std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
        "the terminal cannot be drawn on: TERM is not set, or dumb"
    } else {
        return Ok(());
    };
    let failure = Failure::new(format!("top needs a terminal, and {missing}"));
    Err(match subject {
        Subject::Process(pid) => failure
            .with_advice(format!("profiler record --pid {pid} -d 10 -o flame.svg, which writes to a file"))
            .with_advice(format!("profiler dump --pid {pid}, which prints where each thread is")),
        Subject::Command { .. } => {
            failure.with_advice("profiler record -o flame.svg -- command, which writes to a file")
        }
    })
}

fn watch_command(plan: &TopPlan, sampling: Sampling, signals: &Signals) -> anyhow::Result<u8> {
    let Subject::Command { program, arguments } = &plan.subject else {
        return Err(Failure::new("there is no command").into());
    };
    let output = CommandOutput::new()?;
    let user = InvokingUser::behind_sudo();
    let mut command = launch(program, arguments, user, signals, output.streams()?)?;
    match source_of(&mut command, plan.subprocesses, Accepts::Pythons, None, signals)? {
        Ok(source) => watch_source(plan, source, sampling, command, &output, signals),
        Err(missing) => {
            output.show();
            missing.status(&mut command, false, signals)
        }
    }
}

fn watch_source(
    plan: &TopPlan,
    source: Source,
    sampling: Sampling,
    mut command: RunningCommand,
    output: &CommandOutput,
    signals: &Signals,
) -> anyhow::Result<u8> {
    let watched = Watched::of(plan, source, sampling, signals, Some(&mut command));
    let by_signal = watched.as_ref().is_ok_and(|watched| watched.by_signal);
    let end = end_of_command(&mut command, by_signal, signals)?;
    output.show();
    status_of(Some(end), watched.map(|watched| watched.tell()))
}

/// Whoever ends the view has seen enough of the command as well: it is interrupted as by Ctrl-C, and waited for.
fn end_of_command(
    command: &mut RunningCommand,
    has_signal: bool,
    signals: &Signals,
) -> anyhow::Result<CommandEnd> {
    if let Some(end) = command.end()? {
        return Ok(end);
    }
    if !has_signal {
        command.launched().send(UserSignal::Interrupt);
    }
    // The terminal is whole again, and sends what Ctrl-C means to the command as well as to us.
    say(format_args!("waiting for {} to end; Ctrl-C interrupts it again", command.title()));
    command.wait(signals)
}

/// What a command writes while the view has the terminal.
struct CommandOutput {
    file: File,
}

impl CommandOutput {
    fn new() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir();
        let file = profiler_os::file::unnamed_file(&folder)
            .with_context(|| format!("cannot keep in {} what the command writes", folder.display()))?;
        Ok(CommandOutput { file })
    }

    /// The terminal is the view's: the command reads nothing, and what it would write there is kept.
    fn streams(&self) -> io::Result<Streams> {
        let kept = || self.file.try_clone().map(Stdio::from);
        let stderr = if io::stderr().is_terminal() { kept()? } else { Stdio::inherit() };
        Ok(Streams { stdin: Stdio::null(), stdout: kept()?, stderr })
    }

    /// Writes what was kept, now that the terminal is free. If it cannot be, it is lost, as it would have been.
    fn show(&self) {
        let _ = self.copy_to(&mut io::stdout());
    }

    fn copy_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let skipped = length.saturating_sub(MAX_SHOWN_OUTPUT);
        if skipped > 0 {
            writeln!(out, "(the command wrote {} before this)", counted(skipped, "byte"))?;
        }
        // Read by position: the command may be writing, and shares the file's own.
        let mut rest = vec![0; usize::try_from(length - skipped).unwrap_or_default()];
        self.file.read_exact_at(&mut rest, skipped)?;
        out.write_all(&rest)?;
        out.flush()
    }
}

/// What was seen.
struct Watched {
    ledger: Ledger,
    /// Whether a signal ended it, which the command has got as well.
    by_signal: bool,
}

impl Watched {
    /// Samples and shows until the user or a signal ends it.
    fn of(
        plan: &TopPlan,
        source: Source,
        sampling: Sampling,
        signals: &Signals,
        command: Option<&mut RunningCommand>,
    ) -> anyhow::Result<Self> {
        let view = ViewOptions { title: source.command_line(), ..plan.view.clone() };
        let (window, feeder) = (Window::open(plan, view)?, Feeder::default());
        let mut session = source.session(plan.subprocesses, sampling.options);
        sampling.begin(&mut session);
        let mut watcher = Watcher { window, feeder, signals, command, by_signal: false };
        let end = session.run(&mut watcher, None);
        if !watcher.is_over() {
            let last = watcher.feeder.last_update(end);
            watcher.window.show(Some(last));
        }
        // What is on the screen stays there until the user has seen enough.
        while !watcher.is_over() {
            watcher.serve(GLANCE);
        }
        let Watcher { window, feeder, by_signal, .. } = watcher;
        window.close(signals)?;
        Ok(Watched { ledger: feeder.ledger, by_signal })
    }

    /// Tells how it went.
    fn tell(&self) {
        // A stderr that cannot be written is no reason to fail.
        let _ = write_ledger(&self.ledger, &mut io::stderr());
    }
}

/// Shows what is sampled until the user or a signal ends it.
struct Watcher<'a> {
    window: Window,
    feeder: Feeder,
    signals: &'a Signals,
    command: Option<&'a mut RunningCommand>,
    by_signal: bool,
}

impl Watcher<'_> {
    fn is_over(&self) -> bool {
        self.by_signal || self.window.is_closed()
    }

    /// Does what the view and signals ask for; waits for the view at most so long.
    fn serve(&mut self, longest: Duration) {
        self.by_signal = take_end_signal(self.signals, self.command.as_deref_mut()).is_some();
        self.window.serve(longest);
    }
}

impl Sink for Watcher<'_> {
    fn take(&mut self, dictionary: &Dictionary, events: &[Event]) {
        self.feeder.take(dictionary, events);
    }

    fn wants_looks(&self) -> bool {
        true
    }
}

impl Observer for Watcher<'_> {
    fn go_on(&mut self, _elapsed: Nanos) -> Directive {
        self.window.show(self.feeder.update_if_due());
        self.serve(Duration::ZERO);
        if self.is_over() { Directive::End } else { Directive::Continue }
    }
}

/// What the view is to be handed, and when.
#[derive(Default)]
struct Feeder {
    feed: Feed,
    ledger: Ledger,
    next: Timestamp,
    next_memory: Timestamp,
}

impl Feeder {
    fn take(&mut self, dictionary: &Dictionary, events: &[Event]) {
        events.iter().for_each(|event| self.ledger.add(event));
        self.feed.take(dictionary, events);
    }

    /// What is new, if it is time for that.
    fn update_if_due(&mut self) -> Option<Update> {
        let now = clock::now();
        if now < self.next {
            return None;
        }
        self.next = now + UPDATE_GAP;
        let mut update = self.feed.update(now);
        if now >= self.next_memory {
            self.next_memory = now + MEMORY_GAP;
            update.memory = resident_memory(self.feed.pids());
        }
        Some(update)
    }

    /// What was new when sampling ended by itself.
    fn last_update(&mut self, end: End) -> Update {
        let end = match end {
            End::TargetSilent => "the memory of the process does not answer",
            End::TargetEnded | End::TimeOver | End::Asked => "the process has ended",
        };
        Update { end: Some(end.to_owned()), ..self.feed.update(clock::now()) }
    }
}

/// What the processes hold together; pages that they share count for each.
fn resident_memory(pids: &BTreeSet<Pid>) -> Option<u64> {
    let held = |pid: &Pid| Process::new(*pid).resident_memory();
    pids.iter().filter_map(held).reduce(|one, other| one + other)
}
