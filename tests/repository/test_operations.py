"""What operators look at fits what the API really exports: alert rules, their tests, and the Grafana dashboard."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from apps.app import create_app
from crypto_rt.core.messages import ServiceEvent, encode
from crypto_rt.core.settings import Settings

OPS = Path(__file__).parents[2] / 'ops'
PROMETHEUS_OWN = {'up'}


@pytest.fixture(scope='module')
def exported() -> dict[str, set[str]]:
    "Name of each sample that /metrics gives, and the names of its labels."
    event = encode(ServiceEvent('trades', 'started', 1_700_000_000_000))
    names: dict[str, set[str]] = {}
    with TestClient(create_app(Settings(), source=iter([('service_events', event)]))) as client:
        client.get('/v1/health')
        for family in text_string_to_metric_families(client.get('/metrics').text):
            for sample in family.samples:
                names.setdefault(sample.name, set()).update(sample.labels)
    return names


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for group in yaml.safe_load((OPS / 'prometheus' / 'alerts.yml').read_text())['groups']
        for rule in group['rules']
    ]


def panels() -> list[dict[str, Any]]:
    return json.loads((OPS / 'grafana' / 'dashboards' / 'crypto-rt.json').read_text())['panels']


def expressions() -> list[str]:
    return [rule['expr'] for rule in rules()] + [
        target['expr'] for panel in panels() for target in panel['targets']
    ]


@pytest.mark.parametrize('expression', expressions())
def test_expression_asks_for_what_the_api_exports(expression: str, exported: dict[str, set[str]]) -> None:
    used = set(re.findall(r'\b(crypto_rt_\w+|up)\b(?=[\s{\[)]|$)', expression))
    assert used and used <= set(exported) | PROMETHEUS_OWN
    for name, labels in re.findall(r'(crypto_rt_\w+)\{([^}]*)\}', expression):
        assert set(re.findall(r'(\w+)\s*[=!]', labels)) <= exported[name]


def test_prometheus_is_let_in_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    "prometheus.yml sends the key of a secret as a bearer token; compose gives the same key to the API."
    scrape = yaml.safe_load((OPS / 'prometheus' / 'prometheus.yml').read_text())['scrape_configs'][0]
    secrets = yaml.safe_load((OPS.parent / 'docker-compose.yml').read_text())['secrets']
    assert Path(scrape['authorization']['credentials_file']).name in secrets
    monkeypatch.setenv('CRYPTO_RT_API_KEYS', 'for-people,for-prometheus')
    with TestClient(create_app(Settings(), source=iter([]))) as client:
        assert client.get('/metrics', headers={'Authorization': 'Bearer for-prometheus'}).status_code == 200
        assert client.get('/metrics', headers={'Authorization': 'Bearer other'}).status_code == 401
        assert client.get('/metrics').status_code == 401


def test_every_alert_says_what_where_and_how_urgent() -> None:
    assert all(
        rule['labels']['severity'] in ('page', 'ticket') and {'summary', 'look'} <= set(rule['annotations'])
        for rule in rules()
    )


def test_every_alert_is_tested_to_fire() -> None:
    cases = yaml.safe_load((OPS / 'prometheus' / 'alerts.test.yml').read_text())['tests']
    fired = {
        check['alertname'] for case in cases for check in case['alert_rule_test'] if check.get('exp_alerts')
    }
    assert fired == {rule['alert'] for rule in rules()}


@pytest.mark.parametrize(
    'arguments',
    [
        ('test', 'rules', 'alerts.test.yml'),
        ('check', 'rules', 'alerts.yml'),
        ('check', 'config', '--syntax-only', 'prometheus.yml'),
    ],
)
def test_promtool_agrees(arguments: tuple[str, ...], promtool: str) -> None:
    done = subprocess.run(
        [promtool, *arguments], cwd=OPS / 'prometheus', capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_panels_can_be_told_apart_and_name_a_provisioned_source() -> None:
    sources = yaml.safe_load(
        (OPS / 'grafana' / 'provisioning' / 'datasources' / 'prometheus.yml').read_text()
    )['datasources']
    assert len({panel['id'] for panel in panels()}) == len(panels())
    assert {panel['datasource']['uid'] for panel in panels()} == {source['uid'] for source in sources}
