//! Files that are cut or lie: never a panic, never much work, and a reason for each.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::debug_info::MAX_DEBUG_BYTES;
use super::super::elf_image::ElfImage;
use super::support::{File, address, elf_with, file, names, symbolizer, unpacked, wide};
use crate::{ReadAt, SymbolProblem, Symbolizer};

/// Asks for all that a file has; only panics and endless work fail.
fn exhaust(bytes: File) {
    let Ok(mut symbolizer) = Symbolizer::new(bytes) else { return };
    for at in (0..0x800).step_by(7).chain((0x1000..0x1200).step_by(9)).chain([0x40000, u64::MAX]) {
        let (_names, _start) = (symbolizer.lookup(at), symbolizer.function_start(at));
    }
}

#[test]
fn files_of_other_kinds_are_refused_with_a_reason() {
    let problem = |bytes: File| Symbolizer::new(bytes).err();
    assert_eq!(problem(Vec::new()), Some(SymbolProblem::NotElf));
    assert_eq!(problem(b"#!/bin/sh\n".to_vec()), Some(SymbolProblem::NotElf));
    let mut narrow = file("inlined.so");
    narrow[4] = 1;
    assert_eq!(problem(narrow), Some(SymbolProblem::ForeignElf));
    let mut cut = file("inlined.so");
    cut.truncate(100);
    assert_eq!(problem(cut), Some(SymbolProblem::Truncated("program headers")));
}

#[test]
fn header_that_asks_for_too_much_is_refused() {
    let mut many = file("inlined.so");
    many[56..58].copy_from_slice(&u16::MAX.to_le_bytes());
    assert!(matches!(
        Symbolizer::new(many).err(),
        Some(SymbolProblem::TooLarge { what: "program headers", .. })
    ));
}

#[test]
fn every_truncation_of_a_file_is_survived() {
    for name in ["inlined.so", "mini.so", "marked_stubs.so"] {
        let whole = file(name);
        for length in (0..whole.len()).step_by(13) {
            exhaust(whole[..length].to_vec());
        }
    }
}

/// A file of many gigabytes that counts what is read of it.
#[derive(Default)]
struct Vast {
    start: File,
    read: std::sync::atomic::AtomicU64,
}

