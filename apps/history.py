"""The past: what the feature store holds, read in one thread of its own and never written."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from apps.queries import ListQuery
from crypto_rt.core.settings import Settings

log = logging.getLogger('crypto_rt.api')
STATISTICS_SECONDS = 300.0  # for so long statistics of the store count as new
STATISTICS_RETRY_SECONDS = 10.0  # while there are none


class History:
    """Reads the store; whatever a backend raises, the stream goes on without the past."""

    def __init__(self, settings: Settings, store: Any = None) -> None:
        self.settings, self.store = settings, store
        self.thread = ThreadPoolExecutor(1, 'store')
        self._statistics: dict[str, dict[str, Any]] = {}  # of the stored features
        self._statistics_due, self._counting = 0.0, threading.Lock()

    def _open(self) -> Any:
        from crypto_rt.store.open import has_store, open_feature_store

        if self.store is None and has_store(self.settings):
            self.store = open_feature_store(self.settings)
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
            loop = asyncio.get_running_loop()
            read = functools.partial(self._rows, name, equal, query)
            return await loop.run_in_executor(self.thread, read)
        except Exception as error:
            log.warning('%s: %s cannot be read from the store: %s', equal['symbol'], name, error)
            return []

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
            opened = await asyncio.get_running_loop().run_in_executor(self.thread, self._open)
        except Exception as error:
            return f'the store cannot be read: {error}'
        return '' if opened is not None else 'there is no feature store yet'

    def close(self) -> None:
        """Let the thread end."""
        self.thread.shutdown(wait=False, cancel_futures=True)
