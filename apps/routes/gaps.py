"""`/v1/gaps`: holes in the trade ids."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from apps.context import Context
from apps.queries import GapsQuery, known_symbols
from apps.recent import identity
from apps.responses import json_response, reference, responses_schema
from crypto_rt.core.messages import Gap, latest_revisions

router = APIRouter()


@router.get(
    '/v1/gaps',
    summary='Holes in the trade ids, in the order in which they opened, the latest revision of each',
    responses=responses_schema('gaps', reference(Gap)),
)
async def gaps(query: Annotated[GapsQuery, Query()], context: Context) -> Response:
    symbols = known_symbols(query.symbol, context.hub.symbols)
    rows: list[Gap] = []
    for symbol in symbols:
        rows += await context.history.rows('gaps', {'symbol': symbol}, query)
    rows += [gap for gap in context.hub.gaps.rows.values() if gap.symbol in symbols]
    found = latest_revisions((gap for gap in rows if query.contains(gap.opened_ms)), identity)
    found.sort(key=lambda gap: (gap.opened_ms, gap.symbol, gap.first_missing))
    return json_response({'gaps': found[-query.limit :]})
