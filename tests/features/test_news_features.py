"""News features: the same bits for one moment and for many, in any order, and never from what was not known."""

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_rt.core.messages import NewsSignal
from crypto_rt.features.news_features import (
    LOOK_BACK_MS,
    NEWS_FEATURES,
    NEWS_NAMES,
    SILENCE_MS,
    news_columns,
    news_features,
)

NOW_MS = 1_704_067_200_000
signals = st.lists(
    st.builds(
        lambda n, ago, score, assets: NewsSignal(
            news_id=f'n{n}',
            scorer='s',
            version='1',
            assets=assets,
            score=score,
            label='neutral',
            confidence=0.5,
            text_hash=f'h{n}',
            published_ms=NOW_MS - ago,
            available_ms=NOW_MS - ago,
        ),
        st.integers(0, 10**6),
        st.integers(-3_600_000, 2 * LOOK_BACK_MS),
        st.floats(-1, 1),
        st.lists(st.sampled_from(['BTC', 'ETH', 'SOL']), unique=True),
    ),
    max_size=40,
)
moments = st.integers(NOW_MS - LOOK_BACK_MS, NOW_MS)


@settings(deadline=None)  # the first call imports pandas
@given(signals, st.lists(moments, min_size=1, max_size=8), st.sampled_from(['BTC', 'ETH', 'DOGE']))
def test_many_moments_have_the_bits_of_one(found: list[NewsSignal], at: list[int], asset: str) -> None:
    many = news_columns(np.array(at), asset, found).to_numpy()
    one = np.array(
        [
            [np.nan if value is None else value for value in news_features(found, asset, moment).values()]
            for moment in at
        ]
    )
    assert many.tobytes() == one.tobytes()


@given(signals, moments, st.randoms())
def test_order_and_future_change_no_bit(found: list[NewsSignal], at: int, chance: random.Random) -> None:
    mixed = [s for s in found if s.available_ms <= at]
    chance.shuffle(mixed)
    assert news_features(mixed, 'BTC', at) == news_features(found, 'BTC', at)
    assert news_features(
        [s for s in mixed if s.available_ms > at - LOOK_BACK_MS], 'BTC', at
    ) == news_features(found, 'BTC', at)


@given(signals, moments)
def test_null_says_that_nobody_listened_and_zero_that_nobody_wrote(found: list[NewsSignal], at: int) -> None:
    values = news_features(found, 'BTC', at)
    listened = any(at - SILENCE_MS < s.available_ms <= at for s in found)
    wrote = any('BTC' in s.assets and at - LOOK_BACK_MS < s.available_ms <= at for s in found)
    assert (values['news_count_24h'] is not None) == listened
    assert not listened or (values['news_count_24h'] > 0) == wrote
    assert set(news_features(found, 'BTC', at, known=False).values()) == {None}


@given(signals, moments)
def test_values_lie_in_their_ranges(found: list[NewsSignal], at: int) -> None:
    values = news_features(found, 'ETH', at)
    assert tuple(values) == NEWS_NAMES
    assert all(f.low <= value <= f.high for f in NEWS_FEATURES if (value := values[f.name]) is not None)
