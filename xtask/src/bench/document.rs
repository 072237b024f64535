//! A markdown file that holds tables between marks: `<!-- bench NAME -->` to `<!-- end NAME -->`. The tables
//! of the cases that were run are put there; what people have written around them stays.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::table::Table;

/// Puts the tables of a case into a file, which is made if it is not there.
pub fn update(path: &Path, name: &str, tables: &[Table]) -> Result<()> {
    let text = match path.exists() {
        true => fs::read_to_string(path).with_context(|| path.display().to_string())?,
        false => String::new(),
    };
    let tables: String = tables.iter().map(Table::markdown).collect();
    fs::write(path, with_section(&text, name, &tables)).with_context(|| path.display().to_string())
}

/// The text with a section's content replaced, or added at the end.
fn with_section(text: &str, name: &str, content: &str) -> String {
    let (begin, end) = (format!("<!-- bench {name} -->\n"), format!("<!-- end {name} -->\n"));
    let section = format!("{begin}\n{content}{end}");
    let found = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    match found {
        Some((before, after)) => format!("{before}{section}{after}"),
        None => format!("{text}{section}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_content_of_the_section_changes() {
        let text =
            "# Figures\n<!-- bench a -->\nold\n<!-- end a -->\nWhy.\n<!-- bench b -->\n<!-- end b -->\n";
        let new =
            "# Figures\n<!-- bench a -->\n\nnew\n<!-- end a -->\nWhy.\n<!-- bench b -->\n<!-- end b -->\n";
        assert_eq!(with_section(text, "a", "new\n"), new);
        assert_eq!(with_section("", "c", "new\n"), "<!-- bench c -->\n\nnew\n<!-- end c -->\n");
    }
}
