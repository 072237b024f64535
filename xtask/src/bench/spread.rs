//! What repeated measurements of one thing say: the median, and how far they lie apart. No mean: on a noisy
//! machine one disturbed repetition would carry it away.

use std::fmt;

/// The median of some numbers, between their extremes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The smallest.
    pub least: f64,
    /// The one in the middle, or between the two in the middle.
    pub median: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// Of these numbers, unless there are none.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Spread { least, median, most })
    }

    /// With all numbers multiplied, as by 100 for percents.
    pub fn times(self, factor: f64) -> Self {
        Spread { least: self.least * factor, median: self.median * factor, most: self.most * factor }
    }
}

impl fmt::Display for Spread {
    /// `5.2 (4.8 to 6.1)`, with as many decimals as the format asks for, else one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(1);
        write!(f, "{:.decimals$} ({:.decimals$} to {:.decimals$})", self.median, self.least, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_numbers() {
        let odd = Spread::of([9.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.least, odd.median, odd.most), (1.0, 2.0, 9.0));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([0.051, 0.04, 0.2]).unwrap().times(100.0).to_string(), "5.1 (4.0 to 20.0)");
    }
}
