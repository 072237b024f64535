//! A target with everything that looking at it needs: its threads, a stack reader, a tracer.

use profiler_memory::ReadError;
use profiler_model::{Nanos, RemoteAddr, Tid, Timestamp};
use profiler_os::{ProcessMemory, Tracer};
use profiler_python::{GilAddresses, RawStack};
use profiler_stack::{CodeEvidence, CodeSource};
use profiler_target::Target;
use rustc_hash::FxHashSet;

use crate::capture::{InstantCopy, MAX_THREADS_AT_ONCE};
use crate::gil;
use crate::objects::ObjectsWanted;
use crate::stack_reader::{CodeAhead, StackReader};
use crate::stop_bound::LONGEST_STOP;
use crate::thread_table::ThreadTable;
use crate::{SamplerKind, pause, peek};

/// Whether a process that has one thread has got more is looked at so often.
const LOOK_GAP_OF_ONE_THREAD: Nanos = Nanos::from_nanos(5_000_000);

/// Looks at the threads of a target.
#[derive(Debug)]
pub struct Probe {
    /// The process.
    pub target: Target,
    /// Its threads.
    pub thread_table: ThreadTable,
    /// Kernel threads that run in another Python of the same process at the moment.
    pub elsewhere: FxHashSet<Tid>,
    kind: SamplerKind,
    reader: StackReader,
    tracer: Tracer,
    next_look_at_lists: Timestamp,
}

impl Probe {
    /// A probe that has not looked yet.
    pub fn new(target: Target, kind: SamplerKind) -> Self {
        let reader = StackReader::new();
        Probe {
            target,
            thread_table: ThreadTable::default(),
            elsewhere: FxHashSet::default(),
            kind,
            reader,
            tracer: Tracer::new(),
            next_look_at_lists: Timestamp::default(),
        }
    }

