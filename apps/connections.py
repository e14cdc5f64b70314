"""Sockets that cannot be held for ever: how many, how long a head may be and take, what is left unread.

uvicorn bounds none of these: without a time-out half a request line holds its socket for good. Its two
protocols (HTTP by httptools, the websocket) are used as they are, with timers and counts around them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from apps.auth import is_loopback
from apps.headers import ALWAYS, NOTHING
from apps.limits import network_of
from apps.problems import MEDIA_TYPE, problem
from crypto_rt.core.settings import ApiSettings

MAX_HEADERS = 100
LINGER_SECONDS = 1.0  # for so long what still comes is thrown away, so that a refusal arrives before the end


class Refusal(NamedTuple):
    """A status code, and what is wrong."""

    status: int
    detail: str

    def encoded(self) -> bytes:
        """Return the whole answer, after which the connection ends."""
        body = problem(self.status, self.detail)
        headers = {
            **ALWAYS,
            'Content-Security-Policy': NOTHING,
            'Cache-Control': 'no-store',
            'Content-Type': MEDIA_TYPE,
            'Content-Length': str(len(body)),
            'Connection': 'close',
        }
        if self.status == 503:
            headers['Retry-After'] = '1'
        lines = [f'HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}']
        lines += [f'{name}: {value}' for name, value in headers.items()]
        return '\r\n'.join([*lines, '', '']).encode('latin-1') + body


class ConnectionLimits:
    """Counts the open sockets of one server, in all and by address.

    Args:
        settings: How many there may be, and the times.
        counts_loopback: Whether this machine's own sockets count against the limit of an address.
    """

    def __init__(self, settings: ApiSettings, counts_loopback: bool) -> None:
        self.settings, self.counts_loopback = settings, counts_loopback
        self.open: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count one more socket; False, and not counted, when it is one too many."""
        mine = self.settings.connections_per_address
        is_bounded = mine > 0 and (self.counts_loopback or not is_loopback(address))
        if self.open.total() >= self.settings.max_connections or (is_bounded and self.open[address] >= mine):
            return False
        self.open[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Count one less."""
        self.open[address] -= 1
        if self.open[address] <= 0:
            del self.open[address]


class UnreadTimer:
    """Cuts a connection whose client does not read what it was sent."""

    def __init__(
        self, transport: asyncio.Transport, seconds: float, before_cut: Callable[[], None] = lambda: None
    ) -> None:
        self.transport, self.seconds, self.before_cut = transport, seconds, before_cut
        self.timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Cut it after a while, unless it is stopped before; a timer that runs goes on."""
        if self.timer is None:
            self.timer = asyncio.get_running_loop().call_later(self.seconds, self._cut)

    def _cut(self) -> None:
        self.before_cut()
        if connection := self.transport.get_extra_info('socket'):
            # what is not sent is not kept by the kernel either
            with contextlib.suppress(OSError, ValueError):  # it may be closed already
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.transport.abort()

    def stop(self) -> None:
        """Let it live."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class MustRead(asyncio.Protocol):
    """A protocol whose client has to read: it stands before uvicorn's own, which knows no such limit."""

    limits: ConnectionLimits
    transport: asyncio.Transport
    unread: UnreadTimer

    def pause_writing(self) -> None:
        """Give the client a while to read."""
        super().pause_writing()
        self.unread.start()

    def resume_writing(self) -> None:
        """The client reads."""
        super().resume_writing()
        if not self.transport.is_closing():
            self.unread.stop()


class BoundedHttpProtocol(MustRead, HttpToolsProtocol):
    """HTTP whose heads are bounded in length and time, and whose answers have to be read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the socket, or turn it away; wait for the first head."""
        transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        super().connection_made(transport)
        self.times = self.limits.settings
        self.unread = UnreadTimer(transport, self.times.unread_seconds, self._give_up_answer)
        self.answering: RequestResponseCycle | None = None  # whose answer is being sent
        self.head_timer: asyncio.TimerHandle | None = None
        self.is_in_head, self.is_over, self.head_bytes = False, False, 0
        self.refusal: Refusal | None = None
        self.address = network_of(self.client[0]) if self.client else ''
        self.is_counted = self.limits.enter(self.address)
        if not self.is_counted:
            transport.write(Refusal(503, 'too many connections').encoded())
            self._close()
            return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the socket."""
        self._stop_timers()
        self._uncount()
        self._give_up_answer()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.answering = cycle
        super()._start_asgi_task(cycle, app)

    def _give_up_answer(self) -> None:
        if self.answering is not None:
            self.answering.disconnected = True
            self.answering.message_event.set()

    def _uncount(self) -> None:
        if self.is_counted:
            self.is_counted = False
            self.limits.leave(self.address)

    def _stop_timers(self) -> None:
        self.unread.stop()
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None

    # --- heads

    @property
    def is_answering(self) -> bool:
        """Whether a request has come whose answer is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """Read on; refuse a head that grows too long, and end what takes too long."""
        if self.is_over:
            return
        is_of_head = self.is_in_head or not self.is_answering
        super().data_received(data)
        if self.is_over or self.parser is None or self.transport.get_protocol() is not self:
            return
        if self.is_in_head or not self.is_answering:
            self.head_bytes += len(data) if is_of_head else 0
            if self.is_in_head and self.head_bytes > self.times.max_head_bytes:
                self._refuse(self._too_long(is_line=not self.headers))
            else:
                self._wait_for_head()

    def on_message_begin(self) -> None:
        """Note that a head has begun."""
        super().on_message_begin()
        self.is_in_head, self.head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Check the head as a whole before anyone is asked for an answer."""
        self.is_in_head, self.head_bytes = False, 0
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None
        length = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if len(self.url) > self.times.max_head_bytes // 2:
            self.refusal = self._too_long(is_line=True)
        elif length > self.times.max_head_bytes or len(self.headers) > MAX_HEADERS:
            self.refusal = self._too_long(is_line=False)
        if self.refusal:
            raise ValueError(self.refusal.detail)  # the parser stops, and send_400_response tells why
        super().on_headers_complete()

    def _too_long(self, is_line: bool) -> Refusal:
        most = self.times.max_head_bytes
        if is_line:
            return Refusal(414, f'a request line may have {most // 2} bytes')
        return Refusal(431, f'request line and headers may have {most} bytes and {MAX_HEADERS} headers')

    def _wait_for_head(self) -> None:
        if self.head_timer is None and not self.transport.is_closing():
            self.head_timer = self.loop.call_later(self.times.request_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        self.head_timer = None
        if self.is_answering:  # a pipelined head; it has to wait in any case
            self._wait_for_head()
        elif self.is_in_head:
            self._refuse(Refusal(408, f'the head did not come within {self.times.request_seconds:g} s'))
        else:
            self._close()

    # --- ends

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser did not take."""
        self._refuse(self.refusal or Refusal(400, 'this is not an HTTP request'))

    def _refuse(self, refusal: Refusal) -> None:
        """Answer, and end the connection once the client has had a while to read it."""
        self._stop_timers()
        self._unset_keepalive_if_required()
        self.is_over = True
        if self.transport.is_closing():
            return
        if self.is_answering:  # the answer before is not complete: nothing may come between its parts
            return self._close()
        self.transport.write(refusal.encoded())
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self._close)

    def _close(self) -> None:
        self.transport.close()
        self.unread.start()  # what is still to be sent may hold the socket no longer than this

    def on_response_complete(self) -> None:
        """Go on with the next request, or end."""
        super().on_response_complete()
        if self.transport.is_closing():
            self.unread.start()

    def timeout_keep_alive_handler(self) -> None:
        """End a connection on which no next request came."""
        super().timeout_keep_alive_handler()
        self.unread.start()

    def handle_websocket_upgrade(self) -> None:
        """Hand the socket over, and with it the duty to count it."""
        if self.is_answering:
            return self._refuse(Refusal(400, 'a websocket cannot be opened behind another request'))
        self._stop_timers()
        super().handle_websocket_upgrade()
        self.is_counted = False


