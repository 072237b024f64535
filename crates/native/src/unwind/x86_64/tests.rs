//! Instructions and what follows from them.

use proptest::collection::vec;
use proptest::prelude::*;

use super::decode::{Decoded, Effect, decode};
use super::*;
use crate::unwind::rule::{RegisterRule, UnwindRule};

const RBX: u8 = 3;
const RBP: u8 = 6;

fn effect(code: &[u8]) -> Option<Effect> {
    let Decoded { length, effect } = decode(code)?;
    assert_eq!(length, code.len(), "{code:02x?}");
    Some(effect)
}

#[test]
fn instructions_of_prologues_are_recognised() {
    for (code, expected) in [
        (&[0x55][..], Effect::Push(Some(RBP))),
        (&[0x41, 0x5c], Effect::Pop(Some(12))),
        (&[0x48, 0x89, 0xe5], Effect::Copy(RBP, RSP, 0)),
        (&[0x48, 0x8b, 0xec], Effect::Copy(RBP, RSP, 0)),
        (&[0x4c, 0x8d, 0x54, 0x24, 0x08], Effect::Copy(10, RSP, 8)),
        (&[0x48, 0x81, 0xec, 0x80, 0x70, 0, 0], Effect::Add(RSP, -0x7080)),
        (&[0x48, 0x83, 0xc4, 0x60], Effect::Add(RSP, 0x60)),
        (&[0x48, 0x83, 0xe4, 0xc0], Effect::Changes(1 << RSP)),
        (&[0x4c, 0x89, 0x64, 0x24, 0x10], Effect::Store(12, RSP, 16)),
        (&[0x48, 0x8b, 0x1c, 0x24], Effect::Load(RBX, RSP, 0)),
        (&[0xc9], Effect::Leave),
        (&[0xc3], Effect::Return(0)),
        (&[0xc2, 8, 0], Effect::Return(8)),
        (&[0xf3, 0x0f, 0x1e, 0xfa], Effect::Changes(1 << 1)),
        (&[0xff, 0x35, 0, 0, 0, 0], Effect::Push(None)),
        (&[0xff, 0x25, 0, 0, 0, 0], Effect::Jump(None)),
        (&[0xff, 0x14, 0xc5, 0, 0, 0, 0], Effect::Call),
        (&[0xe9, 1, 0, 0, 0], Effect::Jump(Some(1))),
        (&[0x0f, 0x84, 0xfe, 0xff, 0xff, 0xff], Effect::Branch(-2)),
        (&[0x0f, 0x0b], Effect::Stop),
    ] {
        assert_eq!(effect(code), Some(expected), "{code:02x?}");
    }
}

#[test]
fn changed_registers_are_those_of_the_operands() {
    for (code, changed) in [
        // cmp $0,%rdi; test %rbx,%rbx; vmovups (%rdi),%ymm1; vzeroupper; movq %xmm3,%xmm3; nopl 0(%rax,%rax,1)
        (&[0x48, 0x83, 0xff, 0][..], 0),
        (&[0x48, 0x85, 0xdb], 0),
        (&[0xc5, 0xfc, 0x10, 0x0f], 0),
        (&[0xc5, 0xf8, 0x77], 0),
        (&[0xf3, 0x0f, 0x7e, 0xdb], 0),
        (&[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0], 0),
        // vaddpd %zmm0,%zmm1,%zmm3{%k1}; vgatherdpd of a vector index
        (&[0x62, 0xf1, 0xf5, 0x49, 0x58, 0xd8], 0),
        (&[0xc4, 0xe2, 0xf1, 0x92, 0x04, 0xd0], 0),
        // mov $1,%bh; movq %xmm3,%rbx; shlx %rax,%rcx,%rbx; cpuid; shl $3,%r10; movabs $0,%rbx; setne %bl
        (&[0xb7, 1], 1 << RBX | 1 << 5),
        (&[0x66, 0x48, 0x0f, 0x7e, 0xdb], 1 << RBX),
        (&[0xc4, 0xe2, 0xf9, 0xf7, 0xd9], 1 << RBX | 1),
        (&[0x0f, 0xa2], 0b1111),
        (&[0x49, 0xc1, 0xe2, 3], 1 << 10),
        (&[0x48, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0], 1 << RBX),
        (&[0x0f, 0x95, 0xc3], 1 << RBX),
        // 32-bit moves are no copies.
        (&[0x89, 0xe5], 1 << RBP),
    ] {
        assert_eq!(effect(code), Some(Effect::Changes(changed)), "{code:02x?}");
    }
}