    /// Where its code objects are read.
    pub fn source(&self) -> CodeSource<'_, ProcessMemory> {
        CodeSource { memory: self.target.memory(), offsets: self.target.offsets() }
    }

    /// Has these objects copied with all stacks from now on.
    pub fn want_objects(&mut self, objects: ObjectsWanted) {
        self.reader.objects = objects;
    }

    /// Which objects are copied with all stacks.
    pub fn objects(&self) -> ObjectsWanted {
        self.reader.objects
    }

    /// Brings the thread table up to date and looks at what each thread is doing.
    ///
    /// # Errors
    /// When the runtime cannot be read any more.
    pub fn look(&mut self, now: Timestamp) -> Result<(), ReadError> {
        let mut ended = Vec::new();
        for (index, thread) in self.thread_table.threads_mut().iter_mut().enumerate() {
            if thread.look().is_err() {
                ended.push(index);
            }
        }
        match self.look_at_lists(ended, now)? {
            Found::Same => Ok(()),
            Found::Changed { ended } => self.refresh(ended, now),
        }
    }

    /// Begins an instant: looks at what threads are doing that are awake, and those that rest where these are few, and
    /// whether the thread table is to be brought up to date.
    ///
    /// # Errors
    /// When the runtime cannot be read any more.
    pub fn look_at_active(&mut self, now: Timestamp) -> Result<Found, ReadError> {
        let ended = self.thread_table.look_at_active();
        self.look_at_lists(ended, now)
    }

    /// Looks at resting threads, in turn, for at most the cost `most` (`rota`).
    pub fn look_at_resting(&mut self, most: u32) -> Found {
        let ended = self.thread_table.look_at_resting(most);
        if ended.is_empty() { Found::Same } else { Found::Changed { ended } }
    }

    /// Whether the thread table is to be brought up to date, of which these threads have ended.
    fn look_at_lists(&mut self, mut ended: Vec<usize>, now: Timestamp) -> Result<Found, ReadError> {
        // Last, as the state of the GIL says what to stop.
        let lists_stand = ended.is_empty() && self.lists_stand(now)?;
        if lists_stand {
            ended = self.thread_table.look_at_holders();
        }
        match lists_stand && ended.is_empty() && !self.thread_table.is_recheck_due(now) {
            true => Ok(Found::Same),
            false => Ok(Found::Changed { ended }),
        }
    }

    /// Brings the thread table up to date. Indices into it mean something else afterwards.
    ///
    /// # Errors
    /// When the runtime cannot be read any more.
    pub fn refresh(&mut self, ended: Vec<usize>, now: Timestamp) -> Result<(), ReadError> {
        self.thread_table.remove(&ended);
        self.thread_table.refresh(self.target.process(), self.target.memory(), self.target.runtime(), now)?;
        if !ended.is_empty() && !self.lists_stand(now)? {
            self.thread_table.refresh(
                self.target.process(),
                self.target.memory(),
                self.target.runtime(),
                now,
            )?;
        }
        if self.thread_table.threads().is_empty() && !self.target.process().is_alive() {
            return Err(ReadError::ProcessEnded);
        }
        Ok(())
    }

    /// Whether the lists of threads still start where they did. The state of the GIL is read with that: where there is
    /// one thread, that one has held it last, and both can wait a little. Should another thread start meanwhile
    /// and take the GIL, the capture finds it held by somebody unknown, and nothing is proved.
    fn lists_stand(&mut self, now: Timestamp) -> Result<bool, ReadError> {
        let is_alone = self.thread_table.threads().len() == 1 && !self.thread_table.is_recheck_due(now);
        if is_alone && now < self.next_look_at_lists {
            return Ok(true);
        }
        self.next_look_at_lists = now + LOOK_GAP_OF_ONE_THREAD;
        self.thread_table.look(self.target.memory(), self.target.runtime())
    }

    /// Has no thread be stopped for longer than `LONGEST_STOP`: what cannot be copied by then is lost.
    pub fn bound_stops(&mut self) {
        self.reader.longest_stop = Some(LONGEST_STOP);
    }

    /// Looks at the stacks of the threads `wanted`, as [`Probe::look_ahead`] does.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn look_ahead_at(&mut self, wanted: &[usize]) -> Result<Option<CodeAhead>, ReadError> {
        self.reader.look_ahead(&self.target, &self.thread_table, wanted)
    }

    /// Looks at all stacks, and at the objects that are wanted with them, without stopping anything and without
    /// believing what is seen: it makes the next captures short. What the threads do is to be looked at anew
    /// afterwards. Returns the code that was met: to be named before the next captures, so that they need not copy what
    /// its names are made of.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn look_ahead(&mut self) -> Result<Vec<CodeAhead>, ReadError> {
        self.reader.ahead.clear();
        let mut code = Vec::new();
        for group in GilGroup::all(&self.thread_table) {
            let together = if group.gil.is_some() { MAX_THREADS_AT_ONCE } else { 1 };
            for threads in group.running_first(&self.thread_table).chunks(together) {
                code.extend(self.reader.look_ahead(&self.target, &self.thread_table, threads)?);
            }
        }
        Ok(code)
    }

    /// Captures the stacks of the threads `wanted` (indices into the thread table), which share `gil` or have none. What
    /// identifies their code objects is complete after [`Probe::complete`].
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn capture(
        &mut self,
        gil: Option<&GilAddresses>,
        wanted: &[usize],
    ) -> Result<Vec<InstantCopy>, ReadError> {
        let state = gil.and_then(|gil| self.thread_table.gil_state(gil)).filter(|state| state.exists);
        let (target, thread_table, reader) = (&self.target, &self.thread_table, &mut self.reader);
        match (gil.zip(state), self.kind) {
            (Some((gil, before)), kind) => {
                let (mut instants, mut rest) = (Vec::new(), wanted);
                while !rest.is_empty() {
                    let instant = match kind {
                        SamplerKind::Pause => {
                            pause::capture(target, thread_table, gil, before, rest, reader, &mut self.tracer)?
                        }
                        SamplerKind::Peek | SamplerKind::Bpf => {
                            peek::capture(target, thread_table, Some(gil), rest, reader)?
                        }
                    };
                    rest = rest.get(instant.stacks.len()..).unwrap_or_default();
                    instants.push(instant);
                }
                Ok(instants)
            }
            (None, kind) => {
                let mut instants = wanted
                    .iter()
                    .map(|index| match kind {
                        SamplerKind::Pause => {
                            pause::capture_alone(target, thread_table, *index, reader, &mut self.tracer)
                        }
                        SamplerKind::Peek | SamplerKind::Bpf => {
                            peek::capture(target, thread_table, None, &[*index], reader)
                        }
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                if let (Some(_), [only]) = (gil, instants.as_mut_slice()) {
                    // The GIL does not exist yet: the only thread runs as if it held it.
                    only.holder = wanted.first().map(|index| thread_table.threads()[*index].python.address);
                }
                Ok(instants)
            }
        }
    }

    /// Copies what was left out of these captures because it can wait.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn complete<'a>(
        &self,
        captures: impl Iterator<Item = &'a mut CodeEvidence>,
    ) -> Result<(), ReadError> {
        CodeEvidence::complete(captures, self.target.memory(), self.target.offsets())
    }

    /// Learns whether all code objects of `stack` got their names by `capture`.
    pub fn learn_code(&mut self, capture: &CodeEvidence, stack: &RawStack, named: bool) {
        let codes = &mut self.reader.codes;
        if named {
            // Each interpreter counts and numbers its code objects for itself.
            let are_numbered = self.thread_table.interpreters.len() == 1;
            codes.learn(self.target.offsets(), capture, stack, are_numbered);
        } else {
            codes.forget(capture, stack);
        }
    }

    /// The thread states whose kernel thread runs in another interpreter, or another Python, at the moment.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn suspended(&self) -> Result<Vec<usize>, ReadError> {
        let table = &self.thread_table;
        let mut suspended = match table.has_nested {
            true => table.suspended(&self.holders()?),
            false => Vec::new(),
        };
        if !self.elsewhere.is_empty() {
            let runs_elsewhere = |index: &usize| self.elsewhere.contains(&table.threads()[*index].tid);
            suspended.extend((0..table.threads().len()).filter(runs_elsewhere));
        }
        Ok(suspended)
    }

    /// The thread states that hold the GILs at the moment.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn holders(&self) -> Result<Vec<RemoteAddr>, ReadError> {
        let gils = self.thread_table.interpreters.iter().filter_map(|interpreter| interpreter.gil);
        gils.map(|gil| Ok(gil::read(self.target.memory(), &gil)?.holder()))
            .filter_map(Result::transpose)
            .collect()
    }

    /// Lets go of threads that stopped only after they had been given up.
    pub fn release_late(&mut self) {
        self.tracer.release_late();
    }

    /// Whether there still are such threads.
    pub fn has_late(&self) -> bool {
        self.tracer.has_late()
    }

    /// The same, waiting for them.
    pub fn release_all(&mut self) {
        self.tracer.release_all();
    }

    /// Gives up looking; what still has threads to let go of is left.
    pub fn into_tracer(self) -> Tracer {
        self.tracer
    }
}

