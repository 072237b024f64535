//! The statements of a table: bounds of shares, shares that the program has counted itself, threads, frames
//! that must not be.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Evidence;
use super::selector::Selector;
use crate::WeightedSample;
use crate::statistics::{
    Parts, allowed_chance, bound_of_gaps, effective_number_of_gaps, found_difference, state,
};

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
    /// What the true share is at least, as timed by other means: the sampled one is, but for chance, and there
    /// must be samples enough for the part to be seen.
    truth_least: Option<f64>,
    /// What the true share, of something that it is part of, is at most.
    truth_most: Option<f64>,
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
    /// How much of it the true part is at least; that what was sampled is less may be chance: on a CPU that others
    /// use as well, it is chance whether a tick meets the thread.
    truth_least: Option<f64>,
    /// How much of it the true part is at most; that what was sampled is more may be chance.
    truth_most: Option<f64>,
    /// The part is one stretch of wall time: at either end it is known to one gap between samples. The first one inside
    /// stands for time before as well; the first one afterwards does for time inside, or that time is in no sample,
    /// if the thread never waits again. How long such a gap is is chance, and no sample stands for more than the heaviest.
    #[serde(default)]
    one_stretch: bool,
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
    /// The entries' names are words of the threads' names, such as their ids, and their values are shares of the part,
    /// within what chance explains.
    #[serde(default)]
    counted: bool,
}

/// How many samples of a part must be expected for their absence to tell something: that none of so many meets the part
/// has the probability e^-expected.
fn samples_that_tell() -> f64 {
    (1.0 / allowed_chance()).ln()
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
        if self.truth_least.is_some() || self.truth_most.is_some() {
            self.check_truth(evidence, part, whole)?;
            if self.least.is_none() && self.most.is_none() {
                return Ok(());
            }
        }
        within("share", part / whole, self.least, self.most)
    }

    /// Whether the sampled share is one that chance makes of a true one within the bounds.
    fn check_truth(&self, evidence: &Evidence, part: f64, whole: f64) -> Result<()> {
        let number = effective_number_of_gaps(whole, evidence.samples_per_second);
        let truths = [self.truth_least, self.truth_most];
        let finds = truths.iter().flatten().map(|truth| found_difference(*truth, number)).fold(0.0, f64::max);
        let comparisons = truths.iter().flatten().count();
        let deviations = state(&evidence.about, comparisons, &format!("{:.1} points", 100.0 * finds));
        let least = self.truth_least.map(|truth| truth - bound_of_gaps(truth, number, deviations));
        let most = self.truth_most.map(|truth| truth + bound_of_gaps(truth, number, deviations));
        within("share", part / whole, least, most)?;
        if self.truth_least.is_some() {
            let (expected, needed) = (self.expected_samples(evidence)?, samples_that_tell());
            ensure!(
                expected >= needed,
                "only {expected:.1} samples of it are expected, {needed:.1} are needed"
            );
            ensure!(part > 0.0, "not one of {expected:.1} expected samples");
        }
        Ok(())
    }

    /// How many samples of the part there are at least, as far as its true share goes.
    fn expected_samples(&self, evidence: &Evidence) -> Result<f64> {
        Ok(self.truth_least.unwrap_or(0.0) * weight(evidence, &self.of)? * evidence.asked_per_second)
    }
}

impl Counted {
    fn check(&self, evidence: &Evidence) -> Result<()> {
        let account = &evidence.account[&self.account];
        let mut parts = Vec::new();
        for (name, selector) in &self.parts {
            let truth = account[name].as_f64().with_context(|| format!("{name} in the account"))?;
            parts.push((name.as_str(), truth, weight(evidence, selector)?));
        }
        check_parts(&parts, evidence)
    }
}

/// Whether the sampled weights have the shares of the true ones, within what chance explains: a name, what is true
/// and what was sampled of each part.
fn check_parts(named: &[(&str, f64, f64)], evidence: &Evidence) -> Result<()> {
    let sampled: f64 = named.iter().map(|(_, _, seen)| seen).sum();
    let number = effective_number_of_gaps(sampled, evidence.samples_per_second);
    ensure!(number >= LEAST_EFFECTIVE_SAMPLES, "only {number:.0} effective samples");
    let mut parts = Parts::default();
    parts.add_number(number);
    for (name, truth, seen) in named {
        parts.add(name, *truth, *seen);
    }
    parts.judge(&evidence.about, None, 0.0)
}

