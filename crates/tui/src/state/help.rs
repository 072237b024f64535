//! What there is to read in the help: every key, what the columns mean, and the whole ledger, for which the line
//! that is always there may be too short.

use profiler_profile::Ledger;

/// A key or a word, and what it does or means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelpEntry {
    /// The key or word; empty where the text needs none.
    pub word: String,
    /// What it does or means.
    pub text: String,
}

impl HelpEntry {
    fn new(word: impl Into<String>, text: impl Into<String>) -> Self {
        HelpEntry { word: word.into(), text: text.into() }
    }
}

/// The most needed first: a small terminal shows the first ones.
const KEYS: &[(&str, &str)] = &[
    ("q Ctrl-C", "quit"),
    ("1-5 Tab", "functions, lines, threads, calls, flame"),
    ("↑ ↓ PgUp PgDn", "move, here as well"),
    ("← →", "sort by column; close and open calls"),
    ("Enter", "only this thread; open; zoom"),
    ("Esc", "clear filters, zoom out"),
    ("/", "show what contains a text"),
    ("t", "only the next thread, then all"),
    ("w", "write what is seen to a file"),
    ("s", "last interval or since the start"),
    ("m", "CPU time or wall time"),
    ("i", "include threads that wait"),
    ("g", "only samples with the GIL"),
    ("o < >", "other order, sort by column"),
    ("f Space", "freeze the view, go on"),
    (". n", "step one interval"),
    ("p", "pause: take nothing in"),
    ("r", "reset: forget what was seen"),
    ("+ -", "open the hottest path, close below"),
    ("Ctrl-Z", "suspend; fg comes back"),
    ("mouse", "tabs, columns, rows, boxes, wheel"),
    ("own% OWN%", "in the last interval, since the start"),
];

/// All there is.
pub(super) fn entries(ledger: &Ledger) -> Vec<HelpEntry> {
    let keys = KEYS.iter().map(|(word, text)| HelpEntry::new(*word, *text));
    keys.chain(losses(ledger)).collect()
}

fn losses(ledger: &Ledger) -> Vec<HelpEntry> {
    let told = format!("of {} asked for", ledger.attempts());
    let mut entries = vec![HelpEntry::new(format!("{} lost", ledger.lost()), told)];
    let reasons = ledger.losses().into_iter();
    entries.extend(reasons.map(|(reason, times)| HelpEntry::new(format!("  {times}"), reason.to_string())));
    if ledger.not_asked_for() > 0 {
        entries
            .push(HelpEntry::new(format!("{} left out", ledger.not_asked_for()), "not asked for, or paused"));
    }
    if let Some(counts) = ledger.processes.filter(|counts| counts.missed + counts.not_permitted > 0) {
        entries.push(HelpEntry::new(format!("{} missed", counts.missed), "processes that ended unseen"));
        entries
            .push(HelpEntry::new(format!("{} forbidden", counts.not_permitted), "processes not to be read"));
    }
    entries
}
