//! A session: an engine that samples one process, or a tree of them, until its time is over, the observer ends it or nothing is left
//! to sample. It waits for the engine, obeys signals and asks the observer how to go on.

use profiler_account::LaunchTime;
use profiler_model::{Nanos, Pid, Timestamp};
use profiler_os::clock;
use profiler_os::signals::{self, SuspensionHold};
use profiler_profile::Sink;
use profiler_target::Target;

use crate::bpf::BpfProgram;
use crate::engine::{Engine, SamplerKind, SamplerOptions};
use crate::native::ProcessCode;

/// The longest time between two questions to the observer.
const CALLBACK_GAP: Nanos = Nanos::from_nanos(50_000_000);

/// Takes the events of a session and decides how it goes on.
pub trait Observer: Sink {
    /// Called about twenty times per second while nothing is stopped, `elapsed` after the session began. What was sampled up to then
    /// has been handed over, except for waits that go on.
    fn go_on(&mut self, elapsed: Nanos) -> Directive;

    /// All that happened before `at` has been handed over, as [`Directive::Cut`] asked for: what follows belongs to the next window.
    fn was_cut(&mut self, _at: Timestamp) {}
}

/// How a session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directive {
    /// As before.
    Continue,
    /// After everything up to now was reported, including waits that go on.
    Cut {
        /// Whether the dictionary ends here, too.
        renew_dictionary: bool,
    },
    /// Not at all.
    End,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The observer asked for it.
    Asked,
    /// The time is over.
    TimeOver,
    /// The target has ended.
    TargetEnded,
    /// The memory of the target does not answer: the kernel waits for a page of it.
    TargetSilent,
}

/// Samples a process or a tree of them.
#[derive(Debug)]
pub struct Session {
    engine: Engine,
    root: Pid,
    kind: SamplerKind,
}

impl Session {
    /// A session of `target` alone that has not begun.
    pub fn new(target: Target, options: SamplerOptions) -> Self {
        Session::of(target.pid(), Some(target), false, options)
    }

    /// A session of the process `pid` alone, which has no Python, and of the Python that it may become.
    pub fn native(pid: Pid, options: SamplerOptions) -> Self {
        Session::of(pid, None, false, options)
    }

    /// The native code of the process, if it was sampled without Python, to name its frames.
    pub fn native_code(&mut self) -> Vec<ProcessCode> {
        self.engine.native_code()
    }

    /// A session of the process `root` and all its descendants, those that are there and those that come. The tree is watched from
    /// now on. `target` is the root's Python, if that is known: the root need not have one.
    pub fn of_tree(root: Pid, target: Option<Target>, options: SamplerOptions) -> Self {
        Session::of(root, target, true, options)
    }

    fn of(root: Pid, target: Option<Target>, with_descendants: bool, options: SamplerOptions) -> Self {
        let mut engine = Engine::new(options);
        engine.add(root, target.map(|target| target.forked_runtime()), with_descendants);
        Session { engine, root, kind: options.kind }
    }

    /// Begins the recording with the launch of its process, or of the root of its tree: what was not seen since is counted.
    pub fn began(&mut self, launch: LaunchTime) {
        self.engine.note_launch(self.root, launch);
    }

    /// Has `program`, which ticks already, take the samples: [`SamplerKind::Bpf`] needs it.
    pub fn sample_by(&mut self, program: BpfProgram) {
        self.engine.set_program(program);
    }

    /// Samples until `limit` is over, `observer` ends the session or nothing is left to sample: a tree goes on when its root has
    /// ended, as long as one of its Pythons lives. What was found, what was lost and what it cost is handed to the observer.
    ///
    /// The calling thread keeps the priority that sampling took, as far as is permitted; what it does next may need
    /// less ([`LargerShare::instead_of_real_time`](profiler_os::priority::LargerShare::instead_of_real_time)).
    pub fn run(&mut self, observer: &mut dyn Observer, limit: Option<Nanos>) -> End {
        self.engine.start(observer);
        let start = self.engine.counts_since();
        let deadline = limit.map_or(Timestamp::MAX, |limit| start + limit);
        let _keeper = (deadline < Timestamp::MAX).then(|| self.engine.keep_deadline(deadline));
        let mut hold = (self.kind == SamplerKind::Bpf).then(SuspensionHold::begin);
        let end = self.run_until(observer, &mut hold, (start, deadline));
        self.engine.end(deadline, observer);
        end
    }

    fn run_until(
        &mut self,
        observer: &mut dyn Observer,
        hold: &mut Option<SuspensionHold>,
        (start, deadline): (Timestamp, Timestamp),
    ) -> End {
        let mut next_callback = start;
        loop {
            let now = clock::now();
            if signals::was_continued() {
                // Samples of the time for which this process was suspended were not asked for.
                self.engine.resume_from(now, observer);
            }
            if now >= deadline {
                return End::TimeOver;
            }
            if now >= next_callback {
                next_callback = now + CALLBACK_GAP;
                self.engine.report(now, observer);
                match self.ask(observer, hold, now.since(start)) {
                    Directive::Continue => {}
                    Directive::Cut { renew_dictionary } => self.cut(observer, renew_dictionary),
                    Directive::End => return End::Asked,
                }
                // The observer may have taken long: it obeys Ctrl-Z.
                continue;
            }
            if self.engine.is_over(now) {
                return if self.engine.silent().is_some() { End::TargetSilent } else { End::TargetEnded };
            }
            let next = self.engine.poll(now, observer);
            self.engine.wait_until(next.min(next_callback).min(deadline));
        }
    }

    /// Asks the observer how to go on. If it is about to obey Ctrl-Z, the target is left alone meanwhile.
    fn ask(
        &mut self,
        observer: &mut dyn Observer,
        hold: &mut Option<SuspensionHold>,
        elapsed: Nanos,
    ) -> Directive {
        match hold {
            Some(hold) if signals::is_suspension_asked() => {
                self.engine.rest(observer);
                hold.lift(|| observer.go_on(elapsed))
            }
            _ => observer.go_on(elapsed),
        }
    }

    fn cut(&mut self, observer: &mut dyn Observer, renew_dictionary: bool) {
        let at = self.engine.cut(observer);
        observer.was_cut(at);
        if renew_dictionary {
            self.engine.renew_dictionary(observer);
        }
    }
}
