//! Messages of the topic `trades`: `Trades` and `Watermark`, as `nbs/00_core/04_messages.ipynb` defines them.

use std::borrow::Cow;

use crate::decimal::parse_amount;
use crate::json::{expected, Cursor, Invalid, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Buy,
    Sell,
}

#[derive(Clone, Copy, Debug)]
pub struct Trade {
    pub trade_id: i64,
    pub price: u128,
    pub quantity: u128,
    pub side: Side,
    pub event_ms: i64,
}

/// What proves that no trade is missing at the end of a candle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    #[default]
    None,
    NextTrade,
    Connection,
    Snapshot,
    Rest,
    Recording,
}

impl Proof {
    const NAMES: [(Proof, &'static [u8]); 6] = [
        (Proof::None, b""),
        (Proof::NextTrade, b"next_trade"),
        (Proof::Connection, b"connection"),
        (Proof::Snapshot, b"snapshot"),
        (Proof::Rest, b"rest"),
        (Proof::Recording, b"recording"),
    ];

    pub fn name(self) -> &'static [u8] {
        Self::NAMES.iter().find(|(proof, _)| *proof == self).map_or(b"", |(_, name)| name)
    }

    /// The proof that a mark may carry.
    fn of_mark(name: &[u8]) -> Option<Proof> {
        let found = Self::NAMES.iter().find(|(_, known)| *known == name).map(|(proof, _)| *proof)?;
        (!matches!(found, Proof::NextTrade | Proof::Connection)).then_some(found)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Watermark {
    pub exchange_ms: i64,
    pub contiguous_through: i64,
    pub connected: bool,
    pub live: bool,
    /// No trade from before is missing, says `proven_by`; `None` from an older version, for which the connection was proof enough.
    pub proven_ms: Option<i64>,
    pub proven_by: Proof,
    /// The best quotes known then.
    pub bid: Option<u128>,
    pub ask: Option<u128>,
}

pub enum Message<'a> {
    /// The trades are in the buffer that the caller gave.
    Trades(Cow<'a, [u8]>),
    Watermark(Cow<'a, [u8]>, Watermark),
}

/// Refuses what cannot be milliseconds since 1970.
pub fn check_ms(ms: i64, name: &str) -> Result<i64> {
    if (1_000_000_000_000..10_000_000_000_000).contains(&ms) {
        return Ok(ms);
    }
    Err(Invalid(format!("{name} must be milliseconds since 1970 (13 digits), was {ms}")))
}

/// Refuses what is not like `BTC/USD`.
pub fn check_symbol(text: Cow<'_, [u8]>) -> Result<Cow<'_, [u8]>> {
    let good = |part: &[u8]| (1..=16).contains(&part.len()) && part.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'.');
    match text.iter().position(|&b| b == b'/') {
        Some(at) if good(&text[..at]) && good(&text[at + 1..]) => Ok(text),
        _ => expected("a symbol such as BTC/USD", &text),
    }
}

/// Decodes one message; its trades, all of them or none, go into `trades`.
pub fn decode<'a>(raw: &'a [u8], trades: &mut Vec<Trade>) -> Result<Message<'a>> {
    if let Some(symbol) = usual_trades(raw, trades) {
        return Ok(Message::Trades(symbol));
    }
    trades.clear();
    let mut cursor = Cursor::new(raw);
    let (mut kind, mut symbol, mut source, mut ingest, mut exchange_ms, mut through, mut connected) = (None, None, None, None, None, None, None);
    let (mut bid, mut ask, mut foreign_to_mark, mut foreign_to_trades) = (None, None, false, false);
    let (mut proven_ms, mut proven_by) = (None, Proof::None);
    cursor.object(|cursor, key| {
        match key {
            b"type" => {
                let text = cursor.string("type 'trades' or 'mark'")?;
                if kind.as_ref().is_some_and(|first| *first != text) {
                    return expected("one type", &text);
                }
                kind = Some(text);
            }
            b"symbol" => symbol = Some(check_symbol(cursor.string("a symbol such as BTC/USD")?)?),
            b"trades" => {
                foreign_to_mark = true;
                trades.clear();
                cursor.array("an array of trades", |cursor| {
                    trades.push(trade(cursor)?);
                    Ok(())
                })?;
                if trades.is_empty() {
                    return expected("one trade or more", b"[]");
                }
            }
            b"ingest_ms" => {
                foreign_to_mark = true;
                ingest = Some(instant(cursor, "ingest_ms")?);
            }
            b"duplicates" => {
                foreign_to_mark = true;
                cursor.count("duplicates as a count")?;
            }
            b"exchange_ms" => {
                foreign_to_trades = true;
                exchange_ms = Some(instant(cursor, "exchange_ms")?);
            }
            b"bid" | b"ask" => {
                foreign_to_trades = true;
                let quote = if key == b"bid" { &mut bid } else { &mut ask };
                *quote = if cursor.null() { None } else { Some(amount(cursor, "bid or ask")?) };
            }
            b"contiguous_through" => {
                foreign_to_trades = true;
                through = Some(cursor.integer("a trade_id or -1 as contiguous_through", -1)?);
            }
            b"proven_ms" => {
                foreign_to_trades = true;
                proven_ms = if cursor.null() { None } else { Some(instant_or_zero(cursor, "proven_ms")?) };
            }
            b"proven_by" => {
                foreign_to_trades = true;
                let text = cursor.string("a proof")?;
                proven_by = match Proof::of_mark(&text) {
                    Some(proof) => proof,
                    None => return expected("proven_by '', 'snapshot', 'rest' or 'recording'", &text),
                };
            }
            b"connected" => {
                foreign_to_trades = true;
                connected = Some(cursor.boolean("true or false as connected")?);
            }
            b"source" => {
                let text = cursor.string("a source")?;
                if !matches!(&*text, b"live" | b"rest" | b"replay" | b"simulated") {
                    return expected("source 'live', 'rest', 'replay' or 'simulated'", &text);
                }
                source = Some(&*text == b"live");
            }
            other => return expected("a field of Trades or Watermark", other),
        }
        Ok(())
    })?;
    cursor.finish()?;
    let missing = |name: &str| Invalid(format!("expected a message with {name}, was one without"));
    let symbol = symbol.ok_or_else(|| missing("symbol"))?;
    let live = source.ok_or_else(|| missing("source"))?;
    match kind.as_deref() {
        Some(b"trades") if foreign_to_trades => Err(Invalid("expected the fields of Trades, was one of Watermark among them".into())),
        Some(b"mark") if foreign_to_mark => Err(Invalid("expected the fields of Watermark, was one of Trades among them".into())),
        Some(b"trades") => {
            ingest.ok_or_else(|| missing("ingest_ms"))?;
            if trades.is_empty() {
                return Err(missing("trades"));
            }
            Ok(Message::Trades(symbol))
        }
        Some(b"mark") => {
            let mark = Watermark {
                exchange_ms: exchange_ms.ok_or_else(|| missing("exchange_ms"))?,
                contiguous_through: through.ok_or_else(|| missing("contiguous_through"))?,
                connected: connected.ok_or_else(|| missing("connected"))?,
                live,
                proven_ms,
                proven_by,
                bid,
                ask,
            };
            Ok(Message::Watermark(symbol, mark))
        }
        other => expected("type 'trades' or 'mark'", other.unwrap_or_default()),
    }
}

/// Takes trades written as our own encoder does; else the whole message is read again, with more patience.
#[inline]
fn usual_trades<'a>(raw: &'a [u8], trades: &mut Vec<Trade>) -> Option<Cow<'a, [u8]>> {
    trades.clear();
    let mut cursor = Cursor::new(raw);
    cursor.try_text(b"{\"type\":\"trades\",\"symbol\":").then_some(())?;
    let symbol = check_symbol(cursor.string("").ok()?).ok()?;
    cursor.try_text(b",\"trades\":[").then_some(())?;
    loop {
        trades.push(usual_trade(&mut cursor)?);
        if !cursor.try_text(b",") {
            break;
        }
    }
    cursor.try_text(b"],\"ingest_ms\":").then_some(())?;
    instant(&mut cursor, "").ok()?;
    cursor.try_text(b",\"source\":").then_some(())?;
    [&b"\"live\""[..], b"\"replay\"", b"\"simulated\"", b"\"rest\""].iter().any(|source| cursor.try_text(source)).then_some(())?;
    if cursor.try_text(b",\"duplicates\":") {
        cursor.count("").ok()?;
    }
    (cursor.try_text(b"}") && cursor.at == raw.len()).then_some(symbol)
}

