//! A session: one process, or a tree of them, sampled on a schedule; what was found is written as events.
//!
//! All processes share one schedule: at each instant each of them is sampled. So a tree costs one waking an
//! instant, and no process is sampled more often than another. There are two loops: `on_schedule` takes samples from outside, and
//! `in_kernel` reads what the in-kernel program has taken.

mod costs;
mod in_kernel;
mod launch;
mod on_schedule;
mod promptness;

use profiler_account::LaunchTime;
use profiler_model::{Nanos, Pid, Timestamp};
use profiler_os::limits;
use profiler_profile::{CapturePolicy, Dictionary};
use profiler_target::{ForkedRuntime, Target, Tree};

use crate::bpf::BpfProgram;
use crate::deadline::{DeadlineKeeper, latest_look};
use crate::event_writer::{EventWriter, Observer};
use crate::processes::{LinuxHost, ProcessSet};

use in_kernel::KernelLoop;
use on_schedule::ScheduleLoop;
use promptness::Promptness;

/// The observer is asked at least this often.
const CALLBACK_GAP: Nanos = Nanos::from_nanos(50_000_000);

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
    /// Samples a second, on average.
    pub rate_hz: f64,
    /// The way of taking them.
    pub kind: SamplerKind,
    /// Which stacks are captured.
    pub policy: CapturePolicy,
    /// How much CPU time the profiler may use, as a share of one core: 1 is a whole one.
    pub max_cpu: f64,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The callback asked for it.
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
    processes: ProcessSet<LinuxHost>,
    dictionary: Dictionary,
    options: SamplerOptions,
    launch: Option<LaunchTime>,
    promptness: Promptness,
}

impl Session {
    /// A session of `target` alone that has not begun.
    pub fn new(target: Target, options: SamplerOptions) -> Self {
        Session::on(None, target.pid(), Some(target.forked_runtime()), options)
    }

    /// A session of the process `root` and all its descendants, those that are there and those that come. The
    /// tree is watched from now on. `target` is the root's Python, where it is known: the root need not have
    /// one.
    pub fn of_tree(root: Pid, target: Option<Target>, options: SamplerOptions) -> Self {
        let runtime = target.map(|target| target.forked_runtime());
        Session::on(Some(Tree::below(root)), root, runtime, options)
    }

    fn on(tree: Option<Tree>, root: Pid, runtime: Option<ForkedRuntime>, options: SamplerOptions) -> Self {
        Session {
            processes: ProcessSet::new(LinuxHost::new(tree, options), root, runtime),
            dictionary: Dictionary::default(),
            options,
            launch: None,
            promptness: Promptness::default(),
        }
    }

    /// Has the recording begin when its process, or the root of its tree, was started: what was not seen since is counted.
    pub fn began(&mut self, beginning: LaunchTime) {
        self.launch = Some(beginning);
    }

    /// Has `program`, which ticks already, take the samples: what [`SamplerKind::Bpf`] asks for.
    pub fn sample_by(&mut self, program: BpfProgram) {
        self.processes.parts().0.program = Some(program);
    }

    /// Samples until `limit` is over, `observer` breaks or nothing is left to sample: a tree goes on when its
    /// root has ended, as long as one of its Pythons lives. What was found, what was lost and what it cost is handed to the
    /// observer.
    ///
    /// The calling thread keeps the priority that sampling took, as far as is permitted; what it does next may need
    /// less ([`LargerShare::instead_of_real_time`](profiler_os::priority::LargerShare::instead_of_real_time)).
    pub fn run(&mut self, observer: &mut dyn Observer, limit: Option<Nanos>) -> End {
        limits::want_many_files();
        let mut dictionary = std::mem::take(&mut self.dictionary);
        let mut events = EventWriter::new(&mut dictionary, observer);
        let end = self.run_by_sampler(&mut events, limit);
        events.flush();
        self.dictionary = dictionary;
        self.promptness = Promptness::default();
        end
    }

    fn run_by_sampler(&mut self, events: &mut EventWriter<'_>, limit: Option<Nanos>) -> End {
        let Session { processes, options, launch, promptness, .. } = self;
        match options.kind {
            SamplerKind::Pause | SamplerKind::Peek => {
                ScheduleLoop::begin(processes, promptness, *options, *launch, events).run(events, limit)
            }
            SamplerKind::Bpf => {
                KernelLoop::begin(processes, promptness, *options, *launch, events).run(events, limit)
            }
        }
    }
}

/// Has sampling end at `deadline`, if there is one, as long as what is returned lives.
fn keep_deadline(processes: &mut ProcessSet<LinuxHost>, deadline: Timestamp) -> Option<DeadlineKeeper> {
    if deadline == Timestamp::MAX {
        return None;
    }
    let (host, _) = processes.parts();
    host.latest_look = latest_look(deadline);
    Some(match &mut host.program {
        Some(program) => DeadlineKeeper::start(deadline, program.end_at(deadline)),
        None => DeadlineKeeper::start(deadline, || {}),
    })
}

/// Why nothing is left to sample.
fn end_of_target(processes: &ProcessSet<LinuxHost>) -> End {
    if processes.silent().is_some() { End::TargetSilent } else { End::TargetEnded }
}
