//! Files of `/proc` that the crate `procfs` parses, and the text of those that it does not.
//!
//! The crate fails on bytes that are not UTF-8, of which the names of programs, folders and control groups may consist. So
//! a file is read here, which also keeps the error of the kernel, and the crate parses its text.

use std::path::Path;
use std::{fs, io};

use procfs::{FromRead, ProcError};

/// The text of a file of `/proc`. Bytes that are not UTF-8 are replaced: they are no reason not to read the rest.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn text_of(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// What a file of `/proc` says.
///
/// # Errors
/// When the file cannot be read, or is not what the crate expects.
pub(crate) fn parsed<T: FromRead>(path: &Path) -> io::Result<T> {
    T::from_read(text_of(path)?.as_bytes()).map_err(io_error)
}

/// An error of the crate as one of the standard library, of the same kind.
pub(crate) fn io_error(error: ProcError) -> io::Error {
    match error {
        ProcError::PermissionDenied(_) => io::ErrorKind::PermissionDenied.into(),
        ProcError::NotFound(_) => io::ErrorKind::NotFound.into(),
        ProcError::Io(error, _) => error,
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

/// A `status` file with some of its lines, such as `PPid:\t7`, in the place of the usual ones.
#[cfg(test)]
pub(crate) fn status_with(lines: &[&str]) -> procfs::process::Status {
    const USUAL: &str = "\
Name:\tpython3: odd\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t12\nNgid:\t0\nPid:\t12\nPPid:\t1\nTracerPid:\t0
Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nFDSize:\t64\nGroups:\t0 \nNSpid:\t12\nThreads:\t1\nSigQ:\t0/95880
SigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001000
SigCgt:\t0000000000000000\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000
Seccomp:\t0\nvoluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0\n";
    // Of two lines with the same name, the crate takes the last one.
    procfs::process::Status::from_read(format!("{USUAL}{}\n", lines.join("\n")).as_bytes()).unwrap()
}

#[cfg(test)]
mod tests {
    use procfs::process::{Process, Status};

    use super::*;

    #[test]
    fn file_with_any_bytes_is_parsed() {
        let path = std::env::temp_dir().join(format!("proc-file-{}", std::process::id()));
        let status = fs::read("/proc/self/status").unwrap();
        let named =
            [b"Name:\ta\xff: b\n".as_slice(), status.splitn(2, |byte| *byte == b'\n').nth(1).unwrap()];
        fs::write(&path, named.concat()).unwrap();
        assert_eq!(parsed::<Status>(&path).unwrap().pid, std::process::id().cast_signed());
        fs::write(&path, "Name:\tx\n").unwrap();
        assert_eq!(parsed::<Status>(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn errors_of_the_crate_keep_their_kind() {
        let missing = Process::new(i32::MAX).map(|_| ()).unwrap_err();
        assert_eq!(io_error(missing).kind(), io::ErrorKind::NotFound);
        let ended = ProcError::Io(io::Error::from_raw_os_error(libc::ESRCH), None);
        assert_eq!(io_error(ended).raw_os_error(), Some(libc::ESRCH));
    }
}
