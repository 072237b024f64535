//! The shortest decimal digits that give a binary number back, for the widths that Rust has no type for: 16 bits
//! and 80. Exact, with integers of any length, after Steele and White. How the digits are laid out is for
//! `number_text`.

use std::cmp::Ordering;

/// The most digits that tell any number of 80 bits from its neighbours.
const MAX_DIGITS: usize = 21;

/// Nine decimal digits.
const BILLION: u32 = 1_000_000_000;

/// The digits of `mantissa` times two to the power of `exponent`, which is not 0, and the power of ten that the first
/// one counts. `is_lowest`: the next lower number is only half as far away as the next higher one.
pub(crate) fn shortest_digits(mantissa: u64, exponent: i32, is_lowest: bool) -> (String, i32) {
    let includes_border = mantissa & 1 == 0;
    let up = exponent.max(0) as u32;
    let extra = if is_lowest { 2 } else { 1 };
    // The number is `rest / unit`; half the way to its neighbours is `lower / unit` and `higher / unit`.
    let mut rest = Natural::of(mantissa).doubled(up + extra);
    let mut unit = Natural::of(1).doubled(exponent.min(0).unsigned_abs() + extra);
    let mut lower = Natural::of(1).doubled(up);
    let mut higher = Natural::of(1).doubled(up + extra - 1);
    let mut power = decimal_power(mantissa, exponent);
    if power >= 0 {
        unit.raise(power as u32);
    } else {
        for number in [&mut rest, &mut lower, &mut higher] {
            number.raise(power.unsigned_abs());
        }
    }
    let is_above = |rest: &Natural, higher: &Natural, unit: &Natural| {
        let order = rest.plus(higher).compare(unit);
        order == Ordering::Greater || order == Ordering::Equal && includes_border
    };
    // The power may be one too low, never too high: see there.
    if is_above(&rest, &higher, &unit.times(10)) {
        unit = unit.times(10);
        power += 1;
    }
    let mut digits = String::new();
    for _ in 0..MAX_DIGITS {
        let digit = rest.split_off(&unit);
        let order = rest.compare(&lower);
        let is_low = order == Ordering::Less || order == Ordering::Equal && includes_border;
        let is_high = is_above(&rest, &higher, &unit);
        if is_low || is_high {
            let is_nearer_above = rest.times(2).compare(&unit) != Ordering::Less;
            let rounds_up = is_high && (!is_low || is_nearer_above);
            digits.push(char::from(b'0' + digit + u8::from(rounds_up)));
            break;
        }
        digits.push(char::from(b'0' + digit));
        (rest, lower, higher) = (rest.times(10), lower.times(10), higher.times(10));
    }
    (digits, power)
}

/// The power of ten of the first digit, or one less.
fn decimal_power(mantissa: u64, exponent: i32) -> i32 {
    let binary = f64::from(mantissa.ilog2() as i32 + exponent);
    (binary * std::f64::consts::LOG10_2 - 1e-9).floor() as i32
}

/// A natural number of any length: its digits of 32 bits, lowest first, without zeros at the end.
#[derive(Clone, Debug)]
struct Natural(Vec<u32>);

impl Natural {
    fn of(value: u64) -> Self {
        Natural(vec![value as u32, (value >> 32) as u32]).trimmed()
    }

    fn trimmed(mut self) -> Self {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        self
    }

    /// Times two, so many times.
    fn doubled(&self, times: u32) -> Self {
        let mut digits = vec![0; (times / 32) as usize];
        digits.extend_from_slice(&self.0);
        Natural(digits).times(1 << (times % 32))
    }

    fn times(&self, factor: u32) -> Self {
        let mut carry = 0;
        let mut digits: Vec<u32> = Vec::with_capacity(self.0.len() + 1);
        for digit in &self.0 {
            carry += u64::from(*digit) * u64::from(factor);
            digits.push(carry as u32);
            carry >>= 32;
        }
        digits.push(carry as u32);
        Natural(digits).trimmed()
    }

    /// Times ten to the power of `power`.
    fn raise(&mut self, power: u32) {
        for _ in 0..power / 9 {
            *self = self.times(BILLION);
        }
        *self = self.times(10u32.pow(power % 9));
    }

    fn plus(&self, other: &Self) -> Self {
        let mut carry = 0;
        let mut digits = Vec::new();
        for index in 0..self.0.len().max(other.0.len()) {
            let digit = |number: &Natural| u64::from(number.0.get(index).copied().unwrap_or(0));
            carry += digit(self) + digit(other);
            digits.push(carry as u32);
            carry >>= 32;
        }
        digits.push(carry as u32);
        Natural(digits).trimmed()
    }

    fn compare(&self, other: &Self) -> Ordering {
        let by_length = self.0.len().cmp(&other.0.len());
        by_length.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    /// Takes `unit` away as often as it is contained, less than ten times, and tells how often.
    fn split_off(&mut self, unit: &Self) -> u8 {
        let mut count = 0;
        while count < 9 && self.compare(unit) != Ordering::Less {
            self.take(unit);
            count += 1;
        }
        count
    }

    /// Takes away a number that is not greater.
    fn take(&mut self, other: &Self) {
        let mut borrowed = false;
        for (index, digit) in self.0.iter_mut().enumerate() {
            let (once, first) = digit.overflowing_sub(other.0.get(index).copied().unwrap_or(0));
            let (twice, second) = once.overflowing_sub(u32::from(borrowed));
            (*digit, borrowed) = (twice, first || second);
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digits and the power as Rust writes a number that it has a type for.
    fn by_rust(value: f64) -> (String, i32) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap();
        (mantissa.replace('.', ""), exponent.parse().unwrap())
    }

    #[test]
    fn as_rust_does_where_rust_has_the_type() {
        let mut state = 1u64;
        for round in 0..20_000u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Powers of two among them, whose neighbours are unequally far.
            let fraction = if round % 4 == 0 { 0 } else { state >> 12 };
            let exponent = state % 2047;
            let value = f64::from_bits(exponent << 52 | fraction);
            if value == 0.0 {
                continue;
            }
            let (mantissa, power) = match exponent {
                0 => (fraction, -1074),
                _ => (fraction | 1 << 52, exponent as i32 - 1075),
            };
            let is_lowest = fraction == 0 && exponent > 1;
            assert_eq!(shortest_digits(mantissa, power, is_lowest), by_rust(value), "{value:e}");
        }
    }
}
