"""Every scorer keeps one contract, whatever a stranger writes; the service answers for time, marks and restarts."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crypto_rt.bus.steps import Received
from crypto_rt.core.messages import News, NewsSignal, NewsWatermark, decode, encode
from crypto_rt.core.settings import Settings
from crypto_rt.news import scorers as news_signals
from crypto_rt.news.encoder import Anchors, Encoder, Head, read_head, shipped_head
from crypto_rt.news.scorers import Llm, Vader, open_scorers
from crypto_rt.news.scores import LABELS, Score, Scorer, headline, labelled
from crypto_rt.services.news_signals import Cache, SignalStep
from crypto_rt.verify.news import injected

CASES = [
    json.loads(line)
    for line in (Path(__file__).parent / 'news_injections.jsonl').read_text(encoding='utf-8').splitlines()
]
ODD = [
    '',
    ' ',
    '\x00',
    '\ud800',
    '\u200b' * 50,
    'a',
    '?' * 100_000,
    '🚀' * 400,
    '比特币 上涨',
    '{"label": 1}',
    '\n\n\n',
    "'; DROP TABLE news; --",
]
T = 1_700_000_000_000


def with_signals(**values: object) -> Settings:
    return msgspec.structs.replace(
        Settings(), news_signals=msgspec.structs.replace(Settings().news_signals, **values)
    )


# --- a double of a chat endpoint


class Double:
    "A local endpoint that answers as `reply` says, and keeps what it was asked."

    def __init__(self, reply: Callable[[dict[str, Any]], tuple[int, bytes, float]]) -> None:
        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.append(json.loads(self.rfile.read(int(self.headers['Content-Length']))))
                status, body, wait = reply(asked[-1])
                self.send_response(status)
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                try:
                    for at in range(0, len(body), max(1, len(body) // 8)):
                        self.wfile.write(body[at : at + max(1, len(body) // 8)])
                        self.wfile.flush()
                        time.sleep(wait)
                except OSError:
                    pass

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f'http://127.0.0.1:{self.server.server_port}/v1'


def said(content: str, wait: float = 0.0) -> tuple[int, bytes, float]:
    return 200, json.dumps({'choices': [{'message': {'content': content}}]}).encode(), wait


@pytest.fixture
def double() -> Iterator[Callable[..., Double]]:
    made: list[Double] = []

    def make(reply: Callable[[dict[str, Any]], tuple[int, bytes, float]]) -> Double:
        made.append(Double(reply))
        return made[-1]

    yield make
    for each in made:
        each.server.shutdown()
        each.server.server_close()


def llm_at(url: str, **values: object) -> Llm:
    return Llm(with_signals(llm_url=url, llm_model='tiny', **values))


@pytest.fixture(params=['head', 'anchors', 'vader', 'llm'])
def scorer(request: pytest.FixtureRequest, double: Callable[..., Double]) -> Scorer:
    if request.param == 'vader':
        pytest.importorskip('vaderSentiment')
        return Vader()
    if request.param == 'llm':
        return llm_at(double(lambda asked: said('{"label": "negative", "score": -0.5}')).url)
    encoder = request.getfixturevalue('encoder')
    return Head(encoder, shipped_head()) if request.param == 'head' else Anchors(encoder)


def check(told: Score | None) -> None:
    assert told is not None
    assert -1 <= told.score <= 1 and 0 <= told.confidence <= 1 and told.label in LABELS


def test_contract_of_a_scorer(scorer: Scorer) -> None:
    "An answer for each text, in order, valid whatever the text, the same alone and in a batch, the same again."
    assert scorer.name and scorer.version and scorer.score([]) == []
    texts = [*ODD, 'Exchange halts withdrawals', 'Bitcoin rises to a record']
    batch = scorer.score(texts)
    assert len(batch) == len(texts)
    for told in batch:
        check(told)
    for text, told in zip(texts, batch, strict=True):
        again = scorer.score([text])[0]
        assert again.label == told.label and again.score == pytest.approx(told.score, abs=2e-3)


def test_injections_leave_every_scorer_valid(scorer: Scorer) -> None:
    assert len(CASES) >= 60 and len({case['text'] for case in CASES}) == len(CASES)
    found = injected(CASES, [scorer])['scorers'][scorer.name]
    assert found['answered'] == len(CASES) and found['invalid'] == 0


def test_head_tells_good_from_bad(encoder: Encoder) -> None:
    good, bad = Head(encoder, shipped_head()).score(
        [
            'Bitcoin surges to a record as a large bank adopts it',
            'Exchange hacked, customers lose 200 million',
        ]
    )
    assert good.score > 0.3 > -0.1 > bad.score


def test_shipped_head_is_small_readable_and_whole() -> None:
    head = shipped_head()
    assert set(head['card']) >= {'source', 'rows', 'until', 'what', 'use', 'limits', 'cross_validation'}
    assert len(json.dumps(head)) < 200_000 and len(head['training_texts']) <= head['card']['rows']
    with pytest.raises(ValueError, match='it was changed'):
        read_head(json.dumps(head | {'intercepts': [0, 0, 9]}))


# --- the endpoint's faults


@pytest.mark.parametrize(
    'reply',
    [
        lambda asked: said('It is bad news, I think.'),
        lambda asked: said('{"label": "negative"}'),
        lambda asked: said('{"label": "bad", "score": -1}'),
        lambda asked: said('{"label": "negative", "score": -7}'),
        lambda asked: said('{"label": "negative", "score": NaN}'),
        lambda asked: said('{"label": "negative", "score": true}'),
        lambda asked: said('[' * 100_000),
        lambda asked: (500, b'{}', 0),
        lambda asked: (200, b'<html>', 0),
        lambda asked: (200, b'{"choices": []}', 0),
        lambda asked: (200, b'x' * 200_000, 0),
        lambda asked: (302, b'', 0),
        lambda asked: said('{"label": "negative", "score": -1}', 0.2),
    ],
    ids=[
        'prose',
        'half',
        'label',
        'range',
        'nan',
        'bool',
        'deep',
        '500',
        'html',
        'empty',
        'huge',
        'redirect',
        'slow',
    ],
)
def test_llm_fault_gives_none_and_is_counted(double: Callable[..., Double], reply: Callable) -> None:
    llm = llm_at(double(reply).url, llm_timeout_seconds=0.5)
    began = time.monotonic()
    assert llm.score(['Exchange halts withdrawals']) == [None] and llm.faults == 1
    assert time.monotonic() - began < 3


def test_llm_that_is_down_is_left_alone_for_a_minute() -> None:
    now = [0.0]
    llm = Llm(
        with_signals(llm_url='http://127.0.0.1:9/v1', llm_model='tiny', llm_timeout_seconds=0.5),
        clock=lambda: now[0],
    )
    assert llm.score(['a'] * 10) == [None] * 10 and llm.faults == 3
    now[0] = 61
    llm.score(['a'])
    assert llm.faults == 4


def test_llm_budget_and_the_shape_of_the_question(double: Callable[..., Double]) -> None:
    there = double(lambda asked: said('{"label": "neutral", "score": 0}'))
    llm = llm_at(there.url, llm_budget=2)
    assert [x is not None for x in llm.score(['a "quoted"\nline', 'b', 'c'])] == [True, True, False] and len(
        there.asked
    ) == 2
    asked = there.asked[0]
    assert asked['temperature'] == 0 and asked['response_format']['type'] == 'json_schema'
    assert (
        json.loads(asked['messages'][1]['content']) == {'headline': 'a "quoted" line'}
        and 'quoted' not in asked['messages'][0]['content'].split('`headline`')[0]
    )


# --- the service


class Fake:
    name, version = 'fake', '1'

    def __init__(self, fail: bool = False) -> None:
        self.calls: list[str] = []
        self.fail = fail

    def score(self, texts: list[str]) -> list[Score | None]:
        self.calls += texts
        if self.fail:
            raise RuntimeError('broken')
        return [labelled(0.5, 0.05) for _ in texts]


def story(n: int, text: int | None = None) -> News:
    return News(
        news_id=f'n{n}',
        title=f'title {n}',
        body='',
        source='wire',
        url='',
        assets=['BTC'],
        published_ms=T + n,
        available_ms=T + n + 5,
        text_hash=f'h{n if text is None else text}',
    )


def received(*messages: Any) -> list[Received]:
    return [
        Received(key='k', value=m if isinstance(m, bytes) else encode(m), topic='news', partition=0, offset=i)
        for i, m in enumerate(messages)
    ]


def signals(outs: list[Any]) -> list[Any]:
    return [decode('news_signals', out.value) for out in outs if out.topic == 'news_signals']


def test_mark_follows_what_it_covers_and_one_broken_scorer_stops_nobody() -> None:
    step = SignalStep([Fake(fail=True), Fake()], Cache(':memory:'))
    outs = list(step.take(received(story(1), story(2), NewsWatermark(T + 10), story(3), b'{"type": "news"}')))
    kinds = [type(x).__name__ for x in signals(outs)]
    assert kinds == ['NewsSignal', 'NewsSignal', 'NewsWatermark', 'NewsSignal']
    assert [out.topic for out in outs].count('dead_letters') == 1 and step.counts == {
        'signals': 3,
        'unscored': 3,
        'dead_letters': 1,
    }


def test_replay_keeps_the_news_time_live_takes_the_clock() -> None:
    (replayed,) = signals(list(SignalStep([Fake()], Cache(':memory:')).take(received(story(1)))))
    (live,) = signals(list(SignalStep([Fake()], Cache(':memory:'), lambda: T + 100).take(received(story(1)))))
    (early,) = signals(
        list(SignalStep([Fake()], Cache(':memory:'), lambda: T - 100).take(received(story(1))))
    )
    assert (replayed.available_ms, live.available_ms, early.available_ms) == (T + 6, T + 100, T + 6)


def test_a_restart_says_the_same_and_asks_nobody(tmp_path: Path) -> None:
    inputs = received(story(1), story(2, text=1), NewsWatermark(T + 10))
    first, second = Fake(), Fake()
    before = list(SignalStep([first], Cache(tmp_path / 'c.sqlite'), lambda: T + 100).take(inputs))
    after = list(SignalStep([second], Cache(tmp_path / 'c.sqlite'), lambda: T + 900).take(inputs))
    assert before == after and len(first.calls) == 1 and second.calls == []
    assert all(isinstance(x, NewsSignal) for x in signals(before)[:2])


def test_without_the_encoder_vader_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip('vaderSentiment')

    def missing(threads: int) -> Encoder:
        raise ImportError('No module named torch')

    monkeypatch.setattr(news_signals, 'Encoder', missing)
    assert (
        [s.name for s in open_scorers(Settings())]
        == ['vader']
        == [s.name for s in open_scorers(with_signals(scorers=('head',)))]
    )
    assert 'crypto-rt[nlp]' in caplog.text


def test_headline_is_one_short_line() -> None:
    for case in CASES:
        line = headline(case['text'])
        assert len(line) <= 500 and line == headline(line) and line.isprintable()
