"""News: no bytes crash a parser, no item is lost, nothing is known before it could be."""

import base64
import gzip
import html
import json
import random
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from crypto_rt.backfill.news import backfill_news
from crypto_rt.bus.steps import Received
from crypto_rt.core.messages import Candle, News, NewsWatermark, decode, encode
from crypto_rt.core.settings import DataSettings, Settings
from crypto_rt.news.archives import Bad, import_items, read_news, read_table
from crypto_rt.news.duplicates import Duplicates, alike, words_of
from crypto_rt.news.feeds import check_document, parse_feed, parse_panic, text_of
from crypto_rt.news.stories import (
    ASSETS,
    Entry,
    clean_url,
    html_to_text,
    known_codes,
    named_assets,
    panic_entry,
    published,
    story_of,
)
from crypto_rt.services.news import NewsReplay

NOW_MS = 1_763_400_000_000
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


@limits(deadline=None, max_examples=50)
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


@given(st.text())
def test_plain_text_has_nothing_to_run_and_nothing_unseen(text: str) -> None:
    seen = html_to_text(text, 500)
    assert (
        seen.isprintable()
        and len(seen) <= 500
        and html_to_text(html.escape(seen), 500) == html_to_text(seen, 500)
    )
    assert not set(seen) & set('\u200b\u202e\ufeff\x00\n')


@pytest.mark.parametrize(
    'text',
    [
        '<' * 100_000,
        '<a' * 50_000,
        '<script>' * 12_000,
        '&#' * 50_000,
        '<!--' * 25_000,
        '&lt;' * 25_000,
        '<a href="' + 'x' * 100_000,
        '\u0301' * 100_000,
    ],
)
def test_cleaning_takes_time_in_proportion(text: str) -> None:
    began = time.perf_counter()
    html_to_text(text, 500)
    assert time.perf_counter() - began < 2


def test_html_becomes_what_a_reader_would_see() -> None:
    assert (
        html_to_text(
            '<p>Bitcoin <b>fa</b>lls</p><style>p{}</style><script>steal()</script> &amp;amp; ETH', 100
        )
        == 'Bitcoin falls & ETH'
    )
    assert html_to_text('Caf\u0065\u0301', 100) == 'Caf\u00e9'
    assert html_to_text('hidden\U000e0041\U000e0042 \u200bzero\u202ewidth', 100) == 'hidden zerowidth'
    assert html_to_text(None, 10) == '' and html_to_text('\ud800x', 10) == 'x'


@pytest.mark.parametrize(
    ('given_url', 'expected'),
    [
        ('https://A.example:443/b?utm_source=rss&id=1&fbclid=2#c', 'https://a.example/b?id=1'),
        ('https://user:secret@a.example/b', 'https://a.example/b'),
        ('https://cointelegraph.comhttps://cointelegraph.com/x', 'https://cointelegraph.com/x'),
        ('javascript:alert(1)', ''),
        ('data:text/html,x', ''),
        ('file:///etc/passwd', ''),
        ('http://[::1', ''),
        ('//b.example/x', 'https://b.example/x'),
        ('https://a.example:99999999/', ''),
        ('', ''),
    ],
)
def test_links_are_links(given_url: str, expected: str) -> None:
    assert clean_url(given_url, 'https://a.example' if given_url.startswith('//') else '') == expected


@pytest.mark.parametrize(
    ('text', 'ms', 'flags'),
    [
        ('Fri, 25 Sep 2026 14:41:53 +0000', 1790347313000, []),
        ('Fri, 25 Sep 2026 14:41:53 GMT', 1790347313000, []),
        ('2026-09-25T14:41:53', 1790347313000, ['no_zone']),
        ('Fri, 25 Sep 2026 14:41:53', 1790347313000, ['no_zone']),
        ('30-4-2022 23:00', 1651359600000, ['no_zone']),
        ('Mon Nov 17 2025 13:40:00 GMT-0500 (Hora)', 1763404800000, []),
    ],
)
def test_times_of_every_form(text: str, ms: int, flags: list[str]) -> None:
    assert published(text) == (ms, flags)


