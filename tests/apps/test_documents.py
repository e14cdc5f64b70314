"""The API describes itself, and docs/ names all that it has."""

import re
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from apps.app import create_app
from apps.recent import CHANNELS
from crypto_rt.core.settings import Settings
from tests.apps.doubles import HERE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def client():
    with TestClient(create_app(Settings(), source=iter([])), base_url=HERE) as client:
        yield client


@pytest.fixture(scope='module')
def openapi(client):
    return client.get('/openapi.json').json()


def first_column(page, title):
    "Return what stands in code in the first column of the table whose head begins with `title`."
    text = (ROOT / 'docs' / page).read_text()
    rows = re.search(rf'^\| {title} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)', text, re.M)[1].splitlines()
    return [name for row in rows for name in re.findall(r'`([^`{]+)[^`]*`', row.split('|')[1])]


def test_the_page_of_endpoints_loads_nothing_from_outside(client, openapi):
    page = client.get('/docs').text
    assert all(path in page for path in openapi['paths']) and '//' not in page.replace('<!doctype', '')


def test_lists_are_described_by_the_schemas_of_their_messages(openapi):
    schemas = openapi['components']['schemas']
    for path, name in (('candles', 'Candle'), ('indicators', 'TechnicalIndicators'), ('gaps', 'Gap')):
        answer = openapi['paths'][f'/v1/{path}']['get']['responses']['200']['content']['application/json']
        assert answer['schema']['properties'][path]['items'] == {'$ref': f'#/components/schemas/{name}'}
        assert 'symbol' in schemas[name]['properties']


def test_an_address_is_where_its_module_is(openapi):
    modules = {file.stem for file in (ROOT / 'apps' / 'routes').glob('*.py')}
    assert {path.split('/')[2] for path in openapi['paths'] if path != '/metrics'} | {'stream'} == modules


def test_docs_list_every_route(openapi):
    assert first_column('api.md', 'GET') == list(openapi['paths'])


def test_docs_list_the_parameters_of_every_route(openapi):
    text = (ROOT / 'docs' / 'api.md').read_text()
    for path, operations in openapi['paths'].items():
        row = re.search(rf'^\| `{path}` \|.*\| (.*)\|$', text, re.M)[1]
        parameters = operations['get'].get('parameters', [])
        expected = {p['name'] + ('' if p.get('required') else '?') for p in parameters}
        assert set(re.findall(r'`([^`]+)`', row)) == expected, path


def test_docs_list_every_channel():
    assert first_column('api.md', 'channel') == [*CHANNELS, 'stream']


def test_asyncapi_describes_every_channel(client):
    text = client.get('/asyncapi.yaml').text
    messages = yaml.safe_load(text)['components']['messages'].values()
    assert text.startswith('asyncapi: 3')
    assert {m['payload']['properties']['channel']['const'] for m in messages} == {*CHANNELS, 'stream'}


def test_docs_list_every_metric(client):
    client.get('/v1/health')
    families = text_string_to_metric_families(client.get('/metrics').text)
    exported = {
        f'{family.name}_total' if family.type == 'counter' else family.name
        for family in families
        if not family.name.endswith('_created')
    }
    assert set(first_column('monitoring.md', 'metric')) == exported
