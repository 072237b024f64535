//! The engine: it samples any number of processes at one rate, and writes what it finds as events to a sink.
//!
//! All processes share one clock: at each instant each of them is sampled. So a tree of processes costs one wake-up per instant, and
//! no process is sampled more often than another. How the samples are taken is up to a [`Driver`]: `on_schedule` takes them from
//! outside, `in_kernel` reads what the in-kernel program took.
//!
//! A recording is an engine with one process or tree ([`Session`](crate::Session) runs it), a daemon is an engine with many. The
//! engine neither decides how long it runs nor sleeps, except in [`Engine::wait_until`].

mod costs;
mod driver;
mod in_kernel;
mod launch;
mod on_schedule;
mod promptness;

use profiler_account::LaunchTime;
use profiler_model::{Pid, Timestamp};
use profiler_os::{clock, limits};
use profiler_profile::{CapturePolicy, Dictionary, Event, MarkKind, Scope, Sink};
use profiler_target::ForkedRuntime;

use crate::bpf::BpfProgram;
use crate::deadline::{DeadlineKeeper, latest_look};
use crate::event_writer::EventWriter;
use crate::native::{NativeProcess, ProcessCode};
use crate::processes::{LinuxHost, ProcessSet};

use driver::{Driver, Processes};
use in_kernel::KernelDriver;
use on_schedule::ScheduleDriver;

/// A way of taking samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SamplerKind {
    /// Stops one thread for a moment.
    #[default]
    Pause,
    /// Stops nothing, and keeps what it can prove.
    Peek,
    /// Runs inside the kernel at the instant itself, and stops nothing.
    Bpf,
}

/// What to sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerOptions {
    /// The mean sample rate, in samples per second.
    pub rate_hz: f64,
    /// How samples are taken.
    pub kind: SamplerKind,
    /// Which stacks are captured.
    pub policy: CapturePolicy,
    /// Whether processes without Python are sampled, which `pause` and `peek` do by stopping threads.
    pub native: bool,
    /// The CPU time that the profiler may use, as a share of one core: 1 is a whole one.
    pub max_cpu: f64,
}

/// Samples processes.
///
/// [`Engine::start`] and all later calls belong to one thread, which gets the priority that sampling needs.
#[derive(Debug)]
pub struct Engine {
    processes: Processes,
    dictionary: Dictionary,
    /// Events that polls have written and not handed over yet.
    events: Vec<Event>,

    options: SamplerOptions,
    launch: Option<(Pid, LaunchTime)>,
    driver: Option<Box<dyn Driver>>,
}

impl Engine {
    /// An engine without processes that has not started.
    pub fn new(options: SamplerOptions) -> Self {
        Engine {
            processes: ProcessSet::new(LinuxHost::new(options)),
            dictionary: Dictionary::default(),
            events: Vec::new(),
            options,
            launch: None,
            driver: None,
        }
    }

    /// Has `program`, which ticks already, take the samples: [`SamplerKind::Bpf`] needs it before the start.
    pub fn set_program(&mut self, program: BpfProgram) {
        self.processes.parts().0.program = Some(program);
    }

    /// Adds a process, and its descendants if `with_descendants`: those that there are and those that come. `runtime` is its
    /// Python, if that was found. A process that is sampled already is left as it is.
    pub fn add(&mut self, pid: Pid, runtime: Option<ForkedRuntime>, with_descendants: bool) {
        self.processes.add_root(pid, runtime, with_descendants);
    }

    /// Counts what the process `root`, which was launched to be sampled, did before it could be.
    pub fn note_launch(&mut self, root: Pid, launch: LaunchTime) {
        self.launch = Some((root, launch));
    }

    /// Starts sampling, on the calling thread.
    pub fn start(&mut self, sink: &mut dyn Sink) {
        limits::want_many_files();
        let (options, launch) = (self.options, self.launch);
        let driver = self.write(sink, |processes, _, events| -> Box<dyn Driver> {
            events.mark(Scope::Session, clock::now(), MarkKind::Captured(options.policy));
            match options.kind {
                SamplerKind::Pause | SamplerKind::Peek => {
                    Box::new(ScheduleDriver::start(processes, options, launch, events))
                }
                SamplerKind::Bpf => Box::new(KernelDriver::start(processes, options, launch, events)),
            }
        });
        self.driver = Some(driver);
    }

    /// The instant from which on samples count: the start, or the launch of what is sampled.
    pub fn counts_since(&self) -> Timestamp {
        self.driver.as_ref().map_or(Timestamp::default(), |driver| driver.counts_since())
    }

    /// Does what is due at `now`: takes samples, or reads those that the in-kernel program took. Returns when it is to be called
    /// again. The events are handed over in batches; every other call hands over what is left.
    pub fn poll(&mut self, now: Timestamp, sink: &mut dyn Sink) -> Timestamp {
        let next = self.write_in_batches(sink, |processes, driver, events| {
            driver.map(|driver| driver.poll(processes, events, now))
        });
        next.unwrap_or(Timestamp::MAX)
    }

    /// Sleeps until `instant`, or until there is something to do for [`Engine::poll`] before.
    pub fn wait_until(&self, instant: Timestamp) {
        if let Some(driver) = &self.driver {
            driver.wait_until(&self.processes, instant);
        }
    }

