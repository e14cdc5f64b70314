"""`/v1/status` and `/metrics`."""

import json
from pathlib import Path

import msgspec

from crypto_rt.core.messages import DeadLetter, ServiceEvent, Subscription
from tests.apps.builders import START, candle, forming


def test_status_counts_what_came_and_what_could_not_be_used(api):
    api.send(
        candle(0),
        forming(1),
        ServiceEvent(service='trades', kind='counts', at_ms=START, run_id='r', counts={'gaps': 2}),
        DeadLetter(id='trades/0/1', topic='trades', reason='cut', raw='', seen_ms=START),
    )
    api.send(b'{"type":"candle"', topic='candles')
    body = api.get('/v1/status')
    assert body['undecodable'] == {'candles': 1}
    assert body['dead_letters'] == {
        'count': 1,
        'last': {'topic': 'trades', 'reason': 'cut', 'seen_ms': START},
        'set_aside': [],
    }
    assert body['services']['trades']['counts'] == {'gaps': 2}
    assert body['clock_ms'] == START + 90_000 and body['messages']['candles'] == 1
    metrics = api.client.get('/metrics').text
    assert (
        'crypto_rt_api_messages_total{topic="candles"} 1.0' in metrics
        and 'crypto_rt_api_undecodable_total{topic="candles"} 1.0' in metrics
    )
    assert 'crypto_rt_api_request_seconds_bucket{' in metrics


def test_what_a_service_cannot_do_is_named_and_counted(api):
    refused = Subscription('ETH/USD', 'trade', 'refused', START, 'EAPI:Rate limit exceeded')
    ill = ServiceEvent(
        service='trades',
        kind='counts',
        at_ms=START,
        counts={'subscriptions_acknowledged': 3, 'subscriptions_refused': 1},
        degraded=['ETH/USD: trades refused: EAPI:Rate limit exceeded (since noon)'],
        subscriptions=[refused],
    )
    api.send(ill)
    body, metrics = api.get('/v1/status'), api.client.get('/metrics').text
    assert body['degraded'] == ['trades: ETH/USD: trades refused: EAPI:Rate limit exceeded (since noon)']
    assert body['subscriptions'] == {'acknowledged': 3, 'asked': 0, 'refused': 1, 'silent': 0}
    assert body['services']['trades']['subscriptions'] == [msgspec.to_builtins(refused)]
    assert 'crypto_rt_degraded{service="trades"} 1.0' in metrics
    assert 'crypto_rt_subscriptions{state="refused"} 1.0' in metrics
    api.send(msgspec.structs.replace(ill, degraded=[], subscriptions=[]))
    assert api.get('/v1/status')['degraded'] == []
    assert 'crypto_rt_degraded{service="trades"} 0.0' in api.client.get('/metrics').text


def test_status_names_the_messages_that_killed_a_service(api):
    letter = DeadLetter(
        id='candles/trades/0/7', topic='trades', reason='killed', raw='', seen_ms=START, deaths=3
    )
    api.send(letter, letter)
    said = {'id': 'candles/trades/0/7', 'reason': 'killed', 'deaths': 3, 'seen_ms': START}
    assert api.get('/v1/status')['dead_letters']['set_aside'] == [said]
    assert 'crypto_rt_api_set_aside_messages_total 1.0' in api.client.get('/metrics').text


def test_a_bus_that_is_back_is_no_longer_called_unreachable(api):
    api.hub.bus_error = api.hub.broker_error = 'no broker'
    api.send(candle(0))
    assert api.get('/v1/status')['bus'] == 'connected'


def test_the_comparison_with_the_exchange_is_shown(api, settings):
    assert api.get('/v1/status')['reconciliation'] == {
        'compared': 0,
        'exact': 0,
        'explained': 0,
        'unexplained': 0,
        'at_ms': None,
        'error': '',
    }
    file = Path(settings.data.directory) / 'reconciliation.json'
    file.write_text(
        json.dumps(
            {
                'ok': False,
                'compared': 6,
                'exact': 2,
                'explained': 3,
                'unexplained': 1,
                'at_ms': START,
                'evidence': [],
            }
        )
    )
    assert api.get('/v1/status')['reconciliation'] == {
        'compared': 6,
        'exact': 2,
        'explained': 3,
        'unexplained': 1,
        'at_ms': START,
        'error': '',
    }
    assert 'crypto_rt_reconciled_windows{verdict="unexplained"} 1.0' in api.client.get('/metrics').text
    file.write_text('[')
    assert 'cannot be read' in api.get('/v1/status')['reconciliation']['error']
