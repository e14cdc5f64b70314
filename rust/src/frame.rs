//! Trades of a Kraken WebSocket v2 frame, exact and checked.

use std::borrow::Cow;

use crate::decimal::parse_number;
use crate::json::{expected, Cursor, Invalid, Result};
use crate::message::{check_ms, check_symbol, Side};

#[derive(Debug)]
pub struct FrameTrade<'a> {
    pub symbol: Cow<'a, [u8]>,
    pub trade_id: i64,
    pub price: u128,
    /// May be 0: then the trade only keeps its place among the ids.
    pub quantity: u128,
    pub side: Side,
    /// `limit`, `market`, or empty where the frame does not say.
    pub order_type: &'static str,
    pub event_ms: i64,
}

/// Returns the trades of one frame; keys may come in any order, unknown ones are passed over.
pub fn decode_trade_frame(raw: &[u8]) -> Result<Vec<FrameTrade<'_>>> {
    let mut cursor = Cursor::new(raw);
    let (mut channel, mut kind, mut data) = (false, false, None);
    let mut trades = Vec::new();
    cursor.object(|cursor, key| {
        match key {
            b"channel" => channel = one_of(cursor, "channel 'trade'", &["trade"]).map(|_| true)?,
            b"type" => kind = one_of(cursor, "type 'snapshot' or 'update'", &["snapshot", "update"]).map(|_| true)?,
            b"data" => {
                cursor.peek();
                data = Some(cursor.at);
                if channel {
                    trades.clear();
                    cursor.array("an array of trades as data", |cursor| {
                        trades.push(trade(cursor)?);
                        Ok(())
                    })?;
                } else {
                    cursor.skip()?;
                }
            }
            _ => cursor.skip()?,
        }
        Ok(())
    })?;
    cursor.finish()?;
    match (channel, kind, data) {
        (false, ..) => Err(Invalid("expected channel 'trade', was a frame without channel".into())),
        (_, false, _) => Err(Invalid("expected type 'snapshot' or 'update', was a frame without type".into())),
        (.., None) => Err(Invalid("expected an array of trades as data, was a frame without data".into())),
        (.., Some(at)) if trades.is_empty() => {
            // data came before channel (or holds nothing)
            cursor.at = at;
            cursor.array("an array of trades as data", |cursor| {
                trades.push(trade(cursor)?);
                Ok(())
            })?;
            Ok(trades)
        }
        _ => Ok(trades),
    }
}

/// Takes a trade written as Kraken writes it; leaves the cursor where it was if it is written otherwise.
#[inline]
fn usual_trade<'a>(cursor: &mut Cursor<'a>) -> Option<FrameTrade<'a>> {
    let start = cursor.at;
    let taken = (|| {
        cursor.try_text(b"{\"symbol\":").then_some(())?;
        let symbol = check_symbol(cursor.string("").ok()?).ok()?;
        let side = if cursor.try_text(b",\"side\":\"buy\",\"price\":") {
            Side::Buy
        } else {
            cursor.try_text(b",\"side\":\"sell\",\"price\":").then_some(Side::Sell)?
        };
        let price = parse_number(cursor.number("").ok()?).ok()?;
        cursor.try_text(b",\"qty\":").then_some(())?;
        let quantity = parse_number(cursor.number("").ok()?).ok()?;
        let order_type = if cursor.try_text(b",\"ord_type\":\"limit\",\"trade_id\":") {
            "limit"
        } else {
            cursor.try_text(b",\"ord_type\":\"market\",\"trade_id\":").then_some("market")?
        };
        let trade_id = cursor.integer("", 0).ok()?;
        cursor.try_text(b",\"timestamp\":").then_some(())?;
        let event_ms = rfc3339_ms(&cursor.string("").ok()?).ok()?;
        (cursor.try_text(b"}") && price > 0).then_some(())?;
        Some(FrameTrade { symbol, trade_id, price, quantity, side, order_type, event_ms })
    })();
    if taken.is_none() {
        cursor.at = start;
    }
    taken
}

