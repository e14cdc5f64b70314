//! Trades and marks to candles. The rules are in `nbs/04_candles`, whose `CandleFold` this equals byte by byte.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::frame::decode_trade_frame;
use crate::ids::Ids;
use crate::json::Result;
use crate::message::{decode, Message, Trade, Watermark};
use crate::window::{candle, Emitted, Window};

/// A longer silence than so many windows is left a hole, whoever claims it: one wrong clock must not write a year of candles.
const LONGEST_SILENCE: i64 = 10_000;
/// A symbol that nobody has marked for so long no longer holds back what may be forgotten.
const STALE_MS: i64 = 86_400_000;

/// FNV-1a: a symbol is short, and who sends it is no stranger.
#[derive(Default)]
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0 ^ 0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub trades: u64,
    pub duplicates: u64,
    pub covered: u64,
    pub too_late: u64,
    pub marks: u64,
    pub candles: u64,
    pub empty: u64,
    pub revisions: u64,
}

/// A trade that no candle takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub offset: i64,
    pub trade_id: i64,
    pub reason: String,
}

/// A candle that is final already.
#[derive(Clone, Copy, Debug)]
pub struct RestoredCandle {
    pub start_ms: i64,
    pub revision: u64,
    pub close: u128,
    pub last_id: i64,
    pub count: u64,
    pub is_partial: bool,
    pub from_trades: bool,
    pub bid: Option<u128>,
    pub ask: Option<u128>,
}

/// The last quotes within a window that is not emitted yet.
#[derive(Clone, Copy, Debug)]
struct Quote {
    start_ms: i64,
    exchange_ms: i64,
    offset: i64,
    bid: Option<u128>,
    ask: Option<u128>,
}

/// The last final candle before an instant: where the next one begins.
#[derive(Clone, Copy, Debug)]
struct Before {
    end_ms: i64,
    close: u128,
    last_id: i64,
}

#[derive(Debug)]
struct SymbolWindows {
    symbol: Vec<u8>,
    /// Ascending by start: kept final ones, then open ones.
    windows: Vec<Window>,
    ids: Ids,
    quotes: Vec<Quote>,
    /// Greatest trade_id that is known.
    highest_id: i64,
    /// Before this, everything is decided.
    finalised_until_ms: Option<i64>,
    /// The last final candle that is no longer kept.
    last_dropped: Option<Before>,
    /// Trades before this belong to candles of a previous run.
    restored_from_ms: i64,
    /// Until a mark has come so far, what is older than kept is being read again.
    replay_until_ms: i64,
    /// Exchange time of the marks, and of the trades.
    clock_ms: i64,
    latest_trade_ms: i64,
    /// How far the mark that is being taken reaches.
    watermark_window_ms: i64,
    /// Some kept candle may have changed.
    dirty: bool,
    /// Some kept candle is partial or there is a hole: a trade or a mark may still decide it.
    doubtful: bool,
    forming: bool,
    /// The lowest offset of windows and quotes; `None` when it must be looked for again.
    oldest: Option<Option<i64>>,
}

impl SymbolWindows {
    fn new(symbol: &[u8]) -> Self {
        SymbolWindows {
            symbol: symbol.to_vec(),
            windows: Vec::new(),
            ids: Ids::default(),
            quotes: Vec::new(),
            highest_id: -1,
            finalised_until_ms: None,
            last_dropped: None,
            restored_from_ms: i64::MIN,
            replay_until_ms: i64::MIN,
            clock_ms: i64::MIN,
            latest_trade_ms: i64::MIN,
            watermark_window_ms: i64::MIN,
            dirty: false,
            doubtful: false,
            forming: false,
            oldest: None,
        }
    }

    fn touch(&mut self, offset: i64) {
        if let Some(oldest) = &mut self.oldest {
            *oldest = Some(oldest.map_or(offset, |lowest| lowest.min(offset)));
        }
    }

    fn oldest_offset(&mut self) -> Option<i64> {
        let (windows, quotes) = (&self.windows, &self.quotes);
        *self.oldest.get_or_insert_with(|| windows.iter().filter_map(|w| w.offset).chain(quotes.iter().map(|q| q.offset)).min())
    }

