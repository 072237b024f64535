//! Names of functions: from the symbol as the linker knows it to the name that a reader knows.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::sync::Arc;

use cpp_demangle::{DemangleOptions, ParseOptions};

/// The most bytes of a symbol that are kept. Templates make some of ten thousand.
pub(super) const MAX_SYMBOL_BYTES: usize = 16 << 10;

/// The most bytes of a name that is shown.
pub(super) const MAX_NAME_BYTES: usize = 1024;

/// The most bytes of a symbol that is demangled: work grows with its length.
const MAX_MANGLED_BYTES: usize = 4 << 10;

/// How deep the parser of C++ names may call itself. A name that lies makes it try again at each level, so that its time grows
/// exponentially with the depth; of the 175,000 names of LLVM and libstdc++, one in a thousand is deeper and stays as it is.
const MAX_CPP_DEPTH: u32 = 64;

/// Ends a name that is cut.
const CUT: &str = "…";

/// What compilers append to a symbol when they make several functions of one, each perhaps with a number behind it.
const SUFFIXES: &[&str] = &[
    "cold",
    "part",
    "isra",
    "constprop",
    "llvm",
    "lto_priv",
    "localalias",
    "warm",
    "hot",
    "resume",
    "destroy",
];

/// A function's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FunctionName {
    /// What views show: demangled, without a compiler's suffixes, at most some thousand bytes, cut ones with a mark. It may
    /// hold any character, control characters too.
    pub display: Arc<str>,
    /// The symbol as the file has it, without its version.
    pub symbol: Arc<str>,
}

impl FunctionName {
    /// The name of a function by its symbol in a file that is linked from C, C++, Rust or Fortran.
    pub fn from_symbol(symbol: &str) -> Self {
        FunctionName { display: display_name(symbol).into(), symbol: cut(symbol, MAX_SYMBOL_BYTES).into() }
    }

    /// The name of a function that needs no demangling.
    pub(super) fn plain(name: &str) -> Self {
        FunctionName { display: cut(name, MAX_NAME_BYTES).into(), symbol: cut(name, MAX_SYMBOL_BYTES).into() }
    }

    /// The name of a procedure of Fortran: compilers append an underscore to those outside modules.
    pub(super) fn from_fortran(symbol: &str) -> Self {
        let display = display_name(symbol);
        let display = display.strip_suffix('_').filter(|name| !name.is_empty() && !name.ends_with('_'));
        match display {
            Some(display) => FunctionName { display: display.into(), ..FunctionName::from_symbol(symbol) },
            None => FunctionName::from_symbol(symbol),
        }
    }

    /// The stub in the procedure linkage table that jumps to this function.
    pub(super) fn stub(&self) -> Self {
        FunctionName {
            display: format!("{}@plt", self.display).into(),
            symbol: format!("{}@plt", self.symbol).into(),
        }
    }
}

/// Whether a symbol is mangled in a way that is known.
pub(super) fn is_mangled(symbol: &str) -> bool {
    symbol.starts_with("_Z") || symbol.starts_with("_R") || module_procedure(symbol).is_some()
}

fn display_name(symbol: &str) -> String {
    let base = without_suffixes(symbol);
    let demangled = if base.len() <= MAX_MANGLED_BYTES { demangled(base) } else { None };
    demangled.unwrap_or_else(|| cut(base, MAX_NAME_BYTES).into_owned())
}

/// The symbol of the function as it was written, without what compilers append to its parts and copies.
fn without_suffixes(symbol: &str) -> &str {
    let mut base = symbol;
    while let Some((rest, last)) = base.rsplit_once('.') {
        let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
        let (rest, suffix) = match rest.rsplit_once('.') {
            Some((rest, suffix)) if is_number => (rest, suffix),
            _ => (rest, last),
        };
        if rest.is_empty() || !SUFFIXES.contains(&suffix) {
            break;
        }
        base = rest;
    }
    base
}

fn demangled(symbol: &str) -> Option<String> {
    if let Some((module, procedure)) = module_procedure(symbol) {
        return Some(cut(&format!("{module}::{procedure}"), MAX_NAME_BYTES).into_owned());
    }
    if !symbol.starts_with("_Z") && !symbol.starts_with("_R") {
        return None;
    }
    if let Ok(rust) = rustc_demangle::try_demangle(symbol) {
        return bounded(|into| write!(into, "{rust:#}"));
    }
    let parsing = ParseOptions::default().recursion_limit(MAX_CPP_DEPTH);
    let parsed = cpp_demangle::BorrowedSymbol::with_tail_and_options(symbol.as_bytes(), &parsing);
    let options = DemangleOptions::new().no_params().no_return_type().recursion_limit(MAX_CPP_DEPTH);
    let (parsed, _) = parsed.ok()?;
    let mut name = bounded(|into| parsed.structured_demangle(into, &options))?;
    // Without its parameters, a name has no use for their qualifier.
    name.truncate(name.trim_end_matches(" const").len());
    Some(name)
}

/// The module and procedure of a gfortran symbol (`__grid_MOD_advance`).
fn module_procedure(symbol: &str) -> Option<(&str, &str)> {
    let (module, procedure) = symbol.strip_prefix("__")?.split_once("_MOD_")?;
    (!module.is_empty() && !procedure.is_empty()).then_some((module, procedure))
}

/// What `draw` writes, cut at [`MAX_NAME_BYTES`]; `None` if it fails before.
fn bounded(draw: impl FnOnce(&mut BoundedText) -> fmt::Result) -> Option<String> {
    let mut text = BoundedText { text: String::new(), is_full: false };
    let result = draw(&mut text);
    if text.is_full {
        text.text.push_str(CUT);
    } else if result.is_err() {
        return None;
    }
    Some(text.text).filter(|text| !text.is_empty())
}

/// Text that refuses what is beyond [`MAX_NAME_BYTES`], so that its writer stops.
struct BoundedText {
    text: String,
    is_full: bool,
}

impl Write for BoundedText {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = MAX_NAME_BYTES.saturating_sub(self.text.len());
        self.text.push_str(start_of(part, room));
        self.is_full |= part.len() > room;
        if self.is_full { Err(fmt::Error) } else { Ok(()) }
    }
}

/// The text, at most `limit` bytes of it, with a mark if it is cut.
fn cut(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return text.into();
    }
    format!("{}{CUT}", start_of(text, limit)).into()
}

/// At most `limit` bytes of the text, whole characters only.
fn start_of(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}
