//! Python's `int` objects, copied out of foreign memory, where they fit 64 bits.

use profiler_memory::{ReadError, ReadMemory};
use profiler_model::RemoteAddr;

use crate::Offsets;

/// Bits of a digit. Builds with 15 exist only for 32-bit machines.
const DIGIT_BITS: u32 = 30;

/// As many digits as a 64-bit number can have.
const MAX_DIGITS: usize = 64usize.div_ceil(DIGIT_BITS as usize);

/// Reads the `int` object at `at`; `None` where it is negative or beyond 64 bits.
///
/// # Errors
/// When it cannot be read.
pub fn read_unsigned(
    memory: &impl ReadMemory,
    offsets: &Offsets,
    at: RemoteAddr,
) -> Result<Option<u64>, ReadError> {
    let long = &offsets.long;
    let Some(count) = digit_count(memory.field(at, long.size)?, long.tag_bits) else { return Ok(None) };
    let mut bytes = [0u8; MAX_DIGITS * size_of::<u32>()];
    let Some(bytes) = bytes.get_mut(..count.saturating_mul(size_of::<u32>())) else { return Ok(None) };
    memory.read(at.offset(long.digits.into()), bytes)?;
    let digits = bytes.as_chunks().0.iter().map(|digit| u32::from_le_bytes(*digit));
    let value = digits.rev().fold(0u128, |value, digit| value << DIGIT_BITS | u128::from(digit));
    Ok(u64::try_from(value).ok())
}

/// How many digits the size field counts; `None` for a negative number.
fn digit_count(size: i64, tag_bits: u32) -> Option<usize> {
    const SIGN_MASK: i64 = 0b11;
    const NEGATIVE: i64 = 2;
    if tag_bits > 0 && size & SIGN_MASK == NEGATIVE {
        return None;
    }
    usize::try_from(size.checked_shr(tag_bits)?).ok()
}