    /// Index of the window that starts at `start_ms`, made if it is missing.
    #[inline]
    fn window(&mut self, start_ms: i64) -> usize {
        match self.windows.last() {
            Some(last) if last.start_ms == start_ms => self.windows.len() - 1,
            Some(last) if last.start_ms > start_ms => match self.windows.binary_search_by_key(&start_ms, |w| w.start_ms) {
                Ok(at) => at,
                Err(at) => {
                    self.windows.insert(at, Window::new(start_ms));
                    at
                }
            },
            _ => {
                self.windows.push(Window::new(start_ms));
                self.windows.len() - 1
            }
        }
    }

    /// Notes the quotes of a mark for its window, which is emitted with the last of them.
    fn quote(&mut self, mark: &Watermark, offset: i64, span: i64, kept_ms: i64) {
        if mark.bid.is_none() && mark.ask.is_none() && self.quotes.is_empty() {
            return;
        }
        self.oldest = None;
        let start_ms = mark.exchange_ms - 1 - (mark.exchange_ms - 1) % span;
        let quote = Quote { start_ms, exchange_ms: mark.exchange_ms, offset, bid: mark.bid, ask: mark.ask };
        let known = mark.bid.is_some() || mark.ask.is_some();
        match self.quotes.iter().rposition(|q| q.start_ms == start_ms) {
            Some(at) if mark.exchange_ms < self.quotes[at].exchange_ms => {}
            Some(at) if known => self.quotes[at] = quote,
            Some(at) => drop(self.quotes.remove(at)),
            None if !known || self.finalised_until_ms.is_some_and(|until_ms| start_ms < until_ms - kept_ms) => {}
            None => {
                let emitted = self.windows.binary_search_by_key(&start_ms, |w| w.start_ms).is_ok_and(|at| self.windows[at].emitted.is_some());
                if !emitted {
                    self.quotes.push(quote);
                }
            }
        }
    }

    /// Takes out the quotes of a window that is being emitted.
    fn quoted(&mut self, start_ms: i64) -> (Option<u128>, Option<u128>) {
        let at = self.quotes.iter().position(|q| q.start_ms == start_ms);
        self.oldest = self.oldest.filter(|_| at.is_none());
        at.map(|at| self.quotes.remove(at)).map_or((None, None), |quote| (quote.bid, quote.ask))
    }

    /// Tells whether no trade between two known ones is missing.
    fn joined(&self, a: i64, b: i64) -> bool {
        a >= 0 && if a < b { self.ids.cover(a + 1, b) } else { self.ids.cover(b, a - 1) }
    }

    /// Tells whether `mark` proves that nothing before `end_ms` follows the trade `last_id`; one that is read again does not reach so far.
    fn nothing_after(&self, mark: &Watermark, last_id: i64, end_ms: i64) -> bool {
        end_ms <= self.watermark_window_ms && mark.connected && mark.contiguous_through == self.highest_id && self.joined(last_id, self.highest_id)
    }

    fn before(&self, index: usize, span: i64) -> Option<Before> {
        match index {
            0 => self.last_dropped,
            _ => self.windows[index - 1].emitted.map(|emitted| Before {
                end_ms: self.windows[index - 1].start_ms + span,
                close: emitted.close,
                last_id: emitted.last_id,
            }),
        }
    }
}

#[derive(Debug)]
pub struct Fold {
    interval_seconds: i64,
    span: i64,
    grace_ms: i64,
    kept_ms: i64,
    symbols: Vec<SymbolWindows>,
    by_symbol: HashMap<Vec<u8>, usize, BuildHasherDefault<Fnv>>,
    last: usize,
    buffer: Vec<Trade>,
    rejected: Vec<Rejected>,
    pub counts: Counts,
}

impl Fold {
    pub fn new(interval_seconds: i64, grace_ms: i64, keep_closed: i64) -> Self {
        Fold {
            interval_seconds,
            span: interval_seconds * 1000,
            grace_ms,
            kept_ms: interval_seconds * 1000 * keep_closed,
            symbols: Vec::new(),
            by_symbol: HashMap::default(),
            last: 0,
            buffer: Vec::new(),
            rejected: Vec::new(),
            counts: Counts::default(),
        }
    }

