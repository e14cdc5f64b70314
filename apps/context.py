"""What every route may use: the settings, the present (the hub) and the past (the history)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from starlette.requests import HTTPConnection

from apps.feature_catalogue import FeatureCatalogue
from apps.history import History
from apps.hub import Hub
from apps.lanes import Listing, Series
from apps.queries import ListQuery
from crypto_rt.core.settings import Settings


@dataclass(frozen=True)
class ApiContext:
    """One API; kept in `app.state.context`."""

    settings: Settings
    hub: Hub
    history: History
    features: FeatureCatalogue

    def series(self, group: str, symbols: list[str], interval: int | None, query: ListQuery) -> Series:
        """Return what a query asks for of a feature group, with what the bus has brought of it.

        Args:
            group: Its messages are those of the topic of that name.
            symbols: At least one.
            interval: Seconds; None: that of the settings.
            query: The span of time, and how many rows at most.
        """
        seconds, span = interval or self.settings.data.interval_seconds, (query.since, query.until)
        recent = self.hub.recent
        received = [raw for symbol in symbols for raw in recent.raw(group, symbol, span, query.limit)]
        selections = tuple({'symbol': symbol, 'interval_seconds': seconds} for symbol in symbols)
        return Series(group, selections, span=span, limit=query.limit, received=tuple(received))

    async def listed(self, request: Request, name: str, series: Series, **members: Any) -> Response:
        """Return the answer that lists a series.

        Args:
            request: Says whether the client takes gzip, and whether it is still there.
            name: The member that holds the list.
            series: What is listed.
            members: The others.
        """
        takes_gzip = 'gzip' in request.headers.get('accept-encoding', '')
        listing = Listing(series, name, members=members, is_packed=takes_gzip)
        made = await self.history.encoded(listing, request.is_disconnected)
        headers = {'ETag': made.tag, 'Vary': 'Accept-Encoding'}
        if made.is_packed:
            headers['Content-Encoding'] = 'gzip'
        return Response(made.body, 200, headers, 'application/json')


async def _context_of(connection: HTTPConnection) -> ApiContext:
    context: ApiContext = connection.app.state.context
    return context


Context = Annotated[ApiContext, Depends(_context_of)]
