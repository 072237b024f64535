use super::*;
use crate::{ReadError, ReadMemory};

const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x60_0000;
const PATH: &str = "/usr/bin/python3";

fn put(bytes: &mut Vec<u8>, at: usize, value: &[u8]) {
    if bytes.len() < at + value.len() {
        bytes.resize(at + value.len(), 0);
    }
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// An ELF file of this type with program headers given as type, flags, offset, address, file and memory size.
fn elf_file(kind: u16, headers: &[[u64; 6]]) -> Vec<u8> {
    let mut file = Vec::new();
    put(&mut file, 0, b"\x7fELF\x02\x01\x01");
    put(&mut file, 16, &kind.to_le_bytes());
    put(&mut file, 18, &62u16.to_le_bytes());
    put(&mut file, 20, &1u32.to_le_bytes());
    put(&mut file, 32, &64u64.to_le_bytes());
    put(&mut file, 52, &64u16.to_le_bytes());
    put(&mut file, 54, &56u16.to_le_bytes());
    put(&mut file, 56, &(headers.len() as u16).to_le_bytes());
    put(&mut file, 58, &[0; 6]);
    for (index, [kind, flags, offset, address, file_size, memory_size]) in headers.iter().enumerate() {
        let at = 64 + index * 56;
        put(&mut file, at, &(*kind as u32).to_le_bytes());
        put(&mut file, at + 4, &(*flags as u32).to_le_bytes());
        for (field, value) in [offset, address, address, file_size, memory_size, &4].into_iter().enumerate() {
            put(&mut file, at + 8 + field * 8, &value.to_le_bytes());
        }
    }
    file
}

fn note(name: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    note.extend_from_slice(&(name.len() as u32 + 1).to_le_bytes());
    note.extend_from_slice(&(content.len() as u32).to_le_bytes());
    note.extend_from_slice(&kind.to_le_bytes());
    note.extend_from_slice(name);
    note.resize((note.len() + 1).next_multiple_of(4), 0);
    note.extend_from_slice(content);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

/// A thread's note: its id, thread pointer, system call, what that returned and its argument.
fn status(tid: u32, pthread: u64, call: i64, result: i64, argument: u64) -> Vec<u8> {
    let mut status = vec![0; 336];
    put(&mut status, 32, &tid.to_le_bytes());
    put(&mut status, 112 + 80, &result.to_le_bytes());
    put(&mut status, 112 + 112, &argument.to_le_bytes());
    put(&mut status, 112 + 120, &call.to_le_bytes());
    put(&mut status, 112 + 168, &pthread.to_le_bytes());
    note(b"CORE", 1, &status)
}

fn notes() -> Vec<u8> {
    let mut info = vec![0; 136];
    put(&mut info, 24, &7u32.to_le_bytes());
    put(&mut info, 56, b"python3 a.py ");
    let mut files = Vec::new();
    for value in [1, 4096, CODE, CODE + 0x2000, 0] {
        files.extend_from_slice(&u64::to_le_bytes(value));
    }
    files.extend_from_slice(PATH.as_bytes());
    files.push(0);
    let auxv: Vec<u8> = [9, CODE + 16, 0, 0].into_iter().flat_map(u64::to_le_bytes).collect();
    [
        status(7, 0x7000, -1, 0, 0),
        note(b"CORE", 3, &info),
        note(b"CORE", 6, &auxv),
        note(b"CORE", 0x4649_4c45, &files),
        note(b"LINUX", 0x202, &[0; 9]),
        status(8, 0x8000, 202, -512, 0x1234),
    ]
    .concat()
}

/// The program: a page of code, with a build-id, and a page of data.
fn program(build_id: u8) -> Vec<u8> {
    let id = note(b"GNU", 3, &[build_id; 20]);
    let mut file = elf_file(
        3,
        &[
            [1, 5, 0, 0, 0x1800, 0x1800],
            [4, 4, 0x200, 0x200, id.len() as u64, id.len() as u64],
            [1, 6, 0x2000, 0x2000, 0x1000, 0x1000],
        ],
    );
    put(&mut file, 0x200, &id);
    put(&mut file, 0x17ff, b"c");
    put(&mut file, 0x2000, &[b'd'; 0x1000]);
    file
}

/// A core with the program's first page, without its second, and with data of its own.
fn core() -> Vec<u8> {
    let notes = notes();
    let mut core = elf_file(
        4,
        &[
            [4, 4, 0x400, 0, notes.len() as u64, 0],
            [1, 6, 0x3000, DATA, 0x800, 0x1000],
            [1, 5, 0x2000, CODE, 0x1000, 0x2000],
        ],
    );
    put(&mut core, 0x400, &notes);
    put(&mut core, 0x2000, &program(1)[..0x1000]);
    put(&mut core, 0x3000, &[b'm'; 0x800]);
    core
}

fn memory() -> CoreMemory<Vec<u8>> {
    let mut memory = CoreMemory::new(CoreFile::parse(&core()).unwrap(), core());
    let mappings = memory.file.files.clone();
    memory.add_file(&mappings, program(1));
    memory
}

fn read(memory: &impl ReadMemory, at: u64, length: usize) -> Result<Vec<u8>, ReadError> {
    memory.bytes(RemoteAddr::new(at), length as u64, length)
}

#[test]
fn threads_files_and_the_process_are_told() {
    let file = CoreFile::parse(&core()).unwrap();
    let process = CoreProcess { pid: 7, command_line: "python3 a.py".into() };
    assert_eq!(file.process, Some(process));
    assert_eq!((file.executable(), file.is_cut_short()), (Some(PATH), false));
    let thread = |tid, pthread_id, activity| CoreThread {
        tid: profiler_model::NsTid::new(tid),
        pthread_id: Some(pthread_id),
        activity,
    };
    let blocked = CoreActivity::Blocked { call: 202, argument: 0x1234 };
    assert_eq!(file.threads, [thread(7, 0x7000, CoreActivity::Running), thread(8, 0x8000, blocked)]);
}

#[test]
fn what_the_core_leaves_out_comes_from_the_file() {
    let memory = memory();
    assert_eq!(read(&memory, DATA, 2).unwrap(), b"mm");
    assert_eq!(read(&memory, CODE + 0x17ff, 1).unwrap(), b"c");
    // From the core's last byte of the page to the file's first.
    assert_eq!(read(&memory, CODE + 0xffe, 4).unwrap(), program(1)[0xffe..0x1002]);
    // The file ends there, and what was written to is never taken from it.
    for hole in [CODE + 0x1800, DATA + 0x800, DATA - 1, u64::MAX] {
        assert_eq!(read(&memory, hole, 1), Err(ReadError::Unmapped(RemoteAddr::new(hole))), "{hole:#x}");
    }
}

#[test]
fn a_file_is_known_by_its_build_id() {
    let core = core();
    let file = CoreFile::parse(&core).unwrap();
    let start = file.bytes_at(&core, RemoteAddr::new(CODE));
    assert_eq!(compare(start, &program(1)), FileMatch::Same);
    assert_eq!(compare(start, &program(2)), FileMatch::Different);
    assert_eq!(compare(start, b"#!/bin/sh"), FileMatch::Different);
    assert_eq!(compare(&[], &program(1)), FileMatch::Unknown);
}

#[test]
fn what_is_no_core_says_what_it_is() {
    let parse = |bytes: &[u8]| CoreFile::parse(bytes).unwrap_err();
    assert_eq!(parse(b""), CoreError::Empty);
    assert_eq!(parse(b"text"), CoreError::NotACore);
    assert_eq!(parse(&program(1)), CoreError::Program);
    assert_eq!(parse(b"\x28\xb5\x2f\xfd..."), CoreError::Compressed("zstd"));
    let mut other = core();
    other[4] = 1;
    assert_eq!(parse(&other), CoreError::OtherArchitecture);
}

/// Reads what a walk would read, wherever the file says that there is something.
fn look_around(core: &[u8]) {
    let Ok(file) = CoreFile::parse(core) else { return };
    let mappings = file.files.clone();
    let mut memory = CoreMemory::new(file, core.to_vec());
    memory.add_file(&mappings, program(1));
    for segment in memory.file.segments.clone() {
        for at in [segment.start, segment.start.offset(segment.memory_size.wrapping_sub(4))] {
            let _ = memory.bytes(at, 8, 8);
        }
    }
    let _ = memory.file.executable();
}

#[test]
fn cut_anywhere_it_is_told_to_be_cut() {
    let core = core();
    for length in 0..core.len() {
        match CoreFile::parse(&core[..length]) {
            Ok(file) => assert!(file.is_cut_short(), "{length}"),
            Err(error) => assert!(length < 64 + 3 * 56, "{length}: {error}"),
        }
        look_around(&core[..length]);
    }
}

#[test]
fn damaged_anywhere_it_still_ends() {
    let core = core();
    for at in 0..0x2400 {
        for value in [0, 0x7f, 0xff] {
            let mut damaged = core.clone();
            damaged[at] = value;
            look_around(&damaged);
        }
    }
}
