//! Lines of the target's source files, read in the target's own root.
//!
//! A file that was changed after the target started is not shown: it need not be what the target runs.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use profiler_model::{Frame, Nanos};
use profiler_os::{Process, target_files};

/// The largest source file that is read. The largest of the standard library has 300 KB; generated ones some
/// megabytes.
const MAX_SOURCE_BYTES: u64 = 8 << 20;

/// The most files of one dump: a stack goes through some ten.
const MAX_SOURCES: usize = 256;

/// Where paths begin.
#[derive(Debug)]
enum Root {
    /// Where they do for this process.
    Of(Process),
    /// In this folder.
    At(PathBuf),
}

/// Source files, each read once.
#[derive(Debug)]
pub struct Sources {
    root: Root,
    /// What was changed later than this, since 1970, is not shown: when the process started, or when its core file
    /// was written, which does not tell when the process started.
    latest: Option<Nanos>,
    texts: HashMap<Arc<str>, Option<String>>,
}

impl Sources {
    /// Those of `process`.
    pub fn new(process: Process) -> Self {
        Sources { root: Root::Of(process), latest: process.started_at(), texts: HashMap::new() }
    }

    /// Those of a process that is no more, whose root is now this folder, and whose core file was written then.
    pub fn below(root: PathBuf, written: Option<Nanos>) -> Self {
        Sources { root: Root::At(root), latest: written, texts: HashMap::new() }
    }

    /// The line that `frame` is at, if its columns fit into it.
    pub fn line(&mut self, frame: &Frame) -> Option<String> {
        let number = frame.position.line?.checked_sub(1)?;
        let is_late = matches!(self.root, Root::At(_));
        let may_be_another = is_late || !frame.file.starts_with('/');
        let text = self.text(&frame.file)?;
        if may_be_another && !defines(text, frame) {
            return None;
        }
        let line = text.lines().nth(number as usize)?;
        let fits = |column: Option<u32>| column.is_none_or(|column| line.is_char_boundary(column as usize));
        let position = &frame.position;
        let end = position.end_column.filter(|_| position.end_line == position.line);
        (fits(position.column) && fits(end)).then(|| line.to_owned())
    }

    fn text(&mut self, file: &Arc<str>) -> Option<&str> {
        if !self.texts.contains_key(file) {
            if self.texts.len() >= MAX_SOURCES {
                return None;
            }
            let text = self.read(file);
            self.texts.insert(Arc::clone(file), text);
        }
        self.texts.get(file)?.as_deref()
    }

    fn read(&self, file: &str) -> Option<String> {
        let opened = self.open(file)?;
        let about = opened.metadata().ok()?;
        let changed = (about.mtime(), about.mtime_nsec()).max((about.ctime(), about.ctime_nsec()));
        let latest = self.latest?.as_nanos() / 1_000_000;
        let changed = u64::try_from(changed.0).ok()? * 1000 + u64::try_from(changed.1).ok()? / 1_000_000;
        if about.len() > MAX_SOURCE_BYTES || changed > latest {
            return None;
        }
        let mut text = Vec::new();
        opened.take(MAX_SOURCE_BYTES).read_to_end(&mut text).ok()?;
        String::from_utf8(text).ok()
    }

    /// Opens a source file, if it is a regular file: opening a device or a pipe can wait or do something.
    fn open(&self, file: &str) -> Option<File> {
        match (&self.root, file.strip_prefix('/')) {
            (Root::Of(process), Some(_)) => target_files::open_in_its_root(process, file).ok(),
            (Root::At(root), Some(below)) => {
                let path = root.join(below);
                std::fs::metadata(&path).ok().filter(|about| about.is_file())?;
                File::open(&path).ok()
            }
            _ if file.starts_with('<') || file.is_empty() => None,
            // Where it was when it named the file so, unless it has gone elsewhere.
            (Root::Of(process), None) => target_files::open_in_its_working_directory(process, file).ok(),
            // A core does not tell its working directory.
            (Root::At(_), None) => None,
        }
    }
}

/// Whether `text` has a definition of the frame's function where it should be. A relative path may lead to
/// another file by now.
fn defines(text: &str, frame: &Frame) -> bool {
    let name = frame.function.rsplit('.').next().unwrap_or_default();
    if name.starts_with('<') {
        return true;
    }
    let first = frame.first_line.and_then(|line| text.lines().nth(line.checked_sub(1)? as usize));
    let line = first.unwrap_or_default().trim_start();
    line.starts_with('@') || line.contains(&format!("def {name}")) || line.contains(&format!("class {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use profiler_model::{Pid, Position};

    fn frame(file: &str, line: u32, columns: Option<(u32, u32)>) -> Frame {
        let position = Position {
            line: Some(line),
            end_line: Some(line),
            column: columns.map(|(start, _)| start),
            end_column: columns.map(|(_, end)| end),
        };
        Frame { function: "f".into(), file: file.into(), first_line: Some(1), position, ..Frame::default() }
    }

    #[test]
    fn lines_of_files_that_are_older_than_the_process() {
        let path = std::env::temp_dir().join(format!("sources-{}.py", std::process::id()));
        std::fs::write(&path, "def f():\n    é = g(1)\n").unwrap();
        let file = path.to_str().unwrap();
        let own = Process::new(Pid::new(std::process::id()));
        let mut newer = Sources { latest: Some(Nanos::from_nanos(u64::MAX)), ..Sources::new(own) };
        assert_eq!(newer.line(&frame(file, 2, Some((9, 13)))).as_deref(), Some("    é = g(1)"));
        // In the middle of a character, behind the end, no such line.
        assert_eq!(newer.line(&frame(file, 2, Some((5, 13)))), None);
        assert_eq!(newer.line(&frame(file, 2, Some((9, 99)))), None);
        assert_eq!(newer.line(&frame(file, 3, None)), None);
        let mut older = Sources { latest: Some(Nanos::from_nanos(1)), ..Sources::new(own) };
        assert_eq!(older.line(&frame(file, 2, None)), None);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn only_files_are_read() {
        let mut sources = Sources::new(Process::new(Pid::new(std::process::id())));
        for file in ["/dev/zero", "/proc", "<string>", "", "/nowhere/at/all.py"] {
            assert_eq!(sources.line(&frame(file, 1, None)), None, "{file}");
        }
    }
}
