//! The build id of an ELF file.

use std::fmt;

/// The most bytes of a build id; linkers write 8 to 32.
const MAX_BYTES: usize = 64;

/// The build id that the linker wrote into an ELF file: equal for equal contents.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildId(Box<[u8]>);

impl BuildId {
    /// A build id of these bytes. `None` if there are none or more than 64.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (1..=MAX_BYTES).contains(&bytes.len()).then(|| BuildId(bytes.into()))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({self})")
    }
}