class BoundedWebSocketProtocol(MustRead, WebSocketsSansIOProtocol):
    """A websocket that is counted, and whose client has to read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket over from HTTP."""
        transport = cast(asyncio.Transport, transport)
        super().connection_made(transport)
        self.unread = UnreadTimer(transport, self.limits.settings.unread_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the socket."""
        self.unread.stop()
        self.limits.leave(network_of(self.client[0]) if self.client else '')
        super().connection_lost(exc)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """End; what is still to be sent may hold the socket no longer than the time for reading."""
        super().on_task_complete(task)
        self.unread.start()

    def handle_parser_exception(self) -> None:
        """Close; a handshake that cannot be read is answered with 400, for there is no close frame yet."""
        if self.conn.close_sent is not None:
            return super().handle_parser_exception()
        self.close_sent = True
        self.transport.write(Refusal(400, 'this is no handshake of a websocket').encoded())
        self.transport.close()


def bounded_protocols(settings: ApiSettings, has_keys: bool) -> dict[str, Any]:
    """Return what uvicorn's `Config` takes for `http` and `ws`: protocols that share one count."""
    limits = ConnectionLimits(settings, counts_loopback=has_keys)
    return {
        'http': type('HttpProtocol', (BoundedHttpProtocol,), {'limits': limits}),
        'ws': type('WebSocketProtocol', (BoundedWebSocketProtocol,), {'limits': limits}),
    }
