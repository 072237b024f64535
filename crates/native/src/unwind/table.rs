//! The compiled unwind information of a module: rows sorted by address, and the rules that they share.

use super::rule::UnwindRule;

/// A row: from this address on up to the next row, this rule holds. Eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct UnwindRow {
    /// The first address, relative to the table's base.
    pub start: u32,
    /// The number of the rule, or [`UnwindRow::NO_RULE`].
    pub rule: u32,
}

impl UnwindRow {
    /// The number of a rule where there is none: a gap.
    pub const NO_RULE: u32 = u32::MAX;
}

/// What was compiled and what could not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCounts {
    /// Functions with unwind information.
    pub entries: u64,
    /// Entries that are broken; where the length of one is, all that follow in the section are lost with it.
    pub malformed: u64,
    /// Rows whose CFA or return address is of a shape that no [`UnwindRule`] has. They are gaps.
    pub unsupported_rows: u64,
    /// Saved registers whose place is of such a shape. Their values are unknown.
    pub unsupported_registers: u64,
    /// Entries for addresses that an earlier one has, or that are not executable.
    pub misplaced: u64,
    /// Entries and rows beyond the limits.
    pub over_limit: u64,
    /// Functions without unwind information whose instructions were followed instead.
    pub followed: u64,
    /// Functions without unwind information whose instructions do not prove how they use the stack.
    pub refused: u64,
}

/// The compiled unwind information of a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnwindTable {
    /// What is added to [`UnwindRow::start`] to get an address in the file's terms.
    pub(super) base: u64,
    /// Sorted by their start, which no two have in common.
    pub(super) rows: Vec<UnwindRow>,
    pub(super) rules: Vec<UnwindRule>,
    /// Where the program starts, in the file's terms; 0 if nowhere.
    pub(super) entry: u64,
    pub(super) counts: TableCounts,
}

impl UnwindTable {
    /// The rule for an address in the file's terms; `None` in a gap.
    pub fn find(&self, address: u64) -> Option<&UnwindRule> {
        let start = u32::try_from(address.checked_sub(self.base)?).ok()?;
        let after = self.rows.partition_point(|row| row.start <= start);
        let row = self.rows[..after].last()?;
        self.rules.get(row.rule as usize)
    }

    /// What is added to the starts of the rows to get addresses in the file's terms.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The rows, by address.
    pub fn rows(&self) -> &[UnwindRow] {
        &self.rows
    }

    /// The rules, by the numbers that the rows have.
    pub fn rules(&self) -> &[UnwindRule] {
        &self.rules
    }

    /// What was compiled and what could not be.
    pub fn counts(&self) -> TableCounts {
        self.counts
    }

    /// Whether an address lies just behind the place where the program starts: in `_start`, which has no caller.
    pub(super) fn is_program_start(&self, address: u64) -> bool {
        /// The most bytes of a `_start` up to its call.
        const MAX_START_BYTES: u64 = 64;
        self.entry != 0 && address.checked_sub(self.entry).is_some_and(|skip| skip < MAX_START_BYTES)
    }

    /// How many bytes of memory the table takes.
    pub fn memory(&self) -> usize {
        self.rows.capacity() * size_of::<UnwindRow>() + self.rules.capacity() * size_of::<UnwindRule>()
    }
}
