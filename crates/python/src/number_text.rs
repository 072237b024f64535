//! Numbers as Python writes them.

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

/// From the number as Rust writes it in scientific notation: `-1.25e-7`.
fn written(value: f64, scientific: String) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest.replace('.', "")),
        None => ("", mantissa.replace('.', "")),
    };
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
    // Parts of a complex number are written without a fraction of zero.
    let part = |value: f64| {
        let text = float(value);
        text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
    };
    if real == 0.0 && real.is_sign_positive() {
        return format!("{}j", part(imaginary));
    }
    let sign = if imaginary.is_sign_negative() && !imaginary.is_nan() { "" } else { "+" };
    format!("({}{sign}{}j)", part(real), part(imaginary))
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

/// The value of a number of 16 bits in IEEE's format.
pub(crate) fn half(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1F), f32::from(bits & 0x3FF));
    let size = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
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
    fn halves() {
        for (bits, value) in [(0x3C00, 1.0), (0xC100, -2.5), (0x0001, 5.960_464_5e-8), (0x7BFF, 65504.0)] {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7E00).is_nan() && half(0x7C00).is_infinite());
    }
}
