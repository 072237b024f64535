//! Walks by hand-made rows over hand-made stacks.

use profiler_memory::Snapshot;

use super::*;
use crate::modules::ModuleIndex;
use crate::test_image::{Frames, with_frames, with_frames_and_code};

const STACK: u64 = 0x7ffc_0000_0000;
const RBX: usize = 3;
const RBP: usize = 6;
const RSP: usize = 7;

/// The module that all code is in.
const MODULE: ModuleIndex = ModuleIndex::new(0);

fn pc(offset: u64) -> u64 {
    BIAS + CODE + offset
}

/// Registers with this program counter, the stack pointer at [`STACK`] and the other registers as given.
fn registers(rip: u64, others: &[(usize, u64)]) -> UnwindRegisters {
    let mut general = [0; 16];
    general[RSP] = STACK;
    others.iter().for_each(|(register, value)| general[*register] = *value);
    UnwindRegisters::new(general, rip)
}

fn stack(words: &[u64]) -> Snapshot {
    let mut memory = Snapshot::new();
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.insert(RemoteAddr::new(STACK), &bytes);
    memory
}

/// Adds the code of the process to its memory.
fn with_code(mut memory: Snapshot, code: &[u8]) -> Snapshot {
    memory.insert(RemoteAddr::new(BIAS + CODE), code);
    memory
}

/// The offsets of the frames behind the start of the code, and why the walk ended.
fn walked(file: &[u8], registers: UnwindRegisters, memory: &Snapshot) -> (Vec<u64>, UnwindEnd) {
    let (frames, end) = frames(file, registers, memory);
    (frames.iter().map(|frame| frame.address.offset - CODE).collect(), end)
}

fn frames(file: &[u8], registers: UnwindRegisters, memory: &Snapshot) -> (Vec<NativeFrame>, UnwindEnd) {
    let table = table(file);
    let mut frames = Vec::new();
    let end = walk(registers, memory, &modules(file), |_| Some(&table), &mut frames);
    (frames, end)
}

/// A leaf at 0, a function with a frame pointer at 0x100, one that saved rbx at 0x200 and the first one at 0x300.
fn program() -> Vec<u8> {
    let frames = Frames::new()
        .function(0, 0x10, &[])
        .function(0x100, 0x10, &[0x0c, 6, 16, 0x86, 2])
        .function(0x200, 0x10, &[0x0e, 24, 0x83, 2])
        .function(0x300, 0x10, &[0x07, 16]);
    with_frames(&frames.bytes())
}

#[test]
fn walk_reaches_the_root_by_rows() {
    // The leaf's return address; the frame of rbp; the frame of rbx.
    let memory = stack(&[pc(0x108), 1, STACK + 0x80, pc(0x205), 2, 3, pc(0x310), 0]);
    let (frames, end) = frames(&program(), registers(pc(4), &[(RBP, STACK + 16)]), &memory);
    // The last call is the last instruction of its function.
    let offsets: Vec<u64> = frames.iter().map(|frame| frame.address.offset - CODE).collect();
    assert_eq!((offsets, end), (vec![4, 0x107, 0x204, 0x30f], UnwindEnd::Root));
    let pointers: Vec<u64> = frames.iter().map(|frame| frame.stack_pointer.as_u64() - STACK).collect();
    assert_eq!(pointers, [0, 8, 32, 56]);
    assert_eq!(frames[0].kind, NativeFrameKind::Interrupted);
    assert!(frames[1..].iter().all(|frame| frame.kind == NativeFrameKind::Called));
    assert_eq!(frames[3].pc, RemoteAddr::new(pc(0x310)));
}

#[test]
fn end_has_its_reason() {
    let ended = |rip, words: &[u64]| walked(&program(), registers(rip, &[(RBP, STACK - 16)]), &stack(words));
    assert_eq!(ended(pc(0x80), &[]), (vec![0x80], UnwindEnd::NoRule(MODULE)));
    assert_eq!(ended(pc(0), &[]), (vec![0], UnwindEnd::Unreadable(RemoteAddr::new(STACK))));
    assert_eq!(ended(pc(0), &[0x1234]), (vec![0], UnwindEnd::NoModule(RemoteAddr::new(0x1234))));
    assert_eq!(ended(0x1234, &[]), (vec![], UnwindEnd::NoModule(RemoteAddr::new(0x1234))));
    // The frame pointer lies below the stack pointer.
    let mut memory = stack(&[0]);
    memory.insert(RemoteAddr::new(STACK - 16), &[0; 16]);
    let registers = registers(pc(0x108), &[(RBP, STACK - 16)]);
    assert_eq!(walked(&program(), registers, &memory), (vec![0x108], UnwindEnd::NotUpwards(MODULE)));
}

