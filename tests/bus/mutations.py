"""Bytes that nobody should send: made of good messages, by seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from crypto_rt.core.messages import News, NewsSignal, NewsWatermark, decode, encode

STRANGER = (
    'FUZZ/USD'  # the symbol of what fits its schema by chance: nobody can tell its content from a true one
)
HUGE = (
    10**12,
    10**12 + 1,
    2**62,
    2**62 + 1,
    2**63 - 1,
    2**63,
    2**64,
    -(2**63) - 1,
    10**400,
    -1,
    2**53 + 1,
    0,
    10**13,
)
ODD = (None, True, False, [], {}, '', 'NaN', [[]], {'a': {}}, 1.5, -0.0, 'x' * 70_000, '\u0000', 10**30)
NUMBERS = (
    b'NaN',
    b'Infinity',
    b'-Infinity',
    b'1e999',
    b'-1e999',
    b'1e-999',
    b'0x10',
    b'01',
    b'1.',
    b'+1',
    b'1_000',
)


def paths(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    "Yield the place of every value in a JSON document."
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield (*here, name)
        yield from paths(inner, (*here, name))


def changed(rng: random.Random, raw: bytes, new: Any) -> bytes:
    "Return a message with one value replaced."
    whole = json.loads(raw)
    *where, last = rng.choice(list(paths(whole)))
    inner = whole
    for name in where:
        inner = inner[name]
    inner[last] = new
    return json.dumps(whole).encode()


def bit_flips(rng: random.Random, raw: bytes, other: bytes) -> bytes:
    out = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 8))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def truncation(rng: random.Random, raw: bytes, other: bytes) -> bytes:
    return raw[: rng.randrange(len(raw))]


def splice(rng: random.Random, raw: bytes, other: bytes) -> bytes:
    return raw[: rng.randrange(len(raw))] + other[rng.randrange(len(other)) :]


def duplicate_key(rng: random.Random, raw: bytes, other: bytes) -> bytes:
    name, value = rng.choice(list(json.loads(rng.choice((raw, other))).items()))
    again = f'{json.dumps(name)}:{json.dumps(value if rng.random() < 0.5 else rng.choice(ODD))}'.encode()
    return b'{' + again + b',' + raw[1:] if rng.random() < 0.5 else raw[:-1] + b',' + again + b'}'


def huge_integer(rng: random.Random, raw: bytes, other: bytes) -> bytes:
    whole = json.loads(raw)
    numbers = [
        p for p in paths(whole) if isinstance(_at(whole, p), int) and not isinstance(_at(whole, p), bool)
    ]
    *where, last = rng.choice(numbers or list(paths(whole)))
    _at(whole, where)[last] = rng.choice(HUGE)
    return json.dumps(whole).encode()


def odd_number(rng: random.Random, raw: bytes, other: bytes) -> bytes:
    return changed(rng, raw, 'NUMBER').replace(b'"NUMBER"', rng.choice(NUMBERS))


def nesting(rng: random.Random, raw: bytes, other: bytes) -> bytes:
    depth = rng.choice((3, 65, 1_500, 50_000))
    deep = rng.choice((b'[' * depth + b']' * depth, b'{"a":' * depth + b'1' + b'}' * depth, b'[' * depth))
    return rng.choice(
        (deep, b'{"x":' + deep + b',' + raw[1:], changed(rng, raw, 'DEEP').replace(b'"DEEP"', deep))
    )


def wrong_type(rng: random.Random, raw: bytes, other: bytes) -> bytes:
    return changed(rng, raw, rng.choice(ODD))


def empty(rng: random.Random, raw: bytes, other: bytes) -> bytes:
    return rng.choice((b'', b' ', b'null', b'{}', b'[]', b'\x00', b'""', b'0'))


def of_another_topic(rng: random.Random, raw: bytes, other: bytes) -> bytes:
    return other


def end_marker(rng: random.Random, raw: bytes, other: bytes) -> bytes:
    return rng.choice(
        (
            b'{"type":"end"',
            b'{"type":"end","run_id":',
            b'{"type":"end","run_id":7}',
            b'{"type":"end"}',
            b'{"run_id":"x","type":"end"}',
            b'{"type":"end",' + raw[1:],
            b'{"type" : "end", "run_id":"x"}',
            b'{"type":"end","run_id":"' + b'x' * 5000 + b'"}',
            b'{"type":"end","run_id":"x"}junk',
        )
    )


def junk(rng: random.Random, raw: bytes, other: bytes) -> bytes:
    return rng.randbytes(900_000 if rng.random() < 0.02 else rng.randrange(1, 300))


KINDS = (
    bit_flips,
    truncation,
    splice,
    duplicate_key,
    huge_integer,
    odd_number,
    nesting,
    wrong_type,
    empty,
    of_another_topic,
    end_marker,
    junk,
)
BAD_KEYS = (b'\xff', b'BTC\xc3\x28', b'\xed\xa0\x80', b'\xf8\x88\x80\x80\x80', b'x' * 9_000, b'\x80/USD')


def strangers(topic: str, raw: bytes, number: int) -> bytes:
    "Return a mutant; one that fits its schema by chance is told of something that no good message tells of."
    try:
        found = decode(topic, raw)
    except ValueError:
        return raw
    fields = getattr(found, '__struct_fields__', ())
    if 'symbol' in fields:
        return encode(msgspec.structs.replace(found, symbol=STRANGER))
    if isinstance(found, News):
        return encode(msgspec.structs.replace(found, news_id=f'fuzz-{number}'))
    if isinstance(found, NewsSignal):
        return encode(msgspec.structs.replace(found, news_id=f'fuzz-{number}', scorer='fuzz'))
    if isinstance(found, NewsWatermark):
        return b'{"type":"news_mark"}'
    return raw


def mutants(
    seed: int,
    topic: str,
    good: Sequence[bytes],  # messages of the topic
    others: Sequence[bytes],  # of other topics
    count: int,
) -> Iterator[tuple[bytes, bytes]]:  # key and value
    "Yield what may come on a topic between good messages; every kind in turn, every thirteenth a good value by a bad key."
    rng = random.Random(seed)
    for number in range(count):
        raw = rng.choice(good)
        if number % 13 == 12:
            yield rng.choice(BAD_KEYS), raw
            continue
        kind = KINDS[number % 13]
        other = rng.choice(others if kind is of_another_topic else (*good, *others))
        made = strangers(topic, kind(rng, raw, other), number)
        key = rng.choice(BAD_KEYS) if rng.random() < 0.05 else STRANGER.encode()
        yield key, made


def _at(value: Any, path: Sequence[Any]) -> Any:
    for name in path:
        value = value[name]
    return value
