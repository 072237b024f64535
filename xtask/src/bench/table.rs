//! The tables of the report: printed as aligned text, written as markdown. What stands in them is measured
//! elsewhere.

use std::fmt::Write;

/// A table with its heading and the lines that explain it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    title: String,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Table {
    /// A table without rows yet.
    pub fn new(title: impl Into<String>, header: &[&str]) -> Self {
        let header = header.iter().map(|cell| (*cell).to_owned()).collect();
        Table { title: title.into(), header, ..Table::default() }
    }

    /// Adds a row; cells that are missing at its end are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        let mut row: Vec<String> = cells.into_iter().map(Into::into).collect();
        row.resize(self.header.len(), String::new());
        self.rows.push(row);
    }

    /// Adds a line below the table.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// As aligned text.
    pub fn text(&self) -> String {
        let mut text = format!("\n{}\n", self.title);
        let widths: Vec<usize> = (0..self.header.len()).map(|column| self.width(column)).collect();
        for row in std::iter::once(&self.header).chain(&self.rows) {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            text += "  ";
            text += cells.collect::<Vec<_>>().join("  ").trim_end();
            text += "\n";
        }
        for note in &self.notes {
            let _ = writeln!(text, "  - {note}");
        }
        text
    }

    /// As markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = format!("### {}\n\n{}", self.title, line(&self.header));
        text += &format!("|{}\n", "---|".repeat(self.header.len()));
        for row in &self.rows {
            text += &line(row);
        }
        text += "\n";
        for note in &self.notes {
            let _ = writeln!(text, "- {note}");
        }
        if !self.notes.is_empty() {
            text += "\n";
        }
        text
    }

    fn width(&self, column: usize) -> usize {
        let rows = std::iter::once(&self.header).chain(&self.rows);
        rows.map(|row| row[column].chars().count()).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("Speed", &["who", "m/s"]);
        table.row(["a snail", "0.001"]);
        table.row(["µ"]);
        table.note("downhill");
        table
    }

    #[test]
    fn text_is_aligned_by_characters() {
        assert_eq!(table().text(), "\nSpeed\n  who      m/s\n  a snail  0.001\n  µ\n  - downhill\n");
    }

    #[test]
    fn markdown_has_a_cell_for_every_column() {
        let expected =
            "### Speed\n\n| who | m/s |\n|---|---|\n| a snail | 0.001 |\n| µ |  |\n\n- downhill\n\n";
        assert_eq!(table().markdown(), expected);
    }
}