    /// Does what is not due at an instant: follows births and ends of processes, keeps the limit of CPU time, and reports all that
    /// is known, except for waits that go on. To be called some twenty times per second.
    pub fn report(&mut self, now: Timestamp, sink: &mut dyn Sink) {
        self.drive(sink, |driver, processes, events| {
            driver.maintain(processes, events, now);
            driver.report(processes, events, false);
        });
    }

    /// Reports all that is known, including how long waits that go on have lasted: what comes later belongs to the next window of
    /// the sink, or to its successor. Returns the instant at which the next window begins.
    pub fn cut(&mut self, sink: &mut dyn Sink) -> Timestamp {
        self.drive(sink, |driver, processes, events| {
            driver.drain(processes, events);
            let at = driver.report(processes, events, false);
            driver.costs().begin_window(events, at);
            at
        })
        .unwrap_or_default()
    }

    /// Replaces the dictionary by its successor. It must follow a cut.
    pub fn renew_dictionary(&mut self, sink: &mut dyn Sink) {
        self.write(sink, |processes, _, events| {
            events.renew_dictionary(|renaming| processes.rename(renaming))
        });
    }

    /// Changes the sample rate, in samples per second, from `now` on.
    pub fn set_rate(&mut self, rate_hz: f64, now: Timestamp, sink: &mut dyn Sink) {
        self.options.rate_hz = rate_hz;
        self.processes.parts().0.set_rate(rate_hz);
        self.drive(sink, |driver, processes, events| {
            driver.set_rate(processes, events, rate_hz, now);
            driver.costs().report_interval(events);
        });
    }

    /// Stops sampling a process that was added, and its descendants. What is known of them is reported.
    pub fn remove(&mut self, root: Pid, now: Timestamp, sink: &mut dyn Sink) {
        self.drive(sink, |driver, processes, events| {
            driver.poll(processes, events, now);
            driver.maintain(processes, events, now);
            driver.drain(processes, events);
        });
        self.write(sink, |processes, _, events| processes.remove_root(events, root));
    }

    /// Continues at `now` after a time for which no samples were asked for: this process was suspended.
    pub fn resume_from(&mut self, now: Timestamp, sink: &mut dyn Sink) {
        self.drive(sink, |driver, processes, events| driver.resume_from(processes, events, now));
    }

    /// Leaves the processes alone until [`Engine::poll`] is called again.
    pub fn rest(&mut self, sink: &mut dyn Sink) {
        self.drive(sink, |driver, processes, events| driver.rest(processes, events));
    }

    /// Whether nothing is left to sample: all processes that were added have ended, and none of their descendants is a Python or
    /// may become one.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.processes.are_gone(now)
    }

    /// A process that is still there, but whose memory does not answer.
    pub fn silent(&self) -> Option<Pid> {
        self.processes.silent()
    }

    /// Ends sampling at `deadline`, or now if that is later, and reports the rest.
    pub fn end(&mut self, deadline: Timestamp, sink: &mut dyn Sink) {
        let Some(driver) = self.driver.take() else { return };
        self.write(sink, |processes, _, events| driver.end(processes, events, deadline));
    }

    /// The native code of all processes that were sampled without Python, to name their frames.
    pub fn native_code(&mut self) -> Vec<ProcessCode> {
        let sampled = self.processes.samplers().filter_map(|sampler| sampler.native());
        let mut code: Vec<ProcessCode> = sampled.map(NativeProcess::code).collect();
        code.append(&mut self.processes.parts().0.native_code);
        code
    }

    /// Ends sampling on time however busy the machine is, as long as what is returned lives.
    pub(crate) fn keep_deadline(&mut self, deadline: Timestamp) -> DeadlineKeeper {
        let (host, _) = self.processes.parts();
        host.latest_look = latest_look(deadline);
        match &mut host.program {
            Some(program) => DeadlineKeeper::start(deadline, program.end_at(deadline)),
            None => DeadlineKeeper::start(deadline, || {}),
        }
    }

    /// Runs `act` with the driver, if sampling has started.
    fn drive<R>(
        &mut self,
        sink: &mut dyn Sink,
        act: impl FnOnce(&mut dyn Driver, &mut Processes, &mut EventWriter<'_>) -> R,
    ) -> Option<R> {
        self.write(sink, |processes, driver, events| driver.map(|driver| act(driver, processes, events)))
    }

    /// Runs `act`, and hands all events to `sink`.
    fn write<R>(
        &mut self,
        sink: &mut dyn Sink,
        act: impl FnOnce(&mut Processes, Option<&mut (dyn Driver + 'static)>, &mut EventWriter<'_>) -> R,
    ) -> R {
        self.write_in_batches(sink, |processes, driver, events| {
            let result = act(processes, driver, events);
            events.flush();
            result
        })
    }

    /// Runs `act`, and hands full batches of events to `sink`.
    fn write_in_batches<R>(
        &mut self,
        sink: &mut dyn Sink,
        act: impl FnOnce(&mut Processes, Option<&mut (dyn Driver + 'static)>, &mut EventWriter<'_>) -> R,
    ) -> R {
        let Engine { processes, dictionary, events, driver, .. } = self;
        let mut writer = EventWriter::with_buffer(dictionary, sink, std::mem::take(events));
        let result = act(processes, driver.as_deref_mut(), &mut writer);
        *events = writer.into_buffer();
        result
    }
}
