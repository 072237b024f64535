//! The statements of a table: bounds of shares, shares that the program has counted itself, threads, frames
//! that must not be.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::Evidence;
use super::selector::Selector;
use crate::WeightedSample;
use crate::statistics::{bound, deviations};

/// How certain it is that chance alone does not break any comparison of one statement: there are some dozens
/// of statements, all of which must hold in every run of the tests.
const CONFIDENCE: f64 = 0.9999;

/// Fewer samples than this and the bound of a counted share would forgive anything.
const LEAST_EFFECTIVE_SAMPLES: f64 = 100.0;

/// One statement.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Check {
    /// The statement in words.
    pub(super) says: String,
    /// True from this minor version on.
    #[serde(default)]
    from: u32,
    /// True before this minor version.
    before: Option<u32>,
    share: Option<Share>,
    counted: Option<Counted>,
    seconds: Option<Seconds>,
    threads: Option<Threads>,
    never: Option<Selector>,
}

/// The weight of a part is so much of that of another, or of everything.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Share {
    part: Selector,
    #[serde(default)]
    of: Selector,
    least: Option<f64>,
    most: Option<f64>,
}

/// The shares of the parts are those that the program has counted itself, within what chance explains.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Counted {
    /// The entry of the account with a number for each part.
    account: String,
    parts: BTreeMap<String, Selector>,
}

/// The weight of a part in seconds is so much of what the program has counted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seconds {
    part: Selector,
    /// The entry of the account, in seconds.
    account: String,
    least: Option<f64>,
    most: Option<f64>,
}

/// So many threads have such samples.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Threads {
    part: Selector,
    least: Option<f64>,
    most: Option<f64>,
    /// As many as this entry of the account has entries: the program says who took part.
    account: Option<String>,
}

fn selected<'a>(evidence: &'a Evidence, selector: &Selector) -> Result<Vec<&'a WeightedSample>> {
    let mut chosen = Vec::new();
    for sample in &evidence.samples {
        if selector.selects(sample, &evidence.lines)? {
            chosen.push(sample);
        }
    }
    Ok(chosen)
}

fn weight(evidence: &Evidence, selector: &Selector) -> Result<f64> {
    Ok(selected(evidence, selector)?.iter().map(|sample| sample.weight).sum())
}

/// Within the bounds, of which there must be one.
fn within(what: &str, value: f64, least: Option<f64>, most: Option<f64>) -> Result<()> {
    ensure!(least.is_some() || most.is_some(), "a statement without bounds");
    ensure!(
        least.is_none_or(|least| value >= least),
        "{what} {value:.3}, less than {:.3}",
        least.unwrap_or(0.0)
    );
    ensure!(most.is_none_or(|most| value <= most), "{what} {value:.3}, more than {:.3}", most.unwrap_or(0.0));
    Ok(())
}

impl Share {
    fn check(&self, evidence: &Evidence) -> Result<()> {
        let (part, whole) = (weight(evidence, &self.part)?, weight(evidence, &self.of)?);
        ensure!(whole > 0.0, "nothing to have a share of");
        within("share", part / whole, self.least, self.most)
    }
}

impl Counted {
    fn check(&self, evidence: &Evidence) -> Result<()> {
        let account = &evidence.account[&self.account];
        let mut parts = Vec::new();
        for (name, selector) in &self.parts {
            let truth = account[name].as_f64().with_context(|| format!("{name} in the account"))?;
            parts.push((name, truth, weight(evidence, selector)?));
        }
        let all: f64 = parts.iter().map(|(_, truth, _)| truth).sum();
        let sampled: f64 = parts.iter().map(|(_, _, seen)| seen).sum();
        // Gaps between samples are exponential, and so are weights: (sum w)^2 / sum w^2 is half of their number.
        let number = sampled * evidence.samples_per_second / 2.0;
        ensure!(number >= LEAST_EFFECTIVE_SAMPLES, "only {number:.0} effective samples");
        let deviations = deviations(CONFIDENCE, parts.len() * evidence.recordings);
        for (name, truth, seen) in &parts {
            let (truth, share) = (truth / all, seen / sampled);
            // The second term is the tail of a sum of exponential weights, which a normal variable does not
            // have: of a part that is nearly nothing one late sample may make a hundredth.
            let bound = bound(truth, number, deviations) + deviations * deviations / (4.0 * number);
            ensure!(
                (share - truth).abs() <= bound,
                "{name}: {share:.4} sampled, {truth:.4} counted, bound {bound:.4}, {number:.0} effective samples"
            );
        }
        Ok(())
    }
}

impl Seconds {
    fn check(&self, evidence: &Evidence) -> Result<()> {
        let counted = evidence.account[&self.account].as_f64().context("no such entry of the account")?;
        within("part of the seconds", weight(evidence, &self.part)? / counted, self.least, self.most)
    }
}

impl Threads {
    fn check(&self, evidence: &Evidence) -> Result<()> {
        let samples = selected(evidence, &self.part)?;
        let threads: BTreeSet<&str> = samples.iter().map(|sample| sample.profile.as_str()).collect();
        if let Some(account) = &self.account {
            let told = evidence.account[account].as_object().context("no such entry of the account")?.len();
            ensure!(threads.len() == told, "{} threads, {told} in the account", threads.len());
            return Ok(());
        }
        within("threads", threads.len() as f64, self.least, self.most)
    }
}

impl Check {
    /// Whether it is said of this minor version.
    pub(super) fn holds_for(&self, minor: u32) -> bool {
        minor >= self.from && self.before.is_none_or(|before| minor < before)
    }

    /// Checks all that it says; it must say something.
    pub(super) fn check(&self, evidence: &Evidence) -> Result<()> {
        let mut said = 0;
        let mut count = |result: Option<Result<()>>| -> Result<()> {
            said += usize::from(result.is_some());
            result.unwrap_or(Ok(()))
        };
        count(self.share.as_ref().map(|share| share.check(evidence)))?;
        count(self.counted.as_ref().map(|counted| counted.check(evidence)))?;
        count(self.seconds.as_ref().map(|seconds| seconds.check(evidence)))?;
        count(self.threads.as_ref().map(|threads| threads.check(evidence)))?;
        if let Some(selector) = &self.never {
            said += 1;
            let found = selected(evidence, selector)?;
            ensure!(found.is_empty(), "{} samples, such as {:?}", found.len(), found[0].frames);
        }
        ensure!(said > 0, "a statement that says nothing");
        Ok(())
    }
}