impl ReadAt for Vast {
    fn size(&self) -> u64 {
        1 << 44
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> bool {
        self.read.fetch_add(into.len() as u64, std::sync::atomic::Ordering::Relaxed);
        for (at, byte) in (offset as usize..).zip(into.iter_mut()) {
            *byte = self.start.get(at).copied().unwrap_or(b'x');
        }
        true
    }
}

/// Where a section header has the address, the offset in the file and the size.
const ADDRESS: usize = 16;
const OFFSET: usize = 24;
const SIZE: usize = 32;

/// Sets a field of the header of a section.
fn set_section(bytes: &mut [u8], name: &str, field: usize, value: u64) {
    let image = ElfImage::open(bytes.to_vec()).unwrap();
    let index = image.sections().iter().position(|section| image.is_named(section, name));
    let headers = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) as usize;
    let at = headers + 64 * index.unwrap() + field;
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn module_of_gigabytes_is_read_in_its_wanted_parts() {
    let vast = Arc::new(Vast { start: file("inlined.so"), ..Vast::default() });
    let mut symbolizer = Symbolizer::new(Arc::clone(&vast)).unwrap();
    let chain = symbolizer.lookup(address("inlined.so", "place_innermost"));
    assert_eq!(names(chain.as_ref()).len(), 3);
    assert!(vast.read.load(std::sync::atomic::Ordering::Relaxed) < 20_000);
}

#[test]
fn sections_of_gigabytes_are_refused_and_the_rest_is_used() {
    let mut start = file("inlined.so");
    set_section(&mut start, ".debug_str", SIZE, MAX_DEBUG_BYTES + 1);
    let vast = Arc::new(Vast { start, ..Vast::default() });
    let mut symbolizer = Symbolizer::new(Arc::clone(&vast)).unwrap();
    let chain = symbolizer.lookup(address("inlined.so", "place_innermost"));
    assert_eq!(names(chain.as_ref()), ["outer"]);
    assert!(
        matches!(symbolizer.problems(), [SymbolProblem::TooLarge { found, .. }] if *found == MAX_DEBUG_BYTES + 1)
    );
    assert!(vast.read.load(std::sync::atomic::Ordering::Relaxed) < 20_000);
}

#[test]
fn sections_at_the_end_of_the_address_space_are_survived() {
    for name in [".plt", ".dynsym", ".rela.plt", ".dynstr", ".text", ".gnu_debugdata", ".note.gnu.build-id"] {
        for field in [ADDRESS, OFFSET, SIZE] {
            for value in [u64::MAX, u64::MAX - 20, 1 << 63] {
                let mut bytes = file("mini.so");
                set_section(&mut bytes, name, field, value);
                exhaust(bytes);
            }
        }
    }
}

#[test]
fn symbol_of_a_megabyte_is_cut() {
    let mut start = file("mini.so");
    let image = ElfImage::open(start.clone()).unwrap();
    let names_at = image.section(".dynstr").unwrap().offset as usize;
    let length = image.section(".dynstr").unwrap().size as usize;
    set_section(&mut start, ".dynstr", SIZE, 1 << 40);
    start[names_at + 1..names_at + length].fill(b'y');
    start.truncate(start.len().max(names_at + length));
    let vast = Arc::new(Vast { start, ..Vast::default() });
    let mut symbolizer = Symbolizer::new(Arc::clone(&vast)).unwrap();
    let chain = symbolizer.lookup(address("inlined.so", "outer"));
    let name = chain.unwrap().functions[0].name.clone().unwrap();
    assert!(name.symbol.len() <= (16 << 10) + 3);
    assert!(vast.read.load(std::sync::atomic::Ordering::Relaxed) < 8 << 20);
}

#[test]
fn compressed_section_that_lies_about_its_size_is_refused() {
    let mut bytes = file("zlib.debug");
    let image = ElfImage::open(bytes.clone()).unwrap();
    let at = image.section(".debug_info").unwrap().offset as usize;
    bytes[at + 8..at + 16].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut symbolizer = symbolizer("stripped.so");
    symbolizer.give_debug_file(bytes).unwrap();
    assert_eq!(names(symbolizer.lookup(address("inlined.so", "outer")).as_ref()), ["outer"]);
    assert!(matches!(symbolizer.problems(), [SymbolProblem::TooLarge { found: u64::MAX, .. }]));
}

#[test]
fn damaged_debug_data_section_is_a_reason() {
    let mut bytes = file("mini.so");
    let image = ElfImage::open(bytes.clone()).unwrap();
    let at = image.section(".gnu_debugdata").unwrap().offset as usize;
    bytes[at + 100] ^= 0xff;
    let mut symbolizer = Symbolizer::new(bytes).unwrap();
    assert_eq!(names(symbolizer.lookup(address("inlined.so", "outer")).as_ref()), ["outer"]);
    assert_eq!(symbolizer.problems(), [SymbolProblem::Compression(".gnu_debugdata")]);
}

#[test]
fn function_table_of_an_old_go_is_a_reason() {
    let mut bytes = unpacked("go1.xz");
    let image = ElfImage::open(bytes.clone()).unwrap();
    let at = image.section(".gopclntab").unwrap().offset as usize;
    bytes[at..at + 4].copy_from_slice(&0xffff_fffbu32.to_le_bytes());
    let mut symbolizer = Symbolizer::new(bytes).unwrap();
    assert_eq!(symbolizer.lookup(0x40_1000), None);
    assert_eq!(symbolizer.problems(), [SymbolProblem::GoVersion(0xffff_fffb)]);
}

/// A unit of DWARF 4: its head, then its entries.
fn unit(entries: &[u8]) -> Vec<u8> {
    let length = (7 + entries.len()) as u32;
    [&length.to_le_bytes()[..], &4u16.to_le_bytes(), &[0; 4], &[8], entries].concat()
}

/// Abbreviations: 1 is a unit from an address to another one, 2 a function likewise, 3 an inlined function that says nothing, 4
/// a unit with a list of ranges. All but the last have children.
const ABBREVIATIONS: &[u8] = &[
    1, 0x11, 1, 0x11, 0x01, 0x12, 0x07, 0, 0, 2, 0x2e, 1, 0x11, 0x01, 0x12, 0x07, 0, 0, 3, 0x1d, 1, 0, 0, 4,
    0x11, 0, 0x55, 0x17, 0, 0, 0,
];

#[test]
fn endlessly_nested_inlined_functions_end_soon() {
    let range = wide(&[0x1000, 0x800]);
    let entries = [&[1][..], &range, &[2], &range, &vec![3; 4 << 20]].concat();
    let bytes = elf_with(&[(".debug_abbrev", ABBREVIATIONS), (".debug_info", &unit(&entries))]);
    let mut symbolizer = Symbolizer::new(bytes).unwrap();
    assert_eq!(symbolizer.lookup(0x1010), None);
    assert_eq!(symbolizer.problems(), [SymbolProblem::TooMuchWork]);
}

#[test]
fn long_list_of_ranges_that_all_units_share_ends_soon() {
    let ranges: Vec<u8> = (0..1u64 << 20).flat_map(|at| wide(&[0x1000 + at, 0x1001 + at])).collect();
    let info = unit(&[4, 0, 0, 0, 0]).repeat(100_000);
    let bytes =
        elf_with(&[(".debug_abbrev", ABBREVIATIONS), (".debug_info", &info), (".debug_ranges", &ranges)]);
    let mut symbolizer = Symbolizer::new(bytes).unwrap();
    assert_eq!(symbolizer.lookup(0x1010), None);
    assert_eq!(symbolizer.problems(), [SymbolProblem::TooMuchWork]);
}

#[test]
fn more_units_than_a_program_has_are_refused() {
    let info = unit(&[0]).repeat(200_001);
    let bytes = elf_with(&[(".debug_abbrev", ABBREVIATIONS), (".debug_info", &info)]);
    let mut symbolizer = Symbolizer::new(bytes).unwrap();
    assert_eq!(symbolizer.lookup(0x1010), None);
    assert!(matches!(symbolizer.problems(), [SymbolProblem::TooLarge { what: "compilation units", .. }]));
}

/// Flips bytes of a file, most of them in one part of it.
fn flipped(mut bytes: File, flips: &[(prop::sample::Index, u8)], section: &str) -> File {
    let image = ElfImage::open(bytes.clone()).unwrap();
    let part = image.section(section).map(|section| (section.offset as usize, section.size as usize));
    let (start, length) = part.unwrap_or((0, bytes.len()));
    for (at, value) in flips {
        bytes[start + at.index(length)] = *value;
    }
    bytes
}

const SECTIONS: [&str; 16] = [
    "",
    ".debug_info",
    ".debug_abbrev",
    ".debug_line",
    ".debug_rnglists",
    ".debug_aranges",
    ".debug_str",
    ".debug_line_str",
    ".symtab",
    ".strtab",
    ".dynsym",
    ".rela.plt",
    ".plt",
    ".note.gnu.build-id",
    ".shstrtab",
    "",
];

fn flips() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn changed_bytes_never_panic(flips in flips(), section in 0..SECTIONS.len()) {
        exhaust(flipped(file("inlined.so"), &flips, SECTIONS[section]));
    }

