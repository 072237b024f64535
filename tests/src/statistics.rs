//! How far a sampled share may be from the true one.

use std::time::Duration;

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

/// How many standard deviations a normal variable stays within with probability `confidence`, both sides,
/// when `comparisons` of them must all do so.
pub fn deviations(confidence: f64, comparisons: usize) -> f64 {
    let tail = (1.0 - confidence) / 2.0 / comparisons.max(1) as f64;
    let (mut low, mut high) = (0.0, 40.0);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if upper_tail(middle) > tail {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
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

/// How many equal samples say as much as samples at random instants, so many a second, that stand for this much
/// time together: each stands for the gap before it, and gaps are exponential, so (sum w)^2 / sum w^2 is half their
/// number. Where a thread lost its CPU in between there are more, so this is the least.
pub fn effective_number_of_gaps(seconds: f64, samples_per_second: f64) -> f64 {
    seconds * samples_per_second / 2.0
}

/// As [`bound`], for samples that stand for exponential gaps: a sum of them has a tail that a normal variable does
/// not have. Of a part that is nearly nothing one late sample may make a hundredth.
pub fn bound_of_gaps(share: f64, effective_number: f64, deviations: f64) -> f64 {
    bound(share, effective_number, deviations) + deviations * deviations / (4.0 * effective_number)
}

/// More instants than this of a recording at `rate` no stretch of `time` has, but once in millions: they come at random, and
/// those of the in-kernel sampler a little earlier than was asked for.
pub fn most_instants(rate: u32, time: Duration) -> u64 {
    let mean = f64::from(rate) * time.as_secs_f64() * 32.0 / 31.0;
    (mean + 5.0 * mean.sqrt()).ceil() as u64
}

/// Fewer instants than this no stretch of `time` has, but once in millions.
pub fn least_instants(rate: u32, time: Duration) -> u64 {
    let mean = f64::from(rate) * time.as_secs_f64();
    (mean - 5.0 * mean.sqrt()).max(0.0).floor() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_quantiles() {
        assert!((deviations(0.95, 1) - 1.959_964).abs() < 1e-5);
        assert!((deviations(0.99, 1) - 2.575_829).abs() < 1e-5);
        assert!((deviations(0.99, 100) - 3.890_592).abs() < 1e-5);
    }

    #[test]
    fn unequal_weights_count_for_less() {
        assert_eq!(effective_number(&[2.0; 50]), 50.0);
        assert!(effective_number(&[1.0, 1.0, 10.0]) < 2.0);
    }
}
