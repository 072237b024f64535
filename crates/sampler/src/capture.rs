//! Copying the stacks of threads: what may happen while one of them is stopped.
//!
//! Nothing is parsed here: stacks are addresses, and a [`Capture`] holds for each code object the bytes that
//! identify it. Whether any of it may be believed is for the sampler to prove.

use profiler_memory::{PageCopy, ReadError, ReadMemory, ReadRequest};
use profiler_model::{LossReason, RemoteAddr};
use profiler_python::{
    Callers, CodeHead, GilAddresses, Offsets, RawStack, STACK_PAGE_BYTES, ThreadState, WalkError,
};

use rustc_hash::FxHashSet;

use crate::forecast::PageForecast;
use crate::gil::{self, GilSpan, GilState};

/// How many code objects are remembered as lasting, at most about.
const MAX_LASTING_CODES: usize = 65_536;

/// What identifies the code objects of some stacks of one instant.
#[derive(Debug, Default)]
pub struct Capture {
    /// Taken while the stacks stood still.
    at_instant: CodeHeads,
    /// Those that are left for afterwards, and then taken.
    afterwards: CodeHeads,
    /// Code objects that were still there at the instant, as none had been freed; in order.
    unfreed: Vec<RemoteAddr>,
}

/// What identifies a code object, and how far that can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// These bytes stood there at the instant itself.
    AtInstant(CodeHead),
    /// These bytes stood there later: what had them before as well was there at the instant, if no other
    /// object can have them ([`CodeHead::is_unique`]).
    Afterwards(CodeHead),
    /// No code object has been freed since this one got its name.
    Unfreed,
}

impl Capture {
    /// Copies what identifies the code objects of these stacks, but for the `lasting` ones.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn of_stacks<'a>(
        memory: &impl ReadMemory,
        offsets: &Offsets,
        stacks: impl Iterator<Item = &'a RawStack>,
        lasting: &LastingCodes,
    ) -> Result<Self, ReadError> {
        let (mut now, mut capture) = (Vec::new(), Capture::default());
        for code in stacks.flat_map(|stack| &stack.frames).map(|frame| frame.code) {
            if lasting.unfreed.contains(&code) {
                capture.unfreed.push(code);
            } else if lasting.numbered.contains(&code) {
                capture.afterwards.codes.push(code);
            } else {
                now.push(code);
            }
        }
        capture.at_instant = CodeHeads::read(memory, offsets, now)?;
        Ok(capture)
    }

    /// Copies what was left out. Happens when nothing is stopped any more.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn complete(&mut self, memory: &impl ReadMemory, offsets: &Offsets) -> Result<(), ReadError> {
        let codes = std::mem::take(&mut self.afterwards.codes);
        self.afterwards = CodeHeads::read(memory, offsets, codes)?;
        self.unfreed.sort_unstable();
        Ok(())
    }

    /// What identifies the code object.
    pub fn identity(&self, code: RemoteAddr) -> Option<Identity> {
        if self.unfreed.binary_search(&code).is_ok() {
            return Some(Identity::Unfreed);
        }
        let at_instant = self.at_instant.head(code).map(Identity::AtInstant);
        at_instant.or_else(|| self.afterwards.head(code).map(Identity::Afterwards))
    }
}

/// The heads of some code objects.
#[derive(Debug, Default)]
pub struct CodeHeads {
    /// Their addresses, in order.
    codes: Vec<RemoteAddr>,
    /// The heads, one after the other; those that could not be read are missing at the end.
    heads: Vec<u8>,
    head_length: usize,
}

impl CodeHeads {
    /// Copies what identifies these code objects.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn read(
        memory: &impl ReadMemory,
        offsets: &Offsets,
        mut codes: Vec<RemoteAddr>,
    ) -> Result<Self, ReadError> {
        if codes.is_empty() {
            return Ok(CodeHeads::default());
        }
        codes.sort_unstable();
        codes.dedup();
        let range = CodeHead::range(offsets);
        let mut heads = vec![0; range.len() * codes.len()];
        let mut requests: Vec<_> = codes
            .iter()
            .zip(heads.chunks_mut(range.len()))
            .map(|(code, into)| ReadRequest::new(code.offset(u64::from(range.start)), into))
            .collect();
        let filled = memory.read_batch(&mut requests)?;
        heads.truncate(filled * range.len());
        Ok(CodeHeads { codes, heads, head_length: range.len() })
    }

    /// The bytes that identify the code object.
    pub fn head(&self, code: RemoteAddr) -> Option<CodeHead> {
        let index = self.codes.binary_search(&code).ok()?;
        let start = index * self.head_length;
        self.heads.get(start..start + self.head_length).map(CodeHead::new)
    }
}

