//! The table of loss reasons has a row for each reason, in the words that the profiler prints, and no other row.

use profiler_model::LossReason;

use super::page::Page;

/// The page with the table, and the heading above it.
const PAGE: &str = "docs/reference/losses.md";
const HEADING: &str = "Loss reasons";

/// The reasons without a row, without an explanation or advice, and the rows without a reason.
pub fn wrong_rows(pages: &[Page]) -> Vec<String> {
    let Some(page) = pages.iter().find(|page| page.path == PAGE) else {
        return vec![format!("{PAGE}: missing")];
    };
    let section = page.section(HEADING).unwrap_or_default();
    // The table stands directly below the heading: other tables follow under headings of their own.
    let own = section.split("\n## ").next().unwrap_or_default();
    let page = Page::new(PAGE, own);
    let rows: Vec<Vec<&str>> = page.rows().skip(1).collect();
    let reasons = LossReason::ALL.map(|reason| reason.to_string());

    let missing = reasons.iter().filter(|reason| !rows.iter().any(|row| row[0] == **reason));
    let unknown = rows.iter().filter(|row| !reasons.iter().any(|reason| reason == row[0]));
    let empty = rows.iter().filter(|row| row.len() != 3 || row.iter().any(|cell| cell.is_empty()));
    missing
        .map(|reason| format!("{PAGE}: no row for the loss reason \"{reason}\""))
        .chain(unknown.map(|row| format!("{PAGE}: \"{}\" is not a loss reason", row[0])))
        .chain(empty.map(|row| format!("{PAGE}: meaning or advice is missing: \"{}\"", row[0])))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[String]) -> [Page; 1] {
        let head = "# Loss reasons\n\n| reason | meaning | what to do |\n|---|---|---|\n";
        [Page::new(PAGE, &format!("{head}{}\n\n## Other\n\n| a | b |\n", rows.join("\n")))]
    }

    fn all_rows() -> Vec<String> {
        LossReason::ALL.map(|reason| format!("| {reason} | why | this |")).to_vec()
    }

    #[test]
    fn complete_table_is_accepted() {
        assert_eq!(wrong_rows(&table(&all_rows())), [""; 0]);
    }

    #[test]
    fn missing_unknown_and_unexplained_reasons_are_reported() {
        let mut rows = all_rows();
        let first = LossReason::ALL[0];
        rows[0] = "| bad luck | why |  |".to_owned();
        assert_eq!(
            wrong_rows(&table(&rows)),
            [
                format!("{PAGE}: no row for the loss reason \"{first}\""),
                format!("{PAGE}: \"bad luck\" is not a loss reason"),
                format!("{PAGE}: meaning or advice is missing: \"bad luck\""),
            ]
        );
        assert_eq!(wrong_rows(&[]).len(), 1);
    }
}
