//! Where a result is written: proved to be writable before anything is sampled, and never left half done.
//!
//! A file is written without a name, or beside its place, and put into it when it is whole, so that an older result stays
//! whole until the new one is. What cannot be replaced like that (a device, a pipe, a file in a folder that may not be
//! written) is written in place.
//!
//! A symbolic link is followed only if it belongs to the user who asked for the file, or to root: in a folder that others
//! may write, anybody can put a link where a file is going to be written. A file that the user did not name is always a new
//! one; it never replaces another.

mod unfinished;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use profiler_os::file::{NO_READER, open_pipe};
use profiler_os::launch::InvokingUser;
use profiler_output::{OutputError, escaped_text};

use self::unfinished::Unfinished;
use crate::plan::Output;

/// The most symbolic links that are followed one after the other, as in the kernel.
const MAX_LINKS: usize = 40;

/// A place that can be written.
#[derive(Debug)]
pub enum Destination {
    /// Our stdout.
    Stdout,
    /// Something that exists and is opened already, but not emptied.
    InPlace(PathBuf, File),
    /// A file that comes into its place when it is whole.
    Renamed(Renamed),
}

/// What is needed to write a file beside its place and to rename it.
#[derive(Debug)]
pub struct Renamed {
    /// As the user named it.
    path: PathBuf,
    /// Where its symbolic links lead.
    place: PathBuf,
    /// Whether it must not replace anything: a name that is taken is changed.
    is_new: bool,
    users: Users,
}

/// The users that files may belong to.
#[derive(Clone, Copy, Debug)]
struct Users {
    /// The one that the profiler runs as.
    own: u32,
    /// User and group that new files are given to.
    owner: Option<(u32, u32)>,
}

impl Users {
    fn new(behind: Option<&InvokingUser>) -> Self {
        let owner = behind.map(|user| (user.uid(), user.gid()));
        Users { own: nix::unistd::geteuid().as_raw(), owner }
    }

    /// Whether what belongs to this user was put there by the user who asks, or by root.
    fn trust(&self, uid: u32) -> bool {
        uid == 0 || uid == self.own || self.owner.is_some_and(|(owner, _)| uid == owner)
    }
}

/// A path as messages quote it.
fn shown(path: &Path) -> String {
    escaped_text(&path.to_string_lossy()).into_owned()
}

/// Why something cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// It is a folder.
    #[error("cannot write {}: it is a folder", shown(.0))]
    IsFolder(PathBuf),
    /// Its folder is not there.
    #[error("cannot write {}: there is no folder {}", shown(.0), shown(.1))]
    NoFolder(PathBuf, PathBuf),
    /// A symbolic link of somebody else leads there.
    #[error("cannot write {}: {} is a symbolic link of another user (uid {uid}) and is not followed", shown(.path), shown(.link))]
    ForeignLink {
        /// What was to be written.
        path: PathBuf,
        /// The link.
        link: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// It is a named pipe that no process has open for reading.
    #[error("cannot write {}: it is a pipe without a reader", shown(.0))]
    NoReader(PathBuf),
    /// Anything else, in the kernel's words.
    #[error("cannot write {}: {}", shown(.0), .1)]
    Refused(PathBuf, io::Error),
    /// Writing to stdout failed.
    #[error("cannot write to stdout: {0}")]
    Stdout(io::Error),
    /// The format cannot show what is to be written.
    #[error(transparent)]
    Unsuitable(OutputError),
}

impl DestinationError {
    /// What could not be written.
    pub fn name(&self) -> String {
        match self {
            DestinationError::IsFolder(path)
            | DestinationError::NoFolder(path, _)
            | DestinationError::NoReader(path)
            | DestinationError::ForeignLink { path, .. }
            | DestinationError::Refused(path, _) => shown(path),
            DestinationError::Stdout(_) | DestinationError::Unsuitable(_) => "stdout".to_owned(),
        }
    }
}

