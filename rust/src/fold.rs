//! Trades and marks to candles. The rules are told in `nbs/20_candles.ipynb`, whose `CandleFold` this equals byte by byte.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::frame::decode_trade_frame;
use crate::ids::Ids;
use crate::json::Result;
use crate::message::{decode, Mark, Message, Trade};
use crate::window::{candle, Told, Window};

/// A longer silence than so many windows is left a hole, whoever claims it: one wrong clock must not write a year of candles.
const MOST_EMPTY: i64 = 10_000;
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
    pub place: i64,
    pub trade_id: i64,
    pub reason: String,
}

/// A candle that is final already.
#[derive(Clone, Copy, Debug)]
pub struct Seed {
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

/// The last quotes within a window that is not told yet.
#[derive(Clone, Copy, Debug)]
struct Quote {
    start_ms: i64,
    exchange_ms: i64,
    place: i64,
    bid: Option<u128>,
    ask: Option<u128>,
}

/// The last final candle before a place: where the next one begins.
#[derive(Clone, Copy, Debug)]
struct Before {
    end_ms: i64,
    close: u128,
    last_id: i64,
}

#[derive(Debug)]
struct Book {
    symbol: Vec<u8>,
    /// Ascending by start: kept final ones, then open ones.
    windows: Vec<Window>,
    ids: Ids,
    quotes: Vec<Quote>,
    /// Greatest trade_id that is known.
    top: i64,
    /// Before this, everything is decided.
    through_ms: Option<i64>,
    /// The last final candle that is no longer kept.
    base: Option<Before>,
    /// Trades before this belong to candles of an earlier life.
    floor_ms: i64,
    /// Until a mark has come so far, what is older than kept is being read again.
    frontier_ms: i64,
    /// Exchange time of the marks, and of the trades.
    clock_ms: i64,
    latest_ms: i64,
    /// How far the mark that is being taken reaches.
    proof_ms: i64,
    /// Some kept candle may have changed.
    dirty: bool,
    /// Some kept candle is partial or there is a hole: a trade or a mark may still settle it.
    doubtful: bool,
    forming: bool,
    /// The lowest place of windows and quotes; `None` when it must be looked for again.
    oldest: Option<Option<i64>>,
}

impl Book {
    fn new(symbol: &[u8]) -> Self {
        Book {
            symbol: symbol.to_vec(),
            windows: Vec::new(),
            ids: Ids::default(),
            quotes: Vec::new(),
            top: -1,
            through_ms: None,
            base: None,
            floor_ms: i64::MIN,
            frontier_ms: i64::MIN,
            clock_ms: i64::MIN,
            latest_ms: i64::MIN,
            proof_ms: i64::MIN,
            dirty: false,
            doubtful: false,
            forming: false,
            oldest: None,
        }
    }

    fn touch(&mut self, place: i64) {
        if let Some(oldest) = &mut self.oldest {
            *oldest = Some(oldest.map_or(place, |lowest| lowest.min(place)));
        }
    }

    fn oldest_place(&mut self) -> Option<i64> {
        let (windows, quotes) = (&self.windows, &self.quotes);
        *self.oldest.get_or_insert_with(|| windows.iter().filter_map(|w| w.place).chain(quotes.iter().map(|q| q.place)).min())
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

    /// Notes the quotes of a mark for its window, which is told with the last of them.
    fn quote(&mut self, mark: &Mark, place: i64, span: i64, kept_ms: i64) {
        if mark.bid.is_none() && mark.ask.is_none() && self.quotes.is_empty() {
            return;
        }
        self.oldest = None;
        let start_ms = mark.exchange_ms - 1 - (mark.exchange_ms - 1) % span;
        let quote = Quote { start_ms, exchange_ms: mark.exchange_ms, place, bid: mark.bid, ask: mark.ask };
        let known = mark.bid.is_some() || mark.ask.is_some();
        match self.quotes.iter().rposition(|q| q.start_ms == start_ms) {
            Some(at) if mark.exchange_ms < self.quotes[at].exchange_ms => {}
            Some(at) if known => self.quotes[at] = quote,
            Some(at) => drop(self.quotes.remove(at)),
            None if !known || self.through_ms.is_some_and(|through| start_ms < through - kept_ms) => {}
            None => {
                let told = self.windows.binary_search_by_key(&start_ms, |w| w.start_ms).is_ok_and(|at| self.windows[at].told.is_some());
                if !told {
                    self.quotes.push(quote);
                }
            }
        }
    }

    /// Takes out the quotes of a window that is being told.
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
    fn nothing_after(&self, mark: &Mark, last_id: i64, end_ms: i64) -> bool {
        end_ms <= self.proof_ms && mark.connected && mark.contiguous_through == self.top && self.joined(last_id, self.top)
    }

    fn before(&self, index: usize, span: i64) -> Option<Before> {
        match index {
            0 => self.base,
            _ => self.windows[index - 1].told.map(|told| Before { end_ms: self.windows[index - 1].start_ms + span, close: told.close, last_id: told.last_id }),
        }
    }
}

#[derive(Debug)]
pub struct Fold {
    interval_seconds: i64,
    span: i64,
    grace_ms: i64,
    kept_ms: i64,
    books: Vec<Book>,
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
            books: Vec::new(),
            by_symbol: HashMap::default(),
            last: 0,
            buffer: Vec::new(),
            rejected: Vec::new(),
            counts: Counts::default(),
        }
    }

