//! The thread that shows what `top` samples, and what it asks of the thread that samples.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use profiler_os::launch::InvokingUser;
use profiler_os::signals::Signals;
use profiler_output::{Format, ViewOptions, Weight};
use profiler_tui::{Host, Measure, SaveRequest, Update};

use crate::destination::Destination;
use crate::failure::Failure;
use crate::messages::counted;
use crate::plan::{Output, TopPlan, choose_format};

/// How long the view may take to end when it is told to. It hangs only where its terminal does.
const LONGEST_FAREWELL: Duration = Duration::from_secs(2);
/// Between two looks whether it has ended.
const GLANCE: Duration = Duration::from_millis(5);

/// The view asks to be suspended, and waits for the answer that it goes on.
struct Suspend(Sender<()>);

/// The view in its thread.
pub struct Window {
    updates: Sender<Update>,
    requests: Receiver<Suspend>,
    should_end: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
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
        let mut sampling = Sampling { asking, view };
        let show = move || profiler_tui::run(settings, &incoming, &mut sampling, &told);
        let thread =
            thread::Builder::new().name("view".to_owned()).spawn(show).context("cannot start a thread")?;
        Ok(Window { updates, requests, should_end, thread })
    }

    /// Hands over what is new.
    pub fn show(&self, update: Option<Update>) {
        // A view that has just ended needs it no more.
        update.into_iter().for_each(|update| drop(self.updates.send(update)));
    }

    /// Does what the view asks for, and waits so long for that.
    pub fn serve(&self, longest: Duration, signals: &Signals) {
        if let Ok(Suspend(resumed)) = self.requests.recv_timeout(longest) {
            // All of the foreground: the shell takes its terminal when its job has stopped, and continues
            // the whole of it. Where there is no such shell, the kernel lets nobody stop.
            let _ = kill(Pid::from_raw(0), Signal::SIGTSTP);
            signals.suspend_if_asked();
            let _ = resumed.send(());
        }
    }

    /// Whether the view has ended.
    pub fn is_closed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the view, if it has not ended yet.
    ///
    /// # Errors
    /// When it could not show anything.
    pub fn close(self) -> anyhow::Result<()> {
        self.should_end.store(true, Ordering::Relaxed);
        let limit = Instant::now() + LONGEST_FAREWELL;
        while !self.thread.is_finished() {
            if Instant::now() >= limit {
                return Err(Failure::new("the terminal does not answer").into());
            }
            thread::sleep(GLANCE);
        }
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
}

impl Host for Sampling {
    fn save(&mut self, request: SaveRequest) -> String {
        let samples = counted(request.profile.ledger().shown(), "sample");
        if request.profile.ledger().shown() == 0 {
            return "there is nothing to write yet".to_owned();
        }
        match self.write(&request) {
            Ok((name, format)) => format!("wrote {name} ({format}): {samples}"),
            Err(error) => format!("{error:#}"),
        }
    }

    fn suspend(&mut self) {
        let (resumed, continues) = mpsc::channel();
        if self.asking.send(Suspend(resumed)).is_ok() {
            // No answer comes when sampling has just ended: then there is nothing to wait for.
            let _ = continues.recv();
        }
    }
}

impl Sampling {
    fn write(&self, request: &SaveRequest) -> anyhow::Result<(String, &'static str)> {
        let path = PathBuf::from(&request.file);
        let format = choose_format(None, Some(&path));
        let view = ViewOptions { weight: weight(format, request.measure), ..self.view.clone() };
        let user = InvokingUser::behind_sudo();
        let destination = Destination::prove(&Output::File(path), user.as_ref())?;
        let name = destination.name();
        destination.write(|out| format.write(&request.profile, &view, out)).with_context(|| {
            let has_no_timeline = format.needs_timeline() && !request.profile.keeps_timeline();
            if has_no_timeline { "r starts anew, after which it can be written" } else { "not written" }
        })?;
        Ok((name, format.name()))
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
