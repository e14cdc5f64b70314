"""Files as other people's tools write them: those of ../shared/cases, and more of each kind."""

import gzip
import importlib.util
import json
import random
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import missing
from crypto_rt.backfill.files import backfill_file, candles_of_file
from crypto_rt.core.messages import Candle, latest_revisions
from crypto_rt.core.settings import Settings, load_settings
from crypto_rt.store.open import candle_history, open_feature_store, open_group

START = 1_762_795_380_000
OHLCV = ('open', 'high', 'low', 'close', 'volume')
DICE = random.Random(7)
TRADES = [
    {
        'symbol': 'BTC/USD',
        'trade_id': 1000 + n,
        'price': f'{105_000 + DICE.randint(-500, 500) / 10:.1f}',
        'quantity': f'{DICE.randint(1, 10**7) / 10**8:.8f}',
        'side': DICE.choice(['buy', 'sell']),
        'event_ms': START + n * 1000 + DICE.randint(0, 999),
    }
    for n in range(300)
]
BASE = {name: [trade[name] for trade in TRADES] for name in TRADES[0]}
LINES = [f'{Decimal(t["event_ms"]) / 1000:.3f},{t["price"]},{t["quantity"]}' for t in TRADES]
CANDLES: dict[str, list[Any]] = {
    'symbol': ['BTC/USD'] * 60,
    'start_ms': [START + 60_000 * n for n in range(60)],
    'open': [100.0 + n for n in range(60)],
    'high': [102.5 + n for n in range(60)],
    'low': [99.5 + n for n in range(60)],
    'close': [101.0 + n for n in range(60)],
    'volume': [1.5 + n for n in range(60)],
}


def made(
    path: Path, symbols: list[str] | None = None, interval: int | None = None, absent: str = 'hole'
) -> list[Candle]:
    "Return the minutes that a file gives, the last revision of each."
    found = candles_of_file(path, symbols, interval_seconds=interval, absent=absent, settings=Settings())
    minutes = [c for c in found if c.interval_seconds == 60]
    return latest_revisions(minutes, lambda c: (c.symbol, c.start_ms))


def numbers(candles: list[Candle]) -> list[list[Any]]:
    return [[c.start_ms, *(Decimal(getattr(c, name)) for name in OHLCV), c.trade_count] for c in candles]


