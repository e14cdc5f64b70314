//! No bytes make the decoders panic, and what they accept is within the limits and can be written again.

use _core::decimal::{parse_amount, push_amount, LIMIT};
use _core::fold::Fold;
use _core::frame::{decode_trade_frame, FrameTrade};
use _core::message::{decode, Message, Side, Trade};
use proptest::prelude::*;

/// As Kraken writes them, and once in another order.
const FRAMES: [&str; 3] = [
    r#"{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"sell","price":63348.4,"qty":9.417e-05,"ord_type":"limit","trade_id":104622323,"timestamp":"2026-08-02T05:43:39.154709Z"}]}"#,
    r#"{"channel":"trade","type":"snapshot","data":[{"symbol":"MATIC/USD","side":"buy","price":0.5147,"qty":6423.46326,"ord_type":"limit","trade_id":4665846,"timestamp":"2023-09-25T07:48:36.925533Z"},{"symbol":"MATIC/USD","side":"buy","price":0.5147,"qty":1136.19677815,"ord_type":"market","trade_id":4665847,"timestamp":"2023-09-25T07:49:36.925603Z"}]}"#,
    r#"{"data":[{"trade_id":1,"timestamp":"2024-02-29T23:59:59Z","qty":1,"price":2E3,"side":"sell","symbol":"ETH/USD"}],"type":"snapshot","channel":"trade"}"#,
];
const MESSAGES: [&str; 3] = [
    r#"{"type":"trades","symbol":"BTC/USD","trades":[{"trade_id":1,"price":"2.50","quantity":"3","side":"buy","order_type":"","event_ms":1700000000000},{"trade_id":2,"price":"0.00000001","quantity":"99999999999999999999.999999999999","side":"sell","order_type":"limit","event_ms":1700000000001}],"ingest_ms":1700000000000,"source":"live","duplicates":3}"#,
    r#"{"type":"mark","symbol":"BTC/USD","exchange_ms":1700000123000,"contiguous_through":2,"connected":true,"source":"replay","bid":"2.4","ask":null}"#,
    r#"{ "symbol" : "BTC/USD", "type":"mark", "connected":false, "exchange_ms":9999999999999,"contiguous_through":-1, "source":"rest" }"#,
];

/// One of the samples with bytes changed, taken out, doubled or put in, and perhaps cut.
fn damaged(samples: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), 0..4u8, prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\":,.-+eE0159ntu\\ ".to_vec())]);
    (prop::sample::select(samples), prop::collection::vec(change, 0..4), prop::option::weighted(0.2, any::<prop::sample::Index>())).prop_map(
        |(sample, changes, cut)| {
            let mut raw = sample.as_bytes().to_vec();
            for (at, kind, byte) in changes {
                let at = at.index(raw.len());
                match kind {
                    0 => raw[at] = byte,
                    1 if raw.len() > 1 => drop(raw.remove(at)),
                    2 => raw.insert(at, byte),
                    _ => raw.insert(at, raw[at]),
                }
            }
            raw.truncate(cut.map_or(raw.len(), |cut| cut.index(raw.len())));
            raw
        },
    )
}

fn bytes(samples: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![6 => damaged(samples), 1 => prop::collection::vec(any::<u8>(), 0..200), 1 => "[\\[{]{0,300}".prop_map(String::into_bytes)]
}

fn text(value: u128) -> String {
    let mut out = Vec::new();
    push_amount(&mut out, value);
    String::from_utf8(out).unwrap()
}

fn is_normal(value: u128) -> bool {
    let text = text(value);
    let trimmed = !text.contains('.') || !text.ends_with(['0', '.']);
    value < LIMIT && trimmed && parse_amount(text.as_bytes()) == Some(value)
}

fn as_frame(trade: &FrameTrade) -> String {
    let side = if trade.side == Side::Buy { "buy" } else { "sell" };
    let order = if trade.order_type.is_empty() { String::new() } else { format!(r#","ord_type":"{}""#, trade.order_type) };
    format!(
        r#"{{"symbol":"{}","side":"{side}","price":{},"qty":{}{order},"trade_id":{},"timestamp":"2026-08-02T05:43:39Z"}}"#,
        String::from_utf8(trade.symbol.to_vec()).unwrap(),
        text(trade.price),
        text(trade.quantity),
        trade.trade_id
    )
}

fn as_message(symbol: &[u8], trades: &[Trade]) -> String {
    let row = |t: &Trade| {
        let side = if t.side == Side::Buy { "buy" } else { "sell" };
        let (price, quantity) = (text(t.price), text(t.quantity));
        format!(r#"{{"trade_id":{},"price":"{price}","quantity":"{quantity}","side":"{side}","order_type":"market","event_ms":{}}}"#, t.trade_id, t.event_ms)
    };
    let rows: Vec<String> = trades.iter().map(row).collect();
    let symbol = String::from_utf8(symbol.to_vec()).unwrap();
    format!(r#"{{"type":"trades","symbol":"{symbol}","trades":[{}],"ingest_ms":1700000000000,"source":"rest"}}"#, rows.join(","))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_accepted_frame_can_be_written_again(raw in bytes(&FRAMES)) {
        if let Ok(trades) = decode_trade_frame(&raw) {
            for trade in &trades {
                prop_assert!(trade.price > 0 && trade.trade_id >= 0);
                prop_assert!(is_normal(trade.price) && is_normal(trade.quantity));
                prop_assert!((1_000_000_000_000..10_000_000_000_000).contains(&trade.event_ms));
            }
            let rows: Vec<String> = trades.iter().map(as_frame).collect();
            let frame = format!(r#"{{"channel":"trade","type":"update","data":[{}]}}"#, rows.join(","));
            let again = decode_trade_frame(frame.as_bytes()).map_err(|e| TestCaseError::fail(e.0))?;
            let key = |t: &FrameTrade| (t.symbol.to_vec(), t.trade_id, t.price, t.quantity, t.side, t.order_type);
            prop_assert_eq!(trades.iter().map(key).collect::<Vec<_>>(), again.iter().map(key).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_accepted_message_can_be_written_again(raw in bytes(&MESSAGES)) {
        let (mut trades, mut again) = (Vec::new(), Vec::new());
        match decode(&raw, &mut trades) {
            Ok(Message::Trades(symbol)) => {
                prop_assert!(trades.iter().all(|t| t.trade_id >= 0 && is_normal(t.price) && is_normal(t.quantity)));
                let message = as_message(&symbol, &trades);
                decode(message.as_bytes(), &mut again).map_err(|e| TestCaseError::fail(e.0))?;
                let key = |t: &Trade| (t.trade_id, t.price, t.quantity, t.side, t.event_ms);
                prop_assert_eq!(trades.iter().map(key).collect::<Vec<_>>(), again.iter().map(key).collect::<Vec<_>>());
            }
            Ok(Message::Watermark(_, mark)) => {
                prop_assert!(mark.contiguous_through >= -1);
                prop_assert!([mark.bid, mark.ask].into_iter().flatten().all(is_normal));
            }
            Err(why) => prop_assert!(!why.0.is_empty()),
        }
    }

    #[test]
    fn a_fold_survives_any_messages(raws in prop::collection::vec(bytes(&MESSAGES), 1..12)) {
        let mut fold = Fold::new(60, 2000, 5, 0);
        for (offset, raw) in raws.iter().enumerate() {
            let before = fold.counts.trades + fold.counts.marks;
            if fold.feed(raw, offset as i64).is_err() {
                prop_assert_eq!(fold.counts.trades + fold.counts.marks, before);
            }
            fold.forming();
            fold.oldest_offset();
        }
    }
}
