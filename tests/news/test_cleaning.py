"""Text, links, times and assets of a story, whatever a stranger writes."""

import html
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_rt.news.stories import (
    Entry,
    clean_url,
    html_to_text,
    known_codes,
    named_assets,
    panic_entry,
    published,
    story_of,
)
from tests.news.builders import NOW_MS


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
