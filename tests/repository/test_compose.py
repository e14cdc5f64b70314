"""The compose file and the image: names that exist, pinned versions, and the same run in a container as in a process."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from apps.cli.app import app
from crypto_rt.core.compose import specs
from crypto_rt.core.settings import SECRETS, SECTIONS, RunSettings, load_settings
from crypto_rt.system.plan import service_environment

ROOT = Path(__file__).parents[2]
OURS = {
    'kafka',
    'exchange',
    'backfill',
    'trades',
    'candles',
    'indicators',
    'feature-store',
    'predictions',
    'reconcile',
    'training',
    'news',
    'news-signals',
    'api',
}


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / 'docker-compose.yml').read_text())


def services() -> dict[str, dict[str, Any]]:
    return compose()['services']


def test_compose_file_fits_its_schema() -> None:
    check = [
        sys.executable,
        '-m',
        'check_jsonschema',
        '--builtin-schema',
        'vendor.compose-spec',
        str(ROOT / 'docker-compose.yml'),
    ]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize('name', services())
def test_compose_service_is_whole(name: str) -> None:
    "What the schema cannot see: names that exist, ports on loopback, pinned images, a health check."
    service, everything = services()[name], compose()
    assert set(service.get('depends_on', {})) <= set(everything['services'])
    assert all(str(port).startswith('127.0.0.1:') for port in service.get('ports', []))
    assert service['healthcheck'].get('test') or service['restart'] == 'no'
    assert set(service.get('networks', [])) <= set(everything['networks'])
    named = {volume.split(':')[0] for volume in service.get('volumes', [])}
    assert {volume for volume in named if not volume.startswith('.')} <= set(everything['volumes'])
    assert all((ROOT / volume).exists() for volume in named if volume.startswith('.'))
    assert re.fullmatch(r'[\w./-]+:v?\d[\w.-]+', service['image'])


def test_compose_environment_is_known_to_the_settings() -> None:
    for name, service in services().items():
        ours = {
            key: re.sub(r'\$\{\w+:-(.*)\}', r'\1', str(value))
            for key, value in service.get('environment', {}).items()
            if key.startswith('CRYPTO_RT_')
        }
        assert load_settings(ROOT / 'settings.ini', env=ours), name
        for key in set(ours) - set(SECRETS):
            section, _, word = key.removeprefix('CRYPTO_RT_').lower().partition('_')
            assert section in SECTIONS and word in SECTIONS[section].__struct_fields__, f'{name}: {key}'


def in_container(name: str, given: dict[str, str]) -> dict[str, str]:
    "The environment of a container: the file's, where `${NAME:-default}` takes what the shell gave."
    return {
        key: re.sub(r'\$\{(\w+):-(.*?)\}', lambda found: given.get(found[1]) or found[2], str(value))
        for key, value in services()[name].get('environment', {}).items()
        if key.startswith('CRYPTO_RT_')
    }


@pytest.mark.parametrize(
    'run',
    [
        RunSettings(),
        RunSettings(source='simulate', news=False),
        RunSettings(source='replay', id='17-1762', until_idle=True),
    ],
    ids=lambda run: run.source,
)
@pytest.mark.parametrize('name', sorted(OURS - {'kafka', 'exchange'}))
def test_a_container_reads_the_same_run_as_a_process(name: str, run: RunSettings) -> None:
    "What `up` hands to a process, given to compose as variables of the shell, is what the container reads."
    process = service_environment(
        load_settings(ROOT / 'settings.ini', env={}),
        source=run.source,
        until_idle=run.until_idle,
        run_id=run.id,
        news=run.news,
    )
    given = {key: value for key, value in process.items() if key.startswith('CRYPTO_RT_RUN_')}
    assert load_settings(ROOT / 'settings.ini', env=process).run == run
    assert load_settings(ROOT / 'settings.ini', env=in_container(name, given)).run == run


def test_a_container_with_nothing_given_is_live() -> None:
    for name in OURS - {'kafka', 'exchange'}:
        assert load_settings(ROOT / 'settings.ini', env=in_container(name, {})).run == RunSettings(), name


@pytest.mark.parametrize('source', ['live', 'replay', 'simulate'])
def test_local_blocks_start_what_this_source_needs(source: str) -> None:
    "The runner's own reading of the file: it refuses unknown keys, unknown names and circles."
    there = [spec.name for spec in specs((ROOT / 'docker-compose.yml').read_text(), source)]
    assert (
        set(there)
        == OURS
        - {'live': {'exchange'}, 'replay': {'backfill', 'reconcile', 'training'}, 'simulate': set()}[source]
    )


def test_local_command_is_the_containers_command() -> None:
    "A service is the same subcommand here and there, and one that the command line knows."
    for name, service in services().items():
        if block := service.get('x-local'):
            assert shlex.split(block['command'])[:2] == ['crypto-rt', name]
            assert name in get_command(app).commands
            assert name == 'kafka' or service['command'][:2] == ['crypto-rt', name]


def test_kafka_is_one_version() -> None:
    "The image of the compose file is the Kafka of the jars."
    jar = next(
        line
        for line in (ROOT / 'ops' / 'kafka' / 'kafka-jars.txt').read_text().splitlines()
        if line.startswith('org.apache.kafka:kafka-server:')
    )
    assert services()['kafka']['image'] == 'apache/kafka:' + jar.split()[0].split(':')[2]


def test_dockerfile_copies_what_is_there_and_pins_what_it_takes() -> None:
    lines = re.sub(r'\\\n', ' ', (ROOT / 'Dockerfile').read_text()).splitlines()
    bases = [line.split()[1] for line in lines if line.startswith('FROM ')]
    assert bases and all(re.fullmatch(r'[\w./-]+:\d[\w.-]+', base) for base in bases)
    copied = [
        source
        for line in lines
        if line.startswith('COPY ') and '--from' not in line
        for source in line.split()[1:-1]
    ]
    assert copied and [source for source in copied if not (ROOT / source).exists()] == []
    assert any(line.startswith('USER ') and line != 'USER root' for line in lines)
    let_in = {line[1:] for line in (ROOT / '.dockerignore').read_text().splitlines() if line.startswith('!')}
    assert set(copied) == let_in
