//! Where a result is written: proved to be writable before anything is sampled, and never left half done.
//!
//! A file is written without a name, or beside its place, and put into it when it is whole, so that an older
//! result stays whole until the new one is. What cannot be replaced so (a device, a pipe, a file in a folder that may not be written) is
//! written in place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, fchown};
use std::path::{Path, PathBuf};

use profiler_os::file::{NO_READER, name_file, open_pipe, unnamed_file};
use profiler_os::launch::InvokingUser;
use profiler_output::{OutputError, escaped_text};

use crate::plan::Output;

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
    /// Behind symbolic links.
    place: PathBuf,
    /// Who shall own a new file.
    owner: Option<(u32, u32)>,
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
            | DestinationError::Refused(path, _) => shown(path),
            DestinationError::Stdout(_) | DestinationError::Unsuitable(_) => "stdout".to_owned(),
        }
    }
}

impl Destination {
    /// Proves that `output` can be written, without changing what is there. New files will belong to `user`
    /// where one is given: who records with `sudo` wants to be able to delete the result without.
    ///
    /// # Errors
    /// When it cannot be written. A named pipe without a reader is not waited for.
    pub fn prove(output: &Output, user: Option<&InvokingUser>) -> Result<Self, DestinationError> {
        match output {
            Output::Stdout => Ok(Destination::Stdout),
            Output::File(path) => {
                let owner = user.map(|user| (user.uid(), user.gid()));
                prove_file(path, owner).map_err(|error| explain(path, error))
            }
        }
    }

    /// What the destination is called.
    pub fn name(&self) -> String {
        match self {
            Destination::Stdout => "stdout".to_owned(),
            Destination::InPlace(path, _) => shown(path),
            Destination::Renamed(file) => shown(&file.path),
        }
    }

    /// Writes what `render` renders. Of a file that cannot be written whole nothing stays behind.
    ///
    /// # Errors
    /// When it cannot be written; a reader of stdout that has enough is no error.
    pub fn write(
        self,
        render: impl FnOnce(&mut dyn Write) -> Result<(), OutputError>,
    ) -> Result<(), DestinationError> {
        let (path, written) = match self {
            Destination::Stdout => return write_to_stdout(render),
            Destination::InPlace(path, file) => (path, write_in_place(file, render)),
            Destination::Renamed(file) => {
                let written = file.write(render);
                (file.path, written)
            }
        };
        written.map_err(|error| match error {
            OutputError::Write(error) => DestinationError::Refused(path, error),
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

fn prove_file(path: &Path, owner: Option<(u32, u32)>) -> io::Result<Destination> {
    if path.as_os_str().is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name is empty"));
    }
    if path.as_os_str().as_bytes().ends_with(b"/") {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let renamed = |place| Renamed { path: path.to_owned(), place, owner };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = renamed(path.to_owned());
            file.prove()?;
            Ok(Destination::Renamed(file))
        }
        Err(error) => Err(error),
        Ok(existing) if existing.file_type().is_fifo() => {
            Ok(Destination::InPlace(path.to_owned(), open_pipe(path)?))
        }
        Ok(existing) => {
            // Fails for a folder, and for a file that is protected against writing: to replace it would be
            // possible, but not what its owner wants.
            let opened = OpenOptions::new().write(true).open(path)?;
            let file = renamed(fs::canonicalize(path)?);
            if existing.is_file() && file.prove().is_ok() {
                Ok(Destination::Renamed(file))
            } else {
                Ok(Destination::InPlace(path.to_owned(), opened))
            }
        }
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
    file: File,
    render: impl FnOnce(&mut dyn Write) -> Result<(), OutputError>,
) -> Result<(), OutputError> {
    if file.metadata()?.is_file() {
        file.set_len(0)?;
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

    fn write(
        &self,
        render: impl FnOnce(&mut dyn Write) -> Result<(), OutputError>,
    ) -> Result<(), OutputError> {
        let unfinished = Unfinished::create(&self.place)?;
        let mut writer = BufWriter::new(&unfinished.file);
        render(&mut writer)?;
        writer.flush()?;
        drop(writer);
        self.adopt(&unfinished.file)?;
        Ok(unfinished.finish(&self.place)?)
    }

    /// Gives the file the mode and owner of the one that it replaces, or else the owner who is wanted.
    fn adopt(&self, file: &File) -> io::Result<()> {
        let owner = match fs::metadata(&self.place) {
            Ok(existing) => {
                file.set_permissions(existing.permissions())?;
                Some((existing.uid(), existing.gid()))
            }
            Err(_) => self.owner,
        };
        if let Some((uid, gid)) = owner {
            // Only root may give files away. Who may not still gets the result, as its own file.
            let _ = fchown(file, Some(uid), Some(gid));
        }
        Ok(())
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
    use std::os::unix::fs::{PermissionsExt, symlink};

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
