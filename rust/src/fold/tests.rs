use super::*;

const START: i64 = 1_700_000_040_000;

fn trades(rows: &[(i64, i64)]) -> Vec<u8> {
    let rows: Vec<String> = rows
        .iter()
        .map(|(id, ms)| format!(r#"{{"trade_id":{id},"price":"{}","quantity":"1","side":"buy","order_type":"","event_ms":{}}}"#, 100 + id, START + ms))
        .collect();
    format!(r#"{{"type":"trades","symbol":"A/B","trades":[{}],"ingest_ms":{START},"source":"replay"}}"#, rows.join(",")).into_bytes()
}

fn mark(ms: i64, through: i64, connected: bool) -> Vec<u8> {
    format!(r#"{{"type":"mark","symbol":"A/B","exchange_ms":{},"contiguous_through":{through},"connected":{connected},"source":"replay"}}"#, START + ms)
        .into_bytes()
}

fn run(fold: &mut Fold, messages: &[Vec<u8>]) -> Vec<String> {
    let emitted = messages.iter().enumerate().flat_map(|(offset, raw)| fold.feed(raw, offset as i64).unwrap());
    emitted
        .map(|raw| {
            let text = String::from_utf8(raw).unwrap();
            let field = |name: &str| text.split(&format!("\"{name}\":")).nth(1).unwrap().split([',', '}']).next().unwrap().to_string();
            let minute = (field("start_ms").parse::<i64>().unwrap() - START) / 60_000;
            let kind = if field("is_empty") == "true" {
                "empty"
            } else if field("is_partial") == "true" {
                "partial"
            } else {
                "whole"
            };
            format!("{minute}r{} {kind} {}", field("revision"), field("trade_count"))
        })
        .collect()
}

fn fold() -> Fold {
    Fold::new(60, 2000, 5, 0)
}

#[test]
fn a_window_is_final_after_its_grace() {
    let mut fold = fold();
    assert!(run(&mut fold, &[trades(&[(1, 0), (2, 59_999)]), mark(61_999, 2, true)]).is_empty());
    assert_eq!(run(&mut fold, &[mark(62_000, 2, true)]), ["0r0 partial 2"]);
    assert_eq!(run(&mut fold, &[trades(&[(3, 60_000)]), mark(122_000, 3, true)]), ["1r0 whole 1"]);
}

#[test]
fn silence_is_filled_only_when_proven() {
    assert_eq!(run(&mut fold(), &[trades(&[(1, 0)]), mark(182_000, 1, true)]), ["0r0 partial 1", "1r0 empty 0", "2r0 empty 0"]);
    assert_eq!(run(&mut fold(), &[trades(&[(1, 0), (2, 130_000)]), mark(182_000, 2, true)]), ["0r0 partial 1", "1r0 empty 0", "2r0 whole 1"]);
    assert_eq!(run(&mut fold(), &[trades(&[(1, 0), (3, 130_000)]), mark(182_000, 3, true)]), ["0r0 partial 1", "2r0 partial 1"]);
    assert_eq!(run(&mut fold(), &[trades(&[(1, 0)]), mark(182_000, 2, true)]), ["0r0 partial 1"]);
}

#[test]
fn without_a_connection_only_ids_decide() {
    let mut fold = fold();
    assert!(run(&mut fold, &[trades(&[(1, 0)]), mark(182_000, 1, false)]).is_empty());
    assert_eq!(run(&mut fold, &[trades(&[(2, 130_000)]), mark(183_000, 2, false)]), ["0r0 partial 1", "1r0 empty 0"]);
    assert_eq!(run(&mut fold, &[mark(184_000, 2, true)]), ["2r0 whole 1"]);
}

#[test]
fn a_late_trade_revises_and_flat_candles_follow() {
    let mut fold = fold();
    run(&mut fold, &[trades(&[(1, 0), (2, 60_000)]), mark(242_000, 2, true)]);
    assert_eq!(run(&mut fold, &[trades(&[(3, 61_000), (3, 61_000)]), mark(243_000, 3, true)]), ["1r1 whole 2", "2r1 empty 0", "3r1 empty 0"]);
    assert_eq!((fold.counts.duplicates, fold.counts.revisions), (1, 3));
}

#[test]
fn older_than_kept_is_too_late() {
    let mut fold = fold();
    run(&mut fold, &[trades(&[(1, 0), (2, 600_000)]), mark(662_000, 2, true), trades(&[(3, 1000)])]);
    assert_eq!(fold.rejected().len(), 1);
    assert!(fold.rejected().is_empty());
}

#[test]
fn a_filled_hole_completes_both_neighbours() {
    let mut fold = fold();
    let messages = [trades(&[(1, 0), (2, 60_000), (4, 120_000)]), mark(182_000, 4, true)];
    assert_eq!(run(&mut fold, &messages), ["0r0 partial 1", "1r0 partial 1", "2r0 partial 1"]);
    assert_eq!(run(&mut fold, &[trades(&[(3, 61_000)]), mark(183_000, 4, true)]), ["1r1 whole 2", "2r1 whole 1"]);
}

#[test]
fn a_seed_speaks_for_what_was_told() {
    let candle = RestoredCandle {
        start_ms: START,
        revision: 0,
        close: 1,
        last_id: 2,
        count: 2,
        is_partial: false,
        is_unproven: false,
        from_trades: true,
        bid: None,
        ask: None,
    };
    let mut fold = fold();
    fold.restore(b"A/B", candle);
    assert!(run(&mut fold, &[trades(&[(2, 1000)]), mark(62_000, 2, true), trades(&[(1, 0)]), mark(63_000, 2, true)]).is_empty());
    assert_eq!(run(&mut fold, &[trades(&[(3, 60_000)]), mark(122_000, 3, true)]), ["1r0 whole 1"]);
    assert_eq!(run(&mut fold, &[trades(&[(4, 2000)]), mark(123_000, 4, true)]), ["0r1 partial 3"]);
    assert!(run(&mut fold, &[trades(&[(0, -60_000)])]).is_empty());
    assert_eq!((fold.counts.covered, fold.oldest_offset()), (1, Some(0)));
}

#[test]
fn any_bytes_are_refused_without_a_panic() {
    let good = trades(&[(1, 0), (2, 60_000)]);
    let mut state = 7u64;
    for round in 0..20_000 {
        let mut raw = good.clone();
        for _ in 0..=round % 3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % raw.len();
            raw[at] = (state >> 24) as u8;
        }
        let _ = fold().feed(&raw, 0);
        let _ = crate::frame::decode_trade_frame(&raw);
    }
}
