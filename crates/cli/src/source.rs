//! What is sampled: a process with its Python, or a tree of processes whose root need not have one.

use profiler_account::LaunchTime;
use profiler_model::Pid;
use profiler_os::Process;
use profiler_python::NotPython;
use profiler_sampler::{SamplerOptions, Session};
use profiler_target::{AttachError, Target};

use crate::attach::{Accepts, attach, expect_own_proc, has_python_child};
use crate::failure::Failure;

/// What is sampled.
pub struct Source {
    /// The process, or the root of a tree.
    pub pid: Pid,
    /// Its Python; the root of a tree need not have one.
    pub target: Option<Target>,
    /// Whether it has none and is sampled all the same.
    pub is_native: bool,
    /// How it began, where it was started to be sampled.
    pub beginning: Option<LaunchTime>,
}

impl Source {
    /// The process `pid`. With its descendants, it may be one that has no Python and only starts some.
    ///
    /// # Errors
    /// When it cannot be profiled, with what to try.
    pub fn of(pid: Pid, subprocesses: bool, accepts: Accepts) -> Result<Self, Failure> {
        match Target::attach(pid) {
            Err(AttachError::NotPython { what: NotPython::NoModule, .. })
                if accepts == Accepts::All && !subprocesses && !has_python_child(pid) =>
            {
                expect_own_proc()?;
                Ok(Source::native(pid))
            }
            Err(AttachError::NotPython { .. } | AttachError::NotInitialised(_)) if subprocesses => {
                Ok(Source::root(pid))
            }
            Ok(target) => Ok(Source::python(target)),
            Err(_) => attach(pid).map(Source::python),
        }
    }

    /// The root of a tree, whatever it runs.
    pub fn root(pid: Pid) -> Self {
        Source { pid, target: None, is_native: false, beginning: None }
    }

    /// A process without Python.
    pub fn native(pid: Pid) -> Self {
        Source { is_native: true, ..Source::root(pid) }
    }

    /// A process whose Python was found.
    pub fn python(target: Target) -> Self {
        Source { pid: target.pid(), target: Some(target), is_native: false, beginning: None }
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
        let sampler = SamplerOptions { native: self.is_native, ..sampler };
        let mut session = match self.target {
            Some(target) if !subprocesses => Session::new(target, sampler),
            None if self.is_native => Session::native(self.pid, sampler),
            target => Session::of_tree(self.pid, target, sampler),
        };
        self.beginning.into_iter().for_each(|beginning| session.began(beginning));
        session
    }
}
