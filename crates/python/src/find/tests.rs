//! Finding on small made-up processes: an ELF file written here, and memory as it would be when loaded.

use profiler_memory::{ReadError, ReadMemory, Snapshot};
use profiler_model::RemoteAddr;

use super::*;

/// Where the first page of the made-up file is loaded.
const BIAS: u64 = 0x7f00_0000_0000;
/// Addresses in the file: constants start at 0, data here.
const DATA: u64 = 0x3000;
const DATA_IN_FILE: u64 = 0x2000;
const DATA_BYTES: usize = 0x1000;
const BSS_BYTES: u64 = 0x1000;
/// Allocated objects.
const INTERPRETER: u64 = 0x5555_0000_0000;
const THREAD: u64 = 0x5555_0001_0000;

const DEBUG_OFFSETS: &[u8] = include_bytes!("../../tests/data/debug-offsets/3.14.10.bin");

/// What goes into the made-up file.
#[derive(Default)]
struct File<'a> {
    /// Text among the constants.
    constants: &'a [u8],
    /// Initialised data, from `DATA` on.
    data: &'a [u8],
    /// An exported variable and its address.
    symbol: Option<(&'a str, u64)>,
}

impl File<'_> {
    /// An ELF file of two segments: constants with the headers, and data with as much `.bss` behind it.
    fn bytes(&self) -> Vec<u8> {
        let mut file = vec![0; DATA_IN_FILE as usize + DATA_BYTES];
        let name = self.symbol.map_or("", |(name, _)| name);
        let strings = [b"\0.dynsym\0.dynstr\0".as_slice(), name.as_bytes(), b"\0"].concat();
        let mut symbols = vec![0; 24];
        if let Some((_, address)) = self.symbol {
            symbols.extend(words([u64::from(17u32) | 0x11 << 32 | 1 << 48, address, 8]));
        }
        let header = [
            words([0x0001_0102_464C_457F, 0]),
            words([0x0000_0001_003E_0003, 0, 64, 0x800, 0x0038_0040_0000_0000, 0x0002_0003_0040_0002]),
        ];
        put(&mut file, 0, &header.concat());
        let data_size = DATA_BYTES as u64;
        put(&mut file, 64, &words([0x4_0000_0001, 0, 0, 0, DATA_IN_FILE, DATA_IN_FILE, 0x1000]));
        put(
            &mut file,
            120,
            &words([0x6_0000_0001, DATA_IN_FILE, DATA, DATA, data_size, data_size + BSS_BYTES, 0x1000]),
        );
        put(&mut file, 0x200, &symbols);
        put(&mut file, 0x400, &strings);
        // Sections: none, `.dynsym` (11), `.dynstr` (3).
        let sections = [
            words([0; 8]),
            words([0x0000_000B_0000_0001, 2, 0x200, 0x200, symbols.len() as u64, 0x1_0000_0002, 8, 24]),
            words([0x0000_0003_0000_0009, 2, 0x400, 0x400, strings.len() as u64, 0, 1, 0]),
        ];
        put(&mut file, 0x800, &sections.concat());
        put(&mut file, 0x1001, self.constants);
        put(&mut file, DATA_IN_FILE as usize, self.data);
        file
    }
}