@pytest.mark.parametrize(
    'text',
    [
        '',
        'soon',
        '31-2-2022 10:00',
        '1970-01-01T00:00:00Z',
        '9999999999999',
        'Mon, 99 Foo 2022 10:00:00 GMT',
        '٣٠-٤-٢٠٢٢ ٢٣:٠٠ x',
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match='expected a time'):
        published(text)


def test_times_are_flagged_and_never_trusted_into_the_future() -> None:
    future = story_of(Entry('A title', time='2030-01-01T00:00:00Z'), NOW_MS)
    assert future.published_ms == future.available_ms == NOW_MS and 'future' in future.flags
    assert story_of(Entry('A title'), NOW_MS).flags == ['no_time']
    assert story_of(Entry('A title', time='soon'), NOW_MS).flags == ['bad_time']
    with pytest.raises(ValueError, match='expected a time'):
        story_of(Entry('A title', time='soon'))


def test_assets_from_text_and_odd_codes() -> None:
    assert named_assets('Bitcoin Cash, Ethereum Classic and $dot') == {'BCH', 'ETC'}
    assert named_assets('BTC/USD and ETH-PERP fall; $LINK too') == {'BTC', 'ETH', 'LINK'}
    assert named_assets('BITCOIN AND ETH AND LINK') == {'BTC'}
    assert known_codes(['BTC ', 'XBT', None, 7, 'No currency', 'N/A']) == ({'BTC'}, True)
    assert known_codes(['No currency', 'N/A', '']) == (set(), False)
    story = story_of(
        Entry('Prices fall for a second day…', time='2025-11-17T17:00:00Z', codes=('US', 'ETH '))
    )
    assert story.assets == ['ETH'] and {'odd_code', 'truncated'} <= set(story.flags)


@pytest.mark.parametrize(
    'post',
    [
        {},
        {'title': None},
        {'title': 'x', 'source': 'text', 'instruments': {'a': 1}},
        {'title': 'x', 'instruments': [None, {'code': None}, 3], 'content': []},
    ],
)
def test_posts_with_nulls_everywhere(post: dict) -> None:
    assert isinstance(panic_entry(post), Entry)


BOMB = '<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;">]><rss version="2.0"><channel><item><title>&lol2;</title></item></channel></rss>'
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


def test_duplicates_of_three_kinds_and_what_is_none() -> None:
    memory = Duplicates(72, 0.7)
    told = 'UK man who hacked the accounts of Musk and Obama ordered to repay bitcoin'
    assert [
        memory.find(s)
        for s in (
            named('1', told),
            named('1', 'x'),
            named('2', told.upper() + '!'),
            named('3', told.replace('of ', '')),
        )
    ] == ['', 'id', 'text', 'near']
    assert memory.find(named('4', 'Bitcoin falls below $90,000 as sellers return')) == ''
    assert memory.find(named('5', 'Bitcoin falls below $91,000 as sellers return')) == ''
    assert memory.find(named('6', told, hours=73)) == ''
    assert memory.find(named('1', told, hours=999)) == 'id'


@limits(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 30), st.text('abc ', max_size=30), st.floats(0, 200)), max_size=40))
def test_memory_is_bounded_and_consistent(told: list[tuple[int, str, float]]) -> None:
    memory = Duplicates(72, 0.7)
    for number, title, hours in sorted(told, key=lambda row: row[2]):
        memory.find(named(str(number), title, hours))
        assert len(memory.words) == len(memory.order) >= len(memory.by_key)
        assert all(at >= NOW_MS + int(hours * 3_600_000) - memory.keep_ms for at, _ in memory.order)


@given(st.text(), st.text())
def test_likeness_is_symmetric_and_one_for_the_same(a: str, b: str) -> None:
    assert alike(words_of(a), words_of(b)) == alike(words_of(b), words_of(a))
    assert not words_of(a).key or alike(words_of(a), words_of(a)) == 1


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


