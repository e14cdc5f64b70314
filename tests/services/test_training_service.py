"""Training by itself: when, what is due, how it ends, and the service as a process."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.cli import main
from crypto_rt.core.settings import Settings, to_env
from crypto_rt.core.times import parse_time
from crypto_rt.models.training_status import (
    PastTraining,
    TrainingStatus,
    next_run_ms,
    read_status,
    status_path,
    write_status,
)
from crypto_rt.services.training import TrainingService, train_in_process
from tests.models.test_pipelines import candles_of, store_candles
from tests.services.trainings import NAME, NOON, ROOT, WELL, settings_in, shell, wait_for


class Clock:
    "A clock that stands until it is moved."

    def __init__(self, now_ms: int = NOON) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


# --- when


@given(
    minute=st.integers(0, 59),
    hour=st.integers(0, 23),
    after_ms=st.integers(NOON, NOON + 400 * 86_400_000),
)
def test_a_daily_line_names_the_next_such_minute(minute: int, hour: int, after_ms: int) -> None:
    "Beside the calendar of the standard library, across months and years."
    after = datetime.fromtimestamp(after_ms / 1000, UTC)
    expected = after.replace(hour=hour, minute=minute, second=0, microsecond=0)
    expected += timedelta(days=1) if expected <= after else timedelta()
    assert next_run_ms(f'{minute} {hour} * * *', after_ms) == round(expected.timestamp() * 1000)


@pytest.mark.parametrize(
    'line', ['61 3 * * *', 'daily', '* * * *', '0 0 31 2 *', '17 25 * * *', '* * * * mon-']
)
def test_an_impossible_line_is_named(line: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match=r'\[training\] schedule must be a line of cron') as caught:
        next_run_ms(line, NOON)
    assert repr(line) in str(caught.value)
    assert main(['train', '--schedule', line, '--data-dir', str(tmp_path)]) == 2
    assert repr(line) in capsys.readouterr().err.splitlines()[-1]


def test_an_empty_line_trains_never(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    settings = settings_in(tmp_path, schedule='')
    store_candles(settings, candles_of(60))
    service = TrainingService(settings, threading.Event(), shell(WELL), Clock())
    service.step()
    assert not service.status.last and service.status.next_ms is None
    assert main(['train', '--schedule', '', '--data-dir', str(tmp_path)]) == 2
    assert 'was empty' in capsys.readouterr().err


# --- what is due


def test_the_first_model_is_trained_once_by_itself(tmp_path: Path) -> None:
    "With candles enough, before the clock says anything; not again by the next look, nor by the next service."
    settings, note = settings_in(tmp_path), tmp_path / 'trained'
    clock, count = Clock(), shell(f'echo $1 >> {note}; {WELL}')
    service = TrainingService(settings, threading.Event(), count, clock)
    service.step()
    store_candles(settings, candles_of(49))
    service.step()
    assert not note.exists(), 'one candle is missing'
    store_candles(settings, candles_of(60))
    for _ in range(3):
        service.step()
    again = TrainingService(settings, threading.Event(), count, clock)
    again.step()
    assert note.read_text().split() == ['BTC/USDT']
    assert read_status(settings).last[NAME].verdict == 'not better than no change'


def test_the_schedule_trains_what_has_new_candles(tmp_path: Path) -> None:
    "Two symbols, of which one stands still; a third has too few candles for a first model."
    settings, note = settings_in(tmp_path, 'BTC/USDT, ETH/USDT, SOL/USDT'), tmp_path / 'trained'
    clock, count = Clock(), shell(f'echo $1 >> {note}; {WELL}')
    for symbol, rows in (('BTC/USDT', 60), ('ETH/USDT', 60), ('SOL/USDT', 9)):
        store_candles(settings, candles_of(rows, symbol=symbol))
    service = TrainingService(settings, threading.Event(), count, clock)
    service.step()
    assert note.read_text().split() == ['BTC/USDT', 'ETH/USDT']
    store_candles(settings, candles_of(61, symbol='ETH/USDT'))
    clock.now_ms = parse_time('2026-11-30T03:17:00Z')
    assert service.seconds_to_wait() == 0
    service.step()
    assert note.read_text().split()[2:] == ['ETH/USDT']
    assert service.status.skipped[NAME].startswith('nothing new since the candle of')
    assert 'it has 9 of the 50 candles' in service.status.skipped['SOL-USDT_300s_600s']
    assert service.status.next_ms == parse_time('2026-12-01T03:17:00Z')


def test_a_first_model_that_fails_is_tried_again_ever_more_rarely(tmp_path: Path) -> None:
    settings, note, clock = settings_in(tmp_path, schedule='0 0 1 1 *'), tmp_path / 'tried', Clock()
    store_candles(settings, candles_of(60))
    failing = shell(f'echo 1 >> {note}; echo "crypto-rt: error: the price never moved" >&2; exit 2')
    service = TrainingService(settings, threading.Event(), failing, clock)
    tried = []
    for minute in range(60):
        clock.now_ms = NOON + minute * 60_000
        service.step()
        if len(note.read_text().split()) > len(tried):
            tried.append(minute)
    assert tried == [0, 4, 12, 28]
    assert service.status.last[NAME].failures == 4 and service.counts['failed'] == 4
    assert service.health.reasons()[0].startswith(f'training of {NAME}: the price never moved')


def test_a_moment_that_passed_while_nobody_was_there_is_made_up_for_once(tmp_path: Path) -> None:
    settings, note = settings_in(tmp_path), tmp_path / 'trained'
    store_candles(settings, candles_of(60))
    known = TrainingStatus(schedule='17 3 * * *', next_ms=NOON - 3 * 86_400_000)
    known.last[NAME] = PastTraining('BTC/USDT', 0, 0, outcome='trained', verdict='')
    write_status(settings, known)
    service = TrainingService(settings, threading.Event(), shell(f'echo 1 >> {note}; {WELL}'), Clock())
    service.step()
    service.step()
    assert note.read_text().split() == ['1'] and service.status.next_ms == NOON + 15 * 3_600_000 + 17 * 60_000


# --- how it ends


@pytest.mark.parametrize('deaf', [False, True], ids=['obeys', 'deaf to SIGTERM'])
def test_a_training_over_its_budget_is_ended(deaf: bool, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, budget_minutes=0.02)
    began = time.monotonic()
    text = f'{"trap : TERM; " if deaf else ""}echo $$ > {tmp_path}/pid; while :; do sleep 0.1; done'
    end = train_in_process(settings, shell(text)(settings, 'BTC/USDT'), threading.Event())
    assert end.outcome == 'killed' and '0.02 minutes, its budget' in end.verdict
    assert (time.monotonic() - began > 4) == deaf
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / 'pid').read_text()), 0)


@pytest.mark.parametrize(
    ('text', 'outcome', 'verdict'),
    [
        ('kill -9 $$', 'killed', 'killed by SIGKILL'),
        ('echo told; exit 3', 'failed', 'exit code 3, without a word'),
        (
            'echo "OSError: [Errno 28] No space left on device" >&2; exit 1',
            'failed',
            'No space left on device',
        ),
        ('echo "crypto-rt: error: no rows" >&2; echo more >&2; exit 2', 'failed', 'no rows'),
        ('echo not json', 'failed', 'expected a summary as its last line'),
        ('exit 0', 'failed', 'expected a summary as its last line'),
        ("echo '[1]'", 'failed', 'expected a summary as its last line'),
    ],
)
def test_every_end_is_a_verdict(text: str, outcome: str, verdict: str, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    end = train_in_process(settings, shell(text)(settings, ''), threading.Event())
    assert end.outcome == outcome and verdict in end.verdict


def test_a_command_that_is_not_there_is_a_verdict(tmp_path: Path) -> None:
    end = train_in_process(settings_in(tmp_path), [str(tmp_path / 'nothing')], threading.Event())
    assert end.outcome == 'failed' and 'no training could be started' in end.verdict


def test_it_runs_behind_all_others_with_every_setting(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, seed=41)
    text = """echo "{\\"verdict\\": \\"nice $(nice), seed $CRYPTO_RT_TRAINING_SEED\\"}\""""
    end = train_in_process(settings, shell(text)(settings, ''), threading.Event())
    assert end.verdict == f'nice {min(os.nice(0) + 10, 19)}, seed 41'


