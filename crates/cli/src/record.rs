//! `profiler record`: samples until something ends it, and writes what was seen.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use profiler_model::{LossReason, Nanos};
use profiler_os::clock;
use profiler_os::launch::{CommandEnd, InvokingUser, Streams};
use profiler_os::priority::LargerShare;
use profiler_os::signals::{self, Received, Signals, UserSignal};
use profiler_output::{Format, ViewOptions, write_ledger, write_ledger_json};
use profiler_profile::{Dictionary, Event, Filtered, Ledger, Profile, Sink, ViewFilter};
use profiler_sampler::{Directive, End, Observer, ProcessCode};
use profiler_target::NativeNames;

use crate::FAILED;
use crate::attach::{Accepts, expect_free, expect_own_proc, expect_tracing};
use crate::command::RunningCommand;
use crate::destination::{Destination, DestinationError};
use crate::failure::Failure;
use crate::flags::Mode;
use crate::kernel_clocks::await_clocks;
use crate::launch::{Missing, end_after_time, launch, source_of, status_of};
use crate::messages::{counted, report, say};
use crate::plan::{Output, RecordPlan, Subject};
use crate::progress::{Progress, ProgressLine};
use crate::rescue::write_or_keep;
use crate::sampling::{Sampling, Wanted};
use crate::source::Source;
use crate::tree_cost;
use crate::watchdog::Watchdog;

/// Records as planned; returns the exit status.
///
/// # Errors
/// When nothing could be recorded or written.
pub fn run(plan: &RecordPlan) -> anyhow::Result<u8> {
    let wanted = wanted_of(plan);

    let sampling = Sampling::choose(plan.choice, wanted, plan.sampler)?;
    expect_tracing(sampling.options.kind)?;
    let signals = Signals::install().context("cannot handle signals")?;
    let user = InvokingUser::behind_sudo();
    let destinations = Shared::new(Destinations::prove(plan, user.as_ref(), &signals)?);
    let watchdog = watch_for_hang(plan, &destinations);
    match &plan.subject {
        Subject::Process(pid) => {
            let source = Source::of(*pid, plan.subprocesses, Accepts::All)?;
            let sampling = sampling.fit(source.is_native, plan.choice, wanted)?;
            expect_tracing(sampling.options.kind)?;
            expect_free(*pid, sampling.options.kind)?;
            await_clocks(&signals)?;
            let recording = Recording::of(plan, source, sampling, &signals, &watchdog, None);
            drop(watchdog);
            recording.write(&Drawing::of(plan), destinations.take(), Some(&signals))?;
            Ok(0)
        }
        Subject::Command { program, arguments } => {
            expect_own_proc()?;
            // Before the command begins, so that nothing of it is missed.
            await_clocks(&signals)?;
            let command = launch(program, arguments, user, &signals, Streams::own())?;
            record_command(plan, sampling, command, &signals, (watchdog, destinations))
        }
    }
}

fn wanted_of(plan: &RecordPlan) -> Wanted {
    Wanted {
        mode: plan.mode,
        min_wait: Nanos::from(plan.min_wait),
        kernel_frames: plan.kernel_frames,
        of: plan.subject.process(),
    }
}

/// Writes what was recorded if the main thread hangs.
fn watch_for_hang(plan: &RecordPlan, destinations: &Shared) -> Watchdog {
    let (drawing, destinations) = (Drawing::of(plan), destinations.clone());
    let title = plan.subject.process().map(|pid| format!("process {pid}")).unwrap_or_default();
    Watchdog::start(move |profile| {
        let written = match profile {
            Some(profile) => {
                let recording = Recording { profile, stop: Stop::TargetSilent, title };
                recording.write(&drawing, destinations.take(), None)
            }
            None => Err(Failure::no_answer().into()),
        };
        match written {
            Ok(()) => 0,
            Err(error) => {
                report(&error);
                FAILED
            }
        }
    })
}

