"""Lists out of the store, in two lanes: small ones in a thread, large ones in a process of their own.

A thread is not enough for large ones. Reading and encoding them holds the interpreter's lock, and then every
other request waits for it, however small.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any, NamedTuple

import msgspec
from fastapi import HTTPException

from apps.headers import tag_of
from apps.queries import LAST_MS
from apps.recent import identity
from crypto_rt.core.messages import decode, latest_revisions
from crypto_rt.core.settings import Settings

log = logging.getLogger('crypto_rt.api')
HEAVY_VALUES = (
    25_000  # rows times columns; from here on a list is made in the process, such as 500 rows of features
)
NICENESS = 5  # of the process: whoever asks for little goes first
WAIT_SECONDS = 30.0  # longer than this a list does not wait for its turn
WORK_SECONDS = 60.0  # and longer than this nothing takes
PACKING = 4  # level of gzip
SMALLEST_PACKED = 1024  # bytes


class Series(NamedTuple):
    """A list of messages that is asked for.

    Attributes:
        group: A feature group; its messages are those of the topic of that name.
        selections: For each symbol the columns that are given, and what they must be.
        span: [since, until) in milliseconds; None: open.
        limit: The newest so many.
        received: What the bus has brought of them, encoded.
    """

    group: str
    selections: tuple[dict[str, Any], ...]
    span: tuple[int | None, int | None]
    limit: int
    received: tuple[bytes, ...]


class Listing(NamedTuple):
    """A series as it is answered.

    Attributes:
        series: What is listed.
        name: The member that holds the list.
        members: The others.
        is_packed: Whether the client takes gzip.
    """

    series: Series
    name: str
    members: dict[str, Any]
    is_packed: bool


class Encoded(NamedTuple):
    """The body of an answer, its tag, whether it is packed, and what was wrong with the store."""

    body: bytes
    tag: str
    is_packed: bool
    problems: tuple[str, ...]


def values_in(series: Series) -> int:
    """Return at most how many values a list has: what it costs."""
    from crypto_rt.store.schema import GROUPS

    return series.limit * len(series.selections) * len(GROUPS[series.group].schema)


def open_store(settings: Settings) -> Any:
    """Return the feature store; None while there is none."""
    from crypto_rt.store.open import has_store, open_feature_store

    return open_feature_store(settings) if has_store(settings) else None


def stored_rows(store: Any, series: Series, equal: dict[str, Any]) -> list[Any]:
    """Return the newest messages of one selection that the store has."""
    from crypto_rt.store.schema import GROUPS

    group = store and store.get_feature_group(series.group, GROUPS[series.group].version)
    if not group:
        return []
    since, until = series.span
    found: list[Any] = group.history(equal, before_ms=until, since_ms=since, last=series.limit)
    return found


def read_series(store: Any, series: Series) -> tuple[list[Any], tuple[str, ...]]:
    """Return the messages of the store and the bus, the highest revision of each, oldest first.

    Args:
        store: An open one, or None.
        series: What is asked for.

    Returns:
        The messages, and why the store could not be read. Whatever a backend raises, what the bus brought is
        there.
    """
    received = [decode(series.group, raw) for raw in series.received]
    since, until = series.span
    rows: list[Any] = []
    problems = []
    for equal in series.selections:
        try:
            stored = stored_rows(store, series, equal)
        except Exception as error:
            problems.append(f'{equal["symbol"]}: {series.group} cannot be read from the store: {error}')
            stored = []
        mine = [row for row in received if all(getattr(row, name) == value for name, value in equal.items())]
        rows += latest_revisions([*stored, *mine], identity)
    rows.sort(key=lambda row: (row.start_ms, row.symbol))
    inside = [row for row in rows if (since or 0) <= row.start_ms < (until or LAST_MS)]
    return inside[-series.limit :], tuple(problems)


def encode_listing(store: Any, listing: Listing) -> Encoded:
    """Read a series and return it as it is answered."""
    rows, problems = read_series(store, listing.series)
    body = msgspec.json.encode({**listing.members, listing.name: rows})
    tag, is_packed = tag_of(body), listing.is_packed and len(body) >= SMALLEST_PACKED
    return Encoded(gzip.compress(body, PACKING) if is_packed else body, tag, is_packed, problems)


# --- in the process

_of_this_process: dict[str, Any] = {}


def _begin(settings: Settings) -> None:
    """Set this process up: polite, deaf to Ctrl-C, and gone when its parent is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != 'win32':
        os.nice(NICENESS)
    threading.Thread(target=_end_with_parent, name='parent', daemon=True).start()
    _of_this_process['settings'] = settings