impl Destination {
    /// Proves that `output` can be written, without changing what is there. New files will belong to `user` where one is
    /// given: who records with `sudo` wants to be able to delete the result without.
    ///
    /// # Errors
    /// When it cannot be written. A named pipe without a reader is not waited for.
    pub fn prove(output: &Output, user: Option<&InvokingUser>) -> Result<Self, DestinationError> {
        let users = Users::new(user);
        match output {
            Output::Stdout => Ok(Destination::Stdout),
            Output::File(path) => prove_file(path, users),
            Output::New(path) => {
                let file = Renamed { path: path.clone(), place: path.clone(), is_new: true, users };
                file.prove().map_err(|error| explain(path, error))?;
                Ok(Destination::Renamed(file))
            }
        }
    }

    /// The path, if it is no stream.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Destination::Stdout => None,
            Destination::InPlace(path, _) => Some(path),
            Destination::Renamed(file) => Some(&file.path),
        }
    }

    /// Writes what `render` renders; returns what was written, as messages call it. Of a file that cannot be written whole
    /// nothing stays behind, and it can be tried again.
    ///
    /// # Errors
    /// When it cannot be written; a reader of stdout that has enough is no error.
    pub fn write(
        &self,
        render: impl Fn(&mut dyn Write) -> Result<(), OutputError>,
    ) -> Result<String, DestinationError> {
        let (path, written) = match self {
            Destination::Stdout => return write_to_stdout(render).map(|()| "stdout".to_owned()),
            Destination::InPlace(path, file) => (path, write_in_place(file, render).map(|()| path.clone())),
            Destination::Renamed(file) => (&file.path, file.write(render)),
        };
        written.map(|written| shown(&written)).map_err(|error| match error {
            OutputError::Write(error) => explain(path, error),
            other => DestinationError::Unsuitable(other),
        })
    }
}

/// Writes to stdout what `render` renders.
///
/// # Errors
/// When stdout cannot be written; a reader that has enough (`profiler dump ... | head`) is no error.
pub fn write_to_stdout(
    render: impl FnOnce(&mut dyn Write) -> Result<(), OutputError>,
) -> Result<(), DestinationError> {
    let mut writer = BufWriter::new(io::stdout().lock());
    match render(&mut writer).and_then(|()| Ok(writer.flush()?)) {
        Ok(()) => Ok(()),
        Err(OutputError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(OutputError::Write(error)) => Err(DestinationError::Stdout(error)),
        Err(other) => Err(DestinationError::Unsuitable(other)),
    }
}

fn prove_file(path: &Path, users: Users) -> Result<Destination, DestinationError> {
    if path.as_os_str().is_empty() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "the name is empty");
        return Err(DestinationError::Refused(path.to_owned(), error));
    }
    if path.as_os_str().as_bytes().ends_with(b"/") {
        return Err(DestinationError::IsFolder(path.to_owned()));
    }
    let place = followed(path, &users)?;
    prove_place(path, place, users).map_err(|error| explain(path, error))
}

/// Where the symbolic links at `path` lead; there may be nothing yet.
fn followed(path: &Path, users: &Users) -> Result<PathBuf, DestinationError> {
    let refused = |error| DestinationError::Refused(path.to_owned(), error);
    let mut place = path.to_owned();
    for _ in 0..MAX_LINKS {
        let link = match fs::symlink_metadata(&place) {
            Ok(metadata) if metadata.is_symlink() => metadata,
            _ => return Ok(place),
        };
        if !users.trust(link.uid()) {
            return Err(DestinationError::ForeignLink {
                path: path.to_owned(),
                link: place,
                uid: link.uid(),
            });
        }
        if is_open_file(&place) {
            return Ok(place);
        }
        let target = fs::read_link(&place).map_err(refused)?;
        place = folder_of(&place).join(target);
    }
    Err(refused(io::Error::from_raw_os_error(nix::libc::ELOOP)))
}

/// Whether the path is one of the links by which `/proc` shows open files (`/dev/stdout` leads to one): only the kernel can
/// follow those.
fn is_open_file(link: &Path) -> bool {
    link.parent().and_then(Path::file_name).is_some_and(|folder| folder == "fd")
        && fs::canonicalize(folder_of(link)).is_ok_and(|folder| folder.starts_with("/proc"))
}

