//! How far a sampled share may be from the true one, and the error budget of a run of the tests: chance may break any of
//! its statistical statements once in 10,000 runs.
//!
//! A statement that has too few samples to find the difference it is meant to find records on, up to a bound, and is judged
//! once: nothing is repeated because it failed.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// The probability that a standard normal variable exceeds `x`, by the continued fraction of the error
/// function far out and its series near zero; good to ten digits, which is far more than a bound needs.
fn upper_tail(x: f64) -> f64 {
    if x < 3.0 {
        let (mut term, mut sum, mut k) = (x, x, 1.0);
        while term.abs() > 1e-17 {
            term *= x * x / (2.0 * k + 1.0);
            sum += term;
            k += 1.0;
        }
        return 0.5 - sum * density(x);
    }
    let mut fraction = x;
    for k in (1..=60).rev() {
        fraction = x + f64::from(k) / fraction;
    }
    density(x) / fraction
}

fn density(x: f64) -> f64 {
    (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// The number of equally weighted samples that say as much as these: (sum w)^2 / sum w^2.
pub fn effective_number(weights: &[f64]) -> f64 {
    let sum: f64 = weights.iter().sum();
    let squares: f64 = weights.iter().map(|weight| weight * weight).sum();
    if squares == 0.0 { 0.0 } else { sum * sum / squares }
}

/// The largest difference between a true share and a sampled one that chance explains.
pub fn bound(share: f64, effective_number: f64, deviations: f64) -> f64 {
    deviations * (share * (1.0 - share) / effective_number).sqrt()
}

/// How many equal samples are worth as much as samples at random instants, at this rate, that stand for this much time
/// together: each stands for the gap before it, and gaps are at most exponential, so (sum w)^2 / sum w^2 is half their
/// number. Where a thread lost its CPU in between there are more, so this is the least.
pub fn effective_number_of_gaps(seconds: f64, samples_per_second: f64) -> f64 {
    seconds * samples_per_second / 2.0
}

/// As [`bound`], for samples that stand for exponential gaps: a sum of them has a tail that a normal variable does
/// not have. Of a part that is nearly nothing one late sample may make a hundredth.
pub fn bound_of_gaps(share: f64, effective_number: f64, deviations: f64) -> f64 {
    bound(share, effective_number, deviations) + deviations * deviations / (4.0 * effective_number)
}

/// How many instants of a recording at `rate` chance may add to, or leave out of, those that are expected in `time`: they come
/// at random.
pub fn instants_by_chance(rate: u32, time: Duration) -> f64 {
    let deviation = (f64::from(rate) * time.as_secs_f64()).sqrt();
    let finds = format!("{:.0} instants of {:.0}", 7.7 * deviation, deviation * deviation);
    state("number of instants", 1, &finds) * deviation
}

/// The most instants of a recording at `rate` that `time` has. The rate of the in-kernel sampler is that within 2 %.
pub fn most_instants(rate: u32, time: Duration) -> u64 {
    let mean = f64::from(rate) * time.as_secs_f64() * 1.02;
    (mean + instants_by_chance(rate, time)).ceil() as u64
}

/// The fewest instants of a recording at `rate` that `time` has.
pub fn least_instants(rate: u32, time: Duration) -> u64 {
    let mean = f64::from(rate) * time.as_secs_f64();
    (mean - instants_by_chance(rate, time)).max(0.0).floor() as u64
}

/// The probability that a run of the tests, all tiers together, reports a difference where there is none.
pub const FALSE_ALARMS_PER_RUN: f64 = 1e-4;

/// The comparisons among which that is shared out, each the same. There are fewer; `cargo xtask test` adds up those that were
/// made and fails when there were more.
pub const COMPARISONS_PER_RUN: usize = 1000;

/// The variable that names the file to which each statement that was made adds a line, for [`judge_run`].
pub const STATEMENTS_VARIABLE: &str = "PROFILER_TESTS_STATEMENTS";

/// The probability with which a statement finds the difference that it says it would find.
pub const POWER: f64 = 0.99;

/// A statistical statement that was made: a line of the file that [`STATEMENTS_VARIABLE`] names.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Made {
    about: String,
    comparisons: usize,
    /// The difference that it finds with [`POWER`], with its unit.
    finds: String,
    /// Statements of one pool are also judged together.
    pool: Option<String>,
    /// The effective samples behind `shares`.
    number: f64,
    /// Each part's share by the program's account and of the samples.
    shares: Vec<(String, f64, f64)>,
}

impl Made {
    fn write_down(&self) {
        if let Some(path) = std::env::var_os(STATEMENTS_VARIABLE)
            && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path)
            && let Ok(line) = serde_json::to_string(self)
        {
            let _ = writeln!(file, "{line}");
        }
    }
}