#[test]
fn register_that_calls_do_not_preserve_is_unknown_in_callers() {
    let frames = Frames::new().function(0, 0x10, &[]).function(0x100, 0x10, &[0x0c, 10, 8]);
    let file = with_frames(&frames.bytes());
    let memory = stack(&[pc(0x108), pc(0x108)]);
    let registers = |rip| registers(rip, &[(10, STACK)]);
    assert_eq!(walked(&file, registers(pc(0)), &memory).1, UnwindEnd::UnknownRegister(MODULE));
    // In the frame that the thread is at it is known.
    assert_eq!(walked(&file, registers(pc(0x100)), &memory).0, [0x100, 0x107]);
}

#[test]
fn deep_recursion_ends_at_the_limit() {
    let words = vec![pc(8); 40_000];
    let (frames, end) = walked(&program(), registers(pc(8), &[]), &stack(&words));
    assert_eq!((frames.len(), end), (16_384, UnwindEnd::TooDeep));
}

#[test]
fn signal_frame_restores_all_registers_and_the_exact_instruction() {
    // mov $15,%rax; syscall
    let trampoline = [0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90];
    let functions = Frames::new().function(0x100, 0x10, &[]).function(0x200, 0x10, &[0x0c, 10, 8]);
    let code = [&[0x90; 0x20][..], &trampoline].concat();
    let file = with_frames_and_code(&functions.bytes(), &code);
    // A handler that returns to the trampoline; behind its return address r8 to r15 and so on.
    let mut words = vec![0; 40];
    words[0] = pc(0x20);
    words[1 + 5 + 2] = STACK + 0x100;
    words[1 + 5 + 15] = STACK + 0x108;
    words[1 + 5 + 16] = pc(0x200);
    words[0x100 / 8] = 0x1234;
    let memory = with_code(stack(&words), &code);
    let (found, end) = frames(&file, registers(pc(0x104), &[]), &memory);
    let seen: Vec<_> = found.iter().map(|frame| (frame.address.offset - CODE, frame.kind)).collect();
    let expected = [
        (0x104, NativeFrameKind::Interrupted),
        (0x20, NativeFrameKind::Signal),
        (0x200, NativeFrameKind::Interrupted),
    ];
    assert_eq!(seen, expected);
    assert_eq!(end, UnwindEnd::NotUpwards(MODULE));
}

