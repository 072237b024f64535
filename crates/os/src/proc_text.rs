//! Files of `/proc` as text.

use std::path::Path;
use std::{fs, io};

/// What a file of `/proc` says. The names of programs, threads and files that it quotes are any bytes: those that
/// are no UTF-8 are no reason not to read the rest.
pub(crate) fn text_of(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}
