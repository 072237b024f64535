//! What the program sends, as it lies in the ring.

use std::mem::offset_of;

use profiler_model::{Pid, RemoteAddr, Tid};

use crate::off_cpu_record::OffCpuRecord;
use crate::stack_record::{StackRecord, number};
use crate::wire::{
    FILE_BYTES, NAME_BYTES, NamesHead, OBJECT_BYTES, StackHead, UnregisteredRecord, kind, off_cpu_kind,
};

/// The bytes of names before the line table.
const NAMES_BYTES: usize = size_of::<NamesHead>();

/// One record of the ring.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// The stack of the thread that ran.
    Stack(StackRecord<'a>),
    /// The names of a code object that was met for the first time.
    Names(NamesRecord<'a>),
    /// A thread was off the CPU.
    OffCpu(OffCpuRecord<'a>),
    /// The stack of an off-CPU interval that is still to come: it is too deep to be kept until then.
    DeepStack(StackRecord<'a>),
    /// A thread left the CPU that is not registered, though its process is.
    Unregistered(Pid, Tid),
}

impl<'a> Record<'a> {
    /// The record in these bytes; `None` where they are none.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        match number(bytes, offset_of!(StackHead, kind))? as u32 {
            kind::STACK => StackRecord::parse(bytes).map(Record::Stack),
            off_cpu_kind::INTERVAL => OffCpuRecord::parse(bytes).map(Record::OffCpu),
            off_cpu_kind::DEEP_STACK => StackRecord::parse(bytes).map(Record::DeepStack),
            off_cpu_kind::UNREGISTERED => {
                let field = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
                let process = Pid::new(field(offset_of!(UnregisteredRecord, process))?);
                Some(Record::Unregistered(process, Tid::new(field(offset_of!(UnregisteredRecord, thread))?)))
            }
            kind::NAMES if bytes.len() >= NAMES_BYTES => Some(Record::Names(NamesRecord(bytes))),
            _ => None,
        }
    }
}

/// What the names of a code object are made of.
#[derive(Clone, Copy, Debug)]
pub struct NamesRecord<'a>(&'a [u8]);

impl<'a> NamesRecord<'a> {
    fn wide(&self, at: usize) -> u64 {
        number(self.0, at).unwrap_or(0)
    }

    /// The process.
    pub fn process(&self) -> Pid {
        Pid::new(self.wide(offset_of!(NamesHead, process)) as u32)
    }

    /// The runtime that the code object is of, by its number in the process.
    pub fn runtime(&self) -> u8 {
        self.wide(offset_of!(NamesHead, runtime)) as u8
    }

    /// The code object.
    pub fn code(&self) -> RemoteAddr {
        RemoteAddr::new(self.wide(offset_of!(NamesHead, code)))
    }

    /// [`crate::head_hash`] of the code object.
    pub fn head_hash(&self) -> u64 {
        self.wide(offset_of!(NamesHead, head_hash))
    }

    /// Pieces of memory: the code object, its name, qualified name, file and line table.
    pub fn pieces(&self) -> impl Iterator<Item = (RemoteAddr, &'a [u8])> + use<'a> {
        let bytes = self.0;
        let line_table = bytes.len() - NAMES_BYTES;
        // Where each one's address and copied length stand, its copy, and the room for that.
        let places = [
            (
                offset_of!(NamesHead, code),
                offset_of!(NamesHead, object_copied),
                offset_of!(NamesHead, object_copy),
                OBJECT_BYTES,
            ),
            (
                offset_of!(NamesHead, name),
                offset_of!(NamesHead, name_copied),
                offset_of!(NamesHead, name_copy),
                NAME_BYTES,
            ),
            (
                offset_of!(NamesHead, qualname),
                offset_of!(NamesHead, qualname_copied),
                offset_of!(NamesHead, qualname_copy),
                NAME_BYTES,
            ),
            (
                offset_of!(NamesHead, filename),
                offset_of!(NamesHead, filename_copied),
                offset_of!(NamesHead, filename_copy),
                FILE_BYTES,
            ),
            (
                offset_of!(NamesHead, line_table),
                offset_of!(NamesHead, line_table_copied),
                NAMES_BYTES,
                line_table,
            ),
        ];
        let pieces = places.map(|(address, length, start, room)| {
            let copied = (number(bytes, length).unwrap_or(0) as u32 as usize).min(room);
            (RemoteAddr::new(number(bytes, address).unwrap_or(0)), &bytes[start..start + copied])
        });
        pieces.into_iter().filter(|(_, piece)| !piece.is_empty())
    }
}
