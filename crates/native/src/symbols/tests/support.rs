//! The files that the tests read, and what they say of addresses.

use std::path::Path;

use object::{Object, ObjectSymbol};

use crate::{FunctionAt, FunctionChain, Symbolizer};

/// An ELF file in memory.
pub type File = Vec<u8>;

/// The content of a file of `tests/data/symbols`.
pub fn file(name: &str) -> File {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/symbols");
    std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The content of a file of `tests/data/symbols` that is compressed.
pub fn unpacked(name: &str) -> File {
    crate::symbols::compressed::xz(&file(name), 8 << 20).unwrap()
}

/// A symbolizer of a file of `tests/data/symbols`.
pub fn symbolizer(name: &str) -> Symbolizer<File> {
    Symbolizer::new(file(name)).unwrap()
}

/// The address of a symbol in a file of `tests/data/symbols`.
pub fn address(name: &str, symbol: &str) -> u64 {
    let bytes = file(name);
    let file = object::read::elf::ElfFile64::<object::LittleEndian>::parse(&*bytes).unwrap();
    let mut symbols = file.symbols().chain(file.dynamic_symbols());
    let found = symbols.find(|other| other.name() == Ok(symbol) && other.is_definition());
    found.unwrap_or_else(|| panic!("{name} has no symbol {symbol}")).address()
}

/// A function of a chain as text: `name`, `name file:line`, in brackets if it is inlined.
pub fn drawn(function: &FunctionAt) -> String {
    let name = function.name.as_ref().map_or("?", |name| &*name.display);
    let short = |file: &str| file.rsplit('/').next().unwrap_or_default().to_owned();
    let place = function.file.as_ref().zip(function.line);
    let place = place.map_or(String::new(), |(file, line)| format!(" {}:{line}", short(file)));
    if function.is_inlined { format!("[{name}{place}]") } else { format!("{name}{place}") }
}

/// The functions of a chain as text; nothing if there is no chain.
pub fn names(chain: Option<&FunctionChain>) -> Vec<String> {
    chain.map(|chain| chain.functions.iter().map(drawn).collect()).unwrap_or_default()
}

/// The symbol of the function that is really called.
pub fn symbol(chain: Option<&FunctionChain>) -> Option<String> {
    let name = chain?.functions.last()?.name.as_ref()?;
    Some(name.symbol.to_string())
}

/// An ELF file of one executable segment at address 0x1000, which has these sections besides, none of them loaded.
pub fn elf_with(sections: &[(&str, &[u8])]) -> File {
    let mut names = vec![0u8];
    let (mut bytes, mut headers) = (vec![0u8; 64 + 56], vec![0u8; 64]);
    let mut add = |bytes: &mut Vec<u8>, names: &mut Vec<u8>, name: &str, kind: u32, content: &[u8]| {
        headers.extend([(names.len() as u32).to_le_bytes(), kind.to_le_bytes()].concat());
        names.extend(name.bytes().chain([0]));
        headers.extend(wide(&[0, 0, bytes.len() as u64, content.len() as u64, 0, 1, 0]));
        bytes.extend(content);
    };
    for (name, content) in sections {
        add(&mut bytes, &mut names, name, 1, content);
    }
    names.extend(b".shstrtab\0");
    let last = names.len() - 10;
    headers.extend([(last as u32).to_le_bytes(), 3u32.to_le_bytes()].concat());
    headers.extend(wide(&[0, 0, bytes.len() as u64, names.len() as u64, 0, 1, 0]));
    bytes.extend(&names);
    let headers_at = bytes.len() as u64;
    bytes.extend(&headers);
    let (count, section_count) = (1u16.to_le_bytes(), (sections.len() as u16 + 2).to_le_bytes());
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0".to_vec();
    header.extend(wide(&[0, 64, headers_at]));
    header.extend([0, 0, 0, 0, 64, 0, 56, 0, count[0], count[1], 64, 0, section_count[0], section_count[1]]);
    header.extend((sections.len() as u16 + 1).to_le_bytes());
    bytes[..64].copy_from_slice(&header);
    let segment = [1u32.to_le_bytes(), 5u32.to_le_bytes()].concat();
    bytes[64..72].copy_from_slice(&segment);
    bytes[72..120].copy_from_slice(&wide(&[0, 0x1000, 0x1000, 0x1000, 0x1000, 0x1000]));
    bytes
}

/// The numbers as eight little-endian bytes each.
pub fn wide(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}
