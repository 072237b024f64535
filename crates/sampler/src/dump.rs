//! One look at all threads of a process.

use profiler_memory::ReadError;
use profiler_model::{Frame, LossReason, ThreadState, Timestamp, WaitReason};
use profiler_os::clock;
use profiler_profile::{ProcessDump, ThreadDump};
use profiler_python::RawStack;

use crate::code_names::CodeNames;
use crate::codes::Capture;
use crate::instant::Instant;
use crate::names;
use crate::probe::{GilGroup, Probe};
use crate::roster::Thread;
use crate::{SamplerKind, Target};

/// How often threads whose stack was lost are looked at again.
const MAX_LOOKS: usize = 10;

/// What every thread of the target is doing. Threads whose stack could not be proved say why.
///
/// # Errors
/// When the target's runtime cannot be read: it has ended.
pub fn dump(target: Target, kind: SamplerKind) -> Result<ProcessDump, ReadError> {
    let mut look = Look {
        code_names: CodeNames::new(*target.process()),
        probe: Probe::new(target, kind),
        frames: Vec::new(),
        is_stopped: false,
    };
    let mut threads = look.threads(clock::now())?;
    for _ in 1..MAX_LOOKS {
        if threads.iter().all(|thread| thread.lost.is_none()) {
            break;
        }
        threads = look.threads(clock::now())?;
    }
    look.probe.release_all();
    let names = names::names(&look.probe.target, &look.probe.roster);
    for thread in &mut threads {
        thread.name = names.get(&thread.pthread_id).cloned();
    }
    let target = &look.probe.target;
    Ok(ProcessDump {
        pid: target.pid(),
        command_line: target.command_line().to_owned(),
        python_version: target.version_text(),
        executable: target.executable().to_owned(),
        threads,
    })
}

struct Look {
    probe: Probe,
    /// Frames are numbered as they are met.
    code_names: CodeNames<usize>,
    frames: Vec<Frame>,
    /// Whether the process is under a stop signal or a debugger: its threads wait for that, whatever
    /// they waited for before.
    is_stopped: bool,
}

impl Look {
    /// All threads, in the reverse order of CPython's list: the oldest first.
    fn threads(&mut self, now: Timestamp) -> Result<Vec<ThreadDump>, ReadError> {
        self.probe.look(now)?;
        self.is_stopped =
            self.probe.target.process().stat().is_ok_and(|stat| matches!(stat.state, b'T' | b't'));
        let mut dumps: Vec<(usize, ThreadDump)> = Vec::new();
        for group in GilGroup::all(&self.probe.roster) {
            for instant in self.probe.capture(group.gil.as_ref(), &group.threads)? {
                self.add(&group, instant, &mut dumps);
            }
        }
        dumps.sort_by_key(|(index, _)| std::cmp::Reverse(*index));
        Ok(dumps.into_iter().map(|(_, dump)| dump).collect())
    }

    fn add(&mut self, group: &GilGroup, instant: Instant, dumps: &mut Vec<(usize, ThreadDump)>) {
        let holder = instant.holder;
        for (index, stack) in instant.stacks {
            let resolved = stack.and_then(|raw| Ok((self.frames(&raw, &instant.capture)?, raw.truncated)));
            let thread = &self.probe.roster.threads[index];
            let holds_gil = holder == Some(thread.python.address);
            let (lost, (frames, truncated)) = match resolved {
                Ok(frames) => (None, frames),
                Err(reason) => (Some(reason), (Vec::new(), false)),
            };
            dumps.push((
                index,
                ThreadDump {
                    pthread_id: thread.python.pthread_id,
                    tid: Some(thread.tid),
                    name: None,
                    state: match self.is_stopped {
                        true => ThreadState::Waiting(WaitReason::Stopped),
                        false => thread.state(group.gil.as_ref()),
                    },
                    holds_gil,
                    gc: holds_gil && self.is_collecting(thread),
                    is_main: thread.tid.as_u32() == self.probe.target.pid().as_u32(),
                    interpreter: self.probe.roster.interpreters[thread.interpreter].id,
                    frames,
                    truncated,
                    lost,
                },
            ));
        }
    }

    /// The frames, leaf first.
    fn frames(&mut self, raw: &RawStack, capture: &Capture) -> Result<Vec<Frame>, LossReason> {
        let known = &mut self.frames;
        let ids = self.code_names.root_first(&self.probe.target, capture, raw, &mut |frame| {
            known.push(frame.clone());
            known.len() - 1
        })?;
        Ok(ids.into_iter().rev().map(|id| self.frames[id].clone()).collect())
    }

    fn is_collecting(&self, thread: &Thread) -> bool {
        use profiler_memory::ReadMemory;
        let flag = self.probe.roster.interpreters[thread.interpreter].gc_collecting;
        flag.is_some_and(|at| self.probe.target.memory().scalar::<i32>(at).is_ok_and(|value| value != 0))
    }
}
