//! What is known of one symbol: its windows, its ids, and how far all is decided. The Python twin is in `nbs/04_candles`.

use crate::ids::Ids;
use crate::message::{Proof, Watermark};
use crate::window::Window;

/// The last quotes within a window that is not emitted yet.
#[derive(Clone, Copy, Debug)]
pub struct Quote {
    pub start_ms: i64,
    pub exchange_ms: i64,
    pub offset: i64,
    pub bid: Option<u128>,
    pub ask: Option<u128>,
}

/// The last final candle before an instant: where the next one begins.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    pub end_ms: i64,
    pub close: u128,
    pub last_id: i64,
}

#[derive(Debug)]
pub struct SymbolWindows {
    pub symbol: Vec<u8>,
    /// Ascending by start: kept final ones, then open ones.
    pub windows: Vec<Window>,
    pub ids: Ids,
    pub quotes: Vec<Quote>,
    /// Greatest trade_id that is known.
    pub highest_id: i64,
    /// Before this, everything is decided.
    pub finalised_until_ms: Option<i64>,
    /// The last final candle that is no longer kept.
    pub last_dropped: Option<Before>,
    /// Trades before this belong to candles of a previous run.
    pub restored_from_ms: i64,
    /// Until a mark has come so far, what is older than kept is being read again.
    pub replay_until_ms: i64,
    /// Exchange time of the marks, and of the trades.
    pub clock_ms: i64,
    pub latest_trade_ms: i64,
    /// How far the mark that is being taken reaches.
    pub watermark_window_ms: i64,
    /// Some kept candle may have changed.
    pub dirty: bool,
    /// Some kept candle is partial or there is a hole: a trade or a mark may still decide it.
    pub doubtful: bool,
    pub forming: bool,
    /// The lowest offset of windows and quotes; `None` when it must be looked for again.
    pub oldest: Option<Option<i64>>,
}

impl SymbolWindows {
    pub fn new(symbol: &[u8]) -> Self {
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

    pub fn touch(&mut self, offset: i64) {
        if let Some(oldest) = &mut self.oldest {
            *oldest = Some(oldest.map_or(offset, |lowest| lowest.min(offset)));
        }
    }

    pub fn oldest_offset(&mut self) -> Option<i64> {
        let (windows, quotes) = (&self.windows, &self.quotes);
        *self.oldest.get_or_insert_with(|| windows.iter().filter_map(|w| w.offset).chain(quotes.iter().map(|q| q.offset)).min())
    }

    /// Index of the window that starts at `start_ms`, made if it is missing.
    #[inline]
    pub fn window(&mut self, start_ms: i64) -> usize {
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
    pub fn quote(&mut self, mark: &Watermark, offset: i64, span: i64, kept_ms: i64) {
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
    pub fn quoted(&mut self, start_ms: i64) -> (Option<u128>, Option<u128>) {
        let at = self.quotes.iter().position(|q| q.start_ms == start_ms);
        self.oldest = self.oldest.filter(|_| at.is_none());
        at.map(|at| self.quotes.remove(at)).map_or((None, None), |quote| (quote.bid, quote.ask))
    }

    /// Tells whether no trade between two known ones is missing.
    pub fn joined(&self, a: i64, b: i64) -> bool {
        a >= 0 && if a < b { self.ids.cover(a + 1, b) } else { self.ids.cover(b, a - 1) }
    }

    /// Tells whether `mark` proves that nothing before `end_ms` follows the trade `last_id`; one that is read again does not reach so far.
    pub fn nothing_after(&self, mark: &Watermark, last_id: i64, end_ms: i64) -> bool {
        end_ms <= self.watermark_window_ms && mark.connected && mark.contiguous_through == self.highest_id && self.joined(last_id, self.highest_id)
    }

    /// What proves that nothing before `end_ms` follows the trade `last_id`.
    pub fn proof_of_nothing(&self, mark: &Watermark, last_id: i64, end_ms: i64) -> Proof {
        match mark.proven_ms {
            _ if !self.nothing_after(mark, last_id, end_ms) => Proof::None,
            None => Proof::Connection,
            Some(proven_ms) if end_ms <= proven_ms => mark.proven_by,
            Some(_) => Proof::None,
        }
    }

    /// What proves that nobody traded behind `before` until `end_ms`, or until the first known trade of the windows from `index` on.
    pub fn proof_of_silence(&self, mark: &Watermark, before: &Before, index: usize, end_ms: i64) -> Proof {
        if before.last_id < 0 {
            return Proof::None;
        }
        let next = self.windows[index..].iter().find_map(|w| w.known);
        if next.is_some_and(|(first_id, _)| self.joined(before.last_id, first_id)) {
            return Proof::NextTrade;
        }
        self.proof_of_nothing(mark, before.last_id, end_ms)
    }

    /// What proves that nothing follows the last trade of a window that has trades.
    pub fn proof_of_end(&self, mark: &Watermark, window: &Window, end_ms: i64) -> Proof {
        let last_id = window.known.map_or(-1, |(_, last_id)| last_id);
        if window.end_proof != Proof::None {
            return window.end_proof;
        }
        if self.ids.cover(last_id + 1, last_id + 1) {
            return Proof::NextTrade;
        }
        self.proof_of_nothing(mark, last_id, end_ms)
    }

    /// The last final candle before a window.
    pub fn before(&self, index: usize, span: i64) -> Option<Before> {
        let last = self.windows[..index].iter().rev().find_map(|window| window.emitted.map(|emitted| (window.start_ms, emitted)));
        last.map(|(start_ms, emitted)| Before { end_ms: start_ms + span, close: emitted.close, last_id: emitted.last_id }).or(self.last_dropped)
    }

    /// Drops final windows that start before `retention_edge_ms`; the last of them stays as what the next candle follows.
    pub fn forget(&mut self, retention_edge_ms: i64, span: i64) {
        if !self.quotes.is_empty() {
            self.quotes.retain(|quote| quote.start_ms >= retention_edge_ms);
            self.oldest = None;
        }
        let gone = self.windows.partition_point(|w| w.start_ms < retention_edge_ms);
        if gone > 0 {
            self.oldest = None;
            self.last_dropped = self.before(gone, span).or(self.last_dropped);
            self.windows.drain(..gone);
        }
    }
}