def open_there() -> None:
    """Open the store of this process, so that the first list has not to wait for that."""
    if _of_this_process.get('store') is None:
        _of_this_process['store'] = open_store(_of_this_process['settings'])


def _end_with_parent() -> None:
    """Wait for the end of the process that started this one; then end, whatever is under way."""
    if parent := parent_process():
        parent.join()
        os._exit(0)


def encode_there(listing: Listing) -> Encoded:
    """Read a series from the store of this process, and return it as it is answered."""
    open_there()
    return encode_listing(_of_this_process['store'], listing)


class Lane:
    """Does one thing at a time; a few may wait.

    Args:
        room: How many may wait.
        executor: Makes what does it; called when it is first needed, and again after a process has died.
    """

    def __init__(self, room: int, executor: Callable[[], Executor]) -> None:
        self.room, self.make = room, executor
        self.turn = asyncio.Semaphore(1)
        self.present = 0  # who waits or has the turn
        self.seconds = 0.1  # that one takes, of late
        self.executor: Executor | None = None

    async def do(self, work: Callable[[], Any], is_gone: Callable[[], Awaitable[bool]] | None = None) -> Any:
        """Return what `work` returns, when its turn has come.

        Args:
            work: Where a process does it, it has to be picklable.
            is_gone: Tells whether the client has gone meanwhile, so that nothing is done for nobody.

        Raises:
            HTTPException: 503 when too many wait, or the work takes too long or dies; Retry-After says when
                to come back.
        """
        if self.present > self.room:
            raise self._not_now('too much is asked for at once')
        self.present += 1
        try:
            await asyncio.wait_for(self.turn.acquire(), WAIT_SECONDS)
            try:
                return await self._do_now(work, is_gone)
            finally:
                self.turn.release()
        except TimeoutError:
            raise self._not_now('too much was asked for before this') from None
        finally:
            self.present -= 1

    async def _do_now(self, work: Callable[[], Any], is_gone: Callable[[], Awaitable[bool]] | None) -> Any:
        if is_gone and await is_gone():
            raise self._not_now('the client has gone')
        began = time.monotonic()
        try:
            self.executor = self.executor or self.make()
            done = asyncio.get_running_loop().run_in_executor(self.executor, work)
            return await asyncio.wait_for(done, WORK_SECONDS)
        except (BrokenProcessPool, TimeoutError) as error:
            log.warning('the process that makes large lists has died or hangs; the next list starts another')
            self.close()
            raise self._not_now('this list could not be made') from error
        finally:
            self.seconds = 0.7 * self.seconds + 0.3 * (time.monotonic() - began)

    def _not_now(self, words: str) -> HTTPException:
        wait = max(1, round(self.seconds * (self.present + 1)))
        return HTTPException(503, f'{words}; ask again later, or for less', {'Retry-After': str(wait)})

    def close(self) -> None:
        """End the process at once, or the thread after what it does now; the next work makes another."""
        executor, self.executor = self.executor, None
        if executor is None:
            return
        processes = list((getattr(executor, '_processes', None) or {}).values())
        executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()


def one_thread() -> Executor:
    """Return what does one thing at a time in this process."""
    return ThreadPoolExecutor(1, 'store')


def one_process(settings: Settings) -> Executor:
    """Return what does one thing at a time in a process of its own, with its own store."""
    return ProcessPoolExecutor(1, mp_context=get_context('spawn'), initializer=_begin, initargs=(settings,))
