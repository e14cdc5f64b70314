"""How answers are encoded, and how OpenAPI describes them."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI, Response

from apps import problems
from crypto_rt.core.messages import Candle, Gap, News, NewsSignal, Prediction, TechnicalIndicators

MESSAGES = [Candle, TechnicalIndicators, Prediction, Gap, News, NewsSignal]  # that lists are made of
SCHEMA = '#/components/schemas/{name}'
STORY = {'$ref': SCHEMA.format(name='Story')}
ResponsesSchema = dict[int | str, dict[str, Any]]


def json_response(body: Any, status: int = 200) -> Response:
    """Return a JSON answer, encoded by msgspec."""
    return Response(msgspec.json.encode(body), status, media_type='application/json')


def reference(message: type) -> dict[str, Any]:
    """Return a reference to the schema of one of our messages."""
    return {'$ref': SCHEMA.format(name=message.__name__)}


def responses_schema(name: str, row: dict[str, Any]) -> ResponsesSchema:
    """Return the OpenAPI words for a list of rows.

    Args:
        name: The member that holds the list.
        row: The schema of one row.
    """
    answer = {'type': 'object', 'required': [name], 'properties': {name: {'type': 'array', 'items': row}}}
    return {200: {'content': {'application/json': {'schema': answer}}}}


def story_schema(news: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a story with its signals: that of the message, without its `type`.

    Args:
        news: The schema of the message.
    """
    signals = {'type': 'array', 'items': reference(NewsSignal)}
    properties = {name: schema for name, schema in news['properties'].items() if name != 'type'}
    required = [name for name in news['required'] if name != 'type']
    return {
        **news,
        'title': 'Story',
        'properties': {**properties, 'signals': signals},
        'required': [*required, 'signals'],
    }


def describe_messages(app: FastAPI) -> None:
    """Put the schemas of our messages into the OpenAPI document."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        is_first = app.openapi_schema is None
        document = make()
        if is_first:
            _, schemas = msgspec.json.schema_components(MESSAGES, ref_template=SCHEMA)
            kept = document.setdefault('components', {}).setdefault('schemas', {})
            kept.update(schemas, Problem=problems.SCHEMA, Story=story_schema(schemas['News']))
            for unused in ('HTTPValidationError', 'ValidationError'):
                kept.pop(unused, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
