"""The documents name every command, setting and topic that there is, and none that there is not."""

import itertools
import re
from pathlib import Path

import typer
from typer.main import get_command

from apps.cli.app import app
from crypto_rt.core.messages import TOPICS
from crypto_rt.core.settings import SECTIONS
from crypto_rt.models.forecasters import FORECASTERS

ROOT = Path(__file__).parents[2]


def commands(group: typer.core.TyperGroup, before: str = 'crypto-rt') -> set[str]:
    "Return every visible command as one types it, groups left out."
    found: set[str] = set()
    for name, command in group.commands.items():
        if not command.hidden:
            inner = isinstance(command, typer.core.TyperGroup)
            found |= commands(command, f'{before} {name}') if inner else {f'{before} {name}'}
    return found


def named_in(path: str) -> set[str]:
    "Return the commands that a page has in code, options left out."
    words = '(?:verify|bench) [a-z-]+|[a-z][a-z-]*'
    return set(re.findall(rf'`(crypto-rt (?:{words}))[^`]*`', (ROOT / path).read_text()))


def test_the_page_of_commands_has_each_of_them() -> None:
    there = commands(get_command(app))
    assert len(there) > 30
    assert there - named_in('docs/commands.md') == set()
    assert named_in('docs/commands.md') - there - {'crypto-rt bench'} == set()


def test_no_document_names_a_command_that_is_not_there() -> None:
    group = get_command(app)
    seen: set[str] = set()
    known = commands(group) | {f'crypto-rt {name}' for name in group.commands} | {'crypto-rt verify store'}
    for page in [
        'README.md',
        'CONTRIBUTING.md',
        *(str(p.relative_to(ROOT)) for p in ROOT.glob('docs/**/*.md')),
    ]:
        text = (ROOT / page).read_text()
        named = {
            line
            for block in re.findall(r'^(?:    |```\n)?(?:\.venv/bin/)?(crypto-rt [a-z].*)$', text, re.M)
            for line in re.findall(r'^crypto-rt (?:(?:verify|bench) )?[a-z-]+', block)
        }
        assert named - known == set(), page
        seen |= named
    assert len(seen) > 15  # the pattern still finds them


def test_settings_are_explained_where_they_are_set() -> None:
    "settings.ini has every section and key, each with a comment above it."
    lines = (ROOT / 'settings.ini').read_text().splitlines()
    explained = {
        line.partition('=')[0].strip()
        for above, line in itertools.pairwise(lines)
        if above.startswith('#') and '=' in line
    }
    for section, struct in SECTIONS.items():
        assert f'[{section}]' in lines
        assert set(struct.__struct_fields__) - explained == set(), section


def test_every_topic_has_a_row_and_a_schema() -> None:
    table = (ROOT / 'data_contracts/README.md').read_text()
    assert set(re.findall(r'^\| \[`(\w+)`\]', table, re.M)) == set(TOPICS)
    assert {
        p.name.removesuffix('.schema.json') for p in (ROOT / 'data_contracts').glob('*.schema.json')
    } == set(TOPICS)


def test_every_kind_of_model_is_named_where_one_chooses_it() -> None:
    settings, page = ((ROOT / path).read_text() for path in ('settings.ini', 'docs/training.md'))
    line = next(line for line in settings.splitlines() if line.startswith('# kind of model: '))
    assert set(re.findall(r'\w+', line.partition(':')[2])) - {'or'} == set(FORECASTERS)
    assert [kind for kind in FORECASTERS if f'`{kind}`' not in page] == []
