"""What every answer says of itself, and errors as problem details."""

import pytest
from fastapi.testclient import TestClient

from apps.app import create_app
from apps.headers import gradio_policy
from tests.apps.doubles import HERE

ADDRESSES = [
    '/',
    '/docs',
    '/features',
    '/v1/status',
    '/v1/nothing',
    '/metrics',
    '/openapi.json',
    '/crt/theme.css',
]


@pytest.mark.parametrize('path', ADDRESSES)
def test_every_answer_forbids_frames_and_guesses_and_tells_nobody_its_address(api, path):
    headers = api.client.get(path).headers
    policy = headers['content-security-policy']
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert 'unsafe' not in policy
    assert headers['x-content-type-options'] == 'nosniff' and headers['referrer-policy'] == 'no-referrer'
    assert headers['cache-control']


def test_of_the_scripts_inside_gradios_page_only_those_run_that_were_there():
    html = '<head><script>one()</script><script type="module" src="a.js"></script><script>one()</script>'
    policy = gradio_policy(html + '<SCRIPT async>two()\n</SCRIPT>')
    scripts = next(part for part in policy.split('; ') if part.startswith('script-src'))
    assert scripts.count('sha256-') == 2 and 'unsafe-inline' not in scripts
    assert "'sha256-HR7iaask9daLMRRskMI++QeJtjWDOjyPA6lGzYGzKW4='" in scripts


@pytest.mark.parametrize('path', ['/v1/symbols', '/docs', '/v1/candles?symbol=BTC/USD', '/crt/theme.css'])
def test_who_has_an_answer_already_is_told_so(api, path):
    first = api.client.get(path)
    tag = first.headers['etag']
    again = api.client.get(path, headers={'If-None-Match': f'"other", {tag}'})
    assert again.status_code == 304 and not again.content and again.headers['etag'] == tag
    assert api.client.get(path, headers={'If-None-Match': '"other"'}).status_code == 200


def test_long_answers_are_packed_for_who_takes_that(api):
    for path in ('/openapi.json', '/docs', '/crt/dashboard.css'):
        packed = api.client.get(path, headers={'Accept-Encoding': 'gzip'})
        plain = api.client.get(path, headers={'Accept-Encoding': 'identity'})
        assert packed.headers['content-encoding'] == 'gzip' and packed.content == plain.content
        assert 'content-encoding' not in plain.headers and 'Accept-Encoding' in plain.headers['vary']
        assert int(packed.headers['content-length']) < len(plain.content)


def test_head_is_get_without_the_body(api):
    head, get = api.client.head('/v1/symbols'), api.client.get('/v1/symbols')
    assert head.status_code == 200 and head.headers['etag'] == get.headers['etag']


def test_a_foreign_page_may_follow_a_link_to_us_and_ask_nothing(api):
    foreign = {'Sec-Fetch-Site': 'cross-site'}
    for origin in ('https://evil.example', 'null', 'http://[', ''):
        assert api.client.get('/v1/symbols', headers={'Origin': origin}).status_code == 403, origin
    assert api.client.get('/v1/symbols', headers={**foreign, 'Sec-Fetch-Mode': 'no-cors'}).status_code == 403
    assert api.client.get('/', headers={**foreign, 'Sec-Fetch-Mode': 'navigate'}).status_code == 200
    assert api.client.get('/v1/symbols', headers={'Origin': 'http://localhost:3000'}).status_code == 200


def test_our_own_fault_is_a_problem_too(settings, monkeypatch):
    app = create_app(settings, iter(()))
    monkeypatch.setattr(type(app.state.context.hub), 'symbols', property(lambda self: 1 / 0))
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
        answer = client.get('/v1/symbols')
        assert (answer.status_code, answer.json()['title']) == (500, 'Internal Server Error')
        assert 'division' not in answer.text
        assert answer.headers['x-content-type-options'] == 'nosniff'


def test_openapi_describes_every_error_as_a_problem(api):
    document = api.get('/openapi.json')
    for path, operations in document['paths'].items():
        answers = operations['get']['responses']
        assert {
            '400',
            '401',
            '403',
            '404',
            '405',
            '408',
            '413',
            '414',
            '422',
            '429',
            '431',
            '500',
            '503',
        } <= set(answers)
        for status, answer in answers.items():
            kinds = list(answer['content'])
            assert (kinds == ['application/problem+json']) == (status != '200'), (path, status)
    assert document['components']['schemas']['Problem']['required'] == ['type', 'title', 'status', 'detail']
    assert 'HTTPValidationError' not in document['components']['schemas']


def test_a_large_list_comes_packed_from_its_lane(api, monkeypatch):
    monkeypatch.setattr('apps.lanes.SMALLEST_PACKED', 1)
    answer = api.client.get('/v1/candles?symbol=BTC/USD&limit=5000', headers={'Accept-Encoding': 'gzip'})
    assert answer.headers['content-encoding'] == 'gzip' and len(answer.json()['candles']) == 2
    assert answer.headers['etag'].startswith('W/')
