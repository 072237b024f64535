//! Names of C++, Rust, Fortran and Go.

use proptest::prelude::*;

use super::super::function_name::{MAX_NAME_BYTES, MAX_SYMBOL_BYTES};
use super::support::{address, names, symbol, symbolizer, unpacked};
use crate::{FunctionName, NameSource, Symbolizer};

fn display(symbol: &str) -> String {
    FunctionName::from_symbol(symbol).display.to_string()
}

#[test]
fn templates_operators_and_lambdas_are_demangled() {
    let mut symbolizer = symbolizer("templates.so");
    for (symbol, expected) in [
        ("_ZNK4grid5FieldIiLi4EE3sumERKi", "grid::Field<int, 4>::sum"),
        ("_ZNK4grid5FieldIdLi3EE3sumERKd", "grid::Field<double, 3>::sum"),
        ("_ZN4gridplERKNS_5FieldIiLi4EEES3_", "grid::operator+"),
        ("_ZZ9use_fieldENKUliE_clEi", "use_field::{lambda(int)#1}::operator()"),
        ("use_field", "use_field"),
    ] {
        let found = symbolizer.lookup(address("templates.so", symbol));
        assert_eq!(names(found.as_ref()), [expected]);
    }
}

#[test]
fn rust_names_of_both_kinds_lose_their_hashes() {
    for (file, prefix) in [("rust_v0.so", "_RNvX"), ("rust_legacy.so", "_ZN74_")] {
        let bytes = super::support::file(file);
        let elf = object::read::elf::ElfFile64::<object::LittleEndian>::parse(&*bytes).unwrap();
        let mut symbols = object::Object::symbols(&elf);
        let area = symbols.find(|symbol| object::ObjectSymbol::name(symbol).unwrap().starts_with(prefix));
        let area = object::ObjectSymbol::address(&area.unwrap());
        let found = symbolizer(file).lookup(area);
        assert_eq!(names(found.as_ref()), ["<mangled::shapes::Pair<u32> as mangled::shapes::Area>::area"]);
        assert!(symbol(found.as_ref()).unwrap().starts_with(prefix));
    }
}

#[test]
fn fortran_procedures_lose_their_decoration() {
    let mut symbolizer = symbolizer("fortran.so");
    let procedure = symbolizer.lookup(address("fortran.so", "dgelsd_"));
    assert!(names(procedure.as_ref()).last().unwrap().starts_with("dgelsd solver.f90:"));
    assert_eq!(symbol(procedure.as_ref()).as_deref(), Some("dgelsd_"));
    let advance = symbolizer.lookup(address("fortran.so", "__grid_MOD_advance"));
    assert!(names(advance.as_ref()).last().unwrap().starts_with("grid::advance solver.f90:"));
    // Without debug information nothing says that the underscore is Fortran's.
    assert_eq!(display("dgelsd_"), "dgelsd_");
    assert_eq!(display("__grid_MOD_advance"), "grid::advance");
}

#[test]
fn suffixes_of_compilers_are_left_out() {
    for (symbol, expected) in [
        ("work.cold", "work"),
        ("work.part.0", "work"),
        ("work.constprop.0.isra.3.cold", "work"),
        ("work.llvm.123456", "work"),
        ("_ZN4grid4stepEi.isra.0", "grid::step"),
        ("main.main", "main.main"),
        (".cold", ".cold"),
        ("odd.0", "odd.0"),
        ("cold", "cold"),
    ] {
        assert_eq!(display(symbol), expected);
    }
}

#[test]
fn stripped_go_programs_have_names_files_and_lines() {
    for (file, version) in [("go1.xz", 1), ("go2.xz", 2)] {
        let bytes = unpacked(file);
        let image = super::super::elf_image::ElfImage::open(bytes.clone()).unwrap();
        let text = image.section(".text").unwrap().clone();
        let mut symbolizer = Symbolizer::new(bytes).unwrap();
        let mut found = std::collections::BTreeMap::new();
        let mut at = text.address;
        while at < text.address + text.size {
            if let Some(chain) = symbolizer.lookup(at) {
                assert_eq!(chain.source, NameSource::GoTable);
                found.entry(symbol(Some(&chain)).unwrap()).or_insert((at, names(Some(&chain)).remove(0)));
            }
            at += 16;
        }
        for (name, expected) in [
            ("main.add", "main.add main.go:6"),
            ("main.(*counter).count", "main.(*counter).count main.go:16"),
            ("main.main", "main.main main.go:18"),
        ] {
            let (at, drawn) = &found[name];
            assert_eq!(drawn, expected, "Go version {version}");
            assert_eq!(symbolizer.function_start(at + 3), Some(*at));
        }
        assert!(found.len() > 500 && found.contains_key("runtime.mallocgc"), "{}", found.len());
        assert_eq!(symbolizer.problems(), []);
    }
}

#[test]
fn long_and_deep_names_are_cut() {
    let long = "n".repeat(1 << 20);
    let name = FunctionName::from_symbol(&long);
    assert!(name.symbol.len() <= MAX_SYMBOL_BYTES + 3 && name.display.len() <= MAX_NAME_BYTES + 3);
    assert!(name.display.ends_with('…'));
    let deep = format!("_Z{}i", "1fI".repeat(3000));
    assert!(display(&deep).len() <= MAX_NAME_BYTES + 3);
    let growing = format!("_Z1fI{}E", (0..200).map(|_| "St4pairIS_S_ES0_").collect::<String>());
    assert!(display(&growing).len() <= MAX_NAME_BYTES + 3);
    let wide = format!("_ZN{}E", "3abc".repeat(1500));
    assert!(display(&wide).ends_with('…'));
}

#[test]
fn substitutions_that_double_a_name_end_soon() {
    // Each pair holds the one before twice: two to the power of fifty characters.
    let mut symbol = "_Z1fI4pairIiiE".to_owned();
    for index in 1..50u32 {
        let digit = |number: u32| char::from_digit(number, 36).unwrap().to_ascii_uppercase();
        let previous = match index - 1 {
            number @ 0..36 => format!("S{}_", digit(number)),
            number => format!("S1{}_", digit(number - 36)),
        };
        symbol.push_str(&format!("S_I{previous}{previous}E"));
    }
    symbol.push_str("Evv");
    assert!(display(&symbol).len() <= MAX_NAME_BYTES + 3);
    let rust = format!("_RNvC1a{}", "TB_B_E".repeat(500));
    assert!(display(&rust).len() <= MAX_NAME_BYTES + 3);
}

#[test]
fn control_characters_in_names_are_kept_for_the_drawer() {
    assert_eq!(display("evil\x1b[2J\n"), "evil\x1b[2J\n");
    assert_eq!(display("_Z4\x1b[2Jv"), "_Z4\x1b[2Jv");
    assert_eq!(display(""), "");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_symbol_has_a_bounded_name(symbol in "(_Z|_R|_ZN|_RNv|__|)[A-Za-z0-9_.$]{0,80}") {
        let name = FunctionName::from_symbol(&symbol);
        prop_assert!(name.display.len() <= MAX_NAME_BYTES + 3);
        prop_assert_eq!(&*name.symbol, &*symbol);
    }

    #[test]
    fn any_text_has_a_name(symbol in "\\PC{0,60}") {
        prop_assert_eq!(&*FunctionName::from_symbol(&symbol).symbol, &*symbol);
    }
}