    #[test]
    fn changed_headers_never_panic(flips in prop::collection::vec((0usize..64, any::<u8>()), 1..4)) {
        let mut bytes = file("marked_stubs.so");
        flips.iter().for_each(|(at, value)| bytes[*at] = *value);
        exhaust(bytes);
    }

    #[test]
    fn changed_section_headers_never_panic(flips in flips()) {
        let mut bytes = file("mini.so");
        let headers = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) as usize;
        let length = bytes.len() - headers;
        flips.iter().for_each(|(at, value)| bytes[headers + at.index(length)] = *value);
        exhaust(bytes);
    }

    #[test]
    fn changed_debug_files_never_panic(flips in flips(), which in 0..5usize) {
        let names = ["inlined.debug", "zlib.debug", "zstd.debug", "zlib_gnu.debug", "no_id.debug"];
        let mut symbolizer = symbolizer("stripped.so");
        let _refused_or_taken = symbolizer.give_debug_file(flipped(file(names[which]), &flips, ".debug_info"));
        for at in (0x400..0x600).step_by(5) {
            let _names = symbolizer.lookup(at);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn changed_go_tables_never_panic(flips in flips(), near in 0usize..80, value: u8) {
        let mut bytes = flipped(unpacked("go1.xz"), &flips, ".gopclntab");
        let at = ElfImage::open(bytes.clone()).unwrap().section(".gopclntab").unwrap().offset as usize;
        bytes[at + near] = value;
        let mut symbolizer = Symbolizer::new(bytes).unwrap();
        for at in (0x40_1000..0x46_0000).step_by(4099) {
            let (_names, _start) = (symbolizer.lookup(at), symbolizer.function_start(at));
        }
    }
}
