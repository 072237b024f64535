//! What the processes of a session ask the system for. The accounts of processes know the system by these two traits only, so that
//! tests can replace it with a scripted machine.

use std::fmt::Debug;

use profiler_model::{Nanos, OtherPython, Pid, Timestamp};
use profiler_profile::{ProcessId, ProcessInfo, Renaming, Scope};
use profiler_target::{AttachError, Change};

use super::pending::NativeTime;
use crate::event_writer::EventWriter;
use crate::process_sampler::Sampled;

/// The runtime that a process of this host shares with the processes that it forks.
pub type RuntimeOf<H> = <<H as ProcessHost>::Sampler as ProcessSampling>::Runtime;

/// The system with its processes and its clock.
pub trait ProcessHost: Debug + Sized {
    /// Samples one process.
    type Sampler: ProcessSampling;
    /// A Python that was found in a process.
    type Target;
    /// The search for the Python of one process.
    type Search: Debug;

    /// The time.
    fn now(&self) -> Timestamp;
    /// After this instant no process is looked at.
    fn latest_look(&self) -> Timestamp;
    /// Whether the descendants of any process are sampled.
    fn is_tree(&self) -> bool;
    /// Has the births and ends in the tree below `root` reported from now on.
    fn follow_descendants(&mut self, root: Pid);
    /// The changes of the tree since the last call, in the order in which they happened.
    fn changes(&mut self, now: Timestamp) -> Vec<Change>;
    /// Whether the system reports each birth, `exec` and end.
    fn reports_changes(&self) -> bool;
    /// Removes a process that was found to have ended.
    fn forget(&mut self, pid: Pid);
    /// Removes a process that lives on, but is not sampled any more.
    fn leave(&mut self, pid: Pid);
    /// Has the in-kernel program, if it takes the samples, count what the threads of a process run that has no Python.
    fn watch_without_python(&mut self, pid: Pid);

    /// The CPU time that a process has used, if it is still there.
    fn cpu_time(&self, pid: Pid) -> Option<Nanos>;
    /// What is known of a process without its Python; not its parent.
    fn describe(&self, pid: Pid) -> ProcessInfo;
    /// What is known of a process with its Python; not its parent.
    fn describe_target(&self, target: &Self::Target) -> ProcessInfo;
    /// A search for the Python of a process.
    fn search(&self, pid: Pid) -> Self::Search;
    /// Looks for the Python of a process.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    fn attach(&mut self, search: &mut Self::Search) -> Result<Self::Target, AttachError>;
    /// The Python of a process, if it is the one of the process that forked it.
    fn inherit(&mut self, runtime: &RuntimeOf<Self>, pid: Pid) -> Option<Self::Target>;

    /// The mean period of the clock that takes the samples, if that is the in-kernel program's and not a schedule. It is 0 if the
    /// clock does not tick.
    fn tick_period(&self) -> Option<Nanos>;
    /// Begins to sample a process, which was born at `born` if that was while it was watched.
    fn begin(
        &mut self,
        target: Self::Target,
        process: ProcessId,
        born: Option<Timestamp>,
        events: &mut EventWriter<'_>,
    ) -> Self::Sampler;
    /// Takes one sample of each thread of a process that is wanted. The look began `late` after its instant.
    fn sample(
        &mut self,
        sampler: &mut Self::Sampler,
        events: &mut EventWriter<'_>,
        now: Timestamp,
        late: Nanos,
    ) -> Sampled;
    /// Counts the instant that was due at `due` as lost: there is no time to look at the process.
    fn pass_over(&mut self, sampler: &mut Self::Sampler, events: &mut EventWriter<'_>, due: Timestamp);
    /// Records what is still to be recorded of a process that has ended and was not looked at since.
    fn collect_rest(
        &mut self,
        pid: Pid,
        samplers: &mut dyn SamplersByPid<Self::Sampler>,
        events: &mut EventWriter<'_>,
    );
    /// Gives up sampling a process, of which all is known up to `end`. Returns the CPU time that the process used while it was
    /// sampled.
    fn give_up(&mut self, sampler: Self::Sampler, events: &mut EventWriter<'_>, end: Timestamp) -> Nanos;
    /// Lets go of threads of processes that were given up.
    fn release_late(&mut self);
    /// Ends what the in-kernel program does.
    fn stop(&mut self);
    /// Waits for all threads that are to be let go of.
    fn release_all(&mut self);
}

/// A process that is sampled.
pub trait ProcessSampling: Debug {
    /// What it shares with the processes that it forks.
    type Runtime: Clone + Debug;

    /// The same; `None` if it shares none.
    fn runtime(&self) -> Option<Self::Runtime>;
    /// Whether its threads were found, and samples of them can be taken.
    fn was_met(&self) -> bool;
    /// Changes the sample rate, in samples per second; of its instants this part is sampled.
    fn set_rate(&mut self, rate_hz: f64, part: f64);
    /// Has this part of the instants be sampled from now on.
    fn sample_part(&mut self, part: f64);
    /// Has the next samples stand for nothing that was before `now`.
    fn count_from(&mut self, now: Timestamp);
    /// Records what was captured and waits for its names.
    fn resolve_pending(&mut self, events: &mut EventWriter<'_>);
    /// Names threads that were met only just before the end.
    fn name_last_threads(&self, events: &mut EventWriter<'_>);
    /// Gives what is kept its ids in the next dictionary.
    fn rename(&mut self, renaming: &mut Renaming<'_>);
    /// Lets go of threads that stopped only after they had been given up.
    fn release_late(&mut self);
    /// The process, as what events are about.
    fn scope(&self) -> Scope;
    /// The CPU time that it has used since it is sampled.
    fn cpu_used(&mut self) -> Nanos;
    /// Looks for Pythons that run in it beside those that are sampled, if it is time to, and samples them if it can. Returns
    /// those that are not sampled.
    fn look_for_other_pythons(&mut self, now: Timestamp) -> Vec<OtherPython>;
}

/// The samplers of a session.
pub trait SamplersByPid<S> {
    /// The sampler of a process, if it is sampled.
    fn sampler_of(&mut self, pid: Pid) -> Option<&mut S>;

    /// Counts what threads of a process have run without Python. Returns whether it is a process whose Python is looked for.
    fn count_native(&mut self, pid: Pid, native: NativeTime) -> bool;
}
