//! The notes of a core file: the process, its threads with what their registers tell, its mapped files. The
//! layouts are the kernel's `elf_prpsinfo`, `elf_prstatus` and `NT_FILE` for 64-bit processes.

use object::elf;
use profiler_model::{NsTid, RemoteAddr};

use crate::{Field, Scalar};

/// The most threads that are taken: as many as Linux can number. More would be a file that lies.
const MAX_CORE_THREADS: usize = 1 << 22;

/// The most mapped files. The kernel writes at most 4 MiB of them, at 24 bytes each and a path.
const MAX_CORE_FILES: usize = 1 << 18;

/// The longest path of a mapped file: the kernel's `PATH_MAX`.
const MAX_PATH_BYTES: usize = 4096;

/// What the process was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoreProcess {
    /// Its id, as it knew it itself (a core by the kernel) or as the debugger knew it.
    pub pid: u32,
    /// Its command line; the kernel keeps the first 80 bytes.
    pub command_line: String,
}

/// A kernel thread and what its registers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreThread {
    /// Its id.
    pub tid: NsTid,
    /// `pthread_self()`, where the registers tell it: what CPython knows of the thread.
    pub pthread_id: Option<u64>,
    /// What it was doing.
    pub activity: CoreActivity,
}

/// What a thread was doing when the core was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreActivity {
    /// Nothing tells.
    Unknown,
    /// It ran.
    Running,
    /// It slept in the system call of this number with this first argument.
    Blocked {
        /// The system call.
        call: u64,
        /// Its first argument.
        argument: u64,
    },
}

/// A piece of a file that was mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreMapping {
    /// Its first byte.
    pub start: RemoteAddr,
    /// The first byte after it.
    pub end: RemoteAddr,
    /// Where in the file it starts.
    pub file_offset: u64,
    /// The file's path, as whoever wrote the core saw it.
    pub path: String,
}

/// What the notes of one segment say.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) process: Option<CoreProcess>,
    pub(super) threads: Vec<CoreThread>,
    pub(super) files: Vec<CoreMapping>,
    pub(super) entry: Option<RemoteAddr>,
}

impl Notes {
    /// Reads the notes up to the end or to the first that is cut short.
    pub(super) fn new(data: &[u8], machine: elf::Machine) -> Self {
        let mut notes = Notes::default();
        let mut rest = data;
        while let Some((note, behind)) = Note::first(rest) {
            if note.name == b"CORE" {
                notes.add(&note, machine);
            }
            rest = behind;
        }
        notes
    }

    fn add(&mut self, note: &Note<'_>, machine: elf::Machine) {
        match elf::NoteType(note.kind) {
            elf::NT_PRSTATUS if self.threads.len() < MAX_CORE_THREADS => {
                self.threads.extend(thread(note.content, machine));
            }
            elf::NT_PRPSINFO => self.process = self.process.take().or_else(|| process(note.content)),
            elf::NT_AUXV => self.entry = self.entry.or_else(|| entry(note.content)),
            elf::NT_FILE => self.files.extend(mapped_files(note.content).unwrap_or_default()),
            _ => {}
        }
    }
}

/// A note: who defines it, which it is, what it says.
pub(super) struct Note<'a> {
    pub(super) name: &'a [u8],
    pub(super) kind: u32,
    pub(super) content: &'a [u8],
}

impl<'a> Note<'a> {
    /// The first note of `data` and what is behind it. Names and contents fill up four bytes.
    pub(super) fn first(data: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let [name_length, content_length] = [value::<u32>(data, 0)?, value::<u32>(data, 4)?];
        let (name, behind) = padded(data.get(12..)?, name_length)?;
        let (content, behind) = padded(behind, content_length)?;
        let name = name.strip_suffix(b"\0").unwrap_or(name);
        Some((Note { name, kind: value(data, 8)?, content }, behind))
    }
}

fn padded(data: &[u8], length: u32) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(length).ok()?;
    let (bytes, behind) = data.split_at_checked(length)?;
    let padding = (length.next_multiple_of(4) - length).min(behind.len());
    Some((bytes, &behind[padding..]))
}

