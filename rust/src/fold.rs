//! Trades and marks to candles. The rules are in `nbs/04_candles`, whose `CandleFold` this equals byte by byte.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::frame::decode_trade_frame;
use crate::json::Result;
use crate::message::{decode, Message, Proof, Trade, Watermark};
use crate::symbol_windows::{Before, SymbolWindows};
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
    pub zero_quantity: u64,
    pub duplicates: u64,
    pub covered: u64,
    pub too_late: u64,
    pub marks: u64,
    pub candles: u64,
    pub empty: u64,
    pub unproven: u64,
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
    pub is_unproven: bool,
    pub from_trades: bool,
    pub bid: Option<u128>,
    pub ask: Option<u128>,
}

#[derive(Debug)]
pub struct Fold {
    interval_seconds: i64,
    span: i64,
    grace_ms: i64,
    kept_ms: i64,
    proof_wait_ms: i64,
    symbols: Vec<SymbolWindows>,
    by_symbol: HashMap<Vec<u8>, usize, BuildHasherDefault<Fnv>>,
    last: usize,
    buffer: Vec<Trade>,
    rejected: Vec<Rejected>,
    pub counts: Counts,
}

impl Fold {
    pub fn new(interval_seconds: i64, grace_ms: i64, keep_closed: i64, proof_wait_ms: i64) -> Self {
        Fold {
            interval_seconds,
            span: interval_seconds * 1000,
            grace_ms,
            kept_ms: interval_seconds * 1000 * keep_closed,
            proof_wait_ms,
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
            state.highest_id = state.highest_id.max(trade.trade_id);
            let index = state.window(start_ms);
            let counts = state.windows[index].add(trade, offset);
            state.touch(offset);
            if counts {
                self.counts.trades += 1;
                state.latest_trade_ms = state.latest_trade_ms.max(trade.event_ms);
            } else {
                self.counts.zero_quantity += 1;
            }
            if state.finalised_until_ms.is_some_and(|until_ms| start_ms < until_ms) {
                state.dirty = true;
            } else {
                state.forming |= counts;
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
        let patient_ms = limit - self.proof_wait_ms;
        let overdue_ms = patient_ms - patient_ms.rem_euclid(span);
        let undecided = |end_ms: i64| decided.is_none_or(|until_ms| end_ms > until_ms);
        let (mut out, mut finalised_ms, mut doubtful) = (Vec::new(), due_ms, false);
        let mut before = state.before(index, span);
        let mut edge_ms = match index {
            0 => before.map_or(i64::MIN, |before| before.end_ms),
            _ => state.windows[index - 1].start_ms + span,
        };
        loop {
            let next = state.windows.get(index);
            let stop_ms = next.map_or(due_ms, |w| w.start_ms.min(due_ms));
            if let Some(before) = before.filter(|_| edge_ms < stop_ms) {
                let said = state.nothing_after(mark, before.last_id, stop_ms);
                let silent_ms = match state.proof_of_silence(mark, &before, index, stop_ms) {
                    Proof::None if said => mark.proven_ms.unwrap_or(0).max(overdue_ms).min(stop_ms),
                    Proof::None => i64::MIN,
                    _ => stop_ms,
                };
                let (until_ms, long) = (silent_ms.max(0) - silent_ms.max(0).rem_euclid(span), (stop_ms - edge_ms) / span > LONGEST_SILENCE);
                if until_ms > edge_ms && !long {
                    let empty = (edge_ms..until_ms).step_by(span as usize).map(Window::new);
                    state.windows.splice(index..index, empty);
                } else if undecided(stop_ms) && (!mark.connected || (said && overdue_ms < stop_ms && !long)) {
                    finalised_ms = edge_ms.max(decided.unwrap_or(i64::MIN));
                    break;
                } else {
                    doubtful = true; // a hole, which may yet turn out to be silence
                }
            }
            let Some(window) = state.windows.get(index).filter(|w| w.start_ms + span <= due_ms) else { break };
            let (end_ms, known_last_id) = (window.start_ms + span, window.known.map_or(-1, |(_, last_id)| last_id));
            let nothing_after = window.count > 0 && state.nothing_after(mark, known_last_id, end_ms);
            let ended = window.ended || nothing_after || state.ids.cover(known_last_id + 1, known_last_id + 1);
            let proof = match &before {
                _ if window.count > 0 => state.proof_of_end(mark, window, end_ms),
                Some(before) => state.proof_of_silence(mark, before, index + 1, end_ms),
                None => Proof::None,
            };
            let first = window.emitted.is_none() && undecided(end_ms);
            let blind = !(mark.connected || window.count > 0 && ended);
            let said = before.is_some_and(|before| state.nothing_after(mark, before.last_id, end_ms));
            let whole = window.count > 0
                && ended
                && before.is_some_and(|before| state.joined(before.last_id, window.first_id))
                && state.ids.cover(window.first_id, window.last_id);
            let content = window.content(before.map(|b| (b.close, b.last_id)), !whole);
            let window = &mut state.windows[index];
            window.ended |= nothing_after;
            if window.count > 0 {
                window.end_proof = proof;
            }
            if first && proof == Proof::None && (blind || end_ms > overdue_ms) {
                finalised_ms = window.start_ms;
                break;
            }
            let late = !undecided(end_ms);
            let changed = match &window.emitted {
                None => window.count > 0 || (before.is_some() && (proof != Proof::None || said)),
                Some(emitted) if emitted.restored => {
                    let now_proven = emitted.is_unproven && proof != Proof::None;
                    let more = window.count > emitted.count || (window.count == emitted.count && ((emitted.is_partial && whole) || now_proven));
                    let other = before.is_some_and(|b| (b.close, b.last_id) != (emitted.close, emitted.last_id) || now_proven);
                    let both_empty = (window.count, emitted.count) == (0, 0);
                    emitted.revisable && if both_empty { other } else { more }
                }
                Some(emitted) => {
                    let now_proven = emitted.is_unproven && proof != Proof::None;
                    (now_proven || emitted.content != Some(content)) && (window.count > 0 || before.is_some())
                }
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
                self.counts.unproven += u64::from(proof == Proof::None);
                self.counts.revisions += u64::from(revision > 0);
                let emitted = Emitted {
                    revision,
                    close: content.close,
                    last_id: content.last_id,
                    count: content.count,
                    is_partial: content.is_partial,
                    proof,
                    is_unproven: proof == Proof::None,
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
            let emitted = state.windows[index].emitted;
            doubtful |= emitted.is_some_and(|emitted| emitted.is_unproven || (emitted.is_partial && !beyond_help));
            doubtful |= emitted.is_none(); // ids without a candle
            before = emitted.map(|emitted| Before { end_ms, close: emitted.close, last_id: emitted.last_id }).or(before);
            (index, edge_ms) = (index + 1, end_ms);
        }
        if recheck || decided.is_none() {
            state.doubtful = doubtful;
        } else {
            state.doubtful |= doubtful;
        }
        state.dirty = false;
        state.finalised_until_ms = Some(finalised_ms);
        state.forget(finalised_ms - self.kept_ms, span);
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
            proof: Proof::None,
            is_unproven: candle.is_unproven,
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
        state.forget(until_ms - kept_ms, span);
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

#[cfg(test)]
mod tests;
