//! Which code objects the frames of an instant run: the bytes that identify them, and the names of those that are
//! met for the first time.
//!
//! An address alone says nothing: a program that compiles, runs and drops code puts one function after the other
//! at the same place, and often its name and file where those of the one before were. So names are copied while
//! the stack that needs them stands still, and an address keeps its name only as long as there is proof that
//! the object is the same one:
//! - no code object has been freed since (3.14+ counts them), or none made (3.13 numbers them), or
//! - it has the same number before and after the instant (3.12+ gives each its own), or
//! - the same bytes at the instant itself: pointers to the names, the code and the constants. Before 3.12, where
//!   one address has had different ones, the program is one that makes code over and over, and the names
//!   are compared as well.

use std::hash::BuildHasher;
use std::sync::Arc;

use profiler_memory::{CopiedPages, ReadError, ReadMemory, ReadRequest};
use profiler_model::RemoteAddr;
use profiler_python::{CodeHead, CodeObject, Offsets, RawStack};
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};

use crate::resolver::MAX_CODE_OBJECTS;

/// What identifies the code objects of some stacks of one instant.
#[derive(Debug, Default)]
pub struct CodeEvidence {
    /// Taken while the stacks stood still.
    at_instant: CodeHeads,
    /// The code objects that are left for afterwards.
    left: Vec<RemoteAddr>,
    /// What was taken afterwards, of these and of others that were left at other instants.
    afterwards: Option<Arc<CodeHeads>>,
    /// Code objects in whose place no other can stand at the instant, as their count had not changed; in order.
    unreplaced: Vec<RemoteAddr>,
    /// The count of code objects at the instant, see [`profiler_python::CodeCount`].
    code_count: Option<u64>,
    /// Code objects whose names were copied at the instant.
    first_seen: FxHashSet<RemoteAddr>,
    names: CopiedPages,
}

/// What identifies a code object, and how far that can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// These bytes stood there at the instant, and what they point to is in [`CodeEvidence::names`].
    FirstSeen(CodeHead),
    /// These bytes stood there at the instant.
    AtInstant(CodeHead),
    /// These bytes stood there later: what had them before as well was there at the instant, if no other
    /// object can have them ([`CodeHead::is_unique`]).
    Afterwards(CodeHead),
    /// The count of code objects has not changed since this one got its name.
    Unreplaced,
}

impl CodeEvidence {
    /// Copies what identifies the code objects of these stacks, as far as that cannot wait, and the names of
    /// those that are not known yet.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn of_stacks<'a>(
        memory: &impl ReadMemory,
        offsets: &Offsets,
        stacks: impl Iterator<Item = &'a RawStack> + Clone,
        known: &mut KnownCodes,
    ) -> Result<Self, ReadError> {
        let mut capture = CodeEvidence { code_count: known.code_count, ..CodeEvidence::default() };
        let most = stacks.clone().map(|stack| stack.frames.len()).sum();
        if known.unreplaced.is_empty() {
            capture.left.reserve(most)
        } else {
            capture.unreplaced.reserve(most)
        }
        let mut now = Vec::new();
        for code in stacks.flat_map(|stack| &stack.frames).map(|frame| frame.code) {
            if known.unreplaced.contains(&code) {
                capture.unreplaced.push(code);
            } else if known.lasts(code) {
                capture.left.push(code);
            } else {
                now.push(code);
            }
        }
        capture.at_instant = CodeHeads::read(memory, offsets, now)?;
        let new: Vec<_> = capture.at_instant.all().filter(|(code, head)| known.is_new(*code, head)).collect();
        capture.copy_names(memory, offsets, &new)?;
        Ok(capture)
    }

    /// Copies all that the names of these code objects are made of.
    fn copy_names(
        &mut self,
        memory: &impl ReadMemory,
        offsets: &Offsets,
        new: &[(RemoteAddr, CodeHead)],
    ) -> Result<(), ReadError> {
        if new.is_empty() {
            return Ok(());
        }
        self.names.copy(memory, new.iter().flat_map(|(code, head)| head.places(offsets, *code)))?;
        for (code, _) in new {
            // What is longer than expected is copied by reading it once.
            let _ = CodeObject::read(&self.names.copying(memory), offsets, *code);
        }
        self.first_seen.extend(new.iter().map(|(code, _)| *code));
        Ok(())
    }

    /// Copies what was left out of these captures, each code object once. Happens when nothing is stopped any more.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn complete<'a>(
        captures: impl Iterator<Item = &'a mut CodeEvidence>,
        memory: &impl ReadMemory,
        offsets: &Offsets,
    ) -> Result<(), ReadError> {
        let mut captures: Vec<_> = captures.collect();
        captures.iter_mut().for_each(|capture| capture.unreplaced.sort_unstable());
        captures.retain(|capture| !capture.left.is_empty());
        let left = captures.iter().flat_map(|capture| capture.left.iter().copied()).collect();
        let afterwards = Arc::new(CodeHeads::read(memory, offsets, left)?);
        for capture in captures {
            capture.afterwards = Some(Arc::clone(&afterwards));
        }
        Ok(())
    }

    /// Whether nothing is left for afterwards.
    pub fn is_complete(&self) -> bool {
        self.left.is_empty()
    }

    /// Whether the code objects whose names were copied have the same heads as before that.
    ///
    /// # Errors
    /// When nothing of the process can be read any more.
    pub fn is_unchanged(&self, memory: &impl ReadMemory, offsets: &Offsets) -> Result<bool, ReadError> {
        let again = CodeHeads::read(memory, offsets, self.at_instant.codes.clone())?;
        Ok(again.codes == self.at_instant.codes && again.heads == self.at_instant.heads)
    }

    /// What identifies the code object.
    pub(crate) fn identity(&self, code: RemoteAddr) -> Option<Identity> {
        if self.unreplaced.binary_search(&code).is_ok() {
            return Some(Identity::Unreplaced);
        }
        match self.at_instant.head(code) {
            Some(head) if self.first_seen.contains(&code) => Some(Identity::FirstSeen(head)),
            Some(head) => Some(Identity::AtInstant(head)),
            None => self.head_afterwards(code).map(Identity::Afterwards),
        }
    }

    fn head_afterwards(&self, code: RemoteAddr) -> Option<CodeHead> {
        self.afterwards.as_ref()?.head(code)
    }

    /// The memory of the instant, as far as names were copied.
    pub(crate) fn names(&self) -> &CopiedPages {
        &self.names
    }
}

