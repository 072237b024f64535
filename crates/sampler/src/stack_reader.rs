//! Copying the stacks of threads: what may happen while one of them is stopped.
//!
//! Nothing is parsed here: stacks are addresses. Whether they may be believed is for the sampler to prove.

use profiler_memory::{PageCopy, ReadError, ReadMemory};
use profiler_model::{LossReason, Nanos};
use profiler_python::{Callers, GilAddresses, Offsets, PyThreadState, RawStack, STACK_PAGE_BYTES, WalkError};
use profiler_stack::{CodeEvidence, KnownCodes};
use profiler_target::Target;

use crate::gil::{self, GilSpan, GilState};
use crate::objects::{ObjectCopy, ObjectsAhead, ObjectsWanted, ThreadStack, copy_objects, look_ahead};
use crate::page_prefetcher::PagePrefetcher;
use crate::thread_table::ThreadTable;

/// Copies stacks, predicting from one instant to the next which pages they lie in.
#[derive(Debug, Default)]
pub struct StackReader {
    pages: PageCopy,
    page_prefetcher: PagePrefetcher,
    callers: Callers,
    thread_state: Vec<u8>,
    /// How many frames the last stack had: the next one has as many, more or less.
    depth: usize,
    /// What is known of code objects, so that they need not be looked at.
    pub codes: KnownCodes,
    /// Which objects are copied with the stacks.
    pub objects: ObjectsWanted,
    /// How long a thread may be stopped; `None` for as long as it takes.
    pub longest_stop: Option<Nanos>,
    /// Where these were a moment ago, of threads that will probably be captured together.
    pub ahead: Vec<ObjectsAhead>,
}

impl StackReader {
    /// A reader without predictions.
    pub fn new() -> Self {
        let pages = PageCopy::with_page_bytes(STACK_PAGE_BYTES);
        StackReader { pages, ..StackReader::default() }
    }

