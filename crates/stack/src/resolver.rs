//! Resolving Python frames, each code object read once and each of its positions looked up once.
//!
//! Code objects are remembered by address together with the bytes that identify them ([`CodeHead`]): a
//! captured frame carries these bytes as they were at the instant of the capture, so an address whose
//! object was freed and is another one's now is never mistaken for the old one.

use std::sync::Arc;

use profiler_memory::ReadMemory;
use profiler_model::{Frame, FrameKind, Instruction, RemoteAddr};
use profiler_python::{CodeError, CodeHead, CodeObject, Offsets, RawFrame, code_type};
use rustc_hash::FxHashMap;

/// How many code objects are remembered. A program has some ten thousands; one that makes new code for ever
/// (`exec`) would fill the memory, so beyond this all are forgotten and read again as they are met.
pub(crate) const MAX_CODE_OBJECTS: usize = 65_536;

/// Remembers code objects, and for each position in them an `Id` that the caller gave to its frame.
#[derive(Debug)]
pub struct Resolver<Id> {
    known: FxHashMap<RemoteAddr, Known<Id>>,
    /// The type that every code object has, once one was met.
    code_type: Option<RemoteAddr>,
}

#[derive(Debug)]
struct Known<Id> {
    object: CodeObject,
    short_file: Arc<str>,
    /// The ids of the positions that were met, in order: an instruction, and whether C code called the frame.
    frames: Vec<((u64, bool), Id)>,
}

impl<Id> Default for Resolver<Id> {
    fn default() -> Self {
        Resolver { known: FxHashMap::default(), code_type: None }
    }
}

impl<Id: Copy> Resolver<Id> {
    /// A resolver that knows nothing.
    pub fn new() -> Self {
        Resolver::default()
    }

    /// The bytes that identify the code object that is known at this address.
    pub(crate) fn head(&self, code: RemoteAddr) -> Option<&CodeHead> {
        self.known.get(&code).map(|known| &known.object.head)
    }

    /// Forgets the ids of all frames, and keeps what names them: they are described anew as they are met.
    pub(crate) fn forget_ids(&mut self) {
        self.known.values_mut().for_each(|known| known.frames.clear());
    }

    /// The id of a frame that was met before in the code object that had the bytes `head`, or, without `head`, in the one
    /// that is known: all that most frames need.
    pub(crate) fn met(&self, raw: &RawFrame, head: Option<&CodeHead>) -> Option<Id> {
        let known = self.known.get(&raw.code)?;
        let is_same = head.is_none_or(|head| known.object.head == *head);
        is_same.then(|| known.met(key_of(raw))).flatten()
    }

    /// The caller's id for the frame `raw`, whose code object had the bytes `head` when it was captured. A
    /// frame that is met for the first time is described to `describe.intern`, which gives it its id. `None`
    /// for a frame that is the interpreter's own and no function ([`CodeObject::is_shim`]).
    ///
    /// # Errors
    /// When the code object is gone or is another one by now, so that the frame has no name.
    pub fn resolve(
        &mut self,
        memory: &impl ReadMemory,
        offsets: &Offsets,
        raw: &RawFrame,
        head: &CodeHead,
        describe: &mut Describe<'_, Id>,
    ) -> Result<Option<Id>, CodeError> {
        if let Some(known) = self.known.get_mut(&raw.code)
            && known.object.head == *head
        {
            return known.id(memory, offsets, raw, describe);
        }
        self.check_type(memory, offsets, raw.code)?;
        let object = CodeObject::read(memory, offsets, raw.code)?;
        if object.head != *head {
            return Err(CodeError::Changed(raw.code));
        }
        if self.known.len() >= MAX_CODE_OBJECTS {
            self.known.clear();
        }
        let short_file = (describe.shorten)(&object.file);
        let mut known = Known { object, short_file, frames: Vec::new() };
        let id = known.id(memory, offsets, raw, describe);
        self.known.insert(raw.code, known);
        id
    }

