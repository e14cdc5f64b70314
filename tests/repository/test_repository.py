"""The repository keeps its own promises: one truth per fact, and nothing in it that belongs to one machine or one registry."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from conftest import LONGEST
from crypto_rt.core.messages import TOPICS, write_contracts
from crypto_rt.core.settings import SECTIONS, Settings, load_settings

ROOT = Path(__file__).parents[2]


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


def test_every_module_of_the_package_has_its_page() -> None:
    "nbdev leaves the module of a page that was moved or removed; it would be a second truth."
    lost = []
    for module in (ROOT / 'crypto_rt').rglob('*.py'):
        page = re.search(r'File to edit: (\S+\.ipynb)', module.read_text())
        if page and not (module.parent / page[1]).is_file():
            lost.append(str(module.relative_to(ROOT)))
    assert lost == []


def test_the_files_that_begin_first_are_there() -> None:
    assert [name for name in LONGEST if not (ROOT / name).is_file()] == []


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