fn instant(cursor: &mut Cursor, name: &str) -> Result<i64> {
    check_ms(cursor.integer(name, i64::MIN)?, name)
}

fn instant_or_zero(cursor: &mut Cursor, name: &str) -> Result<i64> {
    match cursor.integer(name, i64::MIN)? {
        ms if (0..10_000_000_000_000).contains(&ms) => Ok(ms),
        ms => Err(Invalid(format!("{name} must be milliseconds since 1970 or 0, was {ms}"))),
    }
}

fn amount(cursor: &mut Cursor, name: &str) -> Result<u128> {
    let text = cursor.string(name)?;
    match parse_amount(&text) {
        Some(value) => Ok(value),
        None => expected(&format!("{name} as decimal text"), &text),
    }
}

fn trade(cursor: &mut Cursor) -> Result<Trade> {
    if let Some(trade) = usual_trade(cursor) {
        return Ok(trade);
    }
    let (mut id, mut price, mut quantity, mut side, mut order_type, mut event_ms) = (None, None, None, None, false, None);
    cursor.object(|cursor, key| {
        match key {
            b"trade_id" => id = Some(cursor.integer("an integer trade_id", 0)?),
            b"price" => price = Some(amount(cursor, "price")?),
            b"quantity" => quantity = Some(amount(cursor, "quantity")?),
            b"side" => {
                let text = cursor.string("side 'buy' or 'sell'")?;
                side = Some(match &*text {
                    b"buy" => Side::Buy,
                    b"sell" => Side::Sell,
                    _ => return expected("side 'buy' or 'sell'", &text),
                });
            }
            b"order_type" => {
                let text = cursor.string("order_type")?;
                if std::str::from_utf8(&text).map_or(true, |text| text.chars().count() > 32) {
                    return expected("order_type of at most 32 characters", &text);
                }
                order_type = true;
            }
            b"event_ms" => event_ms = Some(instant(cursor, "event_ms")?),
            other => return expected("a field of Trade", other),
        }
        Ok(())
    })?;
    let missing = |name: &str| Invalid(format!("expected a trade with {name}, was one without"));
    if !order_type {
        return Err(missing("order_type"));
    }
    Ok(Trade {
        trade_id: id.ok_or_else(|| missing("trade_id"))?,
        price: price.ok_or_else(|| missing("price"))?,
        quantity: quantity.ok_or_else(|| missing("quantity"))?,
        side: side.ok_or_else(|| missing("side"))?,
        event_ms: event_ms.ok_or_else(|| missing("event_ms"))?,
    })
}