/// How what was recorded is drawn.
struct Drawing {
    format: &'static dyn Format,
    view: ViewOptions,
    filter: ViewFilter,
}

impl Drawing {
    fn of(plan: &RecordPlan) -> Self {
        Drawing { format: plan.format, view: plan.view.clone(), filter: plan.filter }
    }
}

/// Where the results go, for the thread that writes them first.
#[derive(Clone)]
struct Shared(Arc<Mutex<Option<Destinations>>>);

impl Shared {
    fn new(destinations: Destinations) -> Self {
        Shared(Arc::new(Mutex::new(Some(destinations))))
    }

    /// The destinations; waits for the end of the program where another thread has them.
    fn take(&self) -> Destinations {
        loop {
            match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(destinations) => return destinations,
                None => std::thread::park(),
            }
        }
    }
}

/// Where the results of a recording go.
struct Destinations {
    view: Destination,
    ledger: Option<Destination>,
}

impl Destinations {
    /// Proves that all of them can be written, before anything is sampled.
    fn prove(plan: &RecordPlan, user: Option<&InvokingUser>, signals: &Signals) -> Result<Self, Failure> {
        let prove = |output| prove_when_read(output, user, signals);
        let ledger = plan.ledger_json.as_ref().map(prove).transpose()?;
        Ok(Destinations { view: prove(&plan.output)?, ledger })
    }
}

/// Proves that `output` can be written; if it is a named pipe, waits until it has a reader.
fn prove_when_read(
    output: &Output,
    user: Option<&InvokingUser>,
    signals: &Signals,
) -> Result<Destination, Failure> {
    /// Between two looks for a reader.
    const NAP: Duration = Duration::from_millis(10);
    let mut is_told = false;
    loop {
        match Destination::prove(output, user) {
            Err(error @ DestinationError::NoReader(_)) => {
                if !std::mem::replace(&mut is_told, true) {
                    say(format_args!("Waiting for a reader of {}.", error.name()));
                }
                if take_end_signal(signals, None).is_some() {
                    return Err(Failure::new("interrupted before sampling began"));
                }
                std::thread::sleep(NAP);
            }
            proved => return Ok(proved?),
        }
    }
}

fn record_command(
    plan: &RecordPlan,
    sampling: Sampling,
    mut command: RunningCommand,
    signals: &Signals,
    results: (Watchdog, Shared),
) -> anyhow::Result<u8> {
    match source_of(&mut command, plan.subprocesses, Accepts::All, plan.duration, signals)? {
        Ok(source) => match sampling.fit(source.is_native, plan.choice, wanted_of(plan)) {
            Ok(sampling) => record_source(plan, source, sampling, command, signals, results),
            Err(failure) => Missing::Failed(failure).status(&mut command, plan.keep_running, signals),
        },
        Err(missing) => missing.status(&mut command, plan.keep_running, signals),
    }
}

fn record_source(
    plan: &RecordPlan,
    source: Source,
    sampling: Sampling,
    mut command: RunningCommand,
    signals: &Signals,
    (watchdog, destinations): (Watchdog, Shared),
) -> anyhow::Result<u8> {
    let recording = Recording::of(plan, source, sampling, signals, &watchdog, Some(&mut command));
    drop(watchdog);
    let stop = recording.stop;
    let written = recording.write(&Drawing::of(plan), destinations.take(), Some(signals));
    let end = end_of_command(&mut command, stop, plan.keep_running, signals)?;
    status_of(end, written)
}