    fn index_of(&mut self, symbol: &[u8]) -> usize {
        if self.symbols.get(self.last).is_some_and(|state| state.symbol == symbol) {
            return self.last;
        }
        self.last = match self.by_symbol.get(symbol) {
            Some(&at) => at,
            None => {
                self.symbols.push(SymbolWindows::new(symbol));
                self.by_symbol.insert(symbol.to_vec(), self.symbols.len() - 1);
                self.symbols.len() - 1
            }
        };
        self.last
    }

    /// Takes one message of the topic `trades` and returns the candles that it made final or revised.
    pub fn feed(&mut self, raw: &[u8], offset: i64) -> Result<Vec<Vec<u8>>> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let taken = decode(raw, &mut buffer).map(|message| match message {
            Message::Trades(symbol) => {
                let at = self.index_of(&symbol);
                buffer.iter().for_each(|trade| self.add(at, trade, offset));
                Vec::new()
            }
            Message::Watermark(symbol, mark) => {
                let at = self.index_of(&symbol);
                self.close_due(at, &mark, offset)
            }
        });
        self.buffer = buffer;
        taken
    }

    /// Takes the trades of a Kraken frame as they come from the exchange; no message is made of them in between.
    pub fn feed_frame(&mut self, raw: &[u8], offset: i64) -> Result<usize> {
        let trades = decode_trade_frame(raw)?;
        for row in &trades {
            let at = self.index_of(&row.symbol);
            let trade = Trade { trade_id: row.trade_id, price: row.price, quantity: row.quantity, side: row.side, event_ms: row.event_ms };
            self.add(at, &trade, offset);
        }
        Ok(trades.len())
    }

    #[inline]
    fn add(&mut self, at: usize, trade: &Trade, offset: i64) {
        let state = &mut self.symbols[at];
        let start_ms = trade.event_ms - trade.event_ms % self.span;
        let retention_edge_ms = state.finalised_until_ms.map_or(i64::MIN, |until_ms| until_ms - self.kept_ms);
        let outside = start_ms < retention_edge_ms || start_ms < state.restored_from_ms;
        if outside && state.ids.cover(trade.trade_id, trade.trade_id) {
            self.counts.duplicates += 1;
        } else if outside && (start_ms >= retention_edge_ms || state.clock_ms < state.replay_until_ms) {
            self.counts.covered += 1;
        } else if outside {
            self.counts.too_late += 1;
            let reason = format!(
                "trade {} of {} at {} is too late: windows before {retention_edge_ms} are closed for good",
                trade.trade_id,
                String::from_utf8_lossy(&state.symbol),
                trade.event_ms
            );
            self.rejected.push(Rejected { offset, trade_id: trade.trade_id, reason });
        } else if !state.ids.insert(trade.trade_id) {
            self.counts.duplicates += 1;
        } else {
            self.counts.trades += 1;
            state.highest_id = state.highest_id.max(trade.trade_id);
            state.latest_trade_ms = state.latest_trade_ms.max(trade.event_ms);
            let index = state.window(start_ms);
            state.windows[index].add(trade, offset);
            state.touch(offset);
            if state.finalised_until_ms.is_some_and(|until_ms| start_ms < until_ms) {
                state.dirty = true;
            } else {
                state.forming = true;
            }
        }
    }

    /// Decides every window whose end plus grace `mark` has passed.
    fn close_due(&mut self, at: usize, mark: &Watermark, offset: i64) -> Vec<Vec<u8>> {
        let (span, grace_ms) = (self.span, self.grace_ms);
        let state = &mut self.symbols[at];
        state.quote(mark, offset, span, self.kept_ms);
        self.counts.marks += 1;
        state.clock_ms = state.clock_ms.max(mark.exchange_ms);
        let decided = state.finalised_until_ms;
        let limit = mark.exchange_ms - grace_ms;
        state.watermark_window_ms = limit - limit.rem_euclid(span);
        let due_ms = state.watermark_window_ms.max(decided.unwrap_or(i64::MIN));
        let recheck = state.dirty || state.doubtful;
        if state.windows.is_empty() && state.last_dropped.is_none() {
            state.quotes.retain(|quote| quote.start_ms >= due_ms);
            state.oldest = None;
            return Vec::new();
        }
        if !recheck && decided == Some(due_ms) {
            return Vec::new();
        }
        let mut index = match (recheck, decided) {
            (false, Some(until_ms)) => state.windows.partition_point(|w| w.start_ms < until_ms),
            _ => 0,
        };
        let undecided = |end_ms: i64| decided.is_none_or(|until_ms| end_ms > until_ms);
        let (mut out, mut finalised_ms, mut doubtful) = (Vec::new(), due_ms, false);
        loop {
            let before = state.before(index, span);
            let next = state.windows.get(index);
            let stop_ms = next.map_or(due_ms, |w| w.start_ms.min(due_ms));
            if let Some(before) = before.filter(|before| before.end_ms < stop_ms) {
                let trade_after = next.is_some_and(|w| w.count > 0 && state.joined(before.last_id, w.first_id));
                let silent = before.last_id >= 0 && (trade_after || state.nothing_after(mark, before.last_id, stop_ms));
                if silent && (stop_ms - before.end_ms) / span <= LONGEST_SILENCE {
                    let empty = (before.end_ms..stop_ms).step_by(span as usize).map(Window::new);
                    state.windows.splice(index..index, empty);
                } else if !mark.connected && undecided(stop_ms) {
                    finalised_ms = before.end_ms.max(decided.unwrap_or(i64::MIN));
                    break;
                } else {
                    doubtful = true; // a hole, which may yet turn out to be silence
                }
            }
            let Some(window) = state.windows.get(index).filter(|w| w.start_ms + span <= due_ms) else { break };
            let nothing_after = window.count > 0 && state.nothing_after(mark, window.last_id, window.start_ms + span);
            let ended = window.ended || nothing_after || state.ids.cover(window.last_id + 1, window.last_id + 1);
            if window.count > 0 && window.emitted.is_none() && !mark.connected && !ended && undecided(window.start_ms + span) {
                finalised_ms = window.start_ms;
                break;
            }
            let whole = ended && before.is_some_and(|before| state.joined(before.last_id, window.first_id)) && state.ids.cover(window.first_id, window.last_id);
            let content = window.content(before.map(|b| (b.close, b.last_id)), !whole);
            let late = !undecided(window.start_ms + span);
            let window = &mut state.windows[index];
            window.ended |= nothing_after;
            let changed = match &window.emitted {
                None => true,
                Some(emitted) if emitted.restored => {
                    let more = window.count > emitted.count || (emitted.is_partial && whole && window.count == emitted.count);
                    let flat = (window.count, emitted.count) == (0, 0) && before.is_some_and(|b| (b.close, b.last_id) != (emitted.close, emitted.last_id));
                    emitted.revisable && (more || flat)
                }
                Some(emitted) => emitted.content != Some(content) && (window.count > 0 || before.is_some()),
            };
            if changed {
                let start_ms = window.start_ms;
                let (revision, (bid, ask)) = match window.emitted {
                    Some(emitted) => (emitted.revision + 1, (emitted.bid, emitted.ask)),
                    None => (0, state.quoted(start_ms)),
                };
                let end_grace_ms = start_ms + span + grace_ms;
                let available_ms = if mark.live || late { mark.exchange_ms.max(end_grace_ms) } else { end_grace_ms };
                self.counts.candles += 1;
                self.counts.empty += u64::from(content.count == 0);
                self.counts.revisions += u64::from(revision > 0);
                let emitted = Emitted {
                    revision,
                    close: content.close,
                    last_id: content.last_id,
                    count: content.count,
                    is_partial: content.is_partial,
                    restored: false,
                    revisable: true,
                    content: Some(content),
                    bid,
                    ask,
                };
                out.push(candle(&state.symbol, self.interval_seconds, start_ms, &emitted, &content, available_ms));
                state.windows[index].emitted = Some(emitted);
            }
            let beyond_help = before.is_none() && ended; // only an older trade can change that
            doubtful |= !beyond_help && state.windows[index].emitted.is_some_and(|emitted| emitted.is_partial);
            index += 1;
        }
        if recheck || decided.is_none() {
            state.doubtful = doubtful;
        } else {
            state.doubtful |= doubtful;
        }
        state.dirty = false;
        state.finalised_until_ms = Some(finalised_ms);
        forget(state, finalised_ms - self.kept_ms, span);
        out
    }

    /// Takes a candle of `symbol` as final, oldest first: nothing up to its end is emitted again unless the trades say more.
    pub fn restore(&mut self, symbol: &[u8], candle: RestoredCandle) {
        let (span, grace_ms, kept_ms) = (self.span, self.grace_ms, self.kept_ms);
        let at = self.index_of(symbol);
        let state = &mut self.symbols[at];
        let end_ms = candle.start_ms + span;
        if state.finalised_until_ms.is_none() {
            state.restored_from_ms = candle.start_ms;
        }
        let index = state.window(candle.start_ms);
        state.windows[index].emitted = Some(Emitted {
            revision: candle.revision,
            close: candle.close,
            last_id: candle.last_id,
            count: candle.count,
            is_partial: candle.is_partial,
            restored: true,
            revisable: candle.from_trades,
            content: None,
            bid: candle.bid,
            ask: candle.ask,
        });
        state.quoted(candle.start_ms);
        state.doubtful = true;
        state.highest_id = state.highest_id.max(candle.last_id);
        state.replay_until_ms = state.replay_until_ms.max(end_ms + grace_ms);
        let until_ms = state.finalised_until_ms.map_or(end_ms, |until_ms| until_ms.max(end_ms));
        state.finalised_until_ms = Some(until_ms);
        forget(state, until_ms - kept_ms, span);
    }

    /// Returns a `FormingCandle` of each symbol that has traded in its newest open window since the last call.
    pub fn forming(&mut self) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for state in self.symbols.iter_mut().filter(|state| state.forming) {
            state.forming = false;
            if let Some(window) = state.windows.last().filter(|w| w.count > 0 && state.finalised_until_ms.is_none_or(|until_ms| w.start_ms >= until_ms)) {
                out.push(window.forming(&state.symbol, self.interval_seconds, state.clock_ms.max(state.latest_trade_ms)));
            }
        }
        out
    }

    /// Returns the trades that came too late, and forgets them.
    pub fn rejected(&mut self) -> Vec<Rejected> {
        std::mem::take(&mut self.rejected)
    }

    /// Returns the lowest offset that a restart must read again: the first that touched a window which may still change.
    pub fn oldest_offset(&mut self) -> Option<i64> {
        let clock_ms = self.symbols.iter().map(|state| state.clock_ms).max()?;
        let stale_ms = clock_ms.saturating_sub(self.kept_ms + STALE_MS);
        let fresh = self.symbols.iter_mut().filter(|state| state.clock_ms == i64::MIN || state.clock_ms >= stale_ms);
        fresh.filter_map(SymbolWindows::oldest_offset).min()
    }
}

/// Drops final windows that start before `retention_edge_ms`; the last of them stays as what the next candle follows.
fn forget(state: &mut SymbolWindows, retention_edge_ms: i64, span: i64) {
    if !state.quotes.is_empty() {
        state.quotes.retain(|quote| quote.start_ms >= retention_edge_ms);
        state.oldest = None;
    }
    let gone = state.windows.partition_point(|w| w.start_ms < retention_edge_ms);
    if gone > 0 {
        state.oldest = None;
        state.last_dropped = state.before(gone, span).or(state.last_dropped);
        state.windows.drain(..gone);
    }
}

#[cfg(test)]
mod tests {
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
        Fold::new(60, 2000, 5)
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
        let candle =
            RestoredCandle { start_ms: START, revision: 0, close: 1, last_id: 2, count: 2, is_partial: false, from_trades: true, bid: None, ask: None };
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
}
