//! Walking the frames of one thread: from its thread state to the root of its stack.
//!
//! This is what happens while a thread may be stopped, so it copies addresses and parses nothing: which
//! function and line they are is found out afterwards ([`crate::CodeObject`]).

use profiler_memory::{Field, PageCopy, ReadError, ReadMemory};
use profiler_model::RemoteAddr;
use rustc_hash::FxHashMap;

use crate::{FrameLayout, FrameOffsets, InstructionPointer, Offsets, StackRoot};

/// The most frames that are taken of a stack. CPython's own limit is 1,000 unless a program raises it; the
/// frames beyond this one, at the root, are left out, and the stack says so.
pub const MAX_FRAMES: usize = 4096;

/// By how many the shims between C and Python may outnumber the frames. A real stack has one under each frame
/// that C called.
const MAX_SHIMS_ABOVE_FRAMES: usize = 8;

/// How many calls are remembered. Where frames are objects of their own (to 3.10), each function keeps one
/// for its next call, so this is about the number of functions that are worth remembering.
const MAX_REMEMBERED_CALLERS: usize = 65_536;

/// How many frames are fetched at once.
const MAX_FRAMES_AHEAD: usize = 128;

/// `owner` of the frame of a generator, 3.11 and later (`FRAME_OWNED_BY_GENERATOR`).
const OWNED_BY_GENERATOR: u8 = 1;

/// `owner` of a frame that is a part of its frame object, 3.11 and later (`FRAME_OWNED_BY_FRAME_OBJECT`).
const OWNED_BY_FRAME_OBJECT: u8 = 2;

/// How many bytes into its bytecode the frame of a compiled function stands at most: it never moves from the
/// beginning. A generator's first `yield` comes after at least three instructions of two bytes.
const MAX_COMPILED_OFFSET: u32 = 2;

/// The greatest distance in bytes, in a frame object, from the field `f_frame` to the frame that the object holds.
const MAX_F_FRAME_DISTANCE: usize = 96;

/// The largest frame structure of any version (`PyFrameObject` of 3.6 is read up to its `f_lasti`).
const MAX_FRAME_BYTES: usize = 256;

/// One frame, as it lies in the target's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RawFrame {
    /// Its code object.
    pub code: RemoteAddr,
    /// The instruction field: an offset or an address, see [`InstructionPointer`].
    pub instruction: u64,
    /// Free-threaded 3.14+: which of its code object's copies of the bytecode `instruction` points into, as
    /// each thread runs its own; 0 is the code object's own bytecode, as everywhere else.
    pub bytecode_copy: u32,
    /// Whether C code called this frame.
    pub is_entry: bool,
}

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

/// How large the chunks of the data stack are, but for deep stacks: `DATA_STACK_CHUNK_SIZE` of CPython.
const DATA_STACK_CHUNK: u64 = 16 * 1024;

/// How far below an interpreter frame its callers are fetched with it: some ten frames.
const DATA_STACK_AHEAD: u64 = 1024;

/// Remembers which frame called which, to read a whole chain of them at once. Only a guess: what is read is
/// walked all the same.
#[derive(Debug, Default)]
pub struct Callers {
    of: FxHashMap<RemoteAddr, RemoteAddr>,
}

impl Callers {
    /// Learns the calls of a stack.
    pub fn learn(&mut self, stack: &RawStack) {
        if self.of.len() > MAX_REMEMBERED_CALLERS {
            self.of.clear();
        }
        self.of.extend(stack.places.windows(2).map(|pair| (pair[0], pair[1])));
    }

    /// The frames that probably stand below `frame`, and itself.
    fn chain(&self, frame: RemoteAddr) -> impl Iterator<Item = RemoteAddr> {
        std::iter::successors(Some(frame), |callee| self.of.get(callee).copied()).take(MAX_FRAMES_AHEAD)
    }
}

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

impl RawFrame {
    /// How many bytes into the bytecode of its code object the frame is, or `None` where it has not
    /// started or the instruction lies outside.
    ///
    /// # Errors
    /// When the place of the copy that the frame runs cannot be read.
    pub fn instruction_offset(
        &self,
        memory: &impl ReadMemory,
        offsets: &Offsets,
    ) -> Result<Option<u32>, ReadError> {
        let units = u32::try_from(self.instruction as i32).ok();
        match offsets.frame.instruction_pointer {
            InstructionPointer::ByteOffset => Ok(units),
            InstructionPointer::UnitOffset => Ok(units.and_then(|units| units.checked_mul(2))),
            InstructionPointer::PreviousUnit | InstructionPointer::Current => {
                let bytecode = self.bytecode(memory, offsets)?;
                let distance = RemoteAddr::new(self.instruction).checked_distance_from(bytecode);
                Ok(distance.and_then(|distance| u32::try_from(distance).ok()))
            }
        }
    }

