//! The thread that shows what `top` samples, and what it asks of the thread that samples.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use profiler_os::launch::InvokingUser;
use profiler_os::signals::{self, Signals};
use profiler_output::{Format, ViewOptions, Weight, escaped_text};
use profiler_tui::{Measure, SaveRequest, TopHost, Update};

use crate::destination::{Destination, DestinationError};
use crate::failure::Failure;
use crate::messages::{counted, say};
use crate::plan::{Output, TopPlan, choose_format};
use crate::record::take_end_signal;

/// How long the view may take to end when it is told to. It hangs only where its terminal does.
const LONGEST_FAREWELL: Duration = Duration::from_secs(2);
/// Between two looks whether it has ended.
const GLANCE: Duration = Duration::from_millis(5);

/// Between two checks whether a pipe has a reader.
const READER_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// The view asks to be suspended, and waits for the answer that it goes on.
struct Suspend(Sender<()>);

/// The view in its thread.
pub struct Window {
    updates: Sender<Update>,
    requests: Receiver<Suspend>,
    /// A request that is being obeyed.
    suspended: Option<Suspend>,
    should_end: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
    writer: Writer,
}

/// Writes a file beside the view, which goes on meanwhile. Only one at a time.
#[derive(Clone, Default)]
struct Writer(Arc<Mutex<Option<JoinHandle<String>>>>);

impl Writer {
    /// Begins; returns whether there was nothing else to do.
    fn begin(&self, write: impl FnOnce() -> String + Send + 'static) -> io::Result<bool> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_some() {
            return Ok(false);
        }
        *place = Some(thread::Builder::new().name("writer".to_owned()).spawn(write)?);
        Ok(true)
    }

    fn is_at_work(&self) -> bool {
        let place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        place.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// What came of the last one, once it is written.
    fn take_end(&self) -> Option<String> {
        if self.is_at_work() {
            return None;
        }
        let thread = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(thread.join().unwrap_or_else(|_| "it was not written: its thread has failed".to_owned()))
    }
}

impl Window {
    /// Takes the terminal and shows what comes in.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn open(plan: &TopPlan, view: ViewOptions) -> anyhow::Result<Self> {
        keep_resizes_away().context("cannot set the signals that are let through")?;
        let (updates, incoming) = mpsc::channel();
        let (asking, requests) = mpsc::channel();
        let should_end = Arc::new(AtomicBool::new(false));
        let (settings, told) = (plan.settings.clone(), should_end.clone());
        let writer = Writer::default();
        let mut sampling = Sampling { asking, view, writer: writer.clone() };
        let show = move || profiler_tui::run(settings, &incoming, &mut sampling, &told);
        let thread =
            thread::Builder::new().name("view".to_owned()).spawn(show).context("cannot start a thread")?;
        Ok(Window { updates, requests, suspended: None, should_end, thread, writer })
    }

    /// Hands over what is new.
    pub fn show(&self, update: Option<Update>) {
        // A view that has just ended needs it no more.
        update.into_iter().for_each(|update| drop(self.updates.send(update)));
    }

    /// Does what the view asks for, and waits so long for that. The sampling thread suspends the program when it next
    /// asks for signals, with the target left alone, and the view is told afterwards.
    pub fn serve(&mut self, longest: Duration) {
        if let Some(Suspend(resumed)) = self.suspended.take_if(|_| !signals::is_suspension_asked()) {
            let _ = resumed.send(());
        }
        if let Ok(request) = self.requests.recv_timeout(longest) {
            self.suspended = Some(request);
            // All of the foreground: the shell takes its terminal when its job has stopped, and continues
            // the whole of it. Where there is no such shell, the kernel lets nobody stop.
            let _ = kill(Pid::from_raw(0), Signal::SIGTSTP);
        }
    }

    /// Whether the view has ended.
    pub fn is_closed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the view, if it has not ended yet, and waits for what is still to be written, unless a signal comes.
    ///
    /// # Errors
    /// When it could not show anything.
    pub fn close(self, signals: &Signals) -> anyhow::Result<()> {
        self.should_end.store(true, Ordering::Relaxed);
        let limit = Instant::now() + LONGEST_FAREWELL;
        while !self.thread.is_finished() {
            if Instant::now() >= limit {
                return Err(Failure::new("the terminal does not answer").into());
            }
            thread::sleep(GLANCE);
        }
        if self.writer.is_at_work() {
            say(format_args!("waiting for the file to be written; Control-C gives it up"));
        }
        while self.writer.is_at_work() && take_end_signal(signals, None).is_none() {
            thread::sleep(GLANCE);
        }
        self.writer.take_end().into_iter().for_each(|told| say(format_args!("{told}")));
        match self.thread.join() {
            Ok(shown) => shown.context("cannot use the terminal"),
            Err(_) => Err(Failure::new("the view has failed; what it said is above").into()),
        }
    }
}