/// Takes the part of the error budget for a statement of `comparisons` comparisons, all of which must hold; returns how
/// many standard deviations chance explains in each. `finds` is the difference that it would find with a probability of
/// 99 %, with its unit. Nothing else hands out any of the budget.
///
/// # Panics
/// When a single statement asks for more than there is.
pub fn state(about: &str, comparisons: usize, finds: &str) -> f64 {
    assert!(comparisons <= COMPARISONS_PER_RUN, "{about}: {comparisons} comparisons");
    let (about, finds) = (about.to_owned(), finds.to_owned());
    Made { about, comparisons, finds, pool: None, number: 0.0, shares: Vec::new() }.write_down();
    allowed_deviations()
}

/// Judges a whole run by the lines that its statements wrote: their comparisons must be within the budget, and the
/// statements of each pool must hold together, where smaller differences show. Returns a line for each pool and a sum.
///
/// # Errors
/// When the budget is overspent, or a pool shows a difference.
pub fn judge_run(lines: &str) -> Result<Vec<String>> {
    let made: Vec<Made> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let mut pools: BTreeMap<&str, Vec<&Made>> = BTreeMap::new();
    for statement in &made {
        if let Some(pool) = &statement.pool {
            pools.entry(pool).or_default().push(statement);
        }
    }
    let mut comparisons: usize = made.iter().map(|statement| statement.comparisons).sum();
    let mut summary = Vec::new();
    for (pool, statements) in pools {
        let (finds, made) = judge_pool(statements.iter().copied())?;
        summary.push(format!("{pool}, {} recordings: finds {:.1} points", statements.len(), 100.0 * finds));
        comparisons += made;
    }
    ensure!(
        comparisons <= COMPARISONS_PER_RUN,
        "{comparisons} comparisons share the error budget of {COMPARISONS_PER_RUN}"
    );
    summary.push(format!(
        "{} statements, {comparisons} of {COMPARISONS_PER_RUN} comparisons: false alarm in at most one of {:.0} runs",
        made.len(),
        COMPARISONS_PER_RUN as f64 / FALSE_ALARMS_PER_RUN / comparisons.max(1) as f64
    ));
    Ok(summary)
}

/// Judges the mean differences of some statements about the same parts; returns the difference that is found, and the number
/// of comparisons.
fn judge_pool<'a>(statements: impl Iterator<Item = &'a Made>) -> Result<(f64, usize)> {
    // Sums over the statements, each by its number of samples: of samples, of differences, of variances.
    let mut sums: BTreeMap<&str, (f64, f64, f64)> = BTreeMap::new();
    let mut about = "";
    for statement in statements {
        about = statement.pool.as_deref().unwrap_or_default();
        for (name, truth, share) in &statement.shares {
            let sum = sums.entry(name).or_default();
            sum.0 += statement.number;
            sum.1 += statement.number * (share - truth);
            sum.2 += statement.number * truth * (1.0 - truth);
        }
    }
    let (deviations, mut finds) = (allowed_deviations(), 0.0f64);
    for (name, (number, difference, variance)) in &sums {
        let (difference, deviation) = (difference / number, variance.sqrt() / number);
        let chance = deviations * deviation + deviations * deviations / (4.0 * number);
        finds = finds.max(chance + deviations_for(2.0 * (1.0 - POWER)) * deviation);
        ensure!(
            difference.abs() <= chance,
            "{about}, all recordings together: {name} is off by {difference:+.4}; {number:.0} effective samples explain \
             {chance:.4}"
        );
    }
    Ok((finds, sums.len()))
}

/// The probability with which one comparison may report a difference where there is none.
pub fn allowed_chance() -> f64 {
    FALSE_ALARMS_PER_RUN / COMPARISONS_PER_RUN as f64
}

/// How many standard deviations chance explains in one comparison.
pub fn allowed_deviations() -> f64 {
    deviations_for(allowed_chance())
}

/// How many standard deviations a normal variable exceeds, on either side, with this probability.
pub fn deviations_for(chance: f64) -> f64 {
    let (mut low, mut high) = (0.0, 40.0);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if upper_tail(middle) > chance / 2.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The difference from a share that `effective_number` samples find with a probability of [`POWER`]: what chance explains,
/// and as much again as chance may hide.
pub fn found_difference(share: f64, effective_number: f64) -> f64 {
    // One side only: the difference is in one direction.
    let hidden = deviations_for(2.0 * (1.0 - POWER));
    bound_of_gaps(share, effective_number, allowed_deviations()) + bound(share, effective_number, hidden)
}

/// The parts of a whole: what each has by the program's own account and what was sampled of it, in seconds. Recordings
/// of the same add up.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    parts: BTreeMap<String, (f64, f64)>,
    effective_number: f64,
}

