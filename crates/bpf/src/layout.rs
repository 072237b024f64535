//! What user space registers with the program: the layouts of the runtimes of a process, and the thread states of a
//! thread. The same structures as in `program/records.h`.

use aya::Pod;

use crate::wire::mirrors;

/// Stands for a field that does not exist in a version.
pub const NO_OFFSET: u32 = u32::MAX;

/// The most bytes of a code object's head that are hashed (`HEAD_BYTES`).
const HEAD_BYTES: usize = 128;

/// The most runtimes of a process (`MAX_RUNTIMES`): it has more than one if several copies of CPython are loaded into it.
pub const MAX_RUNTIMES: usize = 2;

/// The most thread states of a thread (`MAX_STATES`): it has more than one if it runs in several interpreters or runtimes.
pub const MAX_STATES: usize = 4;

mirrors! {
    /// Everything that the walk along the frames of a runtime needs. Offsets that do not exist are [`NO_OFFSET`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Layout = layout {
        /// Bytes of a thread state that are copied.
        pub thread_size: u32,
        /// Where a thread state names its interpreter.
        pub thread_interpreter: u32,
        /// Where it names its thread (`pthread_self()`).
        pub thread_id: u32,
        /// Where it points to its frame, or to what points to it.
        pub thread_frame: u32,
        /// Where that points to the frame, in the versions that have it.
        pub cframe_current_frame: u32,
        /// Where a thread state points to the sentinel at the root of its stack.
        pub thread_base_frame: u32,
        /// Bytes of a frame that are looked at.
        pub frame_size: u32,
        /// A frame's caller.
        pub frame_previous: u32,
        /// A frame's code object.
        pub frame_code: u32,
        /// A frame's instruction.
        pub frame_instruction: u32,
        /// A frame's owner.
        pub frame_owner: u32,
        /// A frame's mark that C called it.
        pub frame_is_entry: u32,
        /// Which copy of its bytecode a frame runs.
        pub frame_bytecode_copy: u32,
        /// Bit N: an owner of N has no code object.
        pub shim_owners: u32,
        /// Where the bytes start that identify a code object.
        pub head_start: u32,
        /// How many they are.
        pub head_length: u32,
        /// A code object's name, ...
        pub code_name: u32,
        /// ... the qualified name, ...
        pub code_qualname: u32,
        /// ... the file ...
        pub code_filename: u32,
        /// ... and the line table.
        pub code_line_table: u32,
        /// Where a bytes object has its length.
        pub bytes_length: u32,
        /// 1 to have names sent with every sample.
        pub always_send_names: u32,
        /// Which bits of a frame's code object are its address.
        pub code_mask: u64,
        /// How many bytes before a frame are worth copying with it, as its callers may lie there.
        pub frames_before: u32,
        /// How many bytes a count of code objects has ([`StateEntry::code_count`]).
        pub code_count_size: u32,
        /// The index of its entry in `code_epochs`; [`crate::KernelSampler::set_layout`] sets it.
        pub epoch_index: u32,
        /// Where a thread state points to the next one of its interpreter.
        pub thread_next: u32,
    }

    /// What user space sets for all programs: how often registrations have been changed; and the instant after which ticks of
    /// threads without Python do not count, 0 for none.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Settings = settings {
        pub(crate) generation: u64,
        pub(crate) end: u64,
    }

    /// A registered process.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct ProcessEntry = process {
        runtimes: u32,
        padding: u32,
        layouts: [Layout; MAX_RUNTIMES],
    }

    /// A thread state, and what must stand in it.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct StateEntry = thread_state {
        /// Its address.
        pub state: u64,
        /// Its interpreter.
        pub interpreter: u64,
        /// Its `pthread_self()`.
        pub thread_id: u64,
        /// Address of the last holder of its GIL, or 0.
        pub gil_last_holder: u64,
        /// Address of its GIL's lock, or 0.
        pub gil_locked: u64,
        /// Address of its interpreter's count of code objects freed or made, or 0.
        pub code_count: u64,
        /// Address of its interpreter's pointer to the first of its thread states, or 0.
        pub first_state: u64,
        /// The runtime that it is of: the number under which [`crate::KernelSampler::set_layout`] got its layout.
        pub runtime: u64,
    }

    /// The thread states of a thread, the youngest first; none of a thread without Python, which is the default.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ThreadEntry = thread {
        count: u32,
        padding: u32,
        states: [StateEntry; MAX_STATES],
    }
}

/// What the program keeps of an interpreter's code objects (`code_epoch`); zeros before its first sample.
pub(crate) type CodeEpoch = [u64; 8];

impl ProcessEntry {
    /// Sets the layout of a runtime; one beyond [`MAX_RUNTIMES`] is left out.
    pub(crate) fn set(&mut self, runtime: u8, layout: Layout) {
        if let Some(place) = self.layouts.get_mut(usize::from(runtime)) {
            *place = layout;
            self.runtimes |= 1 << runtime;
        }
    }
}

impl ThreadEntry {
    /// The entry of a thread with these states; those beyond [`MAX_STATES`] are left out.
    pub fn new(states: impl IntoIterator<Item = StateEntry>) -> Self {
        let mut entry = ThreadEntry::default();
        for (place, state) in entry.states.iter_mut().zip(states) {
            *place = state;
            entry.count += 1;
        }
        entry
    }
}

// SAFETY: plain numbers without gaps (the padding is a field), for which every bit pattern is a value.
unsafe impl Pod for ProcessEntry {}

// SAFETY: numbers without gaps, for which every bit pattern is a value.
unsafe impl Pod for Settings {}

// SAFETY: plain numbers without gaps (the padding is a field), for which every bit pattern is a value.
unsafe impl Pod for ThreadEntry {}

/// The hash by which the program identifies a code object with these bytes.
pub fn head_hash(head: &[u8]) -> u64 {
    let mut padded = [0u8; HEAD_BYTES];
    let length = head.len().min(HEAD_BYTES);
    padded[..length].copy_from_slice(&head[..length]);
    let words = padded.as_chunks::<8>().0.as_chunks::<2>().0.iter().take(length.div_ceil(16));
    let (even, odd) = words.fold((0, 0), |(even, odd), [one, other]| (mixed(even, *one), mixed(odd, *other)));
    mixed(even, odd.to_le_bytes())
}

fn mixed(state: u64, word: [u8; 8]) -> u64 {
    let state = (state ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state ^ (state >> 29)
}

/// By what the program finds a code object that it has met (`code_key`).
pub(crate) fn code_key(process: u32, code: u64) -> u64 {
    mixed(mixed(0, code.to_le_bytes()), u64::from(process).to_le_bytes()) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_runtime_keeps_its_own_layout() {
        let of_size = |thread_size| Layout { thread_size, ..Layout::default() };
        let mut entry = ProcessEntry::default();
        entry.set(1, of_size(200));
        assert_eq!((entry.runtimes, entry.layouts[1].thread_size), (0b10, 200));
        entry.set(0, of_size(100));
        entry.set(1, of_size(201));
        assert_eq!((entry.runtimes, entry.layouts), (0b11, [of_size(100), of_size(201)]));
        let before = entry;
        entry.set(2, of_size(300));
        assert_eq!(entry, before, "there is no place for a third one");
    }
}
