"""With and without the news: the interval of the difference keeps its promise, the rows are the same, and the pipeline reports."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crypto_rt.core.messages import NewsSignal, NewsWatermark, encode
from crypto_rt.core.settings import load_settings
from crypto_rt.models.ablation import Difference, block_bootstrap, evaluate, one_each, verdict_of, with_news
from crypto_rt.models.registry import mlflow_client
from tests.models.test_pipelines import candles_of, settings_in, store_candles

FIRST_MS = 1_704_067_200_000


def signals_of(hours: int, scorer: str = 'vader', seed: int = 2) -> list[NewsSignal]:
    "Return a story an hour, of one asset or the other."
    rng = np.random.default_rng(seed)
    return [
        NewsSignal(
            news_id=f'n{n}',
            scorer=scorer,
            version='1',
            assets=['BTC'] if n % 2 else ['ETH'],
            score=round(float(rng.uniform(-1, 1)), 4),
            label='neutral',
            confidence=0.5,
            text_hash=f'h{n}',
            published_ms=at,
            available_ms=at,
        )
        for n in range(hours)
        for at in [FIRST_MS + n * 3_600_000]
    ]


def test_the_interval_of_alike_neighbours_holds() -> None:
    "Each value resembles its ten neighbours; drawn one by one, the interval would hold about half as often as it says."
    held = 0
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(size=1009)
        found = block_bootstrap(np.convolve(noise, np.full(10, 10**-0.5), 'valid'), 10, draws=400)
        held += found.lower <= 0 <= found.upper
    assert held / 200 > 0.86


def test_the_same_seed_gives_the_same_interval_and_a_real_gain_is_seen() -> None:
    better = np.random.default_rng(0).normal(-0.2, 1, 2000)
    assert block_bootstrap(better, 1) == block_bootstrap(better, 1) != block_bootstrap(better, 1, seed=8)
    assert [verdict_of(block_bootstrap(d, 1)) for d in (better, -better, better + 0.2)] == [
        'helps',
        'hurts',
        'inconclusive',
    ]
    assert verdict_of(Difference(mean=0.0, lower=0.0, upper=0.0, block=1, n=100)) == 'inconclusive', (
        'features that change nothing'
    )
    with pytest.raises(ValueError, match='expected at least 48 differences for blocks of 12, were 40'):
        block_bootstrap(better[:40], 12)


def test_rows_at_which_nobody_listened_are_left_out_of_both_sides() -> None:
    start = FIRST_MS + 3_600_000 * np.arange(-5, 60)
    frame = pd.DataFrame({'symbol': 'BTC/USDT', 'start_ms': start, 'target': 0.0})
    both = with_news(frame, 3600, signals_of(10))
    assert both.start_ms.tolist() == [FIRST_MS + 3_600_000 * n for n in range(-1, 32)], (
        'known from the first story on, until a day after the last'
    )


def test_a_story_counts_once_and_scorers_are_not_mixed() -> None:
    head, vader = signals_of(5, 'head'), signals_of(5)
    again = [
        NewsSignal(
            news_id='n1',
            scorer='vader',
            version='2',
            assets=['BTC'],
            score=-1.0,
            label='negative',
            confidence=1.0,
            text_hash='h1',
            published_ms=FIRST_MS,
            available_ms=FIRST_MS + 10**8,
        )
    ]
    assert one_each([*again, *vader, *vader]) == vader
    assert one_each([*head, *vader], 'head') == head
    for scorer, words in (
        (None, 'of one scorer, were those of head, vader'),
        ('llm', 'of llm, were those of head, vader'),
    ):
        with pytest.raises(ValueError, match=words):
            one_each([*head, *vader], scorer)
    with pytest.raises(ValueError, match='were those of none'):
        one_each([])


def test_evaluate_reports_into_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = settings_in(tmp_path)
    store_candles(settings, candles_of(1200))
    lines = [encode(message) for message in (*signals_of(100), NewsWatermark(FIRST_MS + 10**9))]
    (tmp_path / 'signals.jsonl').write_bytes(b'\n'.join(lines))
    done = evaluate(settings, 'BTC/USDT', signals='signals.jsonl', progress=False)
    assert (
        done['verdict'] in ('helps', 'hurts', 'inconclusive')
        and done['lower_bp'] <= done['difference_bp'] <= done['upper_bp']
    )
    assert (done['scorer'], done['stories'], done['extra_features']) == ('vader', 100, 10) and done[
        'block_candles'
    ] >= 2
    run = mlflow_client(settings).get_run(done['run_id'])
    assert run.data.tags['verdict'] == done['verdict'] and run.data.metrics['upper_bp'] == done['upper_bp']
    kept = {Path(a.path).name for a in mlflow_client(settings).list_artifacts(done['run_id'])}
    assert {'by_candle.csv', Path(done['executed']).name} <= kept
    assert json.loads(json.dumps(done)) == done


def test_without_candles_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 's.jsonl').write_bytes(encode(signals_of(1)[0]))
    settings = load_settings(env={}, data={'directory': str(tmp_path / 'data')})
    with pytest.raises(
        ValueError,
        match='expected candles of BTC/USD of 60 s in the store, found none; run crypto-rt backfill',
    ):
        evaluate(settings, 'BTC/USD', signals='s.jsonl', progress=False)


def test_signals_come_back_from_the_store(tmp_path):
    from msgspec import structs

    from crypto_rt.core.messages import NewsSignal
    from crypto_rt.core.settings import DataSettings, Settings
    from crypto_rt.models.ablation import read_signals
    from crypto_rt.store.open import open_feature_store, open_group

    settings = Settings(data=DataSettings(directory=str(tmp_path)))
    one = NewsSignal(
        news_id='a1',
        scorer='head',
        version='1',
        assets=['BTC', 'ETH'],
        score=-0.5,
        label='negative',
        confidence=0.75,
        text_hash='f0',
        published_ms=1_700_000_000_000,
        available_ms=1_700_000_300_000,
        flags=['truncated'],
    )
    two = structs.replace(one, news_id='b2', assets=[], flags=[])
    store = open_feature_store(settings)
    open_group(store, 'news_signals').insert([two, one])
    store.close()
    assert sorted(read_signals(settings), key=lambda s: s.news_id) == [one, two]