fn words<const N: usize>(words: [u64; N]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn mappings(bias: u64) -> [ModuleMapping; 2] {
    let mapping = |start: u64, end: u64, file_offset, writable| ModuleMapping {
        start: RemoteAddr::new(bias + start),
        end: RemoteAddr::new(bias + end),
        file_offset,
        readable: true,
        writable,
        executable: false,
    };
    [mapping(0, 0x2000, 0, false), mapping(DATA, DATA + 0x2000, DATA_IN_FILE, true)]
}

/// Memory in which the file is loaded, with `data` in place of what the file has there.
fn load(memory: &mut Snapshot, bias: u64, data: &[u8]) {
    let mut segment = vec![0; DATA_BYTES + BSS_BYTES as usize];
    put(&mut segment, 0, data);
    memory.insert(RemoteAddr::new(bias + DATA), &segment);
}

/// An interpreter with one thread state that points back to `owner`.
fn run_thread(memory: &mut Snapshot, offsets: &Offsets, owner: u64) {
    let mut interpreter = vec![0; 0x4000];
    put(&mut interpreter, offsets.interpreter.threads_head.offset() as usize, &words([THREAD]));
    memory.insert(RemoteAddr::new(INTERPRETER), &interpreter);
    let mut thread = vec![0; 0x400];
    put(&mut thread, offsets.thread.interpreter.offset() as usize, &words([owner]));
    memory.insert(RemoteAddr::new(THREAD), &thread);
}

/// The data of 3.14 with the list of interpreters starting at `head`.
fn data_of_3_14(head: u64) -> Vec<u8> {
    let mut data = DEBUG_OFFSETS.to_vec();
    put(&mut data, 808, &words([head]));
    data
}

fn find_in(path: &str, file: &[u8], memory: &Snapshot) -> Result<Runtime, FindError> {
    find(&[Module { path, file, mappings: &mappings(BIAS) }], memory)
}

#[test]
fn a_symbol_leads_to_the_runtime_whatever_the_module_is_called() {
    let offsets = parse(DEBUG_OFFSETS).unwrap();
    let file = File { data: &data_of_3_14(0), symbol: Some(("_PyRuntime", DATA)), ..File::default() }.bytes();
    let mut memory = Snapshot::new();
    load(&mut memory, BIAS, &data_of_3_14(INTERPRETER));
    run_thread(&mut memory, &offsets, INTERPRETER);
    let runtime = find_in("/opt/app", &file, &memory).unwrap();
    assert_eq!(runtime.main_address, RemoteAddr::new(BIAS + DATA));
    assert_eq!(runtime.interpreters_head, RemoteAddr::new(BIAS + DATA + 808));
    assert_eq!((runtime.gil, runtime.gc_collecting), (None, None));
    assert_eq!(runtime.offsets, offsets);
}

#[test]
fn the_cookie_does_as_well_with_and_without_the_file() {
    let file = File { data: &data_of_3_14(0), ..File::default() }.bytes();
    let mut memory = Snapshot::new();
    load(&mut memory, BIAS, &data_of_3_14(INTERPRETER));
    run_thread(&mut memory, &parse(DEBUG_OFFSETS).unwrap(), INTERPRETER);
    for file in [file.as_slice(), b""] {
        let runtime = find_in("/usr/bin/python3.14", file, &memory).unwrap();
        assert_eq!(runtime.main_address, RemoteAddr::new(BIAS + DATA));
    }
}

#[test]
fn a_runtime_without_a_live_thread_is_not_up_yet() {
    let file = File { data: &data_of_3_14(0), symbol: Some(("_PyRuntime", DATA)), ..File::default() }.bytes();
    let mut memory = Snapshot::new();
    load(&mut memory, BIAS, &data_of_3_14(0));
    assert_eq!(find_in("python3", &file, &memory), Err(FindError::NotInitialised));
    let mut memory = Snapshot::new();
    load(&mut memory, BIAS, &data_of_3_14(INTERPRETER));
    memory.insert(RemoteAddr::new(INTERPRETER), &[0; 0x4000]);
    assert_eq!(find_in("python3", &file, &memory), Err(FindError::NotInitialised));
}

#[test]
fn lists_that_lead_nowhere_or_back_are_unreadable() {
    let offsets = parse(DEBUG_OFFSETS).unwrap();
    let file = File { data: &data_of_3_14(0), symbol: Some(("_PyRuntime", DATA)), ..File::default() }.bytes();
    let found = |memory: &Snapshot| find_in("python3", &file, memory);
    let unreadable = |error| Err(FindError::Unreadable(error));
    let broken = |at| unreadable(ReadError::BrokenList(RemoteAddr::new(at)));
    let mut memory = Snapshot::new();
    load(&mut memory, BIAS, &data_of_3_14(INTERPRETER));
    let head = RemoteAddr::new(INTERPRETER).offset(u64::from(offsets.interpreter.threads_head.offset()));
    assert_eq!(found(&memory), unreadable(ReadError::Unmapped(head)), "no interpreter there");
    run_thread(&mut memory, &offsets, INTERPRETER + 8);
    assert_eq!(found(&memory), broken(THREAD), "a thread of another interpreter");
    let mut memory = Snapshot::new();
    load(&mut memory, BIAS, &data_of_3_14(INTERPRETER));
    memory.insert(RemoteAddr::new(INTERPRETER), &[0; 0x4000]);
    let next = RemoteAddr::new(INTERPRETER).offset(u64::from(offsets.interpreter.next.offset()));
    memory.overwrite(next, &words([INTERPRETER]));
    assert_eq!(found(&memory), broken(INTERPRETER), "interpreters without threads in a circle");
}

#[test]
fn other_modules_are_opened_only_where_likely_ones_have_no_python() {
    let named =
        File { data: &data_of_3_14(0), symbol: Some(("_PyRuntime", DATA)), ..File::default() }.bytes();
    let bare = File::default().bytes();
    let mut memory = Snapshot::new();
    load(&mut memory, BIAS, &data_of_3_14(INTERPRETER));
    run_thread(&mut memory, &parse(DEBUG_OFFSETS).unwrap(), INTERPRETER);
    let (python, elsewhere) = (mappings(BIAS), mappings(BIAS + 0x100_0000));
    for (paths, is_opened) in [
        (["/usr/bin/app", "/usr/lib/libpython3.14.so.1.0"], false),
        (["/usr/bin/app", "/usr/lib/libembedded.so"], true),
    ] {
        let modules = [
            Module { path: paths[0], file: &bare, mappings: &elsewhere },
            Module { path: paths[1], file: if is_opened { b"" } else { &named }, mappings: &python },
            Module { path: "/usr/lib/libother.so", file: b"", mappings: &elsewhere },
        ];
        let opened = std::cell::RefCell::new(Vec::new());
        let open = |index| {
            opened.borrow_mut().push(index);
            if index == 1 { named.as_slice() } else { bare.as_slice() }
        };
        assert!(find_opening(&modules, open, &memory).is_ok(), "{paths:?}");
        assert_eq!(opened.take(), if is_opened { vec![1] } else { vec![] }, "{paths:?}");
    }
}

#[test]
fn of_a_library_mapped_twice_the_living_copy_is_taken() {
    let second = BIAS + 0x10_0000;
    let file = File { data: &data_of_3_14(0), symbol: Some(("_PyRuntime", DATA)), ..File::default() }.bytes();
    let both = [mappings(BIAS), mappings(second)].concat();
    for (alive, dead) in [(BIAS, second), (second, BIAS)] {
        let mut memory = Snapshot::new();
        load(&mut memory, alive, &data_of_3_14(INTERPRETER));
        load(&mut memory, dead, &data_of_3_14(0));
        run_thread(&mut memory, &parse(DEBUG_OFFSETS).unwrap(), INTERPRETER);
        let module = Module { path: "/usr/lib/libpython3.14.so.1.0", file: &file, mappings: &both };
        assert_eq!(find(&[module], &memory).unwrap().main_address, RemoteAddr::new(alive + DATA));
    }
}

#[test]
fn of_two_living_copies_the_first_loaded_is_taken_and_the_other_named() {
    let second = BIAS - 0x10_0000;
    let file = File { data: &data_of_3_14(0), symbol: Some(("_PyRuntime", DATA)), ..File::default() }.bytes();
    // What is loaded later lies below, and comes first in the list of mappings.
    let both = [mappings(second), mappings(BIAS)].concat();
    let mut memory = Snapshot::new();
    load(&mut memory, BIAS, &data_of_3_14(INTERPRETER));
    load(&mut memory, second, &data_of_3_14(INTERPRETER));
    run_thread(&mut memory, &parse(DEBUG_OFFSETS).unwrap(), INTERPRETER);
    let path = "/usr/lib/libpython3.14.so.1.0";
    let modules = [Module { path, file: &file, mappings: &both }];
    let runtime = find(&modules, &memory).unwrap();
    assert_eq!(runtime.main_address, RemoteAddr::new(BIAS + DATA));
    let others = find_others(&runtime, &modules, &memory);
    let others: Vec<_> = others.iter().map(|(other, path)| (other.main_address, *path)).collect();
    assert_eq!(others, [(RemoteAddr::new(second + DATA), path)]);
}

#[test]
fn pythons_of_the_executable_come_before_libraries() {
    let second = BIAS - 0x10_0000;
    let described =
        File { data: &data_of_3_14(0), symbol: Some(("_PyRuntime", DATA)), ..File::default() }.bytes();
    let stripped = File { data: &data_of_3_14(0), ..File::default() }.bytes();
    let mut memory = Snapshot::new();
    load(&mut memory, BIAS, &data_of_3_14(INTERPRETER));
    load(&mut memory, second, &data_of_3_14(INTERPRETER));
    run_thread(&mut memory, &parse(DEBUG_OFFSETS).unwrap(), INTERPRETER);
    let modules = [
        Module { path: "/usr/bin/python3.14", file: &stripped, mappings: &mappings(BIAS) },
        Module { path: "/opt/lib/libpython3.14.so.1.0", file: &described, mappings: &mappings(second) },
    ];
    assert_eq!(find(&modules, &memory).unwrap().main_address, RemoteAddr::new(BIAS + DATA));
}

#[test]
fn an_old_build_without_symbols_is_found_by_walking() {
    let offsets = offsets_for(Version { major: 3, minor: 8, micro: 18, release: 0xF0 }).unwrap();
    let file = File { constants: b"3.8.18\0", ..File::default() }.bytes();
    let mut memory = Snapshot::new();
    let mut data = vec![0; 0x800];
    // A list that looks right but leads nowhere, then the true one at `_PyRuntime` + 32.
    put(&mut data, 0x108, &words([THREAD, THREAD + 16, THREAD + 16, 1]));
    put(&mut data, 0x400 + 24, &words([THREAD + 0x200, INTERPRETER, INTERPRETER, 1]));
    load(&mut memory, BIAS, &data);
    run_thread(&mut memory, &offsets, INTERPRETER);
    let runtime = find_in("/usr/bin/python3.8", &file, &memory).unwrap();
    assert_eq!(runtime.main_address, RemoteAddr::new(BIAS + DATA + 0x400));
    assert_eq!(runtime.offsets.version.micro, 18);
    let gil = runtime.gil.unwrap();
    assert_eq!(gil, GilAddresses::at(RemoteAddr::new(BIAS + DATA + 0x400 + 1152), &offsets.gil));
    assert!(gil.contains(gil.locked) && !gil.contains(gil.end));

    let mut memory = Snapshot::new();
    load(&mut memory, BIAS, &data);
    run_thread(&mut memory, &offsets, THREAD);
    assert_eq!(find_in("/usr/bin/python3.8", &file, &memory), Err(FindError::NotInitialised));
}

#[test]
fn a_stripped_program_of_another_name_is_found_by_its_cache_tag() {
    let offsets = offsets_for(Version { major: 3, minor: 8, micro: 18, release: 0xF0 }).unwrap();
    let mut data = vec![0; 0x800];
    put(&mut data, 0x400 + 24, &words([THREAD + 0x200, INTERPRETER, INTERPRETER, 1]));
    let mut memory = Snapshot::new();
    load(&mut memory, BIAS, &data);
    run_thread(&mut memory, &offsets, INTERPRETER);
    // The version of a library comes first.
    let file = File { constants: b"3.9.2\x003.8.18\0cpython-38\0", ..File::default() }.bytes();
    let runtime = find_in("/opt/service", &file, &memory).unwrap();
    assert_eq!(runtime.main_address, RemoteAddr::new(BIAS + DATA + 0x400));
    assert_eq!((runtime.offsets.version.minor, runtime.offsets.version.micro), (8, 18));

    let mut memory = Snapshot::new();
    load(&mut memory, BIAS, &data);
    run_thread(&mut memory, &offsets, THREAD);
    assert_eq!(find_in("/opt/service", &file, &memory), Err(FindError::NotInitialised));
    let without_tag = File { constants: b"3.8.18\0", ..File::default() }.bytes();
    assert_eq!(
        find_in("/opt/service", &without_tag, &memory),
        Err(FindError::NotPython(NotPython::NoModule))
    );
}

#[test]
fn a_stripped_3_6_is_found_by_a_thread_that_runs_a_frame() {
    const FRAME: u64 = THREAD + 0x200;
    let offsets = offsets_for(Version { major: 3, minor: 6, micro: 9, release: 0xF0 }).unwrap();
    let file = File { constants: b"3.6.9\0", ..File::default() }.bytes();
    let mut data = vec![0; 0x400];
    // A pointer that leads nowhere, one into the module itself, and `interp_head`.
    put(&mut data, 0x80, &words([0x6666_0000_0000, BIAS + DATA, INTERPRETER]));
    for (type_name, expected) in [(b"frame\0", Some(RemoteAddr::new(BIAS + DATA + 0x90))), (b"frames", None)]
    {
        put(&mut data, 0x200, type_name);
        let mut memory = Snapshot::new();
        // The frame, whose type is right behind it, whose name is in the module.
        let mut frame = vec![0; 0x100];
        put(&mut frame, offsets.object.object_type.offset() as usize, &words([FRAME + 0x80]));
        put(&mut frame, 0x80 + offsets.object.type_name.offset() as usize, &words([BIAS + DATA + 0x200]));
        memory.insert(RemoteAddr::new(FRAME), &frame);
        let thread_frame = RemoteAddr::new(THREAD).offset(u64::from(offsets.thread.frame.offset()));
        memory.insert(thread_frame, &words([FRAME]));
        load(&mut memory, BIAS, &data);
        run_thread(&mut memory, &offsets, INTERPRETER);
        let found = find_in("/usr/bin/python3.6", &file, &memory).map(|runtime| runtime.interpreters_head);
        assert_eq!(found, expected.ok_or(FindError::NotInitialised));
    }
}

#[test]
fn what_is_no_python_3_is_said_to_be_what_it_is() {
    let file = File::default().bytes();
    let memory = Snapshot::new();
    let not = |what| Err(FindError::NotPython(what));
    assert_eq!(find(&[], &memory), not(NotPython::NoModule));
    assert_eq!(find_in("/usr/bin/sleep", &file, &memory), not(NotPython::NoModule));
    assert_eq!(find_in("/usr/bin/sleep", b"#!/bin/sh", &memory), not(NotPython::NoModule));
    assert_eq!(find_in("/opt/pypy3.10/bin/pypy3", &file, &memory), not(NotPython::PyPy));
    assert_eq!(find_in("/usr/bin/python2.7", &file, &memory), not(NotPython::Python2));
    let mut narrow = file;
    narrow[4] = 1;
    assert_eq!(find_in("/usr/bin/python3", &narrow, &memory), not(NotPython::OtherArchitecture));
}

#[test]
fn python_of_another_architecture_is_refused_by_name() {
    // With what the search for 64-bit structures looks for: the version text, and the cookie of 3.13 and later.
    let old = File { constants: b"3.8.18\0", ..File::default() }.bytes();
    let new = File { data: &data_of_3_14(INTERPRETER), ..File::default() }.bytes();
    let embedded = File { symbol: Some(("_PyRuntime", DATA)), ..File::default() }.bytes();
    let mut memory = Snapshot::new();
    load(&mut memory, BIAS, &data_of_3_14(INTERPRETER));
    let refusal = Err(FindError::NotPython(NotPython::OtherArchitecture));
    for (path, file) in
        [("/usr/bin/python3.8", old), ("/usr/bin/python3.14", new), ("/usr/bin/app", embedded)]
    {
        for (byte, value) in [(4, 1), (5, 2)] {
            let mut foreign = file.clone();
            foreign[byte] = value;
            assert_eq!(find_in(path, &foreign, &memory), refusal, "{path}, byte {byte}");
        }
    }
}

#[test]
fn unknown_versions_are_named() {
    let mut newer = data_of_3_14(INTERPRETER);
    put(&mut newer, 8, &words([0x0310_01F0]));
    let file = File { data: &newer, symbol: Some(("_PyRuntime", DATA)), ..File::default() }.bytes();
    let mut memory = Snapshot::new();
    load(&mut memory, BIAS, &newer);
    let version = Version { major: 3, minor: 16, micro: 1, release: 0xF0 };
    assert_eq!(find_in("python3.16", &file, &memory), Err(FindError::UnknownVersion(version)));
    let file = File { constants: b"3.5.10\0", ..File::default() }.bytes();
    let version = Version { major: 3, minor: 5, micro: 10, release: 0xF0 };
    assert_eq!(find_in("python3.5", &file, &memory), Err(FindError::UnknownVersion(version)));
}

/// A process that has ended.
struct Gone;

impl ReadMemory for Gone {
    fn read(&self, _: RemoteAddr, _: &mut [u8]) -> Result<(), ReadError> {
        Err(ReadError::ProcessEnded)
    }
}

#[test]
fn a_process_that_ends_is_said_to_have_ended() {
    let file = File { symbol: Some(("_PyRuntime", DATA)), ..File::default() }.bytes();
    let module = Module { path: "/usr/bin/python3.14", file: &file, mappings: &mappings(BIAS) };
    assert_eq!(find(&[module], &Gone), Err(FindError::Unreadable(ReadError::ProcessEnded)));
}

#[test]
fn damaged_files_are_survived() {
    let file = File { data: &data_of_3_14(0), symbol: Some(("_PyRuntime", DATA)), ..File::default() }.bytes();
    let mut memory = Snapshot::new();
    load(&mut memory, BIAS, &data_of_3_14(INTERPRETER));
    run_thread(&mut memory, &parse(DEBUG_OFFSETS).unwrap(), INTERPRETER);
    for at in (0..0x180).chain(0x200..0x240).chain(0x800..0x8C0) {
        for value in [0, 1, 0x7F, 0xFF] {
            let mut damaged = file.clone();
            damaged[at] = value;
            if let Ok(runtime) = find_in("python3.14", &damaged, &memory) {
                assert_eq!(runtime.offsets.version.minor, 14);
            }
        }
    }
    for length in 0..file.len() {
        let _ = find_in("python3.14", &file[..length], &memory);
    }
}
