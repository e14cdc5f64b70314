"""The join of rows and news: as of the end of the candle, after a restart, and waited for in vain."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from crypto_rt.core.messages import NewsSignal, NewsWatermark
from crypto_rt.features.news_features import NEWS_NAMES, news_features
from crypto_rt.services.context import ContextJoin, LeaderContext, NewsContext
from tests.features.test_vectors import START, row
from tests.repeat import many
from tests.services.builders import Clock, complete, signal, vector_and_late


def story(
    n: int, score: float, known: int, scorer: str = 'head', assets: tuple[str, ...] = ('BTC',)
) -> NewsSignal:
    label = 'positive' if score > 0 else 'negative' if score < 0 else 'neutral'
    return NewsSignal(
        news_id=f'n{n}',
        scorer=scorer,
        version='1',
        assets=list(assets),
        score=score,
        label=label,
        confidence=0.5,
        text_hash='f',
        published_ms=START + known,
        available_ms=START + known,
    )


stories = st.lists(
    st.builds(
        story,
        st.integers(0, 8),
        st.sampled_from([-1.0, -0.25, 0.0, 0.5]),
        st.integers(0, 3_000_000),
        st.sampled_from(['head', 'vader']),
    ),
    max_size=20,
)


@hypothesis_settings(max_examples=many(60))
@example([story(0, -1.0, 0), story(0, -1.0, 0), story(0, -0.25, 0)], 4, 1)
@given(stories, st.integers(0, 20), st.integers(1, 40))
def test_news_are_the_same_after_a_restart_and_as_of_the_end_of_the_candle(
    known: list[NewsSignal], cut: int, place: int
) -> None:
    x = row(place)
    mark = NewsWatermark(START + 10_000_000)
    never, again = (
        ContextJoin(news=NewsContext('head', lambda since_ms, stored=stored: stored))
        for stored in ([], known[:cut])
    )
    never.hear([signal(m) for m in [*known, mark]])
    again.hear([signal(m) for m in [*known[max(0, cut - 2) :], mark]])
    first: dict[str, NewsSignal] = {}
    for s in sorted((s for s in known if s.scorer == 'head'), key=lambda s: s.available_ms):
        first.setdefault(s.news_id, s)
    early = [s for s in first.values() if s.available_ms <= x.end_ms]
    vector, late = vector_and_late(never, x)
    assert (vector, late) == vector_and_late(again, x) and not late
    assert {name: vector[name] for name in NEWS_NAMES} == news_features(early, 'BTC', x.end_ms)


def test_news_that_are_waited_for_in_vain_are_null_and_say_so() -> None:
    clock = Clock()
    news = NewsContext('head', lambda since_ms: [story(1, 0.5, 0)])
    join = ContextJoin(news=news, live=True, patience_seconds=2.0, clock=clock)
    join.hear([signal(NewsWatermark(row(4).end_ms))])
    (heard,) = complete(join, row(4), 4)
    assert complete(join, row(5), 5) == []
    clock.seconds = 2.0
    (missed,) = join.ready()
    assert heard.late == [] and heard.vector['news_count_1h'] > 0 and heard.has_news
    assert missed.late == ['news_late'] and all(missed.vector[name] is None for name in NEWS_NAMES)


def test_leader_and_news_are_waited_for_at_the_same_time() -> None:
    clock = Clock()
    news = NewsContext('head', lambda since_ms: ())
    join = ContextJoin(
        LeaderContext('BTC/USD', lambda *_: ()), news, live=True, patience_seconds=2.0, clock=clock
    )
    assert complete(join, row(4, 'ETH/USD')) == []
    clock.seconds = 2.0
    (found,) = join.ready()
    assert found.late == ['leader_late', 'news_late']