def test_a_full_disk_is_named_and_the_service_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in(tmp_path)
    store_candles(settings, candles_of(60))
    service = TrainingService(settings, threading.Event(), shell(WELL), Clock())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patched:
        patched.setattr('crypto_rt.services.training.write_status', full)
        service.step()
    assert 'training.json: [Errno 28] No space left on device' in service.health.reasons()[0]
    assert service.counts['trained'] == 1
    service.save()
    assert not service.health.reasons() and read_status(settings).last[NAME].outcome == 'trained'


def test_a_damaged_file_of_the_past_is_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = settings_in(tmp_path)
    status_path(settings).parent.mkdir()
    status_path(settings).write_bytes(b'{"last": {"x": \xff')
    assert read_status(settings) == TrainingStatus() and 'is begun anew' in caplog.text


def test_a_store_that_cannot_be_read_is_a_failure_of_its_symbol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, clock = settings_in(tmp_path), Clock()
    store_candles(settings, candles_of(60))
    service = TrainingService(settings, threading.Event(), shell(WELL), clock)

    def damaged(*_: object) -> None:
        raise RuntimeError('database disk image is malformed')

    monkeypatch.setattr('crypto_rt.services.training.open_feature_store', damaged)
    clock.now_ms = service.status.next_ms or 0
    service.step()
    assert 'database disk image is malformed' in service.status.last[NAME].verdict


