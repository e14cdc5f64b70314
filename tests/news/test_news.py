"""News: no bytes crash a parser, no item is lost, nothing is known before it could be."""

import time

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from crypto_rt.bus.steps import Received
from crypto_rt.core.messages import Candle, News, NewsWatermark, decode, encode
from crypto_rt.core.settings import Settings
from crypto_rt.news.archives import Bad, import_items, read_table
from crypto_rt.news.feeds import check_document, parse_feed, parse_panic, text_of
from crypto_rt.news.stories import ASSETS, Entry, story_of
from crypto_rt.services.news import NewsReplay
from tests.news.builders import BOMB, NOW_MS, named
from tests.repeat import many

some_text = st.text(max_size=200)
entries = st.builds(
    Entry,
    title=some_text,
    body=some_text,
    url=some_text | st.sampled_from(['https://a.example/1', 'https://a.example/2?utm_source=x', '/news/3']),
    base=st.just('https://a.example'),
    source=some_text,
    time=some_text | st.sampled_from(['2025-11-17T17:00:00Z', '30-4-2022 23:00', '2099-01-01T00:00:00Z']),
    codes=st.lists(some_text | st.sampled_from(['BTC ', 'N/A', 'US', 'xbt']), max_size=3).map(tuple),
)
items = st.lists(entries | st.builds(Bad, st.binary(max_size=20), some_text), max_size=30)


@limits(deadline=None)
@given(
    st.binary(max_size=400)
    | st.binary(max_size=300).map(lambda raw: b'<rss version="2.0"><channel><item><title>' + raw)
)
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for parse in (
        lambda raw: parse_feed(raw, 'a.example', 'https://a.example/rss', 'utf-8'),
        parse_panic,
        lambda raw: read_table(b'date;title\n' + raw),
    ):
        try:
            found = parse(raw)
        except ValueError:
            continue
        for entry in (e for e in found if isinstance(e, Entry)):
            encode(entry)


@limits(deadline=None)
@given(entries)
def test_a_story_is_never_known_before_it_was_published(entry: Entry) -> None:
    for fetched, delay in ((NOW_MS, 0), (None, 300_000)):
        try:
            story = story_of(entry, fetched, delay)
        except ValueError:
            continue
        assert story.available_ms >= story.published_ms
        assert fetched is None or story.available_ms == fetched
        assert decode('news', encode(story)) == story
        assert set(story.assets) <= set(ASSETS)
        assert story.url == '' or story.url.startswith(('http://', 'https://'))


@limits(deadline=None, max_examples=many(50))
@given(items, st.integers(0, 3))
def test_every_item_is_accounted_for(found: list[Entry | Bad], more: int) -> None:
    found = found * (1 + more)
    taken = import_items(found, Settings())
    counts = taken.counts
    assert len(found) == counts['in'] == counts['kept'] + counts['duplicates'] + counts['dead_letters']
    assert len(taken.stories) == counts['kept'] and len(taken.letters) == counts['dead_letters'] == len(
        {letter.id for letter in taken.letters}
    )
    assert len({story.news_id for story in taken.stories}) == counts['kept']
    assert [s.available_ms for s in taken.stories] == sorted(s.available_ms for s in taken.stories)
    again = import_items(found, Settings(), taken.stories).counts
    assert again['kept'] == 0 and again['duplicates'] == counts['kept'] + counts['duplicates']


NASTY = {
    'entities': BOMB.encode(),
    'behind a comment': b'<!-- <rss> -->' + BOMB.encode(),
    'behind an instruction': b'<?x <rss> ?>\n' + BOMB.encode(),
    'in UTF-16': BOMB.encode('utf-16'),
    'with a mark': b'\xef\xbb\xbf' + BOMB.encode(),
    'in UTF-7': b'<?xml version="1.0" encoding="utf-7"?>+ADwAIQ-DOCTYPE x',
    'external': b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><rss><channel><item><title>&x;</title></item></channel></rss>',
    'HTML': b'<!DOCTYPE html><html><body>Not found</body></html>',
    'HTML without type': b'<html><head></head></html>',
    'JSON': b'{"error": 403}',
    'empty': b'',
    'nothing but spaces': b' \n' * 1000,
    'SVG': b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    'open comment': b'<!--' * 1000,
}


