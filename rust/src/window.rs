//! One window: sums that do not depend on the order of its trades, and the candle as it was last emitted.

use crate::decimal::{push_amount, push_i64, push_wide, Wide, ONE};
use crate::message::{Proof, Side, Trade};

/// What a candle says beside its identity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Content {
    pub open: u128,
    pub high: u128,
    pub low: u128,
    pub close: u128,
    pub volume: Wide,
    pub quote: Wide, // 24 decimals
    pub buy: Wide,
    pub count: u64,
    pub first_id: i64,
    pub last_id: i64,
    pub is_partial: bool,
}

/// A candle that is out: emitted by this fold, or restored from a previous run.
#[derive(Clone, Copy, Debug)]
pub struct Emitted {
    pub revision: u64,
    pub close: u128,
    pub last_id: i64,
    pub count: u64,
    pub is_partial: bool,
    pub proof: Proof,
    pub is_unproven: bool,
    /// From an earlier life: stands until the trades, read again, say more than it does.
    pub restored: bool,
    /// Made of trades, so that trades may revise it.
    pub revisable: bool,
    pub content: Option<Content>,
    /// As they were when it was first emitted; revisions keep them.
    pub bid: Option<u128>,
    pub ask: Option<u128>,
}

#[derive(Debug, Default)]
pub struct Window {
    pub start_ms: i64,
    /// Place of the first message that touched it; the lowest one.
    pub offset: Option<i64>,
    /// A mark said that no trade follows its last one; and what proved it.
    pub ended: bool,
    pub end_proof: Proof,
    /// The ids that are known in it, those of trades without quantity among them.
    pub known: Option<(i64, i64)>,
    pub count: u64,
    pub first_id: i64,
    pub last_id: i64,
    open: u128,
    close: u128,
    high: u128,
    low: u128,
    volume: Wide,
    quote: Wide,
    buy: Wide,
    pub emitted: Option<Emitted>,
}

impl Window {
    pub fn new(start_ms: i64) -> Self {
        Window { start_ms, ..Window::default() }
    }

    #[inline]
    pub fn add(&mut self, trade: &Trade, offset: i64) -> bool {
        let price = trade.price;
        self.offset = Some(self.offset.map_or(offset, |first| first.min(offset)));
        match &mut self.known {
            None => self.known = Some((trade.trade_id, trade.trade_id)),
            Some((first, last)) => {
                if trade.trade_id > *last {
                    (*last, self.ended, self.end_proof) = (trade.trade_id, false, Proof::None);
                }
                *first = trade.trade_id.min(*first);
            }
        }
        if trade.quantity == 0 {
            return false;
        }
        if self.count == 0 {
            (self.first_id, self.open, self.high, self.low) = (trade.trade_id, price, price, price);
            (self.last_id, self.close) = (trade.trade_id, price);
        } else if trade.trade_id > self.last_id {
            (self.last_id, self.close) = (trade.trade_id, price);
        } else if trade.trade_id < self.first_id {
            (self.first_id, self.open) = (trade.trade_id, price);
        }
        self.high = self.high.max(price);
        self.low = self.low.min(price);
        self.volume += Wide::from(trade.quantity);
        self.quote += Wide::product(price, trade.quantity);
        if trade.side == Side::Buy {
            self.buy += Wide::from(trade.quantity);
        }
        self.count += 1;
        true
    }

    /// Returns the candle of the trades; of an empty window, flat at the last close.
    pub fn content(&self, before: Option<(u128, i64)>, is_partial: bool) -> Content {
        if self.count == 0 {
            let (close, last_id) = before.unwrap_or_default();
            let zero = Wide::default();
            return Content {
                open: close,
                high: close,
                low: close,
                close,
                volume: zero,
                quote: zero,
                buy: zero,
                count: 0,
                first_id: last_id,
                last_id,
                is_partial: false,
            };
        }
        Content {
            open: self.open,
            high: self.high,
            low: self.low,
            close: self.close,
            volume: self.volume,
            quote: self.quote,
            buy: self.buy,
            count: self.count,
            first_id: self.first_id,
            last_id: self.last_id,
            is_partial,
        }
    }

    /// Returns a `FormingCandle` message.
    pub fn forming(&self, symbol: &[u8], interval_seconds: i64, as_of_ms: i64) -> Vec<u8> {
        let mut json = Json::new(b"forming", symbol, interval_seconds, self.start_ms);
        json.integer("end_ms", self.start_ms + interval_seconds * 1000);
        json.prices(&self.content(None, false));
        json.wide("volume", self.volume);
        json.integer("trade_count", self.count as i64);
        json.integer("last_trade_id", self.last_id);
        json.integer("as_of_ms", as_of_ms);
        json.close()
    }
}

