//! Why a file gives no symbols, or fewer than it should.

/// What is wrong with an ELF file, its debug information or a file of JIT code. No problem ends a lookup: the next source of
/// names is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SymbolProblem {
    /// The file does not start as an ELF file does.
    #[error("not an ELF file")]
    NotElf,
    /// The file is for 32-bit or big-endian machines.
    #[error("an ELF file of a class or byte order that is not supported")]
    ForeignElf,
    /// Bytes that the file says it has cannot be read: it is truncated, or was replaced meanwhile.
    #[error("the file ends before its {0}")]
    Truncated(&'static str),
    /// A number in the file is beyond the named limit of its reader.
    #[error("{what}: {found} is beyond the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// What the file says.
        found: u64,
        /// What it may be.
        limit: u64,
    },
    /// A compressed section cannot be decompressed.
    #[error("section {0} cannot be decompressed")]
    Compression(&'static str),
    /// The debug information contradicts itself or is cut.
    #[error("invalid debug information: {0}")]
    Dwarf(gimli::Error),
    /// Reading the debug information takes more work than a module is allowed to cause.
    #[error("the debug information takes too much work to read")]
    TooMuchWork,
    /// Go's table of functions contradicts itself or is cut.
    #[error("Go's function table is invalid")]
    GoTable,
    /// Go's table of functions is of a version that is not supported.
    #[error("Go's function table has the unknown magic number {0:#x}")]
    GoVersion(u32),
    /// A jitdump file does not start as one, or a record contradicts itself.
    #[error("not a valid jitdump file")]
    JitDump,
}

/// Why a debug file is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DebugFileRefusal {
    /// It belongs to another build of the module.
    #[error("it has build id {found}, expected {wanted}")]
    OtherBuild {
        /// The build id that the module names, in hexadecimal digits.
        wanted: String,
        /// The one of the debug file; `none` if it has none.
        found: String,
    },
    /// Its checksum is not the one that the module's debug link has.
    #[error("it has checksum {found:08x}, expected {wanted:08x}")]
    OtherChecksum {
        /// The checksum in the debug link.
        wanted: u32,
        /// The checksum of the debug file.
        found: u32,
    },
    /// It cannot be read as an ELF file.
    #[error("it is damaged: {0}")]
    Damaged(SymbolProblem),
    /// Nothing asked for it.
    #[error("it was not asked for")]
    NotWanted,
}