# --- the service as a process

SERVICE = """
import sys
from crypto_rt.core.settings import load_settings
from crypto_rt.services.training import run_training
run_training(load_settings(), lambda settings, symbol: ['/bin/sh', '-c', sys.argv[1]])
"""


def start_service(settings: Settings, training: str) -> subprocess.Popen:
    "Start the service with a line of shell for a training."
    env = {**os.environ, **to_env(settings)}
    return subprocess.Popen([sys.executable, '-c', SERVICE, training], env=env, cwd=ROOT)


def is_alive(pid: int) -> bool:
    "Tell whether a process runs; one that has ended and waits to be collected does not."
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] not in 'ZX'
    except (FileNotFoundError, ProcessLookupError):
        return False


def pid_in(file: Path) -> int:
    "Return the process that wrote its number last; 0 before there is one."
    lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
    return int(lines[-1]) if lines and lines[-1].endswith('\n') else 0


@pytest.mark.skipif(sys.platform != 'linux', reason='the kernel ends the orphan only there')
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_service_that_is_ended_in_the_middle_leaves_no_training_and_does_not_begin_it_twice(
    number: int, tmp_path: Path
) -> None:
    settings, pids = settings_in(tmp_path, schedule='0 0 1 1 *'), tmp_path / 'pids'
    store_candles(settings, candles_of(60))
    service = start_service(settings, f'echo $$ >> {pids}; exec sleep 300')
    wait_for(lambda: pid_in(pids))
    service.send_signal(number)
    assert service.wait(5) == (-9 if number == signal.SIGKILL else 0)
    wait_for(lambda: not is_alive(pid_in(pids)), 5)
    left = read_status(settings)
    assert (left.running is not None) == (number == signal.SIGKILL)
    again = TrainingService(settings, threading.Event(), shell(f'echo 1 >> {pids}; {WELL}'))
    assert again.status.last[NAME].outcome == ('killed' if number == signal.SIGKILL else 'stopped')
    again.step()
    again.step()
    begun = len(pids.read_text().split())
    assert begun == (1 if number == signal.SIGKILL else 2), 'what was stopped goes on; what was killed waits'
