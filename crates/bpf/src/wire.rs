//! The structures that the program and user space exchange: those of `program/records.h` and `program/intervals.h`, field
//! by field. Readers take their offsets from here; a test compares all of them, their sizes and
//! the enumerators with what the compiler wrote into the object (BTF).

/// Declares structures with the same fields as the program's, and lists them for the test that compares both. One that is
/// declared up to a field is the head of the program's.
macro_rules! mirrors {
    ($($(#[$attribute:meta])* $visible:vis struct $name:ident = $theirs:ident $(up to $end:ident)? {
        $($(#[$field_attribute:meta])* $field_visible:vis $field:ident: $kind:ty,)*
    })*) => {
        $(
            $(#[$attribute])*
            #[repr(C)]
            #[allow(dead_code, reason = "of most only the offsets are of use")]
            $visible struct $name { $($(#[$field_attribute])* $field_visible $field: $kind,)* }
        )*

        #[cfg(test)]
        pub(crate) fn declared() -> Vec<$crate::wire::Mirror> {
            vec![$($crate::wire::Mirror {
                theirs: stringify!($theirs),
                end: stringify!($($end)?),
                bytes: size_of::<$name>(),
                fields: vec![$((
                    stringify!($field), std::mem::offset_of!($name, $field), size_of::<$kind>(),
                )),*],
            }),*]
        }
    };
}
pub(crate) use mirrors;

/// A structure of ours, to be compared.
#[cfg(test)]
pub(crate) struct Mirror {
    pub(crate) theirs: &'static str,
    /// The field behind it; empty if it is whole.
    pub(crate) end: &'static str,
    pub(crate) bytes: usize,
    /// Name, offset and size of each field.
    pub(crate) fields: Vec<(&'static str, usize, usize)>,
}

/// The most bytes of a thread state that are copied (`THREAD_BYTES`).
pub(crate) const THREAD_BYTES: usize = 384;
/// Room for the copies of names.
pub(crate) const OBJECT_BYTES: usize = 192;
pub(crate) const NAME_BYTES: usize = 256;
pub(crate) const FILE_BYTES: usize = 384;

mirrors! {
    /// A stack, without its frames.
    pub(crate) struct StackHead = stack_record up to frames {
        pub(crate) kind: u32,
        pub(crate) outcome: u32,
        pub(crate) time: u64,
        pub(crate) weight: u64,
        pub(crate) process: u32,
        pub(crate) thread: u32,
        pub(crate) thread_state: u64,
        pub(crate) took: u32,
        pub(crate) frame_count: u32,
        pub(crate) holds_gil: u16,
        pub(crate) kernel_frame_count: i16,
        pub(crate) rested: u32,
        pub(crate) end: u64,
        pub(crate) ran: u64,
        pub(crate) missed: u32,
        pub(crate) behind: u32,
        pub(crate) proof: u64,
        pub(crate) period: u32,
        pub(crate) runtime: u32,
        pub(crate) thread_copy: [u8; THREAD_BYTES],
    }

    /// What the ring had no room for of a thread.
    #[derive(Clone, Copy, Debug, Default)]
    pub(crate) struct ThreadLoss = thread_loss {
        pub(crate) count: u64,
        pub(crate) weight: u64,
    }

    /// A frame of it.
    pub(crate) struct FrameCopy = frame_copy {
        pub(crate) address: u64,
        pub(crate) code: u64,
        pub(crate) head_hash: u64,
        pub(crate) instruction: u64,
        pub(crate) bytecode_copy: u32,
        pub(crate) owner: u8,
        pub(crate) is_entry: u8,
        pub(crate) padding: u16,
    }

    /// The names of a code object, without its line table.
    pub(crate) struct NamesHead = names_record up to line_table_copy {
        pub(crate) kind: u32,
        pub(crate) process: u32,
        pub(crate) code: u64,
        pub(crate) head_hash: u64,
        pub(crate) name: u64,
        pub(crate) qualname: u64,
        pub(crate) filename: u64,
        pub(crate) line_table: u64,
        pub(crate) object_copied: u32,
        pub(crate) name_copied: u32,
        pub(crate) qualname_copied: u32,
        pub(crate) filename_copied: u32,
        pub(crate) line_table_copied: u32,
        pub(crate) runtime: u32,
        pub(crate) object_copy: [u8; OBJECT_BYTES],
        pub(crate) name_copy: [u8; NAME_BYTES],
        pub(crate) qualname_copy: [u8; NAME_BYTES],
        pub(crate) filename_copy: [u8; FILE_BYTES],
    }

    /// What a descriptor was open on at the moment at which its thread left the CPU to wait for it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct OpenFile = open_file {
        /// The first bytes of its name, as the kernel calls it, where it has no other place; zeros otherwise.
        pub name: [u8; 8],
        /// The magic number of the file system that it lies on.
        pub file_system: u32,
        /// What kind of file it is, and its permissions (`st_mode`).
        pub mode: u32,
    }

    /// A thread off the CPU, without its stack.
    pub(crate) struct OffCpuHead = interval up to stack {
        pub(crate) kind: u32,
        pub(crate) process: u32,
        pub(crate) thread: u32,
        pub(crate) flags: u32,
        pub(crate) left: u64,
        pub(crate) woken: u64,
        pub(crate) back: u64,
        pub(crate) call: i64,
        pub(crate) arguments: [u64; 3],
        pub(crate) arrivals: u64,
        pub(crate) ran: u64,
        pub(crate) executed: u64,
        pub(crate) state: u32,
        pub(crate) stack_bytes: u32,
        pub(crate) file: OpenFile,
        pub(crate) unsent: u64,
    }

    /// A thread whose thread state is not registered.
    pub(crate) struct UnregisteredRecord = unregistered {
        pub(crate) kind: u32,
        pub(crate) process: u32,
        pub(crate) thread: u32,
        pub(crate) padding: u32,
    }
}

impl OpenFile {
    /// `None` where the program could not see what it was.
    pub(crate) fn known(self) -> Option<Self> {
        (self.mode != 0).then_some(self)
    }
}

/// Declares the numbers of an enumeration of the program, and lists them for the test.
macro_rules! enumerators {
    ($($(#[$attribute:meta])* $module:ident = $theirs:ident { $($name:ident = $value:literal $full:ident,)* })*) => {
        $(
            $(#[$attribute])*
            pub(crate) mod $module {
                $(#[allow(dead_code, reason = "the program's list is whole here")] pub(crate) const $name: u32 = $value;)*
            }
        )*

        #[cfg(test)]
        fn enumerations() -> Vec<(&'static str, Vec<(&'static str, u32)>)> {
            vec![$((stringify!($theirs), vec![$((stringify!($full), $module::$name)),*])),*]
        }
    };
}

enumerators! {
    /// What a record is.
    kind = record_kind {
        STACK = 1 RECORD_STACK,
        NAMES = 2 RECORD_NAMES,
    }

    /// The same of those that the scheduler's programs send.
    off_cpu_kind = off_cpu_kind {
        INTERVAL = 3 RECORD_INTERVAL,
        DEEP_STACK = 4 RECORD_DEEP_STACK,
        UNREGISTERED = 5 RECORD_UNREGISTERED,
    }

    /// How a walk ended.
    outcome = outcome {
        WHOLE = 0 OUTCOME_WHOLE,
        TRUNCATED = 1 OUTCOME_TRUNCATED,
        UNKNOWN_THREAD = 2 OUTCOME_UNKNOWN_THREAD,
        CHANGED_THREAD = 3 OUTCOME_CHANGED_THREAD,
        UNREADABLE = 4 OUTCOME_UNREADABLE,
        NO_PYTHON = 5 OUTCOME_NO_PYTHON,
    }

    /// What is said of an off-CPU interval, a bit each.
    interval = interval_flags {
        RUNNABLE = 1 INTERVAL_RUNNABLE,
        DEEP = 2 INTERVAL_DEEP,
        FROM_START = 4 INTERVAL_FROM_START,
        END = 8 INTERVAL_END,
        SEVERAL = 16 INTERVAL_SEVERAL,
        STACK_LOST = 32 INTERVAL_STACK_LOST,
    }

    /// The counts of the program.
    counter = counter {
        RING_FULL = 0 COUNTER_RING_FULL,
        NAMES_LOST = 1 COUNTER_NAMES_LOST,
        NATIVE_TICKS = 2 COUNTER_NATIVE_TICKS,
        NATIVE_WEIGHT = 3 COUNTER_NATIVE_WEIGHT,
        COUNT = 4 COUNTERS,
    }

    /// By what ids are found.
    id_source = id_source {
        OF_KERNEL = 0 IDS_OF_KERNEL,
        BY_HELPER = 1 IDS_BY_HELPER,
        BY_TYPES = 2 IDS_BY_TYPES,
    }
}

#[cfg(test)]
mod tests {
    use object::{Object, ObjectSection};

    use super::*;
    use crate::btf::Types;
    use crate::{layout, native, off_cpu};

    /// The type information of the object.
    fn described() -> Vec<u8> {
        let object = object::File::parse(crate::loader::OBJECT).unwrap();
        object.section_by_name(".BTF").unwrap().data().unwrap().to_vec()
    }

    #[test]
    fn structures_are_those_of_the_object() {
        let bytes = described();
        let types = Types::parse(&bytes).unwrap();
        for mirror in declared()
            .into_iter()
            .chain(layout::declared())
            .chain(native::declared())
            .chain(off_cpu::declared())
        {
            let theirs = types.structures(mirror.theirs).next();
            let theirs = theirs.unwrap_or_else(|| panic!("the object does not describe {}", mirror.theirs));
            let members = types.members(theirs).unwrap();
            let ends = members.iter().position(|member| member.name == mirror.end.as_bytes());
            let own = &members[..ends.unwrap_or(members.len())];
            let found: Vec<_> = own
                .iter()
                .map(|member| {
                    (String::from_utf8_lossy(member.name).into_owned(), member.offset, member.bytes)
                })
                .collect();
            let ours =
                mirror.fields.iter().map(|(name, offset, bytes)| ((*name).to_owned(), *offset, *bytes));
            assert_eq!(ours.collect::<Vec<_>>(), found, "{}", mirror.theirs);
            let bytes = ends.map_or_else(|| types.bytes_of(theirs).unwrap(), |end| members[end].offset);
            assert_eq!(mirror.bytes, bytes, "{}", mirror.theirs);
        }
    }

    #[test]
    fn enumerators_are_those_of_the_object() {
        let bytes = described();
        let types = Types::parse(&bytes).unwrap();
        for (name, ours) in enumerations() {
            let theirs = types.enumerators(name);
            let theirs = theirs.unwrap_or_else(|| panic!("the object does not describe {name}"));
            let ours: Vec<_> = ours.into_iter().map(|(name, value)| (name.as_bytes(), value)).collect();
            assert_eq!(ours, theirs, "{name}");
        }
    }
}