@pytest.mark.parametrize('raw', NASTY.values(), ids=NASTY.keys())
def test_nasty_documents_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match='expected'):
        parse_feed(raw, 'a.example')


def test_a_document_is_read_as_it_is_checked() -> None:
    feed = '<rss version="2.0"><channel><item><title>Zürich kauft</title></item></channel></rss>'
    for raw, charset in (
        (feed.encode('latin-1'), 'iso-8859-1'),
        (feed.encode('utf-16'), None),
        (feed.encode(), 'utf-7'),
        (feed.encode(), 'no-such'),
    ):
        assert parse_feed(raw, 'a.example', charset=charset)[0].title == 'Zürich kauft'
    wrong = parse_feed(feed.encode('latin-1'), 'a.example')[0]
    assert wrong.title == 'Z\ufffdrich kauft' and wrong.flags == ('charset',)
    assert text_of(b'<?xml version="1.0" encoding="koi8-r"?>\xc1')[0].endswith('а')
    check_document('\n<?xml version="1.0"?><!-- a --><feed xmlns="http://www.w3.org/2005/Atom">')


def test_broken_and_deep_documents_cost_little() -> None:
    began = time.perf_counter()
    parse_feed(b'<rss><channel><item><title>Cut of', 'a.example')
    try:
        parse_feed(b'<rss>' + b'<a>' * 50_000, 'a.example')
    except ValueError:
        pass
    many = b'<rss version="2.0"><channel>' + b'<item><title>t</title></item>' * 3000 + b'</channel></rss>'
    assert len(parse_feed(many, 'a.example')) == 1000
    assert time.perf_counter() - began < 20


def test_atom_is_read() -> None:
    atom = b"""<feed xmlns="http://www.w3.org/2005/Atom"><entry><title type="html">Ether &amp;amp; co</title><id>urn:1</id><updated>2025-11-17T17:00:00Z</updated>
               <link href="https://a.example/1?utm_medium=x"/><summary>s</summary></entry></feed>"""
    story = story_of(parse_feed(atom, 'a.example')[0], NOW_MS)
    assert (story.title, story.url, story.published_ms, story.assets) == (
        'Ether & co',
        'https://a.example/1',
        NOW_MS - 1200_000,
        ['ETH'],
    )


def candle(end_ms: int) -> Received:
    made = Candle(
        'BTC/USD',
        60,
        end_ms - 60_000,
        0,
        end_ms,
        *['1'] * 7,
        1,
        '1',
        -1,
        -1,
        None,
        None,
        False,
        False,
        'trades',
        end_ms + 2000,
    )
    return Received(key='BTC/USD', value=encode(made), topic='candles', partition=0, offset=0)


@limits(deadline=None)
@given(
    st.lists(st.integers(0, 500), max_size=30),
    st.lists(st.lists(st.integers(0, 600), min_size=1, max_size=3), max_size=10),
    st.integers(0, 10),
)
def test_replay_is_in_step_and_goes_on_after_a_restart(
    at: list[int], clocks: list[list[int]], cut: int
) -> None:
    stories = [named(str(n), f'title {n}', minutes / 60) for n, minutes in enumerate(at)]
    steps = [[candle(NOW_MS + minute * 60_000) for minute in batch] for batch in clocks]
    whole = [
        decode(o.topic, o.value)
        for step in [NewsReplay(stories)]
        for batch in steps
        for o in step.take(batch)
    ]
    through = 0
    for message in whole:
        if isinstance(message, NewsWatermark):
            assert message.through_ms > through
            through = message.through_ms
        else:
            assert message.available_ms > through
    assert {m.news_id for m in whole if isinstance(m, News)} == {
        s.news_id for s in stories if s.available_ms <= through
    }
    first = [
        decode(o.topic, o.value)
        for step in [NewsReplay(stories)]
        for batch in steps[:cut]
        for o in step.take(batch)
    ]
    last = max((m.through_ms for m in first if isinstance(m, NewsWatermark)), default=0)
    rest = [
        decode(o.topic, o.value)
        for step in [NewsReplay(stories, last)]
        for batch in steps
        for o in step.take(batch)
    ]
    assert first + rest == whole


def test_candles_that_do_not_decode_move_no_clock() -> None:
    assert (
        list(NewsReplay([]).take([Received(key='', value=b'{', topic='candles', partition=0, offset=0)]))
        == []
    )