/// Code objects that have a name and need not be looked at while something stands still.
#[derive(Debug, Default)]
pub struct LastingCodes {
    /// Those with a number of their own: it is enough to look afterwards whether they are still there.
    numbered: FxHashSet<RemoteAddr>,
    /// Those that were there when the interpreter had freed as many code objects as it has now.
    unfreed: FxHashSet<RemoteAddr>,
    freed_codes: Option<u64>,
}

impl LastingCodes {
    /// Begins an instant at which the interpreter has freed so many code objects, where that is told.
    fn begin(&mut self, freed_codes: Option<u64>) {
        if freed_codes != self.freed_codes {
            self.unfreed.clear();
            self.freed_codes = freed_codes;
        }
    }

    /// Adds the code objects of a stack of the current instant that all were given their names by this capture.
    pub fn learn(&mut self, offsets: &Offsets, capture: &Capture, stack: &RawStack) {
        if capture.at_instant.codes.is_empty() && capture.afterwards.codes.is_empty() {
            return;
        }
        if self.numbered.len().max(self.unfreed.len()) > MAX_LASTING_CODES {
            *self = LastingCodes { freed_codes: self.freed_codes, ..LastingCodes::default() };
        }
        for code in stack.frames.iter().map(|frame| frame.code) {
            if self.freed_codes.is_some() {
                self.unfreed.insert(code);
            }
            if capture.at_instant.head(code).is_some_and(|head| head.is_unique(offsets)) {
                self.numbered.insert(code);
            }
        }
    }

    /// Removes those of a stack whose names turned out not to be certain.
    pub fn forget(&mut self, stack: &RawStack) {
        for frame in &stack.frames {
            self.numbered.remove(&frame.code);
            self.unfreed.remove(&frame.code);
        }
    }
}

/// Copies stacks, predicting from one instant to the next which pages they lie in.
#[derive(Debug, Default)]
pub struct StackReader {
    pages: PageCopy,
    forecast: PageForecast,
    callers: Callers,
    thread_state: Vec<u8>,
    /// Code objects that need not be looked at while something stands still.
    pub lasting: LastingCodes,
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
        self.lasting.begin(None);
        self.pages.refill(memory, self.forecast.pages())
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
                self.pages.refill_after(memory, span.request(), self.forecast.pages())?;
                let state = span.state(gil);
                self.lasting.begin(state.freed_codes);
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
        let touched: Vec<u64> = self.pages.read_pages().collect();
        self.pages.refill(memory, &touched)
    }

    /// Copies the stack of `thread`.
    pub fn stack(
        &mut self,
        memory: &impl ReadMemory,
        offsets: &Offsets,
        thread: &ThreadState,
    ) -> Result<RawStack, LossReason> {
        let mut copy = std::mem::take(&mut self.thread_state);
        copy.resize(offsets.thread.size as usize, 0);
        let stack = self.stack_of(memory, offsets, thread, &mut copy);
        self.thread_state = copy;
        stack
    }

    fn stack_of(
        &mut self,
        memory: &impl ReadMemory,
        offsets: &Offsets,
        thread: &ThreadState,
        copy: &mut [u8],
    ) -> Result<RawStack, LossReason> {
        self.pages.read(memory, thread.address, copy).map_err(loss)?;
        if ThreadState::from_copy(thread.address, copy, offsets).as_ref() != Some(thread) {
            return Err(LossReason::ThreadEnded);
        }
        let mut stack = RawStack::default();
        match stack.walk(memory, &mut self.pages, &self.callers, offsets, copy) {
            Ok(()) => Ok(stack),
            Err(WalkError::Read(error)) => Err(loss(error)),
            Err(WalkError::Circle | WalkError::BadPointer(_) | WalkError::Unrooted) => {
                Err(LossReason::Invalid)
            }
        }
    }

    /// Learns from this instant what the next one will need. Happens when nothing is stopped any more.
    pub fn learn<'a>(&mut self, stacks: impl Iterator<Item = &'a RawStack>) {
        stacks.for_each(|stack| self.callers.learn(stack));
        self.forecast.learn(self.pages.read_pages());
    }
}

/// The loss that follows from a failed read.
pub fn loss(error: ReadError) -> LossReason {
    match error {
        ReadError::ProcessEnded => LossReason::ProcessEnded,
        ReadError::Unmapped(_) | ReadError::NotPermitted | ReadError::TooLong { .. } => {
            LossReason::Unreadable
        }
    }
}