    /// Begins a new instant: forgets what was copied and fetches what will probably be needed.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn begin(&mut self, memory: &impl ReadMemory) -> Result<(), ReadError> {
        self.codes.begin(None);
        self.pages.refill(memory, self.page_prefetcher.pages())
    }

    /// The same, reading the state of `gil` first.
    ///
    /// # Errors
    /// When it cannot be read, or nothing of the process can.
    pub fn begin_with_gil(
        &mut self,
        memory: &impl ReadMemory,
        gil: &GilAddresses,
    ) -> Result<GilState, ReadError> {
        match GilSpan::of(gil) {
            Some(mut span) => {
                self.pages.refill_after(memory, span.requests(gil), self.page_prefetcher.pages())?;
                let state = span.state(gil);
                self.codes.begin(state.code_count);
                Ok(state)
            }
            None => {
                let state = gil::read(memory, gil)?;
                self.begin(memory)?;
                Ok(state)
            }
        }
    }

    /// Begins another look at what was touched before, for comparison.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn begin_again(&mut self, memory: &impl ReadMemory) -> Result<(), ReadError> {
        let touched = self.pages.read_pages();
        self.pages.refill(memory, &touched)
    }

    /// Copies the stack of `thread`.
    pub fn stack(
        &mut self,
        memory: &impl ReadMemory,
        offsets: &Offsets,
        thread: &PyThreadState,
    ) -> Result<RawStack, LossReason> {
        let mut copy = std::mem::take(&mut self.thread_state);
        copy.resize(offsets.thread.size as usize, 0);
        let stack = self.stack_of(memory, offsets, thread, &mut copy);
        self.thread_state = copy;
        stack
    }

    /// Whether `stack`, as it was read last, is one of frames that are executed, see [`RawStack::is_executed`].
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn is_executed(
        &mut self,
        memory: &impl ReadMemory,
        offsets: &Offsets,
        stack: &RawStack,
    ) -> Result<bool, ReadError> {
        match stack.is_executed(memory, &mut self.pages, offsets) {
            Err(gone @ (ReadError::ProcessEnded | ReadError::NoAnswer)) => Err(gone),
            is_executed => Ok(is_executed.unwrap_or(false)),
        }
    }

    fn stack_of(
        &mut self,
        memory: &impl ReadMemory,
        offsets: &Offsets,
        thread: &PyThreadState,
        copy: &mut [u8],
    ) -> Result<RawStack, LossReason> {
        self.pages.read(memory, thread.address, copy).map_err(loss)?;
        if PyThreadState::from_copy(thread.address, copy, offsets).as_ref() != Some(thread) {
            return Err(LossReason::ThreadEnded);
        }
        let mut stack = RawStack::with_room_for(self.depth);
        match stack.walk(memory, &mut self.pages, &self.callers, offsets, copy) {
            Ok(()) => {
                self.depth = stack.frames.len();
                Ok(stack)
            }
            Err(WalkError::Read(error)) => Err(loss(error)),
            Err(WalkError::Circle | WalkError::BadPointer(_) | WalkError::Unrooted) => {
                Err(LossReason::Invalid)
            }
        }
    }

    /// Looks at the stacks of the threads `wanted` and at the objects that are to be copied with them, while they
    /// move: what is seen may be wrong, but tells where to look when they stand still. Returns the stacks with what names
    /// their code objects, if none of these changed meanwhile: stacks that may have never existed, of code that is there.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn look_ahead(
        &mut self,
        target: &Target,
        thread_table: &ThreadTable,
        wanted: &[usize],
    ) -> Result<Option<CodeAhead>, ReadError> {
        let (memory, offsets) = (target.memory(), target.offsets());
        self.begin(memory)?;
        let threads = wanted.iter().map(|index| &thread_table.threads()[*index].python);
        let stacks: Vec<RawStack> =
            threads.filter_map(|thread| self.stack(memory, offsets, thread).ok()).collect();
        self.learn(stacks.iter());
        let evidence = CodeEvidence::of_stacks(memory, offsets, stacks.iter(), &mut self.codes)?;
        let is_unchanged = evidence.is_unchanged(memory, offsets)?;
        let code = is_unchanged.then(|| CodeAhead { code: evidence, stacks: stacks.clone() });
        if self.objects.is_any() {
            self.ahead.push(look_ahead(target, thread_table, self.objects, wanted, stacks)?);
        }
        Ok(code)
    }

    /// Copies the objects of these stacks.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn copy_objects(
        &mut self,
        target: &Target,
        thread_table: &ThreadTable,
        stacks: &[ThreadStack],
        is_stopped: bool,
    ) -> Result<ObjectCopy, ReadError> {
        let in_common = self.ahead.iter().map(|ahead| ahead.threads_in_common(thread_table, stacks));
        let best = in_common.enumerate().max_by_key(|(_, count)| *count).filter(|(_, count)| *count > 0);
        let ahead = best.map(|(index, _)| self.ahead.swap_remove(index)).unwrap_or_default();
        copy_objects(target, thread_table, self.objects, stacks, ahead, is_stopped)
    }

    /// Uses the objects of an instant that was of no use to find them the next time.
    pub fn try_again(
        &mut self,
        thread_table: &ThreadTable,
        stacks: &[ThreadStack],
        objects: Option<ObjectCopy>,
    ) {
        self.ahead.extend(objects.map(|copy| ObjectsAhead::again(copy, thread_table, stacks)));
    }

    /// Learns from this instant what the next one will need. Happens when nothing is stopped any more.
    pub fn learn<'a>(&mut self, stacks: impl Iterator<Item = &'a RawStack>) {
        stacks.for_each(|stack| self.callers.learn(stack));
        self.page_prefetcher.learn(self.pages.read_pages().into_iter());
    }
}

/// Code objects that were met before an instant, so that their names need not be copied at it.
#[derive(Debug)]
pub struct CodeAhead {
    /// What names them.
    pub code: CodeEvidence,
    /// Where they were met.
    pub stacks: Vec<RawStack>,
}

/// The loss that follows from a failed read.
pub fn loss(error: ReadError) -> LossReason {
    match error {
        ReadError::ProcessEnded => LossReason::ProcessEnded,
        ReadError::BrokenList(_) => LossReason::ListsUnreadable,
        ReadError::NoAnswer => LossReason::NoAnswer,
        ReadError::Unmapped(_) | ReadError::NotPermitted | ReadError::TooLong { .. } => {
            LossReason::Unreadable
        }
    }
}
