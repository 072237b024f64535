//! What all formats have in common, and how one is chosen.

use std::io::{self, Write};

use profiler_profile::Profile;
use thiserror::Error;

use crate::{ChromeTrace, Collapsed, FlameGraph, Speedscope, ViewOptions};

/// Why a view could not be written.
#[derive(Debug, Error)]
pub enum OutputError {
    /// The file did not take it.
    #[error("cannot write")]
    Write(#[from] io::Error),
    /// The format shows samples in order of time, but the profile keeps only their sums.
    #[error("this profile has no timeline, which the format needs")]
    NoTimeline,
}

/// A format that profiles are written in.
pub trait Format: Sync {
    /// What `--format` calls it.
    fn name(&self) -> &'static str;

    /// The endings of its files, the usual one first.
    fn endings(&self) -> &'static [&'static str];

    /// Whether the profile must keep when each sample was taken.
    fn needs_timeline(&self) -> bool {
        false
    }

    /// Whether it can show the sum of several processes: [`ViewOptions::merge_processes`].
    fn can_merge_processes(&self) -> bool {
        true
    }

    /// Writes a profile that has all that the format needs.
    fn write_view(
        &self,
        profile: &Profile,
        options: &ViewOptions,
        out: &mut dyn Write,
    ) -> Result<(), OutputError>;

    /// Writes a profile. Many small writes: give it a buffered `out`.
    ///
    /// # Errors
    /// When it lacks what the format needs, or cannot be written.
    fn write(
        &self,
        profile: &Profile,
        options: &ViewOptions,
        out: &mut dyn Write,
    ) -> Result<(), OutputError> {
        if self.needs_timeline() && !profile.keeps_timeline() {
            return Err(OutputError::NoTimeline);
        }
        self.write_view(profile, options, out)
    }
}

/// All formats, the default one first.
pub static FORMATS: [&dyn Format; 4] = [&FlameGraph, &Collapsed, &Speedscope, &ChromeTrace];

/// The format that `--format` calls so.
pub fn format_named(name: &str) -> Option<&'static dyn Format> {
    FORMATS.into_iter().find(|format| format.name() == name)
}

/// The format of a file of this name, by its longest ending that is known: `a.trace.json` is no `.json`.
pub fn format_of_file(name: &str) -> Option<&'static dyn Format> {
    name.match_indices('.').find_map(|(dot, _)| format_of_ending(&name[dot + 1..]))
}

/// The format whose files end so (`svg`, without the dot), in any case.
pub fn format_of_ending(ending: &str) -> Option<&'static dyn Format> {
    let is_its =
        |format: &&dyn Format| format.endings().iter().any(|known| known.eq_ignore_ascii_case(ending));
    FORMATS.into_iter().find(is_its)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_found_by_its_name_and_by_each_of_its_endings() {
        for format in FORMATS {
            assert_eq!(format_named(format.name()).map(Format::name), Some(format.name()));
            assert!(!format.endings().is_empty());
            for ending in format.endings() {
                let found = format_of_ending(&ending.to_uppercase()).map(Format::name);
                assert_eq!(found, Some(format.name()), "an ending of two formats: {ending}");
            }
        }
        let of_file = |name| format_of_file(name).map(Format::name);
        assert_eq!(of_file("1.2.trace.json"), Some("chrometrace"));
        assert_eq!(of_file("trace.json"), Some("speedscope"));
        assert_eq!((of_file("a.svg.gz"), of_file("svg"), of_file("")), (None, None, None));
        assert!(format_named("pdf").is_none() && format_of_ending("pdf").is_none());
    }
}