fn value<T: Scalar>(data: &[u8], offset: usize) -> Option<T> {
    Field::<T>::at(u32::try_from(offset).ok()?).get(data)
}

/// `elf_prpsinfo`: the process id stands at 24, 80 bytes of the command line at 56.
fn process(info: &[u8]) -> Option<CoreProcess> {
    let arguments = info.get(56..)?;
    let arguments = &arguments[..arguments.len().min(80)];
    let text = arguments.split(|byte| *byte == 0).next().unwrap_or_default();
    let command_line = String::from_utf8_lossy(text).trim_end().to_owned();
    Some(CoreProcess { pid: value(info, 24)?, command_line })
}

/// `elf_prstatus`: the thread id stands at 32, the registers from 112 on.
fn thread(status: &[u8], machine: elf::Machine) -> Option<CoreThread> {
    let tid = NsTid::new(value(status, 32)?);
    let (pthread_id, activity) = match machine {
        elf::EM_X86_64 => (x86_64::pthread_id(status), x86_64::activity(status)),
        _ => (None, CoreActivity::Unknown),
    };
    Some(CoreThread { tid, pthread_id, activity })
}

/// What the registers of x86-64 tell (`user_regs_struct`).
mod x86_64 {
    use super::{CoreActivity, value};

    const REGISTERS: usize = 112;
    const RAX: usize = REGISTERS + 10 * 8;
    const RDI: usize = REGISTERS + 14 * 8;
    const ORIG_RAX: usize = REGISTERS + 15 * 8;
    const FS_BASE: usize = REGISTERS + 21 * 8;

    /// What a system call returns that was woken up before it was done: `EINTR`, and `ERESTARTSYS`,
    /// `ERESTARTNOINTR`, `ERESTARTNOHAND`, `ERESTART_RESTARTBLOCK`, which never leave the kernel.
    const INTERRUPTED: [i64; 5] = [-4, -512, -513, -514, -516];

    /// The thread pointer is the address of the thread's descriptor, in glibc as in musl.
    pub(super) fn pthread_id(status: &[u8]) -> Option<u64> {
        value(status, FS_BASE).filter(|base| *base != 0)
    }

    /// A thread that slept in a system call was woken up for the core. One that ran is in none, or in one
    /// that is done.
    pub(super) fn activity(status: &[u8]) -> CoreActivity {
        let values = || Some((value::<i64>(status, ORIG_RAX)?, value(status, RAX)?, value(status, RDI)?));
        match values() {
            None => CoreActivity::Unknown,
            Some((call, result, argument)) => match u64::try_from(call) {
                Ok(call) if INTERRUPTED.contains(&result) => CoreActivity::Blocked { call, argument },
                _ => CoreActivity::Running,
            },
        }
    }
}

/// The auxiliary vector: pairs of a kind and a value.
fn entry(vector: &[u8]) -> Option<RemoteAddr> {
    const AT_ENTRY: u64 = 9;
    let entry = vector.chunks_exact(16).find(|pair| value::<u64>(pair, 0) == Some(AT_ENTRY))?;
    value(entry, 8)
}

/// `NT_FILE`: how many, the unit of the offsets, for each start, end and offset, then the paths.
fn mapped_files(note: &[u8]) -> Option<Vec<CoreMapping>> {
    let (count, unit) = (value::<u64>(note, 0)?, value::<u64>(note, 8)?);
    let count = usize::try_from(count).ok()?.min(MAX_CORE_FILES);
    let (places, paths) = note.get(16..)?.split_at_checked(count.checked_mul(24)?)?;
    let mappings = places.chunks_exact(24).zip(paths.split(|byte| *byte == 0)).filter_map(|(place, path)| {
        let path = path.get(..path.len().min(MAX_PATH_BYTES))?;
        Some(CoreMapping {
            start: value(place, 0)?,
            end: value(place, 8)?,
            file_offset: value::<u64>(place, 16)?.checked_mul(unit)?,
            path: String::from_utf8_lossy(path).into_owned(),
        })
    });
    Some(mappings.filter(|mapping| mapping.start < mapping.end).collect())
}
