//! The memory map of a process: the lines of `/proc/PID/maps`.
//!
//! The lines are parsed here, because the parser of the crate `procfs` (0.18) trusts the paths, which the target chooses: a
//! mapped file `/SYSVx`, in the root folder of a container, makes it panic; another name that begins with `/SYSV`
//! makes it refuse the whole map; and blanks at the end of a path, by which the file is opened, are lost.

use profiler_model::RemoteAddr;

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: RemoteAddr,
    /// First address after it.
    pub end: RemoteAddr,
    /// Offset of `start` in the mapped file, in bytes.
    pub file_offset: u64,
    /// Whether it may be read.
    pub readable: bool,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether it may be executed.
    pub executable: bool,
    /// The device of the mapped file, as `major << 32 | minor`; 0 if no file is mapped.
    pub device: u64,
    /// The inode of the mapped file; 0 if no file is mapped.
    pub inode: u64,
    /// The path of the mapped file (below the profiler's own root folder if it lies there, else as the target
    /// sees it), `[heap]` and the like, or empty.
    pub path: String,
}

/// The mappings that a `maps` file lists; a line that is none is left out.
pub(super) fn parse_mappings(text: &str) -> Vec<Mapping> {
    text.lines().filter_map(parse_mapping).collect()
}

fn parse_mapping(line: &str) -> Option<Mapping> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let flags = words.next()?.as_bytes();
    let file_offset = u64::from_str_radix(words.next()?, 16).ok()?;
    let (major, minor) = words.next()?.split_once(':')?;
    let device = u64::from_str_radix(major, 16).ok()? << 32 | u64::from_str_radix(minor, 16).ok()?;
    let inode = words.next()?.parse().ok()?;
    Some(Mapping {
        start: RemoteAddr::new(u64::from_str_radix(start, 16).ok()?),
        end: RemoteAddr::new(u64::from_str_radix(end, 16).ok()?),
        file_offset,
        readable: flags.first() == Some(&b'r'),
        writable: flags.get(1) == Some(&b'w'),
        executable: flags.get(2) == Some(&b'x'),
        device,
        inode,
        path: words.next().unwrap_or("").trim_start().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapping_of_file_with_blanks_is_parsed() {
        let line = "7f0c8a000000-7f0c8a021000 rw-p 00001000 fe:00 1234                       /usr/lib/a b.so";
        let mapping = parse_mapping(line).unwrap();
        assert_eq!(
            (mapping.path.as_str(), mapping.file_offset, mapping.inode),
            ("/usr/lib/a b.so", 0x1000, 1234)
        );
        assert_eq!(mapping.device, 0xfe << 32);
        assert_eq!((mapping.readable, mapping.writable, mapping.executable), (true, true, false));
    }

    #[test]
    fn paths_are_kept_as_the_target_chose_them() {
        for path in ["/SYSVx", "/SYSV0000000\u{e9}", "/tmp/a ", "[heap]", ""] {
            let line =
                format!("7f0c8a000000-7f0c8a021000 rw-p 00001000 fe:00 1234                       {path}");
            assert_eq!(parse_mapping(&line).unwrap().path, path);
        }
    }
}