/// How the command ended, or `None` when the time that the user has set was over before: then it is ended, as by py-spy, or
/// left running.
fn end_of_command(
    command: &mut RunningCommand,
    stop: Stop,
    keep_running: bool,
    signals: &Signals,
) -> anyhow::Result<Option<CommandEnd>> {
    match stop {
        Stop::TargetEnded | Stop::TargetSilent | Stop::Signal(_) => command.wait(signals).map(Some),
        Stop::TimeOver(_) => {
            let end = command.end()?;
            if end.is_some() {
                return Ok(end);
            }
            end_after_time(command, keep_running, signals)?;
            Ok(None)
        }
    }
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The time that the user has set is over.
    TimeOver(Duration),
    /// What was recorded has ended.
    TargetEnded,
    /// The memory of what was recorded does not answer.
    TargetSilent,
    /// A signal came.
    Signal(Received),
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Stop::TimeOver(duration) => write!(f, "{} s are over", duration.as_secs_f64()),
            Stop::TargetEnded => f.write_str("the process ended"),
            Stop::TargetSilent => f.write_str("the memory of the process does not answer"),
            Stop::Signal(received) => f.write_str(match received.signal {
                UserSignal::Interrupt => "interrupted",
                UserSignal::Terminate => "asked to terminate",
                UserSignal::HangUp => "the terminal is gone",
                UserSignal::Quit => "asked to quit",
                UserSignal::User1 | UserSignal::User2 => "asked to by a signal",
            }),
        }
    }
}

/// Passes on what came in; says so when it asks for an end.
pub fn take_end_signal(signals: &Signals, command: Option<&mut RunningCommand>) -> Option<Stop> {
    let received = signals.take()?;
    if let Some(command) = command {
        command.pass_on(received);
    }
    received.signal.asks_for_end().then_some(Stop::Signal(received))
}

/// What is lost when a second Ctrl-C quits.
static NOT_WRITTEN: &str = "interrupted again: what was recorded is lost\n";

/// Sums up what is sampled until a signal comes.
struct Recorder<'a> {
    view: Filtered<Profile>,
    watchdog: &'a Watchdog,
    line: ProgressLine,
    signals: &'a Signals,
    command: Option<&'a mut RunningCommand>,
    stop: Option<Stop>,
}

impl Sink for Recorder<'_> {
    fn take(&mut self, dictionary: &Dictionary, events: &[Event]) {
        self.view.take(dictionary, events);
    }

    fn epoch_ended(&mut self, dictionary: &Dictionary) {
        self.view.epoch_ended(dictionary);
    }
}

impl Observer for Recorder<'_> {
    fn go_on(&mut self, elapsed: Nanos) -> Directive {
        self.watchdog.keep(&self.view.sink);
        let ledger = self.view.sink.ledger();
        self.line.update(&Progress { elapsed, samples: ledger.shown(), lost: ledger.lost() });
        self.stop = take_end_signal(self.signals, self.command.as_deref_mut());
        if self.stop.is_some() { Directive::End } else { Directive::Continue }
    }
}

/// What was recorded.
#[derive(Debug)]
struct Recording {
    profile: Profile,
    stop: Stop,
    title: String,
}

impl Recording {
    /// Samples until the time is over, a signal comes or the target ends.
    fn of(
        plan: &RecordPlan,
        source: Source,
        sampling: Sampling,
        signals: &Signals,
        watchdog: &Watchdog,
        command: Option<&mut RunningCommand>,
    ) -> Self {
        say(format_args!("{}", beginning(&source, plan)));
        if plan.choice.is_none() {
            say(format_args!("{sampling}"));
        }
        tree_cost::tell(&sampling.options, plan.subprocesses, source.pid);
        let title = source.command_line();
        let profile = if plan.format.needs_timeline() { Profile::with_timeline() } else { Profile::new() };
        let limit = plan.duration.map(Nanos::from);
        let mut session = source.session(plan.subprocesses, sampling.options);
        sampling.begin(&mut session);
        signals::set_farewell(Some(&NOT_WRITTEN));
        watchdog.end_at(limit.map(|limit| clock::now() + limit));
        let line = ProgressLine::on_stderr();
        let view = Filtered { filter: plan.filter, sink: profile };
        let mut recorder = Recorder { view, watchdog, line, signals, command, stop: None };
        let end = session.run(&mut recorder, limit);
        let Recorder { view: Filtered { sink: profile, .. }, mut stop, .. } = recorder;
        match end {
            // Ctrl-C on the terminal ends a command sooner than it is noticed here.
            End::TargetEnded => stop = take_end_signal(signals, None),
            End::TargetSilent => stop = Some(Stop::TargetSilent),
            End::TimeOver => stop = plan.duration.map(Stop::TimeOver),
            End::Asked => {}
        }
        let profile = named(profile, &session.native_code());
        signals::note_ending();

        // Beside a hundred busy threads a CPU it would take seconds to write what was recorded, and to end. It is the last
        // thing to do, so that the share is kept until then.
        std::mem::forget(LargerShare::instead_of_real_time());
        let stop = stop.unwrap_or(Stop::TargetEnded);
        Recording { profile, stop, title }
    }

