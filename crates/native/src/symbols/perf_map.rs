//! `/tmp/perf-PID.map`: lines `START SIZE NAME` that JIT compilers append for each function.

use std::sync::Arc;

use super::code_map::{CodeMap, JitFunction};
use super::function_name::FunctionName;

/// The most bytes of a line; what is longer is skipped.
const MAX_LINE_BYTES: usize = 64 << 10;

/// The functions of a perf map. The file grows while it is read: its bytes come in pieces of any size.
#[derive(Clone, Debug, Default)]
pub struct PerfMap {
    map: CodeMap,
    /// The start of a line whose end is not written yet.
    partial: Vec<u8>,
    /// Whether the rest of the line is skipped, as it is too long.
    is_skipping: bool,
    refused: u64,
}

impl PerfMap {
    /// Reads the next bytes of the file.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut parts = bytes.split(|byte| *byte == b'\n');
        let last = parts.next_back().unwrap_or_default();
        for part in parts {
            self.hold(part);
            let line = std::mem::take(&mut self.partial);
            if !self.is_skipping && !line.is_empty() {
                self.read_line(&line);
            }
            self.is_skipping = false;
        }
        self.hold(last);
    }

    /// The function at an address in memory.
    pub fn lookup(&self, address: u64) -> Option<&JitFunction> {
        self.map.find(address)
    }

    /// How many lines were not understood, too long or too many.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn hold(&mut self, part: &[u8]) {
        if self.is_skipping {
            return;
        }
        if self.partial.len() + part.len() > MAX_LINE_BYTES {
            self.partial = Vec::new();
            self.is_skipping = true;
            self.refused += 1;
        } else {
            self.partial.extend_from_slice(part);
        }
    }

    fn read_line(&mut self, line: &[u8]) {
        let is_taken = parsed(line).is_some_and(|function| self.map.insert(function));
        self.refused += u64::from(!is_taken);
    }
}

fn parsed(line: &[u8]) -> Option<JitFunction> {
    let line = String::from_utf8_lossy(line);
    let mut words = line.trim_end_matches('\r').splitn(3, ' ');
    let mut number = || u64::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok();
    let (start, size) = (number()?, number()?);
    let name = words.next().map(str::trim).filter(|name| !name.is_empty())?;
    let name = Arc::new(FunctionName::plain(name));
    Some(JitFunction { start, size, name, index: None, lines: Arc::new([]) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name_at(map: &PerfMap, address: u64) -> Option<&str> {
        map.lookup(address).map(|function| &*function.name.display)
    }

    #[test]
    fn lines_are_read_and_later_ones_win() {
        let mut map = PerfMap::default();
        map.feed(b"1000 100 LazyCompile:~add /app/math.js:12\n0x1080 0x10 inner\n2000 20 py::f:/a b.py\n");
        assert_eq!(name_at(&map, 0x1000), Some("LazyCompile:~add /app/math.js:12"));
        assert_eq!(name_at(&map, 0x1085), Some("inner"));
        assert_eq!(name_at(&map, 0x1090), Some("LazyCompile:~add /app/math.js:12"));
        assert_eq!(name_at(&map, 0x201f), Some("py::f:/a b.py"));
        assert_eq!(name_at(&map, 0x2020), None);
    }

    #[test]
    fn a_partial_last_line_waits_for_its_end() {
        let mut map = PerfMap::default();
        map.feed(b"1000 10 first\n2000 10 sec");
        assert_eq!(name_at(&map, 0x2000), None);
        map.feed(b"ond\n");
        assert_eq!(name_at(&map, 0x2000), Some("second"));
    }

    #[test]
    fn invalid_and_endless_lines_are_counted() {
        let mut map = PerfMap::default();
        map.feed(b"what is this\n1000\n1000 10\nffffffffffffffff 10 wraps\n");
        map.feed(&vec![b'a'; MAX_LINE_BYTES]);
        map.feed(&vec![b'a'; MAX_LINE_BYTES]);
        map.feed(b"\n1000 10 after\n");
        assert_eq!((map.refused(), name_at(&map, 0x1000)), (5, Some("after")));
    }

    #[test]
    fn control_characters_and_broken_text_are_kept_for_the_drawer() {
        let mut map = PerfMap::default();
        map.feed(b"1000 10 \x1b[31mred\xff\n");
        assert_eq!(name_at(&map, 0x1000), Some("\u{1b}[31mred\u{fffd}"));
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_read_the_same(cuts in prop::collection::vec(0usize..60, 0..6)) {
            let text = b"1000 10 one\n\n1008 10 two words\nbad\n3000 8 three\n4000 8 unfinished";
            let mut cuts: Vec<usize> = cuts.into_iter().chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let mut map = PerfMap::default();
            cuts.windows(2).for_each(|cut| map.feed(&text[cut[0]..cut[1]]));
            let found = [0x1000, 0x1008, 0x1017, 0x3000, 0x4000].map(|at| name_at(&map, at));
            let expected = [Some("one"), Some("two words"), Some("two words"), Some("three"), None];
            prop_assert_eq!(found, expected);
            prop_assert_eq!(map.refused(), 1);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            PerfMap::default().feed(&bytes);
        }
    }
}
