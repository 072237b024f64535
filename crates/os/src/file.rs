//! Files that are only looked into here and there, mapped instead of read; files without a name; and files in memory.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use memmap2::Mmap;
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::linkat;

use crate::file_faults::Guarded;

/// The bytes of a file. Where it is cut short while it is mapped, the rest reads as zeros.
#[derive(Debug)]
pub struct MappedFile(Option<(Guarded, Mmap)>);

impl MappedFile {
    /// Maps the file at `path` if it is a regular one. Nothing else is even waited for: a name that comes from
    /// elsewhere may lead to a pipe.
    ///
    /// # Errors
    /// When it cannot be opened or mapped, or is no regular file.
    pub fn open_regular(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        match file.metadata()?.file_type() {
            kind if kind.is_file() => MappedFile::map(&file),
            kind if kind.is_dir() => Err(io::Error::from(io::ErrorKind::IsADirectory)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
        }
    }

    /// Maps an open file.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub fn of(file: &File) -> io::Result<Self> {
        MappedFile::map(file)
    }

    pub(crate) fn map(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(MappedFile(None));
        }
        // SAFETY: the mapping is private and read-only. Whoever may write the file can change the bytes underneath, or cut
        // the file short. Then the readers see other bytes or zeros: they parse bytes of files that they do not trust, check
        // each offset and length, and rely on no byte being the same when it is read again. The guard keeps SIGBUS away.
        let map = unsafe { Mmap::map(file) }?;
        let guard = Guarded::new(map.as_ptr(), map.len())
            .ok_or_else(|| io::Error::other("too many files are mapped at a time"))?;
        Ok(MappedFile(Some((guard, map))))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_ref().map(|(_, map)| &**map).unwrap_or_default()
    }
}

/// Creates a file in `folder` that has no name and is gone when it is closed, unless [`name_file`] gives it one.
///
/// # Errors
/// When the folder cannot be written, or its file system has no such files.
pub fn unnamed_file(folder: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).open(folder)
}

/// Gives an unnamed file its name, on the same file system.
///
/// # Errors
/// When that fails; `AlreadyExists` when something has this name.
pub fn name_file(file: &File, path: &Path) -> io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(AT_FDCWD, open.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?)
}

/// Creates a file that exists in memory alone and is gone when it is closed. Until then others with the right to can read
/// it as `/proc/PID/fd/N`. `name` is what `/proc` calls it.
///
/// # Errors
/// When the kernel refuses it.
pub fn memory_file(name: &str) -> io::Result<File> {
    Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC)?.into())
}

/// The number of the error of [`open_pipe`] where nobody reads the pipe.
pub const NO_READER: i32 = libc::ENXIO;

/// Opens a named pipe for writing. Writes to it wait for the reader.
///
/// # Errors
/// When it is refused; [`NO_READER`] where no process has it open for reading, which is not waited for.
pub fn open_pipe(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_that_is_cut_short_reads_as_zeros() {
        let file = unnamed_file(&std::env::temp_dir()).unwrap();
        file.set_len(3 * 4096).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[7; 3 * 4096], 0).unwrap();
        let mapped = MappedFile::map(&file).unwrap();
        assert_eq!(mapped[2 * 4096], 7);
        file.set_len(4096).unwrap();
        assert_eq!((mapped[0], mapped[4096], mapped[3 * 4096 - 1]), (7, 0, 0));
    }
}