    /// Looks again at a code object that had the bytes `head` then too: forgets it if it has other names now. Returns
    /// whether it did.
    pub(crate) fn check(&mut self, memory: &impl ReadMemory, offsets: &Offsets, code: RemoteAddr) -> bool {
        let Some(known) = self.known.get(&code) else { return false };
        let is_another = CodeObject::read(memory, offsets, code).as_ref() != Ok(&known.object);
        if is_another {
            self.known.remove(&code);
        }
        is_another
    }

    /// Learns the type that all code objects have from the one at `code`, unless it is known. `is_trusted`: a frame said
    /// that this is its code, which is enough where the type itself cannot be read any more.
    ///
    /// # Errors
    /// When there is no code object there.
    pub(crate) fn learn_type(
        &mut self,
        memory: &impl ReadMemory,
        offsets: &Offsets,
        code: RemoteAddr,
        is_trusted: bool,
    ) -> Result<(), CodeError> {
        if self.code_type.is_none() {
            self.code_type = Some(match is_trusted {
                true => memory.field(code, offsets.object.object_type)?,
                false => code_type(memory, offsets, code)?,
            });
        }
        Ok(())
    }

    fn check_type(
        &mut self,
        memory: &impl ReadMemory,
        offsets: &Offsets,
        code: RemoteAddr,
    ) -> Result<(), CodeError> {
        match self.code_type {
            Some(known) if memory.field(code, offsets.object.object_type)? != known => {
                Err(CodeError::NotCode(code))
            }
            Some(_) => Ok(()),
            None => self.learn_type(memory, offsets, code, false),
        }
    }
}

/// What tells the frames of one code object apart.
fn key_of(raw: &RawFrame) -> (u64, bool) {
    (raw.instruction, raw.is_entry)
}

/// What the resolver asks of its caller for a frame that it meets for the first time.
pub struct Describe<'a, Id> {
    /// The short form of a file's path.
    pub shorten: &'a mut dyn FnMut(&Arc<str>) -> Arc<str>,
    /// Takes the frame and gives it an id.
    pub intern: &'a mut dyn FnMut(&Frame) -> Id,
}

impl<Id: Copy> Known<Id> {
    fn id(
        &mut self,
        memory: &impl ReadMemory,
        offsets: &Offsets,
        raw: &RawFrame,
        describe: &mut Describe<'_, Id>,
    ) -> Result<Option<Id>, CodeError> {
        if self.object.is_shim() {
            return Ok(None);
        }
        let place = match self.place(key_of(raw)) {
            Ok(met) => return Ok(Some(self.frames[met].1)),
            Err(place) => place,
        };
        let id = self.describe(raw, raw.instruction_offset(memory, offsets)?, describe);
        self.frames.insert(place, (key_of(raw), id));
        Ok(Some(id))
    }

    /// Where the position stands among those that were met, or where it belongs.
    fn place(&self, key: (u64, bool)) -> Result<usize, usize> {
        self.frames.binary_search_by_key(&key, |(key, _)| *key)
    }

    fn met(&self, key: (u64, bool)) -> Option<Id> {
        self.place(key).ok().map(|met| self.frames[met].1)
    }

    fn describe(&self, raw: &RawFrame, offset: Option<u32>, describe: &mut Describe<'_, Id>) -> Id {
        let mut position = self.object.position(offset);
        // Instructions without a line (making cells, say) run as the function starts.
        position.line = position.line.or(self.object.first_line);
        let frame = Frame {
            kind: FrameKind::Python,
            function: Arc::clone(self.object.function()),
            file: Arc::clone(&self.object.file),
            short_file: Arc::clone(&self.short_file),
            first_line: self.object.first_line,
            position,
            instruction: offset.map(|offset| Instruction { offset, ..Instruction::default() }),
            is_entry: raw.is_entry,
            ..Frame::default()
        };
        (describe.intern)(&frame)
    }
}