@pytest.mark.parametrize(
    ('raw', 'words'),
    [
        (b'Feeds\nhttps://a.example/feed\n', 'list of feeds'),
        (b'a,b\n1,2\n', 'expected a JSON object'),
        (b'{"a": ', 'expected JSON'),
        (b'<html></html>', 'was HTML'),
        (b'\x1f\x8bbroken', 'cannot be unpacked'),
        (b'', 'expected a JSON object'),
        (b'\x00\x01\x02', 'expected a JSON object'),
        (gzip.compress(BOMB.encode()), 'document type'),
    ],
)
def test_files_of_no_known_form_are_refused_by_name(tmp_path: Path, raw: bytes, words: str) -> None:
    file = tmp_path / 'strange.bin'
    file.write_bytes(raw)
    with pytest.raises(ValueError, match=words) as error:
        read_news(file)
    assert 'strange.bin' in str(error.value)


def test_real_files_balance(shared: Path, tmp_path: Path) -> None:
    base = Settings()
    settings = msgspec.structs.replace(base, data=msgspec.structs.replace(base.data, directory=str(tmp_path)))
    whole = {
        'coindesk_20260925.xml': 3,
        'cryptonews_2021-10_to_2022-04.csv.gz': 4766,
        'cryptopanic_all_cache.json.gz': 905,
    }
    for name, count in whole.items():
        books = backfill_news(settings, shared / 'data' / 'news' / name)
        assert books['ok'] and books['in'] == count and books['kept'] > 0.95 * count
        again = backfill_news(settings, shared / 'data' / 'news' / name)
        assert again['kept'] == 0 and again['in'] == again['duplicates'] + again['dead_letters']
    letters = [
        json.loads(line)
        for line in (tmp_path / 'dead_letters' / 'cryptonews_2021-10_to_2022-04.csv.gz.jsonl')
        .read_text()
        .splitlines()
    ]
    assert len(letters) == 18 and json.loads(base64.b64decode(letters[0]['raw']))['title'] == ''


def test_a_hundred_thousand_headlines_in_a_minute() -> None:
    chance = random.Random(7)
    words = [f'word{n}' for n in range(4000)]
    titles = [' '.join(chance.choices(words, k=11)) for _ in range(4500)]
    titles += [f'{title} again' for title in titles[:500]]
    began = time.process_time()
    memory = Duplicates()
    found = [memory.find(named(str(n), title, n / 3600)) for n, title in enumerate(titles)]
    assert found.count('near') == 500 and found.count('') == 4500
    assert (time.process_time() - began) * 20 < 60


def test_half_a_surrogate_costs_one_item_and_not_the_file(tmp_path):
    posts = [
        {'Title': 'Bitcoin \ud800 rises', 'Date': '2025-11-14 10:00:00-05:00', 'ID': 1},
        {'Title': 'Ether falls for a second day', 'Date': '2025-11-14 11:00:00-05:00', 'ID': 2},
    ]
    (tmp_path / 'posts.json').write_text(json.dumps(posts))
    taken = import_items(read_news(tmp_path / 'posts.json'), Settings())
    assert (
        taken.counts['in'] == 2 == taken.counts['kept'] + taken.counts['dead_letters']
        and taken.counts['kept'] >= 1
    )


@pytest.mark.parametrize('results', ['null', '5', '"text"'])
def test_a_reply_without_posts_says_what_came(tmp_path, results):
    (tmp_path / 'reply.json').write_text(f'{{"results":{results}}}')
    with pytest.raises(ValueError, match='expected a list of posts, was'):
        read_news(tmp_path / 'reply.json')


def test_files_of_one_name_keep_all_their_dead_letters(tmp_path):
    settings = Settings(data=DataSettings(directory=str(tmp_path / 'data')))
    for folder in ('a', 'b', 'a'):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / 'posts.json').write_text(
            json.dumps([{'Title': '', 'Date': f'2025-11-14 1{ord(folder) % 10}:00:00-05:00', 'ID': folder}])
        )
        assert backfill_news(settings, tmp_path / folder / 'posts.json')['dead_letters'] == 1
    assert len((tmp_path / 'data' / 'dead_letters' / 'posts.json.jsonl').read_text().splitlines()) == 2
