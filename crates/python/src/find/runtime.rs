//! A CPython that was found: where its parts lie, and whether a thread lives in it.

use profiler_memory::{ReadError, ReadMemory};
use profiler_model::RemoteAddr;

use super::find_error::FindError;
use crate::offsets::{GilOffsets, Offsets};

/// The most interpreters that are tried for a live thread: the first has one in all but odd moments.
const MAX_INTERPRETERS_TRIED: usize = 64;

/// A running CPython, and where to read what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Where its structures keep their fields.
    pub offsets: Offsets,
    /// Address of the pointer to the first interpreter.
    pub interpreters_head: RemoteAddr,
    /// The one GIL (to 3.11). `None` where each interpreter points to its own, and in a stripped 3.6,
    /// where nothing says where it is.
    pub gil: Option<GilAddresses>,
    /// The process-wide flag that the collector runs (3.6 to 3.8); later each interpreter has its own.
    pub gc_collecting: Option<RemoteAddr>,
    /// `_PyRuntime`; 3.6: the same as `interpreters_head`.
    pub main_address: RemoteAddr,
}

impl Runtime {
    /// The runtime at `place`, whose structures have these offsets.
    pub(super) fn at(place: Place, offsets: Offsets) -> Self {
        match place {
            Place::Runtime(at) => {
                let field = |offset: u32| at.offset(u64::from(offset));
                Runtime {
                    interpreters_head: field(offsets.runtime.interpreters_head.offset()),
                    gil: offsets.runtime.gil.map(|base| GilAddresses::at(field(base), &offsets.gil)),
                    gc_collecting: offsets.runtime.gc_collecting.map(|flag| field(flag.offset())),
                    main_address: at,
                    offsets,
                }
            }
            Place::Variables(variables) => Runtime {
                offsets,
                interpreters_head: variables.interpreters_head,
                gil: variables.gil,
                gc_collecting: variables.gc_collecting,
                main_address: variables.interpreters_head,
            },
        }
    }

    /// Whether it still leads to a live thread.
    pub fn is_alive(&self, memory: &impl ReadMemory) -> bool {
        self.has_thread(memory) == Ok(true)
    }

    /// Whether its list of interpreters leads to one with a thread state that points back to it. Lists that change under the
    /// walk may look broken or empty; the caller tries again.
    ///
    /// # Errors
    /// When memory cannot be read, or the list is broken.
    pub(super) fn has_thread(&self, memory: &impl ReadMemory) -> Result<bool, FindError> {
        let (head, offsets) = (self.interpreters_head, &self.offsets);
        let mut interpreter = memory.scalar::<RemoteAddr>(head).map_err(FindError::Unreadable)?;
        let mut known = Vec::new();
        let mut broken = None;
        while !interpreter.is_null() && known.len() < MAX_INTERPRETERS_TRIED {
            let owned = owns_a_thread(memory, interpreter, offsets);
            if owned == Ok(true) {
                return Ok(true);
            }
            broken = broken.or(owned.err());
            known.push(interpreter);
            match memory.field(interpreter, offsets.interpreter.next) {
                Ok(next) if known.contains(&next) => broken = broken.or(Some(ReadError::BrokenList(next))),
                Ok(next) => {
                    interpreter = next;
                    continue;
                }
                Err(error) => broken = broken.or(Some(error)),
            }
            break;
        }
        broken.map_or(Ok(false), |error| Err(FindError::Unreadable(error)))
    }
}

/// Where a GIL is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GilAddresses {
    /// The thread state that holds it or held it last.
    pub last_holder: RemoteAddr,
    /// 1 while it is held, 0 while it is free, -1 before it exists: 3.6 creates it only when a second
    /// thread starts (four bytes).
    pub locked: RemoteAddr,
    /// How often it changed hands.
    pub switch_number: Option<RemoteAddr>,
    /// From here ...
    pub start: RemoteAddr,
    /// ... to before here, a futex that a thread waits on is the GIL's.
    pub end: RemoteAddr,
    /// Where the interpreter that this GIL is a part of has what [`crate::CodeCount`] says.
    pub code_count: Option<CountPlace>,
}

/// Where a number lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CountPlace {
    /// Its address.
    pub at: RemoteAddr,
    /// How many bytes it has: four or eight.
    pub bytes: u32,
}

impl GilAddresses {
    /// The addresses in the GIL structure at `base`.
    pub fn at(base: RemoteAddr, offsets: &GilOffsets) -> Self {
        let at = |offset: u32| base.offset(u64::from(offset));
        GilAddresses {
            last_holder: at(offsets.last_holder.offset()),
            locked: at(offsets.locked.offset()),
            switch_number: Some(at(offsets.switch_number.offset())),
            start: base,
            end: at(offsets.size),
            code_count: offsets
                .code_count
                .map(|count| CountPlace { at: at(count.offset()), bytes: count.size() }),
        }
    }

    /// Whether a futex at `address` is this GIL's.
    pub fn contains(&self, address: RemoteAddr) -> bool {
        (self.start..self.end).contains(&address)
    }
}

/// Where a runtime is, before its version is known.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// `_PyRuntime`.
    Runtime(RemoteAddr),
    /// The separate variables of 3.6.
    Variables(Variables),
}

/// The variables that 3.6 has instead of `_PyRuntime`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variables {
    pub interpreters_head: RemoteAddr,
    pub gil: Option<GilAddresses>,
    pub gc_collecting: Option<RemoteAddr>,
}

/// Whether the interpreter has a thread state that points back to it; an error where it has one that does not.
pub(super) fn owns_a_thread(
    memory: &impl ReadMemory,
    interpreter: RemoteAddr,
    offsets: &Offsets,
) -> Result<bool, ReadError> {
    let thread = memory.field(interpreter, offsets.interpreter.threads_head)?;
    if thread.is_null() {
        return Ok(false);
    }
    match memory.field(thread, offsets.thread.interpreter)? == interpreter {
        true => Ok(true),
        false => Err(ReadError::BrokenList(thread)),
    }
}
