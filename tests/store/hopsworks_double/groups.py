"""Feature groups over REST: their rows by Kafka and their jobs."""

from __future__ import annotations

import json
import re
from typing import Any

from .cluster import Group, Refused
from .routes import HERE, LONGEST_DESCRIPTION, SHELF, STORE, Asked, only, route, unused

EXPAND_GROUP = {'expand': {'features', 'expectationsuite', 'transformationfunctions', 'mandatorytags'}}
GROUP_FIELDS = {
    'id',
    'name',
    'version',
    'description',
    'onlineEnabled',
    'timeTravelFormat',
    'features',
    'featurestoreId',
    'type',
    'statisticsConfig',
    'eventTime',
    'expectationSuite',
    'parents',
    'topicName',
    'notificationTopicName',
    'deprecated',
    'transformationFunctions',
    'ttl',
    'ttlEnabled',
    'sinkEnabled',
    'onlinePartitionColumns',
    'deltaStreamerJobConf',
    'dataSource',
}
FEATURE_FIELDS = {
    'name',
    'type',
    'description',
    'primary',
    'foreign',
    'partition',
    'hudiPrecombineKey',
    'offlineOnly',
    'onlineType',
    'defaultValue',
    'featureGroupId',
    'onDemand',
    'columnName',
    'useFullyQualifiedName',
}


def group_of(asked: Asked, number: str | int) -> Group:
    if int(number) not in asked.cluster.groups:
        raise Refused(404, 270009, f'no feature group {number}')
    return asked.cluster.groups[int(number)]


@route('GET', f'{SHELF}/featuregroups/(?P<name>[a-z][a-z0-9_]*)', version=None, **EXPAND_GROUP)
def get_group(asked: Asked, name: str) -> Any:
    version = int(asked.query['version'][0])
    found = [
        g.dto for g in asked.cluster.groups.values() if (g.dto['name'], g.dto['version']) == (name, version)
    ]
    if not found:
        raise Refused(404, 270009, f'no feature group {name} version {version}')
    return found


@route('POST', f'{SHELF}/featuregroups', **EXPAND_GROUP)
def create_group(asked: Asked) -> Any:
    body = asked.body
    only(body, GROUP_FIELDS, 'a feature group')
    unused(
        body,
        (
            'id',
            'expectationSuite',
            'parents',
            'topicName',
            'notificationTopicName',
            'transformationFunctions',
            'ttl',
            'sinkEnabled',
        ),
        'a feature group',
    )
    unused(body.get('dataSource') or {}, tuple(body.get('dataSource') or ()), 'a data source')
    if (
        body['type'] != 'streamFeatureGroupDTO'
        or body['timeTravelFormat'] != 'HUDI'
        or body['featurestoreId'] != STORE
    ):
        raise Refused(
            501, 0, f'only stream groups of HUDI are known, was {body["type"]} of {body["timeTravelFormat"]}'
        )
    for feature in body['features']:
        only(feature, FEATURE_FIELDS, 'a feature')
        if len(feature.get('description') or '') > LONGEST_DESCRIPTION:
            raise Refused(400, 270093, f'the description of {feature["name"]} is too long')
    if len(body.get('description') or '') > LONGEST_DESCRIPTION or not re.fullmatch(
        '[a-z][a-z0-9_]{0,62}', body['name']
    ):
        raise Refused(400, 270093, 'illegal name or description')
    if any(
        (g.dto['name'], g.dto['version']) == (body['name'], body['version'])
        for g in asked.cluster.groups.values()
    ):
        raise Refused(400, 270089, f'feature group {body["name"]} version {body["version"]} already exists')
    types = {f['name']: f['type'] for f in body['features']}
    if body['eventTime'] and types.get(body['eventTime']) not in ('bigint', 'timestamp', 'date'):
        raise Refused(400, 270150, 'the event time must be a timestamp, a date or a bigint')
    number = next(asked.cluster.numbers)
    place = f'hopsfs://namenode:8020/apps/hive/warehouse/{asked.cluster.project}_featurestore.db/{body["name"]}_{body["version"]}'
    asked.cluster.groups[number] = Group(
        number, {k: v for k, v in body.items() if k != 'dataSource'}, asked.cluster.topic, place
    )
    return asked.cluster.groups[number].dto


@route('PUT', f'{SHELF}/featuregroups/(?P<number>\\d+)', updateMetadata={'True', 'true'})
def append_features(asked: Asked, number: str) -> Any:
    for feature in asked.body['features']:
        only(feature, FEATURE_FIELDS, 'a feature')
    group = group_of(asked, number)
    group.append([dict(feature) for feature in asked.body['features']])
    return group.dto


