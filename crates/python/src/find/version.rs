//! Which CPython a module is, where it does not describe itself: from the symbol `Py_Version` (3.11+), the
//! version text among its constants, or its name.

use memchr::memmem;
use profiler_memory::ReadMemory;
use profiler_model::RemoteAddr;

use super::candidate::Candidate;
use crate::offsets::Version;

/// Constants searched for the version text. CPython itself has 2 to 5 MB of them; programs that embed it
/// may have more in front.
const MAX_CONSTANTS_BYTES: usize = 64 << 20;

/// Constants read from memory where the file cannot be read: as CPython has itself.
const MAX_CONSTANTS_READ: u64 = 8 << 20;

/// The final release, as `PY_VERSION_HEX` encodes it.
const FINAL: u8 = 0xF0;

/// The version in `Py_Version`, a constant of 3.11 and later.
pub(super) fn from_symbol(candidate: &Candidate<'_>, bias: u64, memory: &impl ReadMemory) -> Option<Version> {
    let address = candidate.image.as_ref()?.dynamic_symbol("Py_Version")?.wrapping_add(bias);
    let version = Version::from_hex(memory.scalar(RemoteAddr::new(address)).ok()?);
    (version.major == 3).then_some(version)
}

/// What every CPython has among its constants: the start of the tag in the names of its `.pyc` files, such as
/// `cpython-38`.
const CACHE_TAG: &[u8] = b"cpython-3";

/// The version whose text stands among the constants and agrees with the module's name, or else the one
/// that the name alone gives; of that the bug-fix release is not known and is said to be 0.
pub(super) fn from_text(candidate: &Candidate<'_>, memory: &impl ReadMemory) -> Option<Version> {
    let named = from_name(candidate.file_name());
    let fits = |found: &Version| match named {
        Some(named) => (found.major, found.minor) == (named.major, named.minor),
        None => found.major == 3 && (6..=12).contains(&found.minor),
    };
    in_constants(candidate, memory, |bytes| texts(bytes).find(fits)).or(named)
}

/// The version of a module whose name says nothing: the one in its cache tag, with the bug-fix release of the version
/// text that agrees with it. Programs hold version texts of all sorts of libraries, but the tag only with a CPython.
/// `None` as well where there is no such text, and of versions that describe themselves.
pub(super) fn from_tag(candidate: &Candidate<'_>, memory: &impl ReadMemory) -> Option<Version> {
    let minor = in_constants(candidate, memory, |bytes| tags(bytes).find(|minor| (6..=12).contains(minor)))?;
    let fits = |found: &Version| (found.major, found.minor) == (3, minor);
    in_constants(candidate, memory, |bytes| texts(bytes).find(fits))
}

/// What `search` finds in the module's constants: in its file, or in memory where that cannot be read.
fn in_constants<T>(
    candidate: &Candidate<'_>,
    memory: &impl ReadMemory,
    search: impl Fn(&[u8]) -> Option<T>,
) -> Option<T> {
    match &candidate.image {
        Some(image) => image
            .constant()
            .find_map(|segment| search(&segment.data[..segment.data.len().min(MAX_CONSTANTS_BYTES)])),
        None => {
            candidate.module.mappings.iter().filter(|mapping| mapping.readable && !mapping.writable).find_map(
                |mapping| {
                    let length = mapping.end.checked_distance_from(mapping.start)?;
                    let length = length.min(MAX_CONSTANTS_READ);
                    search(&memory.bytes(mapping.start, length, MAX_CONSTANTS_READ as usize).ok()?)
                },
            )
        }
    }
}

/// The minor version of every whole cache tag in `bytes`: `cpython-38` between zero bytes is 8.
fn tags(bytes: &[u8]) -> impl Iterator<Item = u8> {
    memmem::find_iter(bytes, CACHE_TAG).filter_map(move |at| {
        let is_start = at == 0 || bytes[at - 1] == 0;
        let rest = &bytes[at + CACHE_TAG.len()..];
        let end = rest.iter().take(4).position(|byte| *byte == 0).filter(|_| is_start)?;
        std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
    })
}

