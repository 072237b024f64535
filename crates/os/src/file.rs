//! Files that are only looked into here and there, mapped instead of read; and files without a name.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use memmap2::Mmap;
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, fcntl};
use nix::unistd::linkat;

/// The bytes of a file.
#[derive(Debug)]
pub struct MappedFile(Option<Mmap>);

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// When it cannot be opened or mapped.
    pub fn open(path: &Path) -> io::Result<Self> {
        MappedFile::map(&File::open(path)?)
    }

    /// Maps the file at `path` if it has this inode number: of several paths that may lead to a file, the
    /// one that does.
    ///
    /// # Errors
    /// When it cannot be opened or mapped, or is another file.
    pub fn open_inode(path: &Path, inode: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        match file.metadata()?.ino() == inode {
            true => MappedFile::map(&file),
            false => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }

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

    fn map(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(MappedFile(None));
        }
        // SAFETY: the mapping is private and read-only. Executables and libraries are replaced by renaming,
        // never rewritten in place (writing to one that runs fails with ETXTBSY, and package managers
        // rename), and core files are written once, so the bytes do not change underneath; the mapping is
        // dropped after the look.
        let map = unsafe { Mmap::map(file) }?;
        Ok(MappedFile(Some(map)))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
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
