"""The process: its port, its log, and a bus that fails."""

import logging
import threading
import time

from apps.bus_reader import read_bus
from apps.serve import RateLimitedLogFilter, listening_socket
from crypto_rt.core.messages import encode
from tests.apps.builders import candle


def test_a_taken_port_is_passed_over():
    first = listening_socket('127.0.0.1', 0)
    first.listen()
    second = listening_socket('127.0.0.1', first.getsockname()[1])
    assert second.getsockname()[1] != first.getsockname()[1]
    first.close(), second.close()


def test_a_bus_that_fails_is_tried_again(settings, monkeypatch):

    stop, tries, heard, failures = threading.Event(), [], [], []

    def batches(settings, stop):
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError('no broker')
        yield [('candles', encode(candle(0)))]
        yield []
        yield [('candles', encode(candle(1)))]
        stop.set()

    monkeypatch.setattr('apps.bus_reader.bus_batches', batches)
    read_bus(
        settings, stop, lambda batch, publish: heard.append((len(list(batch)), publish)), failures.append
    )
    assert failures == ['no broker'] and heard == [(1, False), (0, False), (1, True)], (
        'what lay there before is remembered, not sent'
    )


def test_the_same_complaint_is_logged_once_in_a_while():

    seldom = RateLimitedLogFilter(seconds=0.05)
    told = [
        logging.LogRecord('x', logging.WARNING, '', 1, 'broker: %s', (f'50 % of {n}',), None)
        for n in range(6)
    ]
    assert [seldom.filter(record) for record in told[:5]] == [True, False, False, False, False]
    time.sleep(0.06)
    assert seldom.filter(told[5]) and told[5].getMessage() == 'broker: 50 % of 5 (4 more like it since)'
