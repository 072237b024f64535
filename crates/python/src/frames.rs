//! Walking the frames of one thread: from its thread state to the root of its stack.
//!
//! This is what happens while a thread may be stopped, so it copies addresses and parses nothing: which
//! function and line they are is found out afterwards ([`crate::CodeObject`]).

mod callers;
mod circle;
mod raw_frame;
mod root;
mod step;
#[cfg(test)]
mod tests;
mod walk;

use profiler_memory::{PageCopy, ReadError, ReadMemory};
use profiler_model::RemoteAddr;

use self::circle::Circle;
use self::root::is_root;
use self::step::{Step, check_place};
use self::walk::Walk;
use crate::Offsets;

pub use self::callers::Callers;
pub use self::raw_frame::RawFrame;
pub use self::step::CopiedFrame;

/// The most frames of a stack that are walked. CPython's own limit is 1,000 unless a program raises it. Further frames, at
/// the root, are left out, and the stack is marked as truncated.
pub const MAX_FRAMES: usize = 4096;

/// The number by which the shims between C and Python may exceed the frames. A real stack has one shim under each frame that
/// C called.
const MAX_SHIMS_ABOVE_FRAMES: usize = 8;

/// The frames of one thread at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawStack {
    /// The frames, leaf first.
    pub frames: Vec<RawFrame>,
    /// Whether frames beyond [`MAX_FRAMES`] were left out at the root.
    pub truncated: bool,
    /// Where the frames and the shims between them lie, in the order in which they were walked.
    places: Vec<RemoteAddr>,
    /// Which of the places are shims, in order.
    shims: Vec<usize>,
}

/// The size of the pages in which stacks are best read. Of a page that the target writes, each cache line that
/// is copied has to be fetched back by the target: what is not needed is better left alone.
pub const STACK_PAGE_BYTES: usize = 128;

/// Why a stack could not be walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// A frame cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A frame leads back to one that stood before it.
    #[error("the frames form a circle")]
    Circle,
    /// The frames end before the root of the stack: one of them is being unlinked.
    #[error("the frames end before the root of the stack")]
    Unrooted,
    /// A pointer is not one: null or badly aligned.
    #[error("the pointer {0} in a frame is none")]
    BadPointer(RemoteAddr),
}

impl RawStack {
    /// An empty stack with room for about this many frames.
    pub fn with_room_for(frames: usize) -> Self {
        const MORE: usize = 8;
        let (frames, places) = (frames + MORE, 2 * frames + MORE);
        RawStack {
            frames: Vec::with_capacity(frames),
            places: Vec::with_capacity(places),
            ..RawStack::default()
        }
    }

    /// The stack of the thread whose thread state was copied to `thread_state`, of the frames that were walked
    /// elsewhere, leaf first; `end` is where the last of them says that its caller is, unless there were more frames
    /// than could be walked (`truncated`). From `memory` bytecode is read where only that proves the root.
    ///
    /// # Errors
    /// As for [`RawStack::walk`].
    pub fn of_copies(
        memory: &impl ReadMemory,
        offsets: &Offsets,
        thread_state: &[u8],
        copies: impl Iterator<Item = CopiedFrame>,
        end: RemoteAddr,
        truncated: bool,
    ) -> Result<Self, WalkError> {
        let mut stack = RawStack { truncated, ..RawStack::default() };
        let (mut last, mut circle) = (None, Circle::default());
        for copy in copies {
            check_place(copy.place, &mut circle)?;
            let step = copy.step(&offsets.frame)?;
            stack.places.push(copy.place);
            stack.add(&step)?;
            last = Some(step);
        }
        if !truncated {
            let base = offsets.thread.base_frame.and_then(|field| field.get(thread_state));
            stack.finish(memory, offsets, base, last.as_ref(), end)?;
        }
        Ok(stack)
    }

