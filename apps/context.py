"""What every route may use: the settings, the present (the hub) and the past (the history)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from apps.feature_catalogue import FeatureCatalogue
from apps.history import History
from apps.hub import Hub
from apps.queries import ListQuery, in_range
from apps.recent import identity
from crypto_rt.core.messages import latest_revisions
from crypto_rt.core.settings import Settings


@dataclass(frozen=True)
class ApiContext:
    """One API; kept in `app.state.context`."""

    settings: Settings
    hub: Hub
    history: History
    features: FeatureCatalogue

    async def series(self, group: str, symbol: str, interval_seconds: int, query: ListQuery) -> list[Any]:
        """Return a symbol's messages of the store and the bus, the highest revision of each, oldest first."""
        query.check()
        equal = {'symbol': symbol, 'interval_seconds': interval_seconds}
        stored = await self.history.rows(group, equal, query)
        received = self.hub.recent.structs(group, symbol)
        rows = [*stored, *(r for r in received if r.interval_seconds == interval_seconds)]
        return in_range(latest_revisions(rows, identity), query)


async def _context_of(connection: HTTPConnection) -> ApiContext:
    context: ApiContext = connection.app.state.context
    return context


Context = Annotated[ApiContext, Depends(_context_of)]
