//! Short names of source files: the path from the package that holds the file.
//!
//! `/usr/lib/python3.11/site-packages/numpy/linalg/linalg.py` becomes `numpy/linalg/linalg.py`: folders
//! belong to the package as long as they hold an `__init__.py`, looked for in the target's own root.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use profiler_model::Nanos;
use profiler_os::Process;
use profiler_os::target_files::exists_in_its_root;

/// No package nests deeper; a path is only as long as the kernel allows in any case.
const MAX_NESTED_PACKAGES: usize = 64;

/// A file system that has not answered by then is not asked any more: names are not worth a wait.
const LONGEST_WAIT: Nanos = Nanos::from_nanos(100_000_000);

/// Shortens paths, looking each folder up once.
#[derive(Debug)]
pub struct ShortFiles {
    root: Root,
    is_package: HashMap<String, bool>,
}

/// Where the paths begin.
#[derive(Debug)]
enum Root {
    /// At the root of a process, which decides what lies there.
    Of(Process),
    /// At a folder of ours.
    Folder(PathBuf),
    /// At that of a process, on a file system that does not answer.
    Silent,
}

impl Root {
    fn has(&mut self, path: &Path) -> bool {
        match self {
            Root::Silent => false,
            Root::Folder(root) => root.join(path.strip_prefix("/").unwrap_or(path)).exists(),
            Root::Of(process) => {
                let found = exists_in_its_root(*process, path.to_string_lossy().into_owned(), LONGEST_WAIT);
                if found.is_none() {
                    *self = Root::Silent;
                }
                found == Some(true)
            }
        }
    }
}

impl ShortFiles {
    /// For the files of `process`.
    pub fn new(process: Process) -> Self {
        ShortFiles { root: Root::Of(process), is_package: HashMap::new() }
    }

    /// For files whose paths begin at the folder `root`.
    pub fn below(root: PathBuf) -> Self {
        ShortFiles { root: Root::Folder(root), is_package: HashMap::new() }
    }

    /// The short form of `file`; names that are no absolute path stay as they are.
    pub fn shorten(&mut self, file: &Arc<str>) -> Arc<str> {
        let path = Path::new(&**file);
        if !path.is_absolute() {
            return Arc::clone(file);
        }
        let mut package_root = path.parent();
        for _ in 0..MAX_NESTED_PACKAGES {
            match package_root {
                Some(folder) if folder.parent().is_some() && self.is_package(folder) => {
                    package_root = folder.parent()
                }
                _ => break,
            }
        }
        match package_root.and_then(|root| path.strip_prefix(root).ok()).and_then(Path::to_str) {
            Some(short) => Arc::from(short),
            None => Arc::clone(file),
        }
    }

    fn is_package(&mut self, folder: &Path) -> bool {
        let Some(folder) = folder.to_str() else { return false };
        if let Some(known) = self.is_package.get(folder) {
            return *known;
        }
        let is_package = self.root.has(&Path::new(folder).join("__init__.py"));
        self.is_package.insert(folder.to_owned(), is_package);
        is_package
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use profiler_model::Pid;

    #[test]
    fn folders_of_packages_stay_and_others_go() {
        let root = std::env::temp_dir().join(format!("short-file-{}", std::process::id()));
        let inner = root.join("package/inner");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(root.join("package/__init__.py"), "").unwrap();
        std::fs::write(inner.join("__init__.py"), "").unwrap();
        let mut short = ShortFiles::new(Process::new(Pid::new(std::process::id())));
        let mut shorten = |path: &Path| short.shorten(&Arc::from(path.to_str().unwrap())).to_string();
        assert_eq!(shorten(&inner.join("module.py")), "package/inner/module.py");
        assert_eq!(shorten(&root.join("script.py")), "script.py");
        assert_eq!(shorten(Path::new("<frozen importlib._bootstrap>")), "<frozen importlib._bootstrap>");
        std::fs::remove_dir_all(&root).unwrap();
    }
}
