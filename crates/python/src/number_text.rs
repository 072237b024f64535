//! Numbers as Python writes them.

use crate::shortest::shortest_digits;

/// Bits of a digit of a Python integer.
const DIGIT_BITS: u32 = 30;

/// What one step of the conversion to decimal splits off.
const BILLION: u64 = 1_000_000_000;

/// `repr` of a float, which may have been widened from one of fewer bits: the shortest digits that give the
/// number back, with an exponent from 1e16 on and below 1e-4.
pub(crate) fn float(value: f64) -> String {
    written(value, format!("{value:e}"))
}

/// The same for a number of 32 bits.
pub(crate) fn single(value: f32) -> String {
    written(f64::from(value), format!("{value:e}"))
}

/// The same for a number of 16 bits in IEEE's format.
pub(crate) fn half(bits: u16) -> String {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1F), u64::from(bits & 0x3FF));
    let is_negative = bits >> 15 == 1;
    match exponent {
        31 => infinite(fraction != 0, is_negative),
        0 => binary(fraction, -24, false, is_negative),
        _ => binary(fraction | 1 << 10, exponent - 25, fraction == 0 && exponent > 1, is_negative),
    }
}

/// The same for a number of 80 bits as x86 has it, `long double`: its fraction, which is written out whole, and its
/// exponent with the sign.
pub(crate) fn extended(mantissa: u64, head: u16) -> String {
    /// Of the exponent, and the bits of the fraction.
    const BIAS: i32 = 16383 + 63;
    let (exponent, is_negative) = (i32::from(head & 0x7FFF), head >> 15 == 1);
    match exponent {
        0x7FFF => infinite(mantissa << 1 != 0, is_negative),
        0 => binary(mantissa, 1 - BIAS, false, is_negative),
        _ => binary(mantissa, exponent - BIAS, mantissa << 1 == 0 && exponent > 1, is_negative),
    }
}

fn infinite(is_nan: bool, is_negative: bool) -> String {
    match (is_nan, is_negative) {
        (true, _) => "nan",
        (false, true) => "-inf",
        (false, false) => "inf",
    }
    .to_owned()
}

/// `mantissa` times two to the power of `exponent`. `is_lowest`: of all numbers with this exponent; the next
/// lower one is then only half as far away as the next higher one.
fn binary(mantissa: u64, exponent: i32, is_lowest: bool, is_negative: bool) -> String {
    let sign = if is_negative { "-" } else { "" };
    if mantissa == 0 {
        return format!("{sign}0.0");
    }
    let (digits, power) = shortest_digits(mantissa, exponent, is_lowest);
    let is_plain = (-4..16).contains(&power);
    placed(sign, &digits, power, is_plain)
}

/// From the number as Rust writes it in scientific notation: `-1.25e-7`.
fn written(value: f64, scientific: String) -> String {
    if value.is_nan() || value.is_infinite() {
        return infinite(value.is_nan(), value < 0.0);
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i32 = exponent.parse().unwrap_or(0);
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest.replace('.', "")),
        None => ("", mantissa.replace('.', "")),
    };
    // The number itself is compared: the one of 32 bits that is nearest to 0.0001 lies below it.
    let is_plain = power < 16 && (value == 0.0 || value.abs() >= 1e-4);
    placed(sign, &digits, power, is_plain)
}

/// Digits, of which the first one counts ten to the power of `exponent`, with their point.
fn placed(sign: &str, digits: &str, exponent: i32, is_plain: bool) -> String {
    if !is_plain {
        let of_exponent = if exponent < 0 { '-' } else { '+' };
        let (first, rest) = digits.split_at(1.min(digits.len()));
        let point = if rest.is_empty() { "" } else { "." };
        return format!("{sign}{first}{point}{rest}e{of_exponent}{:02}", exponent.abs());
    }
    if exponent < 0 {
        let zeros = "0".repeat((-exponent - 1) as usize);
        return format!("{sign}0.{zeros}{digits}");
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        return format!("{sign}{digits}{}.0", "0".repeat(whole - digits.len()));
    }
    format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
}

