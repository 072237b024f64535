//! Reading one frame after the other, those that probably come next together with it.

use profiler_memory::{PageCopy, ReadMemory};
use profiler_model::RemoteAddr;

use super::WalkError;
use super::callers::Callers;
use super::circle::Circle;
use super::raw_frame::RawFrame;
use super::step::{Step, check_code, check_place, instruction, is_entry};
use crate::{FrameLayout, FrameOffsets, Offsets};

/// The largest frame structure of any version (`PyFrameObject` of 3.6 is read up to its `f_lasti`).
const MAX_FRAME_BYTES: usize = 256;

/// The size of a chunk of the data stack, in bytes, unless the stack is deep: `DATA_STACK_CHUNK_SIZE` of CPython.
const DATA_STACK_CHUNK: u64 = 16 * 1024;

/// The distance in bytes below an interpreter frame within which its callers are fetched with it: some ten frames.
const DATA_STACK_AHEAD: u64 = 1024;

/// A walk through memory, which is read in pages and ahead.
pub(super) struct Walk<'a, M> {
    memory: &'a M,
    pages: &'a mut PageCopy,
    callers: &'a Callers,
    frame: &'a FrameOffsets,
    /// The sentinel at the root, where there is one.
    base: Option<RemoteAddr>,
    /// The chunk of the data stack in use.
    data_stack: Option<RemoteAddr>,
    /// The place that was read last.
    last: RemoteAddr,
    circle: Circle,
}

impl<'a, M: ReadMemory> Walk<'a, M> {
    /// A walk of the thread whose thread state was copied to `thread_state`.
    pub fn new(
        memory: &'a M,
        pages: &'a mut PageCopy,
        callers: &'a Callers,
        offsets: &'a Offsets,
        thread_state: &[u8],
    ) -> Self {
        Walk {
            memory,
            pages,
            callers,
            frame: &offsets.frame,
            base: offsets.thread.base_frame.and_then(|field| field.get(thread_state)),
            data_stack: offsets.thread.datastack_chunk.and_then(|field| field.get(thread_state)),
            last: RemoteAddr::NULL,
            circle: Circle::default(),
        }
    }

    /// The sentinel at the root, if the version has one.
    pub fn base(&self) -> Option<RemoteAddr> {
        self.base
    }

    /// The frame that runs; null where the thread is in no Python function.
    pub fn leaf(&mut self, offsets: &Offsets, thread_state: &[u8]) -> Result<RemoteAddr, WalkError> {
        let first = offsets.thread.frame.get(thread_state).unwrap_or_default();
        match offsets.thread.cframe_current_frame {
            Some(current) if !first.is_null() => {
                let mut pointer = [0u8; 8];
                let at = first.offset(u64::from(current.offset()));
                self.pages.read(self.memory, at, &mut pointer)?;
                Ok(RemoteAddr::new(u64::from_le_bytes(pointer)))
            }
            _ => Ok(first),
        }
    }

    /// The frame to go on with, checked; `None` at the root.
    pub fn next(&mut self, address: RemoteAddr) -> Result<Option<RemoteAddr>, WalkError> {
        if address.is_null() || Some(address) == self.base {
            return Ok(None);
        }
        check_place(address, &mut self.circle)?;
        Ok(Some(address))
    }

    /// Fetches the frame at `address` together with those that probably come after it.
    fn fetch(&mut self, address: RemoteAddr) -> Result<(), WalkError> {
        let last_byte = u64::from(self.frame.size).saturating_sub(1);
        let near = |other: RemoteAddr| {
            other.checked_distance_from(address).is_some_and(|distance| distance < DATA_STACK_AHEAD)
                || address.checked_distance_from(other).is_some_and(|distance| distance < DATA_STACK_CHUNK)
        };
        let is_in_data_stack = near(self.last) || self.data_stack.is_some_and(near);
        let mut numbers: Vec<u64> = Vec::new();
        if self.frame.layout == FrameLayout::Interpreter && is_in_data_stack {
            let lowest = RemoteAddr::new(address.as_u64().saturating_sub(DATA_STACK_AHEAD));
            numbers
                .extend(self.pages.page_number(lowest)..=self.pages.page_number(address.offset(last_byte)));
        } else {
            let ends =
                |at: RemoteAddr| [self.pages.page_number(at), self.pages.page_number(at.offset(last_byte))];
            numbers.extend(self.callers.chain(address).flat_map(ends));
            numbers.sort_unstable();
            numbers.dedup();
        }
        Ok(self.pages.prefetch(self.memory, &numbers)?)
    }

    /// Reads what stands at `address`, and where its caller is.
    pub fn step(&mut self, address: RemoteAddr) -> Result<Step, WalkError> {
        let mut bytes = [0u8; MAX_FRAME_BYTES];
        let bytes = &mut bytes[..(self.frame.size as usize).min(MAX_FRAME_BYTES)];
        if !self.pages.holds(address) || !self.pages.holds(address.offset(bytes.len() as u64 - 1)) {
            self.fetch(address)?;
        }
        self.last = address;
        self.pages.read(self.memory, address, bytes)?;
        let previous = self.frame.previous.get(bytes).unwrap_or_default();
        let owner = self.frame.owner.and_then(|field| field.get(bytes));
        if owner.is_some_and(|owner| self.frame.shim_owners.contains(&owner)) {
            return Ok(Step { frame: None, owner, previous });
        }
        let tagged = self.frame.code.get(bytes).unwrap_or_default();
        let code = tagged.without_tag(self.frame.code_tag_bits);
        check_code(code, tagged)?;
        let copy = self.frame.bytecode_copy.and_then(|field| field.get(bytes));
        let frame = RawFrame {
            code,
            instruction: instruction(self.frame, bytes, self.frame.instruction),
            bytecode_copy: copy.and_then(|index| u32::try_from(index).ok()).unwrap_or(0),
            is_entry: is_entry(self.frame, || {
                self.frame.is_entry.and_then(|mark| mark.get(bytes)).unwrap_or_default()
            }),
        };
        Ok(Step { frame: Some(frame), owner, previous })
    }
}
