"""Services killed under faults on a real Kafka: no trade is lost, none doubled."""

import os
import signal
import subprocess

from crypto_rt.core.settings import load_settings, to_env
from crypto_rt.store.open import open_feature_store, open_group
from crypto_rt.verify.gaps import verify_gaps
from tests.market.builders import _line, start, wait_until

SYMBOLS = ('BTC/USD', 'ETH/USD', 'SOL/USD')
EACH = 2500


def stored_rows(chosen):
    try:
        return verify_gaps(chosen)['stored']
    except (ValueError, OSError):
        return 0


def test_killed_under_faults_nothing_is_lost_or_doubled(kafka_broker, tmp_path):
    (tmp_path / 'r.jsonl').write_text(
        '\n'.join(_line(symbol, n) for n in range(1, EACH + 1) for symbol in SYMBOLS)
    )
    server = start(
        'exchange',
        str(tmp_path / 'r.jsonl'),
        'drop=0.05,duplicate=0.03,reorder=0.02,close=0.0003,rest429=0.1;seed=3',
        stdout=subprocess.PIPE,
        text=True,
    )
    running = [server]
    try:
        urls = server.stdout.readline().split()
        chosen = load_settings(
            env={},
            data=dict(directory=str(tmp_path / 'd'), symbols=','.join(SYMBOLS)),
            kafka=dict(broker=kafka_broker, topic_prefix=f'gaps{os.getpid()}.', session_timeout_ms=2000),
            exchange=dict(websocket_url=urls[0], rest_url=urls[1], reconnect_first_seconds=0.2),
        )
        env = to_env(chosen) | {
            'CRYPTO_RT_RUN_SOURCE': 'replay',
            'CRYPTO_RT_RUN_UNTIL_IDLE': '1',
            'CRYPTO_RT_RUN_NEWS': '0',
            'CRYPTO_RT_RUN_ID': 'run',
        }
        feeds, keeper = start('trades', env=env), start('feature-store', env=env)
        running += [feeds, keeper]
        for goal in (800, 2500):
            wait_until(lambda goal=goal: stored_rows(chosen) > goal)
            for victim in (feeds, keeper):
                victim.send_signal(signal.SIGKILL)
                victim.wait()
            feeds, keeper = start('trades', env=env), start('feature-store', env=env)
            running += [feeds, keeper]
        assert feeds.wait(120) == 0
        wait_until(lambda: stored_rows(chosen) == EACH * len(SYMBOLS), 30)
        wait_until(lambda: (figures := verify_gaps(chosen))['ok'] and not figures['gaps_open'], 30)
        figures = verify_gaps(chosen)
        assert figures['duplicates'] > 0 and figures['gaps_filled'] > 20 and figures['exchange_holes'] == 0, (
            figures
        )
        frame = open_group(store := open_feature_store(chosen), 'trades').read()
        store.close()
        assert frame.groupby('symbol').trade_id.apply(list).to_dict() == {
            symbol: list(range(1, EACH + 1)) for symbol in SYMBOLS
        }
    finally:
        for process in running:
            process.kill()
            process.wait()
        server.stdout.close()
