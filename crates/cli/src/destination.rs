//! Where a result is written: proved to be writable before anything is sampled, and never left half done.
//!
//! A file is written without a name, or beside its place, and put into it when it is whole, so that an older result stays
//! whole until the new one is. What cannot be replaced like that (a device, a pipe, a file in a folder that may not be
//! written) is written in place.
//!
//! A symbolic link is followed only if it belongs to the user who asked for the file, or to root: in a folder that others
//! may write, anybody can put a link where a file is going to be written. A file that the user did not name is always a new
//! one; it never replaces another.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use profiler_os::file::{NO_READER, name_file, open_pipe, unnamed_file};
use profiler_os::launch::InvokingUser;
use profiler_output::{OutputError, escaped_text};

use crate::plan::Output;

/// The most symbolic links that are followed one after the other, as in the kernel.
const MAX_LINKS: usize = 40;

/// How many names are tried for a new file: `x.svg`, `x-2.svg` and so on.
const MAX_NAMES: u32 = 1_000;

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

/// A file that is taken away again unless it is finished.
struct Unfinished {
    /// Its name; none while it is without one, so that it is gone with this process, however that ends.
    path: Option<PathBuf>,
    file: File,
}

impl Unfinished {
    /// Creates a file in the folder of `place`: without a name, where the file system can do that.
    fn create(place: &Path) -> io::Result<Self> {
        if let Ok(file) = unnamed_file(folder_of(place)) {
            return Ok(Unfinished { path: None, file });
        }
        let path = passing_name(place);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Unfinished { path: Some(path), file })
    }

    /// Puts the file into its place.
    fn finish(mut self, place: &Path) -> io::Result<()> {
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
    fn finish_as_new(mut self, place: &Path) -> io::Result<PathBuf> {
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    use super::*;

    /// A folder of its own for each test, gone afterwards.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("profiler-test-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Folder(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn prove(path: &Path) -> Result<Destination, DestinationError> {
        Destination::prove(&Output::File(path.to_owned()), None)
    }

    fn hello(writer: &mut dyn Write) -> Result<(), OutputError> {
        Ok(writer.write_all(b"hello")?)
    }

    #[test]
    fn proving_leaves_nothing_and_writing_one_file() {
        let folder = Folder::new("new");
        let path = folder.0.join("flame.svg");
        let destination = prove(&path).unwrap();
        assert!(folder.names().is_empty());
        destination.write(hello).unwrap();
        assert_eq!(folder.names(), ["flame.svg"]);
        assert_eq!(fs::read(&path).unwrap(), b"hello");
    }

    #[test]
    fn an_older_file_stays_whole_until_the_new_one_is_and_keeps_its_mode() {
        let folder = Folder::new("older");
        let path = folder.0.join("flame.svg");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let failed = prove(&path).unwrap().write(|writer| {
            hello(writer)?;
            Err(OutputError::Write(io::ErrorKind::StorageFull.into()))
        });
        assert!(failed.unwrap_err().to_string().contains("flame.svg"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(folder.names(), ["flame.svg"]);
        prove(&path).unwrap().write(hello).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"hello");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn until_it_is_whole_a_file_has_no_name() {
        let folder = Folder::new("unnamed");
        let path = folder.0.join("flame.svg");
        // What is interrupted here leaves nothing, wherever the file system has files without a name.
        let has_unnamed = unnamed_file(&folder.0).is_ok();
        prove(&path)
            .unwrap()
            .write(|writer| {
                assert!(folder.names().is_empty() || !has_unnamed);
                hello(writer)
            })
            .unwrap();
        assert_eq!(folder.names(), ["flame.svg"]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o111, 0);
    }

    #[test]
    fn a_link_is_followed_and_stays_a_link() {
        let folder = Folder::new("link");
        let (link, file) = (folder.0.join("latest.svg"), folder.0.join("one.svg"));
        fs::write(&file, "old").unwrap();
        symlink("one.svg", &link).unwrap();
        prove(&link).unwrap().write(hello).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"hello");
    }

    #[test]
    fn dangling_link_is_followed_to_its_target() {
        let folder = Folder::new("dangling");
        let link = folder.0.join("latest.svg");
        symlink("one.svg", &link).unwrap();
        prove(&link).unwrap().write(hello).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(folder.0.join("one.svg")).unwrap(), b"hello");
        symlink("loop", folder.0.join("loop")).unwrap();
        assert!(matches!(prove(&folder.0.join("loop")), Err(DestinationError::Refused(..))));
    }

    /// Root can make links of another user; for others there are none to be tested.
    const OTHER_USER: u32 = 65_534;

    fn foreign_link(folder: &Folder, target: &str) -> Option<PathBuf> {
        let link = folder.0.join("foreign.svg");
        symlink(target, &link).unwrap();
        lchown(&link, Some(OTHER_USER), None).ok().map(|()| link)
    }

    #[test]
    fn link_of_another_user_is_refused() {
        let folder = Folder::new("foreign");
        fs::write(folder.0.join("victim"), "old").unwrap();
        let Some(link) = foreign_link(&folder, "victim") else { return };
        let through = folder.0.join("through.svg");
        symlink("foreign.svg", &through).unwrap();
        for path in [&link, &through] {
            let error = prove(path).unwrap_err();
            assert!(matches!(error, DestinationError::ForeignLink { uid: OTHER_USER, .. }), "{error}");
            assert!(error.to_string().contains("foreign.svg is a symbolic link of another user"), "{error}");
        }
        assert_eq!(fs::read(folder.0.join("victim")).unwrap(), b"old");
    }

    #[test]
    fn link_made_while_recording_is_replaced_not_followed() {
        let folder = Folder::new("swapped");
        let (path, victim) = (folder.0.join("flame.svg"), folder.0.join("victim"));
        fs::write(&victim, "old").unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o666)).unwrap();
        let destination = prove(&path).unwrap();
        symlink("victim", &path).unwrap();
        destination.write(hello).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"old");
        let written = fs::symlink_metadata(&path).unwrap();
        assert!(written.is_file() && written.permissions().mode() & 0o022 == 0, "{written:?}");
    }

    #[test]
    fn file_of_another_user_in_shared_folder_gives_no_owner() {
        let folder = Folder::new("shared");
        let path = folder.0.join("flame.svg");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        if chown(&path, Some(OTHER_USER), None).is_err() {
            return;
        }
        prove(&path).unwrap().write(hello).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().uid(), OTHER_USER);
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o1777)).unwrap();
        prove(&path).unwrap().write(hello).unwrap();
        let written = fs::metadata(&path).unwrap();
        assert_eq!((written.uid(), written.permissions().mode() & 0o022), (0, 0));
    }

    #[test]
    fn new_files_replace_nothing() {
        let folder = Folder::new("unasked");
        let path = folder.0.join("7-now.svg");
        let write = || Destination::prove(&Output::New(path.clone()), None).unwrap().write(hello).unwrap();
        symlink("victim", &path).unwrap();
        assert!(write().ends_with("7-now-2.svg") && write().ends_with("7-now-3.svg"));
        assert!(!folder.0.join("victim").exists());
        fs::remove_file(&path).unwrap();
        assert!(write().ends_with("7-now.svg"));
        // Where the file system has no files without a name.
        let named = folder.0.join(".named");
        let file = File::create_new(&named).unwrap();
        let unfinished = Unfinished { path: Some(named), file };
        assert!(unfinished.finish_as_new(&path).unwrap().ends_with("7-now-4.svg"));
        assert_eq!(folder.names().len(), 4);
        assert_eq!(fs::read(&path).unwrap(), b"hello");
    }

    #[test]
    fn what_failed_can_be_written_again() {
        let folder = Folder::new("again");
        let path = folder.0.join("in_place");
        let destination = Destination::InPlace(path.clone(), File::create(&path).unwrap());
        let fail = |writer: &mut dyn Write| {
            writer.write_all(&[b'x'; 20_000])?;
            Err(OutputError::Write(io::ErrorKind::StorageFull.into()))
        };
        assert!(matches!(destination.write(fail), Err(DestinationError::Refused(..))));
        destination.write(hello).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"hello");
    }

    #[test]
    fn open_files_of_proc_are_written_in_place() {
        let folder = Folder::new("proc");
        let file = File::create(folder.0.join("open")).unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)));
        let destination = prove(&path).unwrap();
        assert!(matches!(destination, Destination::InPlace(..)));
        destination.write(hello).unwrap();
        assert_eq!(fs::read(folder.0.join("open")).unwrap(), b"hello");
        let (_reader, writer) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
        assert!(matches!(prove(Path::new(&path)).unwrap(), Destination::InPlace(..)));
    }

    #[test]
    fn devices_are_written_in_place() {
        assert!(matches!(prove(Path::new("/dev/null")).unwrap(), Destination::InPlace(..)));
        let full = prove(Path::new("/dev/full")).unwrap();
        assert_eq!(
            full.write(hello).unwrap_err().to_string(),
            "cannot write /dev/full: No space left on device (os error 28)"
        );
    }

    #[test]
    fn pipe_without_reader_is_not_waited_for() {
        let folder = Folder::new("pipe");
        let path = folder.0.join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let error = prove(&path).unwrap_err();
        assert!(matches!(error, DestinationError::NoReader(_)), "{error}");
        assert_eq!(error.name(), path.display().to_string());
        let mut reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        prove(&path).unwrap().write(hello).unwrap();
        let mut text = [0; 5];
        io::Read::read_exact(&mut reader, &mut text).unwrap();
        assert_eq!(&text, b"hello");
    }

    #[test]
    fn what_cannot_be_written_is_found_out_before() {
        let folder = Folder::new("bad");
        assert!(matches!(prove(&folder.0), Err(DestinationError::IsFolder(_))));
        assert!(matches!(prove(&folder.0.join("x/")), Err(DestinationError::IsFolder(_))));
        assert!(matches!(prove(&folder.0.join("no/x.svg")), Err(DestinationError::NoFolder(..))));
        assert!(matches!(prove(Path::new("/proc/x.svg")), Err(DestinationError::Refused(..))));
        assert!(matches!(prove(Path::new("")), Err(DestinationError::Refused(..))));
        assert!(matches!(prove(&folder.0.join("n".repeat(256))), Err(DestinationError::Refused(..))));
        assert!(folder.names().is_empty());
    }
}
