"""The command line: the commands, options and exit codes that others rely on, and one clear line for each mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from apps.cli import main
from apps.cli.app import app
from apps.cli.parsing import spread

ROOT = Path(__file__).parents[2]
COMMAND = str(Path(sys.executable).with_name('crypto-rt'))
COMMON = {'--data-dir', '--log-level', '--help', '-h'}
# what people, containers and documents call; a name may be added here, never taken away
PROMISED = {
    'api': '--broker --horizon --interval --port --symbols',
    'backfill': '--absent --file --interval --news-file --since --symbols --until',
    'bench': '--json',
    'candles': '--broker --interval --symbols',
    'candles-replay': '--broker --file --interval --speed --symbols',
    'compact': '--dry-run',
    'doctor': '--broker --port',
    'evaluate': '--ablate --absent --candles --folds --horizon --horizons --interval --out --scorer --signals --symbols',
    'events': '--broker',
    'exchange': '--faults --file --host --port --seed --simulate --speed --symbols',
    'export': '--all-revisions --interval --out --since --symbol --until',
    'feature-store': '--broker --horizon --interval --port --symbols',
    'features': '--json --statistics --version',
    'indicators': '--broker --horizon --interval --port --symbols',
    'kafka': '--fetch --port',
    'models': '',
    'news': '--broker --news-file --symbols',
    'news-signals': '--broker --symbols',
    'predictions': '--broker --horizon --interval --port --symbols',
    'promote': '--horizon --interval --symbol --version --why',
    'recompute': '--interval --symbols',
    'reconcile': '--broker --horizon --interval --port --symbols',
    'rollback': '--horizon --interval --symbol --why',
    'status': '--port',
    'trades': '--broker --interval --record --symbols',
    'train': '--horizon --interval --schedule --symbols',
    'train-news': '--labelled --origin --promote --until',
    'training': '--broker --horizon --interval --port --symbols',
    'up': '--broker --file --for --horizon --interval --news-file --no-browser --port --source --speed --symbols --until-idle',
    'verify backends': '--backends --seeds',
    'verify candles': '--absent --candles --interval --symbols --trades',
    'verify chaos': '--broker --brokers --file --first --instances --seeds',
    'verify coverage': '--candles --folds --horizons --interval --level --symbols',
    'verify gaps': '--interval --symbols',
    'verify gate': '--alpha --candidates --power --seed',
    'verify indicators': '--absent --candles --interval --restart-every --symbols',
    'verify lag': '--candles --horizon-candles --interval --seed --symbols',
    'verify leaks': '--candles --interval --plant --seed --symbols',
    'verify news': '--injection --labelled',
    'verify serving': '--interval --since --symbols --until',
    'verify store': '--backends --seeds',
}


def commands(group, prefix=''):
    "Yield the full name of each command, and its flags."
    for name, command in group.commands.items():
        if hasattr(command, 'commands') and name != 'bench':
            yield from commands(command, f'{name} ')
        else:
            yield prefix + name, {flag for option in command.params for flag in option.opts if flag[0] == '-'}


def test_every_promised_command_has_its_options():
    there = dict(commands(get_command(app)))
    missing = {name: set(flags.split()) - there[name] for name, flags in PROMISED.items()}
    assert set(there) == set(PROMISED) and not any(missing.values()), missing
    on_files = {f'verify {name}' for name in ('coverage', 'gate', 'lag', 'leaks')}
    writes_state = set(there) - {'bench', 'verify chaos'} - on_files
    assert [name for name in writes_state if '--data-dir' not in there[name]] == []
    assert [name for name in set(there) - {'bench'} if '--log-level' not in there[name]] == []


def test_each_check_and_each_bench_is_a_command():
    root = get_command(app)
    checks = {file.stem for file in (ROOT / 'crypto_rt/verify').glob('[a-z]*.py')} - {
        'digests',
        'chaos_schedule',
    }  # helpers
    assert set(root.commands['verify'].commands) - {'store'} == checks
    benches = {file.stem.removeprefix('bench_') for file in (ROOT / 'benches').glob('bench_*.py')}
    assert set(root.commands['bench'].commands) - {'all'} == benches


@pytest.mark.parametrize('name', ['', *PROMISED, 'bench decode'])
def test_help_of_every_command(name, capsys):
    assert main([*name.split(), '--help']) == 0
    assert capsys.readouterr().out.startswith(f'Usage: crypto-rt {name}'.rstrip())


def test_help_lists_the_commands_in_groups(capsys):
    main(['--help'])
    text = capsys.readouterr().out
    titles = ['Options:', 'Run:', 'One service:', 'Data:', 'Models:', 'Checks:']
    assert [line for line in text.splitlines() if line in titles] == titles
    assert 'events' not in text
    main(['verify', '--help'])
    text = capsys.readouterr().out
    assert 'Claims about stored data:' in text and 'backends' in text and 'store  ' not in text


def test_help_imports_nothing_heavy():
    code = 'import sys; from apps.cli import main; main(["--help"]); print(*sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.partition('.')[0] for name in done.stdout.splitlines()[-1].split()}
    heavy = {
        'numpy',
        'pandas',
        'pyarrow',
        'quixstreams',
        'duckdb',
        'fastapi',
        'mlflow',
        'yaml',
        'rich',
        'httpx',
    }
    assert not loaded & heavy


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ([], 'Missing command'),
        (['upp'], "No such command 'upp'. Did you mean 'up'"),
        (['up', '--sorce', 'live'], '--source)'),
        (['up', '--source', 'kraken'], 'live'),
        (['up', '--for', 'long'], '--for'),
        (['export', 'candles', '--out', 'x.parquet'], '--symbol'),
        (['verify'], 'Missing command'),
        (['verify', 'gap'], "Did you mean 'gaps'"),
        (['verify', 'chaos', '--seeds', '0'], '--seeds must be 1 or more, was 0'),
        (['bench', 'decode', 'speed'], 'speed'),
        (['exchange'], 'give either --file F or --simulate'),
        (['doctor', '--log-level', 'LOUD'], 'LOUD'),
        (['candles', '--interval', '0'], 'interval_seconds must be from 1'),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(arguments, words, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    last = err.strip().splitlines()[-1]
    assert last.startswith('crypto-rt: error: ') and words in last and not out, err


@pytest.fixture
def raising(monkeypatch):
    "Let `crypto-rt models` raise."

    def install(error):
        def models(settings):
            raise error

        monkeypatch.setattr('crypto_rt.models.registry.models', models)

    return install


@pytest.mark.parametrize(
    ('error', 'code', 'line'),
    [
        (ValueError('too old'), 2, 'crypto-rt: error: too old\n'),
        (KeyError('no model 7'), 2, 'crypto-rt: error: no model 7\n'),
        (ConnectionError('nobody answers'), 1, 'crypto-rt: error: nobody answers\n'),
        (ImportError('no torch'), 1, 'crypto-rt: error: no torch\n'),
        (FileNotFoundError('jars are missing'), 1, 'crypto-rt: error: jars are missing\n'),
        (KeyboardInterrupt(), 130, ''),
    ],
)
def test_exit_codes(error, code, line, raising, capsys):
    raising(error)
    assert main(['models']) == code
    assert capsys.readouterr().err == line
    if line:
        with pytest.raises(type(error)):
            main(['--debug', 'models'])


@pytest.mark.parametrize('error', [ZeroDivisionError(), KeyError('close')])
def test_an_error_that_nobody_foresaw_is_a_traceback(error, raising):
    raising(error)
    with pytest.raises(type(error)):
        main(['models'])


@pytest.mark.parametrize(
    'command',
    [
        'export candles --symbol BTC/USD --out {}/x.parquet',
        'verify candles --trades {0}/a.csv --candles {0}/b.csv',
        'verify indicators --candles={}/a.csv',
        'up --no-browser --file {}/a.csv',
        'exchange --file {}/a.csv',
        'trades --record {}/a.jsonl',
    ],
)
def test_a_file_that_was_named_and_is_not_there_is_the_fault_of_who_named_it(command, tmp_path, capsys):
    missing = tmp_path / 'nowhere'
    state = tmp_path / 'data'
    assert main([*command.format(missing).split(), '--data-dir', str(state)]) == 2
    assert 'nowhere' in capsys.readouterr().err.splitlines()[-1]


def test_a_file_of_ours_that_is_not_there_is_our_fault(raising, tmp_path):
    ours = tmp_path / 'store' / 'lost.parquet'
    raising(FileNotFoundError(2, 'No such file or directory', str(ours)))
    assert main(['models', '--data-dir', str(tmp_path)]) == 1


def test_a_reader_that_goes_away_is_no_error():
    done = subprocess.run(
        f'set -o pipefail; {COMMAND} doctor | true',
        shell=True,
        executable='/bin/bash',
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, '')


def test_version(capsys):
    assert main(['--version']) == 0
    name, version = capsys.readouterr().out.split()
    assert name == 'crypto-rt' and version[0].isdigit()


@pytest.mark.parametrize(
    ('given', 'meant'),
    [
        ('--file a', '--file a'),
        ('--file a b c', '--file a --file b --file c'),
        ('--file a b --speed 1 c', '--file a --file b --speed 1 c'),
        ('--file=a b', '--file=a --file b'),
        ('what --file a --until-idle b', 'what --file a --until-idle b'),
        ('--file a --file b c', '--file a --file b --file c'),
    ],
)
def test_several_values_in_a_row(given, meant):
    assert spread(given.split(), {'--file'}) == meant.split()


def test_several_files_reach_the_command(monkeypatch, tmp_path, capsys):
    taken = []
    monkeypatch.setattr(
        'crypto_rt.backfill.files.backfill_file',
        lambda settings, file, **rest: taken.append(file) or {'rows': 1},
    )
    arguments = ['backfill', '--file', 'a.parquet', 'b.parquet', '--data-dir', str(tmp_path)]
    assert main(arguments) == 0 and taken == ['a.parquet', 'b.parquet']
    assert [json.loads(line)['file'] for line in capsys.readouterr().out.splitlines()] == taken


@pytest.fixture
def benches(monkeypatch):
    "Benches that measure nothing; their figures are what they were called with."
    for name in ('api', 'candles', 'decode', 'features', 'memory', 'news', 'store', 'symbols'):
        monkeypatch.setattr(
            f'benches.bench_{name}.bench', lambda *given, name=name: {'given': given, 'ok': name != 'memory'}
        )


def test_several_benches_in_a_row_each_with_its_options(benches, capsys):
    assert main(['bench', 'decode', '--trades', '5', 'store', 'features', '--json']) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        'ok': True,
        'decode': {'given': [5], 'ok': True},
        'store': {'given': [1_000_000], 'ok': True},
        'features': {'given': [6000], 'ok': True},
    }


@pytest.mark.parametrize('arguments', [['--json'], ['all', '--json'], ['--json', 'all']])
def test_all_benches(arguments, benches, capsys):
    assert main(['bench', *arguments]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found.pop('ok') is False and len(found) == 8 and not found['memory']['ok']


def test_without_json_the_object_is_indented(benches, capsys):
    assert main(['bench', 'decode']) == 0
    assert len(capsys.readouterr().out.splitlines()) > 3


def test_the_command_line_wins_over_the_environment(monkeypatch, capsys, tmp_path):
    seen = {}
    monkeypatch.setenv('CRYPTO_RT_KAFKA_BROKER', 'elsewhere:9092')
    monkeypatch.setattr(
        'crypto_rt.services.indicators.run_indicators', lambda settings: seen.update(s=settings)
    )
    assert main(['indicators', '--symbols', 'xbt/usd, eth/usd', '--interval', '900', '--broker', 'k:1']) == 0
    data = seen['s'].data
    assert (data.symbols, data.interval_seconds, data.horizon_seconds) == (('BTC/USD', 'ETH/USD'), 900, 900)
    assert seen['s'].kafka.broker == 'k:1'
    assert main(['indicators', '--data-dir', str(tmp_path), '--log-level', 'ERROR']) == 0
    assert seen['s'].kafka.broker == 'elsewhere:9092' and seen['s'].data.directory == str(tmp_path)


def test_shell_completion_knows_commands_and_choices():
    def complete(words):
        env = {**os.environ, '_CRYPTO_RT_COMPLETE': 'complete_bash', 'COMP_WORDS': words}
        env['COMP_CWORD'] = str(len(words.split(' ')) - 1)
        return subprocess.run([COMMAND], env=env, capture_output=True, text=True).stdout.split()

    assert complete('crypto-rt verify ga') == ['gaps', 'gate']
    assert {'live', 'replay'} <= set(complete('crypto-rt up --source '))
    assert '--restart-every' in complete('crypto-rt verify indicators --re')


def test_the_app_can_be_embedded():
    assert isinstance(app, typer.Typer)
