"""What the benches share: a process that has done nothing before, and a verdict on ratios.

A rate says more about the machine, and about who else uses it, than about the program. So every rate is
measured beside
another way of doing the same, in the same run and in turns where that is possible, and only their ratio is
judged.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple


class Bound(NamedTuple):
    "What a ratio must keep; the other one of the two is open."

    at_least: float | None = None
    at_most: float | None = None


def judged(
    figures: dict[str, Any],
    **ratios: tuple[float, Bound],  # what was measured, and what it must keep
) -> dict[str, Any]:
    "Return the figures with a verdict: `ok`, and each ratio with its bound."
    found = {}
    for name, (value, bound) in ratios.items():
        low, high = bound.at_least, bound.at_most
        good = (low is None or value >= low) and (high is None or value <= high)
        limits = {key: limit for key, limit in bound._asdict().items() if limit is not None}
        found[name] = {'was': round(value, 3), **limits, 'ok': bool(good)}
    return {'ok': all(each['ok'] for each in found.values()), 'ratios': found, **figures}


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    "Return what a function of a module returns in a new interpreter."
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        return pool.submit(function, *arguments).result()
