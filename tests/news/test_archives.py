"""Files of news: every item is accounted for, and what cannot be read is said by name."""

import base64
import gzip
import json
from pathlib import Path

import msgspec
import pytest

from crypto_rt.backfill.news import backfill_news
from crypto_rt.core.settings import DataSettings, Settings
from crypto_rt.news.archives import import_items, read_news
from tests.news.builders import BOMB


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
