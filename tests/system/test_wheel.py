"""A wheel is built, installed into an environment of its own, and used in an empty folder: nothing of the checkout is needed.

The locked dependencies are not installed a second time: a `.pth` file shows the new environment those that run this test, and since
the paths of a `.pth` are not searched for others, the checkout's own editable install stays out of sight.
"""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
from pathlib import Path

import numpy as np
import pytest

from conftest import missing
from crypto_rt.core.package_files import package_file

ROOT = Path(__file__).parents[2]
TOOLS = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', '')])
CARRIED = [
    'docker-compose.yml',
    *(
        str(file.relative_to(ROOT))
        for pattern in ('data_contracts/*.json', 'ops/kafka/*', 'pipelines/*.ipynb')
        for file in sorted(ROOT.glob(pattern))
    ),
]


def test_the_package_carries_what_lies_at_the_top():
    "Each file by a link, so that there is one truth; a new contract or pipeline needs its link, too."
    data = ROOT / 'crypto_rt' / '_data'
    there = sorted(str(file.relative_to(data)) for file in data.rglob('*') if file.is_file())
    assert there == sorted(CARRIED)
    for name in CARRIED:
        assert package_file(name).is_symlink() and package_file(name).resolve() == ROOT / name


class Installed:
    "The wheel in an environment of its own, and an empty folder to run it in."

    def __init__(self, folder: Path):
        self.home, self.here = folder / 'env', folder / 'empty'
        self.here.mkdir()
        maturin = shutil.which('maturin', path=TOOLS)
        if not (maturin and shutil.which('cargo')):
            missing('wheel', 'maturin or cargo is not on the PATH')
        build = [str(maturin), 'build', '-q', '--release', '--out', str(folder)]
        done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        (self.wheel,) = folder.glob('*.whl')
        venv.create(self.home, with_pip=False)
        uv = str(shutil.which('uv', path=TOOLS))
        python = self.home / 'bin' / 'python'
        install = [
            uv,
            'pip',
            'install',
            '-q',
            '--no-deps',
            '--offline',
            '--python',
            str(python),
            str(self.wheel),
        ]
        subprocess.run(install, check=True, cwd=self.here)
        (packages,) = self.home.glob('lib/*/site-packages')
        seen = [path for path in sys.path if path.endswith('-packages') and Path(path) != packages]
        (packages / 'locked.pth').write_text('\n'.join(dict.fromkeys([*seen, sysconfig.get_path('purelib')])))

    def environment(self, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH' and not k.startswith('CRYPTO_RT_')}
        return {**kept, **more}

    def run(self, *arguments: str, **env: str) -> str:
        command = [str(self.home / 'bin' / 'crypto-rt'), *arguments]
        done = subprocess.run(
            command, cwd=self.here, env=self.environment(**env), capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, f'{arguments}: {done.stdout[-2000:]}\n{done.stderr[-3000:]}'
        return done.stdout


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    return Installed(tmp_path_factory.mktemp('wheel'))


@pytest.fixture(scope='module')
def candles(installed):
    "A CSV as Kraken offers it for download: seconds, OHLC, volume, count."
    rng, rows, close = np.random.default_rng(7), [], 60_000.0
    for number in range(2400):
        opened, close = close, close * float(np.exp(rng.standard_t(4) * 4e-4))
        high, low = max(opened, close) * 1.0003, min(opened, close) * 0.9997
        prices = (f'{price:.1f}' for price in (opened, high, low, close))
        rows.append([1_722_470_400 + 60 * number, *prices, f'{rng.exponential():.8f}', 9])
    file = installed.here / 'XBTUSD_1.csv'
    with file.open('w', newline='') as out:
        csv.writer(out).writerows(rows)
    return file.name


def test_nothing_is_taken_from_the_checkout(installed):
    code = 'import apps, benches, crypto_rt, crypto_rt._core as c; print(*(m.__file__ for m in (apps, benches, crypto_rt, c)))'
    done = subprocess.run(
        [installed.home / 'bin' / 'python', '-c', code],
        cwd=installed.here,
        env=installed.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(Path(path).is_relative_to(installed.home) for path in done.stdout.split()), done.stdout


def test_doctor(installed):
    lines = installed.run('doctor').splitlines()
    verdicts = {line[5:17].strip(): line[:4].strip() for line in lines}
    assert 'BAD' not in verdicts.values(), lines
    assert verdicts['rust core'] == verdicts['kafka'] == verdicts['libraries'] == 'ok', lines


def test_backfill_then_train(installed, candles):
    done = json.loads(installed.run('backfill', '--file', candles, '--symbols', 'BTC/USD').splitlines()[-1])
    assert done['file'] == candles
    small = {'CRYPTO_RT_TRAINING_TREES': '5', 'CRYPTO_RT_TRAINING_FOLDS': '2'}
    summary = json.loads(
        installed.run('train', '--symbols', 'BTC/USD', '--interval', '60', **small).splitlines()[-1]
    )
    assert summary['version'] and list((installed.here / 'runs').rglob('*.ipynb'))
    assert installed.run('models').count('\n') == 1


def test_verify_indicators(installed, candles):
    figures = json.loads(installed.run('verify', 'indicators', '--candles', candles, '--symbols', 'BTC/USD'))
    assert figures['ok'] and figures['values'] > 50_000 and figures['bits_mismatched'] == 0


def test_bench_decode(installed):
    figures = json.loads(installed.run('bench', 'decode', '--trades', '2000', '--json'))
    assert figures['decode']['ratios'] and figures['decode']['frames_of_50_rust_decode_and_fold'] > 0


def test_up_runs_the_whole_system(installed):
    command = [str(installed.home / 'bin' / 'crypto-rt'), 'up', '--source', 'simulate', '--speed', '60']
    log = installed.here / 'up.log'
    with log.open('w') as out:
        env = installed.environment(CRYPTO_RT_API_PORT='0')
        process = subprocess.Popen(
            [*command, '--data-dir', 'simulated'], cwd=installed.here, env=env, stdout=out, stderr=out
        )
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r'^crypto-rt: dashboard at (http://\S+)', log.read_text(), re.M)):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        for path, words in (('/', b'<'), ('/v1/symbols', b'BTC/USD'), ('/features', b'<')):
            with urllib.request.urlopen(found[1] + path, timeout=30) as answer:
                assert answer.status == 200 and words in answer.read(), path
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, log.read_text()[-3000:]
