"""No candle is wrong without a flag, whatever the stream withholds and REST does: feed and fold against a known market."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable

import pytest

from crypto_rt.candles.fold import open_fold
from crypto_rt.core.messages import Candle, Trade, decode
from crypto_rt.core.settings import ExchangeSettings
from crypto_rt.market.exchange import BadTrade, Frame
from crypto_rt.market.feed import Feed
from crypto_rt.market.recovery import StoredState, initial_states, resume
from crypto_rt.market.symbol_state import SymbolState
from tests.repeat import many

BEGAN_MS = 1_762_776_000_000
STEP_MS = 200
MINUTE_MS = 60_000


class Market:
    "A market of some symbols: what has happened, what the stream tells and what REST shows."

    def __init__(self, seed: int, minutes: int, rates: dict[str, float], lag_ms: int = 8_000):
        self.chance, self.lag_ms = random.Random(seed), lag_ms
        self.end_ms = BEGAN_MS + minutes * MINUTE_MS
        self.trades = {symbol: self.made(rate) for symbol, rate in rates.items()}
        self.mute: dict[str, list[tuple[int, int]]] = {symbol: [] for symbol in rates}
        self.down: list[tuple[int, int]] = []  # when REST does not answer
        self.unreadable: set[tuple[str, int]] = set()  # rows of REST that cannot be read

    def made(self, rate: float) -> list[Trade]:
        "Return trades that come at a rate, per second, with quiet hours of minutes in between."
        at, trades, number = BEGAN_MS - 120_000, [], 1000
        while at < self.end_ms:
            factor = 0.2 if (at // 240_000) % 3 == 2 else 1.0
            at += max(1, round(self.chance.expovariate(rate * factor) * 1000))
            price, quantity = f'{100 + self.chance.randint(0, 99)}', f'0.{self.chance.randint(1, 9)}'
            trades.append(Trade(number, price, quantity, 'buy', 'limit', at))
            number += 1
        return trades

    def heard(self, symbol: str, since_ms: int, until_ms: int) -> list[Trade]:
        "Return what the stream tells of a span."
        return [
            t
            for t in self.trades[symbol]
            if since_ms <= t.event_ms < until_ms
            and not any(a <= t.event_ms < b for a, b in self.mute[symbol])
        ]

    def shown(self, symbol: str, since_ms: int, now_ms: int) -> list[Trade]:
        "Return what REST shows now, which is late."
        return [t for t in self.trades[symbol] if since_ms <= t.event_ms < now_ms - self.lag_ms]

    def is_right(self, candle: Candle) -> bool:
        "Tell whether a candle says what happened, as far as it can be read."
        rows = [t for t in self.trades[candle.symbol] if candle.start_ms <= t.event_ms < candle.end_ms]
        if candle.trade_count != len(rows):
            return False
        return not rows or (candle.close, candle.last_trade_id) == (rows[-1].price, rows[-1].trade_id)


class Run:
    "The feed and the fold on a market, a fifth of a second at a time."

    def __init__(
        self,
        market: Market,
        exchange: ExchangeSettings | None = None,
        wait_ms: int = 15_000,
        answer_ms: int = 400,  # from a question to REST until its answer comes
        is_stale: bool = False,  # the answer says what was known at the question
    ):
        states = [SymbolState(symbol, since_ms=BEGAN_MS, fetch_first=True) for symbol in market.trades]
        self.market, self.exchange = market, exchange or ExchangeSettings()
        self.feed = Feed(states, 'live', self.exchange, 60)
        self.fold = open_fold(60, 2000, 120, wait_ms)
        self.answer_ms, self.is_stale = answer_ms, is_stale
        self.asked: list[tuple[int, str, int]] = []  # when the answer comes, for whom, since when
        self.told: list[bytes] = []  # on the topic `trades`
        self.candles: dict[tuple[str, int], Candle] = {}
        self.wrong: list[Candle] = []
        self.calls, self.renewed = Counter[str](), Counter[str]()
        self.proof_waits: list[int] = []  # ms from the end of a window until it was proven

    def play(self, restart: Callable[[Run], Feed] | None = None, away: tuple[int, int] = (0, 0)) -> None:
        "Play the market; the service is `away` for a span and then begins again with the feed of `restart`."
        self.connect(BEGAN_MS)
        for now_ms in range(BEGAN_MS + STEP_MS, self.market.end_ms, STEP_MS):
            if away[0] <= now_ms < away[1]:
                continue
            if restart and now_ms == away[1]:
                self.feed, self.asked = restart(self), []
                self.connect(now_ms)
                continue
            frames = [] if now_ms % 1000 else [Frame('heartbeat')]
            for symbol in self.market.trades:
                trades = self.market.heard(symbol, now_ms - STEP_MS, now_ms)
                if trades:
                    frames.append(Frame('trade', trades=self.items(symbol, trades)))
            self.take(frames, now_ms)

    def connect(self, now_ms: int) -> None:
        "Open a connection, and take its snapshots."
        acks = [Frame('ack', symbol=s, channel='trade', exchange_ms=now_ms) for s in self.market.trades]
        snapshots = [
            Frame('trade', trades=self.items(symbol, heard), snapshot=True)
            for symbol in self.market.trades
            if (heard := self.market.heard(symbol, 0, now_ms)[-50:])
        ]
        self.take([Frame('connected'), *acks, *snapshots], now_ms)

    def take(self, frames: list[Frame], now_ms: int) -> None:
        out = self.feed.take(frames, now_ms)
        for at_ms, symbol, since_ms in [asked for asked in self.asked if asked[0] <= now_ms]:
            self.asked.remove((at_ms, symbol, since_ms))
            if any(a <= now_ms < b for a, b in self.market.down):
                self.feed.states[symbol].ask_at_ms = now_ms + 5000  # as the service does
                continue
            shown_ms = at_ms - self.answer_ms * self.is_stale
            rows = self.market.shown(symbol, since_ms, shown_ms)
            good = [t for t in rows if (symbol, t.trade_id) not in self.market.unreadable]
            bad = [BadTrade(b'?', 'odd', symbol, t.trade_id) for t in rows if t not in good]
            out += self.feed.take_rest_page(symbol, good, True, now_ms, bad_rows=bad)
        busy = {symbol for _, symbol, _ in self.asked}
        for request in self.feed.rest_requests(now_ms, busy):
            self.calls[request.symbol] += 1
            self.asked.append((now_ms + self.answer_ms, request.symbol, request.since_ms))
        self.renewed.update(self.feed.take_mute().keys())
        for message in out:
            if message.topic == 'trades':
                self.told.append(message.value)
                for raw in self.fold.feed(message.value):
                    self.see(decode('candles', raw), now_ms)

    def see(self, candle: Candle, now_ms: int) -> None:
        key = candle.symbol, candle.start_ms
        was_open = key not in self.candles or self.candles[key].is_unproven
        if was_open and not candle.is_unproven:
            self.proof_waits.append(now_ms - candle.end_ms)
        self.candles[key] = candle
        if not (candle.is_partial or candle.is_unproven) and not self.market.is_right(candle):
            self.wrong.append(candle)

    @staticmethod
    def items(symbol: str, trades: list[Trade]) -> list[tuple]:
        return [(symbol, t.trade_id, t.price, t.quantity, t.side, t.order_type, t.event_ms) for t in trades]


def counted(run: Run) -> Counter[str]:
    "Count the candles by what they came to; those of the last two minutes are not all out."
    last_ms = run.market.end_ms - 2 * MINUTE_MS
    found: Counter[str] = Counter()
    for candle in run.candles.values():
        if BEGAN_MS + MINUTE_MS <= candle.start_ms < last_ms:
            flagged = 'unproven' if candle.is_unproven else 'partial' if candle.is_partial else 'good'
            found[flagged] += 1
            found['right'] += run.market.is_right(candle)
    return found


def expected(run: Run) -> int:
    "Return of how many windows `counted` should tell: all behind the first trade of each symbol."
    last_ms = run.market.end_ms - 2 * MINUTE_MS
    total = 0
    for trades in run.market.trades.values():
        first_ms = min(t.event_ms for t in trades if t.event_ms >= BEGAN_MS)
        counted_ms = last_ms - max(BEGAN_MS + MINUTE_MS, first_ms // MINUTE_MS * MINUTE_MS)
        total += max(0, counted_ms) // MINUTE_MS
    return total


def test_a_quiet_market_is_proven_by_rest_and_a_busy_one_by_itself() -> None:
    run = Run(Market(2, 20, {'BTC/USD': 2.0, 'ETH/USD': 0.04}))
    run.play()
    assert not run.wrong
    found = counted(run)
    assert found['good'] >= expected(run) - 1 and found['right'] == expected(run), found
    evidence = {
        symbol: Counter(c.evidence for (s, _), c in run.candles.items() if s == symbol)
        for symbol in ('BTC/USD', 'ETH/USD')
    }
    assert evidence['BTC/USD'].most_common(1)[0][0] == 'next_trade'
    assert evidence['ETH/USD']['rest'] >= 8
    assert run.calls['ETH/USD'] <= 25, 'about one a minute'
    assert max(run.proof_waits) <= 17_000


@pytest.mark.parametrize('seed', range(many(20)))
def test_no_candle_is_wrong_without_a_flag(seed: int) -> None:
    chance = random.Random(f'proof {seed}')
    rates = {'BTC/USD': 1.0, 'ETH/USD': 0.2, 'SOL/USD': 0.02}
    market = Market(seed, 25, rates, lag_ms=chance.choice([0, 3_000, 9_500]))
    for symbol in rates:
        for _ in range(chance.randint(0, 2)):
            began = BEGAN_MS + chance.randint(30_000, 20 * MINUTE_MS)
            market.mute[symbol].append((began, began + chance.choice([5_000, 90_000, 10 * MINUTE_MS])))
    for _ in range(chance.randint(0, 2)):
        began = BEGAN_MS + chance.randint(60_000, 20 * MINUTE_MS)
        market.down.append((began, began + chance.choice([20_000, 5 * MINUTE_MS])))
    run = Run(market)
    run.play()
    assert not run.wrong, run.wrong[0]
    found = counted(run)
    assert found['good'] + found['partial'] + found['unproven'] == expected(run), found


def test_a_mute_subscription_is_noticed_asked_for_anew_and_filled() -> None:
    market = Market(3, 20, {'BTC/USD': 1.0, 'ETH/USD': 0.5})
    market.mute['ETH/USD'].append((BEGAN_MS + 5 * MINUTE_MS, market.end_ms))
    run = Run(market)
    run.play()
    found = counted(run)
    assert not run.wrong and found['right'] == found['good'] == 2 * 17, found
    assert run.renewed['ETH/USD'] >= 1 and not run.renewed['BTC/USD']
    assert run.feed.counts['mute_alarms'] >= 1


def test_without_rest_a_mute_market_is_flagged_and_never_called_quiet() -> None:
    market = Market(4, 12, {'ETH/USD': 0.5})
    mute_ms = BEGAN_MS + 5 * MINUTE_MS
    market.mute['ETH/USD'].append((mute_ms, market.end_ms))
    market.down.append((mute_ms, market.end_ms))
    run = Run(market)
    run.play()
    after = [c for c in run.candles.values() if c.start_ms >= mute_ms]
    assert not run.wrong and len(after) >= 4 and all(c.is_unproven for c in after)


def test_calls_stay_inside_the_budget_with_many_quiet_markets() -> None:
    symbols = {f'Q{n}/USD': 0.002 for n in range(100)}
    run = Run(Market(5, 6, symbols), ExchangeSettings(proof_calls_per_minute=60))
    run.play()
    assert not run.wrong
    assert run.feed.counts['proof_calls'] <= 6 * 60 + 10


SLOW = dict(answer_ms=25_000), dict(answer_ms=25_000, is_stale=True)


@pytest.mark.parametrize('seed', range(many(3)))
@pytest.mark.parametrize('answers', SLOW, ids=['late', 'late and stale'])
def test_a_slow_answer_proves_only_what_was_known_when_it_was_asked(answers: dict, seed: int) -> None:
    market = Market(seed, 20, {'BTC/USD': 0.5, 'ETH/USD': 0.03})
    for symbol in market.trades:
        market.mute[symbol].append((BEGAN_MS + 3 * MINUTE_MS + 7000 * seed, BEGAN_MS + 12 * MINUTE_MS))
    run = Run(market, **answers)
    run.play()
    assert not run.wrong, run.wrong[0]


@pytest.mark.parametrize('lag_ms', [15_000, 40_000, 100_000])
def test_a_lag_that_is_longer_than_we_believe_is_learned(lag_ms: int) -> None:
    "The stream is ahead of REST for some minutes; then it goes mute, and REST is all there is."
    market = Market(6, 25, {'ETH/USD': 0.2}, lag_ms=lag_ms)
    market.mute['ETH/USD'].append((BEGAN_MS + 10 * MINUTE_MS, market.end_ms))
    run = Run(market)
    run.play()
    assert not run.wrong, run.wrong[0]
    assert run.feed.lag_ms(run.feed.states['ETH/USD']) >= lag_ms
    found = counted(run)
    assert found['good'] >= 8 and found['right'] >= 15, found


@pytest.mark.parametrize('seed', range(many(3)))
def test_a_subscription_that_is_mute_from_its_start_is_noticed_and_filled(seed: int) -> None:
    market = Market(seed, 20, {'BTC/USD': 1.0, 'SOL/USD': 0.3})
    market.mute['SOL/USD'].append((0, market.end_ms))
    run = Run(market)
    run.play()
    assert not run.wrong, run.wrong[0]
    assert run.renewed['SOL/USD'] >= 1
    good = [c for c in run.candles.values() if c.symbol == 'SOL/USD' and not (c.is_partial or c.is_unproven)]
    assert len(good) >= 14


@pytest.mark.parametrize('seed', range(many(5)))
def test_a_row_of_rest_that_cannot_be_read_proves_no_end(seed: int) -> None:
    "The stream is mute, and the last trade of a minute is the one that REST tells in a way nobody can read."
    market = Market(seed, 12, {'ETH/USD': 0.1})
    mute_ms = BEGAN_MS + 4 * MINUTE_MS
    market.mute['ETH/USD'].append((mute_ms, market.end_ms))
    trades = [t for t in market.trades['ETH/USD'] if mute_ms < t.event_ms]
    lasts = [a for a, b in itertools.pairwise(trades) if a.event_ms // 60_000 != b.event_ms // 60_000]
    market.unreadable = {('ETH/USD', t.trade_id) for t in lasts}
    run = Run(market)
    run.play()
    assert lasts and not run.wrong, run.wrong[0]


def left_whole(run: Run) -> Feed:
    "The topic is read back to the beginning."
    states = initial_states(run.market.trades, resume(run.told), StoredState(), BEGAN_MS)
    return Feed(states, 'live', run.exchange, 60)


def left_short(run: Run) -> Feed:
    "A few messages only are left of the topic."
    states = initial_states(run.market.trades, resume(run.told[-9:]), StoredState(), BEGAN_MS)
    return Feed(states, 'live', run.exchange, 60)


def left_candle(run: Run) -> Feed:
    "Nothing is left but the last candles in the store."
    last: dict[str, Candle | None] = {}
    for (symbol, _), candle in sorted(run.candles.items()):
        last[symbol] = candle
    states = initial_states(run.market.trades, {}, StoredState(candles=last), BEGAN_MS)
    return Feed(states, 'live', run.exchange, 60)


@pytest.mark.parametrize('restart', [left_whole, left_short, left_candle])
@pytest.mark.parametrize('seed', range(many(3)))
def test_a_restart_brings_no_wrong_candle(restart: Callable[[Run], Feed], seed: int) -> None:
    chance = random.Random(f'restart {seed}')
    market = Market(seed, 18, {'BTC/USD': 0.7, 'ETH/USD': 0.05})
    away_ms = BEGAN_MS + 6 * MINUTE_MS + chance.randrange(0, 60_000, STEP_MS)
    back_ms = away_ms + chance.choice([5_000, 40_000, 200_000])
    for symbol in market.trades:
        market.mute[symbol].append((away_ms - 30_000, back_ms + 90_000))
    run = Run(market)
    run.play(restart, (away_ms, back_ms))
    assert not run.wrong, run.wrong[0]
    found = counted(run)
    assert found['right'] >= 0.8 * expected(run), found