fn trade<'a>(cursor: &mut Cursor<'a>) -> Result<FrameTrade<'a>> {
    if let Some(trade) = usual_trade(cursor) {
        return Ok(trade);
    }
    let (mut symbol, mut id, mut price, mut quantity, mut side, mut event_ms) = (None, None, None, None, None, None);
    let mut order_type = "";
    cursor.object(|cursor, key| {
        match key {
            b"symbol" => symbol = Some(check_symbol(cursor.string("a symbol such as BTC/USD")?)?),
            b"side" => side = Some(if one_of(cursor, "side 'buy' or 'sell'", &["buy", "sell"])? == "buy" { Side::Buy } else { Side::Sell }),
            b"price" => price = Some(amount(cursor, "price", 1)?),
            b"qty" => quantity = Some(amount(cursor, "qty", 0)?),
            b"ord_type" => order_type = one_of(cursor, "ord_type 'limit' or 'market'", &["limit", "market"])?,
            b"trade_id" => id = Some(cursor.integer("an integer trade_id", 0)?),
            b"timestamp" => event_ms = Some(rfc3339_ms(&cursor.string("a timestamp")?)?),
            _ => cursor.skip()?,
        }
        Ok(())
    })?;
    let missing = |name: &str| Invalid(format!("expected a trade with {name}, was one without"));
    Ok(FrameTrade {
        symbol: symbol.ok_or_else(|| missing("symbol"))?,
        trade_id: id.ok_or_else(|| missing("trade_id"))?,
        price: price.ok_or_else(|| missing("price"))?,
        quantity: quantity.ok_or_else(|| missing("qty"))?,
        side: side.ok_or_else(|| missing("side"))?,
        order_type,
        event_ms: event_ms.ok_or_else(|| missing("timestamp"))?,
    })
}