/// Takes a trade written as our own encoder does; leaves the cursor where it was if it is written otherwise.
#[inline]
fn usual_trade(cursor: &mut Cursor) -> Option<Trade> {
    let start = cursor.at;
    let taken = (|| {
        cursor.try_text(b"{\"trade_id\":").then_some(())?;
        let trade_id = cursor.integer("", 0).ok()?;
        cursor.try_text(b",\"price\":").then_some(())?;
        let price = parse_amount(&cursor.string("").ok()?)?;
        cursor.try_text(b",\"quantity\":").then_some(())?;
        let quantity = parse_amount(&cursor.string("").ok()?)?;
        let side = if cursor.try_text(b",\"side\":\"buy\",\"order_type\":") {
            Side::Buy
        } else {
            cursor.try_text(b",\"side\":\"sell\",\"order_type\":").then_some(Side::Sell)?
        };
        (cursor.try_text(b"\"limit\"") || cursor.try_text(b"\"market\"") || cursor.try_text(b"\"\"")).then_some(())?;
        cursor.try_text(b",\"event_ms\":").then_some(())?;
        let event_ms = check_ms(cursor.integer("", 0).ok()?, "").ok()?;
        cursor.try_text(b"}").then_some(())?;
        Some(Trade { trade_id, price, quantity, side, event_ms })
    })();
    if taken.is_none() {
        cursor.at = start;
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRADES: &str = r#"{"type":"trades","symbol":"BTC/USD","trades":[{"trade_id":1,"price":"2.50","quantity":"3","side":"buy","order_type":"","event_ms":1700000000000}],"ingest_ms":1700000000000,"source":"live"}"#;

    #[test]
    fn spacing_and_order_do_not_matter() {
        let mut trades = Vec::new();
        for text in [TRADES.to_string(), TRADES.replace(':', " : ").replace("{\"trade_id\" : 1,", "{").replace("\"price\"", "\"trade_id\":1,\"price\"")] {
            assert!(matches!(decode(text.as_bytes(), &mut trades), Ok(Message::Trades(symbol)) if &*symbol == b"BTC/USD"), "{text}");
            assert_eq!((trades.len(), trades[0].price, trades[0].trade_id), (1, 2_500_000_000_000, 1));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut trades = Vec::new();
        for (from, to, why) in [
            ("\"2.50\"", "2.50", "expected price"),
            ("\"2.50\"", "\"2.5e1\"", "expected price as decimal text"),
            ("1700000000000}", "1700000000}", "event_ms must be milliseconds"),
            ("\"live\"", "\"lived\"", "expected source"),
            ("\"trades\",\"s", "\"end\",\"s", "expected type"),
            ("\"side\"", "\"edge\"", "expected a field of Trade, was \"edge\""),
            ("\"order_type\":\"\",", "", "expected a trade with order_type"),
            (",\"source\":\"live\"", "", "expected a message with source"),
            ("\"trades\",\"s", "\"mark\",\"type\":\"trades\",\"s", "expected one type"),
        ] {
            assert!(TRADES.contains(from));
            let was = decode(TRADES.replacen(from, to, 1).as_bytes(), &mut trades).err().expect(to).0;
            assert!(was.contains(why), "{was:?} should say {why:?}");
        }
    }
}
