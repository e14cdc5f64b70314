"""What the double remembers: groups, views, jobs, and the rows that came over Kafka. It knows the client's protocol and nothing of crypto-rt."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import operator
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import fastavro
import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

AVRO = {'string': 'string', 'bigint': 'long', 'int': 'int', 'double': 'double', 'boolean': 'boolean'}
ARROW = {
    'string': pa.string(),
    'bigint': pa.int64(),
    'int': pa.int32(),
    'double': pa.float64(),
    'boolean': pa.bool_(),
}
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    'EQUALS': operator.eq,
    'NOT_EQUALS': operator.ne,
    'GREATER_THAN': operator.gt,
    'GREATER_THAN_OR_EQUAL': operator.ge,
    'LESS_THAN': operator.lt,
    'LESS_THAN_OR_EQUAL': operator.le,
}
READ: dict[str, Callable[[str], Any]] = {
    'bigint': int,
    'int': int,
    'double': float,
    'string': str,
    'boolean': lambda text: text.lower() == 'true',
}


class Refused(Exception):
    "An answer that is no success: status, Hopsworks's error code and a message."

    def __init__(self, status: int, code: int, message: str):
        super().__init__(message)
        self.status, self.code = status, code


class Fault(NamedTuple):
    "What goes wrong with the next requests whose `METHOD path` contains `where`."

    where: str
    status: int = 0  # 0: answer as usual
    wait_seconds: float = 0.0  # before the answer
    after: bool = False  # whether the request is carried out before the status is sent


class Group:
    "A stream feature group: its metadata, its offline table, its online table."

    def __init__(self, number: int, body: Mapping[str, Any], topic: str, location: str):
        features = [dict(f) for f in body['features']]
        if not any(f.get('hudiPrecombineKey') for f in features):
            next(f for f in features if f['primary'])['hudiPrecombineKey'] = True
        for feature in features:
            text = 'varchar(100)' if feature['type'] == 'string' else feature['type']
            feature['onlineType'] = feature.get('onlineType') or (text if body['onlineEnabled'] else None)
        self.dto = {
            **body,
            'id': number,
            'features': features,
            'onlineTopicName': topic,
            'location': location,
            'featurestoreName': 'featurestore',
        }
        self.types = {f['name']: f['type'] for f in features}
        self.key = tuple(sorted(f['name'] for f in features if f['primary']))
        self.event_time = body.get('eventTime')
        self.job = f'{body["name"]}_{body["version"]}_offline_fg_materialization'
        self.staged: list[dict[str, Any]] = []
        self.offline: dict[tuple[Any, ...], dict[str, Any]] | None = None
        self.online: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.ingestions: dict[int, dict[str, int]] = {}

    def append(self, features: list[dict[str, Any]]) -> None:
        "Take new features behind those there are; what is stored has null in them."
        known = [feature['name'] for feature in self.dto['features']]
        if [f['name'] for f in features[: len(known)]] != known:
            raise Refused(400, 270074, 'only features at the end can be added')
        for feature in features[len(known) :]:
            if feature['primary'] or feature['name'] in known:
                raise Refused(400, 270074, f'{feature["name"]} cannot be added')
            text = 'varchar(100)' if feature['type'] == 'string' else feature['type']
            feature['onlineType'] = feature.get('onlineType') or (text if self.dto['onlineEnabled'] else None)
            self.dto['features'].append(feature)
            self.types[feature['name']] = feature['type']
            for row in [*self.staged, *(self.offline or {}).values(), *self.online.values()]:
                row.setdefault(feature['name'], None)

    @property
    def schema(self) -> dict[str, Any]:
        "The Avro schema of the group's subject."
        fields = [{'name': name, 'type': ['null', AVRO[type_]]} for name, type_ in self.types.items()]
        return {
            'type': 'record',
            'name': f'{self.dto["name"]}_{self.dto["version"]}',
            'namespace': 'double.avsc',
            'fields': fields,
        }

    def key_of(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.key)

    def take_online(self, row: dict[str, Any], if_newer: bool) -> None:
        "Write a row as the online store does: over what is there, or with `if_newer` over what is not newer."
        old = self.online.get(self.key_of(row))
        if not (if_newer and old and self.event_time and row[self.event_time] < old[self.event_time]):
            self.online[self.key_of(row)] = row

    def materialize(self) -> None:
        "Upsert what the topic brought; the record key is primary key and event time."
        table = self.offline = self.offline or {}
        for row in self.staged:
            table[(*self.key_of(row), row[self.event_time] if self.event_time else None)] = row
        self.staged = []


class Cluster:
    "All state, behind one lock."

    def __init__(self, broker: str, project: str = 'crypto_rt', domain: str = 'double.invalid'):
        self.broker, self.shown_broker, self.project, self.domain = broker, broker, project, domain
        self.api_key, self.secret = secrets.token_urlsafe(24), secrets.token_bytes(16)
        self.topic = f'{project}_onlinefs_{secrets.token_hex(4)}'
        self.lock = threading.RLock()
        self.groups: dict[int, Group] = {}
        self.views: dict[tuple[str, int], dict[str, Any]] = {}
        self.executions: dict[str, list[dict[str, Any]]] = {}
        self.faults: list[Fault] = []
        self.asked: list[str] = []  # method and path of each request
        self.unknown: list[str] = []  # what was asked and is not known: a test fails on it
        self.job_states: list[str] = []  # of the next executions; else they finish well
        self.hold_online = False  # late ingestion: nothing reaches the online store
        self.duplicate = False  # each record arrives twice
        self.headers: list[dict[str, str]] = []  # of each record that came
        self.numbers = iter(range(101, 1 << 30))
        self._start_consumer()

    def _start_consumer(self) -> None:
        admin = AdminClient({'bootstrap.servers': self.broker})
        for made in admin.create_topics([NewTopic(self.topic, 2, 1)]).values():
            made.result(20)
        self.consumer = Consumer(
            {
                'bootstrap.servers': self.broker,
                'group.id': f'double-{secrets.token_hex(4)}',
                'enable.auto.commit': False,
                'fetch.wait.max.ms': 20,
            }
        )
        self.reached = {0: 0, 1: 0}
        self.consumer.assign([TopicPartition(self.topic, number, 0) for number in self.reached])

    def close(self) -> None:
        "Stop reading the topic."
        self.consumer.close()

    # --- what came over the topic

    def drain(self) -> None:
        "Take what the topic holds by now."
        with self.lock:
            ends = {
                n: self.consumer.get_watermark_offsets(TopicPartition(self.topic, n), timeout=10)[1]
                for n in self.reached
            }
            stop = time.monotonic() + 20
            while any(self.reached[n] < ends[n] for n in ends):
                if time.monotonic() > stop:
                    raise TimeoutError(f'the double read {self.reached} of {ends}')
                for message in self.consumer.consume(5000, 0.05):
                    if message.error():
                        raise RuntimeError(str(message.error()))
                    self.reached[message.partition()] = message.offset() + 1
                    for _ in range(2 if self.duplicate else 1):
                        self._take(dict(message.headers()), message.key(), message.value())

    def _take(self, headers: dict[str, bytes], key: bytes, value: bytes) -> None:
        known = {'projectId', 'featureGroupId', 'subjectId', 'onlineIngestionId', 'storage', 'upsertIfNewer'}
        if extra := set(headers) - known:
            self.unknown.append(f'Kafka header {sorted(extra)}')
        if (group := self.groups.get(int(headers['featureGroupId']))) is None:
            return  # deleted since
        with io.BytesIO(value) as stream:
            row = fastavro.schemaless_reader(stream, fastavro.parse_schema(group.schema))
            if stream.read(1):
                self.unknown.append(f'bytes after the Avro row of {group.dto["name"]}')
        if key.decode() != ''.join(str(row[name]) for name in group.key):
            self.unknown.append(f'Kafka key {key!r} of {group.dto["name"]}')
        self.headers.append({name: text.decode() for name, text in headers.items()})
        group.staged.append(row)
        if number := headers.get('onlineIngestionId'):
            group.ingestions[int(number)]['seen'] += 1
        if headers.get('storage') != b'offline' and not self.hold_online:
            group.take_online(row, headers.get('upsertIfNewer') == b'1')

    # --- jobs

    def run_job(self, name: str) -> dict[str, Any]:
        "Run a materialization job at once; `job_states` says how the next ones end."
        group = next((g for g in self.groups.values() if g.job == name), None)
        if group is None:
            raise Refused(404, 130009, f'no job {name}')
        state = self.job_states.pop(0) if self.job_states else 'FINISHED'
        if state == 'FINISHED':
            self.drain()
            group.materialize()
        done = {
            'id': next(self.numbers),
            'state': state,
            'finalStatus': {'FINISHED': 'SUCCEEDED', 'RUNNING': 'UNDEFINED'}.get(state, 'FAILED'),
            'submissionTime': '2026-01-01T00:00:00.000Z',
            'progress': 1.0,
            'duration': 1,
        }
        self.executions.setdefault(name, []).append(done)
        return done

    # --- offline reads

    def sign(self, payload: str) -> str:
        return hmac.new(self.secret, payload.encode(), hashlib.sha256).hexdigest()

    def read(self, payload: str) -> pa.Table:
        "Answer a query that this cluster has signed."
        asked = json.loads(payload)
        group = self.groups[asked['group']]
        if group.offline is None:
            raise LookupError(
                f'No hudi properties found for featuregroup {group.dto["name"]}_{group.dto["version"]}'
            )
        rows = [row for row in group.offline.values() if passes(asked['filter'], row, group.types)]
        names = asked['names']
        return pa.table(
            {name: pa.array([row[name] for row in rows], ARROW[group.types[name]]) for name in names}
        )


def passes(logic: Mapping[str, Any] | None, row: Mapping[str, Any], types: Mapping[str, str]) -> bool:
    "Tell whether a row meets a filter, as SQL does: null meets nothing."
    if logic is None:
        return True
    parts = [_compare(logic[side], row, types) for side in ('leftFilter', 'rightFilter') if logic[side]]
    parts += [passes(logic[side], row, types) for side in ('leftLogic', 'rightLogic') if logic[side]]
    return any(parts) if logic['type'] == 'OR' else all(parts)


def _compare(test: Mapping[str, Any], row: Mapping[str, Any], types: Mapping[str, str]) -> bool:
    name = test['feature']['name']
    return row[name] is not None and COMPARE[test['condition']](row[name], READ[types[name]](test['value']))
