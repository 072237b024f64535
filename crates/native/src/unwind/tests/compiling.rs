//! Rows and rules out of unwind information.

use super::*;
use crate::test_image::{Frames, with_frames, with_frames_and_code};
use crate::unwind::rule::RETURN_ADDRESS;

/// `push %rbp`, then `mov %rsp,%rbp`, as a compiler describes them.
const FRAME_POINTER: &[u8] = &[0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6];

/// `DW_CFA_def_cfa_expression` and `DW_CFA_expression` of a register.
fn cfa_expression(expression: &[u8]) -> Vec<u8> {
    [&[0x0f, expression.len() as u8], expression].concat()
}

fn register_expression(register: u8, expression: &[u8]) -> Vec<u8> {
    [&[0x10, register, expression.len() as u8], expression].concat()
}

/// The rule of a function with these instructions, which starts with the code.
fn rule_of(instructions: &[u8]) -> Option<UnwindRule> {
    let frames = Frames::new().function(0, 0x100, instructions);
    table(&with_frames(&frames.bytes())).find(CODE).copied()
}

#[test]
fn rows_have_gaps_between_functions() {
    let frames = Frames::new().function(0x200, 0x10, &[]).function(0, 0x100, FRAME_POINTER);
    let table = table(&with_frames(&frames.bytes()));
    let starts: Vec<(u64, bool)> = (table.rows().iter())
        .map(|row| (u64::from(row.start) + table.base() - CODE, row.rule != UnwindRow::NO_RULE))
        .collect();
    let expected = [(0, true), (1, true), (4, true), (0x100, false), (0x200, true), (0x210, false)];
    assert_eq!(starts, expected);
    let framed = table.find(CODE + 4).unwrap();
    assert_eq!((framed.cfa_register, framed.cfa_offset), (6, 16));
    assert_eq!(framed.registers[1], RegisterRule::at_cfa(-16));
    assert_eq!(table.find(CODE + 0x200), Some(&UnwindRule::plain(7, 8)));
    assert_eq!((table.find(CODE + 0x1ff), table.find(CODE + 0x210), table.find(0)), (None, None, None));
    // The plain rule is shared.
    assert_eq!((table.rules().len(), table.counts().entries), (3, 2));
}

#[test]
fn layout_of_rows_and_rules_has_no_padding() {
    assert_eq!((size_of::<UnwindRow>(), size_of::<RegisterRule>(), size_of::<UnwindRule>()), (8, 8, 68));
}

#[test]
fn cfa_in_memory_and_by_other_registers_is_a_rule() {
    // breg6 -40, deref: the frame is realigned.
    let realigned = rule_of(&cfa_expression(&[0x76, 0x58, 0x06])).unwrap();
    assert_eq!((realigned.cfa, realigned.cfa_register, realigned.cfa_offset), (CfaKind::Memory, 6, -40));
    // breg7 152, deref, plus 8: the old stack pointer is kept on the new stack.
    let moved = rule_of(&cfa_expression(&[0x77, 0x98, 0x01, 0x06, 0x23, 8])).unwrap();
    assert_eq!((moved.cfa, moved.cfa_offset, moved.cfa_addend), (CfaKind::Memory, 152, 8));
    // breg7 8, breg9 0, 8, times, plus, deref, plus 8.
    let indexed = rule_of(&cfa_expression(&[0x77, 8, 0x79, 0, 0x38, 0x1e, 0x22, 0x06, 0x23, 8])).unwrap();
    assert_eq!((indexed.cfa, indexed.cfa_operand, indexed.cfa_offset), (CfaKind::IndexedMemory, 9, 8));
    // def_cfa r10 0.
    let by_r10 = rule_of(&[0x0c, 10, 0]).unwrap();
    assert_eq!((by_r10.cfa, by_r10.cfa_register, by_r10.cfa_offset), (CfaKind::Register, 10, 0));
}

#[test]
fn linkage_table_depends_on_the_program_counter() {
    let expression = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
    let rule = rule_of(&cfa_expression(&expression)).unwrap();
    assert_eq!((rule.cfa, rule.cfa_operand, rule.cfa_offset), (CfaKind::LinkageTable, 11, 8));
}

#[test]
fn saved_registers_are_found_by_expressions() {
    // rbx at breg6 -48; r12 at ((CFA - 8) & -64) - 136.
    let aligned = [0x38, 0x1c, 0x09, 0xc0, 0x1a, 0x0b, 0x78, 0xff, 0x22];
    let instructions = [register_expression(3, &[0x76, 0x50]), register_expression(12, &aligned)].concat();
    let rule = rule_of(&instructions).unwrap();
    assert_eq!(rule.registers[0], RegisterRule::new(RegisterKind::AtRegister, 6, -48));
    let expected = RegisterRule {
        kind: RegisterKind::AtAlignedCfa,
        register: 0,
        alignment: 6,
        addend: -8,
        offset: -136,
    };
    assert_eq!(rule.registers[2], expected);
}

#[test]
fn undefined_return_address_is_the_outermost_frame() {
    assert!(rule_of(&[0x07, 16]).unwrap().is_outermost());
}