    /// Reads the interpreter frame at `place`, which is on no stack: that of a coroutine.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read(
        memory: &impl ReadMemory,
        offsets: &Offsets,
        place: RemoteAddr,
    ) -> Result<Self, ReadError> {
        let frame = &offsets.frame;
        let tagged: RemoteAddr = memory.field(place, frame.code)?;
        let copy = frame.bytecode_copy.map(|field| memory.field(place, field)).transpose()?;
        Ok(RawFrame {
            code: tagged.without_tag(frame.code_tag_bits),
            instruction: memory.scalar(place.offset(frame.instruction.into()))?,
            bytecode_copy: copy.and_then(|index| u32::try_from(index).ok()).unwrap_or(0),
            is_entry: false,
        })
    }

    /// Where the bytecode is that the frame runs.
    fn bytecode(&self, memory: &impl ReadMemory, offsets: &Offsets) -> Result<RemoteAddr, ReadError> {
        match offsets.code.bytecode_copies {
            // `_PyCodeArray`: how many there are, then a pointer to each.
            Some(copies) if self.bytecode_copy > 0 => {
                let copies = memory.field(self.code, copies)?;
                let index = u64::from(self.bytecode_copy);
                let count: u64 = memory.scalar(copies)?;
                if index >= count {
                    return Err(ReadError::TooLong { at: copies, length: index, limit: count });
                }
                memory.scalar(copies.offset((index + 1) * 8))
            }
            _ => Ok(self.code.offset(u64::from(offsets.code.bytecode.unwrap_or_default()))),
        }
    }
}

/// What was read elsewhere of one frame of a walk: where the fields of a version do not exist, it is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopiedFrame {
    /// Where it lies.
    pub place: RemoteAddr,
    /// Its code object, without its tag; null for a shim.
    pub code: RemoteAddr,
    /// The eight bytes where its instruction begins.
    pub instruction: u64,
    /// Which copy of its bytecode it runs.
    pub bytecode_copy: u32,
    /// Its owner.
    pub owner: u8,
    /// Its mark that C called it.
    pub is_entry: u8,
}

impl CopiedFrame {
    fn step(&self, offsets: &FrameOffsets) -> Result<Step, WalkError> {
        let owner = offsets.owner.map(|_| self.owner);
        let previous = RemoteAddr::NULL;
        if owner.is_some_and(|owner| offsets.shim_owners.contains(&owner)) {
            return Ok(Step { frame: None, owner, previous });
        }
        check_code(self.code, self.code)?;
        let frame = RawFrame {
            code: self.code,
            instruction: instruction(offsets, &self.instruction.to_le_bytes(), 0),
            bytecode_copy: offsets.bytecode_copy.map_or(0, |_| self.bytecode_copy),
            is_entry: is_entry(offsets, || self.is_entry),
        };
        Ok(Step { frame: Some(frame), owner, previous })
    }
}

