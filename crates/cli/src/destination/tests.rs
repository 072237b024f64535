//! Destinations in folders of their own.

use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

use profiler_os::file::unnamed_file;

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
    let unfinished = Unfinished::create_named(folder.0.join(".named")).unwrap();
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
