"""Stories and signals in the store: each once, whatever comes again and wherever the first one lies."""

import pytest

from crypto_rt.bus.steps import Received
from crypto_rt.core.messages import News, NewsSignal, NewsWatermark, encode
from crypto_rt.core.settings import load_settings
from crypto_rt.services.feature_store import StoreWriter, topics_read
from crypto_rt.store.embedded.store import EmbeddedStore
from crypto_rt.store.open import open_group

NOON = 1_762_776_000_000


def story(n, title='ETF approved', late=0):
    return News(
        news_id=f'id{n}',
        title=title,
        body='body',
        source='wire',
        url=f'https://news.example/{n}',
        assets=['BTC', 'ETH'],
        published_ms=NOON + n,
        available_ms=NOON + n * 60_000 + 300_000 + late,
        text_hash=f'h{n}',
        flags=['late'],
    )


def signal(n, version='1', score=0.5):
    return NewsSignal(
        news_id=f'id{n}',
        scorer='head',
        version=version,
        assets=['BTC'],
        score=score,
        label='positive',
        confidence=0.9,
        text_hash=f'h{n}',
        published_ms=NOON + n,
        available_ms=NOON + n * 60_000 + 300_100,
    )


def received(topic, *items):
    return [
        Received(key='', value=encode(item), topic=topic, partition=0, offset=place)
        for place, item in enumerate(items)
    ]


@pytest.fixture
def store(tmp_path):
    store = EmbeddedStore(tmp_path)
    yield store
    store.close()


def test_the_service_stores_news_and_signals_and_passes_over_marks(store):
    writer = StoreWriter(store, load_settings(env={}))
    stories, signals = (
        [story(n) for n in range(5)],
        [signal(n, version) for n in range(5) for version in '12'],
    )
    assert writer.take(received('news', *stories[:3], NewsWatermark(NOON), *stories[3:])) == []
    assert writer.take(received('news_signals', NewsWatermark(NOON), *signals)) == []
    assert writer.take(received('news', NewsWatermark(NOON + 1))) == []
    assert open_group(store, 'news').history({}) == stories
    assert sorted(open_group(store, 'news_signals').history({}), key=encode) == sorted(signals, key=encode)
    assert writer.counts == {'stored': 15, 'dead_letters': 0}


@pytest.mark.parametrize('sealed', [False, True])
@pytest.mark.parametrize('way', ['insert', 'insert_sealed'])
def test_the_first_of_a_story_stays(store, sealed, way):
    news = open_group(store, 'news')
    news.insert([story(n) for n in range(5)])
    if sealed:
        assert news.materialize() == 5
    assert getattr(news, way)([story(n, 'changed', late=86_400_000) for n in range(7)]).rows == 2
    assert [item.title for item in news.history({})] == ['ETF approved'] * 5 + ['changed'] * 2
    assert len(news.read(as_of=NOON + 10 * 60_000)) == 5


def test_the_newest_signal_known_stands_beside_a_candle(store):
    signals, news = open_group(store, 'news_signals'), open_group(store, 'news')
    signals.insert([signal(n) for n in range(3)])
    news.insert([story(n) for n in range(3)])
    view = store.get_or_create_feature_view(
        'v', 1, query=signals.select(['score']).join(news.select(['title']), ['news_id'], 'news_')
    )
    frame = view.get_batch_data(NOON, NOON + 86_400_000)
    assert frame.news_title.tolist() == ['ETF approved'] * 3 and view.get_feature_vector(
        {'news_id': 'id1', 'scorer': 'head', 'version': '1'}
    ).values == (0.5, 'ETF approved')


def test_a_run_without_news_waits_for_none():
    assert {'news', 'news_signals'} <= set(topics_read(load_settings(env={})))
    replay = load_settings(env={}, run=dict(source='replay', until_idle=True, news=False))
    assert not {'news', 'news_signals'} & set(topics_read(replay))
    with_news = load_settings(env={}, run=dict(source='replay', until_idle=True, news=True))
    assert {'news', 'news_signals'} <= set(topics_read(with_news))
