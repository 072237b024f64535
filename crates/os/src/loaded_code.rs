//! What code the kernel has loaded beside its own: its modules, and the programs that were attached to it. Either can go,
//! and something else can come to where it was; this tells whether that may have happened.
//!
//! What the functions are called is for `kernel_symbols` to say.
//!
//! The list of modules is parsed here: the crate `procfs` leaves out where a module lies, and reads without a limit.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read};

/// Where the kernel lists its modules.
const MODULES: &str = "/proc/modules";

/// A module takes a line of some hundred bytes, and there are not more than some hundred.
const MAX_MODULE_BYTES: u64 = 4 << 20;

/// Hosts with a program for each of their services and containers have some thousand.
const MAX_PROGRAMS: usize = 65_536;

/// `BPF_PROG_GET_NEXT_ID` of <linux/bpf.h>.
const NEXT_PROGRAM: libc::c_long = 11;

/// What was loaded at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadedCode {
    /// Each module with its size, state and place; `None` where that is not shown.
    modules: Option<BTreeSet<String>>,
    /// The numbers of programs, none of which is given twice; `None` where that is not shown, which takes `CAP_SYS_ADMIN`.
    programs: Option<BTreeSet<u32>>,
}

impl LoadedCode {
    /// What is loaded now.
    pub fn now() -> Self {
        LoadedCode { modules: modules(), programs: programs() }
    }

    /// What a list such as the kernel's says of modules, with programs of these numbers.
    pub fn parse(modules: &str, programs: impl IntoIterator<Item = u32>) -> Self {
        let modules = modules.lines().filter_map(module).collect();
        LoadedCode { modules: Some(modules), programs: Some(programs.into_iter().collect()) }
    }

    /// Whether the same modules are in the same places, as far as that is known.
    pub fn has_modules_of(&self, other: &LoadedCode) -> bool {
        self.modules.is_some() && self.modules == other.modules
    }

    /// Whether the same programs are attached, as far as that is known.
    pub fn has_programs_of(&self, other: &LoadedCode) -> bool {
        self.programs.is_some() && self.programs == other.programs
    }
}

fn modules() -> Option<BTreeSet<String>> {
    let mut text = String::new();
    match File::open(MODULES).and_then(|file| file.take(MAX_MODULE_BYTES).read_to_string(&mut text)) {
        Ok(_) => Some(text.lines().filter_map(module).collect()),
        // A kernel that was built without modules has none. Where `/proc` shows processes only, there may be some.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            std::fs::exists("/proc/kallsyms").ok()?.then(BTreeSet::new)
        }
        Err(_) => None,
    }
}

/// `nf_tables 380928 12 nft_ct,nft_nat, Live 0xffffffffc0100000 (OE)`: of this, how many use it comes and goes.
fn module(line: &str) -> Option<String> {
    let mut words = line.split_ascii_whitespace();
    let (name, size) = (words.next()?, words.next()?);
    let (_users, _by_whom) = (words.next()?, words.next()?);
    let (state, address) = (words.next()?, words.next()?);
    Some(format!("{name} {size} {state} {address}"))
}

fn programs() -> Option<BTreeSet<u32>> {
    let mut programs = BTreeSet::new();
    let mut last = 0;
    while programs.len() < MAX_PROGRAMS {
        match program_after(last) {
            Ok(Some(next)) => programs.insert(next),
            Ok(None) => return Some(programs),
            Err(_) => return None,
        };
        last = *programs.last()?;
    }
    None
}

/// The number of the program that follows upon this number; `None` after the last one.
fn program_after(number: u32) -> std::io::Result<Option<u32>> {
    /// The part of `union bpf_attr` that this command reads and writes.
    #[repr(C)]
    struct Attributes {
        start: u32,
        next: u32,
        open_flags: u32,
    }
    let mut attributes = Attributes { start: number, next: 0, open_flags: 0 };
    // SAFETY: `attributes` is laid out as the command asks for, says its own size and outlives the call, which writes
    // nothing but `next`.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, NEXT_PROGRAM, &raw mut attributes, size_of::<Attributes>() as u32)
    };
    match result {
        0 => Ok(Some(attributes.next)),
        _ => match std::io::Error::last_os_error() {
            error if error.kind() == ErrorKind::NotFound => Ok(None),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "\
nf_tables 380928 12 nft_ct,nft_nat, Live 0xffffffffc0100000 (OE)
nft_ct 28672 3 - Live 0xffffffffc0200000
";

    fn modules(text: &str) -> LoadedCode {
        LoadedCode::parse(text, [])
    }

    #[test]
    fn how_many_use_a_module_is_no_change() {
        let used = BEFORE.replace(" 12 nft_ct,nft_nat,", " 13 nft_ct,nft_nat,nft_log,");
        assert!(used != BEFORE && modules(&used).has_modules_of(&modules(BEFORE)));
    }

    #[test]
    fn what_comes_or_goes_is_a_change() {
        let more = format!("{BEFORE}nft_log 16384 0 - Live 0xffffffffc0300000\n");
        assert!(!modules(&more).has_modules_of(&modules(BEFORE)));
        // Another one at its place; itself in another place; its beginning was freed.
        for (old, new) in [("nft_ct ", "nft_ng "), ("c0200000", "c0400000"), ("3 - Live", "3 - Loading")] {
            assert!(!modules(&BEFORE.replace(old, new)).has_modules_of(&modules(BEFORE)), "{new}");
        }
        let of = |numbers: &[u32]| LoadedCode::parse("", numbers.iter().copied());
        assert!(of(&[3, 7]).has_programs_of(&of(&[7, 3])));
        assert!(!of(&[3, 9]).has_programs_of(&of(&[3, 7])) && !of(&[3]).has_programs_of(&of(&[3, 7])));
    }

    #[test]
    fn what_is_not_shown_is_not_known_to_be_there() {
        let hidden = LoadedCode::default();
        assert!(!hidden.has_modules_of(&modules(BEFORE)) && !modules(BEFORE).has_modules_of(&hidden));
        assert!(!hidden.has_programs_of(&hidden));
    }

    #[test]
    fn this_kernel_tells_what_it_has_loaded() {
        let now = LoadedCode::now();
        assert!(now.modules.is_some());
        assert!(now.programs.is_some() || !nix::unistd::geteuid().is_root());
    }
}
