//! An address in a target's memory. Not a pointer: nothing in this process lives there.

use std::fmt;

/// An address in the memory of another process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteAddr(u64);

impl RemoteAddr {
    /// The null pointer of the target.
    pub const NULL: RemoteAddr = RemoteAddr(0);

    /// An address from its numeric value.
    pub const fn new(value: u64) -> Self {
        RemoteAddr(value)
    }

    /// The numeric value.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Whether this is the target's null pointer.
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }

    /// The address `bytes` further. Wraps around, as untrusted offsets may: a wrapped address simply
    /// cannot be read.
    pub const fn offset(self, bytes: u64) -> Self {
        RemoteAddr(self.0.wrapping_add(bytes))
    }

    /// How many bytes this address lies above `base`, or `None` when it lies below.
    pub const fn checked_distance_from(self, base: RemoteAddr) -> Option<u64> {
        self.0.checked_sub(base.0)
    }

    /// The address with its lowest `bits` bits cleared: CPython tags some references there.
    pub const fn without_tag(self, bits: u32) -> Self {
        RemoteAddr(self.0 & !((1 << bits) - 1))
    }
}

impl fmt::Display for RemoteAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
