//! A scanner over JSON bytes that allocates only for strings with escapes and for errors.

use std::borrow::Cow;

/// What was wrong, in one line.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid(pub String);

pub type Result<T> = std::result::Result<T, Invalid>;

/// No integer of a message is larger: what counts on from there still fits 64 bits with a sign. As in `nbs/00_core/04_messages.ipynb`.
const LARGEST_ID: i64 = 1 << 62;

/// Nor is a count: sums of a million of them still do.
const LARGEST_COUNT: i64 = 1_000_000_000_000;

/// Objects and arrays that are skipped may be nested this deep.
const DEEPEST: usize = 64;

/// Returns an error in the words "expected X, was Y".
#[cold]
pub fn expected<T>(what: &str, was: &[u8]) -> Result<T> {
    let text = String::from_utf8_lossy(&was[..was.len().min(60)]);
    Err(Invalid(format!("expected {what}, was {}", if was.is_empty() { "nothing".into() } else { format!("{text:?}") })))
}

pub struct Cursor<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, at: 0 }
    }

    #[cold]
    pub fn expected<T>(&self, what: &str) -> Result<T> {
        expected(&format!("{what} at byte {}", self.at), &self.bytes[self.at.min(self.bytes.len())..])
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Returns the next byte that is not white space, without taking it.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        loop {
            match self.byte() {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other,
            }
        }
    }

    #[inline]
    pub fn take(&mut self, byte: u8, what: &str) -> Result<()> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        self.expected(what)
    }

    /// Takes `text` if exactly these bytes come next: the shape that the usual sender writes.
    #[inline]
    pub fn try_text(&mut self, text: &[u8]) -> bool {
        let there = self.bytes[self.at..].starts_with(text);
        if there {
            self.at += text.len();
        }
        there
    }

    /// Takes the byte after a member or an item: true for a comma, false for `close`.
    #[inline]
    pub fn more(&mut self, close: u8) -> Result<bool> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(b) if b == close => {
                self.at += 1;
                Ok(false)
            }
            _ => self.expected(if close == b'}' { "',' or '}'" } else { "',' or ']'" }),
        }
    }

    /// Calls `member` with each key of an object; it must take the value.
    #[inline]
    pub fn object(&mut self, mut member: impl FnMut(&mut Self, &[u8]) -> Result<()>) -> Result<()> {
        self.take(b'{', "an object")?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let key = self.string("a key")?;
            self.take(b':', "':'")?;
            member(self, &key)?;
            if !self.more(b'}')? {
                return Ok(());
            }
        }
    }

    /// Calls `item` at each item of an array; it must take it.
    #[inline]
    pub fn array(&mut self, what: &str, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.take(b'[', what)?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            item(self)?;
            if !self.more(b']')? {
                return Ok(());
            }
        }
    }

    /// Takes a string and returns its bytes, escapes resolved.
    #[inline]
    pub fn string(&mut self, what: &str) -> Result<Cow<'a, [u8]>> {
        self.take(b'"', what)?;
        let start = self.at;
        loop {
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Borrowed(&self.bytes[start..self.at - 1]));
                }
                Some(b'\\') => return self.escaped(start).map(Cow::Owned),
                Some(b) if b >= 0x20 => self.at += 1,
                _ => return self.expected("the rest of a string"),
            }
        }
    }

    #[cold]
    fn escaped(&mut self, start: usize) -> Result<Vec<u8>> {
        let mut text = self.bytes[start..self.at].to_vec();
        loop {
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.at += 1;
                    let plain = match self.byte() {
                        Some(b @ (b'"' | b'\\' | b'/')) => b,
                        Some(b'b') => 8,
                        Some(b'f') => 12,
                        Some(b'n') => b'\n',
                        Some(b'r') => b'\r',
                        Some(b't') => b'\t',
                        Some(b'u') => {
                            self.at += 1;
                            let code = self.code_point()?;
                            text.extend(code.encode_utf8(&mut [0; 4]).bytes());
                            continue;
                        }
                        _ => return self.expected("an escape"),
                    };
                    text.push(plain);
                    self.at += 1;
                }
                Some(b) if b >= 0x20 => {
                    text.push(b);
                    self.at += 1;
                }
                _ => return self.expected("the rest of a string"),
            }
        }
    }

    fn code_point(&mut self) -> Result<char> {
        let first = self.four_hex()?;
        let code = if (0xD800..0xDC00).contains(&first) && self.try_text(b"\\u") {
            let second = self.four_hex()?;
            0x10000 + ((first - 0xD800) << 10) + second.wrapping_sub(0xDC00).min(0x10_FFFF)
        } else {
            first
        };
        Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn four_hex(&mut self) -> Result<u32> {
        let digits = self.bytes.get(self.at..self.at + 4).unwrap_or(&[]);
        match std::str::from_utf8(digits) {
            Ok(text) if text.len() == 4 && text.bytes().all(|b| b.is_ascii_hexdigit()) => {
                self.at += 4;
                Ok(u32::from_str_radix(text, 16).unwrap_or(0))
            }
            _ => self.expected("four hexadecimal digits"),
        }
    }

    /// Takes a number and returns its text, which follows JSON's grammar.
    #[inline]
    pub fn number(&mut self, what: &str) -> Result<&'a [u8]> {
        self.peek();
        let start = self.at;
        let bytes = self.bytes;
        let mut at = start;
        let digits = |at: &mut usize| {
            let from = *at;
            while bytes.get(*at).is_some_and(u8::is_ascii_digit) {
                *at += 1;
            }
            *at > from
        };
        if bytes.get(at) == Some(&b'-') {
            at += 1;
        }
        let zero = bytes.get(at) == Some(&b'0');
        let whole = at;
        let mut good = digits(&mut at) && !(zero && at > whole + 1);
        if good && bytes.get(at) == Some(&b'.') {
            at += 1;
            good = digits(&mut at);
        }
        if good && matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1;
            if matches!(bytes.get(at), Some(b'+' | b'-')) {
                at += 1;
            }
            good = digits(&mut at);
        }
        if !good {
            return self.expected(what);
        }
        self.at = at;
        Ok(&bytes[start..at])
    }

    /// Takes an integer from `lowest` to `LARGEST_ID`.
    #[inline]
    pub fn integer(&mut self, what: &str, lowest: i64) -> Result<i64> {
        if let Some(value) = self.short_integer() {
            return if value < lowest { self.expected(what) } else { Ok(value) };
        }
        self.other_integer(what, lowest)
    }

    #[cold]
    #[inline(never)]
    fn other_integer(&mut self, what: &str, lowest: i64) -> Result<i64> {
        let start = self.at;
        let text = self.number(what)?;
        let (negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let mut value = 0i64;
        if digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit) {
            for b in digits {
                value = value * 10 + i64::from(b - b'0');
            }
            value = if negative { -value } else { value };
        } else {
            match std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) {
                Some(parsed) => value = parsed,
                None => {
                    self.at = start;
                    self.peek();
                    return self.expected(what);
                }
            }
        }
        if value < lowest || value > LARGEST_ID {
            return expected(what, text);
        }
        Ok(value)
    }

    /// Takes how many of something there were.
    #[inline]
    pub fn count(&mut self, what: &str) -> Result<i64> {
        let value = self.integer(what, 0)?;
        if value > LARGEST_COUNT {
            return expected(what, value.to_string().as_bytes());
        }
        Ok(value)
    }

    /// Takes 1 to 18 digits without a leading zero that are not the beginning of another number.
    #[inline]
    fn short_integer(&mut self) -> Option<i64> {
        self.peek();
        let (mut value, mut at) = (0i64, self.at);
        while let Some(digit) = self.bytes.get(at).map(|b| b.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
            if at - self.at == 18 {
                return None;
            }
            value = value * 10 + i64::from(digit);
            at += 1;
        }
        let plain = at > self.at && self.bytes[self.at] != b'0' && !matches!(self.bytes.get(at), Some(b'.' | b'e' | b'E'));
        plain.then(|| {
            self.at = at;
            value
        })
    }

    pub fn boolean(&mut self, what: &str) -> Result<bool> {
        self.peek();
        if self.try_text(b"true") {
            Ok(true)
        } else if self.try_text(b"false") {
            Ok(false)
        } else {
            self.expected(what)
        }
    }

    /// Takes `null` if it comes next.
    pub fn null(&mut self) -> bool {
        self.peek() == Some(b'n') && self.try_text(b"null")
    }

    /// Takes any value and forgets it.
    pub fn skip(&mut self) -> Result<()> {
        self.skip_within(DEEPEST)
    }

    fn skip_within(&mut self, depth: usize) -> Result<()> {
        match self.peek() {
            Some(b'{' | b'[') if depth == 0 => self.expected("no more than 64 levels"),
            Some(b'{') => self.object(|cursor, _| cursor.skip_within(depth - 1)),
            Some(b'[') => self.array("an array", |cursor| cursor.skip_within(depth - 1)),
            Some(b'"') => self.string("a string").map(drop),
            Some(b't' | b'f') => self.boolean("true or false").map(drop),
            Some(b'n') if self.try_text(b"null") => Ok(()),
            _ => self.number("a value").map(drop),
        }
    }

    /// Refuses what follows the value.
    pub fn finish(&mut self) -> Result<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.expected("the end"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(text: &str) -> Result<()> {
        let mut cursor = Cursor::new(text.as_bytes());
        cursor.skip()?;
        cursor.finish()
    }

    #[test]
    fn json_is_taken_and_the_rest_refused() {
        for good in ["null", " [1, -0.5e+3, \"a\\u00e9\\n\", {\"k\": [true, false, {}]}] ", "\"\\ud83d\\ude00\"", "\"\\ud800\""] {
            assert_eq!(skipped(good), Ok(()), "{good}");
        }
        for bad in ["", "nul", "[1,]", "{\"a\":}", "01", "1.", "-", "1e", "\"a", "\"\\x\"", "\"\\u12g4\"", "1 2", "{1:2}", "\"\n\"", "]", "NaN"] {
            assert!(skipped(bad).is_err(), "{bad}");
        }
        assert!(skipped(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn escapes_are_resolved() {
        let mut cursor = Cursor::new(br#""pr\u0069ce\/""#);
        assert_eq!(&*cursor.string("text").unwrap(), b"price/");
    }

    #[test]
    fn integers_have_limits() {
        let take = |text: &str| Cursor::new(text.as_bytes()).integer("an integer", 0);
        assert_eq!(take("4611686018427387904"), Ok(LARGEST_ID));
        assert_eq!(take("0"), Ok(0));
        for bad in ["4611686018427387905", "9223372036854775807", "9223372036854775808", "-1", "1.0", "1e3", "\"1\"", "true"] {
            assert!(take(bad).is_err(), "{bad}");
        }
    }
}
