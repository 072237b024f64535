//! Names of C and assembly, by debug information and symbol tables.

use super::support::{address, names, symbol, symbolizer};
use crate::NameSource;

#[test]
fn inlined_functions_are_named_innermost_first() {
    let mut symbolizer = symbolizer("inlined.so");
    let chain = symbolizer.lookup(address("inlined.so", "place_innermost"));
    let expected = ["[innermost inlined.c:10]", "[between inlined.c:15]", "outer inlined.c:19"];
    assert_eq!(names(chain.as_ref()), expected);
    assert_eq!(chain.unwrap().source, NameSource::DebugInfo);
    let outer = symbolizer.lookup(address("inlined.so", "place_outer"));
    assert_eq!(names(outer.as_ref()), ["outer inlined.c:21"]);
    assert_eq!(symbolizer.problems(), []);
}

#[test]
fn cold_part_keeps_its_symbol_and_shows_its_function() {
    let mut symbolizer = symbolizer("inlined.so");
    let chain = symbolizer.lookup(address("inlined.so", "split.cold"));
    assert!(names(chain.as_ref())[0].starts_with("split inlined.c:"));
    assert_eq!(symbol(chain.as_ref()).as_deref(), Some("split.cold"));
    let hot = symbolizer.lookup(address("inlined.so", "split"));
    assert_eq!(symbol(hot.as_ref()).as_deref(), Some("split"));
}

#[test]
fn best_of_several_names_is_chosen() {
    let mut symbolizer = symbolizer("stripped.so");
    let chain = symbolizer.lookup(address("inlined.so", "outer") + 1);
    assert_eq!(names(chain.as_ref()), ["outer"]);
    assert_eq!(chain.unwrap().source, NameSource::SymbolTable);
}

#[test]
fn name_in_debug_information_chooses_among_symbols() {
    let place = address("inlined.so", "written_in_source") + 1;
    let with = symbolizer("inlined.so").lookup(place);
    assert!(names(with.as_ref())[0].starts_with("written_in_source inlined.c:"));
    assert_eq!(symbol(with.as_ref()).as_deref(), Some("written_in_source"));
    let without = symbolizer("mini.so").lookup(place);
    assert_eq!(symbol(without.as_ref()).as_deref(), Some("aliased"));
}

#[test]
fn stubs_are_named_by_their_targets() {
    for (name, section, entry) in
        [("stripped.so", ".plt", 1), ("marked_stubs.so", ".plt.sec", 0), ("marked_stubs.so", ".plt", 1)]
    {
        let image = super::super::elf_image::ElfImage::open(super::support::file(name)).unwrap();
        let start = image.section(section).unwrap().address;
        let mut symbolizer = symbolizer(name);
        let mut found = [0, 1].map(|stub| {
            let chain = symbolizer.lookup(start + 16 * (entry + stub) + 6);
            assert_eq!(chain.as_ref().unwrap().source, NameSource::Stub);
            names(chain.as_ref()).remove(0)
        });
        found.sort();
        assert_eq!(found, ["external_abort@plt", "external_work@plt"], "{name} {section}");
        assert_eq!(symbolizer.function_start(start + 16 * entry + 6), Some(start + 16 * entry));
    }
}

#[test]
fn several_executable_segments_are_told_apart() {
    let mut symbolizer = symbolizer("segments.so");
    let second = address("segments.so", "second_function");
    assert_eq!(names(symbolizer.lookup(second + 1).as_ref()), ["second_function"]);
    assert_eq!(symbolizer.address_of_offset(0x1001), Some(0x1001));
    assert_eq!(symbolizer.address_of_offset(0x2001), Some(0x40001));
    assert_eq!(symbolizer.address_of_offset(0x9000), None);
    assert_eq!(symbolizer.lookup(0x80000), None);
    assert_eq!(symbolizer.lookup(u64::MAX), None);
}

#[test]
fn functions_without_size_end_at_the_next_one() {
    let mut symbolizer = symbolizer("segments.so");
    let [unsized_function, label, sized] =
        ["unsized_function", "untyped_label", "sized_function"].map(|name| address("segments.so", name));
    assert_eq!(names(symbolizer.lookup(unsized_function + 3).as_ref()), ["unsized_function"]);
    assert_eq!(names(symbolizer.lookup(label + 1).as_ref()), ["untyped_label"]);
    assert_eq!(names(symbolizer.lookup(sized + 1).as_ref()), ["sized_function"]);
    // Padding after a function with a size belongs to nothing.
    assert_eq!(names(symbolizer.lookup(sized + 5).as_ref()), [""; 0]);
}

#[test]
fn start_of_a_function_is_found_with_and_without_size() {
    let mut symbolizer = symbolizer("segments.so");
    for name in ["unsized_function", "untyped_label", "sized_function", "second_function"] {
        let start = address("segments.so", name);
        assert_eq!(symbolizer.function_start(start + 1), Some(start), "{name}");
    }
    assert_eq!(symbolizer.function_start(0x90000), None);
}

#[test]
fn labels_within_a_function_do_not_name_it() {
    let mut symbolizer = symbolizer("mini.so");
    let place = address("inlined.so", "place_innermost");
    assert_eq!(names(symbolizer.lookup(place).as_ref()), ["outer"]);
    assert_eq!(symbolizer.function_start(place), Some(address("inlined.so", "outer")));
}

#[test]
fn memory_in_use_is_reported() {
    let mut symbolizer = symbolizer("inlined.so");
    assert_eq!(symbolizer.memory(), 0);
    let chain = symbolizer.lookup(address("inlined.so", "outer"));
    assert!(chain.is_some() && (1000..20_000).contains(&symbolizer.memory()));
}