/// The heads of some code objects.
#[derive(Debug, Default)]
struct CodeHeads {
    /// Their addresses, in order.
    codes: Vec<RemoteAddr>,
    /// The heads, one after the other; those that could not be read are missing at the end.
    heads: Vec<u8>,
    head_length: usize,
}

impl CodeHeads {
    fn read(
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

    fn head(&self, code: RemoteAddr) -> Option<CodeHead> {
        let index = self.codes.binary_search(&code).ok()?;
        let start = index * self.head_length;
        self.heads.get(start..start + self.head_length).map(CodeHead::new)
    }

    fn all(&self) -> impl Iterator<Item = (RemoteAddr, CodeHead)> {
        let heads = self.heads.chunks_exact(self.head_length.max(1)).map(CodeHead::new);
        self.codes.iter().copied().zip(heads)
    }
}

/// What is known of the code objects that have a name.
#[derive(Debug, Default)]
pub struct KnownCodes {
    named: FxHashMap<RemoteAddr, Named>,
    /// Those that were there when the count of code objects was what it is now: none was freed, or none was made since.
    unreplaced: FxHashSet<RemoteAddr>,
    code_count: Option<u64>,
    /// Addresses where something that seemed to last did not: what is there is looked at each time.
    restless: FxHashSet<RemoteAddr>,
    /// Whether one address has had different code objects that have no numbers: names are then compared.
    are_reused: bool,
}

/// A code object that has a name.
#[derive(Clone, Copy, Debug)]
struct Named {
    /// A hash of its head: only says what is new; that it is the same is for the resolver to compare.
    hash: u64,
    /// Whether its head can be no other object's.
    is_unique: bool,
}

fn hash_of(head: &CodeHead) -> u64 {
    FxBuildHasher.hash_one(head.as_bytes())
}

impl KnownCodes {
    /// Begins an instant at which the interpreter's count of code objects is this, where it proves anything.
    pub fn begin(&mut self, code_count: Option<u64>) {
        if code_count != self.code_count {
            self.unreplaced.clear();
            self.code_count = code_count;
        }
    }

    /// Whether it is enough to look at the code object afterwards. One that is gone by then costs the sample, and is
    /// looked at each time from then on.
    fn lasts(&self, code: RemoteAddr) -> bool {
        self.named.get(&code).is_some_and(|named| named.is_unique) && !self.restless.contains(&code)
    }

    /// Whether the names of the code object that has this head now have to be read.
    fn is_new(&mut self, code: RemoteAddr, head: &CodeHead) -> bool {
        let Some(named) = self.named.get(&code) else { return true };
        let is_other = named.hash != hash_of(head);
        self.are_reused |= is_other && !named.is_unique;
        is_other || self.are_reused
    }