    fn book(&mut self, symbol: &[u8]) -> usize {
        if self.books.get(self.last).is_some_and(|book| book.symbol == symbol) {
            return self.last;
        }
        self.last = match self.by_symbol.get(symbol) {
            Some(&at) => at,
            None => {
                self.books.push(Book::new(symbol));
                self.by_symbol.insert(symbol.to_vec(), self.books.len() - 1);
                self.books.len() - 1
            }
        };
        self.last
    }

    /// Takes one message of the topic `trades` and returns the candles that it made final or revised.
    pub fn feed(&mut self, raw: &[u8], place: i64) -> Result<Vec<Vec<u8>>> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let taken = decode(raw, &mut buffer).map(|message| match message {
            Message::Trades(symbol) => {
                let at = self.book(&symbol);
                buffer.iter().for_each(|trade| self.add(at, trade, place));
                Vec::new()
            }
            Message::Mark(symbol, mark) => {
                let at = self.book(&symbol);
                self.settle(at, &mark, place)
            }
        });
        self.buffer = buffer;
        taken
    }

    /// Takes the trades of a Kraken frame as they come from the exchange; no message is made of them in between.
    pub fn feed_frame(&mut self, raw: &[u8], place: i64) -> Result<usize> {
        let trades = decode_trade_frame(raw)?;
        for row in &trades {
            let at = self.book(&row.symbol);
            let trade = Trade { trade_id: row.trade_id, price: row.price, quantity: row.quantity, side: row.side, event_ms: row.event_ms };
            self.add(at, &trade, place);
        }
        Ok(trades.len())
    }

    #[inline]
    fn add(&mut self, at: usize, trade: &Trade, place: i64) {
        let book = &mut self.books[at];
        let start_ms = trade.event_ms - trade.event_ms % self.span;
        let edge_ms = book.through_ms.map_or(i64::MIN, |through| through - self.kept_ms);
        let outside = start_ms < edge_ms || start_ms < book.floor_ms;
        if outside && book.ids.cover(trade.trade_id, trade.trade_id) {
            self.counts.duplicates += 1;
        } else if outside && (start_ms >= edge_ms || book.clock_ms < book.frontier_ms) {
            self.counts.covered += 1;
        } else if outside {
            self.counts.too_late += 1;
            let reason = format!(
                "trade {} of {} at {} is too late: windows before {edge_ms} are closed for good",
                trade.trade_id,
                String::from_utf8_lossy(&book.symbol),
                trade.event_ms
            );
            self.rejected.push(Rejected { place, trade_id: trade.trade_id, reason });
        } else if !book.ids.insert(trade.trade_id) {
            self.counts.duplicates += 1;
        } else {
            self.counts.trades += 1;
            book.top = book.top.max(trade.trade_id);
            book.latest_ms = book.latest_ms.max(trade.event_ms);
            let index = book.window(start_ms);
            book.windows[index].add(trade, place);
            book.touch(place);
            if book.through_ms.is_some_and(|through| start_ms < through) {
                book.dirty = true;
            } else {
                book.forming = true;
            }
        }
    }

    /// Decides every window whose end plus grace `mark` has passed.
    fn settle(&mut self, at: usize, mark: &Mark, place: i64) -> Vec<Vec<u8>> {
        let (span, grace_ms) = (self.span, self.grace_ms);
        let book = &mut self.books[at];
        book.quote(mark, place, span, self.kept_ms);
        self.counts.marks += 1;
        book.clock_ms = book.clock_ms.max(mark.exchange_ms);
        let decided = book.through_ms;
        let limit = mark.exchange_ms - grace_ms;
        book.proof_ms = limit - limit.rem_euclid(span);
        let due = book.proof_ms.max(decided.unwrap_or(i64::MIN));
        let recheck = book.dirty || book.doubtful;
        if book.windows.is_empty() && book.base.is_none() {
            book.quotes.retain(|quote| quote.start_ms >= due);
            book.oldest = None;
            return Vec::new();
        }
        if !recheck && decided == Some(due) {
            return Vec::new();
        }
        let mut index = match (recheck, decided) {
            (false, Some(through)) => book.windows.partition_point(|w| w.start_ms < through),
            _ => 0,
        };
        let undecided = |end_ms: i64| decided.is_none_or(|through| end_ms > through);
        let (mut out, mut reached, mut doubtful) = (Vec::new(), due, false);
        loop {
            let before = book.before(index, span);
            let next = book.windows.get(index);
            let stop = next.map_or(due, |w| w.start_ms.min(due));
            if let Some(before) = before.filter(|before| before.end_ms < stop) {
                let trade_after = next.is_some_and(|w| w.count > 0 && book.joined(before.last_id, w.first_id));
                let silent = before.last_id >= 0 && (trade_after || book.nothing_after(mark, before.last_id, stop));
                if silent && (stop - before.end_ms) / span <= MOST_EMPTY {
                    let empty = (before.end_ms..stop).step_by(span as usize).map(Window::new);
                    book.windows.splice(index..index, empty);
                } else if !mark.connected && undecided(stop) {
                    reached = before.end_ms.max(decided.unwrap_or(i64::MIN));
                    break;
                } else {
                    doubtful = true; // a hole, which may yet turn out to be silence
                }
            }
            let Some(window) = book.windows.get(index).filter(|w| w.start_ms + span <= due) else { break };
            let nothing_after = window.count > 0 && book.nothing_after(mark, window.last_id, window.start_ms + span);
            let ended = window.ended || nothing_after || book.ids.cover(window.last_id + 1, window.last_id + 1);
            if window.count > 0 && window.told.is_none() && !mark.connected && !ended && undecided(window.start_ms + span) {
                reached = window.start_ms;
                break;
            }
            let whole = ended && before.is_some_and(|before| book.joined(before.last_id, window.first_id)) && book.ids.cover(window.first_id, window.last_id);
            let content = window.content(before.map(|b| (b.close, b.last_id)), !whole);
            let late = !undecided(window.start_ms + span);
            let window = &mut book.windows[index];
            window.ended |= nothing_after;
            let changed = match &window.told {
                None => true,
                Some(told) if told.seeded => {
                    let more = window.count > told.count || (told.is_partial && whole && window.count == told.count);
                    let flat = (window.count, told.count) == (0, 0) && before.is_some_and(|b| (b.close, b.last_id) != (told.close, told.last_id));
                    told.revisable && (more || flat)
                }
                Some(told) => told.content != Some(content) && (window.count > 0 || before.is_some()),
            };
            if changed {
                let start_ms = window.start_ms;
                let (revision, (bid, ask)) = match window.told {
                    Some(told) => (told.revision + 1, (told.bid, told.ask)),
                    None => (0, book.quoted(start_ms)),
                };
                let end_grace_ms = start_ms + span + grace_ms;
                let available_ms = if mark.live || late { mark.exchange_ms.max(end_grace_ms) } else { end_grace_ms };
                self.counts.candles += 1;
                self.counts.empty += u64::from(content.count == 0);
                self.counts.revisions += u64::from(revision > 0);
                let told = Told {
                    revision,
                    close: content.close,
                    last_id: content.last_id,
                    count: content.count,
                    is_partial: content.is_partial,
                    seeded: false,
                    revisable: true,
                    content: Some(content),
                    bid,
                    ask,
                };
                out.push(candle(&book.symbol, self.interval_seconds, start_ms, &told, &content, available_ms));
                book.windows[index].told = Some(told);
            }
            let beyond_help = before.is_none() && ended; // only an older trade can change that
            doubtful |= !beyond_help && book.windows[index].told.is_some_and(|told| told.is_partial);
            index += 1;
        }
        if recheck || decided.is_none() {
            book.doubtful = doubtful;
        } else {
            book.doubtful |= doubtful;
        }
        book.dirty = false;
        book.through_ms = Some(reached);
        forget(book, reached - self.kept_ms, span);
        out
    }

    /// Takes a candle of `symbol` as final, oldest first: nothing up to its end is told again unless the trades say more.
    pub fn seed(&mut self, symbol: &[u8], seed: Seed) {
        let (span, grace_ms, kept_ms) = (self.span, self.grace_ms, self.kept_ms);
        let at = self.book(symbol);
        let book = &mut self.books[at];
        let end_ms = seed.start_ms + span;
        if book.through_ms.is_none() {
            book.floor_ms = seed.start_ms;
        }
        let index = book.window(seed.start_ms);
        book.windows[index].told = Some(Told {
            revision: seed.revision,
            close: seed.close,
            last_id: seed.last_id,
            count: seed.count,
            is_partial: seed.is_partial,
            seeded: true,
            revisable: seed.from_trades,
            content: None,
            bid: seed.bid,
            ask: seed.ask,
        });
        book.quoted(seed.start_ms);
        book.doubtful = true;
        book.top = book.top.max(seed.last_id);
        book.frontier_ms = book.frontier_ms.max(end_ms + grace_ms);
        let through = book.through_ms.map_or(end_ms, |through| through.max(end_ms));
        book.through_ms = Some(through);
        forget(book, through - kept_ms, span);
    }

    /// Returns a `FormingCandle` of each symbol that has traded in its newest open window since the last call.
    pub fn forming(&mut self) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for book in self.books.iter_mut().filter(|book| book.forming) {
            book.forming = false;
            if let Some(window) = book.windows.last().filter(|w| w.count > 0 && book.through_ms.is_none_or(|through| w.start_ms >= through)) {
                out.push(window.forming(&book.symbol, self.interval_seconds, book.clock_ms.max(book.latest_ms)));
            }
        }
        out
    }

    /// Returns the trades that came too late, and forgets them.
    pub fn rejected(&mut self) -> Vec<Rejected> {
        std::mem::take(&mut self.rejected)
    }

    /// Returns the lowest place that a restart must read again: the first that touched a window which may still change.
    pub fn oldest_place(&mut self) -> Option<i64> {
        let clock_ms = self.books.iter().map(|book| book.clock_ms).max()?;
        let stale_ms = clock_ms.saturating_sub(self.kept_ms + STALE_MS);
        let fresh = self.books.iter_mut().filter(|book| book.clock_ms == i64::MIN || book.clock_ms >= stale_ms);
        fresh.filter_map(Book::oldest_place).min()
    }
}

