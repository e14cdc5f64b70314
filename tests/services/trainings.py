"""Settings, trainings that are a line of shell, and patience, for the tests of trainings."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from crypto_rt.core.settings import Settings, load_settings
from crypto_rt.core.times import parse_time

ROOT = Path(__file__).parents[2]
KEY = ('BTC/USDT', 300, 600)
NAME = 'BTC-USDT_300s_600s'
NOON = parse_time('2026-11-29T12:00:00Z')
WELL = """echo '{"verdict": "not better than no change", "version": "1"}'"""


def settings_in(folder: Path, symbols: str = 'BTC/USDT', **training: object) -> Settings:
    data = {
        'directory': str(folder / 'data'),
        'symbols': symbols,
        'interval_seconds': 300,
        'horizon_seconds': 600,
    }
    small = {'folds': 2, 'trees': 5, 'first_rows': 50, 'runs_directory': str(folder / 'runs')}
    return load_settings('/dev/null', env={}, data=data, training=small | training)


def shell(text: str) -> Callable[[Settings, str], list[str]]:
    "A training that is a line of shell; its symbol is $1."
    return lambda settings, symbol: ['/bin/sh', '-c', text, 'train', symbol]


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'it never came'
        time.sleep(0.05)
