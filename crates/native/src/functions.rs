//! Where the functions of an ELF file are, by its symbol tables.

use std::ops::Range;

use gimli::{BaseAddresses, EhFrameHdr, LittleEndian, Pointer};
use object::read::elf::Dyn;
use object::read::{Object, ObjectSection, ObjectSymbol, ReadRef};
use object::{File, SymbolKind};

/// The most functions that are listed; the largest libraries have some hundred thousand.
const MAX_FUNCTIONS: usize = 1 << 21;

/// The size of an address.
const ADDRESS_BYTES: u8 = 8;

/// The most libraries that a file is taken to need.
const MAX_NEEDED: usize = 4096;

/// The addresses of the functions that the symbol tables of a file list, in the file's terms. Of one whose size is not known the end is
/// its start. Parts of functions that compilers moved elsewhere (`f.cold`) are not among them.
pub fn function_ranges<'a, R: ReadRef<'a>>(bytes: R) -> Vec<Range<u64>> {
    let Ok(file) = File::parse(bytes) else { return Vec::new() };
    let symbols = file.symbols().chain(file.dynamic_symbols());
    let functions = symbols.filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition());
    let whole = functions.filter(|symbol| !symbol.name_bytes().is_ok_and(is_part));
    whole
        .map(|symbol| symbol.address()..symbol.address().saturating_add(symbol.size()))
        .take(MAX_FUNCTIONS)
        .collect()
}

/// Where functions start by the index of the unwind information (`.eh_frame_hdr`), sorted: stripped files have it, too. A part of a
/// function that was moved elsewhere counts as one.
pub fn unwound_functions(bytes: &[u8]) -> Vec<u64> {
    let Ok(file) = File::parse(bytes) else { return Vec::new() };
    let section = |name| {
        let section = file.section_by_name(name)?;
        Some((section.address(), section.data().ok()?))
    };
    let (Some((address, data)), Some((frames, _))) = (section(".eh_frame_hdr"), section(".eh_frame")) else {
        return Vec::new();
    };
    let bases = BaseAddresses::default().set_eh_frame_hdr(address).set_eh_frame(frames);
    let header = EhFrameHdr::new(data, LittleEndian);
    let Ok(header) = header.parse(&bases, ADDRESS_BYTES) else { return Vec::new() };
    let Some(table) = header.table() else { return Vec::new() };
    let mut entries = table.iter(&bases);
    let mut starts = Vec::new();
    while let Ok(Some((Pointer::Direct(start), _))) = entries.next() {
        starts.push(start);
        if starts.len() >= MAX_FUNCTIONS {
            break;
        }
    }
    starts.sort_unstable();
    starts
}

/// Whether a symbol names a part of a function.
fn is_part(name: &[u8]) -> bool {
    name.windows(5).any(|part| part == b".cold")
}

/// The libraries that an ELF file needs, as it names them; none if it is no such file.
pub fn needed_libraries<'a, R: ReadRef<'a>>(bytes: R) -> Vec<String> {
    let Ok(object::File::Elf64(file)) = File::parse(bytes) else { return Vec::new() };
    let Ok(Some((entries, strings))) = file.elf_section_table().dynamic(file.endian(), bytes).map(|found| {
        found.map(|(entries, link)| (entries, file.elf_section_table().strings(file.endian(), bytes, link)))
    }) else {
        return Vec::new();
    };
    let Ok(strings) = strings else { return Vec::new() };
    let needed = entries.iter().filter(|entry| {
        entry.val32(file.endian()).is_some() && entry.tag(file.endian()) == object::elf::DT_NEEDED
    });
    let names = needed.filter_map(|entry| entry.string(file.endian(), strings).ok());
    names.take(MAX_NEEDED).map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INLINED: &[u8] = include_bytes!("../tests/data/symbols/inlined.so");
    const STRIPPED: &[u8] = include_bytes!("../tests/data/symbols/stripped.so");

    #[test]
    fn stripped_file_has_the_starts_of_its_functions() {
        let (functions, starts) = (function_ranges(INLINED), unwound_functions(INLINED));
        assert!(!functions.is_empty() && starts.is_sorted());
        let is_start = |function: &Range<u64>| starts.binary_search(&function.start).is_ok();
        assert!(functions.iter().filter(|function| !function.is_empty()).any(is_start));
        assert!(!unwound_functions(STRIPPED).is_empty());
    }

    #[test]
    fn parts_of_functions_are_recognised_by_name() {
        assert!(
            is_part(b"solve.cold") && is_part(b"solve.cold.3") && !is_part(b"cold") && !is_part(b"solve")
        );
    }

    #[test]
    fn own_program_needs_a_c_library() {
        let own = std::fs::read(std::env::current_exe().expect("its path")).expect("its bytes");
        assert!(needed_libraries(&*own).iter().any(|name| name.starts_with("libc.")));
    }

    #[test]
    fn cut_and_foreign_files_have_no_functions() {
        for length in [0, 3, 64, 200, INLINED.len() / 2, INLINED.len() - 1] {
            let cut = &INLINED[..length];
            let _ = (function_ranges(cut), unwound_functions(cut), needed_libraries(cut));
        }
        assert!(function_ranges(b"#!/bin/sh\n".as_slice()).is_empty());
        assert!(needed_libraries(b"".as_slice()).is_empty());
    }
}
