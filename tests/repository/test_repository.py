"""The repository keeps its own promises: one truth per fact, and nothing in it that belongs to one machine or one registry."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.main import get_command

from apps.cli.app import app
from crypto_rt.core.compose import specs
from crypto_rt.core.messages import TOPICS, write_contracts
from crypto_rt.core.settings import SECRETS, SECTIONS, RunSettings, Settings, load_settings
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
    'news',
    'news-signals',
    'api',
}


def files() -> list[Path]:
    "Every file that git has or would take."
    listed = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted({ROOT / name for name in listed.stdout.split('\0') if name and (ROOT / name).is_file()})


def texts() -> list[tuple[Path, str]]:
    "The same, those that are text."
    found = []
    for file in files():
        try:
            found.append((file, file.read_text(encoding='utf-8')))
        except UnicodeDecodeError:
            continue
    return found


def slips(
    pattern: str,  # what must not occur
    but: tuple[str, ...] = (),  # names of files that may have it
) -> list[str]:  # file:line of each place
    "Find a pattern in all committed texts."
    return [
        f'{file.relative_to(ROOT)}:{number}'
        for file, text in texts()
        if file.name not in but
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(pattern, line)
    ]


# --- the lock


def pins() -> dict[str, tuple[str, Requirement]]:
    "Name to version and marker, as requirements.lock has them."
    lines = [
        line.rstrip(' \\')
        for line in (ROOT / 'requirements.lock').read_text().splitlines()
        if line and not line.startswith(' ')
    ]
    requirements = [Requirement(line) for line in lines]
    return {
        canonicalize_name(r.name): (next(iter(r.specifier)).version, r)
        for r in requirements
        if r.marker is None or r.marker.evaluate()
    }


def wanted() -> list[tuple[Requirement, str]]:
    "All requirements of pyproject.toml, extras included, that hold on this machine."
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    every = [
        *project['dependencies'],
        *(line for extra in project['optional-dependencies'].values() for line in extra),
    ]
    return [
        (r, 'pyproject.toml')
        for r in map(Requirement, every)
        if r.marker is None or r.marker.evaluate({'extra': ''})
    ]


def closure() -> dict[str, list[tuple[Requirement, str]]]:
    "Every distribution that pyproject.toml needs here, through all levels, with who asks for it and how."
    found: dict[str, list[tuple[Requirement, str]]] = {}
    todo, seen = wanted(), set()
    while todo:
        requirement, by = todo.pop()
        name = canonicalize_name(requirement.name)
        found.setdefault(name, []).append((requirement, by))
        for extra in {'', *requirement.extras}:
            if (name, extra) in seen or name == 'torch':
                continue
            seen.add((name, extra))
            inner = [Requirement(line) for line in metadata.requires(name) or []]
            todo += [(r, name) for r in inner if r.marker is None or r.marker.evaluate({'extra': extra})]
    return found


def test_lock_pins_all_that_pyproject_needs() -> None:
    "Without the network: the installed metadata says what each pin needs; all of it must be pinned, and fit."
    locked, torch = pins(), (ROOT / 'torch.txt').read_text().strip()
    assert re.fullmatch(r'torch==[0-9.]+', torch)
    locked['torch'] = (torch.partition('==')[2], Requirement(torch))
    wrong = []
    for name, asked in closure().items():
        for requirement, by in asked:
            if name not in locked:
                wrong.append(f'{by} needs {requirement}: not in the lock')
            elif not requirement.specifier.contains(locked[name][0], prereleases=True):
                wrong.append(f'{by} needs {requirement}: the lock has {locked[name][0]}')
    assert not wrong, 'run `make lock`:\n' + '\n'.join(wrong)


def test_lock_pins_nothing_else() -> None:
    "A pin that nobody needs any more is left over from an older pyproject.toml."
    torch_needs = {
        'filelock',
        'typing-extensions',
        'sympy',
        'networkx',
        'jinja2',
        'fsspec',
        'setuptools',
        'mpmath',
        'markupsafe',
    }
    left_over = set(pins()) - set(closure()) - torch_needs
    assert not left_over, f'run `make lock`; nobody needs {sorted(left_over)}'


def test_lock_is_what_is_installed() -> None:
    "Tests of another version than the locked one prove nothing about the lock."
    differ = {
        name: (version, metadata.version(name))
        for name, (version, _) in pins().items()
        if metadata.version(name) != version
    }
    assert not differ, 'run `make setup`; locked and installed: ' + str(differ)


def test_lock_names_no_place_and_has_hashes() -> None:
    lock = (ROOT / 'requirements.lock').read_text()
    assert not re.search(r'https?://|--(extra-)?index-url|--find-links|^-|#', lock, re.M)
    entries = re.split(r'\n(?=\S)', lock.strip())
    assert all('--hash=sha256:' in entry for entry in entries)


def test_cargo_lock_has_only_the_default_source() -> None:
    sources = set(re.findall(r'^source = "(.*)"', (ROOT / 'rust' / 'Cargo.lock').read_text(), re.M))
    assert len(sources) <= 1 and all(
        source.startswith('registry+') and 'index' in source for source in sources
    ), sources


# --- nothing of one machine


def test_no_registry_and_no_path_of_a_machine() -> None:
    "A clone works with whatever registries its user has set, wherever it lies."
    hosts = (
        r'\b(?:[\w-]+\.)*(?:py'
        + r'pi|python'
        + r'hosted|npm'
        + r'js|ma'
        + r'ven|cra'
        + r'tes|de'
        + r'bian|pyto'
        + r'rch)\.(?:org|io|com)\b'
    )
    assert not slips(hosts, but=('Cargo.lock',))
    places = {
        str(path) + '/'
        for path in {ROOT.parent, Path.home(), Path(sys.prefix)} - {Path(tempfile.gettempdir())}
        if len(path.parts) > 1
    }
    assert not slips('|'.join(map(re.escape, places)))


def test_no_unresolved_merge() -> None:
    "nbdev's merge driver turns conflict markers into markdown cells, which pass every other test."
    assert not slips(r'^\s*"?(<{7}|>{7}|={7}$)( |$|\\n)')


def test_licence_is_there_whole() -> None:
    text = (ROOT / 'LICENSE').read_text()
    assert (
        'Apache License' in text
        and 'Version 2.0, January 2004' in text
        and 'END OF TERMS AND CONDITIONS' in text
    )


# --- one truth per fact


def test_settings_file_equals_the_code() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / 'settings.ini', encoding='utf-8')
    there = {(section, key) for section in parser.sections() for key in parser[section]}
    assert there == {(section, key) for section, kind in SECTIONS.items() for key in kind.__struct_fields__}
    assert load_settings(ROOT / 'settings.ini', env={}) == Settings()


def test_every_setting_has_one_comment_line() -> None:
    lines = (ROOT / 'settings.ini').read_text().splitlines()
    keys = [number for number, line in enumerate(lines) if re.match(r'\w+ =', line)]
    assert keys and all(lines[number - 1].startswith('# ') for number in keys)


def test_contracts_equal_the_code(tmp_path: Path) -> None:
    fresh = {file.name: file.read_text() for file in write_contracts(tmp_path)}
    there = {file.name: file.read_text() for file in (ROOT / 'data_contracts').glob('*.schema.json')}
    assert there == fresh, (
        'write them again: .venv/bin/python -c "from crypto_rt.core.messages import write_contracts; write_contracts(\'data_contracts\')"'
    )


def test_contracts_table_names_every_topic_with_its_settings() -> None:
    rows = {}
    for line in (ROOT / 'data_contracts' / 'README.md').read_text().splitlines():
        if line.startswith('| [`'):
            name, key, partitions, hours, cleanup = (
                cell.strip(' `') for cell in line.strip('| ').split('|')[:5]
            )
            rows[re.sub(r'[\[\]`]|\(.*\)', '', name)] = (key, partitions, hours, cleanup)
    body = {
        name: json.loads((ROOT / 'data_contracts' / f'{name}.schema.json').read_text())['x-kafka']
        for name in TOPICS
    }
    assert rows == {
        name: (str(k['key']), str(k['partitions']), str(k['retention_hours']), k['cleanup'])
        for name, k in body.items()
    }


# --- the list of services


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
        == OURS - {'live': {'exchange'}, 'replay': {'backfill', 'reconcile'}, 'simulate': set()}[source]
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


# --- the image


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


def test_uv_is_one_version() -> None:
    found = {
        word
        for name in ('Makefile', 'Dockerfile')
        for word in re.findall(r'(?:uv==|UV_VERSION := )([0-9.]+)', (ROOT / name).read_text())
    }
    assert len(found) == 1, found


# --- the documents


@pytest.mark.parametrize(
    'page', [file for file in files() if file.suffix == '.md'], ids=lambda file: str(file.relative_to(ROOT))
)
def test_links_of_a_document_lead_somewhere(page: Path) -> None:
    links = [
        link for link in re.findall(r'\]\(([^)#\s]+)', page.read_text(encoding='utf-8')) if '://' not in link
    ]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_documents_name_settings_that_exist() -> None:
    for page in (ROOT / 'docs').glob('*.md'):
        for section, key in re.findall(r'`\[(\w+)\] (\w+)', page.read_text(encoding='utf-8')):
            assert key in SECTIONS[section].__struct_fields__, f'{page.name}: [{section}] {key}'
