"""What a request asks, and the list of endpoints: one function each, with the queries and fields it knows.

Anything else is answered 501 and remembered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .certificates import Certificates
from .cluster import Cluster, Refused

PROJECT, STORE = 119, 67
HERE = rf'/hopsworks-api/api/project/{PROJECT}'
SHELF = f'{HERE}/featurestores/{STORE}'
LONGEST_DESCRIPTION = 256


class Asked(NamedTuple):
    "One request."

    cluster: Cluster
    certificates: Certificates
    query: Mapping[str, list[str]]
    body: Any


class Route(NamedTuple):
    "An endpoint."

    method: str
    path: re.Pattern[str]
    query: Mapping[str, set[str] | None]  # name to the values it may have; None: any
    answer: Callable[..., Any]


ROUTES: list[Route] = []


def route(
    method: str, path: str, **query: set[str] | None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    "Register the function that answers an endpoint."

    def register(answer: Callable[..., Any]) -> Callable[..., Any]:
        ROUTES.append(Route(method, re.compile(path), query, answer))
        return answer

    return register


def only(body: Mapping[str, Any], known: set[str], what: str) -> None:
    "Refuse a body with a field that the double does not know."
    if extra := set(body) - known:
        raise Refused(501, 0, f'{what} has unknown fields {sorted(extra)}')


def unused(body: Mapping[str, Any], names: tuple[str, ...], what: str) -> None:
    "Refuse a body that uses what the double does not do."
    if used := [name for name in names if body.get(name)]:
        raise Refused(501, 0, f'{what} uses {used}')