#[test]
fn linkage_table_and_indexed_memory_lead_to_the_caller() {
    let linkage = [0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
    let indexed = [0x0f, 10, 0x77, 8, 0x79, 0, 0x38, 0x1e, 0x22, 0x06, 0x23, 8];
    let frames = Frames::new().function(0, 0x10, &linkage).function(0x100, 0x10, &indexed).function(
        0x300,
        0x10,
        &[0x07, 16],
    );
    let file = with_frames(&frames.bytes());
    let memory = stack(&[pc(0x305), pc(0x306), STACK + 32, 0, pc(0x307)]);
    let walked = |rip| walked(&file, registers(rip, &[(9, 1)]), &memory);
    assert_eq!(walked(pc(10)), (vec![10, 0x304], UnwindEnd::Root));
    assert_eq!(walked(pc(11)), (vec![11, 0x305], UnwindEnd::Root));
    assert_eq!(walked(pc(0x100)), (vec![0x100, 0x306], UnwindEnd::Root));
}

#[test]
fn frame_pointer_without_rows_is_proved_by_the_code() {
    // At 0x10 a function with a frame pointer, which calls by a register, and at 0x20 code that nothing leads to; at 0x40 such a
    // call; at 0x60 a call of the function.
    let mut code = vec![0xcc; 0x200];
    code[0x10..0x16].copy_from_slice(&[0x55, 0x48, 0x89, 0xe5, 0xff, 0xd0]);
    code[0x16..0x18].copy_from_slice(&[0x5d, 0xc3]);
    code[0x20..0x22].copy_from_slice(&[0xff, 0xd0]);
    code[0x40..0x42].copy_from_slice(&[0xff, 0xd0]);
    code[0x60..0x65].copy_from_slice(&[0xe8, 0xab, 0xff, 0xff, 0xff]);
    let frames = Frames::new().function(0x41, 1, &[0x07, 16]).function(0x64, 1, &[0x07, 16]);
    let frames = frames.function(0x100, 0x10, &[]);
    let file = with_frames_and_code(&frames.bytes(), &code);
    // Code from 0x200 before the program counter on can be read.
    let mut before = vec![0xcc; 0x200];
    before.extend(&code);
    let walked = |rip, words: &[u64]| {
        let mut memory = stack(words);
        memory.insert(RemoteAddr::new(BIAS + CODE - 0x200), &before);
        walked(&file, registers(rip, &[(RBP, STACK + 8)]), &memory)
    };
    // A leaf with rows, whose caller has none, but was called by name, or by a register.
    assert_eq!(walked(pc(0x100), &[pc(0x16), 0, pc(0x65)]), (vec![0x100, 0x15, 0x64], UnwindEnd::Root));
    assert_eq!(walked(pc(0x100), &[pc(0x16), 0, pc(0x42)]), (vec![0x100, 0x15, 0x41], UnwindEnd::Root));
    // Its own instructions tell whether the frame pointer is no more that of the function. Before it is, nothing is known.
    assert_eq!(walked(pc(0x11), &[0, pc(0x42)]), (vec![0x11], UnwindEnd::NoRule(MODULE)));
    assert_eq!(walked(pc(0x17), &[pc(0x42)]), (vec![0x17, 0x41], UnwindEnd::Root));
    // No call before the return address; code that nothing leads to.
    assert_eq!(walked(pc(0x100), &[pc(0x16), 0, pc(0x43)]), (vec![0x100, 0x15], UnwindEnd::NoRule(MODULE)));
    assert_eq!(walked(pc(0x100), &[pc(0x22), 0, pc(0x42)]), (vec![0x100, 0x21], UnwindEnd::NoRule(MODULE)));
}

#[test]
fn thread_of_a_c_library_without_rows_ends_at_its_exit() {
    let code = [0xff, 0xd0, 0x89, 0xc7, 0x31, 0xc0, 0xb0, 0x3c, 0x0f, 0x05];
    let file = with_frames_and_code(&Frames::new().function(0x100, 0x10, &[]).bytes(), &code);
    let memory = with_code(stack(&[pc(2)]), &code);
    assert_eq!(walked(&file, registers(pc(0x100), &[]), &memory), (vec![0x100, 1], UnwindEnd::Root));
}

#[test]
fn goroutine_ends_where_it_was_made_to_return_to() {
    // nop; call; nop
    let code = [0x90, 0xe8, 0, 0, 0, 0, 0x90, 0xcc];
    let frames = Frames::new().function(0, 7, &[]).function(0x100, 0x10, &[]);
    let file = with_frames_and_code(&frames.bytes(), &code);
    let ended = |code: &[u8]| walked(&file, registers(pc(0x100), &[]), &with_code(stack(&[pc(1), 0]), code));
    assert_eq!(ended(&code), (vec![0x100, 0], UnwindEnd::Root));
    assert_eq!(ended(&[0x90; 8]), (vec![0x100, 0], UnwindEnd::NoModule(RemoteAddr::NULL)));
}

#[test]
fn rule_from_code_needs_a_call_before_the_return_address() {
    let mut code = vec![0x90; 0x20];
    code[..2].copy_from_slice(&[0x53, 0x5b]);
    code[2] = 0xc3;
    code[0x10..0x12].copy_from_slice(&[0xff, 0xd0]);
    let frames = Frames::new().function(0x11, 4, &[0x07, 16]);
    let file = with_frames_and_code(&frames.bytes(), &code);
    let table = compile(&ElfImage::parse(file.as_slice()).unwrap(), None, std::iter::once(CODE..CODE + 3));
    let ended = |return_address| {
        let memory = with_code(stack(&[7, return_address]), &code);
        let (mut frames, modules) = (Vec::new(), modules(&file));
        let registers = registers(pc(1), &[(RBX, 5)]);
        let end = walk(registers, &memory, &modules, |_| Some(&table), &mut frames);
        (frames.len(), end)
    };
    assert_eq!(ended(pc(0x12)), (2, UnwindEnd::Root));
    assert_eq!(ended(pc(0x13)), (1, UnwindEnd::NoCall(MODULE)));
}
