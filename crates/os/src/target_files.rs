//! Opens files that a target names, without trusting it.
//!
//! A target chooses what lies behind its paths: it can mount a pipe, a device or a file system of its own over a file that
//! it has mapped, and its absolute symbolic links would lead to our files, not to its own. So nothing is opened for reading
//! before it is known to be a regular file: it is opened as a place (`O_PATH`), which neither waits nor does anything, looked
//! at, and then opened again through that descriptor, which cannot lead elsewhere. Paths are resolved below the target's root
//! (`openat2`, Linux 5.6); where the kernel lacks that call, a path with symbolic links is refused.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;
use profiler_model::Nanos;

use crate::file::MappedFile;
use crate::patience::Pending;
use crate::proc::{Mapping, Process};

/// No larger file is looked into. The largest libraries, of machine learning with their debug information, have some gigabytes.
const MOST_BYTES: u64 = 16 << 30;

/// The file that is mapped there. The kernel leads to that very file, even if it was deleted or another one has its name by
/// now, for those who have the right to ask it (`/proc/PID/map_files`); for others it is the one at the mapping's path below the
/// target's root, or below our own (paths of a target in a `chroot` are shown to us as ours), with the same inode.
///
/// # Errors
/// When no such file can be opened, or it is no regular one.
pub fn open_mapped(process: &Process, mapping: &Mapping) -> io::Result<MappedFile> {
    let range = format!("{:x}-{:x}", mapping.start.as_u64(), mapping.end.as_u64());
    let exact = place(&process.mapped_file(&range)).and_then(|place| reopened(&place, None));
    let (below_its_root, below_ours) =
        (|| place_in_its_root(process, &mapping.path), || place_in_ours(&mapping.path));
    let identity = Some(mapping);
    let file = exact
        .or_else(|_| reopened(&below_its_root()?, identity))
        .or_else(|_| reopened(&below_ours()?, identity))?;
    MappedFile::map(&file)
}

/// The program that a process runs.
///
/// # Errors
/// When it cannot be opened.
pub fn open_executable(process: &Process) -> io::Result<MappedFile> {
    MappedFile::map(&reopened(&place(&process.folder().join("exe"))?, None)?)
}

/// A regular file at a path of the process's, absolute, below its root. Symbolic links are followed there.
///
/// # Errors
/// When there is none, or it is no regular file.
pub fn open_in_its_root(process: &Process, path: &str) -> io::Result<File> {
    reopened(&place_in_its_root(process, path)?, None)
}

/// Whether there is a file at a path of the process's, absolute, below its root; `None` if that is not known within `limit`.
pub fn exists_in_its_root(process: Process, path: String, limit: Nanos) -> Option<bool> {
    let look = move || place_in_its_root(&process, &path).is_ok();
    Pending::begin(look).ok()?.wait(limit)
}

/// A regular file at a path of the process's, relative to the folder that it runs in. Links that lead out of that folder are
/// refused, and all links of a path that leads upwards.
///
/// # Errors
/// When there is none, or it is no regular file.
pub fn open_in_its_working_directory(process: &Process, path: &str) -> io::Result<File> {
    let below = |scope| place_below(place(&process.folder().join("cwd"))?, path, scope);
    let found = below(ResolveFlag::RESOLVE_BENEATH).or_else(|_| below(ResolveFlag::RESOLVE_NO_SYMLINKS))?;
    reopened(&found, None)
}

/// Where a path leads that the kernel itself keeps: `/proc/PID/exe`.
fn place(path: &Path) -> io::Result<OwnedFd> {
    Ok(nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn place_in_its_root(process: &Process, path: &str) -> io::Result<OwnedFd> {
    place_below(
        place(&process.folder().join("root"))?,
        path.trim_start_matches('/'),
        ResolveFlag::RESOLVE_IN_ROOT,
    )
}

/// A path of a mapping has no symbolic links any longer.
fn place_in_ours(path: &str) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(AT_FDCWD, path, how) {
        Err(error) if is_missing_call(error) => place_without_links(place(Path::new("/"))?, path),
        place => Ok(place?),
    }
}

fn place_below(folder: OwnedFd, path: &str, scope: ResolveFlag) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(scope | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(folder.as_fd(), path, how) {
        Err(error) if is_missing_call(error) => place_without_links(folder, path),
        place => Ok(place?),
    }
}

/// Whether the kernel has no `openat2`, or a filter of system calls does not know it.
fn is_missing_call(error: Errno) -> bool {
    matches!(error, Errno::ENOSYS | Errno::EPERM)
}

/// The same one step after the other, where the kernel has no call for it. No link is followed.
fn place_without_links(mut place: OwnedFd, path: &str) -> io::Result<OwnedFd> {
    for step in path.split('/').filter(|step| !matches!(*step, "" | ".")) {
        if step == ".." {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it leads upwards"));
        }
        place =
            openat(place.as_fd(), step, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    }
    Ok(place)
}

/// Opens a place for reading if it is a regular file of sensible size, and the one that is mapped.
fn reopened(place: &OwnedFd, mapped: Option<&Mapping>) -> io::Result<File> {
    let about = File::from(place.try_clone()?).metadata()?;
    let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if about.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    if !about.is_file() {
        return refused("it is no regular file");
    }
    if about.len() > MOST_BYTES {
        return refused("it is too large");
    }
    // Some file systems show another device in `/proc/PID/maps` than for the file itself (btrfs, overlays): the inode decides.
    if mapped.is_some_and(|mapping| mapping.inode != about.ino()) {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use profiler_model::Pid;
    use std::os::unix::fs::symlink;

    fn own() -> Process {
        Process::new(Pid::new(std::process::id()))
    }

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("target-files-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn pipes_and_devices_are_refused_without_being_opened() {
        let folder = folder("pipe");
        let pipe = folder.join("pipe");
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        for path in [pipe.to_str().unwrap(), "/dev/zero", "/proc"] {
            assert!(open_in_its_root(&own(), path).is_err(), "{path}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn links_are_followed_below_the_root_and_not_out_of_the_working_directory() {
        let folder = folder("links");
        let (file, link) = (folder.join("file"), folder.join("link"));
        std::fs::write(&file, "text").unwrap();
        symlink(&file, &link).unwrap();
        let read = |file: File| io::read_to_string(file).unwrap();
        assert_eq!(read(open_in_its_root(&own(), link.to_str().unwrap()).unwrap()), "text");
        let below = |scope, path| place_below(place(&folder).unwrap(), path, scope);
        assert!(below(ResolveFlag::RESOLVE_BENEATH, "link").is_err());
        assert!(below(ResolveFlag::RESOLVE_BENEATH, "file").is_ok());
        // Below another root an absolute link leads there.
        assert!(below(ResolveFlag::RESOLVE_IN_ROOT, "link").is_err());
        assert!(place_without_links(place(&folder).unwrap(), "file").is_ok());
        assert!(place_without_links(place(&folder).unwrap(), "../file").is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn mapped_file_is_told_from_another_one_by_its_inode() {
        let mappings = own().mappings().unwrap();
        let mut mapping =
            mappings.into_iter().find(|mapping| mapping.executable && mapping.inode != 0).unwrap();
        assert!(!open_mapped(&own(), &mapping).unwrap().is_empty());
        mapping.inode += 1;
        let found = place_in_ours(&mapping.path).unwrap();
        assert_eq!(reopened(&found, Some(&mapping)).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