    /// Learns that the code objects of a stack have the names of this capture, which may have been taken a few instants ago.
    /// `are_numbered` says whether the numbers that CPython gives them can be relied on.
    pub fn learn(&mut self, offsets: &Offsets, capture: &CodeEvidence, stack: &RawStack, are_numbered: bool) {
        if capture.at_instant.codes.is_empty() && capture.left.is_empty() {
            return;
        }
        let are_unreplaced = self.code_count.is_some() && self.code_count == capture.code_count;
        if self.named.len().max(self.unreplaced.len()) > MAX_CODE_OBJECTS {
            self.named.clear();
            self.unreplaced.clear();
        }
        for code in stack.frames.iter().map(|frame| frame.code) {
            if are_unreplaced && are_numbered {
                self.unreplaced.insert(code);
            }
            if let Some(head) = capture.at_instant.head(code) {
                let is_unique = are_numbered && head.is_unique(offsets);
                self.named.insert(code, Named { hash: hash_of(&head), is_unique });
            }
        }
    }

    /// Forgets the code objects of a stack, of which one turned out to have no certain name.
    pub fn forget(&mut self, capture: &CodeEvidence, stack: &RawStack) {
        if self.restless.len() > MAX_CODE_OBJECTS {
            self.restless.clear();
        }
        for code in stack.frames.iter().map(|frame| frame.code) {
            self.unreplaced.remove(&code);
            if let Some(named) = self.named.remove(&code)
                && capture.head_afterwards(code).is_some_and(|head| hash_of(&head) != named.hash)
            {
                self.restless.insert(code);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use profiler_memory::Snapshot;
    use profiler_python::{RawFrame, Version, offsets_for};

    const CODE: RemoteAddr = RemoteAddr::new(0x1000);

    fn offsets(minor: u8) -> Offsets {
        offsets_for(Version { major: 3, minor, micro: 0, release: 0xF0 }).unwrap()
    }

    /// Memory with a code object whose head is filled with this byte.
    fn memory(byte: u8) -> Snapshot {
        let mut memory = Snapshot::new();
        memory.insert(CODE, &[byte; 256]);
        memory
    }

    fn stack() -> RawStack {
        let mut stack = RawStack::default();
        stack.frames.push(RawFrame { code: CODE, instruction: 0, bytecode_copy: 0, is_entry: true });
        stack
    }

    fn capture(memory: &Snapshot, offsets: &Offsets, known: &mut KnownCodes) -> CodeEvidence {
        let mut capture = CodeEvidence::of_stacks(memory, offsets, [&stack()].into_iter(), known).unwrap();
        CodeEvidence::complete([&mut capture].into_iter(), memory, offsets).unwrap();
        capture
    }

    /// How the code object is identified at so many instants in a row.
    fn identities(minor: u8, bytes: &[u8], known: &mut KnownCodes) -> Vec<&'static str> {
        let offsets = offsets(minor);
        let mut found = Vec::new();
        for byte in bytes {
            let capture = capture(&memory(*byte), &offsets, known);
            found.push(match capture.identity(CODE).unwrap() {
                Identity::FirstSeen(_) => "first",
                Identity::AtInstant(_) => "now",
                Identity::Afterwards(_) => "later",
                Identity::Unreplaced => "unreplaced",
            });
            known.learn(&offsets, &capture, &stack(), true);
        }
        found
    }

    #[test]
    fn numbered_code_is_looked_at_afterwards_once_it_has_lasted() {
        let mut known = KnownCodes::default();
        assert_eq!(
            identities(12, &[1; 6], &mut known),
            ["first", "later", "later", "later", "later", "later"]
        );
        // It is another one after all: from now on it is looked at each time.
        let other = capture(&memory(2), &offsets(12), &mut known);
        known.forget(&other, &stack());
        assert_eq!(identities(12, &[2; 6], &mut known), ["first", "now", "now", "now", "now", "now"]);
    }

    #[test]
    fn code_that_changes_while_its_names_are_copied_is_noticed() {
        let offsets = offsets(11);
        let capture = capture(&memory(1), &offsets, &mut KnownCodes::default());
        assert_eq!(capture.is_unchanged(&memory(1), &offsets), Ok(true));
        assert_eq!(capture.is_unchanged(&memory(2), &offsets), Ok(false));
    }

    #[test]
    fn code_without_a_number_is_looked_at_each_time() {
        let mut known = KnownCodes::default();
        assert_eq!(identities(11, &[1; 6], &mut known), ["first", "now", "now", "now", "now", "now"]);
        // Another one at the same address: from now on the same bytes prove nothing.
        assert_eq!(identities(11, &[2, 2, 1], &mut known), ["first", "first", "first"]);
    }

    #[test]
    fn nothing_is_looked_at_while_no_code_was_freed() {
        let mut known = KnownCodes::default();
        known.begin(Some(5));
        assert_eq!(identities(12, &[1; 3], &mut known), ["first", "unreplaced", "unreplaced"]);
        known.begin(Some(6));
        assert_eq!(identities(12, &[1; 2], &mut known), ["later", "unreplaced"]);
        known.begin(None);
        assert_eq!(identities(12, &[1; 2], &mut known), ["later", "later"]);
    }
}
