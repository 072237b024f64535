//! What the kernel calls its own functions (`/proc/kallsyms`), and whether it tells us.
//!
//! Addresses are the kernel's, which `RemoteAddr` is not for: that is a place in a process. How the functions came to be
//! on a stack is not known here. The crate `procfs` does not read this file.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::sync::Arc;

use thiserror::Error;

/// Where the kernel lists its symbols.
const FILE: &str = "/proc/kallsyms";

/// The most symbols that are kept: ten times as many as kernels have with all their drivers.
const MAX_SYMBOLS: usize = 4_000_000;

/// The longest line that is looked at: a name has at most 512 bytes in the kernel (`KSYM_NAME_LEN`), its module 64.
const MAX_LINE_BYTES: usize = 1024;

/// A function ends where the next symbol begins. The last one of a module has none behind it for a long way: so much may
/// belong to it. The longest functions of the kernel have some ten thousand bytes.
const MAX_FUNCTION_BYTES: u64 = 64 * 1024;

/// Symbols that say where code ends, and are no functions.
const ENDS_OF_CODE: [&str; 2] = ["_etext", "_einittext"];

/// Why the kernel's functions cannot be named.
#[derive(Debug, Error)]
pub enum KernelSymbolsError {
    /// The list cannot be read.
    #[error("{FILE} cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// There is nothing in it that could be one of them.
    #[error("{FILE} lists no functions")]
    Empty,
    /// It shows every address as 0.
    #[error("{FILE} shows no addresses: {0}")]
    Hidden(Restriction),
}

/// Which rule hides the addresses: who may see them is for `kernel.kptr_restrict` to say, and where that lets everybody,
/// for `kernel.perf_event_paranoid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restriction {
    /// `kernel.kptr_restrict` is 2.
    ForEverybody,
    /// `kernel.kptr_restrict` is 1, and `CAP_SYSLOG` is missing.
    WithoutCapability,
    /// `kernel.perf_event_paranoid` is above 1, and `CAP_SYSLOG` is missing.
    Paranoid,
    /// Something else.
    Unknown,
}

impl fmt::Display for Restriction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Restriction::ForEverybody => "kernel.kptr_restrict is 2, which hides them from everybody",
            Restriction::WithoutCapability => {
                "kernel.kptr_restrict is 1, which hides them from whoever lacks CAP_SYSLOG"
            }
            Restriction::Paranoid => {
                "kernel.perf_event_paranoid is above 1, which hides them from whoever lacks CAP_SYSLOG"
            }
            Restriction::Unknown => "why is not known",
        })
    }
}

impl Restriction {
    /// The one that is in force, by the settings; for whom they are hidden.
    fn of(kptr_restrict: Option<i32>, perf_event_paranoid: Option<i32>) -> Self {
        match (kptr_restrict, perf_event_paranoid) {
            (Some(1), _) => Restriction::WithoutCapability,
            (Some(0), Some(paranoid)) if paranoid > 1 => Restriction::Paranoid,
            (Some(2..), _) => Restriction::ForEverybody,
            _ => Restriction::Unknown,
        }
    }

    fn in_force() -> Self {
        let setting = |name| fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse().ok();
        Restriction::of(setting("kptr_restrict"), setting("perf_event_paranoid"))
    }
}

/// A function of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSymbol<'a> {
    /// Its name.
    pub name: &'a str,
    /// The module that it came with; `None` for the kernel itself.
    pub module: Option<&'a Arc<str>>,
}

/// The functions of the kernel by their addresses.
#[derive(Debug, Default)]
pub struct KernelSymbols {
    /// Sorted by address, each address once.
    symbols: Vec<Symbol>,
    /// All names, one after the other.
    names: String,
    modules: Vec<Arc<str>>,
}

/// Where something begins.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    address: u64,
    /// Where its name begins in all names.
    name: u32,
    /// How long it is; 0 for what is no function.
    length: u16,
    /// Its module's number, counted from 1; 0 for none.
    module: u16,
}

impl KernelSymbols {
    /// Reads all of them, which takes some megabytes.
    ///
    /// # Errors
    /// When they are not shown.
    pub fn read() -> Result<Self, KernelSymbolsError> {
        let symbols = Self::parse(BufReader::new(File::open(FILE)?))?;
        match symbols.symbols.last() {
            None => Err(KernelSymbolsError::Empty),
            Some(Symbol { address: 0, .. }) => Err(KernelSymbolsError::Hidden(Restriction::in_force())),
            Some(_) => Ok(symbols),
        }
    }