impl RawStack {
    /// A stack without frames yet, to which about so many can be added without moving those that are there.
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
        let is_root = match offsets.frame.root {
            StackRoot::Any => true,
            StackRoot::NotSuspended(opcodes) => !is_suspended(memory, last, opcodes)?,
            StackRoot::Shim => {
                let place = self.places.last().copied().unwrap_or_default();
                last.frame.is_none() || is_compiled(memory, offsets, place, last)?
            }
            StackRoot::BaseFrame => Some(end) == base,
        };
        if !is_root {
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
        let base = offsets.thread.base_frame.and_then(|field| field.get(thread_state));
        let mut walk = Walk {
            memory,
            pages,
            callers,
            frame: &offsets.frame,
            base,
            data_stack: offsets.thread.datastack_chunk.and_then(|field| field.get(thread_state)),
            last: RemoteAddr::NULL,
            circle: Circle::default(),
        };
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

/// What stands at an address.
struct Step {
    /// The frame of a Python function; `None` for the mark of a call from C into Python.
    frame: Option<RawFrame>,
    owner: Option<u8>,
    /// The caller's place.
    previous: RemoteAddr,
}

struct Walk<'a, M> {
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

impl<M: ReadMemory> Walk<'_, M> {
    /// The frame that runs; null where the thread is in no Python function.
    fn leaf(&mut self, offsets: &Offsets, thread_state: &[u8]) -> Result<RemoteAddr, WalkError> {
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
    fn next(&mut self, address: RemoteAddr) -> Result<Option<RemoteAddr>, WalkError> {
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
    fn step(&mut self, address: RemoteAddr) -> Result<Step, WalkError> {
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

fn check_place(place: RemoteAddr, circle: &mut Circle) -> Result<(), WalkError> {
    if place != place.without_tag(3) {
        return Err(WalkError::BadPointer(place));
    }
    if circle.closes_with(place) { Err(WalkError::Circle) } else { Ok(()) }
}

fn check_code(code: RemoteAddr, tagged: RemoteAddr) -> Result<(), WalkError> {
    let is_pointer = !code.is_null() && code == code.without_tag(3);
    if is_pointer { Ok(()) } else { Err(WalkError::BadPointer(tagged)) }
}

/// Whether a frame is that of a generator which stands at one of these opcodes. It says where its bytecode is, which
/// lasts as long as the generator, and in which these opcodes are never replaced.
fn is_suspended(memory: &impl ReadMemory, step: &Step, opcodes: &[u8]) -> Result<bool, ReadError> {
    match step.frame {
        Some(frame) if step.owner == Some(OWNED_BY_GENERATOR) => {
            let opcode: u8 = memory.scalar(RemoteAddr::new(frame.instruction))?;
            Ok(opcodes.contains(&opcode))
        }
        _ => Ok(false),
    }
}

/// Whether a frame is that of a compiled function, below which there is no shim. CPython itself runs no frame that
/// belongs to a frame object. A generator that it runs may have no caller for an instruction or two when it is entered, at its
/// beginning, and when it is left, further on: so a frame that says that it is a generator's must lie in a frame object.
fn is_compiled(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    place: RemoteAddr,
    step: &Step,
) -> Result<bool, ReadError> {
    match (step.owner, step.frame) {
        (Some(OWNED_BY_FRAME_OBJECT), Some(_)) => Ok(true),
        (Some(OWNED_BY_GENERATOR), Some(frame)) => {
            let offset = frame.instruction_offset(memory, offsets)?;
            let is_at_its_beginning = offset.is_some_and(|offset| offset <= MAX_COMPILED_OFFSET);
            Ok(is_at_its_beginning && lies_in_frame_object(memory, place)?)
        }
        _ => Ok(false),
    }
}

/// Whether a frame lies in a frame object: that has the frame's address (`f_frame`) shortly before it. A generator, in which its
/// frame lies, does not have it.
fn lies_in_frame_object(memory: &impl ReadMemory, place: RemoteAddr) -> Result<bool, ReadError> {
    let mut before = [0u8; MAX_F_FRAME_DISTANCE];
    memory.read(RemoteAddr::new(place.as_u64().wrapping_sub(before.len() as u64)), &mut before)?;
    Ok(before.chunks_exact(8).any(|word| word == place.as_u64().to_le_bytes()))
}

/// The instruction that stands in these bytes of a frame, from `at` on.
fn instruction(offsets: &FrameOffsets, bytes: &[u8], at: u32) -> u64 {
    match offsets.instruction_pointer {
        InstructionPointer::ByteOffset | InstructionPointer::UnitOffset => {
            Field::<i32>::at(at).get(bytes).unwrap_or(-1) as i64 as u64
        }
        InstructionPointer::PreviousUnit | InstructionPointer::Current => {
            Field::<u64>::at(at).get(bytes).unwrap_or(0)
        }
    }
}

/// Whether a frame itself says that C called it. Frame objects have no mark: until 3.10 every call of a Python
/// function runs in an evaluation loop of its own.
fn is_entry(offsets: &FrameOffsets, mark: impl FnOnce() -> u8) -> bool {
    match (offsets.is_entry, offsets.owner) {
        (Some(_), _) => mark() == 1,
        (None, Some(_)) => false,
        (None, None) => true,
    }
}

/// Brent's test: remembers one earlier address, at distances that double.
#[derive(Default)]
struct Circle {
    remembered: RemoteAddr,
    steps: usize,
    until: usize,
}

impl Circle {
    fn closes_with(&mut self, address: RemoteAddr) -> bool {
        if address == self.remembered {
            return true;
        }
        if self.steps == self.until {
            self.remembered = address;
            self.until = self.until * 2 + 1;
            self.steps = 0;
        } else {
            self.steps += 1;
        }
        false
    }
}

#[cfg(test)]
mod tests;