/// `repr` of a complex number.
pub(crate) fn complex(real: f64, imaginary: f64) -> String {
    let (real, imaginary) = (float(real), float(imaginary));
    let text = complex_of(&real, &imaginary);
    if without_fraction(&real) == "0" { text } else { format!("({text})") }
}

/// A complex number of these parts, without parentheses.
pub(crate) fn complex_of(real: &str, imaginary: &str) -> String {
    let (real, imaginary) = (without_fraction(real), without_fraction(imaginary));
    let sign = if imaginary.starts_with('-') { "" } else { "+" };
    match real {
        "0" => format!("{imaginary}j"),
        _ => format!("{real}{sign}{imaginary}j"),
    }
}

/// Parts of a complex number are written without a fraction of zero.
fn without_fraction(number: &str) -> &str {
    number.strip_suffix(".0").unwrap_or(number)
}

/// A Python integer from its digits, lowest first.
pub(crate) fn integer(digits: &[u32], is_negative: bool) -> String {
    let mut rest: Vec<u32> = digits.to_vec();
    let mut groups = Vec::new();
    loop {
        while rest.last() == Some(&0) {
            rest.pop();
        }
        if rest.is_empty() {
            break;
        }
        let mut remainder = 0;
        for digit in rest.iter_mut().rev() {
            let value = remainder << DIGIT_BITS | u64::from(*digit) & ((1 << DIGIT_BITS) - 1);
            *digit = (value / BILLION) as u32;
            remainder = value % BILLION;
        }
        groups.push(remainder);
    }
    let Some(first) = groups.pop() else { return "0".to_owned() };
    let mut text = format!("{}{first}", if is_negative { "-" } else { "" });
    text.extend(groups.iter().rev().map(|group| format!("{group:09}")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        let cases: [(f64, &str); 16] = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-2.5, "-2.5"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (0.000123456, "0.000123456"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (5e-324, "5e-324"),
            (123456.789, "123456.789"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ];
        for (value, text) in cases {
            assert_eq!(float(value), text);
        }
        assert_eq!(single(0.1), "0.1");
    }

    #[test]
    fn complex_numbers() {
        assert_eq!(complex(1.0, 2.0), "(1+2j)");
        assert_eq!(complex(0.0, 1.5), "1.5j");
        assert_eq!(complex(-1.0, -0.5), "(-1-0.5j)");
    }

    #[test]
    fn integers_of_any_size() {
        assert_eq!(integer(&[], false), "0");
        assert_eq!(integer(&[7], true), "-7");
        // 2 ** 64 and 10 ** 18.
        assert_eq!(integer(&[0, 0, 16], false), "18446744073709551616");
        assert_eq!(integer(&[660_865_024, 931_322_574], false), "1000000000000000000");
    }

    #[test]
    fn halves_and_long_ones() {
        let halves = [
            (0x3C00, "1.0"),
            (0xC100, "-2.5"),
            (0x0001, "6e-08"),
            (0x2E66, "0.1"),
            (0x7BFF, "65500.0"),
            (0x8000, "-0.0"),
            (0x0400, "6.104e-05"),
            (0x7E00, "nan"),
            (0xFC00, "-inf"),
        ];
        for (bits, text) in halves {
            assert_eq!(half(bits), text);
        }
        let extended_ones = [
            (0x8000_0000_0000_0000, 0x3FFF, "1.0"),
            (0xCCCC_CCCC_CCCC_CCCD, 0x3FFB, "0.1"),
            (0xCCCC_CCCC_CCCC_D000, 0xBFFB, "-0.10000000000000000555"),
            (0, 0, "0.0"),
            (1, 0, "4e-4951"),
            (0xFFFF_FFFF_FFFF_FFFF, 0x7FFE, "1.189731495357231765e+4932"),
            (0x8000_0000_0000_0000, 0xFFFF, "-inf"),
            (0xC000_0000_0000_0000, 0x7FFF, "nan"),
        ];
        for (mantissa, head, text) in extended_ones {
            assert_eq!(extended(mantissa, head), text);
        }
    }

    #[test]
    fn the_number_decides_on_its_form_and_not_its_digits() {
        assert_eq!((single(0.0001), float(0.0001)), ("1e-04".to_owned(), "0.0001".to_owned()));
        assert_eq!(single(16_777_216.0), "16777216.0");
    }
}