    /// Whether they are shown, without keeping any.
    ///
    /// # Errors
    /// When they are not.
    pub fn are_shown() -> Result<(), KernelSymbolsError> {
        let mut is_empty = true;
        let mut lines = Lines { from: BufReader::new(File::open(FILE)?), line: Vec::new() };
        while let Some(line) = lines.next()? {
            match Line::parse(line) {
                Some(Line { address: 0, .. }) => is_empty = false,
                Some(_) => return Ok(()),
                None => {}
            }
        }
        Err(match is_empty {
            true => KernelSymbolsError::Empty,
            false => KernelSymbolsError::Hidden(Restriction::in_force()),
        })
    }

    /// Those of a list, such as one that was kept. What is no line of such a list is passed over.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn parse(from: impl BufRead) -> io::Result<Self> {
        let mut parsed = KernelSymbols::default();
        let mut numbers: BTreeMap<String, u16> = BTreeMap::new();
        let mut lines = Lines { from, line: Vec::new() };
        while let Some(line) = lines.next()? {
            if let Some(line) = Line::parse(line)
                && parsed.symbols.len() < MAX_SYMBOLS
            {
                parsed.push(&line, &mut numbers);
            }
        }
        // Of several at one address the first is the one that the kernel itself names; the sort keeps their order.
        parsed.symbols.sort_by_key(|symbol| symbol.address);
        parsed.symbols.dedup_by_key(|symbol| symbol.address);
        parsed.symbols.shrink_to_fit();
        parsed.names.shrink_to_fit();
        Ok(parsed)
    }

    fn push(&mut self, line: &Line<'_>, numbers: &mut BTreeMap<String, u16>) {
        let module = line.module.map_or(0, |module| self.module_number(module, numbers));
        let begin = u32::try_from(self.names.len());
        let (name, length) = match (begin, u16::try_from(line.name.len())) {
            (Ok(begin), Ok(length)) if line.is_function => {
                self.names.push_str(line.name);
                (begin, length)
            }
            _ => (0, 0),
        };
        self.symbols.push(Symbol { address: line.address, name, length, module });
    }

    fn module_number(&mut self, module: &str, numbers: &mut BTreeMap<String, u16>) -> u16 {
        if let Some(number) = numbers.get(module) {
            return *number;
        }
        // There are not so many modules: those beyond would be shown as the kernel's own.
        let Ok(number) = u16::try_from(self.modules.len() + 1) else { return 0 };
        self.modules.push(module.into());
        numbers.insert(module.to_owned(), number);
        number
    }

    /// The function that has code at `address`; `None` where that is not known.
    pub fn find(&self, address: u64) -> Option<KernelSymbol<'_>> {
        let behind = self.symbols.partition_point(|symbol| symbol.address <= address);
        let symbol = self.symbols.get(behind.checked_sub(1)?)?;
        if symbol.length == 0 || address - symbol.address >= MAX_FUNCTION_BYTES {
            return None;
        }
        let name = self.names.get(symbol.name as usize..)?.get(..symbol.length.into())?;
        let module = usize::from(symbol.module).checked_sub(1).and_then(|number| self.modules.get(number));
        Some(KernelSymbol { name, module })
    }
}

/// A line of the list.
#[derive(Debug)]
struct Line<'a> {
    address: u64,
    is_function: bool,
    name: &'a str,
    module: Option<&'a str>,
}

impl<'a> Line<'a> {
    /// `ffffffff81000000 T name`, and behind a tab `[module]`.
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        let kind = words.next()?;
        let name = words.next()?;
        let module = words.next().and_then(|word| word.strip_prefix('[')?.strip_suffix(']'));
        let is_code = matches!(kind, "t" | "T" | "w" | "W");
        Some(Line { address, is_function: is_code && !ENDS_OF_CODE.contains(&name), name, module })
    }
}

