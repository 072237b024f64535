//! System calls that wait for a descriptor.

/// System calls have lower numbers than this (`MAX_CALLS`); the kernel has some 470.
const MAX_CALLS: u64 = 512;

/// System calls whose first argument is a descriptor for which they may wait: a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DescriptorCalls(pub(crate) [u64; MAX_CALLS as usize / 64]);

impl DescriptorCalls {
    /// Those of which `takes_one` says so.
    pub fn of(takes_one: impl Fn(u64) -> bool) -> Self {
        let mut calls = DescriptorCalls::default();
        for call in (0..MAX_CALLS).filter(|call| takes_one(*call)) {
            calls.0[call as usize / 64] |= 1 << (call % 64);
        }
        calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_bits() {
        let calls = DescriptorCalls::of(|call| [0, 63, 64, 511, 512].contains(&call));
        assert_eq!(calls.0, [1 | 1 << 63, 1, 0, 0, 0, 0, 0, 1 << 63]);
    }
}