#[test]
fn return_address_in_a_register_is_a_rule() {
    let rule = rule_of(&[0x09, 16, 11]).unwrap();
    assert_eq!(rule.registers[RETURN_ADDRESS], RegisterRule::new(RegisterKind::InRegister, 11, 0));
}

#[test]
fn signal_frame_is_recognised_by_its_registers() {
    let offsets = [144, 136, 152, 128, 112, 104, 120, 160, 40, 48, 56, 64, 72, 80, 88, 96, 168_u32];
    let instructions = |offsets: &[u32]| {
        let places = offsets.iter().enumerate().flat_map(|(register, offset)| {
            register_expression(register as u8, &[0x77, (offset & 127) as u8 | 128, (offset >> 7) as u8])
        });
        [cfa_expression(&[0x77, 0xa0, 0x01, 0x06]), places.collect()].concat()
    };
    let compiled = |instructions: &[u8]| {
        table(&with_frames(&Frames::of_signals().function(0, 16, instructions).bytes()))
    };
    let rule = *compiled(&instructions(&offsets)).find(CODE).unwrap();
    assert!(rule.is_signal_frame());
    assert_eq!((rule.cfa_register, rule.cfa_offset), (7, 40));
    let mut wrong = offsets;
    wrong[3] += 8;
    let wrong = compiled(&instructions(&wrong));
    assert_eq!((wrong.find(CODE), wrong.counts().unsupported_rows), (None, 1));
}

#[test]
fn unknown_shapes_are_counted_and_leave_gaps() {
    // breg7 0, deref, deref.
    let frames = Frames::new().function(0, 16, &cfa_expression(&[0x77, 0, 6, 6])).function(
        16,
        16,
        &register_expression(3, &[0x77, 0, 6]),
    );
    let table = table(&with_frames(&frames.bytes()));
    assert_eq!(table.find(CODE), None);
    assert_eq!(table.find(CODE + 16).unwrap().registers[0], RegisterRule::UNKNOWN);
    assert_eq!((table.counts().unsupported_rows, table.counts().unsupported_registers), (1, 1));
}

#[test]
fn misplaced_and_broken_entries_are_counted() {
    let frames = Frames::new()
        .function(0, 64, &[])
        .function(32, 64, &[])
        .function(1 << 20, 16, &[])
        // restore_state without a state.
        .function(128, 16, &[0x0b]);
    let mut bytes = frames.bytes();
    let end = bytes.len() - 4;
    bytes[end..].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    let table = table(&with_frames(&bytes));
    let counts = table.counts();
    assert_eq!((counts.misplaced, counts.malformed), (2, 2));
    assert_eq!(table.find(CODE + 40), Some(&UnwindRule::plain(7, 8)));
    assert_eq!(table.find(CODE + 70), None);
}

#[test]
fn shared_entry_of_excessive_length_is_refused() {
    let mut frames = Frames::new().bytes();
    let nops = vec![0; 8192];
    let length = (frames.len() - 8 + nops.len()) as u32;
    frames.truncate(frames.len() - 4);
    frames[..4].copy_from_slice(&length.to_le_bytes());
    frames.extend(nops);
    // A function of that entry.
    let start = frames.len() as u32;
    for number in [16, start + 4, 0, 16] {
        frames.extend(u32::to_le_bytes(number));
    }
    frames.extend([0; 8]);
    let table = table(&with_frames(&frames));
    assert_eq!((table.counts().malformed, table.rows().len()), (1, 0));
}

#[test]
fn function_without_frames_is_followed_by_its_instructions() {
    // sub $0x60,%rsp; mov %rbx,(%rsp); mov %rsp,%rbx; and $-4096,%rsp; nop; mov %rbx,%rsp; mov (%rsp),%rbx;
    // add $0x60,%rsp; ret
    let code = [
        0x48, 0x83, 0xec, 0x60, 0x48, 0x89, 0x1c, 0x24, 0x48, 0x89, 0xe3, 0x48, 0x81, 0xe4, 0x00, 0xf0, 0xff,
        0xff, 0x90, 0x48, 0x89, 0xdc, 0x48, 0x8b, 0x1c, 0x24, 0x48, 0x83, 0xc4, 0x60, 0xc3,
    ];
    let frames = Frames::new().function(0x100, 0x10, &[]);
    let file = with_frames_and_code(&frames.bytes(), &code);
    let image = ElfImage::parse(file.as_slice()).unwrap();
    // Its size is not known: it ends where the next function starts. The other one has rows.
    let table = compile(&image, None, [CODE..CODE, CODE + 0x100..CODE + 0x110, CODE + 31..CODE + 31]);
    assert_eq!((table.counts().followed, table.counts().refused), (1, 1));
    let aligned = table.find(CODE + 18).unwrap();
    assert_eq!((aligned.cfa, aligned.cfa_register, aligned.cfa_offset), (CfaKind::Register, 3, 0x68));
    assert_eq!(aligned.registers[0], RegisterRule::at_cfa(-0x68));
    assert_eq!(aligned.flags, UnwindRule::FROM_CODE);
    let last = table.find(CODE + 30).unwrap();
    assert_eq!((last.cfa_register, last.cfa_offset, last.registers[0]), (7, 8, RegisterRule::SAME));
    assert_eq!(table.find(CODE + 31), None);
}
