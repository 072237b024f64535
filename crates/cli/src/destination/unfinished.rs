//! A file that is written without a name, or beside its place, until it is whole.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use profiler_os::file::{name_file, unnamed_file};

use super::folder_of;

/// The number of names that are tried for a new file: `x.svg`, `x-2.svg` and so on.
const MAX_NAMES: u32 = 1_000;

/// A file that is removed unless it is finished.
pub struct Unfinished {
    /// Its name; none while it is without one, so that it is gone with this process, however that ends.
    path: Option<PathBuf>,
    pub file: File,
}

impl Unfinished {
    /// Creates a file in the folder of `place`: without a name, where the file system can do that.
    pub fn create(place: &Path) -> io::Result<Self> {
        if let Ok(file) = unnamed_file(folder_of(place)) {
            return Ok(Unfinished { path: None, file });
        }
        Unfinished::create_named(passing_name(place))
    }

    /// Creates a file of this name.
    pub fn create_named(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Unfinished { path: Some(path), file })
    }

    /// Puts the file into its place.
    pub fn finish(mut self, place: &Path) -> io::Result<()> {
        if self.path.is_none() {
            match name_file(&self.file, place) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                named => return named,
            }
            // Only a rename can replace a file.
            let path = passing_name(place);
            name_file(&self.file, &path)?;
            self.path = Some(path);
        }
        if let Some(path) = &self.path {
            fs::rename(path, place)?;
        }
        // Nothing is left to take away.
        self.path = None;
        Ok(())
    }

    /// Puts the file into its place if nothing has that name, not even a link, else under the next name that is free.
    pub fn finish_as_new(mut self, place: &Path) -> io::Result<PathBuf> {
        for name in names_for(place) {
            match self.name_anew(&name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                named => return named.map(|()| name),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Gives the file a name that nothing has.
    fn name_anew(&mut self, name: &Path) -> io::Result<()> {
        let Some(path) = &self.path else { return name_file(&self.file, name) };
        // The name is taken before the rename, which would replace what has it.
        OpenOptions::new().write(true).create_new(true).open(name)?;
        fs::rename(path, name)?;
        self.path = None;
        Ok(())
    }
}

/// `x.svg`, `x-2.svg`, `x-3.svg` and so on.
fn names_for(place: &Path) -> impl Iterator<Item = PathBuf> {
    let stem = place.file_stem().unwrap_or_default().to_owned();
    let ending = place.extension().map(std::ffi::OsStr::to_owned);
    let folder = folder_of(place).to_owned();
    let other = move |number: u32| {
        let mut name = stem.clone();
        name.push(format!("-{number}"));
        if let Some(ending) = &ending {
            name.push(".");
            name.push(ending);
        }
        folder.join(name)
    };
    std::iter::once(place.to_owned()).chain((2..=MAX_NAMES).map(other))
}

/// The name that a file has until it is in its place. It is short, so that it fits wherever `place` fits.
fn passing_name(place: &Path) -> PathBuf {
    folder_of(place).join(format!(".profiler-{}.tmp", std::process::id()))
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}
