"""Serves the API: the process behind `crypto-rt api`."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from apps.app import create_app
from apps.auth import api_keys
from crypto_rt.core.settings import Settings, default_environment

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

log = logging.getLogger('crypto_rt.api')
MAX_FRAME = 4096  # bytes; what clients of the stream send is not read
OTHER_FILES = 100  # beside the sockets of clients
CHATTY = (
    'uvicorn.error',
    'crypto_rt.bus',
    'quixstreams',
    'confluent_kafka',
)  # loggers that repeat themselves, while the broker is away or under an attack
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class RateLimitedLogFilter(logging.Filter):
    """Lets a message of a kind through once in a while; the kind is its format and level."""

    def __init__(self, seconds: float = 30.0) -> None:
        super().__init__()
        self.seconds = seconds
        self.last: dict[tuple[str, int], float] = {}
        self.held: dict[tuple[str, int], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record may pass; the next one that may says how many could not."""
        kind, now = (str(record.msg), record.levelno), time.monotonic()
        if now - self.last.get(kind, -self.seconds) < self.seconds:
            self.held[kind] = self.held.get(kind, 0) + 1
            return False
        self.last[kind] = now
        if held := self.held.pop(kind, 0):
            record.msg, record.args = f'{record.getMessage()} ({held} more like it since)', ()
        return True


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a bound socket: on `port`, or on a free one where that is taken.

    Raises:
        OSError: When the host is none of this machine's.
    """
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    for wanted in (port, 0):
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, wanted))
            return bound
        except OSError as error:
            bound.close()
            if wanted == 0:
                raise OSError(f'[api] host {host}: cannot listen there: {error.strerror}') from None
            log.warning('port %s is taken; taking a free one', port)
    raise AssertionError('a loop that always returns or raises')


def run_api(settings: Settings, port: int | None = None, dashboard: bool = True) -> None:
    """Serve until SIGTERM or Ctrl-C; the port is noted in `<data directory>/api.port`.

    Raises:
        ValueError: When others could reach the API and there are no keys.
        OSError: When the host cannot be listened on.
    """
    default_environment(GRADIO_ANALYTICS_ENABLED='False')
    for name in CHATTY:
        logging.getLogger(name).addFilter(RateLimitedLogFilter())
    logging.getLogger('uvicorn').setLevel(logging.WARNING)
    allow_sockets(settings.api.max_connections + OTHER_FILES)
    app = create_app(settings, dashboard=dashboard)
    host = settings.api.host
    bound = listening_socket(host, settings.api.port if port is None else port)
    chosen = bound.getsockname()[1]
    port_file = Path(settings.data.directory) / 'api.port'
    port_file.parent.mkdir(parents=True, exist_ok=True)
    port_file.write_text(str(chosen))
    log.info('dashboard at %s', address(host, chosen))
    # uvicorn raises the signals again at its end; then they must not end us before the port file is gone
    before = {number: signal.signal(number, lambda *_: None) for number in STOP_SIGNALS}
    try:
        make_server(app, settings).run(sockets=[bound])
    finally:
        port_file.unlink(missing_ok=True)
        for number, handler in before.items():
            signal.signal(number, handler)
        bound.close()


def make_server(app: FastAPI, settings: Settings) -> uvicorn.Server:
    """Return the server of an app, for a socket that is bound, with the limits of `[api]` on connections."""
    import uvicorn

    from apps.connections import bounded_protocols

    api = settings.api
    config = uvicorn.Config(
        app,
        **bounded_protocols(api, has_keys=bool(api_keys(api.host))),
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,
        lifespan='on',
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(api.trusted_proxies),
        forwarded_allow_ips=','.join(api.trusted_proxies),
        timeout_keep_alive=api.idle_seconds,  # type: ignore[arg-type]  # the loop takes fractions, too
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


def allow_sockets(number: int) -> None:
    """Let this process have so many files and sockets, as far as the machine lets it."""
    if sys.platform == 'win32':
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < number:
        most = number if hard == resource.RLIM_INFINITY else min(number, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        if most < number:
            log.warning(
                'this process may have %s files and sockets; [api] max_connections needs %s', most, number
            )


def address(host: str, port: int) -> str:
    """Return where a browser of this machine finds the dashboard."""
    shown = '127.0.0.1' if host in ('0.0.0.0', '::') else host
    return f'http://[{shown}]:{port}' if ':' in shown else f'http://{shown}:{port}'