/// What became of the threads since the thread table was brought up to date.
#[derive(Debug)]
pub enum Found {
    /// They are the same, as far as is known.
    Same,
    /// These have ended (indices into the thread table), or there may be others.
    Changed {
        /// Those that have ended, in ascending order.
        ended: Vec<usize>,
    },
}

/// Threads that share a GIL: only one of them runs Python at a time.
#[derive(Debug)]
pub struct GilGroup {
    /// The GIL, where there is one.
    pub gil: Option<GilAddresses>,
    /// The threads, as indices into the thread table.
    pub threads: Vec<usize>,
}

impl GilGroup {
    /// The threads, so that those that may hold the GIL come at one instant, even if all of them are too many for
    /// one.
    pub fn running_first(&self, thread_table: &ThreadTable) -> Vec<usize> {
        let mut threads = self.threads.clone();
        threads.sort_by_key(|index| !thread_table.threads()[*index].is_running());
        threads
    }

    /// The groups of all threads.
    pub fn all(thread_table: &ThreadTable) -> Vec<GilGroup> {
        GilGroup::of(thread_table, 0..thread_table.threads().len())
    }

    /// The groups of the threads that were looked at in this round.
    pub fn looked(thread_table: &mut ThreadTable) -> Vec<GilGroup> {
        let looked = thread_table.looked();
        GilGroup::of(thread_table, looked.into_iter())
    }

    fn of(thread_table: &ThreadTable, threads: impl Iterator<Item = usize>) -> Vec<GilGroup> {
        let mut groups: Vec<GilGroup> = Vec::new();
        for index in threads {
            let gil = thread_table.interpreters[thread_table.threads()[index].interpreter].gil;
            match groups.iter_mut().find(|group| group.gil == gil) {
                Some(group) => group.threads.push(index),
                None => groups.push(GilGroup { gil, threads: vec![index] }),
            }
        }
        groups
    }
}
