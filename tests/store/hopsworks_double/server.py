"""The HTTPS servers of the double, and the whole of it as one thing to start and stop."""

from __future__ import annotations

import fcntl
import http.server
import json
import ssl
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

from . import groups, login, views  # noqa: F401 (each registers its endpoints)
from .certificates import make_certificates
from .cluster import Cluster, Fault, Refused
from .flight import QueryService
from .routes import ROUTES, Asked

FLIGHT_PORT = 5005  # the client knows no other
LOCK = Path(tempfile.gettempdir()) / 'crypto_rt_hopsworks_double.lock'


class Handler(http.server.BaseHTTPRequestHandler):
    "Checks the key, finds the endpoint, answers in one write."

    protocol_version = 'HTTP/1.1'
    wbufsize = -1
    timeout = 60
    double: Double
    key_header: tuple[str, str]

    def log_message(self, *arguments: Any) -> None:
        "Say nothing."

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        line = f'{self.command} {urllib.parse.urlsplit(self.path).path}'
        cluster = self.double.cluster
        with cluster.lock:
            cluster.asked.append(line)
            fault = next((f for f in cluster.faults if f.where in line), None)
            if fault:
                cluster.faults.remove(fault)
        if fault:
            time.sleep(fault.wait_seconds)
        try:
            if fault and fault.status and not fault.after:
                raise Refused(fault.status, 120000, 'the double was asked to fail')
            answer = self._answer(body)
            if fault and fault.status:
                raise Refused(fault.status, 120000, 'the double was asked to fail afterwards')
            self._send(200, answer)
        except Refused as refused:
            if refused.status == 501:
                cluster.unknown.append(f'{line}: {refused}')
            self._send(
                refused.status, {'errorCode': refused.code, 'errorMsg': str(refused), 'usrMsg': str(refused)}
            )
        except Exception as error:  # a fault of the double: the test must see it
            cluster.unknown.append(f'{line}: {error!r}')
            self._send(501, {'errorCode': 0, 'errorMsg': repr(error)})

    def _answer(self, body: bytes) -> Any:
        name, prefix = self.key_header
        if self.headers.get(name) != prefix + self.double.cluster.api_key:
            raise Refused(401, 320004, 'the API key is not valid')
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query, keep_blank_values=True)
        for route in ROUTES:
            if route.method == self.command and (found := route.path.fullmatch(url.path)):
                for key, values in query.items():
                    allowed = route.query.get(key, set())
                    if allowed is not None and not set(values) <= allowed:
                        raise Refused(501, 0, f'query {key}={values} is not known')
                text = self.headers.get('Content-Type') == 'text/plain'
                read = body.decode() if text or not body else json.loads(body)
                with self.double.cluster.lock:
                    return route.answer(
                        Asked(self.double.cluster, self.double.certificates, query, read), **found.groupdict()
                    )
        raise Refused(501, 0, f'no such endpoint; query {sorted(query)}')

    def _send(self, status: int, answer: Any) -> None:
        raw = b'' if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
        self.wfile.flush()


class Server(http.server.ThreadingHTTPServer):
    "HTTPS with the handshake in the connection's own thread."

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, handler: type[Handler], context: ssl.SSLContext):
        super().__init__(('127.0.0.1', port), handler)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        "Ignore clients that hang up or do not trust the certificate."


class Double:
    "A Hopsworks to test against: REST, online REST and Arrow Flight, over the broker it is given."

    def __init__(self, broker: str, folder: Path, port: int = 0, online_port: int = 0):
        self.folder, self.certificates = folder, make_certificates()
        self.lock = LOCK.open('w')
        fcntl.flock(self.lock, fcntl.LOCK_EX)  # one double at a time: the Flight port is fixed
        paths = self.certificates.write(folder)
        self.ca_file = paths['ca']
        self.cluster = Cluster(broker)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(paths['server'], paths['server_key'])
        shared = {'double': self}
        rest = type('Rest', (Handler,), {**shared, 'key_header': ('Authorization', 'ApiKey ')})
        online = type('Online', (Handler,), {**shared, 'key_header': ('X-API-KEY', '')})
        self.rest, self.online = Server(port, rest, context), Server(online_port, online, context)
        self.flight = QueryService(self.cluster, self.certificates, FLIGHT_PORT)
        for server in (self.rest, self.online):
            threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        "What a client of this double has in its environment."
        return {
            'HOPSWORKS_HOST': 'localhost',
            'HOPSWORKS_PORT': str(self.rest.server_port),
            'HOPSWORKS_PROJECT': self.cluster.project,
            'HOPSWORKS_API_KEY': self.cluster.api_key,
            'HOPSWORKS_TRUST_STORE_PATH': str(self.ca_file),
            'CRYPTO_RT_STORE_HOPSWORKS_ONLINE_PORT': str(self.online.server_port),
        }

    def fail(
        self, where: str, status: int = 0, times: int = 1, wait_seconds: float = 0.0, after: bool = False
    ) -> None:
        "Have the next requests whose `METHOD path` contains `where` go wrong."
        with self.cluster.lock:
            self.cluster.faults += [Fault(where, status, wait_seconds, after)] * times

    def close(self) -> None:
        "Stop all servers."
        for server in (self.rest, self.online):
            server.shutdown()
            server.server_close()
        self.flight.shutdown()
        self.cluster.close()
        fcntl.flock(self.lock, fcntl.LOCK_UN)
        self.lock.close()