    /// Writes the view and tells how the recording went. With `signals` the user is waited for where there is no room for it.
    fn write(
        self,
        drawing: &Drawing,
        destinations: Destinations,
        signals: Option<&Signals>,
    ) -> anyhow::Result<()> {
        say(format_args!("stopped: {}", self.stop));
        let written = self.write_view(drawing, &destinations.view, signals);
        let ledger = self.profile.ledger();
        // A stderr that cannot be written is no reason to fail.
        let _ = write_ledger(ledger, &mut io::stderr());
        let ledger_written = match destinations.ledger {
            Some(file) => file.write(|out| write_ledger_json(ledger, out)).map(drop),
            None => Ok(()),
        };
        signals::set_farewell(None);
        written?;
        Ok(ledger_written?)
    }

    fn write_view(
        &self,
        drawing: &Drawing,
        destination: &Destination,
        signals: Option<&Signals>,
    ) -> anyhow::Result<()> {
        let ledger = self.profile.ledger();
        if ledger.shown() == 0 {
            if !nobody_held_gil(ledger, drawing.filter) {
                return Err(no_samples(ledger, drawing.filter).into());
            }
            say(format_args!("no samples: no thread held the GIL when it was looked at"));
        }
        let view = ViewOptions { title: self.title.clone(), ..drawing.view.clone() };
        let render: &dyn Fn(&mut dyn io::Write) -> _ = &|out| drawing.format.write(&self.profile, &view, out);
        let name = write_or_keep(destination, signals, render)?;
        say(format_args!("wrote {name}: {}", counted(ledger.shown(), "sample")));
        Ok(())
    }
}

/// The profile with the names of its native frames.
fn named(profile: Profile, code: &[ProcessCode]) -> Profile {
    if code.is_empty() {
        return profile;
    }
    let mut names: Vec<NativeNames> =
        code.iter().map(|code| NativeNames::new(code.process, &code.modules)).collect();
    profile.described(&mut |frame| {
        let found = names.iter_mut().map(|names| names.describe(frame)).find(|frames| !frames.is_empty());
        found.unwrap_or_default()
    })
}

/// In py-spy's words, which people and scripts know.
fn beginning(source: &Source, plan: &RecordPlan) -> String {
    let times = match (plan.mode, plan.sampler.rate_hz) {
        (Mode::OffCpu, _) => " each time it leaves its CPU".to_owned(),
        (_, 1.0) => " once a second".to_owned(),
        (_, rate) => format!(" {rate} times a second"),
    };
    let duration =
        plan.duration.map(|time| format!(" for {} seconds", time.as_secs_f64())).unwrap_or_default();
    let version = source.target.as_ref().map(|target| format!(" (Python {})", target.version_text()));
    let children = if plan.subprocesses { " and its child processes" } else { "" };
    format!(
        "Sampling process {}{}{children}{times}{duration}. Press Control-C to exit.",
        source.pid,
        version.unwrap_or_default(),
    )
}

/// A recording that lasts this many mean gaps is expected to have samples.
const SOME_INSTANTS: u64 = 5;

/// Whether the recording was long enough for some samples.
fn had_instants(ledger: &Ledger) -> bool {
    let interval = ledger.interval.filter(|interval| *interval > Nanos::ZERO);
    interval
        .is_some_and(|interval| ledger.duration() > Nanos::from_nanos(SOME_INSTANTS * interval.as_nanos()))
}

