//! The command line of a process. It lies in the memory of the process, which may never answer, and the process decides
//! what it says and how long it is: so it is read up to a limit, by a thread that is waited for only so long.
//!
//! The crate `procfs` reads it whole, without a limit, drops empty arguments and fails if one is not UTF-8.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use profiler_model::Nanos;

use crate::patience::Pending;

/// Arguments that have not been read by then are not shown.
const MAX_WAIT: Nanos = Nanos::from_nanos(500_000_000);

/// The most bytes of arguments that are read: as much as a program can be started with. A process that says where its
/// arguments lie (`PR_SET_MM`) can claim all its memory.
const MAX_BYTES: u64 = 6 << 20;

/// The arguments that a `cmdline` file lists, joined by blanks.
pub(super) fn read_arguments(path: PathBuf) -> io::Result<String> {
    let raw = Pending::begin(move || read_bounded(&path))?.wait(MAX_WAIT);
    Ok(joined(&raw.ok_or(io::ErrorKind::TimedOut)??))
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut raw = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut raw)?;
    Ok(raw)
}

fn joined(raw: &[u8]) -> String {
    let arguments: Vec<_> = raw.split(|byte| *byte == 0).map(argument_text).collect();
    arguments.join(" ").trim_end().to_owned()
}

/// An argument as text: bytes that are not UTF-8 as shells write them (`\xff`), so that two such arguments stay two.
fn argument_text(argument: &[u8]) -> String {
    let mut text = String::with_capacity(argument.len());
    for chunk in argument.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_any_bytes_are_joined() {
        assert_eq!(joined(b"python3\0-c\0\0caf\xc3\xa9\0\xff\xfe\0"), "python3 -c  caf\u{e9} \\xff\\xfe");
        assert_eq!(joined(b""), "");
    }
}
