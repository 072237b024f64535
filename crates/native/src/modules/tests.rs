//! Modules out of regions and files.

use profiler_model::RemoteAddr;

use super::*;
use crate::test_image::{CONTENT, LOAD, NOTE, READ, READ_EXECUTE, elf};

const FILE: &str = "/usr/lib/libfour.so";

fn region(start: u64, end: u64, file_offset: u64, inode: u64, path: &str) -> MemoryRegion<'_> {
    let (start, end) = (RemoteAddr::new(start), RemoteAddr::new(end));
    MemoryRegion { start, end, file_offset, device: 7, inode, executable: true, path }
}

fn map(regions: &[MemoryRegion<'_>], file: &[u8]) -> ModuleMap {
    ModuleMap::new(regions, |_| OpenedFile::Bytes(file))
}

fn offset(map: &ModuleMap, pc: u64) -> Option<(usize, u64)> {
    let found = map.find(RemoteAddr::new(pc))?;
    Some((found.module.as_usize(), found.offset))
}

/// A library with two executable segments, whose addresses differ from their offsets in different ways.
fn two_segments() -> Vec<u8> {
    let content =
        [vec![0; 0x4000], vec![4, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0], b"GNU\0abc\0".to_vec()].concat();
    elf(
        &[
            (LOAD, READ, 0, 0, 0x1000),
            (LOAD, READ_EXECUTE, CONTENT, 0x1_1000, 0x1800),
            (LOAD, READ_EXECUTE, CONTENT + 0x1800, 0x5_2800, 0x1800),
            (NOTE, READ, CONTENT + 0x4000, 0x9_0000, 20),
        ],
        &content,
    )
}

#[test]
fn each_executable_segment_has_its_own_addresses() {
    let regions = [
        region(0x7f00_0001_1000, 0x7f00_0001_3000, 0x1000, 9, FILE),
        region(0x7f00_0005_2000, 0x7f00_0005_4000, 0x2000, 9, FILE),
    ];
    let map = map(&regions, &two_segments());
    assert_eq!(map.modules().len(), 1);
    let module = &map.modules()[0];
    assert_eq!(
        (module.kind, module.state, module.bias),
        (ModuleKind::Elf, FileState::Present, 0x7f00_0000_0000)
    );
    assert_eq!(module.build_id.as_ref().unwrap().to_string(), "616263");
    assert_eq!(offset(&map, 0x7f00_0001_1234), Some((0, 0x1_1234)));
    // The page at offset 0x2000 has the end of one segment and the start of the other.
    assert_eq!(offset(&map, 0x7f00_0005_2900), Some((0, 0x5_2900)));
    assert_eq!(module.address(0x5_2900), RemoteAddr::new(0x7f00_0005_2900));
    assert_eq!(offset(&map, 0x7f00_0001_3000), None);
    assert_eq!(offset(&map, 0x1000), None);
}

#[test]
fn file_that_is_loaded_twice_is_two_modules() {
    let regions = [
        region(0x7f00_0001_1000, 0x7f00_0001_3000, 0x1000, 9, FILE),
        region(0x7f10_0001_1000, 0x7f10_0001_3000, 0x1000, 9, FILE),
    ];
    let mut opened = 0;
    let file = two_segments();
    let map = ModuleMap::new(&regions, |_| {
        opened += 1;
        OpenedFile::Bytes(file.as_slice())
    });
    assert_eq!((map.modules().len(), opened), (2, 1));
    assert_eq!(offset(&map, 0x7f00_0001_1234), Some((0, 0x1_1234)));
    assert_eq!(offset(&map, 0x7f10_0001_1234), Some((1, 0x1_1234)));
}

#[test]
fn deleted_replaced_and_unreadable_files_are_told_apart() {
    let deleted = format!("{FILE} (deleted)");
    for (path, opened, state, kind) in [
        (deleted.as_str(), OpenedFile::Bytes(two_segments()), FileState::Deleted, ModuleKind::Elf),
        (deleted.as_str(), OpenedFile::Unreadable, FileState::Deleted, ModuleKind::File),
        (FILE, OpenedFile::Replaced, FileState::Replaced, ModuleKind::File),
        (FILE, OpenedFile::Unreadable, FileState::Unreadable, ModuleKind::File),
    ] {
        let regions = [region(0x7f00_0001_1000, 0x7f00_0001_3000, 0x1000, 9, path)];
        let map = ModuleMap::new(&regions, |_| match &opened {
            OpenedFile::Bytes(bytes) => OpenedFile::Bytes(bytes.as_slice()),
            OpenedFile::Replaced => OpenedFile::Replaced,
            OpenedFile::Unreadable => OpenedFile::Unreadable,
        });
        let module = &map.modules()[0];
        assert_eq!((&*module.path, module.state, module.kind), (FILE, state, kind));
        // Where the file is not known, offsets are those of the file.
        let expected = if kind == ModuleKind::Elf { 0x1_1234 } else { 0x1234 };
        assert_eq!(offset(&map, 0x7f00_0001_1234), Some((0, expected)));
    }
}

#[test]
fn touching_regions_without_a_file_are_one_module() {
    let regions = [
        region(0x1000, 0x2000, 0, 0, ""),
        region(0x2000, 0x3000, 0, 0, "[anon:jit]"),
        region(0x4000, 0x5000, 0, 0, ""),
        MemoryRegion { executable: false, ..region(0x6000, 0x7000, 0, 0, "[heap]") },
        region(0x8000, 0x9000, 0, 0, "[vsyscall]"),
    ];
    let map = map(&regions, &[]);
    assert!(map.modules().iter().all(|module| module.kind == ModuleKind::Anonymous));
    assert_eq!(offset(&map, 0x2010), Some((0, 0x1010)));
    assert_eq!(offset(&map, 0x4010), Some((1, 0x10)));
    assert_eq!(offset(&map, 0x6010), None);
    assert_eq!(
        map.get(map.find(RemoteAddr::new(0x8000)).unwrap().module).unwrap().path.as_ref(),
        "[vsyscall]"
    );
}

#[test]
fn vdso_is_an_image_in_memory() {
    let file = elf(&[(LOAD, READ_EXECUTE, 0, 0, 0x2000)], &[0; 0x1000]);
    let map = map(&[region(0x7ffe_0000_0000, 0x7ffe_0000_2000, 0, 0, "[vdso]")], &file);
    assert_eq!((map.modules()[0].kind, map.modules()[0].bias), (ModuleKind::Vdso, 0x7ffe_0000_0000));
    assert_eq!(offset(&map, 0x7ffe_0000_0123), Some((0, 0x123)));
}

#[test]
fn regions_that_overlap_are_found_once() {
    let regions = [region(0x1000, 0x3000, 0, 0, ""), region(0x2000, 0x4000, 0, 0, "")];
    let map = map(&regions, &[]);
    assert_eq!((offset(&map, 0x2800), offset(&map, 0x3800)), (Some((0, 0x1800)), None));
}

#[test]
fn build_id_has_a_largest_size() {
    assert!(BuildId::new(&[]).is_none() && BuildId::new(&[1; 65]).is_none());
    assert_eq!(BuildId::new(&[0xab, 1]).unwrap().to_string(), "ab01");
}
