//! Walks over the stored stacks of a small program, against what gdb and framehop find. `data/README.md` says how the stacks
//! were made.
#![allow(clippy::unwrap_used, reason = "a test that panics has said what it has to say")]

use std::ops::Range;

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, Module, Unwinder};
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSymbol, SymbolKind};
use profiler_memory::{ReadMemory, Snapshot};
use profiler_model::RemoteAddr;
use profiler_native::modules::{ElfImage, MemoryRegion, ModuleMap, OpenedFile};
use profiler_native::unwind::{
    NativeFrame, NativeFrameKind, UnwindEnd, UnwindRegisters, UnwindTable, compile, walk,
};

const PROGRAM: &[u8] = include_bytes!("data/program");
const CAPTURES: &str = include_str!("data/captures");

const RBP: usize = 6;
const RSP: usize = 7;

/// The registers and the stack of the program at one instant, and the frames that gdb finds.
struct Stored {
    rip: u64,
    general: [u64; 16],
    memory: Snapshot,
    expected: Vec<u64>,
}

fn stored() -> Vec<Stored> {
    CAPTURES.lines().map(parse).collect()
}

fn parse(line: &str) -> Stored {
    let words = |text: &str| -> Vec<u64> {
        text.split(' ').map(|word| u64::from_str_radix(word, 16).unwrap()).collect()
    };
    let parts: Vec<&str> = line.split('|').collect();
    let registers = words(parts[0]);
    let general: [u64; 16] = registers[1..].try_into().unwrap();
    let bytes: Vec<u8> = (0..parts[1].len() / 2)
        .map(|at| u8::from_str_radix(&parts[1][2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let image = ElfImage::parse(PROGRAM).unwrap();
    let mut memory = Snapshot::new();
    memory.insert(RemoteAddr::new(general[RSP]), &bytes);
    memory.insert(RemoteAddr::new(image.base()), image.bytes_from(image.base()).unwrap());
    Stored { rip: registers[0], general, memory, expected: words(parts[2]) }
}

/// The program as it is mapped: at the addresses that it was linked for.
fn modules() -> ModuleMap {
    let code =
        *ElfImage::parse(PROGRAM).unwrap().segments().iter().find(|segment| segment.executable).unwrap();
    let region = MemoryRegion {
        start: RemoteAddr::new(code.address),
        end: RemoteAddr::new(code.address + code.memory_size),
        file_offset: code.file_offset,
        device: 1,
        inode: 1,
        executable: true,
        path: "/program",
    };
    ModuleMap::new(&[region], |_| OpenedFile::Bytes(PROGRAM))
}

fn walked(stored: &Stored, table: &UnwindTable) -> (Vec<NativeFrame>, UnwindEnd) {
    let mut frames = Vec::new();
    let registers = UnwindRegisters::new(stored.general, stored.rip);
    let end = walk(registers, &stored.memory, &modules(), |_| Some(table), &mut frames);
    (frames, end)
}

fn table() -> UnwindTable {
    compile(&ElfImage::parse(PROGRAM).unwrap(), None, [])
}

#[test]
fn stored_stacks_are_those_that_gdb_finds() {
    let table = table();
    let mut signals = 0;
    for stored in stored() {
        let (frames, end) = walked(&stored, &table);
        let found: Vec<u64> = frames.iter().map(|frame| frame.pc.as_u64()).collect();
        assert_eq!((found, end), (stored.expected, UnwindEnd::Root));
        signals += u32::from(frames.iter().any(|frame| frame.kind == NativeFrameKind::Signal));
    }
    assert!(signals >= 5, "{signals} of the stacks are of signal handlers");
}

#[test]
fn stored_stacks_are_those_that_framehop_finds() {
    let (table, unwinder) = (table(), unwinder());
    let mut cache = CacheX86_64::new();
    for stored in stored() {
        let (frames, _) = walked(&stored, &table);
        // It has no rule for signal frames.
        let is_signal = |frame: &NativeFrame| frame.kind == NativeFrameKind::Signal;
        let count = frames.iter().position(is_signal).unwrap_or(frames.len());
        let registers = UnwindRegsX86_64::new(stored.rip, stored.general[RSP], stored.general[RBP]);
        let mut read = |at| stored.memory.scalar(RemoteAddr::new(at)).map_err(|_| ());
        let mut others = unwinder.iter_frames(stored.rip, registers, &mut cache, &mut read);
        for frame in &frames[..count] {
            let other = others.next().unwrap().unwrap();
            assert_eq!(other.address(), frame.pc.as_u64());
        }
        assert!(count < frames.len() || others.next() == Ok(None));
    }
}

fn unwinder() -> UnwinderX86_64<Vec<u8>> {
    let image = ElfImage::parse(PROGRAM).unwrap();
    let section = |name| {
        let section = image.section(name).unwrap();
        (section.address..section.address + section.data.len() as u64, section.data.into_owned())
    };
    let ((text_at, text), (frames_at, frames)) = (section(".text"), section(".eh_frame"));
    let sections = ExplicitModuleSectionInfo {
        base_svma: image.base(),
        text_svma: Some(text_at.clone()),
        text: Some(text),
        eh_frame_svma: Some(frames_at),
        eh_frame: Some(frames),
        ..ExplicitModuleSectionInfo::default()
    };
    let mut unwinder = UnwinderX86_64::new();
    unwinder.add_module(Module::new("program".to_owned(), text_at, image.base(), sections));
    unwinder
}

#[test]
fn instructions_give_the_rules_that_unwind_information_has() {
    let listed = table();
    let hidden = without_unwind_information();
    let followed = compile(&ElfImage::parse(hidden.as_slice()).unwrap(), None, functions());
    assert_eq!((followed.counts().entries, followed.counts().refused), (0, 0));
    let mut compared = 0;
    for row in listed.rows() {
        let address = listed.base() + u64::from(row.start);
        let Some(listed) = listed.find(address).filter(|rule| !rule.is_outermost()) else { continue };
        let followed = followed.find(address).unwrap();
        // A frame with a frame pointer has two registers to find the CFA by.
        if followed.cfa_register == listed.cfa_register {
            assert_eq!(followed.cfa_offset, listed.cfa_offset, "{address:#x}");
            compared += 1;
        }
    }
    assert!(compared > 25, "{compared} rows were compared");
}

/// The functions of the program by its symbols.
fn functions() -> Vec<Range<u64>> {
    let file = ElfFile64::<LittleEndian>::parse(PROGRAM).unwrap();
    let functions =
        file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition());
    functions.map(|symbol| symbol.address()..symbol.address() + symbol.size()).collect()
}

/// The program with another name of the section that has its unwind information.
fn without_unwind_information() -> Vec<u8> {
    const NAME: &[u8] = b".eh_frame\0";
    let at = PROGRAM.windows(NAME.len()).position(|bytes| bytes == NAME).unwrap();
    let mut program = PROGRAM.to_vec();
    program[at + 1] = b'x';
    program
}
