//! What is sampled: a process with its Python, or a tree of processes whose root need not have one.

use profiler_account::LaunchTime;
use profiler_model::Pid;
use profiler_os::Process;
use profiler_sampler::{SamplerOptions, Session};
use profiler_target::{AttachError, Target};

use crate::attach::attach;
use crate::failure::Failure;

/// What is sampled.
pub struct Source {
    /// The process, or the root of a tree.
    pub pid: Pid,
    /// Its Python; the root of a tree need not have one.
    pub target: Option<Target>,
    /// How it began, where it was started to be sampled.
    pub beginning: Option<LaunchTime>,
}

impl Source {
    /// The process `pid`. With its descendants, it may be one that has no Python and only starts some.
    ///
    /// # Errors
    /// When it cannot be profiled, with what to try.
    pub fn of(pid: Pid, subprocesses: bool) -> Result<Self, Failure> {
        match Target::attach(pid) {
            Err(AttachError::NotPython { .. } | AttachError::NotInitialised(_)) if subprocesses => {
                Ok(Source::root(pid))
            }
            Ok(target) => Ok(Source::python(target)),
            Err(_) => attach(pid).map(Source::python),
        }
    }

    /// The root of a tree, whatever it runs.
    pub fn root(pid: Pid) -> Self {
        Source { pid, target: None, beginning: None }
    }

    /// A process whose Python was found.
    pub fn python(target: Target) -> Self {
        Source { pid: target.pid(), target: Some(target), beginning: None }
    }

    /// The command that it was started with.
    pub fn command_line(&self) -> String {
        match &self.target {
            Some(target) => target.command_line().to_owned(),
            None => Process::new(self.pid).command_line().unwrap_or_default(),
        }
    }

    /// A session of it, or of it and its descendants.
    pub fn session(self, subprocesses: bool, sampler: SamplerOptions) -> Session {
        let mut session = match self.target {
            Some(target) if !subprocesses => Session::new(target, sampler),
            target => Session::of_tree(self.pid, target, sampler),
        };
        self.beginning.into_iter().for_each(|beginning| session.began(beginning));
        session
    }
}
