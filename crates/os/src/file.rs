//! Files that are only looked into here and there: mapped instead of read.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use memmap2::Mmap;

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

    fn map(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(MappedFile(None));
        }
        // SAFETY: the mapping is private and read-only. Executables and libraries are replaced by renaming,
        // never rewritten in place (writing to one that runs fails with ETXTBSY, and package managers
        // rename), so the bytes do not change underneath; the mapping is dropped after the look.
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
