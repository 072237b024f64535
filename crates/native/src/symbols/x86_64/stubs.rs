//! The stubs of the procedure linkage table: which slot of the global offset table each of them jumps through.

/// How many bytes a stub has, in all layouts that the linkers make but `.plt.got`.
pub(in super::super) const STUB_BYTES: usize = 16;

/// `endbr64`.
const BRANCH_TARGET: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];

/// `bnd`, which old linkers put before jumps.
const BOUNDS: &[u8] = &[0xf2];

/// `jmp *offset(%rip)`.
const JUMP: &[u8] = &[0xff, 0x25];

/// `push` of a number of four bytes.
const PUSH: u8 = 0x68;

/// Where a stub leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum StubTarget {
    /// Through the slot at this address.
    Slot(u64),
    /// To the function of the relocation with this index.
    Relocation(u32),
}

/// Where the stub with this code at this address leads. `None` if it is no stub, such as the first entry of `.plt`.
pub(in super::super) fn target(code: &[u8], address: u64) -> Option<StubTarget> {
    let after_mark = code.strip_prefix(BRANCH_TARGET).unwrap_or(code);
    let after_bounds = after_mark.strip_prefix(BOUNDS).unwrap_or(after_mark);
    if let Some(rest) = after_bounds.strip_prefix(JUMP) {
        let (offset, rest) = rest.split_first_chunk::<4>()?;
        let next = address.wrapping_add((code.len() - rest.len()) as u64);
        return Some(StubTarget::Slot(next.wrapping_add_signed(i64::from(i32::from_le_bytes(*offset)))));
    }
    let (first, rest) = after_mark.split_first()?;
    let index = rest.first_chunk::<4>().filter(|_| *first == PUSH)?;
    Some(StubTarget::Relocation(u32::from_le_bytes(*index)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stubs_of_all_layouts_are_followed() {
        let plain = [0xff, 0x25, 0x10, 0, 0, 0, 0x68, 0, 0, 0, 0, 0xe9, 0, 0, 0, 0];
        assert_eq!(target(&plain, 0x1000), Some(StubTarget::Slot(0x1016)));
        let marked = [0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25, 0xf0, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0];
        assert_eq!(target(&marked, 0x1000), Some(StubTarget::Slot(0x1000 + 11 - 16)));
        let lazy = [0xf3, 0x0f, 0x1e, 0xfa, 0x68, 3, 0, 0, 0, 0xf2, 0xe9, 0, 0, 0, 0, 0x90];
        assert_eq!(target(&lazy, 0x1000), Some(StubTarget::Relocation(3)));
    }

    #[test]
    fn code_that_is_no_stub_is_refused() {
        let first_entry = [0xff, 0x35, 2, 0, 0, 0, 0xff, 0x25, 4, 0, 0, 0, 0x0f, 0x1f, 0x40, 0];
        assert_eq!(target(&first_entry, 0x1000), None);
        assert_eq!(target(&[0xff, 0x25, 1], 0), None);
        assert_eq!(target(&[], 0), None);
    }
}
