"""What stands in for the bus, the store and a person who asks."""

import queue
import threading
import time

from apps.app import create_app
from apps.serve import listening_socket, make_server
from crypto_rt.core.messages import (
    Candle,
    DeadLetter,
    FormingCandle,
    News,
    NewsSignal,
    NewsWatermark,
    Prediction,
    ServiceEvent,
    TechnicalIndicators,
    encode,
)
from crypto_rt.core.settings import load_settings

HERE = 'http://127.0.0.1'


class Feed:
    "What the bus would bring."

    def __init__(self):
        self.waiting = queue.Queue()

    def __iter__(self):
        return iter(self.waiting.get, None)

    def send(self, *structs, topic=None):
        names = {
            Candle: 'candles',
            FormingCandle: 'candles_forming',
            Prediction: 'predictions',
            TechnicalIndicators: 'technical_indicators',
            DeadLetter: 'dead_letters',
            ServiceEvent: 'service_events',
            News: 'news',
            NewsWatermark: 'news',
            NewsSignal: 'news_signals',
        }
        for struct in structs:
            self.waiting.put(
                (topic or names[type(struct)], struct if isinstance(struct, bytes) else encode(struct))
            )


class Group:
    def __init__(self, rows):
        self.rows = rows

    def history(self, equal, *, before_ms=None, since_ms=None, last=1000):
        found = [r for r in self.rows if all(getattr(r, k) == v for k, v in equal.items())]
        return [r for r in found if (since_ms or 0) <= r.start_ms < (before_ms or 10**13)][-last:]


class Store:
    "A feature store with candles in it."

    def __init__(self, *candles):
        self.groups = {'candles': Group(candles)}

    def get_feature_group(self, name, version):
        return self.groups.get(name)


class Api:
    def __init__(self, client, feed):
        self.client, self.feed, self.hub = client, feed, client.app.state.context.hub

    def get(self, path, code=200, **query):
        answer = self.client.get(path, params=query)
        assert answer.status_code == code, answer.text
        return answer.json()

    def send(self, *structs, topic=None):
        before = sum(self.hub.received.values()) + sum(self.hub.undecodable.values())
        self.feed.send(*structs, topic=topic)
        until(
            lambda: (
                sum(self.hub.received.values()) + sum(self.hub.undecodable.values()) == before + len(structs)
            )
        )

    def stream(self, query='', **options):
        return self.client.websocket_connect(f'/v1/stream{query}', **options)


def until(true, seconds=5):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Server:
    "The real server, on a port of its own, with messages from this test."

    def __init__(self, folder, port=0, gradio=True, past=(), **api):
        self.feed, self.errors = Feed(), []  # errors: what scripts of its pages ran into
        settings = load_settings('/dev/null', {}, data={'directory': str(folder)}, api=api)
        self.app = create_app(settings, self.feed, Store(*past), dashboard=gradio, heartbeat_seconds=1)
        self.hub, self.socket = self.app.state.context.hub, listening_socket('127.0.0.1', port)
        self.port = self.socket.getsockname()[1]
        self.address = f'http://127.0.0.1:{self.port}/'
        self.server = make_server(self.app, settings)
        self.thread = threading.Thread(target=self.server.run, kwargs={'sockets': [self.socket]}, daemon=True)
        self.thread.start()
        until(lambda: self.server.started, 20)

    def stop(self):
        self.feed.waiting.put(None)
        self.server.should_exit = True
        began = time.monotonic()
        self.thread.join(10)
        self.socket.close()
        return time.monotonic() - began
