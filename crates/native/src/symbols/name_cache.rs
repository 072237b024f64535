//! Names and file names that were made before, so that equal ones share memory and are demangled once.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::function_name::FunctionName;

/// The most names that are kept. When there are more, all are forgotten and made again.
const MAX_NAMES: usize = 32 << 10;

/// The most bytes of the symbols and file names by which they are found.
const MAX_KEY_BYTES: usize = 8 << 20;

/// The language whose rules a symbol follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum NameStyle {
    /// C, C++, Rust, and Fortran where it is not known to be Fortran.
    Linked,
    Fortran,
    /// Go, whose names are not mangled and have dots.
    Go,
}

/// Names by symbol, and file names.
#[derive(Debug, Default)]
pub(super) struct NameCache {
    names: FxHashMap<(NameStyle, Box<str>), Arc<FunctionName>>,
    files: FxHashMap<Box<str>, Arc<str>>,
    bytes: usize,
}

impl NameCache {
    /// The name that a symbol stands for.
    pub(super) fn name(&mut self, style: NameStyle, symbol: &str) -> Arc<FunctionName> {
        let key = (style, symbol.into());
        if let Some(name) = self.names.get(&key) {
            return Arc::clone(name);
        }
        let name = Arc::new(match style {
            NameStyle::Linked => FunctionName::from_symbol(symbol),
            NameStyle::Fortran => FunctionName::from_fortran(symbol),
            NameStyle::Go => FunctionName::plain(symbol),
        });
        self.make_room(symbol.len() + name.display.len() + name.symbol.len());
        self.names.insert(key, Arc::clone(&name));
        name
    }

    /// The file name, shared.
    pub(super) fn file(&mut self, file: &str) -> Arc<str> {
        if let Some(known) = self.files.get(file) {
            return Arc::clone(known);
        }
        self.make_room(2 * file.len());
        let shared: Arc<str> = file.into();
        self.files.insert(file.into(), Arc::clone(&shared));
        shared
    }

    /// About how many bytes of memory the names take.
    pub(super) fn memory(&self) -> usize {
        self.bytes
    }

    fn make_room(&mut self, bytes: usize) {
        if self.names.len() + self.files.len() >= MAX_NAMES || self.bytes + bytes > MAX_KEY_BYTES {
            *self = NameCache::default();
        }
        self.bytes += bytes;
    }
}