/// Drops final windows that start before `edge_ms`; the last of them stays as what the next candle follows.
fn forget(book: &mut Book, edge_ms: i64, span: i64) {
    if !book.quotes.is_empty() {
        book.quotes.retain(|quote| quote.start_ms >= edge_ms);
        book.oldest = None;
    }
    let gone = book.windows.partition_point(|w| w.start_ms < edge_ms);
    if gone > 0 {
        book.oldest = None;
        book.base = book.before(gone, span).or(book.base);
        book.windows.drain(..gone);
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
        let told = messages.iter().enumerate().flat_map(|(place, raw)| fold.feed(raw, place as i64).unwrap());
        told.map(|raw| {
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
        let seed = Seed { start_ms: START, revision: 0, close: 1, last_id: 2, count: 2, is_partial: false, from_trades: true, bid: None, ask: None };
        let mut fold = fold();
        fold.seed(b"A/B", seed);
        assert!(run(&mut fold, &[trades(&[(2, 1000)]), mark(62_000, 2, true), trades(&[(1, 0)]), mark(63_000, 2, true)]).is_empty());
        assert_eq!(run(&mut fold, &[trades(&[(3, 60_000)]), mark(122_000, 3, true)]), ["1r0 whole 1"]);
        assert_eq!(run(&mut fold, &[trades(&[(4, 2000)]), mark(123_000, 4, true)]), ["0r1 partial 3"]);
        assert!(run(&mut fold, &[trades(&[(0, -60_000)])]).is_empty());
        assert_eq!((fold.counts.covered, fold.oldest_place()), (1, Some(0)));
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