/// Every text in `bytes` that is nothing but a version, as `PY_VERSION` is: `3.8.18`, `3.12.0rc1`, `3.7.3+`,
/// ended by a zero byte.
fn texts(bytes: &[u8]) -> impl Iterator<Item = Version> {
    memmem::find_iter(bytes, b"3.").filter_map(move |at| {
        let before = at.checked_sub(1).map_or(0, |before| bytes[before]);
        if before.is_ascii_digit() || before == b'.' {
            return None;
        }
        // The longest is shorter: `3.12.10rc1+`.
        let text = &bytes[at..bytes.len().min(at + 16)];
        let end = text.iter().position(|byte| *byte == 0)?;
        whole(std::str::from_utf8(&text[..end]).ok()?)
    })
}

/// A complete version, with its bug-fix release.
fn whole(text: &str) -> Option<Version> {
    let text = text.strip_suffix('+').unwrap_or(text);
    let (number, release) = match text.find(['a', 'b', 'r']) {
        Some(at) => (&text[..at], release(&text[at..])?),
        None => (text, FINAL),
    };
    let mut parts = number.split('.').map(|part| part.parse().ok());
    let version = Version { major: parts.next()??, minor: parts.next()??, micro: parts.next()??, release };
    parts.next().is_none().then_some(version)
}

/// The byte that `a1`, `b2` or `rc3` stand for.
fn release(text: &str) -> Option<u8> {
    let (level, serial) = [("a", 0xA0), ("b", 0xB0), ("rc", 0xC0)]
        .into_iter()
        .find_map(|(prefix, level)| Some((level, text.strip_prefix(prefix)?)))?;
    serial.parse().ok().filter(|serial: &u8| *serial < 16).map(|serial| level | serial)
}

/// The version in a name such as `libpython3.8.so.1.0`, `libpython3.6m.so` or `python3.11`.
fn from_name(name: &str) -> Option<Version> {
    let rest = name.strip_prefix("lib").unwrap_or(name).strip_prefix("python")?;
    let (major, rest) = rest.split_once('.')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some(Version {
        major: major.parse().ok()?,
        minor: rest[..digits].parse().ok()?,
        micro: 0,
        release: FINAL,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: u8, minor: u8, micro: u8, release: u8) -> Version {
        Version { major, minor, micro, release }
    }

    #[test]
    fn texts_are_whole_versions_only() {
        let bytes = b"\x003.8.18\0gcc 13.3.1\0x3.7.4+\0 3.12.0rc1\x003.9\x003.7.1.2\x003.10.1 (default\x003.6.300\x003.11.2";
        let found: Vec<_> = texts(bytes).collect();
        assert_eq!(found, [version(3, 8, 18, FINAL), version(3, 7, 4, FINAL), version(3, 12, 0, 0xC1)]);
    }

    #[test]
    fn tags_are_whole_texts_only() {
        let bytes = b"cpython-36\0.cpython-37-x86_64-linux-gnu.so\0cpython-38\0cpython-3\0cpython-312\0xcpython-39\0cpython-31";
        assert_eq!(tags(bytes).collect::<Vec<_>>(), [6, 8, 12]);
    }

    #[test]
    fn names_give_major_and_minor() {
        assert_eq!(from_name("libpython3.6m.so.1.0"), Some(version(3, 6, 0, FINAL)));
        assert_eq!(from_name("libpython3.13t.so.1.0"), Some(version(3, 13, 0, FINAL)));
        assert_eq!(from_name("python3.11"), Some(version(3, 11, 0, FINAL)));
        assert_eq!(from_name("python2.7"), Some(version(2, 7, 0, FINAL)));
        for name in ["python3", "python", "libpython3.so", "libc.so.6", "uwsgi"] {
            assert_eq!(from_name(name), None, "{name}");
        }
    }
}
