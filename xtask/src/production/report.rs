//! What came of the trials: how often each was repeated, what was counted, and whether it held.

use std::time::Instant;

use anyhow::Result;

use crate::bench::Table;

/// The rounds of one trial: at least one, and more until its time is over.
#[derive(Debug)]
pub struct Rounds {
    end: Instant,
    begun: u32,
    counts: Vec<(&'static str, f64)>,
    skipped: Option<String>,
}

impl Rounds {
    /// Rounds until that instant.
    pub fn until(end: Instant) -> Self {
        Rounds { end, begun: 0, counts: Vec::new(), skipped: None }
    }

    /// The number of the next round, from 0 on, unless the time is over.
    pub fn next(&mut self) -> Option<usize> {
        let number = self.begun;
        (number == 0 || Instant::now() < self.end).then(|| {
            self.begun += 1;
            number as usize
        })
    }

    /// Adds to what is counted under this name.
    pub fn count(&mut self, what: &'static str, number: u64) {
        *self.entry(what) += number as f64;
    }

    /// Keeps the largest of what is measured under this name.
    pub fn most(&mut self, what: &'static str, number: f64) {
        let entry = self.entry(what);
        *entry = entry.max(number);
    }

    /// Notes why the trial cannot be run on this host.
    pub fn skip(&mut self, reason: String) {
        self.skipped = Some(reason);
    }

    fn entry(&mut self, what: &'static str) -> &mut f64 {
        let index = self.counts.iter().position(|(name, _)| *name == what).unwrap_or_else(|| {
            self.counts.push((what, 0.0));
            self.counts.len() - 1
        });
        &mut self.counts[index].1
    }

    fn counted(&self) -> String {
        let shown = self.counts.iter().map(|(what, number)| format!("{number:.0} {what}"));
        shown.collect::<Vec<_>>().join(", ")
    }
}

/// The table of all trials.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<[String; 4]>,
    failed: Vec<&'static str>,
}

impl Report {
    /// Adds a trial and what came of it.
    pub fn add(&mut self, name: &'static str, rounds: &Rounds, result: Result<()>) {
        let outcome = match (&result, &rounds.skipped) {
            (Err(error), _) => {
                self.failed.push(name);
                format!("NO: {}", format!("{error:#}").replace('\n', " "))
            }
            (Ok(()), Some(reason)) => format!("not tried: {reason}"),
            (Ok(()), None) => "yes".to_owned(),
        };
        self.rows.push([name.to_owned(), rounds.begun.to_string(), rounds.counted(), outcome]);
    }

    /// All of it.
    pub fn table(&self) -> Table {
        let mut table = Table::new("Production trial", &["trial", "rounds", "counted", "held"]);
        self.rows.iter().for_each(|row| table.row(row.clone()));
        table
    }

    /// The trials that did not hold.
    pub fn failed(&self) -> &[&'static str] {
        &self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_trial_is_named_with_its_reason() {
        let mut rounds = Rounds::until(Instant::now());
        assert_eq!((rounds.next(), rounds.next()), (Some(0), None), "one round whatever the time");
        rounds.count("kills", 3);
        rounds.most("ms at most", 5.0);
        rounds.most("ms at most", 4.0);
        let mut report = Report::default();
        report.add("kills", &rounds, Err(anyhow::anyhow!("a thread is left\nin state t")));
        report.add("disk", &Rounds::until(Instant::now()), Ok(()));
        assert_eq!(report.failed(), ["kills"]);
        let text = report.table().text();
        assert!(text.contains("3 kills, 5 ms at most"), "{text}");
        assert!(text.contains("NO: a thread is left in state t"), "{text}");
    }
}