/// Returns a `Candle` message, byte by byte what msgspec makes of the struct.
pub fn candle(symbol: &[u8], interval_seconds: i64, start_ms: i64, emitted: &Emitted, content: &Content, available_ms: i64) -> Vec<u8> {
    let mut json = Json::new(b"candle", symbol, interval_seconds, start_ms);
    json.integer("revision", emitted.revision as i64);
    json.integer("end_ms", start_ms + interval_seconds * 1000);
    json.prices(content);
    json.wide("volume", content.volume);
    json.wide("quote_volume", content.quote.rounded_div(Wide::from(ONE)));
    json.wide("vwap", vwap(content));
    json.integer("trade_count", content.count as i64);
    json.wide("buy_volume", content.buy);
    json.integer("first_trade_id", content.first_id);
    json.integer("last_trade_id", content.last_id);
    json.quote("bid", emitted.bid);
    json.quote("ask", emitted.ask);
    json.raw("is_empty", if content.count == 0 { b"true" } else { b"false" });
    json.raw("is_partial", if content.is_partial { b"true" } else { b"false" });
    json.raw("source", b"\"trades\"");
    json.integer("available_ms", available_ms);
    if emitted.is_unproven {
        json.raw("is_unproven", b"true");
    }
    if emitted.proof != Proof::None {
        json.key("evidence");
        json.0.push(b'"');
        json.0.extend_from_slice(emitted.proof.name());
        json.0.push(b'"');
    }
    json.close()
}

/// Quote volume over volume, rounded half to even at 8 decimals.
fn vwap(content: &Content) -> Wide {
    if content.volume.is_zero() {
        return Wide::default();
    }
    content.quote.rounded_div(content.volume.times(10_000)).times(10_000)
}

struct Json(Vec<u8>);

impl Json {
    fn new(kind: &[u8], symbol: &[u8], interval_seconds: i64, start_ms: i64) -> Self {
        let mut json = Json(Vec::with_capacity(448));
        json.0.extend_from_slice(b"{\"type\":\"");
        json.0.extend_from_slice(kind);
        json.0.extend_from_slice(b"\",\"symbol\":\"");
        json.0.extend_from_slice(symbol);
        json.0.push(b'"');
        json.integer("interval_seconds", interval_seconds);
        json.integer("start_ms", start_ms);
        json
    }

    fn key(&mut self, name: &str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn raw(&mut self, name: &str, text: &[u8]) {
        self.key(name);
        self.0.extend_from_slice(text);
    }

    fn integer(&mut self, name: &str, value: i64) {
        self.key(name);
        push_i64(&mut self.0, value);
    }

    fn wide(&mut self, name: &str, value: Wide) {
        self.key(name);
        self.0.push(b'"');
        push_wide(&mut self.0, value);
        self.0.push(b'"');
    }

    fn quote(&mut self, name: &str, price: Option<u128>) {
        match price {
            Some(price) => self.wide(name, Wide::from(price)),
            None => self.raw(name, b"null"),
        }
    }

    fn prices(&mut self, content: &Content) {
        for (name, price) in [("open", content.open), ("high", content.high), ("low", content.low), ("close", content.close)] {
            self.key(name);
            self.0.push(b'"');
            push_amount(&mut self.0, price);
            self.0.push(b'"');
        }
    }

    fn close(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decimal::parse_amount;

    fn trade(trade_id: i64, price: &str, quantity: &str, side: Side) -> Trade {
        let amount = |text: &str| parse_amount(text.as_bytes()).unwrap();
        Trade { trade_id, price: amount(price), quantity: amount(quantity), side, event_ms: 1_700_000_000_000 }
    }

    #[test]
    fn order_does_not_matter() {
        let trades = [trade(7, "100.1", "0.1", Side::Buy), trade(8, "100.3", "0.2", Side::Sell), trade(9, "99.9", "0.3", Side::Buy)];
        let all: Vec<_> = [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]]
            .iter()
            .map(|order| {
                let mut window = Window::new(1_699_999_980_000);
                order.iter().for_each(|&i| assert!(window.add(&trades[i], 0)));
                window.content(None, false)
            })
            .collect();
        assert!(all.iter().all(|content| *content == all[0]));
        let emitted = Emitted {
            revision: 1,
            close: all[0].close,
            last_id: 9,
            count: 3,
            is_partial: false,
            proof: Proof::None,
            is_unproven: false,
            restored: false,
            revisable: true,
            content: Some(all[0]),
            bid: parse_amount(b"99.80"),
            ask: None,
        };
        let text = String::from_utf8(candle(b"BTC/USD", 60, 1_699_999_980_000, &emitted, &all[0], 1_700_000_042_000)).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"type":"candle","symbol":"BTC/USD","interval_seconds":60,"start_ms":1699999980000,"revision":1,"end_ms":1700000040000,"#,
                r#""open":"100.1","high":"100.3","low":"99.9","close":"99.9","volume":"0.6","quote_volume":"60.04","vwap":"100.06666667","#,
                r#""trade_count":3,"buy_volume":"0.4","first_trade_id":7,"last_trade_id":9,"bid":"99.8","ask":null,"is_empty":false,"#,
                r#""is_partial":false,"source":"trades","available_ms":1700000042000}"#
            )
        );
    }
}