/// Whether the target hardly ran in a recording that was long enough for some samples.
fn used_no_cpu(ledger: &Ledger) -> bool {
    had_instants(ledger) && ledger.target_cpu.as_nanos() * SOME_INSTANTS < ledger.duration().as_nanos()
}

/// Whether that there are no samples is what was asked: only holders of the GIL were to be shown, nothing was lost, and at no
/// instant was there one. An empty view says so, as py-spy's does.
fn nobody_held_gil(ledger: &Ledger, filter: ViewFilter) -> bool {
    let was_sampled = ledger.processes.is_none_or(|processes| processes.sampled > 0);
    filter.gil_only && ledger.lost() == 0 && was_sampled && had_instants(ledger)
}

/// A view of nothing helps nobody: says why there is nothing instead.
fn no_samples(ledger: &Ledger, filter: ViewFilter) -> Failure {
    // The in-kernel sampler does not see threads that sleep, so that it leaves none of them out.
    let slept = ledger.not_asked_for() == 0 && !filter.gil_only && used_no_cpu(ledger);
    let unreadable = ledger.losses().iter().any(|(reason, _)| *reason == LossReason::ListsUnreadable);
    if unreadable {
        Failure::new(
            "no samples, so nothing was written: the lists of interpreters and threads of the process cannot be read \
             (they lead nowhere, back into themselves, or change all the time)",
        )
        .with_advice("again; if that does not help, the memory of the process is damaged, and a restart helps")
    } else if ledger.lost() > 0 {
        let reasons: Vec<String> =
            ledger.losses().iter().map(|(reason, times)| format!("{times} {reason}")).collect();
        Failure::new(format!("no samples, so nothing was written; lost were: {}", reasons.join(", ")))
    } else if ledger.processes.is_some_and(|processes| processes.sampled == 0) {
        Failure::new("no samples, so nothing was written: none of the processes had a Python that was up")
            .with_advice("a longer recording, if one is still to come up")
    } else if ledger.not_asked_for() == 0 && !slept {
        Failure::new("no samples, so nothing was written: the recording ended before the first one")
            .with_advice("a higher --rate, or a longer --duration")
    } else if filter.gil_only {
        Failure::new("no samples, so nothing was written: no thread held the GIL when it was looked at")
            .with_advice("without --gil or --mode gil")
    } else {
        Failure::new("no samples, so nothing was written: all threads were idle")
            .with_advice("--idle, which includes threads that wait")
    }
}

#[cfg(test)]
mod tests {
    use profiler_model::Timestamp;
    use profiler_profile::{Scope, Skip};

    use super::*;

    #[test]
    fn no_samples_say_what_to_try() {
        let options = |gil_only| ViewFilter { idle: false, gil_only };
        let mut ledger = Ledger::default();
        assert!(no_samples(&ledger, options(false)).to_string().contains("--rate"));
        let at = Timestamp::default();
        ledger.add(&Event::Skip(Skip::of(Scope::Session, at, 1)));
        assert!(no_samples(&ledger, options(false)).to_string().contains("--idle"));
        assert!(no_samples(&ledger, options(true)).to_string().contains("--gil"));
        ledger.add(&Event::loss(LossReason::Moved, at, 1));
        assert!(no_samples(&ledger, options(false)).to_string().contains("1 thread ran"));
        ledger.add(&Event::loss(LossReason::ListsUnreadable, at, 1));
        assert!(no_samples(&ledger, options(false)).to_string().contains("cannot be read"));
    }

    #[test]
    fn durations_are_told_as_they_were_asked_for() {
        assert_eq!(Stop::TimeOver(Duration::from_millis(250)).to_string(), "0.25 s are over");
        assert_eq!(Stop::TimeOver(Duration::from_secs(10)).to_string(), "10 s are over");
    }
}
