//! Random numbers for when to sample: quick and even, of no use against anybody who guesses.

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence that this number begins.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// Uniform in (0, 1]: 53 random bits, never zero.
    pub fn uniform(&mut self) -> f64 {
        ((self.bits() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_published_generator() {
        // The first of Vigna's splitmix64.c from 0 is e220a8397b1dcdaf.
        assert_eq!(Random::new(0).bits(), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn they_are_even_and_never_zero() {
        let mut random = Random::new(7);
        let numbers: Vec<f64> = (0..100_000).map(|_| random.uniform()).collect();
        let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
        // Five standard errors of a uniform number's mean.
        assert!((mean - 0.5).abs() < 5.0 / (12.0 * numbers.len() as f64).sqrt(), "{mean}");
        assert!(numbers.iter().all(|number| *number > 0.0 && *number <= 1.0));
    }
}