/// Whether the threads have the shares that the account gives to a word of their names.
fn check_shares(told: &Map<String, Value>, threads: &BTreeMap<&str, f64>, evidence: &Evidence) -> Result<()> {
    let mut parts = Vec::new();
    for (word, truth) in told {
        let named = threads.iter().filter(|(thread, _)| thread.split(' ').any(|part| part == word));
        let truth = truth.as_f64().with_context(|| format!("{word} in the account"))?;
        parts.push((word.as_str(), truth, named.map(|(_, weight)| weight).sum()));
    }
    check_parts(&parts, evidence)
}

impl Seconds {
    fn check(&self, evidence: &Evidence) -> Result<()> {
        let counted = evidence.account[&self.account].as_f64().context("no such entry of the account")?;
        let heaviest = evidence.samples.iter().map(|sample| sample.weight).fold(0.0, f64::max);
        let longest = (samples_that_tell() / evidence.asked_per_second).max(heaviest);
        let unknown = if self.one_stretch { longest / counted } else { 0.0 };
        let (least, most) = (self.least.map(|least| least - unknown), self.most.map(|most| most + unknown));
        let shown = weight(evidence, &self.part)? / counted;
        if let Some(truth) = self.truth_least {
            let number = effective_number_of_gaps(truth * counted, evidence.samples_per_second);
            ensure!(number >= LEAST_EFFECTIVE_SAMPLES, "only {number:.0} effective samples");
            let part = |deviations: f64| truth * deviations / number.sqrt();
            let chance =
                part(state(&evidence.about, 1, &format!("{:.1} % of the seconds", 100.0 * part(7.8))));
            within("part of the seconds", shown, Some(truth - chance), None)?;
        }
        if let Some(truth) = self.truth_most {
            let surplus = self.surplus_by_chance(evidence, truth * counted)?;
            within("part of the seconds", shown, None, Some(truth + surplus / counted))?;
        }
        let has_truth = self.truth_least.is_some() || self.truth_most.is_some();
        if has_truth && least.is_none() && most.is_none() {
            return Ok(());
        }
        within("part of the seconds", shown, least, most)
    }

    /// By how much the samples of a part that has `truth` seconds can be too heavy together. Each gap between samples
    /// counts for the part if the instant at its end lies in it. A sum of such has, by Bernstein's inequality, a bound
    /// that knows no more of the gaps than how long the longest is: late samples stand for long ones.
    fn surplus_by_chance(&self, evidence: &Evidence, truth: f64) -> Result<f64> {
        let samples = selected(evidence, &self.part)?;
        let heaviest = samples.iter().map(|sample| sample.weight).fold(0.0, f64::max);
        state(&evidence.about, 1, "see Bernstein's inequality");
        let unlikely = (1.0 / allowed_chance()).ln();
        let third = unlikely * heaviest / 3.0;
        Ok(third + (third * third + 2.0 * unlikely * heaviest * truth).sqrt())
    }
}

impl Threads {
    fn check(&self, evidence: &Evidence) -> Result<()> {
        let samples = selected(evidence, &self.part)?;
        let mut threads: BTreeMap<&str, f64> = BTreeMap::new();
        for sample in &samples {
            *threads.entry(sample.profile.as_str()).or_default() += sample.weight;
        }
        if let Some(account) = &self.account {
            let told = evidence.account[account].as_object().context("no such entry of the account")?;
            ensure!(threads.len() == told.len(), "{} threads, {} in the account", threads.len(), told.len());
            return if self.counted { check_shares(told, &threads, evidence) } else { Ok(()) };
        }
        ensure!(!self.counted, "counted, but in no account");
        within("threads", threads.len() as f64, self.least, self.most)
    }
}