fn prove_place(path: &Path, place: PathBuf, users: Users) -> io::Result<Destination> {
    let is_link = is_open_file(&place);
    let file = Renamed { path: path.to_owned(), place, is_new: false, users };
    let existing = match fs::metadata(&file.place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            file.prove()?;
            return Ok(Destination::Renamed(file));
        }
        existing => existing?,
    };
    if existing.file_type().is_fifo() && !is_link {
        return Ok(Destination::InPlace(path.to_owned(), open_pipe(&file.place)?));
    }
    // Fails for a folder, and for a file that is protected against writing: to replace it would be possible, but not what
    // its owner wants.
    let no_link = if is_link { 0 } else { OFlag::O_NOFOLLOW.bits() };
    let opened = OpenOptions::new().write(true).custom_flags(no_link).open(&file.place)?;
    if existing.is_file() && !is_link && file.prove().is_ok() {
        Ok(Destination::Renamed(file))
    } else {
        Ok(Destination::InPlace(path.to_owned(), opened))
    }
}

fn explain(path: &Path, error: io::Error) -> DestinationError {
    let folder = folder_of(path);
    match error.kind() {
        _ if error.raw_os_error() == Some(NO_READER) && is_pipe(path) => {
            DestinationError::NoReader(path.to_owned())
        }
        io::ErrorKind::IsADirectory => DestinationError::IsFolder(path.to_owned()),
        io::ErrorKind::NotFound if !folder.is_dir() => {
            DestinationError::NoFolder(path.to_owned(), folder.to_owned())
        }
        _ => DestinationError::Refused(path.to_owned(), error),
    }
}

fn is_pipe(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.file_type().is_fifo())
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn write_in_place(
    mut file: &File,
    render: impl Fn(&mut dyn Write) -> Result<(), OutputError>,
) -> Result<(), OutputError> {
    if file.metadata()?.is_file() {
        file.set_len(0)?;
        file.rewind()?;
    }
    let mut writer = BufWriter::new(file);
    render(&mut writer)?;
    Ok(writer.flush()?)
}

impl Renamed {
    /// Makes the file that is to be renamed, and takes it away again.
    fn prove(&self) -> io::Result<()> {
        Unfinished::create(&self.place).map(drop)
    }

    /// Writes the file; returns its path.
    fn write(
        &self,
        render: impl Fn(&mut dyn Write) -> Result<(), OutputError>,
    ) -> Result<PathBuf, OutputError> {
        let unfinished = Unfinished::create(&self.place)?;
        let mut writer = BufWriter::new(&unfinished.file);
        render(&mut writer)?;
        writer.flush()?;
        drop(writer);
        self.adopt(&unfinished.file)?;
        if self.is_new {
            return Ok(unfinished.finish_as_new(&self.place)?);
        }
        unfinished.finish(&self.place)?;
        Ok(self.path.clone())
    }

    /// Gives the file the mode and owner of the one that it replaces, or else the owner who is wanted.
    fn adopt(&self, file: &File) -> io::Result<()> {
        let owner = match self.replaced() {
            Some(existing) => {
                file.set_permissions(existing.permissions())?;
                Some((existing.uid(), existing.gid()))
            }
            None => self.users.owner,
        };
        if let Some((uid, gid)) = owner {
            // Only root may give files away. Who may not still gets the result, as its own file.
            let _ = fchown(file, Some(uid), Some(gid));
        }
        Ok(())
    }

    /// The file that is replaced, if its mode and owner are to stay. Those of a file that somebody else has put into a
    /// folder like `/tmp` are not: it may have been put there to get the result.
    fn replaced(&self) -> Option<fs::Metadata> {
        const STICKY_AND_WRITABLE: u32 = 0o1002;
        let existing = fs::symlink_metadata(&self.place).ok().filter(fs::Metadata::is_file)?;
        let folder = fs::metadata(folder_of(&self.place)).ok()?;
        let is_shared = folder.permissions().mode() & STICKY_AND_WRITABLE == STICKY_AND_WRITABLE;
        (!self.is_new && (!is_shared || self.users.trust(existing.uid()))).then_some(existing)
    }
}

#[cfg(test)]
mod tests;
