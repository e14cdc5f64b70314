"""The candle service and Quix's own window on the same topics of a real Kafka: trades per CPU-second of
the process."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benches.bench_decode import market, messages
from benches.measuring import Bound, in_fresh_process, judged
from crypto_rt.core.settings import Settings, load_settings

SYMBOLS = ('BTC/USD', 'ETH/USD', 'SOL/USD', 'XRP/USD')
ROUNDS = 3


def produce(
    settings: Settings,
    count: int,  # trades, over all symbols
    size: int,  # trades in each message
) -> None:
    "Write a replay of four symbols to `trades`, with marks and the end."
    from crypto_rt.bus.sending import open_producer, send_end
    from crypto_rt.bus.topics import ensure_topics

    ensure_topics(settings)
    producer = open_producer(settings)
    rows = [messages(market(count // len(SYMBOLS)), size, symbol) for symbol in SYMBOLS]
    for at in range(max(map(len, rows))):
        for symbol, raws in zip(SYMBOLS, rows, strict=True):
            if at < len(raws):
                producer.send('trades', symbol, raws[at])
    send_end(producer, 'trades', 'bench')
    producer.flush()


def serve(
    settings: Settings,
    name: str,  # a consumer group of its own, so that it reads from the beginning
) -> dict[str, float]:  # seconds of CPU and by the clock, trades
    "Run the candle service up to the end marker."
    from crypto_rt.bus import service as bus
    from crypto_rt.bus.service import run_service, send_event
    from crypto_rt.services.candles import Candles

    send, began = send_event, []
    found: dict[str, float] = {}

    def noted(service: Any, kind: str, run_id: str = '') -> None:
        send(service, kind, run_id)
        began.append((time.process_time(), time.perf_counter()))
        if kind == 'end':
            (cpu, wall), (cpu_end, wall_end) = began[0], began[-1]
            found.update(cpu=cpu_end - cpu, wall=wall_end - wall, trades=service.step.counts['trades'])
            service.app.stop()

    bus.send_event = noted
    run_service(
        settings,
        name,
        inputs=['trades'],
        outputs=['candles', 'candles_forming', 'dead_letters'],
        step=Candles(settings),
    )
    return found


def quix_window(
    settings: Settings,
    count: int,  # messages
) -> dict[str, float]:  # seconds of CPU and by the clock, trades
    "Run Quix's tumbling window over the topic."
    from datetime import timedelta

    from quixstreams import Application

    from crypto_rt.bus.topics import topic_name

    seen = [0]
    name, folder = f'quix-{os.getpid()}', settings.data.directory
    app = Application(
        settings.kafka.broker,
        consumer_group=name,
        auto_offset_reset='earliest',
        state_dir=f'{folder}/{name}',
        loglevel='WARNING',
    )

    def first(trade: dict) -> dict:
        seen[0] += 1
        price = float(trade['price'])
        return dict(open=price, high=price, low=price, close=price, volume=float(trade['quantity']))

    def more(candle: dict, trade: dict) -> dict:
        seen[0] += 1
        price = float(trade['price'])
        return dict(
            open=candle['open'],
            high=max(candle['high'], price),
            low=min(candle['low'], price),
            close=price,
            volume=candle['volume'] + float(trade['quantity']),
        )

    def event_ms(value: Any, headers: Any, timestamp: float, kind: Any) -> int:
        return (
            value['trades'][0]['event_ms'] if 'trades' in value else value.get('exchange_ms', int(timestamp))
        )

    rows = app.dataframe(
        app.topic(topic_name(settings, 'trades'), value_deserializer='json', timestamp_extractor=event_ms)
    )
    rows = rows.apply(lambda message: message.get('trades', []), expand=True)
    window = rows.tumbling_window(timedelta(seconds=60), grace_ms=2000).reduce(more, first).final()
    window.to_topic(app.topic(name))
    began = time.process_time(), time.perf_counter()
    app.run(count=count, timeout=10)
    return {
        'cpu': time.process_time() - began[0],
        'wall': time.perf_counter() - began[1],
        'trades': seen[0],
    }


def rates(
    settings: Settings,
    calls: list[tuple[Callable[..., dict[str, float]], Any]],  # a function of this module and its argument
) -> dict[str, int]:  # trades per second
    "Return the medians, of the process's CPU and by the clock; each call runs in a process of its own."
    runs = [in_fresh_process(function, settings, argument) for function, argument in calls]
    return {
        name: round(statistics.median(run['trades'] / run[name] for run in runs)) for name in ('cpu', 'wall')
    }


def bench(count: int = 600_000, rounds: int = ROUNDS) -> dict[str, Any]:
    "Return the rates of the service at 1 and at 50 trades per message, and of Quix's window at 1."
    from crypto_rt.bus.broker import start_broker
    from crypto_rt.bus.topics import wait_for_broker

    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        broker = start_broker(Path(folder) / 'kafka')
        try:
            for size in (1, 50):
                kafka = {'broker': broker.address, 'topic_prefix': f'bench{size}.'}
                settings = load_settings(
                    '/dev/null', env={}, kafka=kafka, data={'directory': f'{folder}/data'}, api={'port': 0}
                )
                wait_for_broker(settings, 60)
                produce(settings, count if size == 1 else 4 * count, size)
                out[f'service_{size}'] = rates(settings, [(serve, f'candles-{n}') for n in range(rounds)])
                if size == 1:
                    out['quix_window_1'] = rates(settings, [(quix_window, count // 10)] * rounds)
        finally:
            broker.stop()
    times_quix = out['service_1']['cpu'] / out['quix_window_1']['cpu']
    times_single = out['service_50']['cpu'] / out['service_1']['cpu']
    return judged(
        out,
        service_over_quix_window=(times_quix, Bound(at_least=5)),
        messages_of_50_over_1=(times_single, Bound(at_least=1.5)),
    )


if __name__ == '__main__':
    print(json.dumps(bench(), indent=2))
