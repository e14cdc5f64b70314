"""The past: what the feature store holds, read in a thread or a process of its own and never written."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import HTTPException

from apps.lanes import (
    HEAVY_VALUES,
    Encoded,
    Lane,
    Listing,
    Series,
    encode_listing,
    encode_there,
    one_process,
    one_thread,
    open_store,
    open_there,
    read_series,
    values_in,
)
from apps.queries import ListQuery
from crypto_rt.core.settings import Settings

log = logging.getLogger('crypto_rt.api')
STATISTICS_SECONDS = 300.0  # for so long statistics of the store count as new
STATISTICS_RETRY_SECONDS = 10.0  # while there are none
SMALL_QUEUE = 200  # small lists that may wait for their turn


class History:
    """Reads the store; whatever a backend raises, the stream goes on without the past."""

    def __init__(self, settings: Settings, store: Any = None) -> None:
        self.settings, self.store = settings, store
        self.small = Lane(SMALL_QUEUE, one_thread)
        is_elsewhere = store is None  # an open store cannot be handed to a process
        make = functools.partial(one_process, settings) if is_elsewhere else one_thread
        self.large, self.encode_large = Lane(settings.api.heavy_queue, make), encode_there
        if not is_elsewhere:
            self.encode_large = functools.partial(encode_listing, store)
        self._statistics: dict[str, dict[str, Any]] = {}  # of the stored features
        self._statistics_due, self._counting = 0.0, threading.Lock()

    def _open(self) -> Any:
        if self.store is None:
            self.store = open_store(self.settings)
        return self.store

    def _group(self, name: str) -> Any:
        from crypto_rt.store.schema import GROUPS

        store = self._open()
        return store and store.get_feature_group(name, GROUPS[name].version)

    def _rows(self, name: str, equal: Mapping[str, Any], query: ListQuery) -> list[Any]:
        group = self._group(name)
        if not group:
            return []
        return group.history(equal, before_ms=query.until, since_ms=query.since, last=query.limit)

    async def rows(self, name: str, equal: Mapping[str, Any], query: ListQuery) -> list[Any]:
        """Return the newest messages of a feature group that a query asks for; none while there is no store.

        Args:
            name: The feature group.
            equal: Columns, `symbol` among them, and what they must be.
            query: The span of time, and how many rows at most.
        """
        try:
            rows: list[Any] = await self.small.do(functools.partial(self._rows, name, equal, query))
            return rows
        except HTTPException:
            raise
        except Exception as error:
            log.warning('%s: %s cannot be read from the store: %s', equal['symbol'], name, error)
            return []

    async def begin(self) -> None:
        """Start the process for large lists, so that the first one has not to wait for it."""
        if self.store is None:
            with contextlib.suppress(Exception):  # the first list tells what is wrong
                await self.large.do(open_there)

    async def messages(self, series: Series) -> list[Any]:
        """Return a series."""
        rows, problems = await self.small.do(lambda: read_series(self._open_or_none(), series))
        self._warn(problems)
        return list(rows)

    async def encoded(self, listing: Listing, is_gone: Callable[[], Awaitable[bool]]) -> Encoded:
        """Return a series as it is answered; a large one is made in a process of its own.

        Args:
            listing: What is asked for.
            is_gone: Tells whether the client has gone meanwhile.
        """
        found: Encoded
        if values_in(listing.series) > HEAVY_VALUES:
            found = await self.large.do(functools.partial(self.encode_large, listing), is_gone)
        else:
            found = await self.small.do(lambda: encode_listing(self._open_or_none(), listing), is_gone)
        self._warn(found.problems)
        return found

    def _open_or_none(self) -> Any:
        try:
            return self._open()
        except Exception as error:
            log.warning('the store cannot be read: %s', error)
            return None

    def _warn(self, problems: tuple[str, ...]) -> None:
        for words in problems:
            log.warning('%s', words)

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Return the statistics of the stored features as last computed.

        When they are old, a thread computes them again.
        """
        if time.monotonic() >= self._statistics_due and self._counting.acquire(blocking=False):
            threading.Thread(target=self._count, name='statistics', daemon=True).start()
        return self._statistics

    def _count(self) -> None:
        try:
            group = self._group('technical_indicators')
            if group and self.settings.store.backend == 'embedded':  # Hopsworks shows statistics of its own
                self._statistics = group.statistics()
        except Exception as error:
            log.warning('the statistics of the features cannot be read from the store: %s', error)
        finally:
            wait = STATISTICS_SECONDS if self._statistics else STATISTICS_RETRY_SECONDS
            self._statistics_due = time.monotonic() + wait
            self._counting.release()

    async def unreadable(self) -> str:
        """Return why the store cannot be read; empty if it can."""
        try:
            opened = await self.small.do(self._open)
        except HTTPException as error:
            return str(error.detail)
        except Exception as error:
            return f'the store cannot be read: {error}'
        return '' if opened is not None else 'there is no feature store yet'

    def close(self) -> None:
        """Let the thread and the process end."""
        self.small.close()
        self.large.close()