def minutes_of(trades: list[dict[str, Any]]) -> list[list[Any]]:
    windows: dict[int, list[dict[str, Any]]] = {}
    for trade in trades:
        windows.setdefault(trade['event_ms'] // 60_000 * 60_000, []).append(trade)
    rows = []
    for start, some in sorted(windows.items()):
        prices, volume = [Decimal(t['price']) for t in some], sum(Decimal(t['quantity']) for t in some)
        rows.append([start, prices[0], max(prices), min(prices), prices[-1], volume, len(some)])
    return rows


WHOLE = minutes_of(TRADES)


def write(path: Path, data: Any) -> Path:
    if isinstance(data, dict | pa.Table):
        pq.write_table(pa.table(data) if isinstance(data, dict) else data, path)
    else:
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


# --- the cases of the field


@pytest.fixture(scope='module')
def cases(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    "Each case by its file, and the folder of them."
    maker = shared / 'cases' / 'files' / 'make.py'
    if not maker.is_file():
        missing('shared', 'there is no ../shared/cases/files/make.py beside this repository')
    spec = importlib.util.spec_from_file_location('file_cases', maker)
    assert spec and spec.loader
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp('cases')
    module.main(folder)
    return {
        'folder': folder,
        **{case['file']: case for case in json.loads((folder / 'cases.json').read_text())},
    }


NAMES = [
    'plain.parquet',
    'event_timestamp.parquet',
    'event_text.parquet',
    'event_null.parquet',
    'id_text.parquet',
    'id_null.parquet',
    'id_repeated.parquet',
    'ingest_float.parquet',
    'order_unknown.parquet',
    'mixed_case_symbol.parquet',
    'quantity_zero.parquet',
    'plain.csv',
    'newest_first.csv',
    'blank_last_line.csv',
    'volume_zero.csv',
    'price_zero.csv',
    'not_utf8.csv',
    'plain.json',
    'side_unknown.json',
    'order_unknown.json',
    'id_null.json',
    'quantity_zero.json',
    'candles.parquet',
    'candles_timestamp.parquet',
    'candles_nan.parquet',
    'candles_count_nan.parquet',
    'candles_interval_text.parquet',
    'candles_two_intervals.parquet',
    'candles_sparse.parquet',
    'candles_gone_back.parquet',
    'ohlc_last_text.json',
]


@pytest.mark.parametrize('name', NAMES)
def test_a_case_of_the_field(cases: dict[str, Any], name: str) -> None:
    case = cases[name]
    asked = dict(zip(case['arguments'][::2], case['arguments'][1::2], strict=True))
    symbols, interval = asked.get('--symbols'), asked.get('--interval')
    try:
        found = made(
            cases['folder'] / name, [symbols] if symbols else None, int(interval) if interval else None
        )
    except ValueError as error:
        assert case['refused'] is not None, error
        assert all(word in str(error) for word in case['refused'])
        return
    assert case['candles'] is not None, 'taken, where it must be refused'
    assert len(found) == len(case['candles'])
    for at, (row, want) in enumerate(zip(numbers(found), case['candles'], strict=True)):
        assert row[0] == want[0] and want[6] in (None, row[6])
        assert all(
            abs(have - Decimal(wanted)) <= Decimal('1e-8')
            for have, wanted in zip(row[1:6], want[1:6], strict=True)
        )
        assert not found[at].is_partial or at in (0, len(found) - 1)


def test_no_case_of_the_field_is_left_out(cases: dict[str, Any]) -> None:
    assert set(cases) - {'folder'} == set(NAMES)


# --- what means one thing is taken for it


def stamps(unit: str, zone: str | None) -> pa.Array:
    by = {'ms': 1, 'us': 1000, 'ns': 10**6}[unit]
    return pa.array([ms * by for ms in BASE['event_ms']], pa.int64()).cast(pa.timestamp(unit, zone))


ORDER = list(range(300))
random.Random(3).shuffle(ORDER)
FLOATS = {name: [float(cell) for cell in BASE[name]] for name in ('price', 'quantity')}
TAKEN: dict[str, Any] = {
    'reversed': {name: cells[::-1] for name, cells in BASE.items()},
    'shuffled': {name: [cells[at] for at in ORDER] for name, cells in BASE.items()},
    'twice': pa.concat_tables([pa.table(BASE), pa.table(BASE)]),
    'other_order_of_columns': {name: BASE[name] for name in reversed(BASE)},
    'capitals': {name.upper(): cells for name, cells in BASE.items()},
    'dictionaries': BASE
    | {name: pa.array(BASE[name]).dictionary_encode() for name in ('symbol', 'price', 'side')},
    'large_strings': BASE
    | {name: pa.array(BASE[name], pa.large_string()) for name in ('symbol', 'price', 'side')},
    'decimals': BASE | {'price': pa.array([Decimal(cell) for cell in BASE['price']], pa.decimal128(20, 6))},
    'floats': BASE | FLOATS,
    'naive_ms': BASE | {'event_ms': stamps('ms', None)},
    'utc_us': BASE | {'event_ms': stamps('us', 'UTC')},
    'berlin_ns': BASE | {'event_ms': stamps('ns', 'Europe/Berlin')},
    'ms_under_another_unit': BASE | {'event_ms': pa.array(BASE['event_ms']).cast(pa.timestamp('us'))},
    'float_ids': BASE | {'trade_id': [float(cell) for cell in BASE['trade_id']]},
    'unsigned_ids': BASE | {'trade_id': pa.array(BASE['trade_id'], pa.uint64())},
    'sides_in_capitals': BASE | {'side': [side.upper() for side in BASE['side']]},
    'ingest_half_empty': BASE | {'ingest_ms': [float(ms) if ms % 2 else None for ms in BASE['event_ms']]},
}


@pytest.mark.parametrize('name', TAKEN)
def test_trades_in_another_dress_give_the_same_candles(tmp_path: Path, name: str) -> None:
    found = made(write(tmp_path / 'f.parquet', TAKEN[name]))
    assert numbers(found) == WHOLE
    assert not any(candle.is_partial for candle in found[1:-1])


TEXTS: dict[str, str | bytes] = {
    'windows': '\r\n'.join(LINES) + '\r\n',
    'byte_order_mark': b'\xef\xbb\xbf' + '\n'.join(LINES).encode(),
    'packed': gzip.compress('\n'.join(LINES).encode()),
    'semicolons': '\n'.join(LINES).replace(',', ';'),
    'quoted': '\n'.join(','.join(f'"{cell}"' for cell in line.split(',')) for line in LINES),
    'a_comma_at_the_end': ',\n'.join(LINES) + ',\n',
    'blank_lines': '\n\n'.join(LINES) + '\n\n\n',
    'newest_first': '\n'.join(LINES[::-1]),
}


@pytest.mark.parametrize('name', TEXTS)
def test_lines_in_another_dress_give_the_same_candles(tmp_path: Path, name: str) -> None:
    assert numbers(made(write(tmp_path / 'f.csv', TEXTS[name]), ['BTC/USD'])) == WHOLE


def test_csv_with_names_is_a_table(tmp_path: Path) -> None:
    frame = pa.table(BASE).to_pandas()
    assert numbers(made(write(tmp_path / 'f.csv', frame.to_csv(index=False)))) == WHOLE
    frame.loc[4, 'side'] = 'hold'
    with pytest.raises(ValueError, match=r"f\.csv, line 6, column side: expected buy or sell, was 'hold'"):
        made(write(tmp_path / 'f.csv', frame.to_csv(index=False)))


def test_a_table_without_symbols_is_of_the_one_that_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / 'f.parquet', {name: cells for name, cells in BASE.items() if name != 'symbol'})
    assert numbers(made(path, ['BTC/USD'])) == WHOLE
    with pytest.raises(
        ValueError, match=r'f\.parquet does not say which pair it holds; name one with --symbols'
    ):
        made(path)


def test_a_reply_of_two_pairs_and_without_ids(tmp_path: Path) -> None:
    rows = [[t['price'], t['quantity'], t['event_ms'] / 1000, t['side'][0], 'l', ''] for t in TRADES]
    reply = {'error': [], 'result': {'XXBTZUSD': rows[::-1], 'XETHZUSD': rows, 'last': '1'}}
    found = made(write(tmp_path / 'f.json', json.dumps(reply)))
    for symbol in ('BTC/USD', 'ETH/USD'):
        assert numbers([candle for candle in found if candle.symbol == symbol]) == WHOLE


# --- what does not is refused, by its place


def with_cell(column: str, value: Any, at: int = 150) -> dict[str, Any]:
    return BASE | {column: [value if n == at else cell for n, cell in enumerate(BASE[column])]}


def pair(conflict: dict[str, Any]) -> pa.Table:
    return pa.concat_tables([pa.table(BASE), pa.table(conflict)])


REFUSED: dict[str, tuple[Any, str]] = {
    'seconds': (
        BASE | {'event_ms': [ms // 1000 for ms in BASE['event_ms']]},
        'row 1, column event_ms: .* look like seconds',
    ),
    'no_price': (with_cell('price', None), 'row 151, column price: expected a positive .*, was null'),
    'infinite': (with_cell('price', 'inf'), "row 151, column price: .*, was 'inf'"),
    'thousands': (with_cell('price', '105,000.1'), "row 151, column price: .*, was '105,000.1'"),
    'negative': (with_cell('quantity', '-1'), "row 151, column quantity: .*, was '-1'"),
    'nested': (BASE | {'price': [{'v': cell} for cell in BASE['price']]}, 'row 1, column price: .*was {'),
    'no_symbol': (with_cell('symbol', None), 'row 151, column symbol: expected a pair .*, was null'),
    'text_ids': (
        with_cell('trade_id', 7) | {'trade_id': [f'a{n}' for n in range(300)]},
        "row 1, column trade_id: .*'a0'",
    ),
    'rounded_ids': (BASE | {'trade_id': [n * 1e17 for n in range(300)]}, 'row 2, column trade_id'),
    'own_numbers': (
        BASE | {'trade_id': list(range(300))[::-1]},
        'column trade_id: expected ids that rise with time',
    ),
    'two_of_one_id': (
        pair(with_cell('price', '1')),
        'row 451, column trade_id: .*was 1150, which row 151 has',
    ),
    'too_large': (with_cell('quantity', '10000000000'), 'row 151, column quantity: expected less than'),
    'lacks_times': (
        {name: cells for name, cells in BASE.items() if name != 'event_ms'},
        r'trades \(it lacks event_ms\)',
    ),
    'two_prices': (
        pa.Table.from_arrays([pa.array(BASE[n]) for n in [*BASE, 'price']], names=[*BASE, 'price']),
        'expected one column price, there are 2',
    ),
}


@pytest.mark.parametrize('name', REFUSED)
def test_a_wrong_table_of_trades_is_refused_by_its_place(tmp_path: Path, name: str) -> None:
    data, words = REFUSED[name]
    with pytest.raises(ValueError, match=rf'^f\.parquet.*{words}'):
        made(write(tmp_path / 'f.parquet', data))


REFUSED_TEXT: dict[str, tuple[str | bytes, str]] = {
    'mixed_order': (
        '\n'.join([*LINES[:9], LINES[7], *LINES[10:]]),
        'line 10, column unix_seconds: expected one order',
    ),
    'short_line': (
        '\n'.join([*LINES[:9], LINES[9].rpartition(',')[0], *LINES[10:]]),
        'line 10: expected 3 cells .*, were 2',
    ),
    'milliseconds': (
        '\n'.join(line.replace('.', '', 1) for line in LINES),
        'line 1, column unix_seconds: .*milliseconds',
    ),
    'not_utf8': ('\n'.join(LINES).encode() + b'\n1762795999,\xe9,1\n', 'line 301, column price'),
    'open_quote': ('\n'.join([*LINES[:9], '"' + LINES[9], *LINES[10:]]), 'line 10: expected 3 cells'),
    'cut_gzip': (gzip.compress('\n'.join(LINES).encode())[:-900], 'f.csv'),
    'other_names': ('time,price,volume\n' + '\n'.join(LINES), "it begins with b'time,price,volume"),
    'five_columns': ('\n'.join(line + ',1,2' for line in LINES), 'line 1: expected 3 numbers .*, were 5'),
}


@pytest.mark.parametrize('name', REFUSED_TEXT)
def test_wrong_lines_are_refused_by_their_place(tmp_path: Path, name: str) -> None:
    data, words = REFUSED_TEXT[name]
    with pytest.raises(ValueError, match=words):
        made(write(tmp_path / 'f.csv', data), ['BTC/USD'])


def test_damaged_files_and_folders_are_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / 'f.parquet', BASE).read_bytes()
    for name, data in (('cut', whole[: len(whole) // 2]), ('broken', whole[:200] + bytes(600) + whole[800:])):
        with pytest.raises(ValueError, match=f'{name}.parquet: a damaged Parquet file'):
            made(write(tmp_path / f'{name}.parquet', data))
    with pytest.raises(ValueError, match='is a folder'):
        made(tmp_path)
    reply = json.dumps({'error': [], 'result': {'XXBTZUSD': [[1, 2, 3, 'b', 'l', '', 7]], 'last': '1'}})
    with pytest.raises(ValueError, match=r'reply.json, line 1, column \d+: expected JSON'):
        made(write(tmp_path / 'reply.json', reply[:40]))


# --- candles


CANDLES_TAKEN: dict[str, dict[str, Any]] = {
    'reversed': {name: cells[::-1] for name, cells in CANDLES.items()},
    'naive_ns': CANDLES
    | {'start_ms': pa.array([ms * 10**6 for ms in CANDLES['start_ms']]).cast(pa.timestamp('ns'))},
    'texts': {name: [str(cell) for cell in cells] for name, cells in CANDLES.items()},
    'counts_that_are_floats': CANDLES | {'trade_count': [7.0] * 59 + [None]},
    'says_its_length': CANDLES | {'interval_seconds': [60.0] * 60},
}


@pytest.mark.parametrize('name', CANDLES_TAKEN)
def test_candles_in_another_dress_are_the_same(tmp_path: Path, name: str) -> None:
    plain = made(write(tmp_path / 'plain.parquet', CANDLES))
    found = made(write(tmp_path / 'f.parquet', CANDLES_TAKEN[name]))
    assert len(plain) == 60 and [row[:6] for row in numbers(found)] == [row[:6] for row in numbers(plain)]


def candles_with(column: str, value: Any) -> dict[str, Any]:
    return CANDLES | {column: [value if n == 30 else cell for n, cell in enumerate(CANDLES[column])]}


CANDLES_REFUSED: dict[str, tuple[Any, str]] = {
    'high_below_low': (candles_with('high', 1.0), 'row 31, column high: expected low <= open, close <= high'),
    'low_above_open': (candles_with('low', 131.0), 'row 31, column low: expected low <= open, close <= high'),
    'negative_volume': (candles_with('volume', -1.0), 'row 31, column volume: .*was -1.0'),
    'off_the_raster': (
        candles_with('start_ms', START + 1_807_000),
        'row 31, column start_ms: expected a multiple',
    ),
    'two_of_one_start': (
        pa.concat_tables([pa.table(CANDLES), pa.table(candles_with('volume', 7.0))]),
        'row 91, column start_ms: expected one candle .* with other numbers than in row 31',
    ),
    'a_length_of_nothing': (CANDLES | {'interval_seconds': [0] * 60}, 'row 1, column interval_seconds'),
    'vwap_outside': (
        CANDLES | {'vwap': [5.0] * 60},
        'row 1, column vwap: expected a price from low 99.5 to high',
    ),
}


@pytest.mark.parametrize('name', CANDLES_REFUSED)
def test_a_wrong_candle_is_refused_by_its_place(tmp_path: Path, name: str) -> None:
    data, words = CANDLES_REFUSED[name]
    with pytest.raises(ValueError, match=rf'^f\.parquet, {words}'):
        made(write(tmp_path / 'f.parquet', data))


def test_an_interval_selects_and_never_renames(tmp_path: Path) -> None:
    hour = {'start_ms': [START // 3_600_000 * 3_600_000], 'high': [999.0], 'interval_seconds': [3600]}
    rows = {name: [cells[0]] for name, cells in CANDLES.items()} | hour
    minutes = pa.table(CANDLES | {'interval_seconds': [60] * 60})
    both = write(
        tmp_path / 'both.parquet', pa.concat_tables([minutes, pa.table(rows).select(minutes.column_names)])
    )
    assert len(made(both, interval=60)) == 60
    for asked, words in ((None, 'has candles of 60 s, 3600 s; name one'), (300, '--interval asks for 300')):
        with pytest.raises(ValueError, match=words):
            made(both, interval=asked)
    fives = write(tmp_path / 'fives.parquet', {name: cells[::5] for name, cells in CANDLES.items()})
    with pytest.raises(ValueError, match='has candles of 300 s, --interval asks for 60'):
        made(fives, interval=60)


def test_a_sparse_file_must_be_explained(tmp_path: Path) -> None:
    at = [n for n in range(60) if n % 2 == 0 or n % 7 == 0]
    sparse = write(tmp_path / 'f.parquet', {name: [cells[n] for n in at] for name, cells in CANDLES.items()})
    with pytest.raises(ValueError, match=r'name the length with --interval SECONDS, and say --absent empty'):
        made(sparse)
    assert len(made(sparse, interval=60)) == len(at)
    filled = made(sparse, interval=60, absent='empty')
    assert len(filled) == at[-1] + 1 and sum(candle.is_empty for candle in filled) == at[-1] + 1 - len(at)


# --- all or nothing


@pytest.mark.parametrize(
    ('name', 'data'),
    [
        ('f.parquet', with_cell('price', 'x', at=299)),
        ('f.csv', '\n'.join([*LINES, '1762799999,x,1'])),
        ('c.parquet', CANDLES | {'close': [*CANDLES['close'][:-1], float('nan')]}),
    ],
)
def test_nothing_of_a_refused_file_is_stored(tmp_path: Path, name: str, data: Any) -> None:
    settings = load_settings('/dev/null', env={}, data=dict(directory=str(tmp_path / 'd'), symbols='BTC/USD'))
    with pytest.raises(ValueError, match=name):
        backfill_file(settings, write(tmp_path / name, data), symbols=['BTC/USD'], progress=False)
    store = open_feature_store(settings)
    assert candle_history(store, 'BTC/USD', 60) == [] and not open_group(store, 'trades').entities()
    store.close()
