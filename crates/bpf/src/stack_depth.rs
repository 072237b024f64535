//! What the programs take of the kernel's stack. Before Linux 6.13 a program and all that it calls have 512 bytes together;
//! a newer kernel loads what an older one refuses, so nothing but a count tells on the machine at hand.

use std::collections::BTreeMap;

use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex, SymbolKind};

/// What the verifier allows for all functions on a path (`MAX_BPF_STACK`), ...
const MOST_BYTES: u64 = 512;
/// ... of each of which it takes a multiple of this.
const GRAIN: u64 = 32;

/// Instruction codes (include/uapi/linux/bpf.h).
const LOAD_ADDRESS: u8 = 0x18;
const ADD_NUMBER: u8 = 0x07;
const MOVE: u8 = 0xbf;
const CALL: u8 = 0x85;
const LDX: u8 = 1;
const ST: u8 = 2;
const STX: u8 = 3;
const FRAME_POINTER: u8 = 10;
const CALL_OF_FUNCTION: u8 = 1;

/// Where a function lies: the number of its section, and where in that.
type Place = (usize, u64);

#[derive(Debug)]
struct Function {
    name: String,
    stack_bytes: u64,
    callees: Vec<Place>,
}

struct Instruction {
    at: u64,
    code: u8,
    target: u8,
    source: u8,
    offset: i16,
    number: i32,
}

fn instructions(bytes: &[u8], start: u64) -> Vec<Instruction> {
    let decode = |(index, word): (usize, &[u8])| Instruction {
        at: start + index as u64 * 8,
        code: word[0],
        target: word[1] & 15,
        source: word[1] >> 4,
        offset: i16::from_le_bytes([word[2], word[3]]),
        number: i32::from_le_bytes([word[4], word[5], word[6], word[7]]),
    };
    bytes.chunks_exact(8).enumerate().map(decode).collect()
}

/// The lowest place of the stack that the instructions use or take the address of, below its top.
fn stack_bytes(instructions: &[Instruction]) -> u64 {
    let mut lowest = 0_i64;
    for (index, one) in instructions.iter().enumerate() {
        let base = match one.code & 7 {
            LDX => one.source,
            ST | STX => one.target,
            _ => 0,
        };
        if base == FRAME_POINTER {
            lowest = lowest.min(one.offset.into());
        }
        let is_address = |before: &Instruction| {
            before.code == MOVE && before.source == FRAME_POINTER && before.target == one.target
        };
        if one.code == ADD_NUMBER && index > 0 && is_address(&instructions[index - 1]) {
            lowest = lowest.min(one.number.into());
        }
    }
    lowest.unsigned_abs()
}

/// What an instruction calls, or takes the address of to have it called.
fn callee(
    object: &ElfFile64<'_>,
    (section, relocations): (SectionIndex, &BTreeMap<u64, RelocationTarget>),
    one: &Instruction,
) -> Option<Place> {
    let calls = one.code == CALL && one.source == CALL_OF_FUNCTION;
    let Some(relocation) = relocations.get(&one.at) else {
        let next = one.at.cast_signed() + 8;
        return calls.then(|| (section.0, (next + i64::from(one.number) * 8).cast_unsigned()));
    };
    let RelocationTarget::Symbol(symbol) = relocation else { return None };
    let symbol = object.symbol_by_index(*symbol).ok()?;
    if !matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Section) {
        return None;
    }
    // Calls count instructions from the one behind them, addresses count bytes.
    let within = if calls { (i64::from(one.number) + 1) * 8 } else { i64::from(one.number) };
    let is_code = calls || one.code == LOAD_ADDRESS;
    is_code.then_some((symbol.section_index()?.0, (symbol.address().cast_signed() + within).cast_unsigned()))
}

fn functions(object: &ElfFile64<'_>) -> BTreeMap<Place, Function> {
    let mut functions = BTreeMap::new();
    for symbol in object.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let index = symbol.section_index().unwrap();
        let section = object.section_by_index(index).unwrap();
        let bytes = section.data_range(symbol.address(), symbol.size()).unwrap().unwrap();
        let relocations = section.relocations().map(|(at, relocation)| (at, relocation.target())).collect();
        let instructions = instructions(bytes, symbol.address());
        let callees =
            instructions.iter().filter_map(|one| callee(object, (index, &relocations), one)).collect();
        let name = symbol.name().unwrap().to_owned();
        let function = Function { name, stack_bytes: stack_bytes(&instructions), callees };
        functions.insert((index.0, symbol.address()), function);
    }
    functions
}

/// What a function and the deepest path from it take together.
fn depth(functions: &BTreeMap<Place, Function>, function: &Function) -> u64 {
    let of_callee = |place: &Place| functions.get(place).map(|callee| depth(functions, callee));
    let deepest = function.callees.iter().filter_map(of_callee).max().unwrap_or(0);
    function.stack_bytes.max(1).next_multiple_of(GRAIN) + deepest
}

#[test]
fn old_kernels_have_stack_enough_for_every_program() {
    let object = ElfFile64::parse(crate::loader::OBJECT).unwrap();
    let functions = functions(&object);
    let depths: BTreeMap<&str, u64> =
        functions.values().map(|function| (function.name.as_str(), depth(&functions, function))).collect();
    // The paths are found: by the helper, and by calls of what calls the same.
    let callees = |name: &str| {
        let function = functions.values().find(|function| function.name == name).unwrap();
        let names: Vec<&str> =
            function.callees.iter().filter_map(|place| Some(functions.get(place)?.name.as_str())).collect();
        names
    };
    assert_eq!(callees("sample"), ["steps"]);
    assert_eq!(callees("sample_by_calls"), ["step_group"]);
    assert_eq!(callees("step_group"), ["steps"]);
    assert_eq!(callees("off_cpu_switch"), ["steps"]);
    assert!(depths["sample"] > depths["steps"] && depths["steps"] > GRAIN, "{depths:?}");
    for (name, bytes) in &depths {
        assert!(*bytes <= MOST_BYTES, "{name} takes {bytes} bytes of {MOST_BYTES}: {functions:#?}");
    }
}