    /// Checks that the walk, which ended at `end` after `last`, has come to the root.
    fn finish(
        &mut self,
        memory: &impl ReadMemory,
        offsets: &Offsets,
        base: Option<RemoteAddr>,
        last: Option<&Step>,
        end: RemoteAddr,
    ) -> Result<(), WalkError> {
        let Some(last) = last else { return Ok(()) };
        let place = self.places.last().copied().unwrap_or_default();
        if !is_root(memory, offsets, base, (place, last), end)? {
            return Err(WalkError::Unrooted);
        }
        // Nothing of Python stands below the outermost frame.
        if let Some(outermost) = self.frames.last_mut() {
            outermost.is_entry = true;
        }
        Ok(())
    }

    /// Walks the stack of the thread whose thread state was copied to `thread_state`, into this value,
    /// reading through `pages`, ahead where `callers` knows what comes. The thread must not change its stack
    /// meanwhile, or the caller must be able to tell that it did.
    ///
    /// # Errors
    /// When a frame cannot be read or cannot be one; what was walked until then is of no use.
    pub fn walk(
        &mut self,
        memory: &impl ReadMemory,
        pages: &mut PageCopy,
        callers: &Callers,
        offsets: &Offsets,
        thread_state: &[u8],
    ) -> Result<(), WalkError> {
        *self = RawStack::default();
        let mut walk = Walk::new(memory, pages, callers, offsets, thread_state);
        let mut at = walk.leaf(offsets, thread_state)?;
        let mut last = None;
        while let Some(address) = walk.next(at)? {
            if self.frames.len() == MAX_FRAMES {
                self.truncated = true;
                return Ok(());
            }
            let step = walk.step(address)?;
            self.places.push(address);
            self.add(&step)?;
            at = step.previous;
            last = Some(step);
        }
        let base = walk.base();
        self.finish(memory, offsets, base, last.as_ref(), at)
    }

    /// Whether all frames are marked as executed that must be: those of callers, and the one at the root. True where
    /// frames have no such mark (3.11 and later). Of a thread that runs while it is read, a generator that has just been
    /// left has no caller and is not marked. The leaf may have been entered a moment ago, before its mark is set.
    ///
    /// # Errors
    /// When a mark cannot be read.
    pub fn is_executed(
        &self,
        memory: &impl ReadMemory,
        pages: &mut PageCopy,
        offsets: &Offsets,
    ) -> Result<bool, ReadError> {
        let Some(executing) = offsets.frame.executing else { return Ok(true) };
        let first = usize::from(self.places.len() > 1);
        for place in &self.places[first..] {
            let mut mark = [0u8; 1];
            pages.read(memory, place.offset(executing.mark.offset().into()), &mut mark)?;
            if i8::from_le_bytes(mark) != executing.value {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Where each of the frames lies.
    pub fn places(&self) -> impl Iterator<Item = RemoteAddr> {
        let mut shims = self.shims.iter().peekable();
        let places = self.places.iter().enumerate();
        places.filter(move |(index, _)| shims.next_if_eq(&index).is_none()).map(|(_, place)| *place)
    }

    /// Which place called which: each with its caller.
    fn calls(&self) -> impl Iterator<Item = (RemoteAddr, RemoteAddr)> {
        self.places.windows(2).map(|pair| (pair[0], pair[1]))
    }

    fn add(&mut self, step: &Step) -> Result<(), WalkError> {
        match (step.frame, self.frames.last_mut()) {
            (Some(frame), _) => self.frames.push(frame),
            // The frame above a shim was called from C.
            (None, Some(callee)) => callee.is_entry = true,
            (None, None) => {}
        }
        if step.frame.is_none() {
            self.shims.push(self.places.len() - 1);
        }
        let shims = self.places.len() - self.frames.len();
        if shims > self.frames.len() + MAX_SHIMS_ABOVE_FRAMES { Err(WalkError::Circle) } else { Ok(()) }
    }
}