/// Has no thread from here on take the signal of another size, which the view notices by itself. When crossterm,
/// whose handler it is, finds it together with a key, it keeps the key to itself until the next one.
fn keep_resizes_away() -> nix::Result<()> {
    SigSet::from(Signal::SIGWINCH).thread_block()
}

/// The program around the view, as the view sees it.
struct Sampling {
    asking: Sender<Suspend>,
    view: ViewOptions,
    writer: Writer,
}

impl TopHost for Sampling {
    fn save(&mut self, request: SaveRequest) -> String {
        let samples = counted(request.profile.ledger().shown(), "sample");
        if request.profile.ledger().shown() == 0 {
            return "there is nothing to write yet".to_owned();
        }
        let (view, shown) = (self.view.clone(), escaped_text(&request.file).into_owned());
        let begun = self.writer.begin(move || match write(&request, &view) {
            Ok((name, format)) => format!("wrote {name} ({format}): {samples}"),
            Err(error) => format!("{error:#}"),
        });
        match begun {
            Ok(true) => format!("writing {shown} ..."),
            Ok(false) => "the last file is still being written".to_owned(),
            Err(error) => format!("cannot start a thread: {error}"),
        }
    }

    fn saved(&mut self) -> Option<String> {
        self.writer.take_end()
    }

    fn suspend(&mut self) {
        let (resumed, continues) = mpsc::channel();
        if self.asking.send(Suspend(resumed)).is_ok() {
            // No answer comes when sampling has just ended: then there is nothing to wait for.
            let _ = continues.recv();
        }
    }
}

fn write(request: &SaveRequest, view: &ViewOptions) -> anyhow::Result<(String, &'static str)> {
    let path = PathBuf::from(&request.file);
    let format = choose_format(None, Some(&path));
    let view = ViewOptions { weight: weight(format, request.measure), ..view.clone() };
    let user = InvokingUser::behind_sudo();
    let destination = prove_with_reader(&Output::File(path), user.as_ref())?;
    let name = destination.write(|out| format.write(&request.profile, &view, out)).with_context(|| {
        let has_no_timeline = format.needs_timeline() && !request.profile.keeps_timeline();
        if has_no_timeline { "r starts anew, after which it can be written" } else { "not written" }
    })?;
    Ok((name, format.name()))
}

/// The place, once a reader has opened it if it is a pipe: the view goes on meanwhile.
fn prove_with_reader(output: &Output, user: Option<&InvokingUser>) -> Result<Destination, DestinationError> {
    loop {
        match Destination::prove(output, user) {
            Err(DestinationError::NoReader(_)) => thread::sleep(READER_CHECK_INTERVAL),
            result => return result,
        }
    }
}

/// As `record` weighs: collapsed stacks count samples.
fn weight(format: &dyn Format, measure: Measure) -> Weight {
    match (format.name(), measure) {
        ("raw", _) => Weight::Samples,
        (_, Measure::Cpu) => Weight::Cpu,
        (_, Measure::Wall) => Weight::Wall,
    }
}
