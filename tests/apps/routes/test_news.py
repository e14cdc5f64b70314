"""`/v1/news` and `/v1/news/signal`."""

from crypto_rt.core.messages import NewsWatermark
from crypto_rt.features.news_features import news_features
from tests.apps.builders import START, candle, signal, story


def test_news_come_with_what_each_scorer_says(api):
    api.send(
        story(0),
        signal(0),
        signal(0, -0.2, 'vader'),
        story(1, assets=['ETH'], url='javascript:alert(1)'),
        NewsWatermark(START + 60_000),
    )
    body = api.get('/v1/news')
    assert [s['news_id'] for s in body['news']] == ['n1', 'n0'] and body['through_ms'] == START + 60_000
    assert [(s['scorer'], s['score'], s['label']) for s in body['news'][1]['signals']] == [
        ('head', 0.5, 'positive'),
        ('vader', -0.2, 'negative'),
    ]
    assert body['news'][0]['url'] == '' and body['news'][1]['url'] == 'https://news.example/1'
    assert [s['news_id'] for s in api.get('/v1/news', symbol='BTC/USD')['news']] == ['n0']
    assert [s['news_id'] for s in api.get('/v1/news', since=START, until=START + 1)['news']] == ['n0']
    assert api.get('/v1/news', 422, limit=0) and api.get('/v1/news', 404, symbol='DOGE/USD')


def test_the_news_signal_fades_as_the_features_say(api):

    api.send(
        story(0), signal(0, 0.5), signal(0, 0.5, version='0'), *(candle(i) for i in range(3)), candle(400)
    )
    points = api.get('/v1/news/signal', symbol='BTC/USD')['points']
    assert [p['value'] for p in points] == [
        news_features([signal(0, 0.5)], 'BTC', p['at_ms'])['news_sum_6h'] for p in points
    ] and points[-1]['value'] < 0.3
    assert points[0]['value'] is None, 'before: nobody was listening'
    assert {p['value'] for p in api.get('/v1/news/signal', symbol='BTC/USD', scorer='vader')['points']} == {
        None
    }
