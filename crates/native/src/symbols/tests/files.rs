//! Debug information outside the module: which files are wanted, which are refused, and what they add.

use super::support::{address, file, names, symbolizer};
use crate::{DebugFileRefusal, DebugFileRequest, NameSource, SymbolProblem, Symbolizer};

const CHAIN: [&str; 3] = ["[innermost inlined.c:10]", "[between inlined.c:15]", "outer inlined.c:19"];

fn place() -> u64 {
    address("inlined.so", "place_innermost")
}

#[test]
fn stripped_module_wants_its_debug_file_by_id_then_by_link() {
    let mut symbolizer = symbolizer("stripped.so");
    let id = symbolizer.build_id().unwrap();
    assert_eq!(id.len(), 20);
    assert_eq!(symbolizer.wanted_debug_file(), Some(&DebugFileRequest::BuildId(id)));
    symbolizer.skip_debug_file();
    let by_link = symbolizer.wanted_debug_file().unwrap();
    assert!(matches!(by_link, DebugFileRequest::Link { name, .. } if name == "inlined.debug"));
    symbolizer.skip_debug_file();
    assert_eq!(symbolizer.wanted_debug_file(), None);
}

#[test]
fn module_with_debug_information_wants_no_file() {
    assert_eq!(symbolizer("inlined.so").wanted_debug_file(), None);
}

#[test]
fn debug_file_adds_inlined_functions_and_lines() {
    for name in ["inlined.debug", "zlib.debug", "zstd.debug", "zlib_gnu.debug"] {
        let mut symbolizer = symbolizer("stripped.so");
        assert_eq!(names(symbolizer.lookup(place()).as_ref()), ["outer"]);
        assert!(!symbolizer.has_full_symbols());
        symbolizer.give_debug_file(file(name)).unwrap();
        assert_eq!(names(symbolizer.lookup(place()).as_ref()), CHAIN, "{name}");
        assert!(symbolizer.has_full_symbols());
        assert_eq!(symbolizer.wanted_debug_file(), None);
    }
}

#[test]
fn debug_file_of_another_build_is_refused() {
    let mut symbolizer = symbolizer("stripped.so");
    for other in ["shares_entries.debug", "no_id.debug"] {
        let refused = symbolizer.give_debug_file(file(other));
        assert!(matches!(refused, Err(DebugFileRefusal::OtherBuild { .. })), "{other}: {refused:?}");
    }
    let damaged = symbolizer.give_debug_file(b"no ELF".to_vec());
    assert_eq!(damaged, Err(DebugFileRefusal::Damaged(SymbolProblem::NotElf)));
    assert!(symbolizer.give_debug_file(file("inlined.debug")).is_ok());
    assert_eq!(symbolizer.give_debug_file(file("inlined.debug")), Err(DebugFileRefusal::NotWanted));
}

#[test]
fn checksum_counts_where_there_is_no_build_id() {
    let mut symbolizer = symbolizer("no_id.so");
    assert!(matches!(symbolizer.wanted_debug_file(), Some(DebugFileRequest::Link { .. })));
    let mut changed = file("no_id.debug");
    *changed.last_mut().unwrap() ^= 1;
    let refused = symbolizer.give_debug_file(changed);
    assert!(matches!(refused, Err(DebugFileRefusal::OtherChecksum { .. })), "{refused:?}");
    symbolizer.give_debug_file(file("no_id.debug")).unwrap();
    let chain = symbolizer.lookup(address("no_id.so", "outer") + 3);
    assert!(names(chain.as_ref()).last().unwrap().starts_with("outer inlined.c:"));
}

#[test]
fn symbols_in_debug_data_section_name_static_functions() {
    let mut symbolizer = symbolizer("mini.so");
    let chain = symbolizer.lookup(address("inlined.so", "place_hidden"));
    assert_eq!(names(chain.as_ref()), ["hidden"]);
    assert_eq!(chain.unwrap().source, NameSource::MiniDebugInfo);
    let mut without = Symbolizer::new(file("stripped.so")).unwrap();
    let place = address("inlined.so", "place_hidden");
    assert_ne!(names(without.lookup(place).as_ref()), ["hidden"]);
}

#[test]
fn entries_that_dwz_moved_are_found_in_the_shared_file() {
    let mut symbolizer = symbolizer("shares_entries.so");
    symbolizer.give_debug_file(file("shares_entries.debug")).unwrap();
    assert!(
        matches!(symbolizer.wanted_debug_file(), Some(DebugFileRequest::Shared { path, .. }) if path == "shared.dwz")
    );
    let place = address("shares_entries.so", "place_one");
    let without = names(symbolizer.lookup(place).as_ref());
    assert!(without.last().unwrap().starts_with("outer_one"), "{without:?}");
    assert!(symbolizer.give_debug_file(file("inlined.debug")).is_err());
    symbolizer.give_debug_file(file("shared.dwz")).unwrap();
    assert_eq!(
        names(symbolizer.lookup(place).as_ref()),
        ["[shared_inline other.c:9]", "outer_one other.c:12"]
    );
    assert_eq!(symbolizer.wanted_debug_file(), None);
}