fn one_of(cursor: &mut Cursor, what: &str, words: &[&'static str]) -> Result<&'static str> {
    let text = cursor.string(what)?;
    match words.iter().find(|word| word.as_bytes() == &*text) {
        Some(word) => Ok(word),
        None => expected(what, &text),
    }
}

fn amount(cursor: &mut Cursor, name: &str, lowest: u128) -> Result<u128> {
    let text = cursor.number(name)?;
    match parse_number(text) {
        Ok(value) if value >= lowest => Ok(value),
        Ok(_) => expected(&format!("{name} above 0"), text),
        Err("negative") => expected(&format!("{name} that is not negative"), text),
        Err(limit) => expected(&format!("{name} within 20 digits and 12 decimals ({limit})"), text),
    }
}

/// Returns the milliseconds of a text such as `2026-09-25T17:48:26.844359Z`, floored.
pub fn rfc3339_ms(text: &[u8]) -> Result<i64> {
    match instant(text) {
        Some(ms) => check_ms(ms, "timestamp"),
        None => expected("a timestamp such as 2026-09-25T17:48:26.844359Z", text),
    }
}

fn instant(text: &[u8]) -> Option<i64> {
    if text.len() < 20 || text[4] != b'-' || text[7] != b'-' || !matches!(text[10], b'T' | b't' | b' ') || text[13] != b':' || text[16] != b':' {
        return None;
    }
    let (year, month, day) = (digits(&text[0..4])?, digits(&text[5..7])?, digits(&text[8..10])?);
    let (hour, minute, second) = (digits(&text[11..13])?, digits(&text[14..16])?, digits(&text[17..19])?);
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days_in_month = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = &text[19..];
    let mut ms = 0;
    if rest[0] == b'.' {
        let count = rest[1..].iter().take_while(|b| b.is_ascii_digit()).count();
        if !(1..=9).contains(&count) {
            return None;
        }
        ms = digits(&rest[1..=count.min(3)])? * [100, 10, 1][count.min(3) - 1];
        rest = &rest[count + 1..];
    }
    let offset_minutes = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h0, b':', m1, m0] => {
            let (hours, minutes) = (digits(&[*h1, *h0])?, digits(&[*m1, *m0])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    Some((((days(year, month, day) * 24 + hour) * 60 + minute - offset_minutes) * 60 + second) * 1000 + ms)
}

#[inline]
fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |value, b| b.is_ascii_digit().then(|| value * 10 + i64::from(b - b'0')))
}

/// Days since 1970-01-01 in the Gregorian calendar: years are counted from March, so that a leap day is the last one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: &str = r#"{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":83744.3,"qty":9.417e-05,"ord_type":"limit","trade_id":109116693,"timestamp":"2026-09-25T17:48:26.844359Z"}]}"#;

    fn refused(from: &str, to: &str) -> String {
        assert!(FRAME.contains(from), "{from}");
        decode_trade_frame(FRAME.replacen(from, to, 1).as_bytes()).unwrap_err().0
    }

    #[test]
    fn a_frame_is_read_exactly() {
        let trades = decode_trade_frame(FRAME.as_bytes()).unwrap();
        assert_eq!(trades.len(), 1);
        assert_eq!((trades[0].price, trades[0].quantity), (83_744_300_000_000_000, 94_170_000));
        assert_eq!((trades[0].trade_id, trades[0].event_ms, trades[0].order_type), (109_116_693, 1_790_358_506_844, "limit"));
    }

    #[test]
    fn a_quantity_of_zero_is_taken() {
        for zero in ["0", "0.0", "-0", "0e9"] {
            for frame in [FRAME.to_string(), FRAME.replace("\"side\"", " \"side\"")] {
                let trades = decode_trade_frame(frame.replace("9.417e-05", zero).as_bytes()).map(|t| (t[0].trade_id, t[0].quantity));
                assert_eq!(trades, Ok((109_116_693, 0)), "{zero}");
            }
        }
    }

    #[test]
    fn order_space_and_unknown_keys_do_not_matter() {
        let frame = r#" { "data" : [ { "trade_id":1, "new":{"a":[1,{}]}, "timestamp":"2024-02-29T23:59:59Z", "qty":1, "pr\u0069ce":2, "side":"sell", "symbol":"ETH/USD" } ], "x":null, "type":"snapshot", "channel":"trade" } "#;
        let trades = decode_trade_frame(frame.as_bytes()).unwrap();
        assert_eq!((trades[0].event_ms, trades[0].order_type), (1_709_251_199_000, ""));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, why) in [
            ("\"trade\"", "\"ticker\"", "expected channel 'trade', was \"ticker\""),
            ("update", "delta", "expected type"),
            ("83744.3", "0.0", "expected price above 0, was \"0.0\""),
            ("83744.3", "-1", "expected price that is not negative"),
            ("9.417e-05", "-9", "expected qty that is not negative"),
            ("83744.3", "\"83744.3\"", "expected price at byte"),
            ("83744.3", "NaN", "expected price at byte"),
            ("83744.3", "1e999", "expected price within 20 digits"),
            ("9.417e-05", "1e-13", "12 decimals"),
            ("109116693", "1.5", "expected an integer trade_id"),
            ("109116693", "-5", "expected an integer trade_id"),
            ("\"buy\"", "\"hold\"", "expected side 'buy' or 'sell', was \"hold\""),
            ("\"limit\"", "\"stop\"", "expected ord_type"),
            ("BTC/USD", "btc-usd", "expected a symbol"),
            (",\"qty\":9.417e-05", "", "expected a trade with qty"),
            ("2026-09-25T17:48:26.844359Z", "2026-02-29T17:48:26Z", "expected a timestamp"),
            ("2026-09-25T17:48:26.844359Z", "1970-01-21T00:00:00Z", "timestamp must be milliseconds"),
            ("}]}", "}]", "expected ',' or '}'"),
            ("}]}", "}]} x", "expected the end"),
        ] {
            let was = refused(from, to);
            assert!(was.contains(why), "{was:?} should say {why:?}");
        }
    }

    #[test]
    fn any_prefix_is_refused_without_a_panic() {
        for end in 0..FRAME.len() {
            assert!(decode_trade_frame(&FRAME.as_bytes()[..end]).is_err());
        }
    }

    #[test]
    fn timestamps_are_floored_and_zoned() {
        for (text, ms) in [
            ("2026-09-25T17:48:26Z", 1_790_358_506_000),
            ("2026-09-25T17:48:26.9Z", 1_790_358_506_900),
            ("2026-09-25T17:48:26.999999999Z", 1_790_358_506_999),
            ("2026-09-25T19:48:26.001+02:00", 1_790_358_506_001),
            ("2000-03-01T00:00:00-23:59", 951_955_140_000),
        ] {
            assert_eq!(instant(text.as_bytes()), Some(ms), "{text}");
        }
        for text in [
            "2026-09-25T17:48:26",
            "2026-13-25T17:48:26Z",
            "2026-09-25T24:00:00Z",
            "2026-09-25T17:48:60Z",
            "2026-09-25T17:48:26.Z",
            "2026-09-25T17:48:26.1234567890Z",
            "",
        ] {
            assert_eq!(instant(text.as_bytes()), None, "{text}");
        }
    }
}
