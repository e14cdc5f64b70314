"""Texts, stories and documents for the tests of news."""

from crypto_rt.core.messages import News

NOW_MS = 1_763_400_000_000
BOMB = '<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;">]><rss version="2.0"><channel><item><title>&lol2;</title></item></channel></rss>'


def named(news_id: str, title: str, hours: float = 0) -> News:
    at = NOW_MS + int(hours * 3_600_000)
    return News(
        news_id=news_id,
        title=title,
        body='',
        source='a',
        url='',
        assets=[],
        published_ms=at,
        available_ms=at,
        text_hash='',
    )
