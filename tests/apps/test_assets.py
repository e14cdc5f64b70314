"""What lies under `/crt`: our own files, and the chart library."""

import re

import pytest

from apps import assets, dashboard

IMPORT = re.compile(r"""^import (?:[^'"]+ from )?'([^']+)';$""", re.M)


def our_files():
    return [file for file in assets.STATIC.rglob('*') if file.is_file()]


def test_the_chart_library_is_the_one_that_was_checked(monkeypatch):
    assert b'TradingView Lightweight Charts' in assets.chart_library()[:100]
    monkeypatch.setattr(assets, 'CHART_SHA256', '0' * 64)
    assets.chart_library.cache_clear()
    with pytest.raises(RuntimeError, match='expected SHA-256 0000'):
        assets.chart_library()
    assets.chart_library.cache_clear()


def test_nothing_third_party_and_no_outside_address_is_in_our_files():
    for file in our_files():
        text = file.read_text()
        assert len(text) < 60_000 and not re.search(r'https?://(?!www\.w3\.org)', text), file


def test_every_module_that_is_imported_is_there():
    for file in our_files():
        if file.suffix == '.js':
            text = file.read_text()
            assert len(IMPORT.findall(text)) == len(re.findall(r'^import\b', text, re.M)), (
                f'{file}: an odd import'
            )
            assert [
                name for name in IMPORT.findall(text) if not (file.parent / name).resolve().is_file()
            ] == []


def test_modules_come_with_their_type_and_are_kept_as_long_as_they_are_the_same(api):
    ours = re.search(r'src="(/crt/[0-9a-f]{8})/dashboard\.js" type="module"', dashboard.head())[1]
    for file in our_files():
        path = file.relative_to(assets.STATIC).as_posix()
        answer = api.client.get(f'{ours}/{path}')
        assert answer.status_code == 200 and 'immutable' in answer.headers['cache-control'], path
        for other in (f'/crt/{path}', f'/crt/00000000/{path}'):
            changed = api.client.get(other)
            assert changed.headers['cache-control'] == 'no-cache' and changed.content == answer.content
            again = api.client.get(other, headers={'If-None-Match': changed.headers['etag']})
            assert again.status_code == 304 and again.headers['cache-control'] == 'no-cache'
        if file.suffix == '.js':
            assert answer.headers['content-type'].startswith('text/javascript')
    for path in ('nothing.js', '../app.py', f'{ours}/../../app.py', '00000000', '00000000/live'):
        assert api.client.get(f'/crt/{path}').status_code == 404, path
