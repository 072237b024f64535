//! Calls, as they are seen from their return addresses.

use profiler_memory::ReadMemory;
use profiler_model::RemoteAddr;

/// The most bytes that an indirect call has, prefixes apart.
const MAX_CALL_BYTES: usize = 7;

/// A direct call has an opcode and a distance.
const DIRECT_CALL_BYTES: usize = 5;

/// Whether the instruction before a return address is a call.
pub(in crate::unwind) fn follows_call(return_address: u64, memory: &impl ReadMemory) -> bool {
    let mut before = [0; MAX_CALL_BYTES];
    let start = RemoteAddr::new(return_address.wrapping_sub(MAX_CALL_BYTES as u64));
    memory.read(start, &mut before).is_ok() && (is_direct(&before) || is_indirect(&before))
}

/// The function that the instruction before a return address calls, if that names it.
pub(super) fn called_function(return_address: u64, memory: &impl ReadMemory) -> Option<u64> {
    let mut call = [0; DIRECT_CALL_BYTES];
    let start = RemoteAddr::new(return_address.wrapping_sub(DIRECT_CALL_BYTES as u64));
    memory.read(start, &mut call).ok()?;
    let [0xe8, distance @ ..] = call else { return None };
    Some(return_address.wrapping_add_signed(i32::from_le_bytes(distance).into()))
}

fn is_direct(before: &[u8; MAX_CALL_BYTES]) -> bool {
    before[MAX_CALL_BYTES - DIRECT_CALL_BYTES] == 0xe8
}

/// Whether the bytes end with `call *operand` in one of its lengths.
fn is_indirect(before: &[u8; MAX_CALL_BYTES]) -> bool {
    (2..=MAX_CALL_BYTES).any(|length| {
        let call = &before[MAX_CALL_BYTES - length..];
        call[0] == 0xff && call[1] >> 3 & 7 == 2 && operand_bytes(&call[1..]) == Some(length - 1)
    })
}

/// How many bytes the operand takes: ModRM, SIB and displacement.
fn operand_bytes(operand: &[u8]) -> Option<usize> {
    let (mode, register) = (operand[0] >> 6, operand[0] & 7);
    let has_sib = mode != 3 && register == 4;
    let base = if has_sib { operand.get(1)? & 7 } else { register };
    let displacement = match mode {
        0 if base == 5 => 4,
        1 => 1,
        2 => 4,
        _ => 0,
    };
    Some(1 + usize::from(has_sib) + displacement)
}
