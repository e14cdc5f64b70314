"""What proves the ends of the candles in memory is counted as they come, are revised and are forgotten."""

from __future__ import annotations

from collections import Counter

from apps.recent import DecodedMessage, RecentMessages, proof_name
from crypto_rt.core.messages import encode
from crypto_rt.testing import candle


def test_the_counts_follow_revisions_and_what_is_forgotten() -> None:
    recent = RecentMessages(limit=3)
    for n in range(20):
        for revision, changes in enumerate([{'is_unproven': True}, {'evidence': 'rest'}] if n % 4 else [{}]):
            struct = candle(n, revision=revision, **changes)
            recent.add(DecodedMessage('candles', struct, encode(struct)))
            recent.add(DecodedMessage('candles', struct, encode(struct)))
        kept = Counter(proof_name(m.struct) for m in recent.rows['candles', 'BTC/USD'].values())
        assert +recent.candle_proofs == kept
    assert recent.candle_proofs['unproven'] == 0 and recent.candle_proofs['rest'] >= 2