#[test]
fn cut_and_undefined_instructions_are_none() {
    for code in [&[][..], &[0x48], &[0xe8, 0, 0, 0], &[0x06], &[0x48, 0x8d, 0x84, 0x24, 0, 0], &[0x66; 20]] {
        assert_eq!(decode(code), None, "{code:02x?}");
    }
}

/// The rule at an offset.
fn rule_at(rows: &[(usize, Option<UnwindRule>)], at: usize) -> Option<UnwindRule> {
    rows.iter().rev().find(|row| row.0 <= at)?.1
}

#[test]
fn loops_and_early_exits_meet_with_one_rule() {
    // push %rbx; test %edi,%edi; je 10; dec %edi; jne 5; nop; pop %rbx; ret
    let code = [0x53, 0x85, 0xff, 0x74, 0x05, 0xff, 0xcf, 0x75, 0xfc, 0x90, 0x5b, 0xc3];
    let rows = follow(&code, Extent::Whole).unwrap();
    for at in [1, 5, 7, 10] {
        let rule = rule_at(&rows, at).unwrap();
        assert_eq!((rule.cfa_register, rule.cfa_offset), (RSP, 16));
        assert_eq!(rule.registers[0], RegisterRule::at_cfa(-16));
    }
    assert_eq!(rule_at(&rows, 11).unwrap().cfa_offset, 8);
}

#[test]
fn function_that_does_not_come_out_even_is_refused() {
    // push %rbx; ret
    assert_eq!(follow(&[0x53, 0xc3], Extent::Whole), None);
    // xor %ebx,%ebx; ret
    assert_eq!(follow(&[0x31, 0xdb, 0xc3], Extent::Whole), None);
    // push %rbx; jmp elsewhere
    assert_eq!(follow(&[0x53, 0xe9, 0, 1, 0, 0], Extent::Whole), None);
    // Up to an instruction inside, what comes later does not matter.
    assert!(follow(&[0x53], Extent::UpTo).is_some());
}

#[test]
fn paths_that_disagree_leave_no_rule() {
    // test %edi,%edi; je 5; push %rax; nop; jmp 5
    let code = [0x85, 0xff, 0x74, 0x01, 0x50, 0x90, 0xeb, 0xfd];
    let rows = follow(&code, Extent::Whole).unwrap();
    assert_eq!(rule_at(&rows, 4).unwrap().cfa_offset, 8);
    assert_eq!(rule_at(&rows, 5), None);
}

#[test]
fn code_behind_an_indirect_jump_has_no_rule() {
    // jmp *%rax; nop; ret
    let rows = follow(&[0xff, 0xe0, 0x90, 0xc3], Extent::Whole).unwrap();
    assert_eq!((rule_at(&rows, 0).unwrap().cfa_offset, rule_at(&rows, 2)), (8, None));
}

proptest! {
    #[test]
    fn random_code_is_followed_within_limits(code in vec(any::<u8>(), 0..300)) {
        for extent in [Extent::Whole, Extent::UpTo] {
            let rows = follow(&code, extent).unwrap_or_default();
            prop_assert!(rows.windows(2).all(|pair| pair[0].0 < pair[1].0));
            prop_assert!(rows.iter().all(|row| row.0 <= code.len()));
        }
    }
}