/// The lines of a file, each at most so long: what goes beyond is no line of this file.
struct Lines<R> {
    from: R,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> io::Result<Option<&str>> {
        self.line.clear();
        let limit = MAX_LINE_BYTES as u64;
        match io::Read::take(&mut self.from, limit).read_until(b'\n', &mut self.line)? {
            0 => Ok(None),
            // What is no text is no symbol either.
            _ => Ok(Some(std::str::from_utf8(&self.line).unwrap_or_default())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel writes it: its own symbols first, those of modules and of programs behind them, neither in order.
    const EXCERPT: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000400 T do_one
ffffffff81000000 T _stext
ffffffff81000000 t first_alias
ffffffff81000040 t vfs_read
ffffffff81000200 D some_table
ffffffff81000500 T _etext
ffffffffc0200000 t nft_do_chain\t[nf_tables]
ffffffffc0200100 t nft_last\t[nf_tables]
ffffffffc0100000 t bpf_prog_6deef7357e7b4530_sample\t[bpf]
no address here
ffffffff81000300 W weak_one
";

    fn symbols(text: &str) -> KernelSymbols {
        KernelSymbols::parse(text.as_bytes()).unwrap()
    }

    fn name(symbols: &KernelSymbols, address: u64) -> Option<&str> {
        symbols.find(address).map(|symbol| symbol.name)
    }

    #[test]
    fn a_function_reaches_to_the_next_symbol() {
        let symbols = symbols(EXCERPT);
        let cases = [
            (0xffff_ffff_8100_0000, Some("_stext")),
            (0xffff_ffff_8100_003f, Some("_stext")),
            (0xffff_ffff_8100_0040, Some("vfs_read")),
            (0xffff_ffff_8100_01ff, Some("vfs_read")),
            // A table is no function.
            (0xffff_ffff_8100_0200, None),
            (0xffff_ffff_8100_02ff, None),
            (0xffff_ffff_8100_0300, Some("weak_one")),
            (0xffff_ffff_8100_04ff, Some("do_one")),
        ];
        for (address, expected) in cases {
            assert_eq!(name(&symbols, address), expected, "{address:#x}");
        }
    }

    #[test]
    fn beyond_the_code_nothing_has_a_name() {
        let symbols = symbols(EXCERPT);
        let last = 0xffff_ffff_c020_0100;
        assert_eq!(name(&symbols, last + MAX_FUNCTION_BYTES - 1), Some("nft_last"));
        for address in
            [0, 1, 0xffff_ffff_80ff_ffff, 0xffff_ffff_8100_0500, last + MAX_FUNCTION_BYTES, u64::MAX]
        {
            assert_eq!(name(&symbols, address), None, "{address:#x}");
        }
        assert_eq!(name(&KernelSymbols::default(), 0xffff_ffff_8100_0040), None);
    }

    #[test]
    fn a_function_of_a_module_says_so() {
        let symbols = symbols(EXCERPT);
        let module = |address| symbols.find(address).and_then(|symbol| symbol.module).map(|module| &**module);
        assert_eq!(module(0xffff_ffff_c020_0010), Some("nf_tables"));
        assert_eq!(module(0xffff_ffff_c010_0010), Some("bpf"));
        assert_eq!(module(0xffff_ffff_8100_0040), None);
    }

    #[test]
    fn addresses_that_are_hidden_name_nothing() {
        let hidden = symbols("0000000000000000 T vfs_read\n0000000000000000 t nft_do_chain\t[nf_tables]\n");
        assert_eq!(hidden.symbols.last().map(|symbol| symbol.address), Some(0));
        assert_eq!(name(&hidden, 0xffff_ffff_8100_0040), None);
    }

    #[test]
    fn what_is_no_list_is_passed_over() {
        let long = format!("ffffffff81000000 T {}\n", "x".repeat(5 * MAX_LINE_BYTES));
        for text in ["", "\n\n", "ffffffff81000000", "ffffffff81000000 T", "zz T f\n", "\u{fffd} T f"] {
            assert!(symbols(text).symbols.is_empty(), "{text:?}");
        }
        assert!(symbols(&long).symbols.len() <= 1);
        let torn = KernelSymbols::parse(&b"\xff\xfe T f\nffffffff81000000 T g\n"[..]).unwrap();
        assert_eq!(name(&torn, 0xffff_ffff_8100_0000), Some("g"));
    }

    #[test]
    fn the_rule_that_hides_them_is_found() {
        let cases = [
            ((Some(2), Some(1)), Restriction::ForEverybody),
            ((Some(1), Some(-1)), Restriction::WithoutCapability),
            ((Some(0), Some(2)), Restriction::Paranoid),
            ((Some(0), Some(1)), Restriction::Unknown),
            ((None, None), Restriction::Unknown),
        ];
        for ((kptr, paranoid), expected) in cases {
            assert_eq!(Restriction::of(kptr, paranoid), expected, "{kptr:?} {paranoid:?}");
        }
    }
}