impl Parts {
    /// Adds a recording's account of a part and what was sampled of it.
    pub fn add(&mut self, name: &str, counted: f64, sampled: f64) {
        let part = self.parts.entry(name.to_owned()).or_default();
        part.0 += counted;
        part.1 += sampled;
    }

    /// Adds the equal samples that say as much as those of a recording.
    pub fn add_number(&mut self, effective_number: f64) {
        self.effective_number += effective_number;
    }

    /// The largest difference from a part's share that would be missed with a probability of more than 1 %.
    pub fn finds(&self) -> f64 {
        let all: f64 = self.parts.values().map(|(counted, _)| counted).sum();
        let of_part = |(counted, _): &(f64, f64)| found_difference(counted / all, self.effective_number);
        self.parts.values().map(of_part).fold(0.0, f64::max)
    }

    /// Whether each part has the share of the samples that it has of the account, but for chance and for `systematic`, which
    /// is allowed on top. Statements of one `pool` are judged together as well when the run ends.
    ///
    /// # Errors
    /// When one has not, or there is nothing to compare.
    pub fn judge(&self, about: &str, pool: Option<&str>, systematic: f64) -> Result<()> {
        ensure!(self.parts.len() > 1 && self.effective_number > 0.0, "{about}: nothing to compare");
        let sum = |of: fn(&(f64, f64)) -> f64| self.parts.values().map(of).sum::<f64>();
        let (counted, sampled) = (sum(|part| part.0), sum(|part| part.1));
        let shares = self.parts.iter().map(|(name, part)| (name.clone(), part.0 / counted, part.1 / sampled));
        let shares: Vec<(String, f64, f64)> = shares.collect();
        self.write_down(about, pool, shares.clone());
        let deviations = allowed_deviations();
        for (name, truth, share) in shares {
            let chance = bound_of_gaps(truth, self.effective_number, deviations);
            ensure!(
                (share - truth).abs() <= chance + systematic,
                "{about}: {name} has {share:.4} of the samples, {truth:.4} by its own account; {:.0} effective samples \
                 explain {chance:.4}",
                self.effective_number
            );
        }
        Ok(())
    }

    fn write_down(&self, about: &str, pool: Option<&str>, shares: Vec<(String, f64, f64)>) {
        // One of two parts says all.
        let comparisons = if shares.len() == 2 { 1 } else { shares.len() };
        let finds = format!("{:.1} points of {:.0} samples", 100.0 * self.finds(), self.effective_number);
        let (about, pool) = (about.to_owned(), pool.map(str::to_owned));
        Made { about, comparisons, finds, pool, number: self.effective_number, shares }.write_down();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_quantiles() {
        assert!((deviations_for(0.01) - 2.575_829).abs() < 1e-5);
        assert!((deviations_for(0.0001) - 3.890_592).abs() < 1e-5);
    }

    #[test]
    fn unequal_weights_count_for_less() {
        assert_eq!(effective_number(&[2.0; 50]), 50.0);
        assert!(effective_number(&[1.0, 1.0, 10.0]) < 2.0);
    }

    #[test]
    fn shared_budget_leaves_each_comparison_its_part() {
        assert!((deviations_for(0.05) - 1.959_964).abs() < 1e-5);
        assert!((5.3..5.4).contains(&allowed_deviations()), "{}", allowed_deviations());
    }

    #[test]
    fn parts_are_judged_by_their_shares() {
        let parts = |sampled: f64| {
            let mut parts = Parts::default();
            parts.add("one", 3.0, 3.0);
            parts.add("other", 1.0, sampled);
            parts.add_number(10_000.0);
            parts
        };
        assert!(parts(1.02).judge("", None, 0.0).is_ok());
        assert!(parts(1.2).judge("", None, 0.0).is_err());
        assert!(parts(1.2).judge("", None, 0.03).is_ok());
        assert!(Parts::default().judge("", None, 0.0).is_err());
        // Chance explains 5.3 deviations, and hides 2.33 more.
        let finds = parts(1.0).finds();
        assert!((0.033..0.036).contains(&finds), "{finds}");
    }

    #[test]
    fn pool_shows_differences_that_its_statements_hide() {
        let line = |off: f64| {
            let shares = vec![("one".to_owned(), 0.3, 0.3 + off), ("other".to_owned(), 0.7, 0.7 - off)];
            let (about, pool) = (String::new(), Some("pool".to_owned()));
            let made = Made { about, comparisons: 1, finds: String::new(), pool, number: 1000.0, shares };
            serde_json::to_string(&made).unwrap() + "\n"
        };
        assert!(judge_run(&line(0.05)).is_ok());
        assert!(judge_run(&line(0.05).repeat(10)).is_err());
        assert!(judge_run(&[line(0.05), line(-0.05)].concat().repeat(5)).is_ok());
        assert!(judge_run(&line(0.0).repeat(COMPARISONS_PER_RUN)).is_err(), "the budget is overspent");
    }
}
