//! The modules in which a Python is looked for.

use super::Module;
use super::image::{Depth, Image};

/// A module that is looked into: its ELF image where the file could be read.
pub(super) struct Candidate<'a> {
    pub module: Module<'a>,
    pub image: Option<Image<'a>>,
    /// Where the module was loaded, against the addresses in its file; more than one where it was mapped
    /// twice.
    pub biases: Vec<u64>,
}

impl<'a> Candidate<'a> {
    /// The module, whose image is read as deep as `depth` says.
    pub fn new(module: &Module<'a>, depth: Depth) -> Self {
        let image = Image::parse(module.file, depth);
        let mut biases = image.as_ref().map(|image| image.biases(module.mappings)).unwrap_or_default();
        // The kernel places what is loaded later below.
        biases.sort_unstable_by_key(|bias| std::cmp::Reverse(*bias));
        Candidate { module: *module, image, biases }
    }

    pub fn file_name(&self) -> &'a str {
        file_name(self.module.path)
    }
}

/// The modules in which a Python is looked for first: the executable and those that are named as Pythons, of these the
/// libraries that the executable needs before others, and what was loaded earlier before what was loaded later.
pub(super) fn likely<'a>(modules: &[Module<'a>]) -> Vec<Candidate<'a>> {
    let mut likely: Vec<Candidate<'_>> = modules
        .iter()
        .enumerate()
        .filter(|(index, module)| *index == 0 || is_python_name(file_name(module.path)))
        .map(|(_, module)| Candidate::new(module, Depth::All))
        .collect();
    let Some((executable, libraries)) = likely.split_first_mut() else { return likely };
    let needed = executable.image.as_ref().map(Image::needed).unwrap_or_default();
    libraries.sort_by_key(|library| {
        let is_needed = needed.contains(&library.file_name().as_bytes());
        let start = library.module.mappings.first().map(|mapping| mapping.start);
        // The kernel places what is loaded later below.
        (!is_needed, std::cmp::Reverse(start))
    });
    likely
}

/// The name of the file at this path.
pub(super) fn file_name(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_suffix(" (deleted)").unwrap_or(name)
}

/// Whether the file at this path is named like a Python.
pub fn is_python_file(path: &str) -> bool {
    is_python_name(file_name(path))
}

/// Whether this is the name of a Python.
pub(super) fn is_python_name(name: &str) -> bool {
    name.starts_with("python") || name.starts_with("libpython")
}
