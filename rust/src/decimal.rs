//! Fixed point with 12 decimals: text to integer and back, and sums that cannot overflow.

use std::ops::AddAssign;

/// 1 as fixed point.
pub const ONE: u128 = 1_000_000_000_000;
/// An amount has at most 20 digits before the point, so it is below this.
pub const LIMIT: u128 = ONE * 100_000_000_000_000_000_000;

const POWERS: [u128; 33] = {
    let mut powers = [1u128; 33];
    let mut i = 1;
    while i < 33 {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// Returns the fixed-point value of `12.5`: 1 to 20 digits, then perhaps a point and 1 to 12 digits; else `None`.
pub fn parse_amount(text: &[u8]) -> Option<u128> {
    if text.len() <= 19 {
        return parse_short(text);
    }
    let point = text.iter().position(|&b| b == b'.');
    let (whole, fraction) = match point {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[][..]),
    };
    if whole.is_empty() || whole.len() > 20 || fraction.len() > 12 || (point.is_some() && fraction.is_empty()) {
        return None;
    }
    let mut value = 0u128;
    for &b in whole.iter().chain(fraction) {
        if !b.is_ascii_digit() {
            return None;
        }
        value = value * 10 + u128::from(b - b'0');
    }
    Some(value * POWERS[12 - fraction.len()])
}

/// `parse_amount` for texts whose digits fit 64 bits.
fn parse_short(text: &[u8]) -> Option<u128> {
    let (mut value, mut at) = (0u64, 0);
    while at < text.len() && text[at].is_ascii_digit() {
        value = value * 10 + u64::from(text[at] - b'0');
        at += 1;
    }
    let whole = at;
    if whole == 0 {
        return None;
    }
    if at == text.len() {
        return Some(u128::from(value) * ONE);
    }
    if text[at] != b'.' {
        return None;
    }
    at += 1;
    while at < text.len() && text[at].is_ascii_digit() {
        value = value * 10 + u64::from(text[at] - b'0');
        at += 1;
    }
    let fraction = at - whole - 1;
    (at == text.len() && (1..=12).contains(&fraction)).then(|| u128::from(value) * POWERS[12 - fraction])
}

/// Returns the exact fixed-point value of a JSON number, such as `9.417e-05`; the error says which limit it breaks.
///
/// `text` must follow the grammar of JSON numbers.
pub fn parse_number(text: &[u8]) -> Result<u128, &'static str> {
    if let Some(value) = parse_amount(text) {
        return Ok(value);
    }
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (digits, exponent) = match text.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(at) => (&text[..at], parse_exponent(&text[at + 1..])),
        None => (text, 0),
    };
    let (mut value, mut first, mut last, mut index, mut whole) = (0u128, None, 0i64, 0i64, None);
    for &b in digits {
        if b == b'.' {
            whole = Some(index);
            continue;
        }
        if b != b'0' {
            let start = *first.get_or_insert(index);
            if index - start >= 32 {
                return Err("more than 32 digits");
            }
            let shift = if value == 0 { 0 } else { index - last };
            value = value * POWERS[shift as usize] + u128::from(b - b'0');
            last = index;
        }
        index += 1;
    }
    let Some(first) = first else { return Ok(0) };
    if negative {
        return Err("negative");
    }
    let power = whole.unwrap_or(index) - 1 - last + exponent + 12;
    if power < 0 {
        return Err("more than 12 decimals");
    }
    if last - first + 1 + power > 32 {
        return Err("more than 20 digits before the point");
    }
    Ok(value * POWERS[power as usize])
}

fn parse_exponent(text: &[u8]) -> i64 {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let value = digits.iter().fold(0i64, |value, b| (value * 10 + i64::from(b - b'0')).min(1_000_000));
    if negative {
        -value
    } else {
        value
    }
}

/// Appends normalised decimal text: no exponent, no trailing zeros.
pub fn push_amount(out: &mut Vec<u8>, value: u128) {
    push_wide(out, Wide::from(value));
}

/// Appends normalised decimal text of a fixed-point sum.
pub fn push_wide(out: &mut Vec<u8>, value: Wide) {
    let (whole, fraction) = value.div_rem(Wide::from(ONE));
    push_integer(out, whole);
    let mut fraction = fraction.low;
    if fraction == 0 {
        return;
    }
    out.push(b'.');
    let mut unit = ONE / 10;
    while fraction > 0 {
        out.push(b'0' + (fraction / unit) as u8);
        fraction %= unit;
        unit /= 10;
    }
}

fn push_integer(out: &mut Vec<u8>, value: Wide) {
    if value.high == 0 {
        return push_u128(out, value.low);
    }
    let (rest, low) = value.div_rem(Wide::from(POWERS[20]));
    push_integer(out, rest);
    let text = low.low.to_string();
    out.extend(std::iter::repeat_n(b'0', 20 - text.len()));
    out.extend(text.bytes());
}

fn push_u128(out: &mut Vec<u8>, value: u128) {
    match u64::try_from(value) {
        Ok(value) => push_u64(out, value),
        Err(_) => out.extend(value.to_string().bytes()),
    }
}

