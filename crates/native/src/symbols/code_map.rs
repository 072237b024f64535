//! Code that was compiled at run time, by address: what was compiled later replaces what was there before.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::function_name::FunctionName;

/// The most pieces of code that are kept; a large Java server has some two hundred thousand.
const MAX_PIECES: usize = 1 << 20;

/// A line of the source of compiled code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JitLine {
    /// Where its code starts, from the start of the function.
    pub(super) offset: u64,
    pub(super) file: Arc<str>,
    pub(super) line: u32,
}

/// A function that was compiled at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JitFunction {
    /// Where it starts in memory.
    pub start: u64,
    /// How many bytes of code it has.
    pub size: u64,
    /// Its name, as the compiler wrote it.
    pub name: Arc<FunctionName>,
    /// The number that the compiler gave it, in a jitdump file.
    pub(super) index: Option<u64>,
    /// Its lines in order of offset.
    pub(super) lines: Arc<[JitLine]>,
}

impl JitFunction {
    /// The file and line of an address in it, if the compiler wrote them.
    pub fn location(&self, address: u64) -> Option<(&Arc<str>, u32)> {
        let offset = address.checked_sub(self.start)?;
        let after = self.lines.partition_point(|line| line.offset <= offset);
        self.lines.get(after.checked_sub(1)?).map(|line| (&line.file, line.line))
    }
}

/// A piece of a function: all of it, unless later code lies in its middle.
#[derive(Clone, Debug)]
struct Piece {
    end: u64,
    function: Arc<JitFunction>,
}

/// Compiled functions by address, without overlaps.
#[derive(Clone, Debug, Default)]
pub(super) struct CodeMap {
    /// By where they start.
    pieces: BTreeMap<u64, Piece>,
}

impl CodeMap {
    /// Adds a function in place of what was there; returns whether there was room for it.
    pub(super) fn insert(&mut self, function: JitFunction) -> bool {
        let Some(end) = function.start.checked_add(function.size).filter(|end| *end > function.start) else {
            return false;
        };
        self.remove_range(function.start, end);
        if self.pieces.len() >= MAX_PIECES {
            return false;
        }
        self.pieces.insert(function.start, Piece { end, function: Arc::new(function) });
        true
    }

    /// The function that was compiled last at an address.
    pub(super) fn find(&self, address: u64) -> Option<&JitFunction> {
        let (_, piece) = self.pieces.range(..=address).next_back()?;
        (address < piece.end).then_some(&*piece.function)
    }

    /// Takes out a function that starts at `start` and has this number.
    pub(super) fn remove(&mut self, start: u64, index: u64) -> Option<JitFunction> {
        let piece = self.pieces.get(&start).filter(|piece| piece.function.index == Some(index))?;
        let function = JitFunction::clone(&piece.function);
        self.pieces.remove(&start);
        Some(function)
    }

    fn remove_range(&mut self, start: u64, end: u64) {
        if let Some((_, before)) = self.pieces.range_mut(..start).next_back()
            && before.end > start
        {
            let rest = Piece { end: before.end, function: Arc::clone(&before.function) };
            before.end = start;
            if rest.end > end {
                self.pieces.insert(end, rest);
            }
        }
        while let Some((&at, _)) = self.pieces.range(start..end).next() {
            let Some(piece) = self.pieces.remove(&at) else { break };
            if piece.end > end {
                self.pieces.insert(end, piece);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn function(start: u64, size: u64, name: &str) -> JitFunction {
        let name = Arc::new(FunctionName::plain(name));
        JitFunction { start, size, name, index: None, lines: Arc::new([]) }
    }

    proptest! {
        #[test]
        fn later_code_wins_at_each_address(inserted in prop::collection::vec((0u64..60, 0u64..30), 0..30)) {
            let mut map = CodeMap::default();
            let mut expected = [None; 100];
            for (number, (start, size)) in inserted.iter().enumerate() {
                map.insert(function(*start, *size, &number.to_string()));
                expected[*start as usize..(start + size) as usize].fill(Some(number));
            }
            for (address, expected) in expected.iter().enumerate() {
                let found = map.find(address as u64).map(|found| found.name.symbol.parse::<usize>().unwrap());
                prop_assert_eq!(found, *expected);
            }
        }
    }

    #[test]
    fn code_beyond_the_address_space_is_refused() {
        let mut map = CodeMap::default();
        assert!(!map.insert(function(u64::MAX - 1, 3, "wraps")));
        assert!(!map.insert(function(5, 0, "empty")));
        assert!(map.find(5).is_none());
    }
}