@route('POST', f'{SHELF}/featuregroups/(?P<number>\\d+)/updatetableschema')
def update_table_schema(asked: Asked, number: str) -> Any:
    return job_dto(group_of(asked, number), f'{group_of(asked, number).job}{SCHEMA_JOB}')


@route('DELETE', f'{SHELF}/featuregroups/(?P<number>\\d+)')
def delete_group(asked: Asked, number: str) -> Any:
    asked.cluster.drain()
    del asked.cluster.groups[group_of(asked, number).dto['id']]


@route('GET', f'{SHELF}/kafka/subjects/(?P<name>[a-z0-9_]+)/versions/latest')
def subject(asked: Asked, name: str) -> Any:
    for group in asked.cluster.groups.values():
        if f'{group.dto["name"]}_{group.dto["version"]}' == name:
            return {
                'id': group.dto['id'] + 5000,
                'subject': name,
                'version': 1,
                'schema': json.dumps(group.schema),
            }
    raise Refused(404, 40401, f'no subject {name}')


@route('GET', f'{SHELF}/storageconnectors/kafka_connector/byok', external={'True', 'true'})
def kafka_connector(asked: Asked) -> Any:
    return {
        'type': 'featurestoreKafkaConnectorDTO',
        'id': 1,
        'name': 'kafka_connector',
        'featurestoreId': STORE,
        'storageConnectorType': 'KAFKA',
        'bootstrapServers': asked.cluster.shown_broker,
        'securityProtocol': 'PLAINTEXT',
        'sslEndpointIdentificationAlgorithm': '',
        'externalKafka': True,
        'options': [],
    }


@route('POST', f'{SHELF}/featuregroups/(?P<number>\\d+)/online_ingestion')
def start_ingestion(asked: Asked, number: str) -> Any:
    only(asked.body, {'id', 'numEntries'}, 'an online ingestion')
    group, new = group_of(asked, number), next(asked.cluster.numbers)
    if not group.dto['onlineEnabled']:
        raise Refused(400, 270100, 'the group is not online')
    group.ingestions[new] = {'entries': asked.body['numEntries'], 'seen': 0}
    return {'id': new, 'numEntries': asked.body['numEntries'], 'results': []}


@route('GET', f'{SHELF}/featuregroups/(?P<number>\\d+)/online_ingestion', filter_by=None)
def get_ingestion(asked: Asked, number: str) -> Any:
    asked.cluster.drain()
    wanted = int(asked.query['filter_by'][0].removeprefix('ID:'))
    found = group_of(asked, number).ingestions[wanted]
    done = 0 if asked.cluster.hold_online else found['seen']
    return {
        'count': 1,
        'items': [
            {
                'id': wanted,
                'numEntries': found['entries'],
                'results': [{'onlineIngestionId': wanted, 'status': 'UPSERTED', 'rows': done}],
            }
        ],
    }


SCHEMA_JOB = '_update_table_schema'  # ends what the name of such a job ends with; the double has none running


def job_of(asked: Asked, name: str) -> Group:
    for group in asked.cluster.groups.values():
        if group.job == name:
            return group
    raise Refused(404, 130009, f'no job {name}')


@route('GET', f'{HERE}/jobs/(?P<name>[a-z0-9_]+)', expand={'creator'})
def get_job(asked: Asked, name: str) -> Any:
    return job_dto(job_of(asked, name), name)


def job_dto(group: Group, name: str) -> Any:
    return {
        'id': group.dto['id'] + 9000,
        'name': name,
        'creationTime': '2026-01-01T00:00:00Z',
        'jobType': 'SPARK',
        'config': {
            'type': 'sparkJobConfiguration',
            'defaultArgs': f'-op offline_fg_materialization -path hdfs:///{name}.json',
        },
        'creator': {'email': 'double@double.invalid'},
    }


@route('POST', f'{HERE}/jobs/(?P<name>[a-z0-9_]+)/executions')
def start_job(asked: Asked, name: str) -> Any:
    return asked.cluster.run_job(job_of(asked, name).job)


@route('GET', f'{HERE}/jobs/(?P<name>[a-z0-9_]+)/executions', limit={'1'}, sort_by={'submissiontime:desc'})
def last_job(asked: Asked, name: str) -> Any:
    if name.endswith(SCHEMA_JOB):
        return {'count': 0}
    done = asked.cluster.executions.get(job_of(asked, name).job, [])
    return {'count': len(done), 'items': done[-1:]} if done else {'count': 0}


@route('GET', f'{HERE}/jobs/(?P<name>[a-z0-9_]+)/executions/(?P<number>\\d+)')
def one_execution(asked: Asked, name: str, number: str) -> Any:
    return next(e for e in asked.cluster.executions[job_of(asked, name).job] if e['id'] == int(number))