/// Appends an integer.
pub fn push_u64(out: &mut Vec<u8>, mut value: u64) {
    let (mut text, mut at) = ([0u8; 20], 20);
    loop {
        at -= 1;
        text[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

/// Appends a signed integer.
pub fn push_i64(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    push_u64(out, value.unsigned_abs());
}

/// An unsigned integer of 256 bits: a sum of products of amounts stays exact whatever their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wide {
    high: u128,
    low: u128,
}

impl From<u128> for Wide {
    fn from(low: u128) -> Self {
        Wide { high: 0, low }
    }
}

impl AddAssign for Wide {
    fn add_assign(&mut self, other: Self) {
        let (low, carry) = self.low.overflowing_add(other.low);
        self.low = low;
        self.high = self.high.wrapping_add(other.high).wrapping_add(u128::from(carry));
    }
}

impl Wide {
    /// Returns the exact product.
    pub fn product(a: u128, b: u128) -> Self {
        if let (Ok(a), Ok(b)) = (u64::try_from(a), u64::try_from(b)) {
            return Wide::from(u128::from(a) * u128::from(b));
        }
        const HALF: u128 = u64::MAX as u128;
        let (a1, a0, b1, b0) = (a >> 64, a & HALF, b >> 64, b & HALF);
        let (middle, carry) = (a1 * b0).overflowing_add(a0 * b1);
        let mut sum = Wide { high: a1 * b1 + ((u128::from(carry)) << 64) + (middle >> 64), low: a0 * b0 };
        sum += Wide::from(middle << 64);
        sum
    }

    /// Returns `self` times `factor`, modulo 2^256.
    pub fn times(self, factor: u128) -> Self {
        let mut product = Wide::product(self.low, factor);
        product.high = product.high.wrapping_add(self.high.wrapping_mul(factor));
        product
    }

    pub fn is_zero(self) -> bool {
        self == Wide::default()
    }

    fn less(self, other: Self) -> Self {
        let (low, borrow) = self.low.overflowing_sub(other.low);
        Wide { high: self.high.wrapping_sub(other.high).wrapping_sub(u128::from(borrow)), low }
    }

    fn doubled(self) -> Self {
        Wide { high: self.high << 1 | self.low >> 127, low: self.low << 1 }
    }

    /// Returns quotient and remainder; `divisor` must be below 2^255 and not zero.
    pub fn div_rem(self, divisor: Self) -> (Self, Self) {
        if self.high == 0 && divisor.high == 0 {
            return (Wide::from(self.low / divisor.low), Wide::from(self.low % divisor.low));
        }
        let (mut quotient, mut rest) = (Wide::default(), Wide::default());
        for bit in (0..256).rev() {
            let digit = if bit < 128 { self.low >> bit } else { self.high >> (bit - 128) } & 1;
            rest = rest.doubled();
            rest.low |= digit;
            quotient = quotient.doubled();
            if rest >= divisor {
                rest = rest.less(divisor);
                quotient.low |= 1;
            }
        }
        (quotient, rest)
    }

    /// Returns the quotient rounded half to even.
    pub fn rounded_div(self, divisor: Self) -> Self {
        let (mut quotient, rest) = self.div_rem(divisor);
        let twice = rest.doubled();
        if twice > divisor || (twice == divisor && quotient.low & 1 == 1) {
            quotient += Wide::from(1);
        }
        quotient
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: Wide) -> String {
        let mut out = Vec::new();
        push_wide(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn amounts_are_read_and_normalised() {
        for (given, normal) in [
            ("0", "0"),
            ("105433.60000", "105433.6"),
            ("0.00027625", "0.00027625"),
            ("007", "7"),
            ("0.000000000001", "0.000000000001"),
            ("99999999999999999999.999999999999", "99999999999999999999.999999999999"),
        ] {
            assert_eq!(text(parse_amount(given.as_bytes()).unwrap().into()), normal);
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for given in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1.0000000000000", "123456789012345678901", "1,5", "1.2.3", "1.23456789012345678901", "NaN"] {
            assert_eq!(parse_amount(given.as_bytes()), None, "{given}");
        }
    }

    #[test]
    fn numbers_are_exact_with_exponents() {
        for (given, normal) in [
            ("9.417e-05", "0.00009417"),
            ("1E3", "1000"),
            ("1.50e+1", "15"),
            ("0.00100e2", "0.1"),
            ("1200", "1200"),
            ("0e-999999999999", "0"),
            ("-0.0", "0"),
            ("1000000000000e-24", "0.000000000001"),
            ("0.10000000000000000000000000000000000000000", "0.1"),
            ("12345678901234567890.123456789012", "12345678901234567890.123456789012"),
        ] {
            assert_eq!(text(parse_number(given.as_bytes()).unwrap().into()), normal, "{given}");
        }
    }

    #[test]
    fn numbers_beyond_the_limits_say_which() {
        for (given, why) in [
            ("-1", "negative"),
            ("1e-13", "more than 12 decimals"),
            ("1e20", "more than 20 digits before the point"),
            ("1e999999999999999", "more than 20 digits before the point"),
            ("1.00000000000000000000000000000000000001", "more than 32 digits"),
        ] {
            assert_eq!(parse_number(given.as_bytes()), Err(why), "{given}");
        }
    }

    #[test]
    fn products_and_quotients_are_exact() {
        let largest = LIMIT - 1;
        let square = Wide::product(largest, largest);
        assert_eq!(square.div_rem(Wide::from(largest)), (Wide::from(largest), Wide::default()));
        assert_eq!(text(Wide::product(5 * LIMIT / 10, 4 * ONE)), format!("2{}", "0".repeat(32)));
        assert!(square > Wide::from(u128::MAX));
    }

    #[test]
    fn halves_go_to_even() {
        for (value, divisor, rounded) in [(5u128, 2u128, 2u128), (7, 2, 4), (15, 10, 2), (25, 10, 2), (26, 10, 3), (24, 10, 2)] {
            assert_eq!(Wide::from(value).rounded_div(Wide::from(divisor)), Wide::from(rounded));
        }
    }

    #[test]
    fn sums_carry() {
        let mut sum = Wide::from(u128::MAX);
        sum += Wide::from(1);
        assert_eq!(sum, Wide { high: 1, low: 0 });
        assert_eq!(Wide::from(u128::MAX).times(2), Wide { high: 1, low: u128::MAX - 1 });
    }
}
