"""Stories and signals in the store: each once, whatever comes again and wherever the first one lies."""

import pytest

from crypto_rt.bus import Received
from crypto_rt.embedded_store import EmbeddedStore, StoreWriter, topics_read
from crypto_rt.feature_store import open_group
from crypto_rt.messages import News, NewsMark, NewsSignal, encode
from crypto_rt.settings import load_settings

NOON = 1_762_776_000_000


def story(n, title='ETF approved', late=0):
    return News(f'id{n}', title, 'body', 'wire', f'https://news.example/{n}', ['BTC', 'ETH'], NOON + n, NOON + n * 60_000 + 300_000 + late, f'h{n}', ['late'])


def signal(n, version='1', score=0.5):
    return NewsSignal(f'id{n}', 'head', version, ['BTC'], score, 'positive', 0.9, f'h{n}', NOON + n, NOON + n * 60_000 + 300_100)


def received(topic, *items):
    return [Received('', encode(item), topic, 0, place) for place, item in enumerate(items)]


@pytest.fixture
def store(tmp_path):
    store = EmbeddedStore(tmp_path)
    yield store
    store.close()


def test_the_service_stores_news_and_signals_and_passes_over_marks(store):
    writer = StoreWriter(store, load_settings(env={}))
    stories, signals = [story(n) for n in range(5)], [signal(n, version) for n in range(5) for version in '12']
    assert writer.take(received('news', *stories[:3], NewsMark(NOON), *stories[3:])) == []
    assert writer.take(received('news_signals', NewsMark(NOON), *signals)) == []
    assert writer.take(received('news', NewsMark(NOON + 1))) == []
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
    view = store.get_or_create_feature_view('v', 1, query=signals.select(['score']).join(news.select(['title']), ['news_id'], 'news_'))
    frame = view.get_batch_data(NOON, NOON + 86_400_000)
    assert frame.news_title.tolist() == ['ETF approved'] * 3 and view.get_feature_vector(
        {'news_id': 'id1', 'scorer': 'head', 'version': '1'}).values == (0.5, 'ETF approved')  # fmt: skip


def test_a_run_without_news_waits_for_none(monkeypatch):
    assert {'news', 'news_signals'} <= set(topics_read())
    monkeypatch.setenv('CRYPTO_RT_UNTIL_IDLE', '1')
    assert not {'news', 'news_signals'} & set(topics_read())
    monkeypatch.setenv('CRYPTO_RT_NEWS', '1')
    assert {'news', 'news_signals'} <= set(topics_read())