impl Check {
    /// Whether it is said of this minor version.
    pub(super) fn holds_for(&self, minor: u32) -> bool {
        minor >= self.from && self.before.is_none_or(|before| minor < before)
    }

    /// Whether it judges a share, for which samples of several recordings may be pooled.
    pub(super) fn judges_a_share(&self) -> bool {
        self.share.is_some()
    }

    /// Whether there are too few samples to tell whether a share has its true value: a fast machine is soon done with a
    /// fixed amount of work.
    pub(super) fn is_undecided(&self, evidence: &Evidence) -> Result<bool> {
        let Some(share) = self.share.as_ref().filter(|share| share.truth_least.is_some()) else {
            return Ok(false);
        };
        Ok(share.expected_samples(evidence)? < samples_that_tell())
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Frame;

    fn sample(profile: &str, stack: &[&str], weight: f64) -> WeightedSample {
        let frames = stack.iter().map(|name| Frame {
            function: (*name).to_owned(),
            file: Some("julia/julia.py".to_owned()),
            line: Some(14),
        });
        WeightedSample { profile: profile.to_owned(), frames: frames.collect(), weight }
    }

    /// Four seconds at 100 Hz: three in `a`, one in `b` under `a`, by two threads.
    fn evidence(account: serde_json::Value) -> Evidence {
        Evidence {
            samples: vec![
                sample("Thread 1", &["top", "C.a"], 3.0),
                sample("Thread 2", &["top", "a", "b"], 1.0),
            ],
            account,
            lines: super::super::selector::Lines::of("julia/julia.py".to_owned()),
            samples_per_second: 100.0,
            asked_per_second: 100.0,
            about: String::new(),
        }
    }

    fn holds(check: serde_json::Value, account: serde_json::Value) -> bool {
        let check: Check = serde_json::from_value(check).unwrap();
        check.check(&evidence(account)).is_ok()
    }

    #[test]
    fn shares_have_bounds_on_both_sides() {
        let share = |least, most| json!({"says": "", "share": {"part": {"leaf": ["b"]}, "least": least, "most": most}});
        assert!(holds(share(0.2, 0.3), json!({})));
        assert!(!holds(share(0.3, 0.4), json!({})));
        assert!(!holds(share(0.1, 0.2), json!({})));
        assert!(!holds(json!({"says": "", "share": {"part": {}}}), json!({})), "no bounds");
        assert!(!holds(json!({"says": "nothing"}), json!({})));
    }

    #[test]
    fn true_shares_are_held_but_for_chance_and_need_samples() {
        // 200 effective samples: the bound around 0.25 is 0.14, around 0.6 it is 0.16.
        let truth = |least, most| json!({"says": "", "share": {"part": {"leaf": ["b"]}, "truth_least": least, "truth_most": most}});
        assert!(holds(truth(0.25, 0.25), json!({})));
        assert!(!holds(truth(0.6, 0.7), json!({})));
        assert!(!holds(truth(0.1, 0.1), json!({})));
        let unseen = |least| json!({"says": "", "share": {"part": {"leaf": ["c"]}, "truth_least": least}});
        assert!(!holds(unseen(0.03), json!({})), "12 samples are expected");
        assert!(!holds(unseen(0.01), json!({})), "4 do not suffice to tell");
    }

    #[test]
    fn shares_of_too_few_samples_are_undecided() {
        let share = |least: f64| -> Check {
            serde_json::from_value(
                json!({"says": "", "share": {"part": {"leaf": ["b"]}, "truth_least": least}}),
            )
            .unwrap()
        };
        assert!(
            share(0.04).is_undecided(&evidence(json!({}))).unwrap(),
            "16.0 samples are expected, 16.1 needed"
        );
        assert!(!share(0.05).is_undecided(&evidence(json!({}))).unwrap());
    }

    #[test]
    fn counted_shares_are_held_against_the_account() {
        let counted = json!({"says": "", "counted": {"account": "spent", "parts": {"a": {"leaf": ["a"]}, "b": {"leaf": ["b"]}}}});
        assert!(holds(counted.clone(), json!({"spent": {"a": 0.74, "b": 0.26}})));
        assert!(!holds(counted.clone(), json!({"spent": {"a": 0.4, "b": 0.6}})));
        assert!(!holds(counted, json!({"spent": {"a": 0.75}})), "b is not in the account");
    }

    #[test]
    fn selectors_read_stacks() {
        let never = |selector| json!({"says": "", "never": selector});
        for found in [
            json!({"run": ["top", "a"]}),
            json!({"ends": ["a", "b"]}),
            json!({"has": ["top", "b"], "lacks": ["c"]}),
            json!({"any": ["c", "b"]}),
            json!({"thread": "2"}),
            json!({"leaf": ["a"], "leaf_file": "julia.py"}),
            json!({"at": "b", "off_lines": ["n += 1"]}),
        ] {
            assert!(!holds(never(found.clone()), json!({})), "{found}");
        }
        for absent in [
            json!({"run": ["top", "b"]}),
            json!({"ends": ["top", "a", "b", "b"]}),
            json!({"ends": ["top"]}),
            json!({"has": ["a"], "lacks": ["top"]}),
            json!({"any": ["c"]}),
            json!({"leaf": ["a"], "lines": ["n += 1"]}),
            json!({"at": "absent", "off_lines": ["n += 1"]}),
        ] {
            assert!(holds(never(absent.clone()), json!({})), "{absent}");
        }
    }

    #[test]
    fn seconds_have_a_bound_that_knows_how_long_the_gaps_were() {
        let most = json!({"says": "", "seconds": {"part": {}, "account": "held", "truth_most": 1.0}});
        let check: Check = serde_json::from_value(most).unwrap();
        let of = |number: usize, weight: f64, held: f64| {
            let samples = (0..number).map(|_| sample("Thread 1", &["top", "b"], weight)).collect();
            check.check(&Evidence { samples, ..evidence(json!({"held": held})) }).is_ok()
        };
        // A second is sampled in all. Of seven tenths, chance may make it; of one tenth it does not, unless there were
        // so few samples that each stands for much.
        assert!(of(100, 0.01, 0.7) && !of(100, 0.01, 0.1) && of(4, 0.25, 0.1));
        assert!(of(0, 0.0, 0.1), "none is not too many");
    }

    #[test]
    fn threads_and_seconds() {
        let threads = |most| json!({"says": "", "threads": {"part": {}, "least": 2, "most": most}});
        assert!(holds(threads(2), json!({})) && !holds(threads(1), json!({})));
        let shares = json!({"says": "", "threads": {"part": {}, "account": "by_thread", "counted": true}});
        assert!(holds(shares.clone(), json!({"by_thread": {"1": 0.3, "2": 0.1}})));
        assert!(!holds(shares.clone(), json!({"by_thread": {"1": 0.1, "2": 0.3}})));
        assert!(!holds(shares.clone(), json!({"by_thread": {"1": 0.3, "3": 0.1}})), "nobody is called 3");
        assert!(!holds(shares, json!({"by_thread": {"1": 0.3}})), "one is not in the account");
        let seconds =
            |most| json!({"says": "", "seconds": {"part": {"has": ["b"]}, "account": "wall", "most": most}});
        assert!(holds(seconds(0.5), json!({"wall": 2.0})) && !holds(seconds(0.4), json!({"wall": 2.0})));
        // 200 effective samples in four seconds: a quarter less may be chance.
        let all = json!({"says": "", "seconds": {"part": {}, "account": "cpu", "truth_least": 1.0}});
        assert!(holds(all.clone(), json!({"cpu": 5.0})) && !holds(all, json!({"cpu": 6.0})));
        let stretch = json!({"says": "", "seconds": {"part": {"has": ["b"]}, "account": "wall", "most": 0.1, "one_stretch": true}});
        assert!(holds(stretch, json!({"wall": 4.0})), "three seconds more may be b's");
        let stretch = json!({"says": "", "seconds": {"part": {"has": ["b"]}, "account": "wall", "least": 0.5, "one_stretch": true}});
        assert!(holds(stretch.clone(), json!({"wall": 8.0})) && !holds(stretch, json!({"wall": 9.0})));
    }
}
