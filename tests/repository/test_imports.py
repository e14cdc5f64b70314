"""The direction of imports: a notebook knows those before it, nothing is imported by its name as a text, the environment is read in one place.

Read from the source, the exported cells of `nbs/`, so that an import inside a function, under TYPE_CHECKING or in a
branch that no test takes counts like any other.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(p for p in (ROOT / 'nbs').rglob('*.ipynb') if 'checkpoints' not in str(p))
APPS = sorted((ROOT / 'apps').rglob('*.py'))
OURS = ('crypto_rt', 'apps', 'benches', 'tests')


def cells(path: Path, exported: bool = True) -> Iterator[str]:
    "Yield the source of the code cells."
    for cell in json.loads(path.read_text())['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'code' and (not exported or re.search(r'^#\|\s*exporti?\b', source, re.M)):
            yield re.sub(r'^\s*[%!].*', '', source, flags=re.M)


def module_of(path: Path) -> str | None:
    "Return the module that a notebook exports."
    names = (re.search(r'^#\|\s*default_exp\s+(\S+)', source, re.M) for source in cells(path, exported=False))
    return next((f'crypto_rt.{found[1]}' for found in names if found), None)


def order_of(path: Path) -> tuple[str, ...]:
    "Return what sorts notebooks as a reader meets them."
    return path.relative_to(ROOT / 'nbs').with_suffix('').parts


ORDER = {module: order_of(path) for path in NOTEBOOKS if (module := module_of(path))}


def imported(tree: ast.AST) -> Iterator[str]:
    "Yield the modules that a text imports, wherever in it."
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            inner = [f'{node.module}.{alias.name}' for alias in node.names]
            yield from ([name for name in inner if name in ORDER] or [node.module or ''])


def against_the_order(tree: ast.AST, module: str | None, at: tuple[str, ...]) -> Iterator[str]:
    "Yield the imports of something that comes later, of itself, or of an application."
    for name in imported(tree):
        if name.split('.')[0] in OURS[1:] or (name in ORDER and ORDER[name] >= at):
            yield f'imports {name}'


def by_text(tree: ast.AST) -> Iterator[str]:
    "Yield imports of our modules by a text: their name for `import_module`, or a program in a string."
    told = {id(node.args[0]) for node in ast.walk(tree) if is_call(node, 'getLogger') and node.args}
    told |= {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if is_call(node, 'import_module', '__import__'):
            name = node.args[0] if node.args else None
            if not (isinstance(name, ast.Constant) and str(name.value).split('.')[0] not in OURS):
                yield f'{ast.unparse(node)}'
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            text = node.value
            program = re.search(rf'\b(from|import)\s+({"|".join(OURS)})\b', text)
            name_of_module = text in ORDER or re.fullmatch(r'(apps|benches)(\.\w+)+', text)
            function = re.fullmatch(r'[a-z_]+(\.[a-z_]+)*:run_[a-z_]+', text)
            if program or name_of_module or function:
                yield f'names {text.strip()[:60]!r}'


def environment(tree: ast.AST) -> Iterator[str]:
    "Yield reads and writes of the environment."
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ('environ', 'getenv', 'putenv', 'environb'):
            yield f'uses {ast.unparse(node)}'
        elif isinstance(node, ast.ImportFrom) and node.module == 'os':
            names = {alias.name for alias in node.names} & {'environ', 'getenv', 'putenv', 'environb'}
            yield from (f'uses os.{name}' for name in names)


def is_call(node: ast.AST, *names: str) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    return (called.attr if isinstance(called, ast.Attribute) else getattr(called, 'id', '')) in names


def wrong_in(path: Path) -> set[tuple[str, str]]:
    "Return what is wrong in a notebook's exported cells or in a file of `apps`."
    place = str(path.relative_to(ROOT))
    notebook = path.suffix == '.ipynb'
    module = module_of(path) if notebook else None
    found: set[str] = set()
    for source in cells(path) if notebook else [path.read_text()]:
        tree = ast.parse(source)
        if notebook:
            found |= {*against_the_order(tree, module, order_of(path))}
        found |= {*by_text(tree)}
        if module != 'crypto_rt.core.settings':
            found |= {*environment(tree)}
    return {(place, what) for what in found}


PAGES = [p for p in NOTEBOOKS if module_of(p)] + APPS


@pytest.mark.parametrize('path', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_order_of_the_data(path: Path) -> None:
    assert sorted(what for _, what in wrong_in(path)) == []


def test_lessons_leave_the_environment_alone() -> None:
    "What a page shows must not depend on who reads it; `explore` is for a person's own machine."
    for path in NOTEBOOKS:
        if 'explore' not in path.parts and module_of(path) != 'crypto_rt.core.settings':
            lessons = {*cells(path, exported=False)} - {*cells(path)}
            for source in lessons:
                assert not {*environment(ast.parse(source))}, path


def test_the_package_has_folders_in_order() -> None:
    "The first part of a module's name is the folder of its notebook, without the number; `testing` is for everybody."
    for module, order in ORDER.items():
        if module == 'crypto_rt.testing':
            continue
        folder = re.sub(r'^\d+_', '', order[0])
        assert module.split('.')[1] == folder, (module, order)


# --- the test itself


@pytest.mark.parametrize(
    'source',
    [
        'def f():\n    from crypto_rt.system.runner import run',
        'from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import crypto_rt.system.runner',
        'from crypto_rt.system import runner',
        'from crypto_rt.store.open import store_dir',
        'from crypto_rt.store.export import export',
        'import apps.api',
        'from benches.bench_store import bench',
    ],
)
def test_an_import_of_what_comes_later_is_seen(source: str) -> None:
    at = ORDER['crypto_rt.store.open']
    assert [*against_the_order(ast.parse(source), 'crypto_rt.store.open', at)]
    assert not [*against_the_order(ast.parse('from crypto_rt.core import times'), None, at)]


@pytest.mark.parametrize(
    'source',
    [
        "importlib.import_module('crypto_rt.store.open')",
        'import_module(name)',
        "__import__(f'apps.{name}')",
        "Popen([python, '-c', f'from crypto_rt.store import open; open({x!r})'])",
        "BACKENDS = {'embedded': 'crypto_rt.store.embedded.store'}",
        "SERVICES = {'api': 'apps.api'}",
        "SERVICES = {'trades': 'trades:run_trades'}",
    ],
)
def test_an_import_by_text_is_seen(source: str) -> None:
    assert [*by_text(ast.parse(source))]


@pytest.mark.parametrize(
    'source',
    [
        "log = logging.getLogger('crypto_rt.store.open')",
        "importlib.import_module('pandas')",
        'def f():\n    "Import crypto_rt.store.open: from crypto_rt on."',
        "x = 'https://example.org/apps.api'",
    ],
)
def test_what_is_no_import_is_left_alone(source: str) -> None:
    assert not [*by_text(ast.parse(source))]


@pytest.mark.parametrize(
    'source', ["os.environ['A']", "os.getenv('A')", 'from os import environ', "posix.environ.get('A')"]
)
def test_a_look_into_the_environment_is_seen(source: str) -> None:
    assert [*environment(ast.parse(source))]
    assert not [*environment(ast.parse('os.path.join(a, b)'))]
